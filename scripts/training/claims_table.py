"""Make the tables and the figure of docs/claims.md from the scores of run_claims.py.

    python scripts/training/claims_table.py claims/scores.json

A score is the mean of the clips of a set, given as mean and standard deviation of the seeds. In brackets is the
difference from the paper's variant: for each clip, the mean of the seeds; over the clips, the mean and the p-value of a
paired t-test. The summary is stored in docs/claims.json. Without scores, the page is made from the stored summary.
"""
import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from run_claims import CLAIMS
from scipy.stats import ttest_1samp

ROOT = Path(__file__).resolve().parents[2]
PAGE, SUMMARY, FIGURE = (ROOT / 'docs' / f'claims.{suffix}' for suffix in ('md', 'json', 'png'))
MARKED = re.compile(r'(<!-- table ([\w-]+), by scripts/training/claims_table\.py -->\n).*?(?=<!-- end of table -->)',
                    re.DOTALL)
PSNR = 'PSNR, dB'

Clips = Mapping[str, Mapping[str, Mapping[str, float]]]  # clip -> metric -> group of frames -> score


class Column(NamedTuple):
    title: str
    dataset: str
    metric: str
    group: str = 'all'
    unit: str = PSNR
    digits: int = 2


COLUMNS: dict[str, tuple[Column, ...]] = {
    'mbnet': tuple(Column(f'{title}, {frames}', dataset, 'psnr', group)
                   for title, dataset in (('Vid4', 'vid4'), ('Middlebury', 'middlebury_other'), ('UCF101', 'ucf101'))
                   for frames, group in (('given', 'vsr'), ('new', 'vfi'))),
    'fisr': (Column('given', 'vid4', 'psnr_yuv', 'vsr'), Column('new', 'vid4', 'psnr_yuv', 'vfi'),
             Column('flicker (lower is better)', 'vid4', 'flicker', unit='', digits=1)),
    'fstrn': (Column('luma', 'vid4', 'psnr_y'),),
    'hoffr': (Column('luma', 'vid4', 'psnr_y'),),
    'adaptive': (Column('luma', 'vid4', 'psnr'),
                 Column('error of flat pixels (lower is better)', 'vid4', 'error_flat', unit='', digits=1),
                 Column('error of edge pixels (lower is better)', 'vid4', 'error_edge', unit='', digits=1),
                 Column('NIQE (lower is better)', 'vid4', 'niqe', unit='')),
}


class Score(NamedTuple):
    """Scores of a variant: of each seed, and the comparison of its clips with those of the paper's variant."""

    seeds: list[float]
    difference: float | None = None  # None for the paper's variant
    p_value: float | None = None  # None with fewer than two clips
    num_clips: int = 0


def score(runs: Sequence[Clips], paper: Sequence[Clips] | None, metric: str, group: str) -> Score:
    """Compare runs of a variant, one for each seed, with those of the paper's variant.

    Args:
        runs, paper: the scores of the clips of a set, for each seed; None: this is the paper's variant.
    """
    values, others = (None if side is None else np.array([[clips[clip][metric][group] for clip in sorted(clips)]
                                                          for clips in side]) for side in (runs, paper))
    assert values is not None
    seeds = [float(value) for value in values.mean(axis=1)]
    if others is None:
        return Score(seeds, num_clips=values.shape[1])
    differences = values.mean(axis=0) - others.mean(axis=0)
    p_value = float(ttest_1samp(differences, 0).pvalue) if len(differences) > 1 and np.ptp(differences) > 0 else None
    return Score(seeds, float(differences.mean()), p_value, len(differences))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return claim -> variant -> {steps, column -> Score}, of the variants that were run."""
    result: dict[str, Any] = {}
    for claim, variants in CLAIMS.items():
        runs = {variant.title: [row for row in rows if row['claim'] == claim and row['variant'] == variant.title]
                for variant in variants}
        paper = runs[variants[0].title]
        if paper:
            result[claim] = {title: summary_of(claim, variant_runs, None if variant_runs is paper else paper)
                             for title, variant_runs in runs.items() if variant_runs}
    return result


def summary_of(claim: str, runs: Sequence[Mapping[str, Any]],
               paper: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    scores = {column.title: score([run['sets'][column.dataset] for run in runs],
                                  paper and [run['sets'][column.dataset] for run in paper], column.metric, column.group)
              for column in COLUMNS[claim]}
    return {'steps': list(runs[0]['steps'].values())[-1]} | {title: found._asdict() for title, found in scores.items()}


def cell(found: Mapping[str, Any], digits: int) -> str:
    seeds = found['seeds']
    text = f'{np.mean(seeds):.{digits}f}' + (f' ± {np.std(seeds, ddof=1):.{digits}f}' if len(seeds) > 1 else '')
    if found['difference'] is not None:
        p_value = '' if found['p_value'] is None else f', p {found["p_value"]:.2g}'
        text += f' ({found["difference"]:+.{digits}f}{p_value})'
    return text


def table(claim: str, variants: Mapping[str, Any]) -> str:
    columns = COLUMNS[claim]
    lines = [['variant', 'seeds', 'steps', *(column.title for column in columns)], ['---'] * (3 + len(columns))]
    for title, scores in variants.items():
        cells = [cell(scores[column.title], column.digits) for column in columns]
        lines.append([title, str(len(scores[columns[0].title]['seeds'])), f'{scores["steps"]:,}', *cells])
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def page(text: str, found: Mapping[str, Any]) -> str:
    def filled(match: re.Match[str]) -> str:
        begin, claim = match.groups()
        return begin + '\n' + (table(claim, found[claim]) if claim in found else 'Not run yet.\n') + '\n'

    return MARKED.sub(filled, text)


def draw(found: Mapping[str, Any]) -> Any:
    """Draw the differences from the paper's variants, a point for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.5 * sum(len(variants) for variants in found.values())), layout='constrained')
    axes = figure.subplots(len(found), 1, squeeze=False)[:, 0]
    for axis, (claim, variants) in zip(axes, found.items(), strict=True):
        first, *_ = COLUMNS[claim]
        paper = float(np.mean(next(iter(variants.values()))[first.title]['seeds']))
        for place, (title, scores) in enumerate(variants.items()):
            seeds = np.array(scores[first.title]['seeds']) - paper
            axis.plot(seeds, [place] * len(seeds), 'o', color='#4c6a92', alpha=0.7)
            axis.plot(seeds.mean(), place, '|', color='#c44e52', markersize=18, markeredgewidth=2)
            axis.text(-0.02, place, title, transform=axis.get_yaxis_transform(), ha='right', va='center')
        axis.axvline(0, color='0.6', linewidth=1)
        axis.set(ylim=(len(variants) - 0.5, -0.5), yticks=[],
                 xlabel=f"{first.title}: difference from the paper's, {first.unit}")
        axis.set_title(claim, loc='left', fontsize=10, fontweight='bold')
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('scores', type=Path, nargs='?', help='scores.json of run_claims.py')
    args = parser.parse_args()
    if args.scores:
        SUMMARY.write_text(json.dumps(summary(json.loads(args.scores.read_text())), indent=1) + '\n')
    found = json.loads(SUMMARY.read_text())
    PAGE.write_text(page(PAGE.read_text(), found))
    if found:
        draw(found).savefig(FIGURE, dpi=110)
    return 0


if __name__ == '__main__':
    sys.exit(main())
