"""What users get wrong, by the command they type: one line that says what, where and what was expected; exit code 2."""
import itertools
import re
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.data import build_dataset
from basicsr.models import build_model
from conftest import TINY_NET
from run_util import run, small_train_opt, train_opt, write

from basicsr_stvsr.archs.mbnet_arch import MBNet
from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.data.degradations import build_degradation
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb
from basicsr_stvsr.io.opening import open_reader
from basicsr_stvsr.models.mbnet_model import MBNetModel


@pytest.fixture
def refused(train_here, tmp_path, capsys, monkeypatch):
    """Trains with bad options, which must be refused before anything is written; returns the message."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)

    def refuse(opt: dict, *flags: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            train_here(opt, *flags)
        assert exit_.value.code == 2
        error = capsys.readouterr().err
        assert 'Traceback' not in error and not (tmp_path / 'experiments').exists()
        line, = re.findall(r'^error: (.*)$', error, re.M)
        return line

    return refuse


def lmdbs_that_differ(clips: Path, folder: Path) -> dict[str, str]:
    """GT.lmdb with both clips; LR.lmdb, in which a frame of the second has another name."""
    reader, shrink = open_reader(clips), build_degradation(None, 4)
    frames = {f'{clip}/{reader.frame_name(clip, i)}': reader.frame(clip, i) for clip in reader.clips for i in range(7)}
    small = {key.replace('second', 'scnd'): shrink(frame) for key, frame in frames.items()}
    for name, images in (('GT', frames), ('LR', small)):
        write_lmdb(folder / f'{name}.lmdb', [
            FrameSource(key, key, lambda image=image: np.ascontiguousarray(image)) for key, image in images.items()])
    return {'dataroot_gt': str(folder / 'GT.lmdb'), 'dataroot_lq': str(folder / 'LR.lmdb')}


def weights_of_another_arch(folder: Path) -> str:
    torch.save({'params': MSRResNet(num_feat=4, num_block=1).state_dict()}, folder / 'net.pth')
    return str(folder / 'net.pth')


def web_page(folder: Path) -> str:
    (folder / 'net.pth').write_text('<!DOCTYPE html><html>Sign in</html>')
    return str(folder / 'net.pth')


@pytest.mark.parametrize('changes, message', [
    ({'scale': 3}, r'^network_g\.scale is 4, but scale is 3$'),
    ({'scale': 3, 'network_g': {**TINY_NET, 'scale': 3}}, r'^network_g: .*scale.* 3'),
    ({'network_g': {**TINY_NET, 'num_iter': 3}},
     r'^network_g\.num_iter is not an option \(its value here is 3\)\. Did you mean num_iters\? Options are '),
    ({'network_g': {**TINY_NET, 'vsr_net': {'type': 'RDN', 'num_feats': 8}}},
     r'^network_g\.vsr_net\.num_feats is not an option .* Did you mean num_feat\?'),
    ({'num_gpu': 1}, r'^num_gpu is 1, but torch finds no GPU: set it to auto .* or to 0 to use the CPU'),
    ({'datasets': {'train': {'gt_size': 50}}}, r'^datasets\.train\.gt_size must be a multiple of scale 4, but is 50$'),
    ({'datasets': {'train': {'batch_size_per_gpu': 11}}},
     r'^datasets\.train has 10 windows, fewer than one batch of 11; raise datasets\.train\.dataset_enl'),
    ({'datasets': {'train': {'num_frame': 9}}}, r'\(datasets\.train\): .*9 frames'),
    ({'datasets': {'train': lmdbs_that_differ}},
     r"\(datasets\.train\): 1 clips of dataroot_gt are not in dataroot_lq \(.*LR\.lmdb\); the first is 'second'$"),
    ({'path': {'pretrain_network_g': weights_of_another_arch}},
     r'net\.pth does not hold the weights of MBNet with these options, \d+ tensors: \d+ missing .*\d+ unknown'),
    ({'path': {'pretrain_network_g': web_page}},
     r'net\.pth is a web page, .* instead of the file; expected the weights of MBNet with these options$'),
    ({'path': {'resume_state': web_page}},
     r'^path\.resume_state: .*net\.pth is a web page, .*; expected a training state$'),
    ({'name': '..'}, r"^name must be usable as the name of a folder, but is '\.\.'$"),
    ({'logger': {'wandb': {'project': 'x'}}}, r'^logger\.wandb has a project, which also needs use_tb_logger: true'),
    ({'train': {'lr_mul': {'flownet': 0.25}}}, r'^train\.lr_mul\.flownet matches no parameter of MBNet'),
])
def test_refused(refused, clips, tmp_path, changes, message):
    def put(options: dict, changes: dict) -> None:
        for name, value in changes.items():
            if name == 'train' and value is lmdbs_that_differ:
                options[name].update(value(clips, tmp_path))
            elif isinstance(value, dict) and name in options and name != 'network_g':
                put(options[name], value)
            else:
                options[name] = value(tmp_path) if callable(value) else value

    opt = small_train_opt(clips)
    put(opt, changes)
    assert re.search(message, refused(opt)), refused(opt)


def test_a_clip_to_validate_on_is_shorter_than_the_window(refused, clips, tmp_path):
    opt = train_opt(clips)
    opt['datasets']['val']['num_frame'] = 2
    assert re.search(r"\(datasets\.val\): clip 'first' has only 1 LR frame, but temporal_scale", refused(opt))


def test_a_clip_shorter_than_a_longer_window(clips):
    """A network that takes five frames at a time, and clips of three."""
    model = build_model({
        'name': 'a', 'model_type': 'STVSRModel', 'num_gpu': 0, 'dist': False, 'is_train': False, 'path': {},
        'network_g': {'type': 'BicubicAverage', 'scale': 4}})
    model.net_g.spec = NetSpec(scale=4, num_frames=5)
    dataset = build_dataset({
        'name': 'short', 'key': 'val_2', 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'num_frame': 3,
        'temporal_scale': 1, 'scale': 4, 'phase': 'val'})
    with pytest.raises(ValueError, match=r"^datasets\.val_2: clip 'first' has 3 LR frames, but BicubicAverage needs "
                                         'windows of 5$'):
        model.check_clips(dataset)
    model.net_g.spec = NetSpec(scale=4, num_frames=3)
    model.check_clips(dataset)


def test_a_data_set_that_leaves_frames_out_for_a_network_that_makes_none(clips):
    """The default of data sets is temporal_scale 2: what a network made of frame 1 would be compared with frame 2."""
    model = build_model({
        'name': 'a', 'model_type': 'STVSRModel', 'num_gpu': 0, 'dist': False, 'is_train': True, 'path': {}, 'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'scheduler': {'type': 'MultiStepRestartLR', 'milestones': [1]},
            'total_iter': 1, 'pixel_opt': {'type': 'L1Loss'}},
        'network_g': {'type': 'VSRResNet', 'num_feat': 1, 'num_block': 1, 'num_in_ch': 3}})
    data = {'dataroot_gt': str(clips), 'name': 'a', 'scale': 4}
    with pytest.raises(ValueError, match=r'^datasets\.val: temporal_scale 2 drops every second frame, but '
                                         'VSRResNet does not interpolate frames; set temporal_scale: 1$'):
        model.check_clips(build_dataset({**data, 'type': 'STVSRTestDataset', 'key': 'val', 'phase': 'val'}))
    lq, gt = torch.rand(1, 5, 3, 8, 8), torch.rand(1, 6, 3, 32, 32)
    with pytest.raises(ValueError, match='has 6 frames .*; see temporal_scale in the data set'):
        model.feed_data({'lq': lq, 'gt': gt})


def test_a_test_says_so_before_it_starts(clips, tmp_path):
    """Of two frames that have their ground truth, MBNet is given every second one, and wants two."""
    opt = {
        'name': 'short', 'model_type': 'STVSRModel', 'scale': 4, 'num_gpu': 0, 'network_g': dict(TINY_NET),
        'datasets': {'test_1': {'name': 'a', 'type': 'STVSRTestDataset', 'dataroot_gt': str(clips), 'num_frame': 2,
                                'temporal_scale': 1}},
        'path': {'results_root': str(tmp_path / 'results')}}
    process = run('-m', 'basicsr_stvsr.test', '-opt', write(tmp_path / 'a.yml', opt), cwd=tmp_path)
    assert process.returncode == 2 and 'Traceback' not in process.stderr
    error, = re.findall(r'^error: (.*)$', process.stderr, re.M)
    assert error == "datasets.test_1: clip 'first' has 1 LR frames, but MBNet needs windows of 2"


@pytest.mark.parametrize('text, message', [
    (None, r'^error: option file .*a\.yml does not exist'),
    ('name: tiny\nscale: [4\nnum_gpu: 0\n', r'^error: .*a\.yml, line 3, column 8: '),
    ('name: !!python/object/apply:os.system ["touch trapped"]\n', r'^error: .*a\.yml, line 1, column 7: .*python'),
])
@pytest.mark.parametrize('command', ['train', 'test'])
def test_files_that_are_no_options(tmp_path, command, text, message):
    if text:
        (tmp_path / 'a.yml').write_text(text)
    process = run('-m', f'basicsr_stvsr.{command}', '-opt', tmp_path / 'a.yml', cwd=tmp_path)
    assert process.returncode == 2 and len(process.stderr.strip().splitlines()) == 1
    assert re.search(message, process.stderr), process.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {'a.yml'}


def test_check_tells_what_a_training_takes_and_writes_nothing(train_here, clips, tmp_path, capsys):
    opt = train_opt(clips)
    opt['train']['total_iter'] = 10_000
    opt['logger']['use_tb_logger'] = True
    train_here(opt, '--check')
    printed = capsys.readouterr().out
    num_parameters = sum(p.numel() for p in MBNet(**{k: v for k, v in TINY_NET.items() if k != 'type'}).parameters())
    assert f'network     MBNet, {num_parameters:,} parameters\n' in printed
    assert 'lq (2, 2, 3, 12, 12), gt (2, 3, 3, 48, 48), on each of 1 processes' in printed
    assert re.search(r'^first step  l_sr 0\.\d+, l_flow_lr .*, l_flow_hr .*, grad_norm ', printed, re.M)
    seconds = float(re.search(r'^time +([\d.]+) s per iteration', printed, re.M)[1])
    duration = re.search(r'^duration +(\d+):(\d+):(\d+) for 10,000 iterations', printed, re.M)
    hours, minutes, rest = map(int, duration.groups())
    assert 3600 * hours + 60 * minutes + rest == pytest.approx(10_000 * seconds, rel=0.01)
    assert re.search(r'^memory +\d\.\d+ GiB', printed, re.M)
    assert [path.name for path in tmp_path.iterdir()] == ['options.yml']


def test_check_validates_on_a_clip(train_here, clips, capsys):
    train_here(train_opt(clips), '--check')
    assert re.search(r"^validation  psnr \d+(\.\d+)?.*, clip 'first' of both, in ", capsys.readouterr().out, re.M)


@pytest.mark.parametrize('border, message', [
    ('abc', r"val\.metrics\.psnr\.crop_border must be a whole number, but is 'abc'$"),
    (float('inf'), r'val\.metrics\.psnr\.crop_border must be a whole number, but is inf$'),
    ('', "must be a whole number, but is ''$"), ({}, 'must be a whole number, but is {}$'), (0.5, 'but is 0.5$'),
    (1e9, r'val\.metrics\.psnr\.crop_border must be <= 1000, but is 1000000000.0$'),
    (40, r"^datasets\.val: no validation on its first clip: cannot crop a border of 40 pixels from images of 64x72 "),
])
def test_check_refuses_metrics_that_a_training_would_die_of(refused, clips, border, message):
    opt = train_opt(clips)
    opt['val']['metrics'] = {'psnr': {'type': 'calculate_psnr', 'crop_border': border}}
    assert re.search(message, refused(opt, '--check'))


@pytest.mark.parametrize('changes, message', [
    ({'network_g': {'vsr_net': {'num_feat': -1}}}, r'^network_g: feature_channels must be .* but is -1$'),
    ({'network_g': {'vsr_net': {'num_feat': 10**9}}}, r'^network_g\.vsr_net\.num_feat must be at most 10,000, but'),
    ({'network_g': {'vsr_net': {'num_blocks': 10**9}}}, r'^network_g\.vsr_net\.num_blocks must be at most 10,000'),
    ({'network_g': {'vsr_net': {'num_feat': 1e30}}}, r'^network_g\.vsr_net\.num_feat must be a whole number'),
    ({'network_g': {'vsr_net': {'num_feat': 8000, 'num_grow': 8000, 'num_layers': 99}}}, 'has weights of .* GiB'),
    ({'network_g': {'vfi_net': {'channels': 1e30}}}, r'^network_g\.vfi_net\.channels must be '),
    ({'train': {'optim_g': {'weight_decay': 1e9}}}, r'^train\.optim_g.*weight_decay must be at most 100, but is 1e'),
    ({'train': {'optim_g': {'lr': 1e30}}}, r'lr must be at most 1000'),
    ({'name': 'a\nb'}, r"^name must be usable as the name of a folder, but is 'a\\nb'$"),
    ({'name': '\x1b[31mred'}, r"^name must be usable as the name of a folder, but is '\\x1b\[31mred'$"),
    ({'name': 'a\0'}, r'^name must be usable'), ({'name': '-rf'}, r'^name must be usable'),
    ({'name': 'n' * 300}, r'^name must be usable as the name of a folder, of at most 200 bytes, but has 300$'),
    ({'x' * 5000: 1}, r'^x{56} \.\.\. is not an option'), ({'\x1b[2J': 1}, r'^\\x1b\[2J is not an option'),
])
def test_absurd_values(refused, clips, changes, message):
    def put(options: dict, changes: dict) -> None:
        for name, value in changes.items():
            if isinstance(value, dict):
                put(options[name], value)
            else:
                options[name] = value

    opt = deepcopy(small_train_opt(clips))
    put(opt, changes)
    assert re.search(message, refused(opt))


def nan_after(steps: int):
    """MBNet's losses, NaN from that step on."""
    compute_losses, calls = MBNetModel.compute_losses, itertools.count(1)

    def spoilt(model):
        factor = float('nan') if next(calls) > steps else 1
        return {name: value * factor for name, value in compute_losses(model).items()}
    return spoilt


