"""Report a measurement: scores as files, a table next to the published scores, and plots."""
import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..evaluation.clip_scores import digits
from ..training.curves import COLORS
from ..utils.json_files import finite_or_null
from . import Protocol

GROUPS = {'all': 'all', 'vsr': 'given', 'vfi': 'new'}


def write_report(folder: Path, protocol: Protocol, facts: Mapping[str, Any], datasets: Sequence[str]) -> None:
    """Write a report into a folder that holds a `<data set>.json` for each data set (see `ClipModel.report`).

    * results.json: means by data set, metric and group; how they were measured; the published rows;
    * table.md: the published rows and this one;
    * clips.csv, frames.csv: the score of each clip and of each frame;
    * frames.png, clips.png: PSNR by frame number, and the distribution over the frames of each clip.

    Args:
        protocol: the protocol of the measurement.
        facts: facts about the measurement, including `protocol` and `model`.
        datasets: names.
    """
    results = {name: json.loads((folder / f'{name}.json').read_text()) for name in datasets}
    averages = {name: result['average'] for name, result in results.items()}
    coverage = {name: result['coverage']['average'] for name, result in results.items() if 'coverage' in result}
    published = [{'method': row.method, 'scores': dict(row.scores), 'note': row.note} for row in protocol.published]
    summary = {**facts, 'average': averages, **({'coverage': coverage} if coverage else {}), 'published': published,
               'source': protocol.source}
    (folder / 'results.json').write_text(json.dumps(finite_or_null(summary), indent=1) + '\n')
    (folder / 'table.md').write_text(table(protocol, facts, averages, coverage))
    write_rows(folder / 'clips.csv', ('data set', 'clip', 'metric', 'frames', 'score', 'coverage'), (
        (name, clip, metric, group, score, share_of(result, clip, metric, group)) for name, result in results.items()
        for clip, metrics in result['clips'].items() for metric, groups in metrics.items()
        for group, score in groups.items()))
    write_rows(folder / 'frames.csv', ('data set', 'clip', 'frame', 'metric', 'score'), (
        (name, clip, number, metric, score) for name, result in results.items()
        for clip, metrics in result['frames'].items() for metric, scores in metrics.items()
        for number, score in scores))
    scores = {name: psnr_of(result) for name, result in results.items()}
    plot(scores, plot_frames).savefig(folder / 'frames.png', dpi=110)
    plot(scores, plot_clips).savefig(folder / 'clips.png', dpi=110)


def share_of(result: Mapping[str, Any], clip: str, metric: str, group: str) -> float | None:
    """Return the share of a clip's frames that a metric scores, if it scores only some of them."""
    shares: Mapping[str, Mapping[str, Mapping[str, float]]] = result.get('coverage', {}).get('clips', {})
    return shares.get(clip, {}).get(metric, {}).get(group)


def write_rows(path: Path, head: Sequence[str], rows: Any) -> None:
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


# ---------------------------------------------------------------- table

def table(protocol: Protocol, facts: Mapping[str, Any], averages: Mapping[str, Any],
          coverage: Mapping[str, Any]) -> str:
    """Return a Markdown table with a column for each data set, metric and group of frames; published rows first.

    Args:
        averages: data set -> metric -> group -> score.
        coverage: the same for the share of scored frames, for metrics that score only some frames.
    """
    ours, shares = ({(dataset, metric, group): value for dataset, metrics in values.items()
                     for metric, groups in metrics.items() for group, value in groups.items()}
                    for values in (averages, coverage))
    rows = [(row.method, {split_key(key): score for key, score in row.scores.items()})
            for row in protocol.published]
    # Without new frames, the given ones are all frames
    columns = [key for key in ours if not (key[2] == 'vsr' and (*key[:2], 'vfi') not in ours)]
    # Published scores that were not measured, for example because a file is missing
    known = {published_key(key) for key in columns}
    columns += dict.fromkeys(key for _, scores in rows for key in scores if key[0] in averages and key not in known)
    heads = [f'{dataset} {metric}' + ('' if group == 'all' else f', {GROUPS[group]}')
             for dataset, metric, group in columns]
    lines = [f'# {facts["protocol"]}: {facts["model"]}', '', f'{protocol.about}.', '',
             f'| method | {" | ".join(heads)} |', '|---|' + '---|' * len(heads)]
    lines += [f'| {name} | {" | ".join(cell(scores.get(published_key(key))) for key in columns)} |'
              for name, scores in rows]
    lines.append(f'| **{facts["model"]}** (measured) | '
                 f'{" | ".join(cell(ours.get(key), shares.get(key)) for key in columns)} |')
    if shares:
        lines += ['', 'Numbers in brackets are the coverage, the share of the frames that have a score.']
    lines += ['', f'Published: {protocol.source}.' if protocol.source else 'No numbers of this protocol are published.']
    lines += [f'{row.method}: {row.note}.' for row in protocol.published if row.note]
    versions = ', '.join(f'{name} {number}' for name, number in facts['versions'].items())
    lines += ['', f'Measured by `{facts["command"]}`, {versions}.']
    return '\n'.join(lines) + '\n'


