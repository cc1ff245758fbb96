"""Feed damaged and hostile files to everything that reads files: `python tests/fuzz/fuzz.py --minutes 60`.

hypothesis draws the changes. A process of its own reads each file, with limits for memory and time. It may accept a
file, or refuse it with a short message. A crash, a hang, another error, and a changed result are findings; their files
are saved in fuzz_findings/.
"""
import argparse
import io
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'fuzz')]

from child import NETWORK, serve  # noqa: E402

from basicsr_stvsr.io.encoding import Encoding, OutputSpec  # noqa: E402
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb  # noqa: E402
from basicsr_stvsr.io.video_info import ColorSpec  # noqa: E402
from basicsr_stvsr.io.video_writer import VideoWriter  # noqa: E402
from basicsr_stvsr.zoo.table import build  # noqa: E402

FOUND = ROOT / 'fuzz_findings'
SECONDS_TO_START, SECONDS_TO_READ = 300, 30
CONTEXT = multiprocessing.get_context('forkserver')
# The server is one for all of a process; tests of commands want these modules, too
CONTEXT.set_forkserver_preload(['basicsr_stvsr.train', 'basicsr_stvsr.test', 'child'])
OPTIONS: dict[str, Any] = {
    'name': 'x', 'model_type': 'STVSRModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0, 'network_g': NETWORK,
    'datasets': {'test_1': {'name': 'a', 'type': 'STVSRTestDataset', 'dataroot_gt': 'gt', 'temporal_scale': 1,
                            'degradation': {'type': 'bicubic'}, 'num_frame': 3}},
    'path': {'pretrain_network_g': None, 'param_key_g': 'params'},
    'val': {'save_img': False, 'tile': {'grid': [1, 2], 'overlap': 8}, 'metrics': {
        'psnr': {'type': 'calculate_psnr', 'crop_border': 4}, 'y': {'type': 'calculate_float_psnr'}}}}


class Child:
    """The process that reads files; it starts again after a crash or a hang."""

    def __init__(self):
        self.process: Any = None

    def __call__(self, kind: str, path: Path) -> tuple[str, str]:
        if self.process is None:
            self.connection, other = CONTEXT.Pipe()
            self.process = CONTEXT.Process(target=serve, args=(other,), daemon=True)
            self.process.start()
            other.close()
            assert self.connection.poll(SECONDS_TO_START), 'the process did not start'
            self.connection.recv()
        self.connection.send((kind, str(path)))
        try:
            if self.connection.poll(SECONDS_TO_READ):
                return self.connection.recv()
            outcome = 'hang', f'more than {SECONDS_TO_READ} s'
        except (EOFError, ConnectionError):
            self.process.join()
            outcome = 'crash', f'exit code {self.process.exitcode}'
        self.close()
        return outcome

    def close(self) -> None:
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process = None


# ---------------------------------------------------------------- whole files

