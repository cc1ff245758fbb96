"""Keep what the report of a training shows besides its metrics.jsonl, as small files in `<experiment>/report/`.

    environment.json             versions, and the summary that the training printed
    clips.json                   scores of every clip at the last validation
    samples/<set>/about.json     which frames are shown, and which part of them
    samples/<set>/<group>_input.webp, _truth.webp, _<iteration>.webp
"""
import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import torch

from ..evaluation.clip_scores import GroupMeans
from ..evaluation.visuals import Sample
from ..utils.atomic_files import replace_file
from ..utils.json_files import finite_or_null
from ..version import __version__

FOLDER = 'report'
SIDE = 160  # of a shown part of a frame, in pixels
MAX_VALIDATIONS = 8  # that are kept of each frame
LOSSLESS = cv2.IMWRITE_WEBP_QUALITY, 101  # OpenCV's number for it

ClipMeans = Mapping[str, Mapping[str, GroupMeans]]  # clip -> metric -> means


def start_files(experiment: str, start_iter: int, summary: str) -> None:
    """Note the environment, and remove what a killed run left after the iteration from which this one goes on."""
    folder = Path(experiment) / FOLDER
    for path in folder.glob('samples/*/*_*.webp'):
        iteration = iteration_of(path)
        if iteration is not None and iteration > start_iter:
            path.unlink()
    clips = read_json(folder / 'clips.json')
    if clips and clips['iter'] > start_iter:
        (folder / 'clips.json').unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'environment.json', {'versions': versions(), 'summary': summary})


def versions() -> dict[str, str]:
    cuda = {'CUDA': torch.version.cuda} if torch.version.cuda and torch.cuda.is_available() else {}
    return {'basicsr_stvsr': __version__, 'basicsr': version('basicsr'), 'torch': torch.__version__, **cuda,
            'torchvision': version('torchvision'), 'numpy': np.__version__, 'OpenCV': cv2.__version__,
            'Python': platform.python_version(), 'system': platform.platform()}


def keep_validation(experiment: str, iteration: int, clips: Mapping[str, ClipMeans],
                    samples: Mapping[str, Sequence[Sample]]) -> None:
    """Keep the scores of all clips, and a part of each sample.

    Args:
        clips: data set -> scores of its clips.
        samples: data set -> frames to show.
    """
    folder = Path(experiment) / FOLDER
    folder.mkdir(exist_ok=True)
    write_json(folder / 'clips.json', {'iter': iteration, 'sets': clips})
    for dataset, frames in samples.items():
        keep_samples(folder / 'samples' / quote(dataset, safe=' '), iteration, frames)


def keep_samples(folder: Path, iteration: int, samples: Sequence[Sample]) -> None:
    """Write the same part of each frame as in earlier validations; start anew where another frame is shown."""
    folder.mkdir(parents=True, exist_ok=True)
    known = read_json(folder / 'about.json') or {}
    about: dict[str, Any] = {}
    for sample in samples:
        truth = sample.lq if sample.gt is None else sample.gt
        scale = len(sample.result) // len(sample.lq)
        size = [min(SIDE // scale, length) for length in sample.lq.shape[:2]]  # in LR pixels
        factor = len(truth) // len(sample.lq)
        corner = [place // factor for place in busiest_part(truth, [length * factor for length in size])]
        about[sample.group] = {'clip': sample.clip, 'frame': sample.frame, 'corner': corner, 'size': size}
        if about[sample.group] != known.get(sample.group):
            for path in folder.glob(f'{sample.group}_*.webp'):
                path.unlink()
        images = {'input': sample.lq, 'truth': sample.gt, str(iteration): sample.result}
        for name, image in images.items():
            if image is not None:
                part = crop(image, corner, size, len(image) // len(sample.lq))
                replace_file(folder / f'{sample.group}_{name}.webp', cv2.imencode('.webp', part, LOSSLESS)[1].data)
        for dropped in thin_out(iterations_of(folder, sample.group)):
            (folder / f'{sample.group}_{dropped}.webp').unlink()
    write_json(folder / 'about.json', about)


def busiest_part(image: np.ndarray, size: Sequence[int]) -> tuple[int, int]:
    """Return top and left of the part with the most detail."""
    height, width = size
    detail = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_32F))
    sums = cv2.integral(detail)
    parts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(parts.argmax(), parts.shape)
    return int(top), int(left)


def crop(image: np.ndarray, corner: Sequence[int], size: Sequence[int], scale: int) -> np.ndarray:
    """Return the part at a corner, both in LR pixels."""
    (top, left), (height, width) = ([scale * length for length in lengths] for lengths in (corner, size))
    return image[top:top + height, left:left + width]


def thin_out(iterations: Sequence[int]) -> list[int]:
    """Return the iterations to drop, so that the others are spread over the training; first and last stay."""
    kept, dropped = list(iterations), []
    while len(kept) > MAX_VALIDATIONS:
        gaps = [after - before for before, after in zip(kept, kept[2:], strict=False)]
        dropped.append(kept.pop(1 + gaps.index(min(gaps))))
    return dropped


def iterations_of(folder: Path, group: str) -> list[int]:
    """Return the iterations whose results are kept, in order."""
    found = map(iteration_of, folder.glob(f'{group}_*.webp'))
    return sorted(iteration for iteration in found if iteration is not None)


def iteration_of(path: Path) -> int | None:
    """Return the iteration of a result; None for an input or a ground truth."""
    match = re.search(r'_(\d+)$', path.stem)
    return int(match[1]) if match else None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a file; None if there is none."""
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, json.dumps(finite_or_null(content), indent=1).encode())
