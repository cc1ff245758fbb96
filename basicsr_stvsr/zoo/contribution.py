"""Files for the zoos of OpenMMLab and BasicSR, written by scripts/update_tables.py.

`configs/<system>` has what mmagic keeps for a method: README.md, metafile.yml and configs. `model-index.yml` lists the
metafiles, in the format of the package model-index. `configs/basicsr.md` has the rows of BasicSR's page ModelZoo.md.
`CITATION.cff` says how to cite this package and the papers.
"""
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from pprint import pformat
from typing import Any

import yaml

from ..version import __version__
from .cards import FRAMES, basicsr_row, cells, facts, gflops, row, table
from .papers import SYSTEMS, Paper, System, citation
from .table import ZOO, Entry, Score

WRITTEN = 'Written by scripts/update_tables.py from the table in basicsr_stvsr/zoo/table.py'
WEIGHTS = PurePosixPath('basicsr_stvsr/weights')


def contribution() -> dict[str, str]:
    """Return the text of every file, by its path in the repository."""
    files = {}
    for name, system in SYSTEMS.items():
        models = {model: entry for model, entry in ZOO.items() if entry.system == name}
        folder = f'configs/{name}'
        files[f'{folder}/README.md'] = readme(name, system, models)
        files[f'{folder}/metafile.yml'] = dump(metafile(name, system, models))
        for model, entry in models.items():
            files[f'{folder}/{config_of(model)}'] = config(model, entry)
    files['model-index.yml'] = dump({'Import': [f'configs/{name}/metafile.yml' for name in SYSTEMS]})
    files['configs/basicsr.md'] = basicsr_page()
    files['CITATION.cff'] = dump(citation_file())
    return files


def config_of(model: str) -> str:
    return f'{model.replace("-", "_")}.py'


def dump(value: Any) -> str:
    return f'# {WRITTEN}\n{yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)}'


# ---------------------------------------------------------------- OpenMMLab

def config(model: str, entry: Entry) -> str:
    network = pformat({'_delete_': True, **entry.network}, width=100, sort_dicts=False)
    indented = network.replace('\n', f'\n{" " * len("model = dict(network_g=")}')
    return f'''\
# {WRITTEN}
# {model}: {entry.about}
_base_ = ['../../options/mmengine/{config_of(model)}']

model = dict(network_g={indented})
'''


def metafile(name: str, system: System, models: dict[str, Entry]) -> dict[str, Any]:
    paper = system.papers[0]
    about: dict[str, Any] = {
        'Name': system.name, 'README': 'README.md', 'Task': [system.task],
        'Paper': {'Title': paper.title, **({'URL': paper.url} if paper.url else {})}}
    if 'year' in paper.facts:
        about['Year'] = int(paper.facts['year'])
    return {'Collections': [about], 'Models': [
        {'Name': model, 'In Collection': system.name, 'Config': f'configs/{name}/{config_of(model)}',
         'Weights': weights_of(entry),
         'Metadata': {'Parameters': entry.parameters, **({'FLOPs': round(entry.gflops * 1e9)} if entry.gflops else {}),
                      'Training Data': entry.data, 'License': entry.licence},
         'Results': list(results(system, entry.measured))}
        for model, entry in models.items()]}


def results(system: System, scores: Iterable[Score]) -> Iterator[dict[str, Any]]:
    """Yield a result for every test set, with its metrics named by colours and frames."""
    by_set: dict[str, dict[str, float]] = {}
    for score in scores:
        frames = '' if score.frames == 'all' else f', frames {FRAMES[score.frames]}'
        metrics = by_set.setdefault(score.test_set, {})
        metrics[f'PSNR ({score.color}{frames})'] = round(score.psnr, 2)
        if score.ssim is not None:
            metrics[f'SSIM ({score.color}{frames})'] = round(score.ssim, 3)
    for test_set, metrics in by_set.items():
        yield {'Task': system.task, 'Dataset': test_set, 'Metrics': metrics}


def weights_of(entry: Entry) -> str:
    return entry.url or str(WEIGHTS / entry.weights)


