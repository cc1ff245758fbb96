"""Option files and the command line, up to the options that training and testing get."""
import os
import time
from itertools import pairwise

import pytest
import yaml
from conftest import ROOT

from basicsr_stvsr.config.loading import load_options, load_yaml, merge_options, set_option
from basicsr_stvsr.config.run_options import read_command, save_options, start_run
from basicsr_stvsr.test import test_pipeline as run_test_pipeline
from basicsr_stvsr.train import train_pipeline

BASELINE = '''
name: x
model_type: STVSRModel
scale: 4
num_gpu: 0
datasets: {test: {name: t, type: STVSRTestDataset, dataroot_gt: ~/gt}}
network_g: {type: BicubicAverage}
'''
TRAINING = '''
name: x
model_type: STVSRModel
scale: 4
num_gpu: 0
datasets:
  train: {name: t, type: STVSRClipDataset, dataroot_gt: ~/gt}
  val: ~
  val_2: {name: v, type: STVSRTestDataset, dataroot_gt: ~/gt}
network_g: {type: BicubicAverage}
path: {experiments_root: ~}
train:
  optim_g: {type: Adam, lr: 2e-4}
  scheduler: {type: MultiStepLR, milestones: [5]}
  total_iter: 10
  pixel_opt: {type: L1Loss}
val: {val_freq: 5, metrics: {psnr: {type: calculate_psnr, crop_border: 0}, niqe: ~}}
logger: {print_freq: 9, save_checkpoint_freq: 9}
'''


def write(path, text):
    path.write_text(text)
    return str(path)


# ---------------------------------------------------------------- YAML

def test_numbers_without_a_point_are_numbers(tmp_path):
    """PyYAML alone reads 2e-4 as text, which BasicSR then hands to Adam."""
    opt = load_options(write(tmp_path / 'a.yml', 'a: 2e-4\nb: 2.0e-4\nc: -1E5\nd: e4\ne: 12\nf: 1e\ng: !!float 2e-4\n'))
    assert opt == {'a': 2e-4, 'b': 2e-4, 'c': -1e5, 'd': 'e4', 'e': 12, 'f': '1e', 'g': 2e-4}


def test_anchors_and_merges(tmp_path):
    """A key of the block itself goes before one that is merged in, and is no second one of that name."""
    opt = load_options(write(tmp_path / 'a.yml', '''
one: &one {a: 1, b: 2}
two: &two {<<: *one, b: 3}
three: {<<: [*two, *one], c: *one}
'''))
    assert opt == {'one': {'a': 1, 'b': 2}, 'two': {'a': 1, 'b': 3}, 'three': {'a': 1, 'b': 3, 'c': {'a': 1, 'b': 2}}}


def test_every_alias_is_a_block_of_its_own(tmp_path):
    """BasicSR's PairedImageDataset pops `type` out of its io_backend."""
    opt = load_options(write(tmp_path / 'a.yml', 'a: &a {b: {c: 1}, d: [1]}\ne: *a\nf: {<<: *a, g: 2}\n'))
    opt['a']['b']['c'] = 2
    opt['a']['d'].append(2)
    assert opt['e'] == {'b': {'c': 1}, 'd': [1]} and opt['f'] == {'b': {'c': 1}, 'd': [1], 'g': 2}


@pytest.mark.parametrize('tag', [f'!!python/{what}:os.mkdir' for what in ('object/apply', 'object/new', 'name')])
def test_code_in_a_file_is_not_run(tmp_path, tag):
    target = tmp_path / 'made'
    path = write(tmp_path / 'a.yml', f'a: 1\nb: {tag} ["{target}"]\n')
    with pytest.raises(ValueError) as error:
        load_options(path)
    assert str(error.value) == (f'{path}, line 2, column 4: the tag {tag} is not allowed: an option file holds values '
                                'and runs no code')
    assert not target.exists()


