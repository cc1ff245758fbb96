"""Runs each command of the documentation once, on tiny stand-ins for videos, data sets and weights.

Option files are changed: few steps of small networks on a CPU. NOT_RUN lists what cannot run here, and why.
The pages in docs/datasets have loops of the shell; tests/docs/test_docs.py runs what prepares data there.
"""
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import basicsr
import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.archs.rrdbnet_arch import RRDBNet
from conftest import ROOT
from run_util import ENVIRONMENT, run, run_fresh
from video_util import moving_clip, write_video

from basicsr_stvsr.config.loading import load_options, set_option
from basicsr_stvsr.io.video_reader import open_source

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')), ROOT / 'CONTRIBUTING.md',
         *sorted((ROOT / 'scripts').rglob('*.md'))]

NOT_RUN = {  # pattern -> why
    r'make (demo|install|test)$|^source|venv|pip install \.|install_basicsr': 'installs, or runs these tests',
    r'^(pip|wget) |^mkdir|pack_campaign': 'downloads, or prepares that',
    r'^srun ': 'needs slurm',
    r'--nnodes 2': 'needs two machines',
    r'cuda|gpu_campaign': 'needs a GPU',
    r'fisr_from_tensorflow': 'needs a file of TensorFlow; tests/scripts converts one',
    r'benchmark/compare_': 'compares revisions in git; tests/scripts compares small ones',
    r'benchmark_busy\.py --check': 'its limits are for an idle machine',
    r'claims': 'trains for hours; tests/scripts tests the scripts without training',
    r'train_toy|ablations/hoffr_no_db|-opt train_mbnet_small ':
        'trains at full size; other tests take a step with such files',
}

PIPE, APP = '^ffmpeg ', '^stvsr app'  # have a test of their own

# command -> commands that it takes the results of
NEEDS = {
    r'-opt flat\.yml': r'options flatten',
    r'plot_frame_scores': r'test_bicubic_blur\.yml|test_hoffr_small\.yml',
    r'iter_3800\.pth|--resume$': r'openmmlab\.run train options/mmengine/fstrn_small\.py$',
}

# What the ordinary suite runs. Everything else is slow: together it takes minutes.
QUICK = (r'stvsr (restore|compare) in\.mp4 .*(fstrn-small|--output compare\.html|--dry-run|--time-only|--compare-clip)|'
         r'^python basicsr/train\.py -opt options/train_mbnet\.yml( --auto_resume)?$|test_(fstrn_small|bicubic_y)\.yml|'
         r'zoo (list|info|fetch)|my_loss\.yml$|my_mbnet|basicsr_stvsr\.config|'
         r'train_mbnet_small_flow\.yml --check')

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
    'logger:print_freq=1', 'logger:save_checkpoint_freq=2', 'logger:use_tb_logger=false',
]
SHORTER = {'--start 1:30 --duration 10': '--start 0 --duration 0.1', '--nproc_per_node 4': '--nproc_per_node 2',
           '--nproc-per-node 4': '--nproc-per-node 2', '--height 1080': '--height 108', '1920x1080': '192x108',
           ' --open': '', 'iter_3800': 'iter_2'}
BENCHMARKS = {
    'network': '--size 16x16 --frames 3 --runs 1 --networks "MBNet small"',
    'busy': '--what restore --size 16 --runs 1 --turns 1',
    'training': '--patch 16 --turns 1 --rows checkpoint',
    'video': '--size 32 48 --num_frame 3 --turns 1',
}
MMENGINE = {  # options of its configs
    'train_cfg.max_iters': 2, 'train_cfg.val_interval': 100, 'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False, 'train_dataloader.batch_size': 1,
    'train_dataloader.dataset.dataset.gt_size': 64, 'default_hooks.checkpoint.interval': 2, 'device': 'cpu',
}


def blocks_of(page: Path, language: str = 'bash') -> list[str]:
    return re.findall(rf'^ *```{language}\n(.*?)^ *```$', page.read_text(), re.MULTILINE | re.DOTALL)


