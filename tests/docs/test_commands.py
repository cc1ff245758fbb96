"""Runs each command of the documentation once, on tiny stand-ins for videos, data sets and weights.

Option files are changed: few steps of small networks on a CPU, on stand-ins. NOT_RUN lists what cannot run here, and why.
The pages in docs/datasets have loops of the shell; tests/docs/test_docs.py runs their blocks.
"""
import glob
import re
import shlex
import shutil
from pathlib import Path

import basicsr
import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from conftest import ROOT
from run_util import run, run_fresh
from video_util import moving_clip, write_video

from basicsr_stvsr.config.loading import load_options, set_option

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')), ROOT / 'CONTRIBUTING.md',
         *sorted((ROOT / 'scripts').rglob('*.md'))]

NOT_RUN = {  # pattern -> why
    r'make (demo|install|test)$|source ': 'installs, or runs these tests; tests/scripts/test_run_demo.py runs the demo',
    r'(pip|wget|git|7z) |cp FSTRN|pack_campaign': 'downloads',
    r'srun ': 'needs slurm',
    r'--nnodes 2': 'needs two machines',
    r'cuda|gpu_campaign': 'needs a GPU',
    r'RealESRGAN|fisr_from_tensorflow|FISRnet': 'needs weights of other projects; tests/zoo and tests/scripts make such files',
    r'scripts/benchmark/': 'takes minutes, or compares revisions in git; tests/scripts runs the comparisons',
    r'train_toy': 'reads files inside the package; tests/docs/test_docs.py takes a step with them',
    r'openmmlab': 'trains thousands of steps; tests/openmmlab runs the configs',
    r'plot_frame_scores': 'reads results of full tests; tests/scripts runs it',
}

SLOW = 'x^'

# Small sizes by network, where no weights ship with the package
SMALL = {
    'MBNet': ['flow_net={type: OFRNet, num_feat: 8, num_res: 1}', 'vfi_net={type: GridNet, channels: [4, 4, 4]}',
              'vsr_net={type: RDN, num_feat: 16, num_grow: 8, num_blocks: 1, num_layers: 1}'],
    'FISRNet': ['num_feat=[4, 4, 4]'],
    'FSTRN': ['num_feat=8', 'num_frb=1'],
    'HOFFR': ['num_feat=8', 'num_block=1', 'num_rcab=1', 'reduction=4', 'num_flow_feat=8'],
    'VSRResNet': ['num_feat=8', 'num_block=1'],
}
FEWER_STEPS = [
    'datasets:train:num_worker_per_gpu=0', 'datasets:train:batch_size_per_gpu=1', 'datasets:train:gt_size=64',
    'logger:print_freq=1', 'logger:save_checkpoint_freq=2', 'logger:use_tb_logger=false', 'val=~',
]
SHORTER = {'--start 1:30 --duration 10': '--start 0 --duration 0.1', '--nproc_per_node 4': '--nproc_per_node 2',
           '--nproc-per-node 4': '--nproc-per-node 2', '--height 1080': '--height 108', '1920x1080': '192x108'}


def blocks_of(page: Path, language: str = 'bash') -> list[str]:
    return re.findall(rf'^ *```{language}\n(.*?)^ *```$', page.read_text(), re.MULTILINE | re.DOTALL)


def commands_of(page: Path) -> list[str]:
    lines = (line for block in blocks_of(page) for line in re.sub(r' *\\\n +', ' ', block).splitlines())
    return [command for line in lines if (command := re.split(r'(?:^|\s\s)#', line)[0].strip())]


# The pages of Vimeo-90K and Vid4 come first, as the README's training reads them.
DATA = [command for page, number in (('vimeo90k', 3), ('vid4', 1), ('middlebury', 1), ('ucf101', 1))
        for command in commands_of(ROOT / 'docs' / 'datasets' / f'{page}.md')[:number]]
COMMANDS = list(dict.fromkeys(DATA + [command for page in PAGES if page.parent.name != 'datasets'
                                      for command in commands_of(page)]))
RUN = [command for command in COMMANDS if not any(re.search(pattern, command) for pattern in NOT_RUN)]


def write_frames(folder: Path, names: list[str], seed: int) -> None:
    folder.mkdir(parents=True)
    texture = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, (100, 130, 3)), (0, 0), 2) * 3 - 255
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / f'{name}.png'), texture[:96, 2 * i:2 * i + 100].clip(0, 255))


