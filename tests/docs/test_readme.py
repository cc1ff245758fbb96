"""Runs the commands of the README, and of pages that go into detail, on tiny stand-ins for the data sets.

Only the option files are changed: fewer steps, a smaller network, a CPU. `make test` runs this, and
tests/scripts/test_run_demo.py the demo.
"""
import re
import shlex
import shutil
from pathlib import Path

import basicsr
import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT
from run_util import run, run_fresh
from video_util import moving_clip, write_video

from basicsr_stvsr.config.loading import load_options, set_option

SMALLER_NET = [  # of the large one
    'network_g:flow_net={type: OFRNet, num_feat: 8, num_res: 1}',
    'network_g:vsr_net={type: RDN, num_feat: 16, num_grow: 8, num_blocks: 1, num_layers: 1}',
    'network_g:vfi_net={type: GridNet, channels: [4, 4, 4]}',
]
FEWER_STEPS = [
    'datasets:train:num_worker_per_gpu=0', 'datasets:train:batch_size_per_gpu=1', 'datasets:train:gt_size=64',
    'logger:print_freq=1', 'logger:save_checkpoint_freq=2', 'logger:use_tb_logger=false', 'val=~',
]


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r'```bash\n(.*?)```', (ROOT / page).read_text(), re.DOTALL)
    lines = (line for block in blocks for line in re.sub(r' \\\n +', ' ', block).splitlines())
    return [line.split('  #')[0].strip() for line in lines if line.strip()]


README = commands_of('README.md')
# The septuplets and Vid4, which the README's training reads
DATA = commands_of('docs/datasets/vimeo90k.md')[:3] + commands_of('docs/datasets/vid4.md')
COMMANDS = list(dict.fromkeys(
    DATA + README + commands_of('docs/small_networks.md') + commands_of('docs/training.md')))


def write_frames(folder: Path, names: list[str], seed: int) -> None:
    folder.mkdir(parents=True)
    texture = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, (100, 130, 3)), (0, 0), 2) * 3 - 255
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / f'{name}.png'), texture[:96, 2 * i:2 * i + 100].clip(0, 255))


@pytest.fixture(scope='module')
def checkout(tmp_path_factory) -> Path:
    """A checkout with data sets of the expected layout, one or two clips each."""
    root = tmp_path_factory.mktemp('checkout')
    for folder in ('basicsr', 'options', 'scripts'):
        shutil.copytree(ROOT / folder, root / folder)
    septuplets = root / 'datasets' / 'vimeo_septuplet'
    for i, clip in enumerate(('00001/0001', '00001/0002', '00001/0003')):
        write_frames(septuplets / 'sequences' / clip, [f'im{j}' for j in range(1, 8)], i)
    (septuplets / 'sep_trainlist.txt').write_text('00001/0001\n00001/0002\n')
    (septuplets / 'sep_testlist.txt').write_text('00001/0003\n')
    for clip in ('calendar', 'city', 'foliage', 'walk'):
        write_frames(root / 'datasets' / 'Vid4' / clip, ['a', 'b', 'c', 'd', 'e'], 4)
    write_frames(root / 'datasets' / 'middlebury' / 'other-data' / 'Walking', ['frame10', 'frame11'], 5)
    write_frames(root / 'datasets' / 'middlebury' / 'other-gt-interp' / 'Walking', ['frame10i11'], 6)
    write_frames(root / 'datasets' / 'ucf101' / '1', ['frame_00', 'frame_01_gt', 'frame_02'], 7)
    write_video(root / 'in.mp4', moving_clip(4))
    (root / 'BasicSR').mkdir()
    (root / 'BasicSR' / 'basicsr').mkdir()
    shutil.copy(Path(basicsr.__file__).parent / 'train.py', root / 'BasicSR' / 'basicsr')
    return root


def make_small(checkout: Path, command: str) -> None:
    """Rewrites the option file that the command names: few steps of a small network on a CPU."""
    file = re.search(r'-opt (\S+)', command)
    if not file:
        return
    opt = load_options(str(ROOT / file[1]))
    changes = ['num_gpu=0'] if re.search('small|bicubic', command) else ['num_gpu=0', *SMALLER_NET]
    if 'train.py' in command:
        changes += [*FEWER_STEPS, f'train:total_iter={4 if "--auto_resume" in command else 2}']
    else:
        changes += ['val:metrics:niqe=~']
    for change in changes:
        set_option(opt, change)
    (checkout / file[1]).write_text(yaml.safe_dump(opt))


def test_the_two_commands_come_first():
    assert README[:2] == ['make demo', 'make test']
    assert len(DATA) == 4 and len(COMMANDS) > 20


def test_the_commands_of_version_0_1_are_among_them():
    """In the README of version 0.1 (commit 3594196); the order of flags does not matter."""
    commands = {frozenset(command.split()) for command in COMMANDS}
    old = (ROOT / 'tests' / 'v0_1' / 'commands.txt').read_text().splitlines()
    assert len(old) == 25
    assert [command for command in old if frozenset(command.split()) not in commands] == []


def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().split()) <= 900


@pytest.mark.parametrize('command', [command for command in COMMANDS if not command.startswith('make ')])
def test_command(checkout, command):
    make_small(checkout, command)
    words = shlex.split(command)
    # The Python of the tests, whatever the one on the path; the first of each program from its first import on
    words[:1] = {'python': [], 'torchrun': ['-m', 'torch.distributed.run'], 'stvsr': ['-m', 'basicsr_stvsr']}[words[0]]
    is_first = command == next(other for other in COMMANDS if other.split()[0] == command.split()[0])
    result = (run_fresh if is_first else run)(*words, cwd=checkout)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    output = re.search(r'--output (\S+)', command)
    if output:
        path = checkout / output[1]
        assert (path if path.suffix == '.html' else path / 'meta_info.txt').is_file()
    if '--auto_resume' in command:
        assert re.search(r'Resuming training from epoch: \d+, iter: 2\b', result.stderr)
    if 'test.py' in command:
        options = load_options(str(checkout / re.search(r'-opt (\S+)', command)[1]))
        written = {path.stem for path in (checkout / 'results' / options['name']).glob('*.json')}
        assert written == {dataset['name'] for dataset in options['datasets'].values()}
