"""Restore video files or folders of frames: the pipeline behind `stvsr restore`."""
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from torch import nn

from ..io.animations import write_animation
from ..io.copied_streams import Audio
from ..io.deinterlacing import Deinterlace
from ..io.encoding import ANIMATIONS, Encoding, OutputSpec, default_codec, keeps_alpha
from ..io.frame_source import Source
from ..io.joining import join
from ..io.output_checks import check_output
from ..io.pipes import PIPE, PipeFormat, PipeSource, PipeWriter
from ..io.transparency import BLACK, Background, opaque
from ..io.video_info import VideoError
from ..io.video_reader import open_source
from ..io.video_writer import VideoWriter
from ..utils.cpu_memory import keep_freed_memory
from ..video.compare import check_proportions, write_comparison
from ..video.excerpt import Excerpt
from ..video.job import Job, Progress, RestoreError
from ..video.pipeline import Pipeline, Shape
from ..video.restorer import RestoreOptions
from ..video.side_by_side import write_side_by_side
from .network_source import NetworkSource


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """The options of restoring one video; `restore_video` takes them.

    Attributes:
        source: a video file, or a folder of frames.
        output: a video file, whose suffix selects the container; or a folder, with the codec 'png'. Source and output
            may be '-', standard input and output.
        pipe_format: of an output '-'.
        network: the network and its weights.
        interpolator: another network that doubles the frame rate before; None: none.
        shape: size and rate of the output.
        start, duration: the part to restore, in seconds from the first frame on; without a duration, up to the end.
        compare_clip: a file for a video of the input beside the output; None: none.
        compare: whether to write an HTML page that compares input and output; see `comparison_page`.
        devices: where it runs, such as 'cpu' or 'cuda:0'; several devices share a video.
        channels_last, compile: see `NetworkSource.load`.
        restoring: how to restore frames.
        codec, crf, preset, audio: how to encode them, see `Encoding`; without a codec, by the suffix of the output.
        deinterlace, strict, stream: how to read them, see `VideoSource`.
        background: colour to lay transparent pixels over; None: keep them, or lay them over black where the output has
            no alpha.
        rate: frames per second of a folder of frames; None: 25.
        resume: whether to continue interrupted work.
        overwrite: whether to replace an existing output once the new one is complete.
    """
    source: Path
    output: Path
    network: NetworkSource
    interpolator: NetworkSource | None = None
    shape: Shape = field(default_factory=Shape)
    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    compare_clip: Path | None = None
    compare: bool = False
    devices: Sequence[str] = ('cpu',)
    channels_last: bool | None = None
    compile: bool = False
    restoring: RestoreOptions = field(default_factory=RestoreOptions)
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    audio: Audio = 'copy'
    deinterlace: Deinterlace = False
    strict: bool = False
    stream: int | None = None
    background: Background | None = None
    rate: Fraction | None = None
    pipe_format: PipeFormat = 'y4m'
    resume: bool = False
    overwrite: bool = False


def comparison_page(output: Path) -> Path:
    """Return the path of the page that compares an output with its input."""
    return output.with_name(f'{output.name}.html')


class LoadedNetwork(NamedTuple):
    """A network for one or more videos.

    Attributes:
        net: the network, on its device; with several devices, only a description.
        fingerprint: identifies the network and its weights.
        builders: with several devices, a function for each that builds the network there.
        interpolator: the other network, if any.
    """
    net: nn.Module
    fingerprint: str
    builders: Sequence[Callable[[], nn.Module]]
    interpolator: nn.Module | None


def load(options: VideoOptions) -> LoadedNetwork:
    """Load the network that the options name, with its weights.

    Raises:
        ValueError: a wrong option of the network, or weights that do not fit or are damaged.
        FileNotFoundError: the weights are missing.
    """
    if 'cpu' in options.devices:
        keep_freed_memory()
    build = partial(options.network.load, channels_last=options.channels_last, compile=options.compile)
    several = len(options.devices) > 1
    net = build('cpu' if several else options.devices[0])
    builders = [partial(build, device) for device in options.devices] if several else []
    fingerprint, interpolator = options.network.fingerprint(), None
    if options.interpolator is not None:
        interpolator = options.interpolator.load(options.devices[0], channels_last=options.channels_last,
                                                 compile=options.compile)
        fingerprint += f' {options.interpolator.fingerprint()}'
    return LoadedNetwork(net, fingerprint, builders, interpolator)


@contextmanager
def opened(options: VideoOptions, loaded: LoadedNetwork) -> Iterator[Job]:
    """Open the source of a video, and yield the work on it.

    Raises:
        VideoError, ValueError: the request is invalid.
    """
    for extra in (options.compare_clip, comparison_page(options.output) if options.compare else None):
        if extra is not None and extra.exists() and not options.overwrite:
            raise VideoError(f'{extra}: already exists; --overwrite replaces it')
    with opened_source(options) as whole:
        codec = options.codec or default_codec(options.output, whole.info)
        encoding = Encoding(codec, options.crf, options.preset, options.audio)
        whole, lost = fitting(whole, options.output, encoding)
        is_part = options.start or options.duration
        source: Source = Excerpt(whole, options.start, options.duration) if is_part else whole
        job = Job(source, options.output, loaded.net, model=loaded.fingerprint, options=options.restoring,
                  encoding=encoding, shape=options.shape, interpolator=loaded.interpolator, builders=loaded.builders,
                  devices=options.devices, overwrite=options.overwrite)
        job.warnings[:0] = lost
        if options.compare:
            info, spec = source.info, job.pipeline.spec
            check_proportions([(info.path, info.width, info.height), (options.output, spec.width, spec.height)])
        yield job


