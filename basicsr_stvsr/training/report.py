"""Write report.html of a training: scores, curves, sample frames, worst clips, times, environment and options.

    python -m basicsr_stvsr.training.report experiments/NAME

The page is one file that needs nothing else. A training writes it after each validation and at its end.
"""
import base64
import datetime
import html
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import yaml

from ..evaluation.clip_scores import digits
from ..utils.atomic_files import replace_file
from ..utils.json_files import read_rows
from .curves import curve, draw_curves, validation_curves
from .report_files import FOLDER, SIDE, iterations_of, read_json

NUM_WORST = 5  # clips of a data set
NO_LOSSES = {'iter', 'epoch', 'time', 'data_time'}
NONE = '–'

Rows = Sequence[Mapping[str, Any]]


class Cell(NamedTuple):
    """A cell of a table with a class of the style sheet."""

    text: str
    style: str


def write_report(experiment: str) -> Path | None:
    """Write `<experiment>/report.html`; return its path, or None if metrics.jsonl has no rows.

    Raises:
        OSError: a file cannot be read or written; an older report stays intact.
    """
    folder = Path(experiment).resolve()
    rows = read_rows(str(folder / 'metrics.jsonl'))
    if not rows:
        return None
    path = folder / 'report.html'
    page = Template(resources.files(__package__).joinpath('report.html').read_text(encoding='utf-8')).substitute(
        TITLE=html.escape(folder.name), SIDE=SIDE, BODY='\n'.join(sections(folder, rows)))
    replace_file(path, page.encode())
    return path


