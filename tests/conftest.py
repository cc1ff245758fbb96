import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Tiny networks on several threads wait for each other most of the time. Commands that the tests start inherit this.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import cv2
import numpy as np
import pytest
import torch
import yaml
from browser_util import Browser, find_chromium
from matplotlib.figure import Figure

import basicsr_stvsr  # noqa: F401  (registers the classes, and patches what basicsr needs)

# isort: split
from basicsr.utils import get_root_logger

from basicsr_stvsr.evaluation.clip_scores import FramePair, Scorer
from basicsr_stvsr.train import train_pipeline
from basicsr_stvsr.training import curves

# A shell starts `make test &` with SIGINT ignored, and so would be all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'

# The smallest MBNet, for tests of what is around it
TINY_NET = {
    'type': 'MBNet',
    'flow_net': {'type': 'OFRNet', 'num_feat': 8, 'num_res': 1, 'flow_unit': 1.0},
    'refine_net': {'type': 'PACFlowNet', 'num_feat': 4, 'guide_channels': 2},
    'vsr_net': {'type': 'RDN', 'num_feat': 16, 'num_grow': 8, 'num_blocks': 1, 'num_layers': 1, 'residual': True},
    'vfi_net': {'type': 'GridNet', 'channels': [4, 4, 4], 'residual': True},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--slow', action='store_true', help='also run what takes long')


def pytest_report_header() -> str:
    onednn = os.environ.get('ONEDNN_MAX_CPU_ISA', 'of this CPU')
    return (f'kernels: PyTorch {torch.backends.cpu.get_cpu_capability()}, oneDNN {onednn}; '
            f'threads: {torch.get_num_threads()}')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption('--slow'):
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(pytest.mark.skip(reason='takes long; run it with --slow'))


class TinyFlow(torch.nn.Conv2d):
    """In place of the five convolutions of a level of SpyNet, which take most of the time of small networks."""

    def __init__(self):
        super().__init__(8, 2, 3, padding=1)


@pytest.fixture
def tiny_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('basicsr.archs.spynet_arch.BasicModule', TinyFlow)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def heard_hangup() -> Iterator[None]:
    """SIGHUP as in a terminal; nohup and some schedulers start the tests with it ignored."""
    handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, handler)


@pytest.fixture
def log(caplog, monkeypatch):
    """pytest's caplog with the messages of BasicSR's logger, whatever an earlier run of this process left it at.

    The first call of `get_root_logger` stops it from propagating, and `--check` sets its level to WARNING.
    """
    logger = get_root_logger()
    monkeypatch.setattr(logger, 'propagate', True)
    caplog.set_level(logging.INFO, logger.name)
    return caplog


def score_of(pair: FramePair, metric_opt: dict) -> float:
    """What a validation says of one frame."""
    with Scorer({'it': metric_opt}).clip(has_truth=pair.gt is not None) as clip:
        clip.add(0, pair)
        (_, score), = clip.result()['it']
    return score


def write_moving_clips(root: Path, *, num_frames: int, height: int, width: int) -> None:
    """Two clips, first and second, of a smooth texture that moves by two pixels a frame."""
    rng = np.random.default_rng(0)
    for clip in ('first', 'second'):
        texture = cv2.GaussianBlur(rng.uniform(0, 255, (height, width + 28, 3)), (0, 0), 2) * 3 - 255
        (root / clip).mkdir()
        texture = texture.clip(0, 255).round().astype(np.uint8)
        for i in range(num_frames):
            cv2.imwrite(str(root / clip / f'im{i + 1}.png'), texture[:, 2 * i:2 * i + width])


def write_texture(folder: Path, *, num_frames: int, size: tuple[int, int], width: int, step: int = 2) -> None:
    """Frames 00000000.png, ... of a smooth texture of `size` that moves by `step` pixels a frame."""
    folder.mkdir()
    texture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (*size, 3)), (0, 0), 3)
    for i in range(num_frames):
        cv2.imwrite(str(folder / f'{i:08d}.png'), texture[:, step * i:step * i + width])


@pytest.fixture(scope='session')
def clips(tmp_path_factory) -> Path:
    """7 frames of 64 x 72; see `write_moving_clips`."""
    root = tmp_path_factory.mktemp('clips')
    write_moving_clips(root, num_frames=7, height=64, width=72)
    return root


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder of real clips beside the checkout (train/, eval/); read only."""
    folder = SHARED / 'data'
    if not folder.is_dir():
        pytest.skip(f'no real clips: {folder} does not exist')
    return folder


@pytest.fixture(scope='session')
def load_reference():
    """Load `refs/<name>.npz`, numeric outputs of the official implementations, as a dict of float64 tensors.

    They were computed in float32. In float64 all CPUs agree on the side of a kink (ReLU, max, border) that a value next
    to it is on, and so on the gradient; in float32 that depends on the order in which a CPU adds.
    """

    def load(name: str) -> dict[str, torch.Tensor]:
        path = SHARED / 'refs' / f'{name}.npz'
        if not path.is_file():
            pytest.skip(f'no reference outputs: {path} does not exist')
        with np.load(path) as arrays:
            return {key: torch.from_numpy(array).double() for key, array in arrays.items()
                    if array.dtype.kind not in 'OSU'}

    return load


@pytest.fixture(scope='session')
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Headless Chromium or Chrome; in CI it must be there."""
    program = find_chromium()
    if program is None:
        missing = 'no Chromium or Chrome found; on Debian: apt-get install chromium'
        if os.environ.get('CI'):
            pytest.fail(missing)
        pytest.skip(missing)
    browser = Browser(program, tmp_path_factory.mktemp('profile'))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def usual_priority() -> Iterator[None]:
    """Fails a test that leaves a real-time priority, as SVT-AV1 does: all tests after it would starve the machine."""
    get = getattr(os, 'sched_getscheduler', lambda process: None)  # not on macOS and Windows
    before = get(0)
    yield
    assert get(0) == before


def empty_figure(rows: list[dict[str, Any]], name: str) -> Figure:
    return Figure()


@pytest.fixture
def quick_curves(monkeypatch) -> None:
    """An empty curves.png: drawing takes a second, half of a short training. test_curves.py draws."""
    monkeypatch.setattr(curves, 'plot_metrics', empty_figure)


@pytest.fixture
def train_here(monkeypatch, tmp_path, quick_curves):
    """Runs train_pipeline in this process; experiments/ is written under tmp_path."""
    def train(opt: dict, *flags: str) -> Path:
        options = tmp_path / 'options.yml'
        options.write_text(yaml.safe_dump(opt))
        for handler in get_root_logger().handlers:  # made for an earlier test; its stderr is closed
            if type(handler) is logging.StreamHandler:
                handler.stream = sys.stderr
        train_pipeline(str(tmp_path), ['-opt', str(options), *flags])
        return tmp_path / 'experiments' / opt['name']

    yield train
    # The log files of these runs
    logger = logging.getLogger('basicsr')
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