def opened_source(options: VideoOptions) -> Source:
    return open_source(options.source, deinterlace=options.deinterlace, rate=options.rate, strict=options.strict,
                       stream=options.stream, background=options.background, keep_alpha=True)


def fitting(source: Source, output: Path, encoding: Encoding) -> tuple[Source, list[str]]:
    """Return a source without alpha if the output can have none, and a sentence for what is lost."""
    if not source.info.has_alpha or (output != PIPE and keeps_alpha(output, encoding)):
        return source, []
    kind = f'{output.suffix} files' if encoding.codec == 'png' else 'pipes' if output == PIPE else encoding.codec
    return opaque(source, BLACK), [
        f'{source.info.path}: has transparent pixels, which {kind} cannot keep; they are laid over black. --background '
        'selects another colour; png, webp, gif, ffv1 and prores (with preset 4444) keep them']


def restore_video(options: VideoOptions, *, loaded: LoadedNetwork | None = None,
                  on_progress: Callable[[Progress], None] | None = None,
                  on_compared: Callable[[int, int], None] | None = None,
                  on_warning: Callable[[str], None] = warnings.warn) -> OutputSpec:
    """Restore a video, write the output, and return its format.

    Args:
        loaded: the network, from `load`, if it serves several videos.
        on_progress: called after each frame.
        on_compared: with `compare`, called after each compared frame with the number of frames so far and the total.
        on_warning: called with each warning, such as of sound that the container cannot hold.

    Raises:
        VideoError, ValueError: the request is invalid; nothing was started.
        RestoreError, KeyboardInterrupt: see `Job.run`.
    """
    loaded = loaded or load(options)
    if PIPE in (options.source, options.output):
        return _restore_through_pipes(options, loaded, on_progress, on_warning)
    with opened(options, loaded) as job:
        early = list(job.warnings)
        for warning in early:
            on_warning(warning)
        job.run(resume=options.resume, on_progress=on_progress)
        for warning in job.warnings[len(early):]:
            on_warning(warning)
        spec = job.pipeline.spec
        if options.compare_clip is not None or options.compare:
            _show_both(options, job.source, spec.rate, on_compared)
        return spec


def _show_both(options: VideoOptions, given: Source, rate: Fraction,
               on_compared: Callable[[int, int], None] | None) -> None:
    """Write the clip and the page that show input and output."""
    output = options.output
    try:
        with open_source(output, rate=rate if output.is_dir() else None, background=BLACK) as restored:
            if options.compare_clip is not None:
                write_side_by_side(opaque(given, BLACK), restored, options.compare_clip)
            if options.compare:
                write_comparison([given, restored], comparison_page(output), any_rate=True, progress=on_compared)
    except OSError as error:
        raise RestoreError(f'{output} is complete, but could not be compared with the input: {error}') from error


def _restore_through_pipes(options: VideoOptions, loaded: LoadedNetwork,
                           on_progress: Callable[[Progress], None] | None,
                           on_warning: Callable[[str], None]) -> OutputSpec:
    """Restore from standard input, to standard output, or both: in one pass, frames only."""
    needs_files = options.resume, options.compare_clip, options.compare, options.start, options.duration
    if loaded.builders or any(needs_files):
        raise ValueError('-: work through a pipe is done in one pass by one device; --resume, --start, --duration, '
                         '--compare and --compare-clip need files')
    with ExitStack() as stack:
        source: Source = stack.enter_context(PipeSource(sys.stdin.buffer) if options.source == PIPE else
                                             opened_source(options))
        encoding = Encoding(options.codec or default_codec(options.output, source.info), options.crf,
                            options.preset)
        source, lost = fitting(source, options.output, encoding)
        for warning in lost:
            on_warning(warning)
        pipeline = Pipeline(loaded.net, options.restoring, source.info, options.shape, loaded.interpolator)
        spec, rate = pipeline.spec, source.info.rate
        total = pipeline.num_frames(source.info)
        frames = pipeline(source.frames(), last_duration=1 / rate if rate else Fraction(0))
        segment = None
        writer: PipeWriter | VideoWriter
        if options.output == PIPE:
            writer = PipeWriter(sys.stdout.buffer, spec, options.pipe_format)
        else:
            if encoding.codec == 'png':
                raise ValueError(f'{options.output}: from a pipe, the output is a video file or -, not a folder')
            check_output(options.output, source.info, encoding, spec, overwrite=options.overwrite)
            folder = stack.enter_context(TemporaryDirectory(dir=options.output.absolute().parent))
            segment = Path(folder) / f'0{encoding.segment_suffix}'
            writer = VideoWriter(segment, spec, encoding)
        with writer:
            for number, frame in enumerate(frames, 1):
                writer.write(*frame)
                if on_progress:
                    on_progress(Progress(number, max(total, number) if total else 0, frame.time))
        if segment is not None and encoding.codec in ANIMATIONS:
            write_animation([segment], options.output)
        elif segment is not None:
            is_variable = source.info.is_variable and pipeline.retimer is None
            join([segment], None, options.output, rate=Fraction(0) if is_variable else spec.rate,
                 sample_aspect_ratio=spec.sample_aspect_ratio)
    return spec