@pytest.mark.parametrize('text, message', [
    ('a: 1\nb: [1, 2\nc: 3\n', r'a\.yml, line 3, column 2: .*while parsing a flow sequence'),
    ('a:\n  b: 1\n c: 2\n', r'a\.yml, line 3, column 2: expected <block end>'),
    ('a: b: c\n', r'a\.yml, line 1, column 5: mapping values are not allowed here'),
    ('a: 1\n\tb: 2\n', r"a\.yml, line 2, column 1: found character '\\t' that cannot start any token"),
    ('a: *x\n', r"a\.yml, line 1, column 4: found undefined alias 'x'"),
    ('train:\n  lr: 1\n  total: 2\n  lr: 3\n', r'a\.yml, line 4, column 3: lr stands in this block already, in line 2'),
    ('a: {b: 1, b: 1}\n', r'a\.yml, line 1, column 11: b stands in this block already, in line 1'),
    ('a: 1\n---\nb: 2\n', r'a\.yml, line 2, column 1: but found another document'),
    ('a: \x01\n', r'a\.yml is not YAML: .*special characters are not allowed'),
    ('', r'a\.yml must hold option blocks \(name: value\), but is empty'),
    ('# nothing but a comment\n', 'but is empty'),
    ('- 1\n- 2\n', 'must hold option blocks .* but holds list'),
    ('<!DOCTYPE html>', 'must hold option blocks .* but holds str'),
    ('a: &a [*a]\n', 'line 1, column 1: more than 100,000 values, with those that aliases repeat'),
    ('base: 3\n', r'a\.yml: base must be the path of an option file, but is 3'),
    ('base: a.yml\n', r'a\.yml, which .*a\.yml names as its base, is based on itself'),
    ('base: b.yml\n', r'b\.yml, which .*a\.yml names as its base, does not exist'),
])
def test_what_is_no_option_file(tmp_path, text, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_options(write(tmp_path / 'a.yml', text))
    assert '\n' not in str(error.value)


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / 'train_mbnet.yml', 'a: 1\n')
    with pytest.raises(FileNotFoundError, match=r'file .*train_mbnt\.yml does not exist\. Did you mean .*mbnet\.yml\?'):
        load_options(str(tmp_path / 'train_mbnt.yml'))
    with pytest.raises(ValueError, match='is a folder; an option file is needed'):
        load_options(str(tmp_path))
    (tmp_path / 'net.pth').write_bytes(b'PK\x03\x04\xff\xfe')
    with pytest.raises(ValueError, match=r'net\.pth is not UTF-8 text \(byte 5\)'):
        load_options(str(tmp_path / 'net.pth'))


@pytest.mark.parametrize('name', ['train_mbnet', 'train_mbnet.yml', 'options/train_mbnet.yml'])
def test_files_of_the_package_are_found_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load_options(name)['name'] == load_options(str(ROOT / 'options' / 'train_mbnet.yml'))['name']
    file = tmp_path / name  # a file of the user goes before that of the package
    file.parent.mkdir(exist_ok=True)
    write(file, 'name: mine\n')
    assert load_options(name) == {'name': 'mine'}


def test_names_that_the_package_does_not_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'file train_mbnt does not exist\. Did you mean train_mbnet\?'):
        load_options('train_mbnt')
    with pytest.raises(FileNotFoundError):
        load_options(str(tmp_path / 'train_mbnet.yml'))


def test_base(tmp_path):
    write(tmp_path / 'base.yml', 'name: one\nnet: {type: A, width: 3, parts: [1, 2]}\nloss: {type: L1}\n')
    (tmp_path / 'sub').mkdir()
    path = write(tmp_path / 'sub' / 'b.yml', 'base: ../base.yml\nname: two\nnet: {parts: [5]}\nloss: ~\n')
    assert load_options(path) == {'name': 'two', 'net': {'type': 'A', 'width': 3, 'parts': [5]}, 'loss': None}


def test_a_block_of_another_type_inherits_nothing():
    base = {'net': {'type': 'A', 'width': 3}}
    assert merge_options(base, {'net': {'type': 'B', 'depth': 1}}) == {'net': {'type': 'B', 'depth': 1}}
    assert merge_options(base, {'net': {'type': 'A', 'depth': 1}}) == {'net': {'type': 'A', 'width': 3, 'depth': 1}}
    assert base == {'net': {'type': 'A', 'width': 3}}


# ---------------------------------------------------------------- --force_yml

