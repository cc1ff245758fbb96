"""Hints for messages about missing clips."""
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from ..io.images import VIDEO_SUFFIXES
from ..io.raw_video import RAW_SUFFIXES

_SCRIPTS = 'python scripts/data_preparation'


class _KnownData(NamedTuple):
    """A data set of create_lmdb.py, with the splits and subsets that the name of an LMDB may mention.

    `subsets`: part of a name -> subset; the first match applies. The default subset is not listed.
    """
    name: str
    splits: tuple[str, ...] = ()
    subsets: dict[str, str] = {}


_DATASETS = {  # pattern of the name of an LMDB -> its data set
    'vimeo.*triplet': _KnownData('vimeo90k_triplet', ('test',)),
    'vimeo': _KnownData('vimeo90k', ('test',)),
    'reds': _KnownData('reds', ('reds4', 'val'), {
        'blur_bicubic': 'blur_bicubic', 'sharp_bicubic': 'sharp_bicubic', 'blur': 'blur'}),
    'dvd': _KnownData('dvd', ('test',), {'blur': 'input', 'input': 'input'}),
    'vid4': _KnownData('vid4'),
    'ucf': _KnownData('ucf101'),
    'middlebury': _KnownData('middlebury')
}


def hint(option: str, path: Path, gt: Path | None, scale: int) -> str:
    """Return how to create missing clips, as the end of a message; empty if the path is a video, a list or flows.

    Args:
        option: option of a data set that names the clips.
        path: where the clips should be.
        gt: the ground truth, if there is one.
        scale: how many times larger the ground truth is than LR frames.
    """
    roots = ('dataroot_gt', 'dataroot_lq', 'dataroot_blurred', 'dataroot_lq_sharp')
    if option not in roots or path.suffix.lower() in VIDEO_SUFFIXES | RAW_SUFFIXES:
        return ''
    subset = _subset(path) or ''
    if gt and option in ('dataroot_lq', 'dataroot_lq_sharp') and not subset.endswith('bicubic'):
        source, instead = shlex.quote(str(gt)), 'remove the option to make LR frames from dataroot_gt'
        if subset:
            source, instead = 'BLURRED', 'set dataroot_blurred to the blurred clips, to make LR frames from them'
        elif option == 'dataroot_lq_sharp':
            instead = 'set lq_sharp: true instead, to make them from dataroot_gt'
        return (f'\nCreate it with\n  {_SCRIPTS}/make_lr.py --scale {scale} --input {source} --output '
                f'{shlex.quote(str(path))}\nor {instead} while reading.')
    output, place = shlex.quote(str(path)), 'Create it'
    if path.suffix != '.lmdb':
        output = shlex.quote(f'{path}.lmdb')
        place = f'Put the clips there, one folder of images for each clip; or set the option to {output} and create it'
    return (f'\n{place} with\n  {_SCRIPTS}/create_lmdb.py --dataset {_guess_dataset(path)} --input FOLDER --output '
            f'{output}\n(--help lists the data sets; docs/datasets.md shows the folders of each)')


def _is_named(path: Path, pattern: str) -> bool:
    return re.search(f'(?<![a-z]){pattern}', path.name.lower()) is not None


def _known_data(path: Path) -> _KnownData:
    return next((known for pattern, known in _DATASETS.items() if _is_named(path, pattern)), _KnownData('folder'))


def _subset(path: Path) -> str | None:
    """Return the subset that the name of a path mentions; None: the default one."""
    return next((subset for part, subset in _known_data(path).subsets.items() if _is_named(path, part)), None)


def _guess_dataset(path: Path) -> str:
    """Return arguments of create_lmdb.py that create a data set of this name."""
    known, subset = _known_data(path), _subset(path)
    splits = [f'--split {split}' for split in known.splits if _is_named(path, split)]
    return ' '.join([known.name, *splits, *([f'--subset {subset}'] if subset else [])])