def readme(name: str, system: System, models: dict[str, Entry]) -> str:
    paper = system.papers[0]
    year = f' ({paper.facts["year"]})' if 'year' in paper.facts else ''
    title = f'[{paper.title}]({paper.url})' if paper.url else paper.title
    lines = [
        f'# {system.name}{year}', '', f'<!-- {WRITTEN} -->', '', f'> {title}', '', f'> Task: {system.task}', '',
        '## Abstract', '', system.abstract, '',
        f'[What the paper states and what we chose](../../docs/{system.page}.md)', '',
        '## Results and models', '', *table('model', 'test set', 'colours', 'frames', 'PSNR (dB)', 'SSIM')]
    for model, entry in models.items():
        lines += [row(model, *cells(score)) for score in entry.measured]
    lines += ['', *table('model', 'parameters', 'GFLOPs', 'config', 'weights')]
    for model, entry in models.items():
        weights = entry.url or f'../../{weights_of(entry)}'
        lines.append(row(model, f'{entry.parameters:,}', gflops(entry), f'[{config_of(model)}]({config_of(model)})',
                         f'[{entry.weights}]({weights})'))
    lines += ['', '## Quick start']
    for model, entry in models.items():
        lines += ['', '```bash',
                  f'python -m basicsr_stvsr.openmmlab.run test configs/{name}/{config_of(model)} \\',
                  f'    --cfg-options model.path.pretrain_network_g={weights_of(entry)}',
                  f'python -m basicsr_stvsr.openmmlab.run train configs/{name}/{config_of(model)}', '```', '',
                  f'The weights were trained with BasicSR: {facts(model, entry)["option file"]}. They are '
                  f'{entry.licence}.']
    lines += ['', '## Citation', '', citation(name), '']
    return '\n'.join(lines)


# ---------------------------------------------------------------- BasicSR

def basicsr_page() -> str:
    lines = ['# Rows for ModelZoo.md of BasicSR', '', f'<!-- {WRITTEN} -->', '',
             'PSNR in dB and SSIM, as BasicSR prints them.', '', *table('Exp Name', 'Scores (PSNR/SSIM)')]
    lines += [basicsr_row(entry) for entry in ZOO.values()]
    lines += ['', *table('Exp Name', 'Training', 'Test')]
    for entry in ZOO.values():
        stages = ', then '.join(f'[{stage.options}](../{stage.options})' for stage in entry.stages)
        test = (entry.measured_by or '').rpartition(' ')[2]
        lines.append(row(PurePosixPath(entry.weights).stem, stages, f'[{test}](../{test})' if test else '-'))
    return '\n'.join([*lines, ''])


# ---------------------------------------------------------------- citation

def citation_file() -> dict[str, Any]:
    """Return the contents of CITATION.cff, in version 1.2.0 of the Citation File Format."""
    return {
        'cff-version': '1.2.0', 'message': 'If you use this software, please cite it, and the paper of the system.',
        'type': 'software', 'title': 'basicsr_stvsr: space-time video super-resolution for BasicSR',
        'authors': [{'name': 'The authors of basicsr_stvsr'}], 'version': __version__, 'license': 'Apache-2.0',
        'references': [reference(paper) for system in SYSTEMS.values() for paper in system.papers]}


def reference(paper: Paper) -> dict[str, Any]:
    kinds = {'inproceedings': 'conference-paper', 'article': 'article', 'misc': 'generic'}
    facts: dict[str, Any] = {
        'type': kinds[paper.kind], 'title': paper.title,
        'authors': [{'name': ', '.join(paper.authors)}]}  # the format refuses two persons of one surname
    if 'booktitle' in paper.facts:
        facts['collection-title'] = paper.facts['booktitle']
    facts |= {name: paper.facts[name] for name in ('journal', 'doi') if name in paper.facts}
    facts |= {name: int(paper.facts[name]) for name in ('volume', 'year') if name in paper.facts}
    return {**facts, 'url': paper.url} if paper.url else facts
