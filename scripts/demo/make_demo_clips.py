"""Make short clips with known camera motion from the photographs in scikit-image; needs no download.

    python scripts/demo/make_demo_clips.py --output datasets/demo/clips

Writes <output>/{train,test}/<clip>/<frame>.png, and the camera path of every layer of every clip to
<output>/motion.json (basicsr_stvsr/data/synthetic.py explains the numbers). Train and test clips share
no photograph.
"""
import argparse
import json
import zlib
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from scenes import Layer, random_background, random_occluder, render

from basicsr_stvsr.data.synthetic import Cutout

SPEED = (2.0, 5.5)  # pixels per frame, averaged over the frame

# Foreground objects: named regions of the photographs, cut out at (x, y) with a radius, in pixels of the photograph.
OCCLUDERS = {
    'cup': ('coffee', Cutout((290, 175), 170)),
    'engine': ('stereo_motorcycle', Cutout((430, 225), 110)),
    'gland': ('immunohistochemistry', Cutout((347, 393), 70)),
    'planet': ('retina', Cutout((705, 705), 680, waviness=0)),
    'face': ('astronaut', Cutout((225, 120), 85)),
    'helmet': ('astronaut', Cutout((390, 445), 100)),
    'cat': ('cat', Cutout((225, 140), 115)),
}

CLIPS = {  # split -> (background photograph, camera motion, occluder or None)
    'train': [
        ('stereo_motorcycle', 'pan', None),
        ('stereo_motorcycle', 'zoom', 'cup'),
        ('stereo_motorcycle', 'rotation', None),
        ('stereo_motorcycle', 'combined', 'planet'),
        ('coffee', 'pan', 'engine'),
        ('coffee', 'rotation', None),
        ('coffee', 'combined', 'gland'),
        ('immunohistochemistry', 'zoom', None),
        ('immunohistochemistry', 'combined', 'cup'),
        ('immunohistochemistry', 'pan', None),
        ('brick', 'pan', 'engine'),
        ('brick', 'rotation', None),
        ('gravel', 'zoom', 'planet'),
        ('grass', 'combined', 'cup'),
        ('coins', 'combined', None),
        ('hubble_deep_field', 'rotation', 'gland'),
    ],
    'test': [
        ('astronaut', 'pan', 'cat'),
        ('camera', 'rotation', 'helmet'),
        ('cat', 'zoom', None),
        ('rocket', 'combined', 'face'),
    ],
}


def make_scene(
    rng: np.random.Generator, photo: str, motion: str, occluder: str | None, num_frames: int, height: int, width: int
) -> list[Layer]:
    """Return the layers of one clip, back to front; the camera stays inside the background photograph."""
    scene = [random_background(rng, photo, motion, rng.uniform(*SPEED), num_frames, height, width)]
    if occluder is not None:
        scene.append(
            random_occluder(rng, *OCCLUDERS[occluder], 'combined', rng.uniform(*SPEED), num_frames, height, width)
        )
    return scene


def make_clip(
    photo: str, motion: str, occluder: str | None, num_frames: int, height: int, width: int, seed: int
) -> tuple[str, list[Layer]]:
    """Return the name and the layers of a clip; its motion does not depend on other clips."""
    clip = '_'.join(filter(None, (photo, motion, occluder)))
    rng = np.random.default_rng([seed, zlib.crc32(clip.encode())])
    return clip, make_scene(rng, photo, motion, occluder, num_frames, height, width)


def make_clips(output: Path, num_frames: int, height: int, width: int, seed: int) -> None:
    """Write every clip of CLIPS, and motion.json last."""
    motions = {}
    for split, clips in CLIPS.items():
        for parts in clips:
            clip, scene = make_clip(*parts, num_frames, height, width, seed)
            motions[f'{split}/{clip}'] = [asdict(layer) for layer in scene]
            folder = output / split / clip
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(num_frames):
                cv2.imwrite(str(folder / f'{index:08d}.png'), render(scene, index, height, width))
            print(f'{split}/{clip}: {num_frames} frames')
    (output / 'motion.json').write_text(json.dumps(motions, indent=2), encoding='utf-8')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, required=True, help='folder to write to')
    parser.add_argument('--num_frames', type=int, default=9, help='frames per clip')
    parser.add_argument('--height', type=int, default=192, help='frame height in pixels')
    parser.add_argument('--width', type=int, default=320, help='frame width in pixels')
    parser.add_argument('--seed', type=int, default=0, help='another number gives other camera paths')
    args = parser.parse_args()
    make_clips(args.output, args.num_frames, args.height, args.width, args.seed)


if __name__ == '__main__':
    main()
