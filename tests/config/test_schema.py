"""Refused options and their messages; the schema and the docs agree with them."""
import inspect
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import basicsr
import pytest
import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY
from conftest import ROOT
from jsonschema import Draft7Validator
from pydantic import Field
from torch import nn

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.config import Block, Count, Loss, Options, Positive, TrainOptions, check_options
from basicsr_stvsr.config.json_schema import json_schema, reference
from basicsr_stvsr.config.loading import load_options, load_yaml, set_option
from basicsr_stvsr.config.options import (
    CosineOptions,
    DistOptions,
    LoggerOptions,
    MultiStepOptions,
    PathOptions,
    ValOptions,
    WandbOptions,
)
from basicsr_stvsr.config.run_options import RunOptions, read_command, start_run
from basicsr_stvsr.data.clip_options import (
    ClipSource,
    ClipTestOptions,
    ClipTrainOptions,
    MixedOptions,
    StillsOptions,
    StillsSource,
)
from basicsr_stvsr.models.mbnet_model import MBNetTrainOptions
from basicsr_stvsr.models.stvsr_model import STVSRModel
from basicsr_stvsr.utils.distributed import init_dist

TRAIN, TEST = ROOT / 'options' / 'train_mbnet.yml', ROOT / 'options' / 'test_mbnet.yml'


def problems(root: Path, *changes: str, file: Path = TRAIN) -> list[str]:
    """The lines with which parse_options refuses an option file with some changes; none where it takes them."""
    try:
        action = file.stem.partition('_')[0]
        start_run(RunOptions.from_file(action, file, root=root, changes=changes))
    except ValueError as error:
        return str(error).splitlines()
    return []


@pytest.fixture
def scratch_registries(monkeypatch):
    for registry in (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY):
        monkeypatch.setattr(registry, '_obj_map', dict(registry._obj_map))


# ---------------------------------------------------------------- one block

class Toy(Block):
    size: Positive
    """How large. In pixels."""
    count: Count = 0
    names: list[str] = []
    rate: Annotated[float, Field(gt=0)] | Literal['auto'] = 1


ALL = 'Options are count, names, rate, size'


@pytest.mark.parametrize('options, lines', [
    ({'size': 0}, ['toy.size must be >= 1, but is 0']),
    ({'size': 1.5}, ['toy.size must be a whole number, but is 1.5']),
    ({'size': True}, ['toy.size must be a whole number, but is true']),
    ({'size': '3'}, ["toy.size must be a whole number, but is '3'"]),
    ({}, ['toy.size is missing: How large']),
    ({'size': None}, ['toy.size is missing: How large']),
    ({'size': 1, 'cuont': 2}, [f'toy.cuont is not an option (its value here is 2). Did you mean count? {ALL}']),
    ({'size': 1, 'SIZE': 2}, [f'toy.SIZE is not an option (its value here is 2). Did you mean size? {ALL}']),
    ({'size': 1, 'x': 'y'}, [f"toy.x is not an option (its value here is 'y'). {ALL}"]),
    ({'size': 1, 'rate': 'fast'}, ["toy.rate must be a number or auto, but is 'fast'"]),
    ({'size': 1, 'rate': 0}, ['toy.rate must be > 0 or auto, but is 0']),
    ({'size': 1, 'rate': float('nan')}, ['toy.rate must be a finite number or auto, but is nan']),
    ({'size': 1, 'names': 'a'}, ["toy.names must be a list, but is 'a'"]),
    ({'size': 1, 'names': ['a', 2, None]}, [
        'toy.names[1] must be text, but is 2', 'toy.names[2] must be text, but is ~']),
    ([1], ['toy must be a block, but is [1]']),
    ({'size': -1, 'nmaes': [], 'rate': 'x'}, [
        f'toy.nmaes is not an option (its value here is []). Did you mean names? {ALL}',
        'toy.size must be >= 1, but is -1', "toy.rate must be a number or auto, but is 'x'"]),
])
def test_a_block_refuses(options, lines):
    with pytest.raises(ValueError) as error:
        Toy.read(options, 'toy.')
    assert str(error.value).splitlines() == lines