def test_set_option():
    opt = {'train': {'optim': {'lr': 1.0}}, 'name': 'a'}
    for assignment in ('train:optim:lr=1e-4', 'name=b', 'train:periods=[10, -1]', 'train:new=~', 'path: x=a=b:c'):
        set_option(opt, assignment, new_blocks=True)
    assert opt == {
        'train': {'optim': {'lr': 1e-4}, 'periods': [10, -1], 'new': None}, 'name': 'b', 'path': {'x': 'a=b:c'}}


@pytest.mark.parametrize('assignment, message', [
    ('lr', "takes block:name=value, but got 'lr'"),
    ('train:=1', "takes block:name=value, but got 'train:=1'"),
    ('train:optm:lr=1', 'have no block train:optm. Did you mean optim'),
    ('name:x=1', 'have no block name'),
    ('name=[1', r"--force_yml name=\[1, line 1, column 3: expected ',' or '\]'"),
    ('name=!!python/name:os.system', 'line 1, column 1: the tag !!python/name:os.system is not allowed'),
])
def test_set_option_refuses(assignment, message):
    with pytest.raises(ValueError, match=message):
        set_option({'train': {'optim': {}}, 'name': 'a'}, assignment)


@pytest.mark.parametrize('assignments, message', [
    (['train:total_iter=many'], r"^train\.total_iter must be a whole number, but is 'many'$"),
    (['train:lr_mul:flow_net=fast'], r"^train\.lr_mul\.flow_net must be a number, but is 'fast'$"),
    (['train:lrmul:flow_net=1'],
     r"^train\.lrmul is not an option \(its value here is {'flow_net': 1}\)\. Did you mean lr_mul\?"),
    (['trian:total_iter=1'], r'^trian is not an option .*Did you mean train\?'),
    (['name:x=1'], r'--force_yml name:x=1: the options have no block name'),
])
def test_what_is_forced_is_checked(tmp_path, assignments, message):
    path = write(tmp_path / 'a.yml', TRAINING)
    with pytest.raises(ValueError, match=message):
        start_run(read_command('train', tmp_path, ['-opt', path, '--force_yml', *assignments]))


def test_a_block_may_be_forced_that_the_file_lacks(tmp_path):
    path = write(tmp_path / 'a.yml', TRAINING)
    opt = start_run(read_command('train', tmp_path, [
        '-opt', path, '--force_yml', 'network_g:type=MBNet', 'train:lr_mul:flow_net=0.25', 'dist_params:port=29501',
        'path:resume_state=~']))
    assert opt['train']['lr_mul'] == {'flow_net': 0.25} and opt['dist_params'] == {'port': 29501}


# ---------------------------------------------------------------- starting a run

def test_start_run_fills_in_what_basicsr_expects(tmp_path):
    path = write(tmp_path / 'a.yml', TRAINING)
    run = read_command('train', tmp_path, ['-opt', path, '--force_yml', 'logger:print_freq=3'])
    opt = start_run(run)
    assert (opt['dist'], opt['rank'], opt['world_size'], opt['is_train']) == (False, 0, 1, True)
    assert list(opt['datasets']) == ['train', 'val_2']
    assert opt['datasets']['val_2']['phase'] == 'val' and opt['datasets']['train']['scale'] == 4
    assert not opt['datasets']['train']['dataroot_gt'].startswith('~')
    assert opt['logger']['print_freq'] == 3
    assert list(opt['val']['metrics']) == ['psnr']
    assert opt['path']['models'] == str(tmp_path / 'experiments' / 'x' / 'models')
    assert isinstance(opt['manual_seed'], int)
    # Defaults are filled in, and what is ~ is gone, so that they stand in one place only.
    assert opt['val']['average'] == 'clips' and opt['train']['accumulate'] == 1
    assert opt['datasets']['train']['batch_size_per_gpu'] == 1 and 'prefetch_mode' not in opt['datasets']['train']

    save_options(run, tmp_path / 'options.yml')
    given = yaml.safe_load(TRAINING)
    given['logger']['print_freq'], given['train']['optim_g']['lr'] = 3, 2e-4
    assert load_options(tmp_path / 'options.yml') == given

    changes = ['--force_yml', 'path:experiments_root=/e']
    opt = start_run(read_command('train', tmp_path, ['-opt', path, '--debug', *changes]))
    assert opt['name'] == 'debug_x' and opt['logger']['print_freq'] == 1 and opt['path']['models'] == '/e/models'


