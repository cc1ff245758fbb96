"""Say what restoring a video will do, and estimate its time and space from a trial on its first frames."""
import shutil
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .job import Job
from .restorer import clock
from .segments import Segments

TRIAL = 16  # input frames
LONGEST_TRIAL = 20  # seconds, as far as frames allow


def plan(job: Job, model: str) -> dict[str, Any]:
    """Return what a job will do, as JSON values; see `describe_plan`. Nothing stays on the disk.

    Args:
        job: the work.
        model: name of the model.
    """
    info, spec = job.source.info, job.pipeline.spec
    seconds, size = _trial(job)
    frames = job.pipeline.num_frames(info)
    return {
        'input': {'path': str(info.path), 'frames': info.about_frames or None, 'width': info.width,
                  'height': info.height, 'rate': str(info.rate) if info.rate else None},
        'model': model,
        'precision': job.options.precision,
        'output': {'path': str(job.output), 'frames': frames or None, 'width': spec.width, 'height': spec.height,
                   'rate': str(spec.rate) if spec.rate else None, 'codec': job.encoding.codec, 'alpha': spec.alpha},
        'streams': [{'index': stream.index, 'type': stream.type, 'codec': stream.codec} for stream in info.streams],
        'notes': list(job.warnings),
        'frames_per_second': 1 / seconds,
        'seconds': frames * seconds if frames else None,
        # Segments stay until the output is complete
        'bytes_needed': round(frames * size * (1 if job.encoding.codec == 'png' else 2)) if frames else None,
        'bytes_free': shutil.disk_usage(job.output.absolute().parent).free}


def describe_plan(facts: Mapping[str, Any]) -> dict[str, str]:
    """Format a plan as text."""
    streams = ', '.join(f'{stream["type"]} {stream["index"]}' + (f' ({stream["codec"]})' if stream['codec'] else '')
                        for stream in facts['streams'])
    unknown, rate = 'unknown: the input does not state its length', facts['frames_per_second']
    lasts = f'about {clock(facts["seconds"])[:-4]}, ' if facts['seconds'] is not None else ''
    needed = unknown if facts['bytes_needed'] is None else f'about {_megabytes(facts["bytes_needed"])} at most'
    return {
        'input': _video(facts['input']),
        'model': f'{facts["model"]}, {facts["precision"]}',
        'output': f'{_video(facts["output"])}, {facts["output"]["codec"]}'
                  + (' with transparent pixels' if facts['output']['alpha'] else ''),
        'streams': f'{streams}; kept, except as noted below' if streams else 'none besides the video',
        'notes': '; '.join(facts['notes']) or 'none',
        'time': f'{lasts}{rate:.3g} output frames a second',
        'disk': f'{needed}; {_megabytes(facts["bytes_free"])} are free'}


def _trial(job: Job) -> tuple[float, float]:
    """Return the seconds and bytes of an output frame, from the first frames of the source."""
    with TemporaryDirectory() as folder:
        segments = Segments(job.source, Path(folder), job.pipeline.spec, job.encoding, temporal_scale=1, length=1)
        began = time.perf_counter()
        starts: list[float] = []
        writer = None
        for frame in job.pipeline(islice(job.source.frames(), TRIAL)):
            writer = writer or segments.writer(0, frame.time)
            writer.write(*frame)
            starts.append(time.perf_counter())
            if starts[-1] - began > LONGEST_TRIAL and len(starts) > 2:
                break
        assert writer is not None  # a source has frames
        writer.close()
        size = sum(file.stat().st_size for file in Path(folder).rglob('*') if file.is_file())
    steps = len(starts) - 1
    seconds = (starts[-1] - starts[0]) / steps if steps else starts[0] - began
    return seconds, size / len(starts)


def _video(facts: Mapping[str, Any]) -> str:
    frames = f'{facts["frames"]} frames' if facts['frames'] else 'an unknown number of frames'
    rate = f', {facts["rate"]} a second' if facts['rate'] else ''
    return f'{facts["path"]}: {frames}, {facts["width"]}x{facts["height"]}{rate}'


def _megabytes(size: float) -> str:
    return f'{size / 1e6:,.1f} MB'
