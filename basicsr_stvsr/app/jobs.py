"""Uploads of the users, and the queue of their restorations. One runs at a time."""
import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from ..io.images import IMAGE_SUFFIXES
from .settings import Settings
from .worker import end_process, error_in, start_command, warm_up

State = Literal['waiting', 'running', 'comparing', 'done', 'stopped', 'failed']
ACTIVE = 'waiting', 'running', 'comparing'
POLL = 0.1  # seconds between looks at a running process
LONGEST_END = 60  # seconds that a process may take to keep its work
LONGEST_LOOK = 120  # seconds that reading the header of a file may take
# Suffixes that decide how a file is read or written; all others are dropped
KEPT_SUFFIXES = IMAGE_SUFFIXES | {'.mkv'}
PLAYLISTS = b'#EXTM3U', b'ffconcat', b'<?xml', b'<MPD'


@dataclass
class Run:
    """A restoration of an upload: a preview, or all of it."""

    id: str
    upload: 'Upload'
    settings: Settings
    folder: Path
    state: State = 'waiting'
    message: str = ''
    frames: int = 0
    total: int | None = None
    remaining: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    is_cancelled: bool = False

    @property
    def output(self) -> Path:
        suffix = '.png' if self.upload.is_image else '.mkv' if self.upload.path.suffix == '.mkv' else '.mp4'
        return self.folder / f'result{suffix}'

    @property
    def page(self) -> Path:
        return self.folder / f'{self.output.name}.html'

    @property
    def log(self) -> Path:
        return self.folder / 'log'

    def arguments(self) -> list[str]:
        return ['restore', '--json', '--resume', '--compare', *self.settings.arguments(is_image=self.upload.is_image),
                *(['--deinterlace=auto'] if self.upload.facts.get('interlaced') else []),
                str(self.upload.path), str(self.output)]

    def sentence(self, message: str) -> str:
        """Return a message of `stvsr` with the names that the user knows."""
        return self.upload.sentence(message.replace(str(self.output), 'the result').replace(str(self.folder), 'it'))

    def to_json(self) -> dict[str, Any]:
        return {'id': self.id, 'state': self.state, 'message': self.message, 'frames': self.frames,
                'total': self.total, 'remaining': self.remaining, 'result': self.result,
                'settings': self.settings.model_dump(), 'seconds': self.settings.seconds,
                'has_output': self.state == 'done' and self.output.is_file(),
                'has_page': self.state == 'done' and self.page.is_file()}


@dataclass
class Upload:
    """A file that a user uploaded. Its name is for the user only; on the disk it is `input` with a known suffix."""

    id: str
    session: str
    name: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)

    @property
    def path(self) -> Path:
        suffix = Path(self.name).suffix.lower()
        return self.folder / f'input{suffix if suffix in KEPT_SUFFIXES else ""}'

    @property
    def is_image(self) -> bool:
        return self.path.suffix in IMAGE_SUFFIXES and (self.facts.get('frames') or 1) == 1  # not an animation

    def sentence(self, message: str) -> str:
        return message.removeprefix(f'{self.path}: ').replace(str(self.path), self.name)

    def to_json(self) -> dict[str, Any]:
        return {'id': self.id, 'name': self.name, 'is_image': self.is_image, 'facts': self.facts,
                'runs': [run.to_json() for run in self.runs.values()]}


