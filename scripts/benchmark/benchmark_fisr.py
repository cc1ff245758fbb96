"""Benchmark FISR: windows in one call or in four, flow of samples, memory for 4K frames, and the effect of tiles.

    python scripts/benchmark/benchmark_fisr.py step --check
    python scripts/benchmark/benchmark_fisr.py data --check
    python scripts/benchmark/benchmark_fisr.py restore --check
    python scripts/benchmark/benchmark_fisr.py tiles --clips datasets/vid4_GT.lmdb

`step`: time of a FISRModel training step, with the windows of stride 1 and stride 2 as one batch, divided by that of
the same step with one call per window. The two take turns.
`data`: seconds of a worker per batch, with and without DIS flow, next to the step of the network that trains on it.
A row's share is the time of the flow divided by that of the step, on one core each; below 1, a single worker keeps up.
`restore`: peak memory of restoring a 1920x1080 clip with the protocol's 2x2 tiles, in a fresh process.
`tiles`: difference between frames restored in 2x2 tiles and the same frames restored whole, with the packaged weights.
"""
import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from benchmark_data import texture
from benchmark_util import MIB, add_device_option, describe, in_new_process, memory_growth, seconds

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.archs import build_network
from basicsr.utils import get_root_logger
from torch import Tensor
from torch.utils.data import default_collate

from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.data.clip_dataset import STVSRClipDataset, STVSRTestDataset
from basicsr_stvsr.data.lq_flow import LQFlow
from basicsr_stvsr.flow import build_flow
from basicsr_stvsr.inference.tiles import Tiling
from basicsr_stvsr.inference.windows import restore_clip, restore_frames
from basicsr_stvsr.models.fisr_model import NUM_WINDOWS, FISRModel
from basicsr_stvsr.utils.cpu_memory import keep_freed_memory

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL_OPTIONS = ROOT / 'options' / 'test_fisr_small.yml'

WIDTHS = {'headline': 64, 'small': [6, 8, 16]}
STEP_LIMIT = 1.0  # relative to four calls; use --turns to reduce noise
FLOW_LIMIT = 1.0  # relative to the network's step
MEMORY_LIMIT = 6e9  # bytes


class FourCalls(FISRModel):
    """The same step, window by window, as in the authors' graph."""

    def compute_losses(self) -> dict[str, Tensor]:
        def windows(x: Tensor) -> list[Tensor]:
            return x.unflatten(0, (len(self.gt), -1)).unbind(1)

        calls = [self.net_g(lq, flow, return_aux=True)[1].levels
                 for lq, flow in zip(windows(self.lq), windows(self.flow), strict=True)]
        levels = [torch.stack(level, dim=1) for level in zip(*calls, strict=True)]
        terms = self.cri_temporal(
            [level[:, :NUM_WINDOWS] for level in levels], [level[:, NUM_WINDOWS] for level in levels], self.gt)
        return {f'l_{name}': term for name, term in terms.items()}


class Setting(NamedTuple):
    preset: str
    batch: int
    patch: int  # side of the LR frames
    device: torch.device


def make_model(model: type[FISRModel], setting: Setting) -> FISRModel:
    torch.manual_seed(0)
    return model({
        'name': 'benchmark', 'num_gpu': int(setting.device.type == 'cuda'), 'dist': False, 'rank': 0, 'world_size': 1,
        'is_train': True, 'manual_seed': 0, 'path': {}, 'datasets': {'train': {}},
        'network_g': {'type': 'FISRNet', 'num_feat': WIDTHS[setting.preset]},
        'train': {'optim_g': {'type': 'Adam', 'lr': 1e-4}, 'total_iter': 10**6,
                  'scheduler': {'type': 'MultiStepLR', 'milestones': [10**6], 'gamma': 0.5},
                  'temporal_opt': {'type': 'MultiScaleTemporalLoss'}}})


def noise(setting: Setting) -> dict[str, Tensor]:
    b, s = setting.batch, setting.patch
    return {'lq': torch.rand(b, 5, 3, s, s), 'gt': torch.rand(b, 7, 3, 2 * s, 2 * s),
            'lq_flow': torch.randn(b, 4, 2, 2, s, s), 'lq_flow_stride2': torch.randn(b, 2, 2, 2, s, s)}


