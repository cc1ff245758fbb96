"""Draw curves.png from the metrics.jsonl in the same folder, as a training does.

    python -m basicsr_stvsr.training.curves FOLDER
"""
import math
import sys
from collections.abc import Mapping
from os import path as osp
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which would select a backend for the process
from matplotlib.ticker import EngFormatter, LogFormatter, MaxNLocator

from ..utils.atomic_files import whole_file
from ..utils.json_files import read_rows

# Okabe and Ito's colour-blind safe palette, without yellow, which is too pale on white.
COLORS = '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00'
SUM_COLOR, GAP_COLOR = '#222222', '#C00000'
GROUP_COLORS = {'all': SUM_COLOR, 'vsr': COLORS[0], 'vfi': COLORS[1]}

NUM_COLUMNS = 3
MAX_POINTS = 5000  # per line; more than a panel has pixels
SMOOTHING = 50  # number of running-mean windows that fit into a line

Curve = tuple[np.ndarray, np.ndarray]  # iterations, values; NaN where a value is null


def draw_curves(folder: str) -> None:
    """Draw `<folder>/curves.png`, titled with the folder's name; write nothing if metrics.jsonl has no rows.

    Raises:
        OSError: a file cannot be read or written; an older curves.png stays intact.
    """
    rows = read_rows(osp.join(folder, 'metrics.jsonl'))
    if not rows:
        return
    figure = plot_metrics(rows, osp.basename(osp.abspath(folder)))
    with whole_file(osp.join(folder, 'curves.png')) as part:
        figure.savefig(part, format='png', dpi=100)


