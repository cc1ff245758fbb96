"""The script that writes tables of scores: from result files to Markdown."""
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture
def tables(monkeypatch, tmp_path) -> ModuleType:
    """The script, with nothing measured yet."""
    spec = importlib.util.spec_from_file_location('update_tables', ROOT / 'scripts' / 'update_tables.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measured = {'tests': {}, 'speed': {}}
    monkeypatch.setattr(module, 'measured_results', lambda: measured)
    monkeypatch.setattr(module, 'MEASURED', tmp_path / 'measured.json')
    return module


@pytest.fixture
def results(tmp_path) -> Path:
    """A folder of results with one test that a table names, and another one."""
    for test in ('test_FSTRN_small_x4', 'test_of_mine'):
        path = tmp_path / 'results' / test / 'vid4.json'
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({'dataset': 'vid4', 'model': test, 'average': {
            'psnr': {'all': 25.126, 'vsr': 25.126}, 'ssim': {'all': 0.71239, 'vfi': None}}}))
    return tmp_path / 'results'


def test_scores_of_result_files(tables, results):
    tables.collect(results)
    assert list(tables.scores_table('fstrn')) == [
        '| method | PSNR / SSIM |', '|---|---|', '| bicubic | – / – |', '| FSTRN small | 25.13 / 0.712 |']
    written = json.loads(tables.MEASURED.read_text())
    assert written['tests'] == {'test_FSTRN_small_x4': {
        'vid4': {'psnr': {'all': 25.126, 'vsr': 25.126}, 'ssim': {'all': 0.7124}}}}


def test_a_folder_without_results(tables, tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing has no result of test_AdaptiveGAN_small_x4, '):
        tables.collect(tmp_path / 'nothing')


def test_speeds_appear_when_they_were_measured(tables):
    assert '| model | for | makes | PSNR | bicubic |' in tables.models_table()
    assert tables.speed_note() == ''
    tables.measured_results()['speed'] = {'machine': 'My CPU, 2 threads', 'models': {'fisr-small': 1.5}}
    assert '| model | for | makes | PSNR | bicubic | frames/s |' in tables.models_table()
    rows = {row.split('`')[1]: row for row in list(tables.models_table())[2:]}
    assert rows['fisr-small'].endswith('| 1.5 |') and rows['mbnet-small'].endswith('| – |')
    assert 'My CPU, 2 threads' in tables.speed_note()


def test_tables_are_filled_between_their_comments(tables):
    text = 'a\n<!-- table speed-note, by scripts/update_tables.py -->\nold\n<!-- end of table -->\nb\n'
    assert tables.with_tables(text) == text.replace('old\n', '')
    with pytest.raises(KeyError, match='no-such'):
        tables.with_tables(text.replace('speed-note', 'no-such'))
