"""Compare training in bfloat16 and float32, for every small network: step time, or loss after some hundred steps.

Each option file is trained unchanged on clips of moving photographs: its network, losses, optimiser, moving average
and batches. Both precisions start from the same weights and see the same batches.

    python scripts/benchmark/benchmark_amp.py time
    python scripts/benchmark/benchmark_amp.py loss --files options/train_mbnet_small.yml --steps 500 --check

`time`: seconds per step; the two take turns, and a ratio is the median over the turns.
`loss`: the mean of `l_pix`, or of the first loss term, over the last tenth of the steps, for each seed. Differences no
larger than those between seeds are noise. `--check` fails if the mean difference of the two precisions exceeds twice
the standard deviation of float32 between seeds.
"""
import argparse
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from benchmark_util import add_device_option, describe, seconds
from torch.utils.data import Dataset, default_collate

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger

from basicsr_stvsr.config.loading import complete_datasets, complete_paths, load_options
from basicsr_stvsr.data.synthetic import CameraPath, cut_sheet, draw
from basicsr_stvsr.inference.precision import computes_bf16
from basicsr_stvsr.models.stvsr_model import STVSRModel
from basicsr_stvsr.utils.cpu_memory import keep_freed_memory

FILES = sorted(Path('options').glob('train_*_small*.yml'))
PHOTOS = ('coffee', 'chelsea')
NUM_FRAMES, HEIGHT, WIDTH = 20, 160, 240  # of a clip
PRECISIONS = ('none', 'bf16')  # values of train.amp; ratios are second to first


def write_clips(folder: Path) -> None:
    """Write clips of photographs under a moving camera."""
    for number, photo in enumerate(PHOTOS):
        (folder / photo).mkdir()
        path = CameraPath(centre=(200.0, 150.0), velocity=(1.5 - number, 1.0), zoom=0.005 * number)
        sheet = cut_sheet(getattr(skimage.data, photo)()[..., ::-1], path, NUM_FRAMES, HEIGHT, WIDTH)
        for frame in range(NUM_FRAMES):
            cv2.imwrite(str(folder / photo / f'{frame:08d}.png'), draw([sheet], frame, HEIGHT, WIDTH)[0])


def options_of(file: Path, clips: Path, amp: str, seed: int, device: str) -> dict[str, Any]:
    """Return complete options of a training on `clips`."""
    opt = load_options(str(file))
    opt.update(num_gpu=int(device == 'cuda'), dist=False, rank=0, world_size=1, is_train=True, manual_seed=seed)
    opt['path'] |= {'pretrain_network_g': None, 'pretrain_network_d': None}
    opt['train']['amp'] = amp
    opt['datasets'] = {'train': opt['datasets']['train'] | {'dataroot_gt': str(clips)}}
    complete_datasets(opt)
    complete_paths(opt, str(clips.parent))
    return opt


def model_of(file: Path, clips: Path, amp: str, seed: int, device: str) -> STVSRModel:
    torch.manual_seed(seed)
    return build_model(options_of(file, clips, amp, seed, device))


def batches_of(opt: dict[str, Any], seed: int) -> tuple[Dataset, int, np.random.Generator]:
    options = opt['datasets']['train']
    return build_dataset(deepcopy(options)), options['batch_size_per_gpu'], np.random.default_rng(seed)


def next_batch(dataset: Dataset, size: int, random: np.random.Generator) -> dict[str, Any]:
    return default_collate([dataset[int(index)] for index in random.integers(len(dataset), size=size)])


def step(model: STVSRModel, number: int) -> None:
    model.update_learning_rate(number, model.opt['train'].get('warmup_iter', -1))
    model.optimize_parameters(number)


def loss_of(model: STVSRModel) -> float:
    """Return the first loss term in the log, which is that of the frames."""
    losses = model.get_current_log()
    return float(losses.get('l_pix', next(iter(losses.values()))))