def test_a_block_reads():
    toy = Toy.read({'size': 6e5, 'count': None, 'rate': 'auto'})
    assert (toy.size, toy.count, toy.names, toy.rate) == (600000, 0, [], 'auto') and isinstance(toy.size, int)


# ---------------------------------------------------------------- whole files

# Changes of options/train_mbnet.yml, divided by ' + ' -> how the first line begins with which they are refused.
# These an editor sees too, ...
WRONG_BY_ITSELF = {
    'train:optim_gg={}': r'train\.optim_gg is not an option \(its value here is {}\)\. Did you mean optim_g\?',
    'netwrok_g={}': r'netwrok_g is not an option .*Did you mean network_g\?',
    'path:resume_sate=a': r'path\.resume_sate is not an option .*Did you mean resume_state\?',
    'network_g:num_iter=3': r'network_g\.num_iter is not an option \(its value here is 3\)\. Did you mean num_iters\?',
    'network_g:vsr_net:num_feats=1': r'network_g\.vsr_net\.num_feats is not an option .*Did you mean num_feat\?',
    'datasets:train:gt_sise=128': r'datasets\.train\.gt_sise is not an option .*Did you mean gt_size\?',
    'datasets:train:degradation={type: gaussian, sigmaa: 1}':
        r'datasets\.train\.degradation\.sigmaa is not an option .*Did you mean sigma\?',
    'train:hr_flow_opt:weight=1': r'train\.hr_flow_opt\.weight is not an option .*mean loss_weight\?',
    'val:metrics:psnr:crop_boder=1': r'val\.metrics\.psnr\.crop_boder is not an option .*mean crop_border\?',
    'datasets:vla={name: a, type: STVSRTestDataset, dataroot_gt: b}':
        r'datasets\.vla must be named train, val or test, or such as val_2$',
    'train:optim_g:lr=fast': r"train\.optim_g\.lr must be a number, but is 'fast'$",
    'train:optim_g:betas=[0.9]': r'train\.optim_g\.betas must be a list with more entries, but is \[0\.9\]$',
    'network_g:vsr_net:num_feat=1.5': r'network_g\.vsr_net\.num_feat must be a whole number, but is 1\.5$',
    'train:amp=f16': r"train\.amp must be one of none, auto, bf16, fp16, but is 'f16'$",
    'train:flow_loss_images=hr': r"train\.flow_loss_images must be one of sr_detach, sr, gt, but is 'hr'$",
    'val:overlap=frist': r"val\.overlap must be one of first, last, middle, mean, all, but is 'frist'$",
    'dist_params={backend: ncl}': r"dist_params\.backend must be one of nccl, gloo, but is 'ncl'$",
    'train:ema_decay=1': r'train\.ema_decay must be < 1, but is 1$',
    'logger:print_freq=0': r'logger\.print_freq must be >= 1, but is 0$',
    'num_gpu=-1': r'num_gpu must be auto or >= 0, but is -1$',
    'num_gpu=all': r"num_gpu must be auto or a whole number, but is 'all'$",
    'val=3': 'val must be a block, but is 3$',
    'datasets:val:scale=3': r'datasets\.val\.scale is 3, but scale is 4; remove it$',
    'datasets:train={name: a, type: STVSRMixedDataset, gt_size: 64, sources: [{stills: a, max_motoin: 3}]}':
        r'datasets\.train\.sources\[0\]\.max_motoin is not an option .*Did you mean max_motion\?',
    'datasets:train={name: a, type: STVSRMixedDataset, gt_size: 64, sources: [{dataroot_gt: a, reduce: 0}]}':
        r'datasets\.train\.sources\[0\]\.reduce must be >= 1, but is 0$',
}
# ... and these only the program, as it knows all classes, all files and can count.
WRONG_WITH_THE_REST = {
    'model_type=MBNetModl': 'model_type must be the name of a registered model, .*Did you mean MBNetModel?',
    'model_type=~': 'model_type is missing: Class of the model',
    'network_g:type=MBNett': r'network_g\.type must be the name of a registered network, .*Did you mean MBNet\?',
    'network_g:vsr_net:type=RDNN': r'network_g\.vsr_net\.type must be the name .*Did you mean RDN\?',
    'datasets:train:type=STVSRClipDatset': r'datasets\.train\.type must be the name .*mean STVSRClipDataset\?',
    'train:optim_g:type=Adamm': r'train\.optim_g\.type must be the name .*Did you mean Adam',
    'val:metrics:psnr:type=calculate_psnrr': r'val\.metrics\.psnr\.type must be the name .*mean calculate_psnr\?',
    'network_g:refine_net:scale=4': r'network_g: scale of the part PACFlowNet is set by MBNet \(4\); remove it$',
    'network_g:feedback=vif': r"network_g: feedback must be one of vfi, vsr, none, but got 'vif'$",
    'network_g:flow_net={type: PWCNet, pretrained: no.pth}': r'network_g: no\.pth does not exist',
    'train:optim_g:lr=-1': r'train\.optim_g: Invalid learning rate: -1$',
    'train:pixel_opt:reduction=men': r'train\.pixel_opt: Unsupported reduction mode: men',
    'datasets:train:degradation={type: gaussian, kernel_size: 4}':
        r'datasets\.train\.degradation: kernel_size must be odd and positive, got 4$',
    'scale=3 + network_g:scale=3 + datasets:train:gt_size=126': r'network_g: \w+ is built for scale 4, but got 3$',
    'scale=2': r'network_g\.scale is 4, but scale is 2$',
    'datasets:train={name: a, type: STVSRMixedDataset, gt_size: 64, sources: [{dataroot_gt: a}, {stills: b}]}':
        r"datasets\.train\.sources must all provide the same keys, but 'flow' comes from \[1\] and not from \[0\]; ",
    'datasets:train:gt_size=130': r'datasets\.train\.gt_size must be a multiple of scale 4, but is 130$',
    'datasets:train:prefetch_mode=cuda + datasets:train:pin_memory=false':
        r"datasets\.train\.prefetch_mode is 'cuda', which also needs pin_memory: true$",
    'datasets:train:prefetch_mode=cuda + num_gpu=0':
        r"datasets\.train\.prefetch_mode is 'cuda', which needs a GPU, but num_gpu is 0$",
    'datasets:val_2={name: vid4, type: STVSRTestDataset, dataroot_gt: b}':
        r"datasets\.val_2\.name is 'vid4', the same as datasets\.val\.name;",
    'datasets:test_1={name: a, type: STVSRTestDataset, dataroot_gt: b}':
        r'datasets\.test_1 is for testing; a training run uses train, val',
    'train:scheduler:milestones=[5, 5]': r'train\.scheduler\.milestones must be in ascending order, but is \[5, 5\]$',
    'train:scheduler:restarts=[0, 9]':
        r'train\.scheduler\.restart_weights must hold 2 numbers, one for each of restarts \[0, 9\], but is \[1',
    'train:scheduler={type: CosineAnnealingRestartLR, periods: [10, 20], restart_weights: [1, 1]}':
        r'train\.scheduler has the periods \[10, 20\], which add up to 30; they must reach train\.total_iter 600000$',
    'train:scheduler={type: CosineAnnealingRestartLR, periods: [6e5], restart_weights: []}':
        r'train\.scheduler\.restart_weights must hold 1 numbers, one for each of periods',
    'train:accumulate=3': r'train\.accumulate must divide datasets\.train\.batch_size_per_gpu 16, but is 3$',
    'train:pixel_opt:reduction=none': r"train\.pixel_opt: reduction must be mean or sum, so that a batch",
    'train:iter_weights=[1]': r'train\.iter_weights must hold 2 numbers, one for each round, but is \[1\.0\]$',
    'train:optim_g={type: Adam}': r'train\.optim_g\.lr is missing$',
    'train:pixel_opt=~': r'train\.pixel_opt is missing: L\^SR \(eq\. 7\), mean over pixels, summed over the thr',
    'datasets:train={name: a, type: REDSRecurrentDataset, dataroot_gt: b, batch_size_per_gpu: two}':
        r"datasets\.train\.batch_size_per_gpu must be a whole number, but is 'two'$",
    'val:val_freq=~': r'val\.val_freq is missing: .*on datasets\.val, or set val: ~ for no validation$',
    'logger=~': 'logger is missing: What to log and save, and how often$',
    'train=~': 'train is missing: How to train',
    'datasets:train=~': r'datasets\.train is missing: set the data to train on$',
}
TAKEN = [
    'name=x', 'num_gpu=0', 'num_gpu=auto', 'train:total_iter=6e5', 'train:lr_mul:flow_net=0.25', 'val=~',
    'datasets:val=~', 'train:hr_flow_opt=~', 'val:metrics:psnr=~',
    'datasets:train={name: a, type: REDSRecurrentDataset, dataroot_gt: b, num_frame: 15}',
    'datasets:train={name: a, type: STVSRMixedDataset, gt_size: 64, sources: [{dataroot_gt: a, dataroot_flow: b, '
    'reduce: 2}, {stills: c, weight: 0.3, max_motion: 16}]}',
    'datasets:train={name: a, type: STVSRStillsDataset, gt_size: 64, stills: a, max_layers: ~}',
    'train:unit=samples + train:accumulate=4 + train:amp=bf16 + train:grad_clip=0.5',
    'train:warmup_iter=1e3', 'datasets:train:dataset_enlarge_ratio=1.5',
    'train:compile=true + train:channels_last=true + network_g:checkpoint=true',
]


