"""Write the tables of measured scores and speeds in README.md and docs/, docs/model_zoo.md, and files for other zoos.

    python scripts/update_tables.py                      # from what was measured before
    python scripts/update_tables.py --results results    # take new scores first
    python scripts/update_tables.py --speed              # measure the speed of every model on this machine first

Scores come from the files that `python basicsr/test.py` writes, results/<test>/<data set>.json, and are stored in
basicsr_stvsr/weights/measured.json. Name a test of other weights than the shipped ones as in TABLES, for example with
`--force_yml name=test_FISR_small_untrained_x2`. A cell without a score is a dash.
`scripts/measure_flicker.py --save` adds flicker to result files.
Two comments enclose a table: `<!-- table NAME, by scripts/update_tables.py -->` and `<!-- end of table -->`.
"""
import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from basicsr_stvsr.zoo.cards import page, row, table
from basicsr_stvsr.zoo.contribution import contribution
from basicsr_stvsr.zoo.papers import SYSTEMS, citation
from basicsr_stvsr.zoo.table import MEASURED, MIDDLEBURY, UCF101, VID4, ZOO, measured_results
from stvsr.errors import user_errors

ROOT = Path(__file__).resolve().parents[1]
MODEL_ZOO = ROOT / 'docs' / 'model_zoo.md'
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), ROOT / 'basicsr_stvsr' / 'weights' / 'README.md')
MARKED = re.compile(r'(<!-- table ([\w-]+), by scripts/update_tables\.py -->\n).*?(?=<!-- end of table -->)', re.DOTALL)
DECIMALS = {'psnr': 2, 'ssim': 3, 'niqe': 2, 'flicker': 2, 'error': 1}  # by the first part of a metric's name

Column = tuple[tuple[str, str], ...]  # metric and group of frames of each score in a cell


class Row(NamedTuple):
    """A method on a data set: its first cells, and its scores."""

    titles: tuple[str, ...]
    test: str
    dataset: str = 'vid4'


class Table(NamedTuple):
    titles: tuple[str, ...]  # of the first columns
    columns: Mapping[str, Column]
    rows: tuple[Row, ...]


def columns_of(metrics: str, group: str = 'all') -> Column:
    return tuple((metric, group) for metric in metrics.split())


BICUBIC_Y = Row(('bicubic',), 'test_bicubic_y_x4')
LUMA = {'PSNR / SSIM': columns_of('psnr ssim')}
SETS = ((VID4, 'vid4'), (MIDDLEBURY, 'middlebury_other'), (UCF101, 'ucf101'))
TABLES = {
    'baselines': Table(
        ('set', 'baseline'), {'frames given': (('psnr', 'vsr'),), 'frames between': (('psnr', 'vfi'),)},
        tuple(Row((title, f'`{name}`'), test, dataset)
              for title, dataset in SETS
              for name, test in (('bicubic', 'test_bicubic_x4'), ('bicubic-dis', 'test_bicubic_dis_x4')))),
    'mbnet': Table(
        ('set', 'method'),
        {'frames given (VSR)': columns_of('psnr ssim niqe', 'vsr'),
         'frames between (VFI)': columns_of('psnr ssim niqe', 'vfi'),
         'luma, VSR / VFI': (('psnr_y', 'vsr'), ('psnr_y', 'vfi'))},
        tuple(Row((title, method), test, dataset)
              for title, dataset in SETS
              for method, test in (('bicubic + averaging', 'test_bicubic_x4'),
                                   ('bicubic + DIS flow', 'test_bicubic_dis_x4'),
                                   ('MBNet small', 'test_MBNet_small_x4')))),
    'fisr': Table(
        ('method',),
        {'frames given (SR)': columns_of('psnr_yuv ssim_yuv', 'vsr'),
         'frames between (VFI-SR)': columns_of('psnr_yuv ssim_yuv', 'vfi'),
         'luma, SR / VFI-SR': (('psnr_y', 'vsr'), ('psnr_y', 'vfi')),
         'flicker': columns_of('flicker')},
        (Row(('bicubic + averaging',), 'test_bicubic_x2'),
         Row(('FISR small, untrained: bicubic, and frames warped by DIS',), 'test_FISR_small_untrained_x2'),
         Row(('FISR small, L_R alone',), 'test_FISR_small_no_temporal_x2'),
         Row(('FISR small',), 'test_FISR_small_x2'))),
    'fstrn': Table(('method',), LUMA, (BICUBIC_Y, Row(('FSTRN small',), 'test_FSTRN_small_x4'))),
    'hoffr': Table(
        ('method',), {'RGB': columns_of('psnr ssim'), 'luma': columns_of('psnr_y ssim_y')},
        (Row(('bicubic',), 'test_bicubic_blur_x4'),
         Row(('the same without recurrence, trained for as long',), 'test_HOFFR_small_no_recurrence_x4'),
         Row(('HOFFR small',), 'test_HOFFR_small_x4'))),
    'adaptive-gan': Table(
        ('method',), {**LUMA, 'error of flat pixels': columns_of('error_flat'),
                      'error of edge pixels': columns_of('error_edge')},
        (BICUBIC_Y,
         Row(('VSRResNet small (stage 1)',), 'test_VSRResNet_small_x4'),
         Row(('VSRResFeatGAN small, the baseline of stage 2',), 'test_VSRResFeatGAN_small_x4'),
         Row(('adaptive GAN small',), 'test_AdaptiveGAN_small_x4'))),
}