def test_a_test_needs_little(tmp_path):
    path = write(tmp_path / 'a.yml', BASELINE.replace('num_gpu: 0', 'path: ~'))
    opt = start_run(read_command('test', tmp_path, ['-opt', path]))
    assert opt['val'] == {} and isinstance(opt['num_gpu'], int)
    assert opt['path']['results_root'] == str(tmp_path / 'results' / 'x')


BASICSR_FILE = '''
# Modified SRResNet w/o BN from: Photo-Realistic Single Image Super-Resolution Using a GAN
# general settings
name: 001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb
model_type: SRModel
scale: 4
num_gpu: 0  # set num_gpu: 0 for cpu mode
manual_seed: 0

# dataset and data loader settings
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DF2K/DIV2K_train_HR_sub
    dataroot_lq: datasets/DF2K/DIV2K_train_LR_bicubic_X4_sub
    meta_info_file: basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt
    filename_tmpl: '{}'
    io_backend:
      type: disk
    gt_size: 128
    use_hflip: true
    use_rot: true
    # data loader
    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 1.5
    prefetch_mode: ~
  val: &val
    name: Set5
    type: PairedImageDataset
    dataroot_gt: datasets/Set5/GTmod12
    dataroot_lq: datasets/Set5/LRbicx4
    io_backend:
      type: disk
  val_2:
    <<: *val
    name: Set14

# network structures
network_g:
  type: MSRResNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 64
  num_block: 16
  upscale: 4

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 2e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: CosineAnnealingRestartLR
    periods: [250000, 250000, 250000, 250000]
    restart_weights: [1, 1, 1, 1]
    eta_min: !!float 1e-7
  total_iter: 1000000
  warmup_iter: -1  # no warm up
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 4
      test_y_channel: false

logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

# dist training settings
dist_params:
  backend: nccl
  port: 29500
'''


def test_files_of_basicsr_pass_as_they_are(tmp_path):
    """Also keys and values that our own schema has not, such as an enlarge ratio of 1.5."""
    path = write(tmp_path / 'a.yml', BASICSR_FILE)
    opt = start_run(read_command('train', tmp_path, ['-opt', path]))
    plain = yaml.safe_load(BASICSR_FILE)
    assert {name: opt[name] for name in ('train', 'val', 'network_g', 'logger', 'manual_seed', 'dist_params')} == {
        name: plain[name] for name in ('train', 'val', 'network_g', 'logger', 'manual_seed', 'dist_params')}
    added = {'key', 'phase', 'scale'}
    for name, dataset in opt['datasets'].items():
        assert {key: value for key, value in dataset.items() if key not in added} == plain['datasets'][name]
    assert opt['datasets']['val_2']['name'] == 'Set14'


def test_without_gpus_several_processes_talk_by_gloo(tmp_path, monkeypatch):
    """Though BasicSR's files name nccl, which knows GPUs only."""
    asked = {}
    monkeypatch.setattr('basicsr_stvsr.config.run_options.init_dist', lambda launcher, **how: asked.update(how))
    path = write(tmp_path / 'a.yml', BASICSR_FILE)
    start_run(read_command('train', tmp_path, ['-opt', path, '--launcher', 'pytorch']))
    assert asked == {'backend': 'gloo', 'port': 29500}


@pytest.mark.parametrize('assignment, message', [
    ('model_type=SRModell', "model_type must be the name of a registered model, but is 'SRModell'. Did you mean SRM"),
    ('trian:total_iter=1', 'have no block trian. Did you mean train'),
    ('datasets:train:type=PairedImagDataset', 'datasets.train.type .* Did you mean PairedImageDataset'),
])
def test_what_is_wrong_for_basicsr_too(tmp_path, assignment, message):
    path = write(tmp_path / 'a.yml', BASICSR_FILE)
    with pytest.raises(ValueError, match=message):
        start_run(read_command('train', tmp_path, ['-opt', path, '--force_yml', assignment]))