def compare_steps(setting: Setting, num_turn: int) -> float:
    models = {'one call': make_model(FISRModel, setting), 'four calls': make_model(FourCalls, setting)}
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.feed_data(noise(setting))
        model.optimize_parameters(1)
    for turn in range(num_turn):
        for name in models if turn % 2 == 0 else reversed(models):
            times[name].append(seconds(lambda model=models[name], step=turn + 2: model.optimize_parameters(step),
                                       setting.device))
    ratio = statistics.median(one / four for one, four in zip(*times.values(), strict=True))
    print('| step | s |\n|---|---|')
    for name, values in times.items():
        print(f'| {name} | {statistics.median(values):.3f} |')
    print(f'\nratio: {ratio:.3f} (median of {num_turn} turns)')
    return ratio


def make_clip(folder: Path, num_frames: int = 9, height: int = 540, width: int = 960) -> None:
    scene = texture(np.random.default_rng(0), height + 64, width + 64)
    for i in range(num_frames):
        cv2.imwrite(str(folder / f'{i:08d}.png'), scene[5 * i:5 * i + height, 3 * i:3 * i + width])


def compare_data(setting: Setting, num_turn: int) -> dict[str, float]:
    model = make_model(FISRModel, setting)
    times: dict[str, list[float]] = {'no flow': []}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'clip').mkdir()
        make_clip(Path(folder) / 'clip')
        sources = {'no flow': None} | {
            f'DIS, {preset}': {'type': 'DISFlow', 'preset': preset} for preset in ('medium', 'fast', 'ultrafast')}
        datasets = {}
        for name, flow_opt in sources.items():
            datasets[name] = STVSRClipDataset({
                'name': 'clips', 'phase': 'train', 'scale': 2, 'dataroot_gt': folder, 'color': 'yuv', 'num_frame': 9,
                'gt_size': 2 * setting.patch, 'cache': True, 'flow_opt': flow_opt, 'flow_strides': [1, 2]})
            times[name] = []
            samples = [datasets[name][0] for _ in range(setting.batch)]
        model.feed_data(default_collate(samples))
        model.optimize_parameters(1)
        times['step'] = []
        for turn in range(num_turn):
            times['step'].append(seconds(lambda step=turn + 2: model.optimize_parameters(step), setting.device))
            for name, dataset in datasets.items():
                times[name].append(seconds(lambda dataset=dataset: [dataset[0] for _ in range(setting.batch)],
                                           torch.device('cpu')))
    shares = {}
    print('| one batch | s | of the step, for the flow |\n|---|---|---|')
    for name, values in times.items():
        share = ''
        if name.startswith('DIS'):
            shares[name] = statistics.median(
                (own - none) / step for own, none, step in zip(values, times['no flow'], times['step'], strict=True))
            share = f'{shares[name]:.3f}'
        print(f'| {name} | {statistics.median(values):.3f} | {share} |')
    return shares


def restore_large(preset: str, num_frames: int, device: torch.device) -> int:
    """Return the bytes of restoring a 1920x1080 clip frame by frame, with its flow; run this in a fresh process."""
    torch.set_num_threads(1)
    build_network({'type': 'FISRNet', 'num_feat': 2}).to(device)(
        torch.rand(1, 3, 3, 32, 32, device=device), torch.rand(1, 2, 2, 2, 32, 32, device=device))  # loads libraries
    scene = texture(np.random.default_rng(0), 1080 + 8 * num_frames, 1920 + 8 * num_frames)
    frames = [np.ascontiguousarray(scene[4 * i:4 * i + 1080, 3 * i:3 * i + 1920]) for i in range(num_frames)]

    def run() -> None:
        net = build_network({'type': 'FISRNet', 'num_feat': WIDTHS[preset]}).to(device).eval()
        estimate = LQFlow(build_flow({'type': 'DISFlow'}), 'rgb')
        flow = estimate.to_sample(estimate.estimate(frames), num_frames)['lq_flow'].unsqueeze(0)
        lq = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).unsqueeze(0).float() / 255
        numbers = []
        for number, frame in restore_frames(net, lq[..., :1024, :], flow[..., :1024, :], Tiling((2, 2), 32)):
            if frame.shape != (1, 3, 2048, 3840):
                raise RuntimeError(f'a frame is {tuple(frame.shape)}')
            numbers.append(number)
        if numbers != list(range(1, 2 * num_frames - 2)):
            raise RuntimeError(f'the frames are {numbers}')

    return memory_growth(run, device)