def commands_of(page: Path) -> list[str]:
    lines = (line for block in blocks_of(page) for line in re.sub(r' *\\\n +', ' ', block).splitlines())
    return [command for line in lines if (command := re.split(r'(?:^|\s\s)#', line)[0].strip())]


# Makes the data sets that other commands read
DATA = [command for page, number in (('vimeo90k', 3), ('vid4', 1), ('middlebury', 1), ('ucf101', 1))
        for command in commands_of(ROOT / 'docs' / 'datasets' / f'{page}.md')[:number]]
COMMANDS = list(dict.fromkeys(DATA + [
    command for page in PAGES for command in commands_of(page)
    if page.parent.name != 'datasets' or command.startswith('python basicsr/')]))
RUN = [command for command in COMMANDS
       if command not in DATA and not any(re.search(pattern, command) for pattern in (*NOT_RUN, PIPE, APP))]


def write_frames(folder: Path, names: list[str], seed: int) -> None:
    folder.mkdir(parents=True)
    texture = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, (100, 130, 3)), (0, 0), 2) * 3 - 255
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / f'{name}.png'), texture[:96, 2 * i:2 * i + 100].clip(0, 255))


@pytest.fixture(scope='module')
def checkout(tmp_path_factory) -> Path:
    """A checkout with what the commands read: data sets of one to four clips, videos, and files of the pages."""
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
    (data / 'yuv25').mkdir()
    (data / 'yuv25' / 'akiyo_qcif.yuv').write_bytes(np.random.default_rng(0).bytes(12 * 38016))
    write_frames(root / 'frames_in', [f'{j:08d}' for j in range(3)], 9)
    for name in ('in.mp4', 'film.mkv', 'a.mp4', 'b.mp4', 'original.mp4', 'in.avi'):
        write_video(root / name, moving_clip(4))
    (root / 'videos').mkdir()
    shutil.copy(root / 'in.mp4', root / 'videos')
    write_lmdbs(root)
    write_scene_of_fisr(root / 'datasets' / 'fisr_test')
    (root / 'list.txt').write_text('in.mp4\n')
    (root / 'BasicSR' / 'basicsr').mkdir(parents=True)
    shutil.copy(Path(basicsr.__file__).parent / 'train.py', root / 'BasicSR' / 'basicsr')
    for page in ('own_network', 'own_loss', 'basicsr'):
        for block in blocks_of(ROOT / 'docs' / f'{page}.md', '(?:python|yaml)'):
            if name := re.match(r'# (\w+\.(?:py|yml))\n', block):
                (root / name[1]).write_text(block)
    rrdb = RRDBNet(num_in_ch=3, num_out_ch=3, scale=4, num_feat=8, num_block=1, num_grow_ch=32)
    torch.save({'params_ema': rrdb.state_dict()}, root / 'RealESRGAN_x4plus.pth')
    for command in DATA:
        result = run(*words_of(command, root), cwd=root)
        assert result.returncode == 0, result.stderr
    return root


def write_lmdbs(root: Path) -> None:
    """REDS4: sharp frames, LR frames, and frames of another program; and clips."""
    names = [f'{j:08d}' for j in range(3)]
    write_frames(root / 'reds' / '000', names, 10)
    shutil.copytree(root / 'reds' / '000', root / 'frames' / 'reds4' / '000')
    for kind in ('sharp', 'blur_bicubic'):
        lmdb = [root / 'reds' / '000' / f'{name}.png' for name in names]
        if kind != 'sharp':
            for path in lmdb:
                cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (25, 24)))
        result = run('scripts/data_preparation/create_lmdb.py', '--dataset', 'folder', '--input', 'reds', '--output',
                     f'datasets/reds4_{kind}.lmdb', cwd=root)
        assert result.returncode == 0, result.stderr
    for name in ('reds_train_sharp', 'my_clips'):
        shutil.copytree(root / 'datasets' / 'reds4_sharp.lmdb', root / 'datasets' / f'{name}.lmdb')