def split_key(key: str) -> tuple[str, str, str]:
    dataset, metric, group = key.split('/')
    return dataset, metric, group


def published_key(key: tuple[str, str, str]) -> tuple[str, str, str]:
    """Return data set, metric and group with the names in the protocol's file, without suffixes: `lpips (alex-…)`."""
    dataset, metric, group = key
    return dataset, metric.partition(' (')[0], group


def cell(score: float | None, share: float | None = None) -> str:
    """Format a score: three decimals for PSNR, four for values around 1, three significant digits for small ones.

    Args:
        score: None or not finite: a dash.
        share: share of scored frames, appended in brackets.
    """
    covered = '' if share is None else f' ({share:.1%})'
    if score is None or not math.isfinite(score):
        return f'–{covered}'
    return (digits(score) if abs(score) < 2 else f'{score:.3f}') + covered


# ---------------------------------------------------------------- plots

Clips = dict[str, list[tuple[int, float]]]  # clip -> (frame number, PSNR)


def psnr_of(result: Mapping[str, Any]) -> Clips:
    """Return the first PSNR in the results, by clip; skip frames without one, such as equal frames."""
    frames = result['frames']
    metric = next(metric for metric in next(iter(frames.values())) if metric.startswith('psnr'))
    return {clip: [(number, score) for number, score in metrics[metric] if score is not None]
            for clip, metrics in frames.items()}


def plot(scores: Mapping[str, Clips], draw: Any) -> Figure:
    """Draw a panel for each data set."""
    figure = Figure(figsize=(6 * len(scores), 3.5), layout='constrained')
    for axes, (name, clips) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        draw(axes, clips)
        axes.set_title(name)
        axes.set_ylabel('PSNR (dB)')
        axes.grid(alpha=0.3)
    return figure


def plot_frames(axes: Axes, clips: Clips) -> None:
    """Plot PSNR by frame number: the mean over the clips, and each clip if there are few."""
    by_number = defaultdict(list)
    for clip, values in clips.items():
        for number, score in values:
            by_number[number].append(score)
        if len(clips) <= len(COLORS):
            axes.plot(*zip(*values, strict=True), color=COLORS[list(clips).index(clip)], linewidth=1, label=clip)
    mean = [(number, sum(values) / len(values)) for number, values in sorted(by_number.items())]
    axes.plot(*zip(*mean, strict=True), color='black', marker='.', label='mean')
    axes.set_xlabel('frame')
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))


def plot_clips(axes: Axes, clips: Clips) -> None:
    """Plot quartiles and extremes of the frames of each clip; with many clips, of the clip means."""
    shown = {clip: [score for _, score in values] for clip, values in clips.items()}
    if len(shown) > 20:
        shown = {f'{len(shown)} clips': [sum(values) / len(values) for values in shown.values() if values]}
    axes.boxplot(list(shown.values()), tick_labels=list(shown), whis=(0, 100))
    axes.tick_params(axis='x', rotation=30)
