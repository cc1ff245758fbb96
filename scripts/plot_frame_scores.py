"""Plot scores by frame number: does quality grow along a clip?

    python basicsr/test.py -opt options/test_bicubic.yml
    python basicsr/test.py -opt options/test_mbnet_small.yml
    python scripts/plot_frame_scores.py --metric psnr --output frames.png \\
        results/test_bicubic_x4/vid4.json results/test_MBNet_small_x4/vid4.json

Each score is the mean over the clips that have a frame of this number in all files. Because some frames are harder than
others, the plot also shows the gain over the first file. Both are printed as a Markdown table.
"""
import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from basicsr_stvsr.training.curves import COLORS
from stvsr.errors import EXIT_FAILED, user_errors

Scores = dict[tuple[str, int], float]  # by clip and frame number


def read_scores(path: Path, metric: str) -> tuple[str, Scores]:
    """Read the name of the model and its scores from a result file of basicsr/test.py.

    Raises:
        ValueError: the file is not a result file, or lacks the metric.
    """
    try:
        results = json.loads(path.read_text())
        frames = results['frames']
        known = list(next(iter(frames.values())))
        if metric not in known:
            raise ValueError(f'{path} has no {metric}, only {", ".join(known)}')
        return results['model'], {
            (clip, number): value for clip, metrics in frames.items() for number, value in metrics[metric]
            if value is not None}
    except (AttributeError, KeyError, TypeError, StopIteration, json.JSONDecodeError) as error:
        raise ValueError(f'{path} is not a results/<name>/<data set>.json of basicsr/test.py') from error


def means(scores: list[Scores]) -> dict[int, list[float]]:
    """Return frame number -> mean of each file, over the clips that have the frame in all files.

    Raises:
        ValueError: the files have no frame in common.
    """
    common = set.intersection(*(set(one) for one in scores))
    if not common:
        raise ValueError('the files have no frame of a clip in common')
    clips = defaultdict(list)
    for clip, number in common:
        clips[number].append(clip)
    return {number: [statistics.mean(one[clip, number] for clip in clips[number]) for one in scores]
            for number in sorted(clips)}


def plot(names: list[str], by_frame: dict[int, list[float]], metric: str) -> Figure:
    figure = Figure(figsize=(9, 3.5), layout='constrained')
    absolute, gain = figure.subplots(1, 2)
    for index, name in enumerate(names):
        values = [row[index] for row in by_frame.values()]
        color = COLORS[index % len(COLORS)]
        absolute.plot(list(by_frame), values, marker='.', color=color, label=name)
        if index:
            gains = [row[index] - row[0] for row in by_frame.values()]
            gain.plot(list(by_frame), gains, marker='.', color=color, label=name)
    absolute.set_ylabel(metric)
    gain.set_ylabel(f'{metric}, gain over {names[0]}')
    for axes in (absolute, gain):
        axes.set_xlabel('frame')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize='small')
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='+', type=Path, help='results/<name>/<data set>.json')
    parser.add_argument('--metric', default='psnr', help='name in val.metrics (default: %(default)s)')
    parser.add_argument('--output', type=Path, help='picture to draw')
    args = parser.parse_args()
    with user_errors(code=EXIT_FAILED):
        names, scores = zip(*(read_scores(path, args.metric) for path in args.results), strict=True)
        by_frame = means(list(scores))
    print(f'| frame | {" | ".join(names)} |\n|---|{"---|" * len(names)}')
    for number, values in by_frame.items():
        cells = [f'{values[0]:.3f}', *(f'{value:.3f} ({value - values[0]:+.3f})' for value in values[1:])]
        print(f'| {number} | {" | ".join(cells)} |')
    if args.output:
        plot(list(names), by_frame, args.metric).savefig(args.output, dpi=110)


if __name__ == '__main__':
    main()