class Quality(NamedTuple):
    """Scores of a model and of bicubic interpolation on luma of Vid4."""

    test: str
    baseline: str
    scores: Column


QUALITY = {  # for the table of all models
    'mbnet-small': Quality('test_MBNet_small_x4', 'test_bicubic_x4', (('psnr_y', 'vsr'), ('psnr_y', 'vfi'))),
    'fisr-small': Quality('test_FISR_small_x2', 'test_bicubic_x2', (('psnr_y', 'vsr'), ('psnr_y', 'vfi'))),
    'fstrn-small': Quality('test_FSTRN_small_x4', 'test_bicubic_y_x4', columns_of('psnr')),
    'hoffr-small': Quality('test_HOFFR_small_x4', 'test_bicubic_blur_x4', columns_of('psnr_y')),
    'adaptive-gan-small': Quality('test_AdaptiveGAN_small_x4', 'test_bicubic_y_x4', columns_of('psnr')),
}


# ---------------------------------------------------------------- tables

def cell(test: str, dataset: str, scores: Column) -> str:
    """Format the scores of a test, such as `23.01 / 0.654`; a dash for unmeasured scores."""
    result = measured_results()['tests'].get(test, {}).get(dataset, {})
    values = ((metric, result.get(metric, {}).get(group)) for metric, group in scores)
    return ' / '.join('–' if value is None else f'{value:.{DECIMALS[metric.split("_")[0]]}f}'
                      for metric, value in values)


def scores_table(name: str) -> Iterator[str]:
    titles, columns, rows = TABLES[name]
    yield from table(*titles, *columns)
    for each in rows:
        yield row(*each.titles, *(cell(each.test, each.dataset, scores) for scores in columns.values()))


def models_table() -> Iterator[str]:
    """Yield the table of models for users; the speed column appears once speeds were measured."""
    speeds = measured_results()['speed'].get('models', {})
    yield from table('model', 'for', 'makes', 'PSNR', 'bicubic', *(['frames/s'] if speeds else []))
    for name, entry in ZOO.items():
        quality = QUALITY[name]
        psnr = (cell(test, 'vid4', quality.scores) for test in (quality.test, quality.baseline))
        speed = [f'{speeds[name]:.3g}' if name in speeds else '–'] if speeds else []
        yield row(f'`{name}`', entry.purpose or '–', shape_of(entry.about), *psnr, *speed)


def speeds_table() -> Iterator[str]:
    """Yield the table of speeds: frames per second, and the time for a minute of video at 25 frames per second."""
    yield from table('model', 'makes', 'output frames/s', 'one minute of video takes')
    for name, speed in measured_results()['speed'].get('models', {}).items():
        shape = shape_of(ZOO[name].about)
        minutes = 25 * (2 if 'fps' in shape else 1) / speed
        yield row(f'`{name}`', shape, f'{speed:.3g}', f'{minutes:.0f} min')


def shape_of(about: str) -> str:
    """Shorten `x4 in space, x2 in time, ...` to `×4, 2× fps`."""
    space, time = re.search(r'x(\d) in space', about), re.search(r'x(\d) in time', about)
    return f'×{space[1]}' + (f', {time[1]}× fps' if time else '')


