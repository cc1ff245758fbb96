"""Create an LMDB in BasicSR's format from a data set as distributed, or from any folder of clips, LMDB or video.

    python scripts/data_preparation/create_lmdb.py --dataset vimeo90k --split train \
        --input datasets/vimeo_septuplet --output datasets/vimeo90k_train_GT.lmdb --verify

docs/datasets.md lists the expected folders of each data set, and the resulting keys.
"""
import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from script_util import add_output_options, open_writer, run, write

from basicsr_stvsr.io.images import IMAGE_SUFFIXES, is_hidden, natural_key
from basicsr_stvsr.io.lmdb_files import FrameSource, clip_frames, file_frame, verify_lmdb
from basicsr_stvsr.io.opening import open_color_reader

REDS4 = ('000', '011', '015', '020')
REDS_FRAMES = 100  # of each clip
# https://github.com/shuochsu/DeepVideoDeblurring, quantitative_datasets: 10 of the 71 clips are for testing.
DVD_TEST = ('720p_240fps_2', 'IMG_0003', 'IMG_0021', 'IMG_0030', 'IMG_0031', 'IMG_0032', 'IMG_0033', 'IMG_0037',
            'IMG_0039', 'IMG_0049')
VID4 = ('calendar', 'city', 'foliage', 'walk')
# File names of the first, middle and last frame of a triplet; the folder may contain other images.
TRIPLET_NAMES = (
    ('frame_00', 'frame_01_gt', 'frame_02'),  # UCF101, as Deep Voxel Flow distributes it
    ('frame10', 'frame10i11', 'frame11'),  # Middlebury
)
NUMBERED_TRIPLET = ('00000000', '00000001', '00000002')  # with more frames, it is a longer clip


@dataclass(frozen=True)
class Request:
    """The requested part of a data set; None for fields that it does not use.

    Attributes:
        root: folder of the data set.
        split: 'train', 'test', ...
        subset: one of several versions of the same frames, such as 'sharp' and 'blur'.
        clips: names of clips to use instead of the split.
    """
    root: Path
    split: str | None
    subset: str | None
    clips: list[str] | None


def vimeo90k(request: Request, *, list_prefix: str, num_frames: int) -> Iterator[FrameSource]:
    """Map sequences/00001/0001/im1.png, for the clips of sep_trainlist.txt, to 00001/0001/im1, all frames."""
    clips = request.clips or read_clip_list(request.root / f'{list_prefix}_{request.split}list.txt')
    folder = request.root / 'sequences'
    if not folder.is_dir():  # the input is the folder itself
        folder = request.root
    for clip in clips:
        for i in range(1, num_frames + 1):
            yield existing_frame(f'{clip}/im{i}', folder / clip / f'im{i}.png')


def reds(request: Request) -> Iterator[FrameSource]:
    """Map train_sharp/000/00000000.png or train_sharp_bicubic/X4/000/00000000.png to 000/00000000."""
    prefix = 'val' if request.split == 'val' else 'train'
    folder = request.root / f'{prefix}_{request.subset}'
    if request.subset.endswith('bicubic'):
        folder = folder / 'X4'
    clips = request.clips or (REDS4 if request.split == 'reds4' else subfolders(folder))
    if request.split == 'train' and not request.clips:
        clips = [clip for clip in clips if clip not in REDS4]
    for clip in clips:
        for i in range(REDS_FRAMES):
            yield existing_frame(f'{clip}/{i:08d}', folder / clip / f'{i:08d}.png')


def dvd(request: Request) -> Iterator[FrameSource]:
    """Map quantitative_datasets: 720p_240fps_1/{GT,input}/00000.jpg to 720p_240fps_1/00000."""
    clips = request.clips or DVD_TEST
    if request.split == 'train' and not request.clips:
        clips = [clip for clip in subfolders(request.root) if clip not in DVD_TEST]
    for clip in clips:
        # Use the names of both sides, so that a frame missing on the selected side is an error.
        names = {path.name for side in ('GT', 'input') for path in images(request.root / clip / side)}
        for name in sorted(names, key=natural_key):
            yield existing_frame(f'{clip}/{Path(name).stem}', request.root / clip / request.subset / name)


def vid4(request: Request) -> Iterator[FrameSource]:
    """Map calendar/00000000.png or GT/calendar/00000000.png to calendar/00000000, renumbered from 0."""
    clips = request.clips or VID4
    folder = request.root
    if not (folder / clips[0]).is_dir():
        folder = folder / request.subset
    for clip in clips:
        for i, path in enumerate(images(folder / clip)):
            yield file_frame(f'{clip}/{i:08d}', path)


def triplets(request: Request) -> Iterator[FrameSource]:
    """Map <clip>/{frame10,frame10i11,frame11}.png, or other triplet names, to <clip>/0000000{0,1,2}."""
    # Middlebury distributes given and interpolated frames in two trees.
    roots = [request.root / 'other-data', request.root / 'other-gt-interp']
    if not roots[0].is_dir():
        roots = [request.root]
    for clip in request.clips or subfolders(roots[-1]):
        files = {path.stem: path for root in roots for path in images(root / clip)}
        names = next((names for names in TRIPLET_NAMES if set(names) <= set(files)), NUMBERED_TRIPLET)
        if names is NUMBERED_TRIPLET and set(names) != set(files):
            raise FileNotFoundError(f'{" and ".join(str(root / clip) for root in roots)}: no triplet; expected images '
                                    f'named {" or ".join(map(str, [*TRIPLET_NAMES, NUMBERED_TRIPLET]))}, '
                                    f'found {sorted(files)[:8]}')
        for i, name in enumerate(names):
            yield file_frame(f'{clip}/{i:08d}', files[name])


