"""Run `stvsr restore`, and print the time of each stage in its three threads; for benchmark_video.py.

    python scripts/benchmark/stages.py restore in.mp4 out.mp4 --model mbnet-small

The last line is JSON: seconds by 'thread/stage', and the exit code.
"""
# isort: skip_file  (what the command imports, and nothing before)
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from stvsr import mode
from stvsr.main import main

mode.needs_networks_only = True  # as in the command

from basicsr_stvsr.inference.windows import Tiles  # noqa: E402
from basicsr_stvsr.io.frame_folder import FolderSource  # noqa: E402
from basicsr_stvsr.io.video_reader import VideoSource  # noqa: E402
from basicsr_stvsr.io.video_writer import VideoWriter  # noqa: E402
from basicsr_stvsr.utils import background  # noqa: E402
from basicsr_stvsr.video import restorer, segments  # noqa: E402
from basicsr_stvsr.video.job import Job  # noqa: E402
from basicsr_stvsr.video.restorer import Restorer  # noqa: E402


class Stages:
    """Add up wall-clock time by thread and stage. A nested stage pauses the clock of the outer one.

    Attributes:
        seconds: by thread ('main' or its first stage) and stage.
    """

    def __init__(self):
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._local = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        stack = self._local.__dict__.setdefault('stack', [])
        thread = 'main' if threading.current_thread() is threading.main_thread() else (stack or [(name, 0.0)])[0][0]
        self._stop(thread, stack)
        stack.append([name, time.perf_counter()])
        try:
            yield
        finally:
            self._stop(thread, stack)
            stack.pop()
            if stack:
                stack[-1][1] = time.perf_counter()

    def _stop(self, thread: str, stack: list) -> None:
        if stack:
            self.seconds[thread, stack[-1][0]] += time.perf_counter() - stack[-1][1]

    def call(self, owner: Any, function: str, name: str) -> None:
        """From now on, time calls of `owner.function` as a stage."""
        original: Callable[..., Any] = getattr(owner, function)

        @wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return original(*args, **kwargs)

        setattr(owner, function, timed)

    def items(self, owner: Any, function: str, name: str) -> None:
        """From now on, time the wait for each item that `owner.function` yields as a stage."""
        original: Callable[..., Iterable[Any]] = getattr(owner, function)

        @wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            iterator, end = iter(original(*args, **kwargs)), object()
            while True:
                with self.stage(name):
                    item = next(iterator, end)
                if item is end:
                    return
                yield item

        setattr(owner, function, timed)


def watch_restoring() -> Stages:
    """From now on, time all stages of restoring in this process."""
    stages = Stages()
    stages.call(Job, 'run', 'the rest')
    for kind in (FolderSource, VideoSource):
        stages.items(kind, 'frames', 'decoding')
    stages.items(segments, 'ahead', 'waiting for the decoder')
    stages.items(restorer, 'mark_cuts', 'scene cuts')
    for owner, function in ((restorer, 'to_tensor'), (restorer, 'convert_clip'), (restorer, 'like'),
                            (restorer, 'bgr_bytes'), (Restorer, 'to_rgb')):
        stages.call(owner, function, 'colour')
    stages.call(Tiles, '_run', 'network')
    stages.call(VideoWriter, 'write', 'encoding')
    stages.call(VideoWriter, 'close', 'encoding')
    for function in ('__call__', 'wait'):
        stages.call(background.Behind, function, 'waiting for the encoder')
    return stages


if __name__ == '__main__':
    stages = watch_restoring()
    code = main(sys.argv[1:])
    found = {f'{thread}/{stage}': value for (thread, stage), value in stages.seconds.items()}
    print(json.dumps(found | {'code': code}))
