"""Draw docs/failures.jpg: what the shipped networks cannot do, on scenes of the demo.

    python scripts/demo/draw_failures.py

Each row shows part of a frame: the input, the result of a network, and the truth. Redraw it when the weights change.
"""
import argparse
from pathlib import Path
from typing import NamedTuple

import basicsr_stvsr

# isort: split
import cv2
import numpy as np
from make_demo_clips import OCCLUDERS
from scenes import random_background, random_occluder, render

from basicsr_stvsr.data.degradations import bicubic
from basicsr_stvsr.io.codecs import compress

PICTURE = Path(__file__).resolve().parents[2] / 'docs' / 'failures.jpg'
SIZE = 192, 320  # frame size of the demo
CROP = slice(24, 168), slice(64, 256)  # rows, columns
GAP, STRIP, QUALITY = 8, 36, 88
GROUND, INK = 255, (32, 36, 44)
Frames = list[np.ndarray]  # uint8 (H, W, 3), RGB


class Failure(NamedTuple):
    """A row of the picture.

    Attributes:
        title: what is shown.
        model: name of the network.
        lq: input frames.
        truth: frames, as many as the network makes.
        shown: number of the frame in the truth.
    """

    title: str
    model: str
    lq: Frames
    truth: Frames
    shown: int


def scene(speed: float, num_frames: int, *, per_frame: int = 1) -> Frames:
    """Render an object that moves by `speed` pixels a frame in front of a slow background.

    Args:
        per_frame: pictures for each frame, evenly spread in time.
    """
    rng = np.random.default_rng(1)
    layers = [random_background(rng, 'astronaut', 'pan', 3, num_frames, *SIZE),
              random_occluder(rng, *OCCLUDERS['cat'], 'pan', speed, num_frames, *SIZE)]
    return [np.ascontiguousarray(render(layers, number / per_frame, *SIZE)[..., ::-1])
            for number in range(num_frames * per_frame)]


def smaller(frames: Frames, scale: int = 4) -> Frames:
    return [bicubic(scale)(frame) for frame in frames]


def blurred(frames: Frames, length: int) -> Frames:
    """Average `length` pictures around each."""
    side = length // 2
    return [np.mean(frames[max(0, i - side):i + side + 1], axis=0).round().astype(np.uint8) for i in range(len(frames))]


def failures() -> list[Failure]:
    """Return the rows of the picture."""
    slow, fast, sub = scene(3, 5), scene(30, 5), scene(10, 4, per_frame=5)
    return [
        Failure('mbnet-small, new frame: fast motion', 'mbnet-small', smaller(fast[::2]), fast, 3),
        Failure('fisr-small, new frame: fast motion', 'fisr-small', smaller(fast[::2], 2), fast, 3),
        Failure('fstrn-small: compressed video', 'fstrn-small', compress(smaller(slow), 'h264', 30), slow, 2),
        Failure('hoffr-small: strong motion blur', 'hoffr-small', smaller(blurred(sub, 10)[::5]), sub[::5], 2),
        Failure('adaptive-gan-small: invented detail', 'adaptive-gan-small', smaller(slow), slow, 2),
    ]


def draw_row(failure: Failure) -> np.ndarray:
    """Restore the clip of a row; draw parts of the input, the result and the truth below a title."""
    result = list(basicsr_stvsr.restore(iter(failure.lq), failure.model, device='cpu'))
    scale = failure.truth[0].shape[0] // failure.lq[0].shape[0]
    given = failure.lq[failure.shown * (len(failure.lq) - 1) // (len(failure.truth) - 1)]
    large = cv2.resize(given, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    images = [np.pad(image[CROP], ((0, GAP), (0, GAP), (0, 0)), constant_values=GROUND)
              for image in (large, result[failure.shown], failure.truth[failure.shown])]
    row = np.hstack(images)[:, :-GAP]
    return np.vstack([strip((failure.title,), row.shape[1]), row])


def strip(texts: tuple[str, ...], width: int) -> np.ndarray:
    """Return a line of texts, each at the start of its share of the width."""
    image = np.full((STRIP, width, 3), GROUND, np.uint8)
    for i, text in enumerate(texts):
        cv2.putText(image, text, (2 + i * width // len(texts), 25), cv2.FONT_HERSHEY_SIMPLEX, 0.8, INK, 1, cv2.LINE_AA)
    return image


def draw() -> np.ndarray:
    """Return the picture, (H, W, 3), uint8, RGB."""
    rows = [draw_row(failure) for failure in failures()]
    return np.vstack([strip(('input', 'result', 'truth'), rows[0].shape[1]), *rows])


def encoded() -> np.ndarray:
    """Return the picture as a JPEG file."""
    return cv2.imencode('.jpg', draw()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, default=PICTURE, metavar='FILE', help='(default: docs/failures.jpg)')
    path = parser.parse_args().output
    path.write_bytes(encoded())
    print(path)


if __name__ == '__main__':
    main()