def any_clips(request: Request) -> Iterator[FrameSource]:
    """Map any clips that a reader supports to <clip>/<frame>."""
    reader = open_color_reader(request.root, clips=request.clips)
    for clip in reader.clips:
        yield from clip_frames(reader, clip)


@dataclass(frozen=True)
class DataSet:
    """A row of DATASETS; the first of `splits` and `subsets` is the default."""
    frames: Callable[[Request], Iterator[FrameSource]]
    splits: tuple[str, ...] = ()
    subsets: tuple[str, ...] = ()


DATASETS = {
    'vimeo90k': DataSet(partial(vimeo90k, list_prefix='sep', num_frames=7), splits=('train', 'test')),
    'vimeo90k_triplet': DataSet(partial(vimeo90k, list_prefix='tri', num_frames=3), splits=('train', 'test')),
    'reds': DataSet(reds, splits=('train', 'reds4', 'val', 'all'),
                    subsets=('sharp', 'blur', 'sharp_bicubic', 'blur_bicubic')),
    'dvd': DataSet(dvd, splits=('train', 'test'), subsets=('GT', 'input')),
    'vid4': DataSet(vid4, subsets=('GT', 'BIx4', 'BDx4')),
    'ucf101': DataSet(triplets),
    'middlebury': DataSet(triplets),
    'folder': DataSet(any_clips),
}


def existing_frame(key: str, path: Path) -> FrameSource:
    """Return a frame after checking that its file exists, so that a missing file is found before hours of writing."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist, but belongs to the data set (key {key!r})')
    return file_frame(key, path)


def subfolders(path: Path) -> list[str]:
    return [child.name for child in children(path, Path.is_dir, 'folders; expected one for each clip')]


def images(path: Path) -> list[Path]:
    return children(path, lambda file: file.suffix.lower() in IMAGE_SUFFIXES, 'images')


def children(path: Path, is_wanted: Callable[[Path], bool], what: str) -> list[Path]:
    if not path.is_dir():
        raise FileNotFoundError(f'{path} does not exist or is not a folder; docs/datasets.md shows the expected '
                                'folders')
    visible = (child for child in path.iterdir() if not is_hidden(child.name))
    found = sorted(filter(is_wanted, visible), key=lambda child: natural_key(child.name))
    if not found:
        raise FileNotFoundError(f'{path} holds no {what}')
    return found


def read_clip_list(path: Path) -> list[str]:
    """Read clip names, one per line; only the first word counts, so a meta info file also works."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; use --clips to name another list of clips')
    clips = [line.split()[0] for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    if not clips:
        raise ValueError(f'{path} names no clips')
    return clips


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', choices=DATASETS)
    parser.add_argument('--input', type=Path, help='folder of the data set; for "folder": clips, an LMDB or a video')
    parser.add_argument('--output', type=Path, required=True, help='<name>.lmdb')
    parser.add_argument('--split', help='; '.join(
        f'{name}: {", ".join(row.splits)}' for name, row in DATASETS.items() if row.splits))
    parser.add_argument('--subset', help='; '.join(
        f'{name}: {", ".join(row.subsets)}' for name, row in DATASETS.items() if row.subsets))
    parser.add_argument('--clips', type=Path, metavar='FILE',
                        help='use the clips listed in this text file, one per line, instead of those of the split')
    parser.add_argument('--verify', action='store_true', help='read every frame again when all are written')
    parser.add_argument('--verify-only', action='store_true', help='write nothing, read every frame of --output')
    add_output_options(parser)
    args = parser.parse_args()

    if args.output.suffix != '.lmdb':
        parser.error(f"--output must end in '.lmdb', as BasicSR wants it; got {args.output}")
    if args.verify_only:
        return args
    if not args.dataset or not args.input:
        parser.error('--dataset and --input are needed to write an LMDB')
    row = DATASETS[args.dataset]
    for option, choices in (('split', row.splits), ('subset', row.subsets)):
        value = getattr(args, option)
        if value is None:
            setattr(args, option, choices[0] if choices else None)
        elif value not in choices:
            expected = f'one of {", ".join(choices)}' if choices else 'none'
            parser.error(f'--{option} {value}: {args.dataset} takes {expected}')
    return args


def main() -> int:
    args = parse_args()
    if not args.verify_only:
        writer = open_writer(args.output, [args.input], force=args.force)
        request = Request(args.input, args.split, args.subset, read_clip_list(args.clips) if args.clips else None)
        list_frames = DATASETS[args.dataset].frames
        num_frames = sum(1 for _ in list_frames(request))  # finds missing files before writing
        write(writer, list_frames(request), num_frames=num_frames, num_workers=args.workers)
    if args.verify or args.verify_only:
        problems = verify_lmdb(args.output, num_workers=args.workers)
        for problem in problems:
            print(problem)
        if problems:
            raise ValueError(f'{args.output}: {len(problems)} damaged frames, listed above')
        print(f'Every frame of {args.output} can be read.')
    return 0


if __name__ == '__main__':
    run(main)
