"""VMAF of clips, by the FFmpeg of imageio-ffmpeg, which includes libvmaf and its models.

Code: https://github.com/Netflix/vmaf. It scores luma; each frame's score also depends on the motion to its neighbours.
"""
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from .metric_util import cropped, declare

_LOG = 'vmaf.json'


@METRIC_REGISTRY.register()
def calculate_vmaf(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, model: str = 'vmaf_v0.6.1',
                   crop_border: int = 0) -> list[float]:
    """Return VMAF for each frame of a clip, with at most one frame in memory.

    Args:
        pairs: frames of the result and of the ground truth, each (H, W, 3), uint8, BGR; all of one size. They are
            converted to YUV of BT.601 in studio swing.
        model: libvmaf's model: 'vmaf_v0.6.1', for full HD on a television; 'vmaf_v0.6.1neg', which does not reward
            sharpening; 'vmaf_4k_v0.6.1'.
        crop_border: pixels to leave out at every side.

    Returns:
        0 to 100 for each frame, higher is better; nearly 100 for equal frames.

    Raises:
        ModuleNotFoundError: imageio-ffmpeg is not installed.
        ValueError: frames have wrong shapes or types, or are no larger than the border; or FFmpeg failed, for example
            because it lacks the model.
    """
    stacked = (_stacked(img, img2, crop_border) for img, img2 in pairs)
    first = next(stacked, None)
    if first is None:
        return []
    height, width = first.shape[0] // 2, first.shape[1]
    # Both frames are stacked into one picture, so that FFmpeg keeps them in step
    halves = [f'crop={width}:{height}:0:{top}:exact=1,scale=out_color_matrix=bt601:out_range=limited,format=yuv444p'
              for top in (0, height)]
    graph = f'split[a][b];[a]{halves[0]}[img];[b]{halves[1]}[gt];[img][gt]libvmaf=model=version={model}:'
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as messages:
        command = [ffmpeg(), '-hide_banner', '-nostats', '-f', 'rawvideo', '-pix_fmt', 'bgr24', '-s',
                   f'{width}x{2 * height}', '-i', '-', '-lavfi', f'{graph}log_fmt=json:log_path={_LOG}', '-f', 'null',
                   '-']
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=messages)
        assert process.stdin is not None
        try:
            for frame in chain([first], stacked):
                if frame.shape != first.shape:
                    raise ValueError('calculate_vmaf needs frames of the same size, but one is '
                                     f'{frame.shape[0] // 2}x{frame.shape[1]} and the first {height}x{width} (h x w)')
                process.stdin.write(frame.data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # its exit code reports the error
        except BaseException:
            process.kill()
            raise
        finally:
            code = process.wait()
        log = Path(folder, _LOG)
        if code or not log.exists():
            messages.seek(0)
            last = messages.read().decode(errors='replace').strip().splitlines()[-3:]
            raise ValueError(f'calculate_vmaf: FFmpeg failed (exit code {code}): {" | ".join(last)}')
        return [frame['metrics']['vmaf'] for frame in json.loads(log.read_text())['frames']]


def unusable(options: Mapping[str, Any]) -> str | None:
    """Return why the metric cannot be computed here, or None.

    Raises:
        ValueError: FFmpeg lacks the model of the options.
    """
    if find_spec('imageio_ffmpeg') is None:
        return 'the package imageio-ffmpeg is not installed; pip install imageio-ffmpeg'
    if not _has_vmaf(ffmpeg()):
        return f'{ffmpeg()} was built without libvmaf'
    frame = np.zeros((64, 64, 3), np.uint8)
    calculate_vmaf([(frame, frame)], model=options.get('model', 'vmaf_v0.6.1'))  # fails if FFmpeg lacks the model
    return None


declare(calculate_vmaf, unusable=unusable)


def ffmpeg() -> str:
    """Return the path of imageio-ffmpeg's program, or the one in its variable IMAGEIO_FFMPEG_EXE."""
    import imageio_ffmpeg  # optional

    return imageio_ffmpeg.get_ffmpeg_exe()


@cache
def _has_vmaf(program: str) -> bool:
    filters = subprocess.run([program, '-hide_banner', '-filters'], capture_output=True, text=True, check=False)
    return ' libvmaf ' in filters.stdout


def _stacked(img: np.ndarray, img2: np.ndarray, border: int) -> np.ndarray:  # 2 x (H, W, 3) -> (2 H', W', 3)
    if img.shape != img2.shape or img.ndim != 3 or img.shape[2] != 3 or not img.dtype == img2.dtype == np.uint8:
        raise ValueError('calculate_vmaf needs two frames of the same shape (H, W, 3), uint8 (BGR), but they are '
                         f'{img.shape} of {img.dtype} and {img2.shape} of {img2.dtype}')
    return np.concatenate([cropped(frame, border, 'calculate_vmaf') for frame in (img, img2)])
