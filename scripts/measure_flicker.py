"""Measure the flicker of restored clips: the mean squared error of their frame differences against ground truth.

    python basicsr/test.py -opt options/test_fisr_small.yml --force_yml val:save_img=true
    python scripts/measure_flicker.py --gt datasets/vid4_GT.lmdb results/test_FISR_small_x2/visualization/vid4

Each folder holds a folder of saved frames for each clip, as written by basicsr/test.py: `<clip>/<frame>_<suffix>.png`.
Flicker is measured on luma of 8-bit frames (0-255, as in BasicSR's metrics). Prints a Markdown table. `--save` also
adds the mean to the result file of each test, here results/test_FISR_small_x2/vid4.json.
"""
import argparse
import json
from pathlib import Path

import numpy as np

from basicsr_stvsr.io.color_spaces import TO_YUV
from basicsr_stvsr.io.frames import FrameReader
from basicsr_stvsr.io.opening import open_color_reader
from basicsr_stvsr.io.saved_frames import numbers_of
from basicsr_stvsr.metrics.flicker import flicker
from basicsr_stvsr.utils.atomic_files import replace_file
from stvsr.errors import EXIT_FAILED, user_errors


def luma(frame: np.ndarray) -> np.ndarray:  # uint8 (h, w, 3), BGR -> float (h, w), without the offset of 16
    return frame[..., ::-1] @ TO_YUV[0]


def clip_flicker(result: FrameReader, gt: FrameReader, clip: str) -> float:
    """Return the flicker of the saved frames, which must be consecutive.

    Raises:
        ValueError: there are no frames, frames are missing in between, or sizes or names do not match the ground truth.
    """
    saved = numbers_of(result, clip, [gt.frame_name(clip, i) for i in range(gt.num_frames(clip))])
    order = sorted(saved)
    if order != list(range(order[0], order[0] + len(order))):
        raise ValueError(f'{result.path}: clip {clip!r} has the frames {order} of {gt.path}; some in between are '
                         'missing')
    frames = [luma(result.frame(clip, saved[number])) for number in order]
    true = [luma(gt.frame(clip, number)) for number in order]
    height, width = frames[0].shape  # crop the remainder that was cut off before downscaling
    return flicker(np.stack(frames), np.stack([frame[:height, :width] for frame in true]))


def result_file(folder: Path) -> Path:
    """Return the result file of the test that saved these frames.

    Raises:
        FileNotFoundError: it does not exist.
    """
    path = folder.resolve().parents[1] / f'{folder.resolve().name}.json'
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; basicsr/test.py writes it beside the frames that it saves')
    return path


def save(path: Path, mean: float) -> None:
    """Add the mean to a result file of basicsr/test.py, as the metric `flicker`."""
    result = json.loads(path.read_text(encoding='utf-8'))
    result['average']['flicker'] = {'all': mean}
    replace_file(path, json.dumps(result, indent=1).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folders', nargs='+', type=Path, help='saved frames, a folder a clip')
    parser.add_argument('--gt', type=Path, required=True, help='true clips: folder, LMDB or videos')
    parser.add_argument('--save', action='store_true', help='add the mean to the result file of each test')
    args = parser.parse_args()
    with user_errors(code=EXIT_FAILED):
        files = [result_file(folder) for folder in args.folders] if args.save else []
        with open_color_reader(args.gt) as gt:
            rows = {}
            for folder in args.folders:
                with open_color_reader(folder) as result:
                    rows[folder] = {clip: clip_flicker(result, gt, clip) for clip in result.clips}
    clips = list(dict.fromkeys(clip for row in rows.values() for clip in row))
    print(f'| frames | {" | ".join(clips)} | mean |')
    print(f'|---|{"---|" * len(clips)}---|')
    for folder, row in rows.items():
        values = [f'{row[clip]:.2f}' if clip in row else '' for clip in clips]
        print(f'| {folder} | {" | ".join(values)} | {np.mean(list(row.values())):.2f} |')
    for path, folder in zip(files, args.folders, strict=False):  # without --save, there are no files
        save(path, float(np.mean(list(rows[folder].values()))))


if __name__ == '__main__':
    main()
