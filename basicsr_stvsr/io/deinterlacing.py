"""Deinterlace decoded frames."""
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from .video_info import DamageError

if TYPE_CHECKING:
    import av

Deinterlace = bool | Literal['auto']


def deinterlaced(frames: Iterable['av.VideoFrame'], *, all_frames: bool = True) -> Iterator['av.VideoFrame']:
    """Deinterlace frames with FFmpeg's filter bwdif: each frame of two fields becomes one frame at the same time.

    Args:
        frames: all of one size and pixel format. Their errors are raised again, after the frames finished before.
        all_frames: whether to change frames that are not flagged as interlaced, too.
    """
    import av

    graph: av.filter.Graph | None = None
    failure: Exception | None = None

    def ready(graph: 'av.filter.Graph') -> Iterator['av.VideoFrame']:
        while True:
            try:
                yield graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    try:
        for frame in frames:
            graph = graph or _bwdif(frame, all_frames)
            graph.vpush(frame)
            yield from ready(graph)
    except (DamageError, av.error.FFmpegError) as error:
        failure = error
    if graph is not None:
        graph.vpush(None)  # the filter delays a frame until it sees the next one
        yield from ready(graph)
    if failure is not None:
        raise failure


def _bwdif(first: 'av.VideoFrame', all_frames: bool) -> 'av.filter.Graph':
    import av.filter

    graph = av.filter.Graph()
    assert first.time_base is not None
    time_base = f'{first.time_base.numerator}/{first.time_base.denominator}'
    source = graph.add('buffer', f'video_size={first.width}x{first.height}:pix_fmt={first.format.name}'
                       f':time_base={time_base}:colorspace={first.colorspace}:range={first.color_range}')
    bwdif = graph.add('bwdif', mode='send_frame', deint='all' if all_frames else 'interlaced')
    graph.link_nodes(source, bwdif, graph.add('buffersink')).configure()
    return graph