@pytest.mark.parametrize('pipeline, text', [(train_pipeline, TRAINING), (run_test_pipeline, BASELINE)])
def test_wrong_options_end_with_code_2_and_leave_nothing(tmp_path, pipeline, text, capsys):
    """All problems at once, and before the data, which do not exist either."""
    path = write(tmp_path / 'a.yml', text)
    root = tmp_path / 'root'
    root.mkdir()
    with pytest.raises(SystemExit) as end:
        pipeline(str(root), ['-opt', path, '--force_yml', 'network_g:scal=4', 'scale=four'])
    assert end.value.code == 2 and not list(root.iterdir())
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: scale must be a whole number, but is 'four'",
        'network_g.scal is not an option (its value here is 4). Did you mean scale? Options are between, first_output, '
        'scale, temporal_scale, type']


@pytest.mark.parametrize('path', sorted((ROOT / 'options').rglob('*.yml')), ids=lambda path: path.stem)
def test_every_option_file_passes(path, tmp_path):
    is_train = 'train' in load_options(str(path)) and not path.stem.startswith('test_')
    opt = start_run(read_command('train' if is_train else 'test', tmp_path, ['-opt', str(path)]))
    assert opt['is_train'] == is_train


def test_load_yaml_names_where():
    assert load_yaml('[1, 2e3]', 'here') == [1, 2000.0]
    with pytest.raises(ValueError, match='^here, line 1, column 1: '):
        load_yaml(']', 'here')


# ---------------------------------------------------------------- files made to do harm

LISTS = ''.join(f'{b}: &{b} [{", ".join([f"*{a}"] * 9)}]\n' for a, b in pairwise('abcdefghij'))
BLOCKS = ''.join(f'{b}: &{b} {{{", ".join(f"k{n}: *{a}" for n in range(9))}}}\n' for a, b in pairwise('abcdefghij'))
MERGED = ''.join(f'{b}: &{b} {{<<: [{", ".join([f"*{a}"] * 9)}]}}\n' for a, b in pairwise('abcdefghij'))


@pytest.mark.parametrize('text', [
    f'a: &a [1]\n{LISTS}', f'a: &a {{x: 1}}\n{BLOCKS}', f'a: &a {{x: 1, y: 2}}\n{MERGED}'],
    ids=['lists', 'blocks', 'merged'])
def test_aliases_that_repeat_each_other(text):
    start = time.process_time()
    with pytest.raises(ValueError, match='a.yml, line 1, column 1: more than 100,000 values, with those'):
        load_yaml(text, 'a.yml')
    assert time.process_time() - start < 2


def test_a_few_aliases_are_fine():
    assert load_yaml('a: &a {x: [1]}\nb: [*a, *a]\nc: {<<: *a, y: 2}\n', 'a.yml') == {
        'a': {'x': [1]}, 'b': [{'x': [1]}] * 2, 'c': {'x': [1], 'y': 2}}


@pytest.mark.parametrize('text, message', [
    ('a: 2001-99-99', "a.yml, line 1, column 4: '2001-99-99' cannot be read as !!timestamp"),
    ('a: !!int abc', "'abc' cannot be read as !!int"),
    ('a: !!bool x', "'x' cannot be read as !!bool"),
    (f'a: 0x{"f" * 9000}', 'column 4: the number has more than 64 bits'),
    (f'a: {"9" * 9000}', "column 4: '999.* ... cannot be read as !!int"),
    ('? [1, 2]\n: 3', 'found unhashable key'),
])
def test_values_that_yaml_cannot_hold(text, message):
    with pytest.raises(ValueError, match=message) as error:
        load_yaml(text, 'a.yml')
    assert len(str(error.value)) < 200


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='Windows has no such files')
def test_only_regular_files_of_a_usual_size_are_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'large.yml').write_text(' ' * (2**20 + 1))
    for name, message in (('pipe', 'pipe, which .*a.yml names as its base, is a device or a pipe; an option file is n'),
                          ('/dev/zero', '/dev/zero, which .* is a device or a pipe'),
                          ('large.yml', 'has 1,048,577 bytes, but option files have at most 1,048,576')):
        (tmp_path / 'a.yml').write_text(f'base: {name}')
        with pytest.raises(ValueError, match=message):
            load_options(str(tmp_path / 'a.yml'))


def test_a_long_chain_of_bases(tmp_path):
    for number in range(60):
        (tmp_path / f'{number}.yml').write_text(f'base: {number + 1}.yml')
    with pytest.raises(ValueError, match=r'50.yml, which .*49.yml names as its base, is based on a chain of'):
        load_options(str(tmp_path / '0.yml'))