def changed(changes: str) -> dict[str, Any]:
    opt = load_options(str(TRAIN))
    for change in changes.split(' + '):
        set_option(opt, change, new_blocks=True)
    return opt


@pytest.mark.parametrize('changes, message', (WRONG_BY_ITSELF | WRONG_WITH_THE_REST).items())
def test_refused(tmp_path, changes, message):
    found = problems(tmp_path, *changes.split(' + '))
    assert found and re.match(message, found[0]), found


@pytest.mark.parametrize('changes', TAKEN)
def test_taken(tmp_path, changes):
    assert problems(tmp_path, *changes.split(' + ')) == []


def test_all_problems_at_once(tmp_path):
    found = problems(tmp_path, 'train:optim_g:lr=fast', 'train:ema_decy=0.9', 'network_g:num_iter=3', 'scale=0')
    assert [line.split()[0] for line in found] == ['scale', 'network_g.num_iter', 'train.ema_decy', 'train.optim_g.lr']


def test_a_training_without_a_set_to_validate_on():
    """Who takes the set out need not take out all that speaks of it."""
    opt = load_options(str(TRAIN))
    del opt['datasets']['val']
    assert check_options(opt, is_train=True)['val']['val_freq'] == 10000


def test_cuda_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for file in (TRAIN, TEST):
        line, = problems(tmp_path, 'num_gpu=2', file=file)
        assert line.startswith('num_gpu is 2, but torch finds no GPU: set it to auto to use all GPUs, '
                               'or to 0 to use the CPU (torch ')
    prefetch = 'datasets:train:prefetch_mode=cuda', 'num_gpu=auto'
    assert problems(tmp_path, *prefetch) == [
        "datasets.train.prefetch_mode is 'cuda', which needs a GPU, but num_gpu is auto and torch finds none here"]
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert problems(tmp_path, 'num_gpu=2') == problems(tmp_path, *prefetch) == []


