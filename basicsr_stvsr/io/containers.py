"""Containers of output files, and the streams that they can hold."""
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .video_info import VideoError

# Suffix of an output -> FFmpeg's name of its container. AVI lacks time stamps, and transport streams lack tags and
# chapters, so both are left out.
CONTAINERS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.webm': 'webm'}


def takes_stream(suffix: str, stream: Any) -> bool:
    """Return whether a container can hold a stream unchanged."""
    if stream.type not in ('audio', 'subtitle', 'data', 'attachment'):
        return False  # a second video is mostly a cover picture, and is not restored
    return trial_error(suffix, lambda container: container.add_stream_from_template(stream)) is None


def trial_error(suffix: str, add_stream: Callable[[Any], Any]) -> Exception | None:
    """Return FFmpeg's error for a trial file in memory. Only FFmpeg knows all limits of encoders and containers."""
    import av

    container = av.open(io.BytesIO(), 'w', format=CONTAINERS[suffix.lower()])
    try:
        add_stream(container)
        container.start_encoding()
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return error
    finally:
        container.close()
    return None


def open_input(path: Path) -> Any:
    import av

    try:
        return av.open(str(path), metadata_errors='replace')
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f'{path}: cannot be read ({error})') from error