@pytest.fixture(scope='module')
def checkout(tmp_path_factory) -> Path:
    """A checkout with files that the commands read: data sets of one to four clips, videos, and files that pages spell out."""
    root = tmp_path_factory.mktemp('checkout')
    for folder in ('basicsr', 'options', 'scripts'):
        shutil.copytree(ROOT / folder, root / folder)
    data = root / 'datasets'
    septuplets = data / 'vimeo_septuplet'
    for i, clip in enumerate(('00001/0001', '00001/0002', '00001/0003')):
        write_frames(septuplets / 'sequences' / clip, [f'im{j}' for j in range(1, 8)], i)
    (septuplets / 'sep_trainlist.txt').write_text('00001/0001\n00001/0002\n')
    (septuplets / 'sep_testlist.txt').write_text('00001/0003\n')
    for clip in ('calendar', 'city', 'foliage', 'walk'):
        write_frames(data / 'Vid4' / clip, ['a', 'b', 'c', 'd', 'e'], 4)
    write_frames(data / 'middlebury' / 'other-data' / 'Walking', ['frame10', 'frame11'], 5)
    write_frames(data / 'middlebury' / 'other-gt-interp' / 'Walking', ['frame10i11'], 6)
    write_frames(data / 'ucf101' / '1', ['frame_00', 'frame_01_gt', 'frame_02'], 7)
    for place in ('train/one', 'clips/one', '../clips/one', '../GT/one'):
        write_frames(data / place, [f'{j:08d}' for j in range(11)], 8)
    write_frames(root / 'frames_in', [f'{j:08d}' for j in range(3)], 9)
    for name in ('in.mp4', 'film.mkv', 'a.mp4', 'b.mp4', 'original.mp4', 'in.avi'):
        write_video(root / name, moving_clip(4))
    (root / 'list.txt').write_text('in.mp4\n')
    (root / 'BasicSR' / 'basicsr').mkdir(parents=True)
    shutil.copy(Path(basicsr.__file__).parent / 'train.py', root / 'BasicSR' / 'basicsr')
    for page in ('own_network', 'own_loss'):
        for block in blocks_of(ROOT / 'docs' / f'{page}.md', '(?:python|yaml)'):
            if name := re.match(r'# (\w+\.(?:py|yml))\n', block):
                (root / name[1]).write_text(block)
    return root


# ---------------------------------------------------------------- what a command reads, made small

def make_small(checkout: Path, command: str) -> None:
    """Rewrites the option file that the command names, and writes weights that it begins with."""
    match = re.search(r'(?:-opt|--opt|--speed|info) (\S+\.yml)', command)
    if not match:
        return
    file = match[1]
    if (base := re.search(r'^base: (\S+)', (checkout / file).read_text())) and not (ROOT / file).exists():
        file = base[1]  # a file of the page itself
    opt = load_options(str(ROOT / file))
    ships = 'weights/' in str(opt['path'].get('pretrain_network_g'))
    changes = ['num_gpu=0']
    if not ships:
        changes += [f'network_g:{change}' for change in SMALL.get(opt['network_g']['type'], ())]
    if 'train' in Path(file).name or 'ablations' in file:
        changes += [*FEWER_STEPS, f'train:total_iter={4 if "--auto_resume" in command else 2}']
        if 'feature_opt' in opt['train']:
            changes += ['train:feature_opt:feature_net=random', 'train:feature_opt:sha256=~', 'network_d:patch_size=64']
    else:
        changes += ['val:metrics:niqe=~']
    for change in changes:
        set_option(opt, change)
    for dataset in filter(None, opt['datasets'].values()):
        if not (checkout / str(dataset.get('dataroot_gt'))).exists():
            dataset['dataroot_gt'] = 'clips'
            for name in ('dataroot_lq', 'dataroot_lq_sharp', 'dataroot_blurred', 'dataroot_flow', 'clip_areas', 'clips'):
                dataset.pop(name, None)
            if 'dataroot_flow' in str(opt['train'] if 'train' in opt else ''):
                opt['train'].pop('flow_sup_opt', None)
    (checkout / file).write_text(yaml.safe_dump(opt))
    weights = [opt['path'].get('pretrain_network_g'), *re.findall(r'--weights (\S+)', command)]
    for path in weights:
        if path and not ships:
            write_weights(checkout / path, opt['network_g'])


def write_weights(path: Path, network: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = build_network(network).state_dict()
    torch.save({'params': state, 'params_ema': state}, path)


def words_of(command: str, checkout: Path) -> list[str]:
    """Arguments of Python for a command."""
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    words = [name for word in shlex.split(command.removeprefix('time '))
             for name in (sorted(glob.glob(word, root_dir=checkout)) if '*' in word else [word])]
    words[:1] = {'python': [], 'torchrun': ['-m', 'torch.distributed.run'], 'stvsr': ['-m', 'basicsr_stvsr']}[words[0]]
    return words


# ---------------------------------------------------------------- the tests

def test_every_reason_is_needed():
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, command) for command in COMMANDS)] == []
    assert len(RUN) > 80


@pytest.mark.parametrize('command', [
    pytest.param(command, marks=[pytest.mark.slow] if re.search(SLOW, command) else []) for command in RUN])
def test_command(checkout, command):
    make_small(checkout, command)
    command, _, written = command.partition(' > ')
    if restored := re.search(r'stvsr restore \S+ (out|preview)\.mp4', command):
        (checkout / f'{restored[1]}.mp4').unlink(missing_ok=True)
    is_first = command == next(other for other in RUN if other.split()[0] == command.split()[0])
    result = (run_fresh if is_first else run)(*words_of(command, checkout), cwd=checkout)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    if written:
        (checkout / written).write_text(result.stdout)
    output = re.search(r'--output (\S+)', command)
    if output:
        path = checkout / output[1]
        assert path.is_file() or any(path.iterdir())
    if '--auto_resume' in command:
        assert re.search(r'Resuming training from epoch: \d+, iter: 2\b', result.stderr)
    if 'test.py' in command:
        options = load_options(str(checkout / re.search(r'-opt (\S+)', command)[1]))
        names = {path.stem for path in (checkout / 'results' / options['name']).glob('*.json')}
        assert names == {dataset['name'] for dataset in options['datasets'].values()}