def test_files_for_the_other_command(tmp_path):
    assert problems(tmp_path, file=TEST) == []
    with pytest.raises(ValueError, match=r'^datasets.train is for training; a test uses test, test_1'):
        check_options(load_options(str(TRAIN)), is_train=False)
    with pytest.raises(ValueError, match='datasets.test is missing: set the data to test on'):
        check_options({**load_options(str(TEST)), 'datasets': {}}, is_train=False)


# ---------------------------------------------------------------- your own classes

def test_your_classes_are_checked_by_their_signatures(tmp_path, scratch_registries):
    """Without a line of theirs: a network with a part, and a loss."""
    @ARCH_REGISTRY.register()
    class MyNet(nn.Module):
        def __init__(self, *, scale: int = 4, widths: Sequence[int] = (1, 2), part: Mapping[str, Any] | None = None):
            super().__init__()
            if len(widths) != 2:
                raise ValueError(f'widths must be two, but got {widths}')
            self.spec = NetSpec(scale=scale, temporal_scale=2, num_frames=2, size_multiple=4, color='rgb')
            self.num_iters = 2

    @LOSS_REGISTRY.register()
    class MyLoss(nn.Module):
        def __init__(self, loss_weight: float, margin: float | None = None):
            super().__init__()

    def found(*changes: str) -> list[str]:
        return problems(tmp_path, 'network_g={type: MyNet, scale: 4}', 'train:pixel_opt={type: MyLoss, loss_weight: 1}',
                        *changes)

    assert found() == []
    assert found('network_g:part={type: RDN, num_feat: 8}', 'network_g:widths=[3, 4]') == []
    for change, line in (
        ('network_g:width=3', 'network_g.width is not an option (its value here is 3). Did you mean widths? '
                              'Options are part, scale, type, widths'),
        ('network_g:widths=[3, x]', "network_g.widths[1] must be a whole number, but is 'x'"),
        ('network_g:widths=[3]', 'network_g: widths must be two, but got [3]'),
        ('network_g:part={type: RDN, num_feats: 8}', 'network_g.part.num_feats is not an option (its value here is 8). '
         'Did you mean num_feat? Options are arch_spec, joint, num_blocks, num_feat, num_grow, num_layers, residual, '
         'scale, type, upscale'),
        ('train:pixel_opt={type: MyLoss}', 'train.pixel_opt.loss_weight is missing'),
        ('train:pixel_opt:margin=wide', "train.pixel_opt.margin must be a number, but is 'wide'"),
    ):
        assert found(change) == [line]


