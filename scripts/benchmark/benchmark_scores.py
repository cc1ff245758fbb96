"""Measure the time for PSNR and SSIM of a clip: validation scores compared with BasicSR's functions, frame by frame.

    python scripts/benchmark/benchmark_scores.py --check

The clip has 41 frames of 720x576, the largest size and the longest clip of Vid4. Both sides first convert network
output to images. The scoring processes are started beforehand. `--check` fails if the scores take more than a fifth of
BasicSR's time, or differ by more than 1e-6.
"""
import argparse
import os
import statistics
import sys

import cv2
import torch
from benchmark_util import describe, seconds

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.metrics import calculate_metric

from basicsr_stvsr.evaluation.clip_scores import FramePair, Scorer

METRICS = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}, 'ssim': {'type': 'calculate_ssim', 'crop_border': 0}}
HEIGHT, WIDTH, NUM_FRAME = 576, 720, 41
LIMIT, TOLERANCE = 0.2, 1e-6
CPU = torch.device('cpu')


def frames() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return restored frames and ground truth: smooth noise, and the same with more noise."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(NUM_FRAME):
        coarse = torch.rand(1, 3, HEIGHT // 8, WIDTH // 8, generator=generator)
        gt = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode='bicubic')[0].clamp(0, 1)
        pairs.append(((gt + 0.02 * torch.randn(gt.shape, generator=generator)).clamp(0, 1), gt))
    return pairs


def by_basicsr(clip: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {name: [] for name in METRICS}
    for frame, gt in clip:
        pair = FramePair(frame, gt, 'rgb')
        for name, options in METRICS.items():
            scores[name].append(calculate_metric({'img': pair.image, 'img2': pair.gt_image}, options))
    return scores


def by_scorer(scorer: Scorer, clip: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, list[float]]:
    with scorer.clip(has_truth=True) as running:
        for number, (frame, gt) in enumerate(clip):
            running.add(number, FramePair(frame, gt, 'rgb'))
        return {name: [score for _, score in scores] for name, scores in running.result().items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes (default: one a core)')
    parser.add_argument('--turns', type=int, default=3, help='timed runs of each (default: %(default)s)')
    parser.add_argument('--check', action='store_true', help='fail where a limit is not kept')
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clip, scorer = frames(), Scorer(METRICS, args.workers)
    theirs, ours = by_basicsr(clip[:4]), by_scorer(scorer, clip[:4])
    difference = max(abs(a - b) for name in METRICS for a, b in zip(theirs[name], ours[name], strict=True))
    times = [(seconds(lambda: by_basicsr(clip), CPU), seconds(lambda: by_scorer(scorer, clip), CPU))
             for _ in range(args.turns)]
    scorer.close()
    ratio = statistics.median(ours / theirs for theirs, ours in times)
    print(f'{describe(CPU)}, {args.workers} processes, {NUM_FRAME} frames of {WIDTH}x{HEIGHT}')
    for name, values in zip(("BasicSR's functions", 'validation'), zip(*times, strict=True), strict=True):
        print(f'{name}: {statistics.median(values):.2f} s')
    print(f'ratio {ratio:.3f}, limit {LIMIT}; largest difference {difference:.1e}, limit {TOLERANCE:.0e}')
    return int(args.check and (ratio > LIMIT or difference > TOLERANCE))


if __name__ == '__main__':
    sys.exit(main())