def speed_note() -> str:
    """Return a sentence that explains the speeds in the table of models."""
    speed = measured_results()['speed']
    return f'Frames/s: output frames per second for 480x270 input on {speed["machine"]}.\n' if speed else ''


WRITERS: dict[str, Callable[[], str]] = {
    'models': lambda: '\n'.join(models_table()) + '\n',
    'speeds': lambda: '\n'.join(speeds_table()) + '\n',
    'speed-note': speed_note,
    **{name: lambda name=name: '\n'.join(scores_table(name)) + '\n' for name in TABLES},
    **{f'cite-{system.page}': lambda name=name: f'{citation(name)}\n' for name, system in SYSTEMS.items()},
}


def with_tables(text: str) -> str:
    """Return the text of a page with updated tables.

    Raises:
        KeyError: the page names an unknown table.
    """
    def fill(match: re.Match[str]) -> str:
        content = WRITERS[match[2]]()
        return f'{match[1]}\n{content}\n' if content else match[1]

    return MARKED.sub(fill, text)


def up_to_date() -> dict[Path, str]:
    """Return the expected text of every page with tables, and of the files for the zoos of OpenMMLab and BasicSR."""
    pages = {path: with_tables(path.read_text(encoding='utf-8')) for path in PAGES if path != MODEL_ZOO}
    return {**pages, MODEL_ZOO: page(), **{ROOT / name: text for name, text in contribution().items()}}


# ---------------------------------------------------------------- measurements

def collect(results: Path) -> None:
    """Collect the scores of all tests in the tables from a folder of results.

    Raises:
        FileNotFoundError: the folder has none of them.
    """
    wanted = {(each.test, each.dataset) for spec in TABLES.values() for each in spec.rows}
    found = {(test, dataset): results / test / f'{dataset}.json' for test, dataset in sorted(wanted)}
    found = {key: path for key, path in found.items() if path.is_file()}
    if not found:
        raise FileNotFoundError(f'{results} has no result of {", ".join(sorted({test for test, _ in wanted}))}')
    measured = measured_results()
    for (test, dataset), path in found.items():
        average = json.loads(path.read_text(encoding='utf-8'))['average']
        measured['tests'].setdefault(test, {})[dataset] = {
            metric: {group: round(value, 4) for group, value in groups.items() if value is not None}
            for metric, groups in average.items()}
        print(f'{path}: taken')
    write(measured)


def measure_speeds() -> None:
    """Measure every model as `stvsr info MODEL --speed` does."""
    from basicsr_stvsr.cli.info import speed_of

    speeds = {name: speed_of(entry.network) for name, entry in ZOO.items()}
    first = next(iter(speeds.values()))
    machine = first['device'] if first['device'] != 'cpu' else f'{cpu_name()}, {first["threads"]} threads'
    measured = measured_results()
    measured['speed'] = {'machine': machine, 'models': {
        name: float(f'{speed["frames_per_second"]:.3g}') for name, speed in speeds.items()}}
    write(measured)


def cpu_name() -> str:
    """Return the name of the processor from Linux, or else from Python."""
    path = Path('/proc/cpuinfo')
    match = re.search(r'^model name\s*: (.*)$', path.read_text(), re.MULTILINE) if path.is_file() else None
    return match[1].strip() if match else platform.processor() or platform.machine()


def write(measured: Mapping[str, Any]) -> None:
    """Write measured.json, with one line per data set of a test."""
    def line(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    tests = ',\n'.join(
        f'  {line(test)}: {{\n' + ',\n'.join(f'   {line(name)}: {line(scores)}' for name, scores in sets.items()) + '}'
        for test, sets in sorted(measured['tests'].items()))
    MEASURED.write_text(f'{{"tests": {{\n{tests}}},\n"speed": {line(measured["speed"])}}}\n', encoding='utf-8')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--results', type=Path, metavar='FOLDER', help='take new scores from this folder of results')
    parser.add_argument('--speed', action='store_true', help='measure the speed of every model on this machine')
    args = parser.parse_args()
    if args.results:
        with user_errors():
            collect(args.results)
    if args.speed:
        measure_speeds()
    if args.results or args.speed:  # the zoo has read the old scores
        os.execv(sys.executable, [sys.executable, __file__])
    for path, text in up_to_date().items():
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
            print(f'{path.relative_to(ROOT)}: updated')


if __name__ == '__main__':
    main()