def test_your_model_and_data_set_state_their_options(scratch_registries):
    class MyTrainOptions(TrainOptions):
        edge_opt: Loss
        """Loss on edges."""

    @MODEL_REGISTRY.register()
    class MyModel(STVSRModel):
        train_options = MyTrainOptions

    class MyDataOptions(ClipTrainOptions):
        noise: float = Field(0, ge=0)
        """Standard deviation of noise."""

    @DATASET_REGISTRY.register()
    class MyDataset:
        options = MyDataOptions

    opt = load_options(str(TRAIN))
    opt['train'] = {name: value for name, value in opt['train'].items() if name in TrainOptions.model_fields}
    for change in ('model_type=MyModel', 'datasets:train:type=MyDataset', 'datasets:train:noise=-1'):
        set_option(opt, change)
    with pytest.raises(ValueError) as error:
        check_options(opt, is_train=True)
    assert str(error.value).splitlines() == [
        'datasets.train.noise must be >= 0, but is -1', 'train.edge_opt is missing: Loss on edges']


# ---------------------------------------------------------------- no dead options

BLOCKS = [Options, ClipTrainOptions, ClipTestOptions, MixedOptions, ClipSource, StillsOptions, StillsSource,
          PathOptions, TrainOptions, MBNetTrainOptions, ValOptions, WandbOptions, LoggerOptions, DistOptions]


@pytest.mark.parametrize('block', BLOCKS)
def test_every_option_is_read_somewhere(block):
    """By this package, leaving out what only describes options, or by the parts of BasicSR that it builds on."""
    ours = [file for file in (ROOT / 'basicsr_stvsr').rglob('*.py')
            if file.parent.name != 'config' or file.name in ('loading.py', 'run_options.py')]
    theirs = [Path(basicsr.__file__).parent / name for name in (
        'models/__init__.py', 'models/base_model.py', 'models/sr_model.py', 'train.py', 'utils/logger.py')]
    code = '\n'.join(file.read_text() for file in [*ours, *theirs]).replace(inspect.getsource(block), '')
    arguments = inspect.signature(init_dist).parameters  # `dist_params`
    assert not [name for name in block.model_fields
                if name not in arguments and not re.search(rf"""\.{name}\b|['"]{name}['"]""", code)]


@pytest.mark.parametrize('block, scheduler', [
    (MultiStepOptions, lr_scheduler.MultiStepRestartLR), (CosineOptions, lr_scheduler.CosineAnnealingRestartLR)])
def test_schedulers_have_the_arguments_of_basicsr(block, scheduler):
    """And their defaults."""
    theirs = {name: parameter.default for name, parameter in inspect.signature(scheduler).parameters.items()
              if name not in ('optimizer', 'last_epoch')}
    ours = {name: field.default for name, field in block.model_fields.items() if name != 'type'}
    required = {name for name, field in block.model_fields.items() if field.is_required()} - {'type'}
    assert theirs.keys() == ours.keys()
    assert all(ours[name] == pytest.approx(theirs[name]) for name in theirs if name not in required)
    assert required == {name for name, default in theirs.items() if default is inspect.Parameter.empty}