class Jobs:
    """All uploads and their runs; close it to stop the work and remove all files. It may be used by several threads.

    Args:
        folder: a folder for the files.
        keep_seconds: how long unused uploads are kept.
    """

    def __init__(self, folder: Path, *, keep_seconds: float):
        self.folder, self.keep_seconds = folder, keep_seconds
        self.uploads: dict[str, Upload] = {}
        self._queue: list[Run] = []  # the first one is running
        self._changed = threading.Condition(threading.RLock())
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name='restoring')
        self._thread.start()

    # ------------------------------------------------------------ what users ask for

    def add_upload(self, session: str, name: str) -> Upload:
        """Return a new upload, whose file is still to be written; `examine` then lists it."""
        upload = Upload(secrets.token_hex(16), session, name or 'video', self.folder / secrets.token_hex(16))
        upload.folder.mkdir(mode=0o700)
        return upload

    def examine(self, upload: Upload) -> None:
        """Read the properties of an upload and list it; raise ValueError if it is no video or image."""
        with upload.path.open('rb') as file:
            if any(file.read(4096).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(start) for start in PLAYLISTS):
                raise ValueError(f'{upload.name} is a playlist, not a video.')
        log = upload.folder / 'info'
        process = start_command(['info', '--json', str(upload.path)], log)
        process.join(LONGEST_LOOK)
        if process.exitcode != 0:
            end_process(process, seconds=1)
            reason = error_in(log) or 'reading it failed'
            raise ValueError(f'{upload.name} cannot be restored: {upload.sentence(reason)}.')
        facts = json.loads(Path(f'{log}.out').read_text())
        upload.facts = {name: value for name, value in facts.items() if name != 'file'}
        with self._changed:
            self.uploads[upload.id] = upload

    def uploads_of(self, session: str) -> list[Upload]:
        with self._changed:
            return [upload for upload in self.uploads.values() if upload.session == session]

    def find_run(self, session: str, run_id: str) -> Run | None:
        return next((upload.runs[run_id] for upload in self.uploads_of(session) if run_id in upload.runs), None)

    def start(self, upload: Upload, settings: Settings) -> Run:
        """Add a run to the end of the queue."""
        with self._changed:
            run = Run(secrets.token_hex(16), upload, settings, upload.folder / secrets.token_hex(8))
            run.folder.mkdir(mode=0o700)
            upload.runs[run.id] = run
            self._enqueue(run)
        return run

    def resume(self, run: Run) -> None:
        """Continue a stopped or failed run after its last whole segment."""
        with self._changed:
            if run.state in ('stopped', 'failed'):
                self._enqueue(run)

    def cancel(self, run: Run) -> None:
        """Stop a run, and keep what it has restored for `resume`."""
        with self._changed:
            if run.state == 'waiting':
                self._queue.remove(run)
                run.state = 'stopped'
            run.is_cancelled = True
            self._changed.notify_all()

    def delete_run(self, run: Run) -> None:
        """Stop a run and remove its files."""
        self.cancel(run)
        with self._changed:
            self._changed.wait_for(lambda: run not in self._queue)
            run.upload.runs.pop(run.id, None)
        shutil.rmtree(run.folder, ignore_errors=True)

    def delete_upload(self, upload: Upload) -> None:
        """Remove an upload, its runs and all their files."""
        for run in list(upload.runs.values()):
            self.delete_run(run)
        with self._changed:
            self.uploads.pop(upload.id, None)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def num_before(self, run: Run) -> int:
        """Return how many runs the queue has before a waiting one."""
        with self._changed:
            return self._queue.index(run) if run in self._queue else 0

    def close(self) -> None:
        """Stop the work, and remove all uploads and results."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------ the thread that works

    def _enqueue(self, run: Run) -> None:
        run.state, run.message, run.is_cancelled, run.remaining = 'waiting', '', False, None
        run.upload.used = time.monotonic()
        self._queue.append(run)
        self._changed.notify_all()

    def _work(self) -> None:
        warm_up()
        while not self._is_closing:
            self.remove_old()
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closing, timeout=60)
                run = self._queue[0] if self._queue and not self._is_closing else None
                if run is not None:
                    run.state = 'running'
            if run is not None:
                self._restore(run)
                with self._changed:
                    self._queue.remove(run)
                    self._changed.notify_all()

    def remove_old(self) -> None:
        """Remove uploads that were not used for long."""
        now = time.monotonic()
        for upload in list(self.uploads.values()):
            is_active = any(run.state in ACTIVE for run in upload.runs.values())
            if not is_active and now - upload.used > self.keep_seconds:
                self.delete_upload(upload)

    def _restore(self, run: Run) -> None:
        """Run `stvsr restore` to its end, and follow its progress."""
        process = start_command(run.arguments(), run.log)
        lines = _lines_of(Path(f'{run.log}.out'))
        asked: float | None = None
        while process.is_alive():
            process.join(POLL)
            if asked is None and (run.is_cancelled or self._is_closing):
                process.terminate()
                asked = time.monotonic()
            elif asked is not None and time.monotonic() - asked > LONGEST_END:
                process.kill()
            self._follow(run, lines)
            self.remove_old()
        self._follow(run, lines)
        self._conclude(run, process)

    def _follow(self, run: Run, lines: Iterator[dict[str, Any] | None]) -> None:
        while (event := next(lines)) is not None:
            if event['state'] in ('running', 'comparing'):
                run.state, run.frames, run.total = event['state'], event['frames'], event['total']
                run.remaining = event.get('remaining')
            else:
                run.result = event

    def _conclude(self, run: Run, process: BaseProcess) -> None:
        run.upload.used = time.monotonic()
        if run.output.is_file():  # also where only the comparison was stopped
            run.state, run.message = 'done', '' if process.exitcode == 0 else 'The comparison is missing.'
        elif run.is_cancelled or self._is_closing:
            run.state = 'stopped'
        else:
            reason = run.result.get('message', '').removeprefix('error: ') or error_in(run.log)
            run.state, run.message = 'failed', run.sentence(reason) or (
                f'The process that restores ended unexpectedly (exit code {process.exitcode}). Perhaps memory ran out.')


def _lines_of(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the JSON objects of a growing file, one a line; None where nothing new is there."""
    rest, position = b'', 0
    while True:
        data = b''
        if path.is_file():
            with path.open('rb') as file:
                file.seek(position)
                data = file.read()
        position += len(data)
        *lines, rest = (rest + data).split(b'\n')
        yield from map(json.loads, lines)
        yield None
