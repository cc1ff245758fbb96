"""Check whether an output can be written, before any work begins."""
import os
import re
from pathlib import Path

from .containers import CONTAINERS, open_input, trial_error
from .copied_streams import plan_streams
from .encoding import ANIMATIONS, CODEC_TABLE, PARAMETERS, Encoding, OutputSpec, add_encoder
from .images import is_image
from .video_info import VideoError, VideoInfo

_LARGEST_WEBP = 16383


def check_output(path: str | Path, info: VideoInfo, encoding: Encoding, spec: OutputSpec, *,
                 overwrite: bool = False) -> list[str]:
    """Check whether an output can be written, before any work begins.

    Args:
        path: the output: a file, or a folder for the codec 'png'.
        info: properties of the source.
        encoding: codec and quality.
        spec: format of the output frames.
        overwrite: whether to replace an existing file, or a folder that holds only such frames.

    Returns:
        A sentence for each thing that the output will lack, or have in an unexpected form.

    Raises:
        VideoError: there is no such container, or it does not support the codec; the encoder rejects the size or an
            option; the folder is missing or not writable; the output is the source, or already exists.
    """
    path = Path(path)
    _check_place(path, info, overwrite)
    if encoding.codec == 'png' and is_image(path) and not path.is_dir():
        if not info.is_one_image:
            raise VideoError(f'{path}: is named like an image, but the source is not one image; expected a folder')
        return []
    if encoding.codec == 'png':
        if path.suffix.lower() in CONTAINERS or path.is_file():
            raise VideoError(f'{path}: the codec png writes a folder of frames, got the name of a file')
        if path.is_symlink():
            raise VideoError(f'{path}: is a link, expected a folder that can be replaced')
        there = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
        if there and not overwrite:
            raise VideoError(f'{path}: already exists and is not empty; --overwrite replaces frames')
        given = {f'{file.stem}.png' for file in info.path.iterdir()} if info.path.is_dir() else set()
        if others := [name for name in there if name not in given and not re.fullmatch(r'\d{8}\.png', name)]:
            raise VideoError(f'{path}: holds other files than frames ({others[0]}) and will not be replaced')
        return [f'a folder of frames cannot hold {stream}' for stream in _things_beside(info)]
    if ANIMATIONS.get(encoding.codec) == path.suffix.lower() and not path.is_dir():
        if encoding.codec == 'webp' and max(spec.width, spec.height) > _LARGEST_WEBP:
            raise VideoError(f'{path}: WebP files have at most {_LARGEST_WEBP} pixels of width and height, the output '
                             f'would have {spec.width}x{spec.height}')
        notes = [f'a {path.suffix} file cannot hold {stream}' for stream in _things_beside(info)]
        if spec.sample_aspect_ratio != 1:
            notes.append(f'{path.suffix} files have no place for the shape of the pixels, {spec.sample_aspect_ratio}: '
                         'the picture will look stretched')
        return notes
    if path.suffix.lower() not in CONTAINERS or encoding.codec in ANIMATIONS or path.is_dir():
        known = ', '.join(CONTAINERS)
        raise VideoError(f'{path}: expected the name of a file that ends in one of {known}, or in .gif or .webp '
                         'with the codec of that name, or a folder and the codec png')
    _check_codec(path, spec, encoding)
    notes = _notes_of_streams(path, info, encoding)
    codec = CODEC_TABLE[encoding.codec]
    if codec.odd_pixels and spec.pixel_format(encoding) in codec.odd_pixels.values():
        notes.append(f'{encoding.codec} stores the odd size {spec.width}x{spec.height} in 4:4:4, which some players '
                     'cannot show')
    notes += [f'the output will not have {lost}' for lost in info.lost]
    if info.has_captions:
        notes.append('the closed captions in the picture become a subtitle stream, without positions and colours')
    if spec.hdr and encoding.codec not in PARAMETERS:
        notes.append(f'{encoding.codec} has no place for the HDR metadata (mastering display, light level)')
    return notes


def _things_beside(info: VideoInfo) -> list[str]:
    """Return what a video holds besides frames."""
    return [*map(str, info.streams), *(['closed captions'] if info.has_captions else [])]


def _notes_of_streams(path: Path, info: VideoInfo, encoding: Encoding) -> list[str]:
    """Return what the output will lack of the other streams of the source."""
    if not info.streams:
        return []
    with open_input(info.path) as source:
        plans = plan_streams(source, info.stream, path.suffix, encoding.audio)
        return [plan.warning for plan in plans if plan.warning]


def _check_place(path: Path, info: VideoInfo, overwrite: bool) -> None:
    if not path.name:
        raise VideoError(f'{path}: is not the name of an output file or folder')
    folder = path.absolute().parent
    if not folder.is_dir():
        raise VideoError(f'{path}: the folder {folder} does not exist')
    if not os.access(path if path.is_dir() else folder, os.W_OK):
        raise VideoError(f'{path}: no permission to write to the folder {folder}')
    if path.exists() and info.path.exists() and path.samefile(info.path):
        raise VideoError(f'{path}: is the source itself; choose another name')
    if path.is_file() and not overwrite:
        raise VideoError(f'{path}: already exists; --overwrite replaces it')


def _check_codec(path: Path, spec: OutputSpec, encoding: Encoding) -> None:
    suffix = path.suffix.lower()
    if error := _encoding_error(suffix, spec, encoding):
        if takes := [other for other in CONTAINERS if not _encoding_error(other, spec, encoding)]:
            raise VideoError(f'{path}: {suffix} files cannot hold {encoding.codec}, but {" and ".join(takes)} files '
                             'can')
        raise VideoError(f'{path}: {encoding.codec} cannot encode {spec.width}x{spec.height} pixels (w x h) with '
                         f'{encoding.encoder_options(alpha=spec.alpha)} ({error})')


def _encoding_error(suffix: str, spec: OutputSpec, encoding: Encoding) -> Exception | None:
    if spec.width < (least := CODEC_TABLE[encoding.codec].least_width):
        return ValueError(f'at least {least} pixels of width')
    return trial_error(suffix, lambda container: add_encoder(container, spec, encoding, threads=1))
