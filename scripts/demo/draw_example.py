"""Draw docs/example.jpg: a demo clip restored by the shipped MBNet small, next to bicubic and the ground truth.

    python scripts/demo/draw_example.py

The input is every second frame of the clip, downscaled by four. The picture shows part of a given and of an
interpolated frame, and the PSNR of the whole frame in RGB. Redraw it when the weights change.
"""
import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from make_demo_clips import CLIPS, make_clip
from scenes import render
from torch import Tensor

from basicsr_stvsr.archs.resize import upscale_bicubic
from basicsr_stvsr.inference.windows import restore_clip
from basicsr_stvsr.metrics.psnr_ssim import calculate_psnr
from basicsr_stvsr.zoo.table import load

# isort: split
from basicsr.utils.matlab_functions import imresize

PICTURE = Path(__file__).resolve().parents[2] / 'docs' / 'example.jpg'
SIZE = 192, 320  # frame size of the demo
NUM_FRAMES, SEED, SCALE = 9, 0, 4  # as in the demo
GIVEN = 2  # number of the given frame; the interpolated one is next
CROP = slice(12, 124), slice(90, 250)  # rows, columns
ZOOM = 2
GAP, STRIP, QUALITY = 8, 30, 90
GROUND, INK = 255, (44, 36, 32)


class Panel(NamedTuple):
    """A picture with its title; shows PSNR if ground truth is given."""

    title: str
    frame: np.ndarray  # (H, W, 3), uint8, RGB
    truth: np.ndarray | None = None


def clip() -> Tensor:
    """Return three frames of the first test clip of the demo: (3, 3, H, W), 0-1."""
    _, scene = make_clip(*CLIPS['test'][0], NUM_FRAMES, *SIZE, SEED)
    frames = np.stack([render(scene, index, *SIZE)[..., ::-1] for index in range(GIVEN, GIVEN + 3)])
    return torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float() / 255


def to_image(frame: Tensor) -> np.ndarray:
    """Convert (3, H, W), 0-1, to (H, W, 3), uint8."""
    return frame.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def panels() -> list[list[Panel]]:
    """Return a row for the given frame, and one for the interpolated frame after it."""
    truth = clip()
    lq = torch.stack([imresize(frame, 1 / SCALE) for frame in truth[::2]]).clamp(0, 1).mul(255).round() / 255
    ours = restore_clip(load('mbnet-small'), lq[None])[0]
    bicubic = upscale_bicubic(lq[None], SCALE)[0].clamp(0, 1)
    pixels = lq.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
    given, between = to_image(truth[0]), to_image(truth[1])
    return [
        [Panel('given frame: its input', to_image(pixels[0])), Panel('bicubic', to_image(bicubic[0]), given),
         Panel('MBNet small', to_image(ours[0]), given), Panel('truth', given)],
        [Panel('new frame: the input before it', to_image(pixels[0])),
         Panel('mean of bicubic frames', to_image(bicubic.mean(0)), between),
         Panel('MBNet small', to_image(ours[1]), between), Panel('truth', between)],
    ]


def draw_panel(panel: Panel) -> np.ndarray:
    """Draw the enlarged part of the frame below its title."""
    score = '' if panel.truth is None else f'  {calculate_psnr(panel.frame, panel.truth, 0):.1f} dB'
    image = cv2.resize(panel.frame[CROP], None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    strip = np.full((STRIP, image.shape[1], 3), GROUND, np.uint8)
    cv2.putText(strip, panel.title + score, (2, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, INK[::-1], 1, cv2.LINE_AA)
    return np.vstack([strip, image])


def draw() -> np.ndarray:
    """Return the picture, (H, W, 3), uint8, RGB."""
    def spaced(image: np.ndarray) -> np.ndarray:
        return np.pad(image, ((0, GAP), (0, GAP), (0, 0)), constant_values=GROUND)

    rows = [np.hstack([spaced(draw_panel(panel)) for panel in row]) for row in panels()]
    return np.vstack(rows)[:-GAP, :-GAP]


def encoded() -> np.ndarray:
    """Return the picture as a JPEG file."""
    return cv2.imencode('.jpg', draw()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, default=PICTURE, metavar='FILE', help='(default: docs/example.jpg)')
    path = parser.parse_args().output
    path.write_bytes(encoded())
    print(path)


if __name__ == '__main__':
    main()
