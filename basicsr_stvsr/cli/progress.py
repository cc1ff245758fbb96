"""Report the progress of restoring, as a bar or as JSON lines."""
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..utils.progress import progress_bar, say
from ..video.job import Progress


class ProgressBar:
    """Show the progress of restoring a video; a context manager.

    Args:
        output: the output video.
        as_json: print JSON lines on stdout instead of a bar.
        named: whether the bar shows the name of the output.
    """

    def __init__(self, output: Path, *, as_json: bool, named: bool):
        self.output, self.as_json, self.named = output, as_json, named
        self._bar: tqdm | None = None
        self._compared: tqdm | None = None
        self._ended: float | None = None
        self._begun = time.perf_counter()
        self._earlier = 0  # frames of an earlier run; the speed leaves them out
        self._last = 0  # all frames so far

    @property
    def frames(self) -> int:
        return self._last

    @property
    def seconds(self) -> float:
        """Return the time of restoring, without comparing."""
        return (self._ended or time.perf_counter()) - self._begun

    @property
    def frames_per_second(self) -> float:
        return (self._last - self._earlier) / self.seconds

    def __call__(self, progress: Progress) -> None:
        if not self._last:
            self._earlier = progress.frames - 1
        self._last = progress.frames
        if self.as_json:
            left = progress.total - progress.frames
            remaining = round(left / self.frames_per_second, 1) if progress.total else None
            self._print('running', frames=progress.frames, total=progress.total or None, time=float(progress.time),
                        remaining=remaining)
            return
        if self._bar is None:
            self._bar = progress_bar(unit='frame', about=self.output.name if self.named else None,
                                     total=progress.total or None, done=self._earlier)
        self._bar.update(progress.frames - self._bar.n)

    def compare(self, frames: int, total: int) -> None:
        """Report progress of comparing the output with the input."""
        self._ended = self._ended or time.perf_counter()
        if self.as_json:
            self._print('comparing', frames=frames, total=total or None)
            return
        if self._compared is None:
            self._compared = progress_bar(unit='frame', about='comparing', total=total or None)
        self._compared.update(frames - self._compared.n)

    def end(self, state: str, message: str = '', *, shown: bool = True, **facts: Any) -> None:
        """Report the outcome: 'done', 'skipped', 'failed', 'refused' or 'interrupted'.

        Args:
            shown: whether to print the message for people, too.
            facts: further fields of the JSON line.
        """
        self._close_bars()
        if message and shown:
            say(message)
        if self.as_json:
            with suppress(BrokenPipeError):  # the reader has exited
                self._print(state, **({'message': message} if message else {}), **facts)

    def _print(self, state: str, **fields: Any) -> None:
        # In one write: torchrun runs Python unbuffered, and its processes share a stream
        sys.stdout.write(json.dumps({'output': str(self.output), 'state': state, **fields}) + '\n')
        sys.stdout.flush()

    def __enter__(self) -> 'ProgressBar':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close_bars()

    def _close_bars(self) -> None:
        for bar in (self._bar, self._compared):
            if bar is not None:
                bar.close()