def sections(folder: Path, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the parts of the page."""
    text = read_text(folder / 'options.yml')
    options = yaml.safe_load(text) or {}
    environment = read_json(folder / FOLDER / 'environment.json') or {}
    lower = lower_is_better(options)

    total = (options.get('train') or {}).get('total_iter')
    goal = f' of {total:,}' if isinstance(total, int) and (options['train'].get('unit') != 'samples') else ''
    yield (f'<h1>{html.escape(folder.name)}</h1>\n<p>Iteration {rows[-1]["iter"]:,}{goal}, written '
           f'{time.strftime("%Y-%m-%d %H:%M")}. Reload the page for newer numbers while the training runs.</p>')
    if environment.get('summary'):
        yield section('Summary', pre(environment['summary']))
    yield section('Scores', *score_table(rows, lower))
    yield section('Curves', picture(folder / 'curves.png', 'Losses, learning rate, scores and times by iteration',
                                    'class="curves"'))
    yield section('Sample frames', *sample_frames(folder / FOLDER / 'samples'))
    yield section('Worst clips', *worst_clips(read_json(folder / FOLDER / 'clips.json'), lower))
    yield section('Losses and other values', loss_table(rows))
    yield section('Time', time_table(rows))
    if environment.get('versions'):
        yield section('Environment', table(['', 'version'], environment['versions'].items()))
    if text:
        yield f'<details><summary>Options</summary>{pre(text)}</details>'


# ---------------------------------------------------------------- numbers

def lower_is_better(options: Mapping[str, Any]) -> set[str]:
    metrics = (options.get('val') or {}).get('metrics') or {}
    return {name for name, metric in metrics.items() if metric and metric.get('better') == 'lower'}


def is_lower_better(metric: str, lower: set[str]) -> bool:
    """Whether a metric is among those whose smaller scores are better; its name may have a label: 'lpips (vgg)'."""
    return metric in lower or metric.partition(' (')[0] in lower


def score_table(rows: list[dict[str, Any]], lower: set[str]) -> Iterator[str]:
    """Yield a table with first, latest and best score of each data set, metric and group of frames."""
    lines: list[list[str | Cell]] = []
    for (dataset, metric), groups in validation_curves(rows).items():
        is_lower = is_lower_better(metric, lower)
        for group, (iterations, values) in groups.items():
            best = best_index(values, is_lower)
            lines.append([
                dataset, f'{metric} ({"lower" if is_lower else "higher"} is better)', group, number(values[0]),
                number(values[-1]), Cell(NONE if best is None else number(values[best]), 'best'),
                NONE if best is None else f'{iterations[best]:,.0f}'])
    if lines:
        yield '<p>vsr: given frames; vfi: frames between them; all: both.</p>'
        yield table(['data set', 'score', 'frames', 'first', 'latest', 'best', 'at iteration'], lines)
    else:
        yield '<p>No validation yet.</p>'


def best_index(values: np.ndarray, is_lower: bool) -> int | None:
    """Return the place of the best value; of equal ones, the last. None if none is finite."""
    if not np.isfinite(values).any():
        return None
    order = np.where(np.isfinite(values), -values if is_lower else values, -np.inf)
    return int(len(order) - 1 - order[::-1].argmax())


def worst_clips(clips: Mapping[str, Any] | None, lower: set[str]) -> Iterator[str]:
    """Yield a table of the clips with the worst scores in the first metric, for each data set."""
    if not clips or not clips['sets']:
        yield '<p>No validation yet.</p>'
        return
    for dataset, scores in clips['sets'].items():
        metrics = list(next(iter(scores.values())))
        worst = sorted(scores, key=partial(badness, scores, metrics[0], is_lower_better(metrics[0], lower)),
                       reverse=True)[:NUM_WORST]
        yield f'<h3>{html.escape(dataset)}, by {html.escape(metrics[0])}, iteration {clips["iter"]:,}</h3>'
        yield table(['clip', *metrics], [[clip, *(number(scores[clip][metric]['all']) for metric in metrics)]
                                         for clip in worst])
        yield f'<p>{len(worst)} of {len(scores)} clips.</p>'


def badness(scores: Mapping[str, Any], metric: str, is_lower: bool, clip: str) -> float:
    """Return a number that is larger for a worse clip; a clip without a score is the worst."""
    score = scores[clip][metric]['all']
    return math.inf if score is None else score if is_lower else -score


def loss_table(rows: Rows) -> str:
    steps = [dict(row) for row in rows if 'validation' not in row]
    lines = []
    for key in dict.fromkeys(key for row in steps for key in row):
        if key in NO_LOSSES:
            continue
        _, values = curve(steps, key)
        finite = values[np.isfinite(values)]
        ends = [number(finite.min(), 4), number(finite.max(), 4)] if len(finite) else [NONE, NONE]
        lines.append([key, number(values[0], 4), number(values[-1], 4), *ends, f'{len(values) - len(finite):,}'])
    return table(['value', 'first', 'latest', 'lowest', 'highest', 'not finite'], lines)


def time_table(rows: Rows) -> str:
    """Return the time of each phase; that of steps is the mean of each line, times its iterations."""
    times, num_iter = phases(rows), rows[-1]['iter']
    whole = sum(times.values())
    lines = [[phase, str(datetime.timedelta(seconds=round(seconds))), f'{seconds / (whole or 1):.1%}',
              f'{seconds / (num_iter or 1):.3g} s'] for phase, seconds in (times | {'all': whole}).items()]
    return table(['phase', 'time', 'share', 'per iteration'], lines)


def phases(rows: Rows) -> dict[str, float]:
    """Return the seconds of each phase of a training."""
    data, step, validation, last = 0.0, 0.0, 0.0, 0
    for row in rows:
        validation += row.get('validation_time') or 0
        if row.get('time') is not None:
            count = max(row['iter'] - last, 0)
            data += count * row['data_time']
            step += count * (row['time'] - row['data_time'])
            last = row['iter']
    return {'waiting for data': data, 'step': step, 'validation, with the checkpoint before it': validation}


# ---------------------------------------------------------------- pictures

def sample_frames(folder: Path) -> Iterator[str]:
    """Yield a row of pictures for each sample frame of each data set: input, results by iteration, truth."""
    if not folder.is_dir():
        yield '<p>No validation yet.</p>'
        return
    for dataset in sorted(folder.iterdir()):
        for group, frame in (read_json(dataset / 'about.json') or {}).items():
            kind = 'given frame' if group == 'vsr' else 'new frame'
            yield (f'<h3>{html.escape(unquote(dataset.name))}, clip {html.escape(frame["clip"])}, {kind} '
                   f'{html.escape(frame["frame"])}</h3>')
            columns = {'input': 'input' if group == 'vsr' else 'input before it',
                       **{str(iteration): f'iteration {iteration:,}' for iteration in iterations_of(dataset, group)},
                       'truth': 'truth'}
            yield '<div class="frames">' + ''.join(
                f'<figure>{picture(path, title)}<figcaption>{title}</figcaption></figure>'
                for name, title in columns.items() if (path := dataset / f'{group}_{name}.webp').is_file()) + '</div>'


def picture(path: Path, alt: str, attributes: str = '') -> str:
    """Return an image that contains its data."""
    if not path.is_file():
        return f'<p>{path.name} is missing.</p>'
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img {attributes} alt="{html.escape(alt)}" src="data:image/{path.suffix[1:]};base64,{data}">'


# ---------------------------------------------------------------- HTML

def section(title: str, *parts: str) -> str:
    return '\n'.join([f'<section><h2>{title}</h2>', *parts, '</section>'])


def table(head: Sequence[str], rows: Iterable[Iterable[str | Cell]]) -> str:
    lines = [''.join(f'<th>{html.escape(title)}</th>' for title in head)]
    for row in rows:
        cells = (cell if isinstance(cell, Cell) else Cell(cell, '') for cell in row)
        lines.append(''.join(f'<td class="{cell.style}">{html.escape(cell.text)}</td>' if cell.style
                             else f'<td>{html.escape(cell.text)}</td>' for cell in cells))
    return '<table>\n' + '\n'.join(f'<tr>{line}</tr>' for line in lines) + '\n</table>'


def pre(text: str) -> str:
    return f'<pre>{html.escape(text)}</pre>'


def number(value: float | None, significant: int | None = None) -> str:
    if value is None or not math.isfinite(value):
        return 'not finite'
    return digits(value) if significant is None else f'{value:.{significant}g}'


def read_text(path: Path) -> str:
    return path.read_text(encoding='utf-8') if path.is_file() else ''


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / 'metrics.jsonl').is_file():
        sys.exit('usage: python -m basicsr_stvsr.training.report FOLDER, the folder of metrics.jsonl, such as '
                 'experiments/MBNet')
    draw_curves(sys.argv[1])
    print(write_report(sys.argv[1]) or 'metrics.jsonl has no lines yet')


if __name__ == '__main__':
    main()