def write_whole_files(folder: Path) -> dict[str, list[Path]]:
    """Write files that are read without complaint, by kind."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    (folder / 'options.yml').write_text(yaml.safe_dump(OPTIONS, sort_keys=False))
    weights = {'params': build(NETWORK).state_dict()}
    torch.save(weights, folder / 'new.pth')
    torch.save(weights, folder / 'old.pth', _use_new_zipfile_serialization=False)
    shutil.copy(ROOT / 'tests' / 'v0_1' / '2.state', folder)
    images = [folder / f'image.{name}' for name in ('png', 'jpg', 'webp', 'bmp', 'tif')]
    for path in images:
        path.write_bytes(cv2.imencode(path.suffix, frames[0])[1].tobytes())
    write_lmdb(folder / 'frames.lmdb', [FrameSource(f'clip/{number}', f'clip/{number}', lambda frame=frame: frame)
                                        for number, frame in enumerate(frames)])
    spec = OutputSpec(48, 32, 8, ColorSpec.untagged(48, 32), Fraction(25), Fraction(1, 25))
    with VideoWriter(folder / 'video.mp4', spec, Encoding('x264'), threads=1) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, Fraction(number, 25))
    return {'options': [folder / 'options.yml'], 'weights': [folder / 'new.pth', folder / 'old.pth'],
            'states': [folder / '2.state'], 'images': images, 'lmdbs': [folder / 'frames.lmdb'],
            'videos': [folder / 'video.mp4']}


# ---------------------------------------------------------------- changes

Change = tuple[str, float, int]  # what to do, where in the file (0-1), and a number
changed_bytes = st.lists(st.tuples(
    st.sampled_from(['flip', 'set', 'zero', 'cut', 'insert', 'repeat', 'length']), st.floats(0, 1, exclude_max=True),
    st.integers(0, 2**32 - 1)), min_size=1, max_size=4)


def apply(changes: list[Change], data: bytes) -> bytes:
    """Return a changed copy of the content of a file."""
    changed = bytearray(data)
    for what, where, number in changes:
        place = int(where * len(changed))
        if what == 'flip' and changed:
            changed[place] ^= 1 << number % 8
        elif what == 'set' and changed:
            changed[place] = number % 256
        elif what == 'length':  # fields of sizes and offsets
            changed[place:place + 4] = number.to_bytes(4, 'little' if number % 2 else 'big')
        elif what == 'zero':
            changed[place:place + number % 5000] = bytes(min(number % 5000, len(changed) - place))
        elif what == 'cut':
            del changed[place:place + 1 + number % 300]
        elif what == 'insert':
            changed[place:place] = number.to_bytes(4, 'little')
        elif what == 'repeat':
            changed[place:place] = changed[place:place + number % 300]
    return bytes(changed)


WORDS = ['', '~', 'x' * 3000, '\x1b[31m', '\n', '../..', '/', '-rf', '\0', '\ud800', 'bicubic', 'STVSRTestDataset']
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 9), st.integers(-2**63, 2**63 - 1), st.floats(), st.sampled_from(WORDS),
    st.text(max_size=5), st.sampled_from([1e9, 1e30, 10**9, 2**31, -1]))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(['type', 'name', 'num_feat']) | st.text(max_size=3), inner, max_size=3), max_leaves=5)
tensors = st.sampled_from([
    torch.tensor(float('nan')), torch.zeros(3), torch.zeros(1).expand(10**6, 10**6), torch.eye(3).to_sparse(),
    torch.zeros(3, dtype=torch.complex64), torch.ones(3, dtype=torch.bool), torch.zeros(3, device='meta'),
    torch.full((4, 3), float('inf')), torch.zeros(0)])


def put(block: Any, path: list[int], value: Any) -> None:
    """Replace a value within lists and blocks; each number chooses one of the values at its level."""
    while True:
        keys = list(block) if isinstance(block, dict) else list(range(len(block)))
        key = keys[path[0] % len(keys)]
        inner = block[key]
        if len(path) == 1 or not isinstance(inner, dict | list) or not inner:
            block[key] = value
            return
        block, path = inner, path[1:]


paths = st.lists(st.integers(0, 30), min_size=1, max_size=5)


def options_text(changes: list[tuple[list[int], Any]]) -> bytes:
    options = deepcopy(OPTIONS)
    for path, value in changes:
        if options:
            put(options, path, value)
    try:
        return yaml.safe_dump(options, allow_unicode=True).encode('utf-8', 'surrogatepass')
    except yaml.YAMLError:
        return b''


def saved(path: Path, changes: list[tuple[list[int], Any]]) -> bytes:
    """Return a checkpoint with other values in it."""
    content = torch.load(path, weights_only=True)
    for places, value in changes:
        if content:
            put(content, places, value)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


# ---------------------------------------------------------------- fuzzing

class Fuzz:
    """Try files of one kind, and count the outcomes.

    Args:
        folder: a folder with the whole files, for those to read.
    """

    def __init__(self, kind: str, files: list[Path], folder: Path, child: Child):
        self.kind, self.files, self.folder, self.child = kind, files, folder, child
        self.counts: Counter[str] = Counter()
        self.expected = {file: self.read(file) for file in files}

    def read(self, file: Path) -> str:
        outcome, text = self.child(self.kind, file)
        assert outcome == 'accepted', f'{file}, which is whole: {outcome}: {text}'
        return text

    def try_bytes(self, file: Path, data: bytes, *, bits_only: bool) -> None:
        """Read a changed file; raise AssertionError for a finding, whose file is kept.

        Args:
            bits_only: whether only bytes were changed, which a checksum notices.
        """
        path = self.folder / f'tried{file.suffix}'
        if file.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(file, path)
            (path / 'data.mdb').write_bytes(data)
        else:
            path.write_bytes(data)
        outcome, text = self.child(self.kind, path)
        if outcome == 'accepted' and bits_only and text != self.expected[file] and file.name != 'old.pth':
            outcome = 'wrong result'
        self.counts[outcome] += 1
        if outcome not in ('accepted', 'refused'):
            FOUND.mkdir(exist_ok=True)
            kept = FOUND / f'{self.kind}_{outcome.replace(" ", "_")}{file.suffix}'
            shutil.rmtree(kept, ignore_errors=True)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, kept)
            raise AssertionError(f'{self.kind}: {outcome}, kept as {kept}: {text}')

    def run(self, until: float, number: int) -> None:
        """Try a few hundred drawn changes, or until a time of `time.monotonic`."""
        common = settings(max_examples=200, deadline=None, database=None, report_multiple_bugs=False,
                          phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))

        @seed(number)
        @common
        @given(st.sampled_from(self.files), changed_bytes)
        def damaged(file: Path, changes: list[Change]) -> None:
            if time.monotonic() < until:
                data = (file / 'data.mdb' if file.is_dir() else file).read_bytes()
                self.try_bytes(file, apply(changes, data), bits_only=True)

        @seed(number)
        @common
        @given(st.sampled_from(self.files), st.lists(st.tuples(paths, values | tensors), min_size=1, max_size=3))
        def altered(file: Path, changes: list[tuple[list[int], Any]]) -> None:
            if time.monotonic() < until:
                if self.kind == 'options':
                    data = options_text([(path, value) for path, value in changes if not torch.is_tensor(value)])
                else:
                    data = saved(file, changes)
                self.try_bytes(file, data, bits_only=False)

        damaged()
        if self.kind in ('options', 'weights', 'states'):
            altered()


def fuzz(kinds: list[str], seconds: float, number: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Try each kind of file for an equal part of the time; return the counts by kind, and the findings."""
    counts, findings = {}, []
    with tempfile.TemporaryDirectory() as name:
        whole = write_whole_files(Path(name))
        child = Child()
        for kind in kinds:
            tried = Fuzz(kind, whole[kind], Path(name), child)
            until, round_ = time.monotonic() + seconds / len(kinds), 0
            while time.monotonic() < until:
                try:
                    tried.run(until, number + round_)
                except AssertionError as error:
                    findings.append(str(error))
                round_ += 1
            counts[kind] = tried.counts
        child.close()
    return counts, findings


KINDS = ['options', 'weights', 'states', 'images', 'lmdbs', 'videos']


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--seed', type=int, default=0, help='of the changes (default: %(default)s)')
    parser.add_argument('--kinds', nargs='+', default=KINDS, choices=KINDS)
    args = parser.parse_args()
    counts, findings = fuzz(args.kinds, 60 * args.minutes, args.seed)
    print('| files | tried | refused | accepted | crashes | hangs | tracebacks | wrong results |')
    print('|---|---|---|---|---|---|---|---|')
    for kind, found in [*counts.items(), ('all', sum(counts.values(), Counter()))]:
        columns = [sum(found.values()), *(found[name] for name in (
            'refused', 'accepted', 'crash', 'hang', 'traceback', 'wrong result'))]
        print(f'| {kind} | {" | ".join(f"{value:,}" for value in columns)} |')
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main())
