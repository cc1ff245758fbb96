"""Measure training samples per second and worker: STVSRClipDataset and BasicSR's Vimeo90KRecurrentDataset.

Both read all seven frames from the same GT and LR LMDBs, made here of synthetic 448x256 septuplets, with the same crops
and flips. The two take turns in this process, which does the work of a single DataLoader worker.

    python scripts/benchmark/benchmark_data.py
"""
import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

import basicsr_stvsr  # noqa: F401  (before anything of basicsr, which it patches)

# isort: split
from basicsr.data.vimeo90k_dataset import Vimeo90KRecurrentDataset
from basicsr.utils.lmdb_util import LmdbMaker

from basicsr_stvsr.data.clip_dataset import STVSRClipDataset
from basicsr_stvsr.data.degradations import bicubic

HEIGHT, WIDTH, SCALE, NUM_FRAME = 256, 448, 4, 7


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return uint8 noise with amplitude inverse to frequency, as in photographs; PNG compresses it about as well."""
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        noise = rng.standard_normal((2**octave, 2**octave, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    image += 0.01 * rng.standard_normal(image.shape).astype(np.float32)
    return np.clip(128 + 90 * image, 0, 255).astype(np.uint8)


def make_lmdbs(folder: Path, num_clips: int) -> dict[str, str]:
    """Write gt.lmdb, lq.lmdb and a meta info file of septuplets that pan over a texture."""
    rng = np.random.default_rng(0)
    degradation = bicubic(SCALE)
    makers = {name: LmdbMaker(str(folder / f'{name}.lmdb'), map_size=2**34) for name in ('gt', 'lq')}
    with open(folder / 'meta_info.txt', 'w') as meta_info:
        for clip in range(num_clips):
            scene = texture(rng, HEIGHT + 16, WIDTH + 16)
            for i in range(NUM_FRAME):
                gt = np.ascontiguousarray(scene[2 * i:2 * i + HEIGHT, i:i + WIDTH])
                for name, frame in (('gt', gt), ('lq', degradation(gt))):
                    png = cv2.imencode('.png', frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
                    makers[name].put(png, f'00001/{clip + 1:04d}/im{i + 1}', frame.shape)
            meta_info.write(f'00001/{clip + 1:04d} {NUM_FRAME} ({HEIGHT},{WIDTH},3)\n')
    for maker in makers.values():
        maker.close()
    return {
        'dataroot_gt': str(folder / 'gt.lmdb'),
        'dataroot_lq': str(folder / 'lq.lmdb'),
        'meta_info_file': str(folder / 'meta_info.txt'),
    }


def samples_per_second(dataset: torch.utils.data.Dataset, num_samples: int) -> float:
    dataset[0]  # opens the LMDBs
    random.seed(0)
    start = time.perf_counter()
    for i in range(num_samples):
        dataset[i % len(dataset)]
    return num_samples / (time.perf_counter() - start)


def measure_stock(opt: dict, num_samples: int) -> float:
    dataset = Vimeo90KRecurrentDataset({**opt, 'io_backend': {'type': 'lmdb'}, 'flip_sequence': False})
    result = samples_per_second(dataset, num_samples)
    for environment in dataset.file_client.client._client.values():  # a process can open an LMDB only once
        environment.close()
    return result


def measure_ours(opt: dict, num_samples: int) -> float:
    dataset = STVSRClipDataset({**opt, 'num_frame': NUM_FRAME, 'temporal_scale': 1})
    result = samples_per_second(dataset, num_samples)
    dataset.gt.close()
    dataset.lq.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clips', type=int, default=20, help='septuplets in the LMDBs (default: 20)')
    parser.add_argument('--samples', type=int, default=40, help='samples of one run (default: 40)')
    parser.add_argument('--pairs', type=int, default=7, help='alternated pairs of runs (default: 7)')
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in a DataLoader worker
    cv2.setNumThreads(0)

    with tempfile.TemporaryDirectory() as folder:
        opt = {
            **make_lmdbs(Path(folder), args.clips), 'scale': SCALE, 'num_frame': NUM_FRAME, 'gt_size': 256,
            'random_reverse': True, 'use_hflip': True, 'use_rot': True
        }
        measures: dict[str, Callable[[dict, int], float]] = {'stock': measure_stock, 'ours': measure_ours}
        results: dict[str, list[float]] = {'stock': [], 'ours': []}
        for pair in range(args.pairs):
            for name in ('stock', 'ours') if pair % 2 == 0 else ('ours', 'stock'):
                results[name].append(measures[name](opt, args.samples))
    ratios = [ours / stock for ours, stock in zip(results['ours'], results['stock'], strict=True)]
    print(f'Vimeo90KRecurrentDataset: {statistics.median(results["stock"]):6.1f} samples/s per worker')
    print(f'STVSRClipDataset:         {statistics.median(results["ours"]):6.1f} samples/s per worker')
    print(f'ratio: {statistics.median(ratios):.2f} (median of {args.pairs} pairs, '
          f'{min(ratios):.2f} to {max(ratios):.2f})')


if __name__ == '__main__':
    main()
