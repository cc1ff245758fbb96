"""The wheel and the source distribution, and what works with the wheel alone, without a checkout."""
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import av
import pytest
from conftest import ROOT, write_texture
from video_util import moving_clip, write_video

pytestmark = pytest.mark.slow

SMALL_FSTRN = {
    'model.network_g.num_feat': 8, 'model.network_g.num_frb': 1, 'train_cfg.max_iters': 2, 'train_cfg.val_interval': 9,
    'train_dataloader.batch_size': 2, 'train_dataloader.dataset.dataset.gt_size': 32,
    'train_dataloader.dataset.dataset.dataroot_gt': 'clips', 'val_dataloader.dataset.dataroot_gt': 'clips'}


def files_below(folder: str) -> set[str]:
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', folder]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> tuple[Path, Path]:
    """A source distribution of this checkout, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp('built')
    for name in files_below('.'):
        target = folder / 'source' / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    code = f'from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=folder / 'source', check=True, stdout=subprocess.DEVNULL)
    archive, = folder.glob('*.tar.gz')
    pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation']
    subprocess.run([*pip, '--wheel-dir', folder, archive], check=True)
    wheel, = folder.glob('*.whl')
    return archive, wheel


def test_contents(built):
    package, options = files_below('basicsr_stvsr'), files_below('options')
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    assert package | {f'basicsr_stvsr/{name}' for name in options} <= names
    assert any(name.endswith('licenses/LICENSE') for name in names)
    assert {name.partition('/')[0] for name in names if '.dist-info/' not in name} == {'basicsr_stvsr', 'stvsr'}
    with tarfile.open(built[0]) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert package | options | files_below('scripts') | {'LICENSE', 'README.md', 'constraints.txt'} <= names


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory) -> Path:
    """The programs of a new environment with the wheel, beside the packages of this one."""
    folder = tmp_path_factory.mktemp('fresh')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    python = folder / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--quiet', '--python', python, 'install']
    # A checkout in PYTHONPATH may count as installed.
    subprocess.run([*pip, '--ignore-installed', '--no-deps', '--no-index', built[1]], check=True)
    packages, = folder.glob('lib/python*/site-packages')
    others = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if Path(path).is_dir()]
    (packages / 'others.pth').write_text(''.join(f'import site; site.addsitedir({path!r})\n' for path in others))
    return folder / 'bin'


@pytest.fixture
def run(installed, tmp_path):
    """Runs a program of the new environment in an empty folder."""
    def run(program: str, *arguments: str) -> str:
        env = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
        env.pop('PYTHONPATH', None)
        command = [installed / program, *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout + result.stderr

    return run


def test_the_wheel_is_what_is_imported(run, installed):
    found = run('python', '-c', 'import importlib.util; print(importlib.util.find_spec("basicsr_stvsr").origin)')
    assert found.startswith(str(installed.parent))


def test_restore(run, tmp_path):
    write_video(tmp_path / 'in.mp4', moving_clip(3))
    run('stvsr', 'restore', 'in.mp4', 'out.mp4', '--model', 'adaptive-gan-small', '--device', 'cpu')
    with av.open(str(tmp_path / 'out.mp4')) as video:
        assert [(frame.height, frame.width) for frame in video.decode(video=0)] == 3 * [(192, 256)]


def test_a_training_by_the_name_of_its_options(run, tmp_path):
    (tmp_path / 'clips').mkdir()
    write_texture(tmp_path / 'clips' / 'first', num_frames=4, size=(96, 112), width=96)
    report = run(
        'python', '-m', 'basicsr_stvsr.train', '-opt', 'train_mbnet_small', '--check', '--force_yml',
        'datasets:train:dataroot_gt=clips', 'datasets:train:dataroot_flow=~', 'datasets:train:gt_size=64',
        'datasets:train:batch_size_per_gpu=1', 'datasets:val=~', 'val=~', 'train:flow_sup_opt=~',
        'path:pretrain_network_g=basicsr_stvsr/weights/MBNet_small_clips_x4-c192105a.pth', 'path:param_key_g=params')
    assert 'network     MBNet, 1,507,756 parameters' in report
    assert {path.name for path in tmp_path.iterdir()} == {'clips'}


def test_mmengine(run, tmp_path):
    (tmp_path / 'clips').mkdir()
    write_texture(tmp_path / 'clips' / 'first', num_frames=6, size=(64, 80), width=64)
    run('python', '-m', 'basicsr_stvsr.openmmlab.run', 'train', 'mmengine/fstrn_small.py', '--work-dir', 'work',
        '--cfg-options', *(f'{key}={value}' for key, value in SMALL_FSTRN.items()))
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()