def test_check_of_a_training_that_diverges(train_here, clips, monkeypatch, capsys, log):
    monkeypatch.setattr(MBNetModel, 'compute_losses', nan_after(1))
    train_here(small_train_opt(clips), '--check')
    printed = capsys.readouterr().out
    assert re.search(r'^first step  l_sr 0.*\nskipped     2 of 3 steps: losses or gradients not finite$', printed, re.M)
    assert 'Iteration 3 is skipped (2 in a row, 2 in all)' in log.text


@pytest.mark.parametrize('max_nonfinite, message', [
    (10, 'all 3 steps were skipped, because losses or gradients were not finite; the warnings above name'),
    (2, r'Iteration 2 is skipped \(2 in a row, 2 in all\): .* train.max_nonfinite is 2: ')])
def test_check_of_a_training_that_takes_no_step(refused, clips, monkeypatch, max_nonfinite, message):
    monkeypatch.setattr(MBNetModel, 'compute_losses', nan_after(0))
    opt = small_train_opt(clips)
    opt['train']['max_nonfinite'] = max_nonfinite
    assert re.match(message, refused(opt, '--check'))


def test_basicsrs_own_options_train_unchanged(train_here, clips, tmp_path):
    """As BasicSR's files are: its model, its data set, anchors, `!!float`, io_backend, loggers."""
    reader, shrink = open_reader(clips), build_degradation(None, 4)
    for folder, make in (('gt', lambda frame: frame), ('lq', shrink)):
        (tmp_path / folder).mkdir()
        for i in range(7):
            cv2.imwrite(str(tmp_path / folder / f'{i}.png'), make(reader.frame('first', i)))
    text = f'''
name: srresnet
model_type: SRModel
scale: &scale 4
num_gpu: 0
manual_seed: 0
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {tmp_path / 'gt'}
    dataroot_lq: {tmp_path / 'lq'}
    filename_tmpl: '{{}}'
    io_backend: &backend
      type: disk
    gt_size: 48
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 1
    prefetch_mode: ~
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {tmp_path / 'gt'}
    dataroot_lq: {tmp_path / 'lq'}
    io_backend: *backend
network_g: {{type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: *scale}}
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.9
  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler: {{type: CosineAnnealingRestartLR, periods: [250], restart_weights: [1], eta_min: !!float 1e-7}}
  total_iter: 4
  warmup_iter: -1
  pixel_opt: {{type: L1Loss, loss_weight: 1.0, reduction: mean}}
val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr: {{type: calculate_psnr, crop_border: 4, test_y_channel: false}}
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 2
  use_tb_logger: false
  wandb: {{project: ~, resume_id: ~}}
dist_params: {{backend: nccl, port: 29500}}
'''
    (tmp_path / 'raw.yml').write_text(text)
    folder = train_here({'name': 'srresnet'}, '-opt', str(tmp_path / 'raw.yml'))
    assert (folder / 'models' / 'net_g_latest.pth').is_file()
    assert (folder / 'training_states' / '2.state').is_file()
    state = torch.load(folder / 'training_states' / '4.state', weights_only=True)
    assert state['optimizers'][0]['param_groups'][0]['lr'] <= 2e-4
    assert yaml.safe_load((folder / 'options.yml').read_text())['train']['optim_g']['lr'] == 2e-4