def write_scene_of_fisr(root: Path) -> None:
    """Five LR and seven HR frames, YUV, of a grey texture."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (128, 208)), (0, 0), 2).clip(16, 235)
    for side, size, positions in (('LR_LFR', (96, 64), range(0, 18, 4)), ('HR_HFR', (192, 128), range(2, 16, 2))):
        folder = root / side / 'scene'
        folder.mkdir(parents=True)
        for position in positions:
            luma = cv2.resize(texture[:, position:position + 192], size).astype(np.uint8)
            grey = np.full_like(luma, 128)
            cv2.imwrite(str(folder / f'{position:02d}.png'), np.dstack((grey, grey, luma)))


# ---------------------------------------------------------------- what a command reads, made small

def make_small(checkout: Path, command: str) -> None:
    """Rewrites the option file that the command names, and writes weights that it begins with."""
    match = re.search(r'(?:-opt|--opt|info|flatten) (\S+\.yml)', command)
    if 'zoo publish' in command:
        write_training(checkout)
    if not match or match[1] == 'flat.yml':  # made of a file that is small already
        return
    file = match[1]
    if not (ROOT / file).exists() and (base := re.search(r'^base: (\S+)', (checkout / file).read_text(), re.MULTILINE)):
        file = base[1]  # `file` is one that the page spells out; it may add to `val`
    opt = load_options(str((ROOT if (ROOT / file).exists() else checkout) / file))
    ships = 'weights/' in str(opt['path'].get('pretrain_network_g'))
    for change in changes_of(command, opt, ships=ships):
        set_option(opt, change)
    if 'train' in opt:
        set_option(opt, 'val:val_freq=100' if file not in command else 'val=~')
    for dataset in filter(None, opt['datasets'].values()):
        use_stand_ins(checkout, dataset)
    (checkout / file).write_text(yaml.safe_dump(opt))
    start = opt['path'].get('pretrain_network_g')
    network = opt['network_g'] if file == match[1] else load_options(str(checkout / match[1]))['network_g']
    for path in ([start] if start and not ships else []) + re.findall(r'(?:--weights |_network_g=)(\S+)', command):
        if path == 'net_g_latest.pth' or not (checkout / path).exists():
            write_weights(checkout / path, network)


def write_training(checkout: Path) -> None:
    """What a training of FSTRN small leaves, and the scores of a test."""
    opt = load_options(str(ROOT / 'options' / 'train_fstrn_small.yml'))
    folder = checkout / 'experiments' / opt['name']
    write_weights(folder / 'models' / 'net_g_latest.pth', opt['network_g'])
    (folder / 'options.yml').write_text(yaml.safe_dump(opt))
    run('basicsr/test.py', '-opt', 'options/test_fstrn_small.yml', cwd=checkout)


def changes_of(command: str, opt: dict, *, ships: bool) -> list[str]:
    """Changes of options: a small network where no weights ship, and few steps."""
    changes = ['num_gpu=0', *(f'network_g:{change}' for change in SMALL.get(opt['network_g']['type'], ()) if not ships)]
    if 'train' not in opt:
        return [*changes, 'val:metrics:niqe=~']
    if 'feature_opt' in opt['train']:
        changes += ['train:feature_opt:feature_net=random', 'train:feature_opt:sha256=~', 'network_d:patch_size=64']
    return [*changes, *FEWER_STEPS, f'train:total_iter={4 if "--auto_resume" in command else 2}']


def use_stand_ins(checkout: Path, dataset: dict) -> None:
    """Reads other clips in place of those that are not here."""
    roots = [name for name in dataset if name.startswith('dataroot_')]
    if not (checkout / dataset['dataroot_gt']).exists():
        dataset['dataroot_gt'] = 'clips'
        missing = [*roots, 'clip_areas', 'clips']
    else:
        missing = [name for name in roots if not (checkout / str(dataset[name])).exists()]
    if 'dataroot_lq_sharp' in missing:
        dataset['lq_sharp'] = True
    for name in missing:
        if name != 'dataroot_gt':
            dataset.pop(name, None)


def write_weights(path: Path, network: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = build_network(network).state_dict()
    torch.save({'params': state, 'params_ema': state}, path)


def words_of(command: str, checkout: Path) -> list[str]:
    """Arguments of Python for a command."""
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    if benchmark := re.search(r'benchmark_(\w+)\.py', command):
        command = f'{command} {BENCHMARKS[benchmark[1]]}'
    words = [name for word in shlex.split(command.removeprefix('time '))
             for name in (sorted(glob.glob(word, root_dir=checkout)) if '*' in word else [word])]
    if 'openmmlab.run t' in command:
        changes = MMENGINE | ({'train_cfg.max_iters': 4} if '--resume' in command else {})
        words += [] if '--cfg-options' in words else ['--cfg-options']
        words += [f'{key}={value}' for key, value in changes.items()]
    words[:1] = {'python': [], 'torchrun': ['-m', 'torch.distributed.run'], 'stvsr': ['-m', 'basicsr_stvsr']}[words[0]]
    return words


# ---------------------------------------------------------------- the tests

def test_every_reason_is_needed():
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, command) for command in COMMANDS)] == []
    assert len(RUN) > 80


@pytest.mark.parametrize('command', [
    pytest.param(command, marks=[] if re.search(QUICK, command) else [pytest.mark.slow]) for command in RUN])
def test_command(checkout, command):
    for pattern, needed in NEEDS.items():
        if re.search(pattern, command):
            for other in filter(re.compile(needed).search, RUN):
                run_in(checkout, other)
    run_in(checkout, command)


def run_in(checkout: Path, command: str) -> None:
    make_small(checkout, command)
    command, _, written = command.partition(' > ')
    for name in ('out.*', 'preview.*', 'both.*', 'compare.*'):
        for path in checkout.glob(name) if 'stvsr restore' in command else ():
            path.unlink() if path.is_file() else shutil.rmtree(path)
    if 'flatten' in command:
        (checkout / 'flat.yml').unlink(missing_ok=True)
    if 'stvsr compare' in command and not (checkout / 'out.mp4').exists():
        shutil.copy(checkout / 'in.mp4', checkout / 'out.mp4')
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


@pytest.mark.slow
def test_the_pipe(checkout):
    """Through the shell, with an FFmpeg of a Python package."""
    imageio_ffmpeg = pytest.importorskip('imageio_ffmpeg')
    command, = filter(re.compile(PIPE).search, COMMANDS)
    programs = checkout / 'programs'
    programs.mkdir()
    (programs / 'ffmpeg').symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    (programs / 'stvsr').write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m stvsr "$@"\n')
    (programs / 'stvsr').chmod(0o755)
    (checkout / 'out.mkv').unlink(missing_ok=True)
    subprocess.run(['bash', '-euo', 'pipefail', '-c', command], cwd=checkout, check=True, timeout=300,
                   env=ENVIRONMENT | {'PATH': f'{programs}:{os.environ["PATH"]}'})
    with open_source(checkout / 'in.avi') as before, open_source(checkout / 'out.mkv') as after:
        assert (after.info.width, after.info.height) == (4 * before.info.width, 4 * before.info.height)
        assert len(list(after.frames())) == 2 * len(list(before.frames())) - 1


@pytest.mark.slow
def test_the_app(tmp_path):
    """It serves its page until Ctrl-C, and leaves no files."""
    command, = filter(re.compile(APP).search, COMMANDS)
    process = subprocess.Popen([sys.executable, '-m', *command.split()], stdout=subprocess.PIPE, text=True,
                               env=ENVIRONMENT | {'TMPDIR': str(tmp_path), 'BROWSER': 'true'})
    try:
        address = process.stdout.readline().strip()
        page = urlopen(address).read()
        assert list(tmp_path.glob('stvsr-app-*'))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert page == (ROOT / 'basicsr_stvsr' / 'app' / 'page.html').read_bytes()
    assert not list(tmp_path.glob('stvsr-app-*'))
