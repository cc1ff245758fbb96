"""The files for the zoos of OpenMMLab and BasicSR, as they are in the repository."""
import pytest
import yaml
from conftest import ROOT

from basicsr_stvsr.version import __version__
from basicsr_stvsr.zoo.papers import SYSTEMS
from basicsr_stvsr.zoo.table import ZOO, Entry

# The fields of the package model-index 0.1.11, and those that mmagic's metafiles have besides
COLLECTION = {'Name', 'Metadata', 'Paper', 'Code', 'README', 'Task', 'Year'}
MODEL = {'Name', 'In Collection', 'Metadata', 'Results', 'Paper', 'Code', 'Weights', 'Config', 'README', 'Image'}


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding='utf-8'))


@pytest.mark.parametrize('path', read('model-index.yml')['Import'])
def test_metafiles_have_the_fields_of_model_index(path):
    found = read(path)
    collection, = found['Collections']
    assert collection['Name'] and collection.keys() <= COLLECTION and collection['Paper']['Title']
    assert ((ROOT / path).parent / collection['README']).is_file()
    assert found['Models']
    for model in found['Models']:
        assert model.keys() <= MODEL and model['In Collection'] == collection['Name']
        assert (ROOT / model['Config']).is_file() and (ROOT / model['Weights']).is_file()
        assert model['Metadata']['Parameters'] == ZOO[model['Name']].parameters
        for result in model['Results']:
            assert result.keys() == {'Task', 'Dataset', 'Metrics'}
            assert all(isinstance(value, float) for value in result['Metrics'].values())


def test_every_network_of_the_zoo_is_offered():
    metafiles = [read(path) for path in read('model-index.yml')['Import']]
    assert [model['Name'] for found in metafiles for model in found['Models']] == list(ZOO)
    rows = (ROOT / 'configs' / 'basicsr.md').read_text(encoding='utf-8')
    assert '| FSTRN_small_clips_x4-c56e3bb9 | [Vid4 (frames 0-12)] (Y) 24.83/0.724 |' in rows


@pytest.mark.parametrize(('name', 'entry'), ZOO.items(), ids=ZOO)
def test_configs_build_the_networks_of_the_weights(name: str, entry: Entry):
    config = pytest.importorskip('mmengine.config').Config
    found = config.fromfile(ROOT / 'configs' / entry.system / f'{name.replace("-", "_")}.py')
    assert found.model.network_g.to_dict() == entry.network
    assert found.model.type == 'RecipeModel' and found.train_cfg.max_iters


@pytest.mark.parametrize('system', SYSTEMS.values(), ids=SYSTEMS)
def test_pages_and_cards_have_the_citation(system):
    for page in (system.page, 'model_zoo'):
        text = (ROOT / 'docs' / f'{page}.md').read_text(encoding='utf-8')
        assert all(f'@{paper.kind}{{{paper.key},' in text and paper.title in text for paper in system.papers)


def test_citation_file():
    found = read('CITATION.cff')
    assert found['version'] == __version__ and found['cff-version'] == '1.2.0' and found['authors']
    hoffr, = (each for each in found['references'] if 'frame-recurrent' in each['title'])
    assert hoffr['authors'] == [{'name': 'Fang, Zhan'}]
    assert (hoffr['journal'], hoffr['volume'], hoffr['year']) == ('Neurocomputing', 489, 2022)