# ---------------------------------------------------------------- editors and docs

@pytest.fixture(scope='module')
def validator() -> Draft7Validator:
    schema = json.loads((ROOT / 'options' / 'schema.json').read_text())
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def test_the_schema_file_is_that_of_the_models():
    command = [sys.executable, '-m', 'basicsr_stvsr.config']
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert printed == (ROOT / 'options' / 'schema.json').read_text(), (
        'write it anew: python -m basicsr_stvsr.config > options/schema.json')


@pytest.mark.parametrize('path', sorted((ROOT / 'options').rglob('*.yml')), ids=lambda path: path.stem)
def test_editors_take_every_option_file(path, validator):
    """Also those that state only what differs from another one."""
    assert not [error.message for error in validator.iter_errors(load_yaml(path.read_text(), str(path)))]


@pytest.mark.parametrize('changes', WRONG_BY_ITSELF)
def test_editors_see_what_is_wrong_by_itself(changes, validator):
    assert not validator.is_valid(changed(changes))


@pytest.mark.parametrize('changes', [*WRONG_WITH_THE_REST, *TAKEN])
def test_editors_take_the_rest(changes, validator):
    assert not [error.message for error in validator.iter_errors(changed(changes))]


def test_editors_ask_for_what_every_file_needs(validator):
    assert {re.match("'(.*)' is a required", error.message)[1] for error in validator.iter_errors({})} == {
        'name', 'model_type', 'scale', 'datasets', 'network_g'}
    assert validator.is_valid({'base': 'other.yml'})


def test_editors_show_what_keys_are_for():
    schema = json_schema()
    mbnet = schema['$defs']['MBNetTrainOptions']['properties']
    assert mbnet['total_iter']['description'] == 'How long to train, in `unit`s.'  # of the class that it extends
    assert mbnet['pixel_opt']['description'] == 'L^SR (eq. 7), mean over pixels, summed over the three frames.'
    assert '"gt_size": {' in json.dumps(schema['$defs']['data_set'])
    assert '"scale": {' not in json.dumps(schema['$defs']['data_set'])  # which the program sets


def test_the_examples_of_the_docs(tmp_path, scratch_registries):
    page = (ROOT / 'docs' / 'options.md').read_text()
    blocks = re.findall(r'^```\w*\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    short, command, errors, code = blocks[:4]
    (tmp_path / 'options').symlink_to(ROOT / 'options')
    (tmp_path / 'short.yml').write_text(short)
    opt = start_run(read_command('train', tmp_path, ['-opt', str(tmp_path / 'short.yml')]))
    assert opt['train']['optim_g'] == {'type': 'Adam', 'lr': 5e-5, 'weight_decay': 0, 'betas': [0.9, 0.999]}
    assert opt['train']['scheduler']['periods'] == [100000] and 'lq_flow_opt' not in opt['train']

    _, _, option, file, force, *changes = shlex.split(command.replace('\\\n', ''))
    assert (option, force) == ('-opt', '--force_yml') and problems(tmp_path, *changes, file=ROOT / file) == []
    expected = [line.removeprefix('error: ').removesuffix(' ...') for line in errors.splitlines()]
    found = problems(tmp_path, 'network_g:num_iter=3', 'train:optim_g:lr=fast', 'datasets:train:gt_size=130')
    assert all(any(line.startswith(start) for line in found) for start in expected)

    exec(code, {})
    own = MODEL_REGISTRY.get('EdgeModel').train_options
    with pytest.raises(ValueError, match=r'train\.edge_opt\.weight is not an option .*Did you mean loss_weight\?'):
        own.read({'edge_opt': {'type': 'L1Loss', 'weight': 1}}, 'train.')


def test_the_docs_list_every_option():
    page = (ROOT / 'docs' / 'options.md').read_text()
    assert page.endswith(reference()), 'replace its end: python -m basicsr_stvsr.config --reference'