def compare_tiles(clips: Path, overlaps: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Return overlap -> PSNR in dB between tiled and whole frames, and their largest difference in levels of 255."""
    opt = load_options(str(SMALL_OPTIONS))
    dataset = STVSRTestDataset({
        **opt['datasets']['test'], 'phase': 'test', 'scale': opt['scale'], 'dataroot_gt': clips})
    net = build_network(opt['network_g']).eval()
    weights = torch.load(ROOT / opt['path']['pretrain_network_g'], weights_only=True)
    net.load_state_dict({name: value.float() for name, value in weights['params'].items()})
    squares, largest = {overlap: [] for overlap in overlaps}, dict.fromkeys(overlaps, 0.0)
    for sample in dataset:
        lq, flow = sample['lq'].unsqueeze(0), sample['lq_flow'].unsqueeze(0)
        whole = restore_clip(net, lq, flow)
        for overlap in overlaps:
            difference = restore_clip(net, lq, flow, Tiling((2, 2), overlap)) - whole
            squares[overlap].append(difference.square().flatten())
            largest[overlap] = max(largest[overlap], 255 * difference.abs().max().item())
    result = {overlap: (-10 * torch.cat(squares[overlap]).double().mean().log10().item(), largest[overlap])
              for overlap in overlaps}
    print('| overlap (LR pixels) | tiled beside whole (dB) | largest difference (of 255) |\n|---|---|---|')
    for overlap, (psnr, level) in result.items():
        print(f'| {overlap} | {psnr:.1f} | {level:.4f} |')
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('step', 'data', 'restore', 'tiles'))
    parser.add_argument('--preset', choices=WIDTHS, default='headline', help='(default: %(default)s)')
    parser.add_argument('--batch', type=int, default=2, help='(default: %(default)s)')
    parser.add_argument('--patch', type=int, default=96, help='side of the LR frames (default: %(default)s)')
    parser.add_argument('--turns', type=int, default=5, help='timed steps of each row (default: %(default)s)')
    parser.add_argument('--clips', type=Path, help='of `tiles`: folder of clips, LMDB or video')
    parser.add_argument('--frames', type=int, default=5, help='LR frames to restore (default: %(default)s)')
    add_device_option(parser)
    parser.add_argument('--return-memory', action='store_true',
                        help='on a CPU give freed memory back to the system, which trainings do not')
    parser.add_argument('--check', action='store_true', help='fail above the limit')
    args = parser.parse_args()
    if (args.what == 'tiles') != (args.clips is not None):
        parser.error('--clips belongs to tiles, which needs it')
    setting = Setting(args.preset, args.batch, args.patch, torch.device(args.device))
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if args.device == 'cpu' and args.what in ('step', 'data') and not args.return_memory:
        keep_freed_memory()
    get_root_logger(log_level=logging.WARNING)
    if args.what == 'tiles':
        compare_tiles(args.clips, (32, 0))
        return 0
    print(f'FISR {args.preset}; {describe(setting.device)}')
    if args.what == 'restore':
        memory = in_new_process(restore_large, args.preset, args.frames, setting.device)
        print(f'{memory / MIB:.0f} MiB at most for {args.frames} frames of 1920x1080, x2 and x2, in 2x2 tiles')
        failed = memory > MEMORY_LIMIT
    else:
        print(f'batch {args.batch}, {args.patch}x{args.patch} LR\n')
        if args.what == 'step':
            failed = compare_steps(setting, args.turns) > STEP_LIMIT
        else:
            failed = compare_data(setting, args.turns)['DIS, medium'] > FLOW_LIMIT
    if failed:
        print('above the limit', file=sys.stderr)
    return int(args.check and failed)


if __name__ == '__main__':
    sys.exit(main())
