"""Pack code, training clips and missing packages into one folder, for a machine without network or data sets.

    python scripts/training/pack_campaign.py --input datasets/train --output campaign --size 40 \
        --wheels lmdb pydantic pydantic_core typing_inspection annotated_types --python 3.12

    -> campaign/code     this checkout, as far as trainings need it, and BasicSR
       campaign/data     windows of frames from all clips, cropped, as JPEG of high quality
       campaign/wheels   packages that the other machine lacks, for its version of Python

Take the folder there, and run campaign/code/scripts/training/gpu_campaign.sh.
"""
import argparse
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from basicsr_stvsr.io.frames import FrameReader
from basicsr_stvsr.io.opening import open_color_reader

ROOT = Path(__file__).resolve().parents[2]
CODE = 'basicsr', 'basicsr_stvsr', 'stvsr', 'options', 'scripts'
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
# The newest of these that a wheel exists for; pip matches each name exactly.
PLATFORMS = [f'manylinux_2_{number}_x86_64' for number in (34, 31, 28, 27, 24, 17)] + ['manylinux2014_x86_64']


def windows(reader: FrameReader, num_frames: int, size: int, rng: random.Random) -> Iterator[list[bytes]]:
    """Yield random windows of frames, cropped at a random place, as JPEG files; from all clips in turn, without end."""
    clips = [clip for clip in reader.clips if reader.num_frames(clip) >= num_frames]
    if not clips:
        raise ValueError(f'{reader.path}: no clip has {num_frames} frames')
    while True:
        rng.shuffle(clips)
        for clip in clips:
            first = rng.randrange(reader.num_frames(clip) - num_frames + 1)
            frames = [reader.frame(clip, first + i) for i in range(num_frames)]
            height, width = (min(side, size) // 8 * 8 for side in frames[0].shape[:2])
            top, left = (rng.randint(0, side - part)
                         for side, part in zip(frames[0].shape[:2], (height, width), strict=True))
            yield [encode(frame[top:top + height, left:left + width]) for frame in frames]


def encode(frame: np.ndarray) -> bytes:
    return cv2.imencode('.jpg', frame, JPEG)[1].tobytes()


def write_data(inputs: Sequence[Path], output: Path, *, num_bytes: int, num_frames: int, size: int) -> int:
    """Write windows of all inputs in turn until they take `num_bytes`. Returns their number."""
    rng = random.Random(0)
    sources = [windows(open_color_reader(path), num_frames, size, rng) for path in inputs]
    used = number = 0
    while used < num_bytes:
        files = next(sources[number % len(sources)])
        folder = output / f'{number:05d}'
        folder.mkdir(parents=True)
        for index, content in enumerate(files):
            (folder / f'{index:02d}.jpg').write_bytes(content)
            used += len(content)
        number += 1
    return number


def copy_code(output: Path) -> None:
    for name in CODE:
        shutil.copytree(ROOT / name, output / name, ignore=shutil.ignore_patterns('__pycache__'))
    # BasicSR is published as source only, and building it needs torch; it consists of Python files.
    package, = find_spec('basicsr').submodule_search_locations
    shutil.copytree(package, output / 'packages' / 'basicsr', ignore=shutil.ignore_patterns('__pycache__'))


def download_wheels(names: Sequence[str], output: Path, python: str) -> None:
    platforms = [word for name in PLATFORMS for word in ('--platform', name)]
    subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary', ':all:',
                    '--implementation', 'cp', '--python-version', python, *platforms, '--dest', str(output), *names],
                   check=True)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, nargs='+', required=True, help='folders of clips, LMDBs or videos')
    parser.add_argument('--output', type=Path, required=True, help='new folder')
    parser.add_argument('--size', type=float, default=60, help='of the whole folder, in MiB (default: %(default)s)')
    parser.add_argument('--num-frames', type=int, default=9, help='per window (default: %(default)s)')
    parser.add_argument('--crop', type=int, default=256, help='side of the crops, in pixels (default: %(default)s)')
    parser.add_argument('--wheels', nargs='+', default=[], help='packages that the other machine lacks')
    parser.add_argument('--python', default='3.12', help='its version of Python (default: %(default)s)')
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f'{args.output} exists already')
    copy_code(args.output / 'code')
    if args.wheels:
        download_wheels(args.wheels, args.output / 'wheels', args.python)
    left = args.size * 2**20 - folder_size(args.output)
    if left <= 0:
        parser.error(f'code and packages take {folder_size(args.output) / 2**20:.1f} MiB, more than --size')
    number = write_data(args.input, args.output / 'data', num_bytes=int(left), num_frames=args.num_frames,
                        size=args.crop)
    print(f'{args.output}: {folder_size(args.output) / 2**20:.1f} MiB, {number} windows of {args.num_frames} frames')
    return 0


if __name__ == '__main__':
    sys.exit(main())