def compare_times(file: Path, clips: Path, args: argparse.Namespace) -> list[float]:
    """Return the median seconds per step in either precision, and the ratio."""
    models = [model_of(file, clips, amp, 0, args.device) for amp in PRECISIONS]
    batch = next_batch(*batches_of(models[0].opt, 0))
    for model in models:
        model.feed_data(batch)
        for number in (1, 2):
            step(model, number)
    times: list[list[float]] = [[] for _ in models]
    for turn in range(args.turns):
        for i in (0, 1) if turn % 2 == 0 else (1, 0):
            times[i].append(seconds(lambda model=models[i], turn=turn: step(model, turn + 3),
                                    torch.device(args.device)))
    ratio = statistics.median(bf16 / fp32 for fp32, bf16 in zip(*times, strict=True))
    return [*map(statistics.median, times), ratio]


def final_loss(file: Path, clips: Path, amp: str, seed: int, args: argparse.Namespace) -> float:
    """Return the mean loss over the last tenth of the steps."""
    model = model_of(file, clips, amp, seed, args.device)
    batches, losses = batches_of(model.opt, seed), []
    for number in range(1, args.steps + 1):
        torch.manual_seed(1000 * seed + number)  # for crops and dropout, equal in both precisions
        model.feed_data(next_batch(*batches))
        step(model, number)
        if number > args.steps - max(1, args.steps // 10):
            losses.append(loss_of(model))
    return statistics.fmean(losses)


def print_times(files: Sequence[Path], clips: Path, args: argparse.Namespace) -> bool:
    print('| training | fp32 (s) | bf16 (s) | ratio |\n|---|---|---|---|')
    for file in files:
        fp32, bf16, ratio = compare_times(file, clips, args)
        print(f'| {file.stem} | {fp32:.3f} | {bf16:.3f} | {ratio:.2f} |', flush=True)
    return True


def print_losses(files: Sequence[Path], clips: Path, args: argparse.Namespace) -> bool:
    is_noise = True
    print('| training | seed | fp32 | bf16 | difference |\n|---|---|---|---|---|')
    for file in files:
        pairs = []
        for seed in range(args.seeds):
            pairs.append([final_loss(file, clips, amp, seed, args) for amp in PRECISIONS])
            fp32, bf16 = pairs[-1]
            print(f'| {file.stem} | {seed} | {fp32:.5f} | {bf16:.5f} | {bf16 / fp32 - 1:+.2%} |', flush=True)
        difference = abs(statistics.fmean(bf16 - fp32 for fp32, bf16 in pairs))
        noise = statistics.stdev(fp32 for fp32, _ in pairs)
        print(f'\n{file.stem}: mean difference {difference:.5f}, deviation between seeds {noise:.5f}\n')
        is_noise = is_noise and difference <= 2 * noise
    return is_noise


MODES = {'time': print_times, 'loss': print_losses}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=MODES)
    parser.add_argument('--files', nargs='+', type=Path, default=FILES, metavar='FILE',
                        help='option files (default: all of options/train_*_small*.yml)')
    parser.add_argument('--turns', type=int, default=5, help='timed steps of each (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=500, help='of a training for `loss` (default: %(default)s)')
    parser.add_argument('--seeds', type=int, default=3, help='at least 2 (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of a CPU (default: %(default)s)')
    add_device_option(parser)
    parser.add_argument('--check', action='store_true', help='fail where the loss differs by more than noise')
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f'--seeds must be at least 2, but got {args.seeds}')
    torch.set_num_threads(args.threads)
    if args.device == 'cpu':
        keep_freed_memory()  # as every training does
    get_root_logger(log_level=logging.WARNING)
    native = computes_bf16(args.device)
    print(f'{describe(torch.device(args.device))}; bfloat16 is {"computed natively" if native else "emulated"}\n')
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / 'clips'
        clips.mkdir()
        write_clips(clips)
        is_kept = MODES[args.what](args.files, clips, args)
    return int(args.check and not is_kept)


if __name__ == '__main__':
    sys.exit(main())