def plot_metrics(rows: list[dict[str, Any]], name: str) -> Figure:
    """Plot the rows of a metrics.jsonl: losses, learning rate, metrics of each data set, other values, time."""
    steps = [row for row in rows if 'validation' not in row]
    curves = {key: curve(steps, key) for key in dict.fromkeys(key for row in steps for key in row)}
    losses = {key: value for key, value in curves.items() if key.startswith('l_')}
    rates = {key: value for key, value in curves.items() if key == 'lr' or key.startswith('lr_')}
    times: dict[str, Curve] = {key: curves[key] for key in ('time', 'data_time') if key in curves}
    others = {key: value for key, value in curves.items() if key not in {'iter', 'epoch', *losses, *rates, *times}}
    scores = validation_curves(rows)
    if len(losses) > 1:
        losses = {'loss': curve([{'iter': row['iter'], 'loss': sum_losses(row)} for row in steps], 'loss')} | losses

    num_small = len(scores) + len(others) + bool(times)
    num_rows = 1 + math.ceil(num_small / NUM_COLUMNS)
    figure = Figure(figsize=(5.5 * NUM_COLUMNS, 0.6 + 3.8 * num_rows), layout='constrained')
    grid = figure.add_gridspec(num_rows, NUM_COLUMNS)
    last = rows[-1]['iter']
    epoch = f', epoch {steps[-1]["epoch"]}' if steps and 'epoch' in steps[-1] else ''
    figure.suptitle(f'{name}: iteration {last:,}{epoch}', fontsize=15, fontweight='bold', parse_math=False)

    plot_panel(figure.add_subplot(grid[0, :-1]), 'Training losses', 'weighted loss', losses, last, legend_columns=7)
    plot_panel(figure.add_subplot(grid[0, -1]), 'Learning rate', 'learning rate', rates, last, smooth=False)
    small = (figure.add_subplot(grid[1 + i // NUM_COLUMNS, i % NUM_COLUMNS]) for i in range(num_small))
    for (dataset, metric), groups in scores.items():
        ylabel = f'{metric} (dB)' if 'psnr' in metric.lower() else metric
        plot_panel(next(small), f'Validation {dataset}: {metric}', ylabel, groups, last, smooth=False, is_log=False)
    for key, value in others.items():
        plot_panel(next(small), key, key, {key: value}, last)
    if times:
        plot_panel(next(small), 'Time per iteration', 'seconds', times, last)
    return figure


def curve(rows: list[dict[str, Any]], key: str) -> Curve:
    """Return the values of one key by iteration; if an iteration repeats, the last value counts."""
    points = {row['iter']: row[key] for row in rows if key in row}
    values = [math.nan if value is None else value for _, value in sorted(points.items())]
    return np.array(sorted(points), dtype=float), np.array(values, dtype=float)


def sum_losses(row: dict[str, Any]) -> float | None:
    terms = [value for key, value in row.items() if key.startswith('l_')]
    return None if not terms or None in terms else sum(terms)


def validation_curves(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Curve]]:
    """Return (data set, metric) -> group -> curve, sorted so that the data sets of a metric are adjacent."""
    scores: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        for dataset, metrics in row.get('validation', {}).items():
            for metric, groups in metrics.items():
                for group, value in groups.items():
                    points = scores.setdefault((dataset, metric), {}).setdefault(group, [])
                    points.append({'iter': row['iter'], 'score': value})
    order = list(dict.fromkeys(metric for _, metric in scores))
    return {key: {group: curve(points, 'score') for group, points in scores[key].items()}
            for key in sorted(scores, key=lambda key: order.index(key[1]))}


def running_mean(values: np.ndarray) -> np.ndarray:
    """Return means of finite values in windows of a fixed part of the line, which are cut off at its ends."""
    half = len(values) // SMOOTHING // 2
    finite = np.isfinite(values)
    total = np.concatenate([[0], np.cumsum(np.where(finite, values, 0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    number = count[stop] - count[start]
    return np.where(number > 0, (total[stop] - total[start]) / np.maximum(number, 1), np.nan)


def wants_log_scale(curves: Mapping[str, Curve]) -> bool:
    """Whether no value is negative, and the positive ones span more than a power of ten."""
    values = np.concatenate([values[np.isfinite(values)] for _, values in curves.values()])
    positive = values[values > 0]
    return len(positive) > 0 and values.min() >= 0 and positive.max() > 10 * positive.min()


def plot_panel(axes: Axes, title: str, ylabel: str, curves: Mapping[str, Curve], last_iter: int, *,
               smooth: bool = True, is_log: bool | None = None, legend_columns: int = 4) -> None:
    """Draw curves, each labelled with its last value; smoothed curves are drawn over the raw values.

    Values that were not finite appear as crosses on the x axis.

    Args:
        is_log: Whether the scale is logarithmic; None: chosen from the values.
    """
    for i, (label, (iterations, values)) in enumerate(curves.items()):
        color = SUM_COLOR if label == 'loss' else GROUP_COLORS.get(label, COLORS[i % len(COLORS)])
        every = max(1, math.ceil(len(values) / MAX_POINTS))
        shown = values
        if smooth and len(values) >= 2 * SMOOTHING:
            shown = running_mean(values)
            axes.plot(iterations[::every], values[::every], color=color, alpha=0.2, linewidth=0.8, gid='raw')
        axes.plot(iterations[::every], shown[::every], color=color, linewidth=1.8, markersize=4,
                  marker='o' if len(values) < SMOOTHING else None, label=f'{label}: {shown[-1]:.4g}', gid=label,
                  zorder=3)
    gaps = sorted({iteration for iterations, values in curves.values() for iteration in iterations[np.isnan(values)]})
    if gaps:
        axes.plot(gaps, [0] * len(gaps), 'x', color=GAP_COLOR, transform=axes.get_xaxis_transform(), clip_on=False,
                  label=f'not finite: {len(gaps)}', gid='gaps', zorder=4)
    num_labels = len(curves) + bool(gaps)
    if curves:
        # Between title and axes, so that it hides nothing
        axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=legend_columns, fontsize=9, frameon=False,
                    borderaxespad=0.2, columnspacing=1.5, handlelength=1.5)
        if wants_log_scale(curves) if is_log is None else is_log:
            axes.set_yscale('log')
            axes.yaxis.set_major_formatter(LogFormatter())  # 0.001 instead of a power of ten
            axes.yaxis.set_minor_formatter(LogFormatter())
    axes.set_title(title, fontsize=12, pad=8 + 14 * math.ceil(num_labels / legend_columns), parse_math=False)
    axes.set_xlabel('iteration')
    axes.set_ylabel(ylabel)
    axes.set_xlim(0, max(last_iter, 1) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator('auto', steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))  # 20k
    axes.grid(True, which='major', color='#dddddd', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit('usage: python -m basicsr_stvsr.training.curves FOLDER, the folder of metrics.jsonl, such as '
                 'experiments/MBNet')
    draw_curves(sys.argv[1])
