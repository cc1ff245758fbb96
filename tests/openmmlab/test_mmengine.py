"""mmengine: what its registries find, and trainings and tests by its Runner, against BasicSR's loop."""
import copy
import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from basicsr.archs import build_network
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from conftest import ROOT, TINY_NET, write_moving_clips
from run_util import run, run_fresh
from torch import nn

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.config import check_options
from basicsr_stvsr.config.loading import complete_datasets, complete_paths, load_options
from basicsr_stvsr.training.loader import make_train_loader
from basicsr_stvsr.zoo.info import facts_of_model
from basicsr_stvsr.zoo.publish import publish
from basicsr_stvsr.zoo.table import ZOO, load_network

pytest.importorskip('mmengine', reason='mmengine is not installed: pip install mmengine')

from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    DefaultScope,
)
from mmengine.runner import Runner

from basicsr_stvsr import registry
from basicsr_stvsr.openmmlab.checkpoint import export_weights
from basicsr_stvsr.openmmlab.complexity import zoo_table
from basicsr_stvsr.openmmlab.run import main as run_command
from basicsr_stvsr.openmmlab.run import make_config, read_command
from basicsr_stvsr.openmmlab.schedule import RecipeLR
from basicsr_stvsr.zoo.complexity import complexity

OPTIONS = ROOT / 'options'
NUM_STEPS = 5
NUMBERS = itertools.count()


class Case(NamedTuple):
    """A config of mmengine and the option file that it stands for, and what makes both small."""

    name: str  # of the option file
    config: str
    network: dict[str, Any]  # in place of keys of network_g
    lr: float  # so large that five steps change the weights by far more than they may differ
    gt_size: int = 32
    data: dict[str, Any] = {}
    train: dict[str, Any] = {}
    discriminator: dict[str, Any] | None = None
    has_test: bool = True
    atol: float = 1e-5  # of weights after five steps


GAN = Case('adaptive_gan_small', 'adaptive_gan_small.py', {'num_feat': 8, 'num_block': 1}, 0.1,
           discriminator={'num_feat': 8, 'patch_size': 32})
CASES = {
    'MBNet': Case('mbnet_small', 'mbnet_small.py', TINY_NET, 0.015, data={'dataroot_flow': None},
                  train={'flow_sup_opt': None}, atol=5e-5),  # Adam enlarges rounding where gradients are near zero
    'FISR': Case('fisr_small', 'fisr_small.py', {'num_feat': 2}, 0.1, gt_size=64),
    'FSTRN': Case('fstrn_small', 'fstrn_small.py', {'num_feat': 8, 'num_frb': 1}, 0.1),
    'HOFFR': Case('hoffr_small', 'hoffr_small.py',
                  {'num_feat': 8, 'num_block': 1, 'num_rcab': 1, 'reduction': 1, 'num_flow_feat': 4}, 0.1,
                  data={'num_frame': 3, 'motion_blur': {'exposure': 1.0, 'num_frame': 3}}),
    'VSRResNet': Case('vsrresnet_small', 'vsrresnet_small.yaml', {'num_feat': 8, 'num_block': 1}, 0.1, has_test=False),
    'AdaptiveGAN': GAN,
}
every_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
with_test = pytest.mark.parametrize(
    'case', [case for case in CASES.values() if case.has_test], ids=[name for name in CASES if CASES[name].has_test])


@pytest.fixture(scope='module')
def clips(tmp_path_factory) -> Path:
    """9 frames of 96 x 80."""
    root = tmp_path_factory.mktemp('nine')
    write_moving_clips(root, num_frames=9, height=96, width=80)
    return root


@pytest.fixture(autouse=True)
def default_scope(monkeypatch) -> Iterator[None]:
    """As a Runner sets it, and none afterwards; configs are written as they are, as yapf takes seconds for each."""
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    DefaultScope.get_instance('tests', scope_name='basicsr_stvsr')
    yield
    DefaultScope._instance_dict.clear()


# ---------------------------------------------------------------- the same training twice

def file_options(case: Case, kind: str) -> dict[str, Any]:
    return load_options(str(OPTIONS / f'{kind}_{case.name}.yml'))


def completed(opt: dict[str, Any], folder: Path, *, is_train: bool) -> dict[str, Any]:
    """As BasicSR's loop completes options."""
    opt = check_options({**opt, 'num_gpu': 0}, is_train)
    opt |= {'dist': False, 'rank': 0, 'world_size': 1, 'is_train': is_train}
    complete_datasets(opt)
    complete_paths(opt, str(folder))
    return opt


def small_options(case: Case, clips: Path, folder: Path) -> dict[str, Any]:
    """The option file, small."""
    opt = file_options(case, 'train')
    opt['datasets'] = {'val': None, 'train': opt['datasets']['train'] | {
        'dataroot_gt': str(clips), 'gt_size': case.gt_size, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0,
        'cache': False, **case.data}}
    opt['network_g'] |= copy.deepcopy(case.network)
    if case.discriminator:
        opt['network_d'] |= case.discriminator
    opt['path']['pretrain_network_g'] = None
    # Half precision is a wrapper of mmengine's optimiser.
    opt['train'] |= {'ema_decay': 0, 'amp': 'none', **case.train}
    opt['train'].pop('channels_last', None)  # the configs have its default
    for name in opt['train'].keys() & {'optim_g', 'optim_d'}:
        opt['train'][name]['lr'] = case.lr
    return completed(opt, folder, is_train=True)


def small_config(case: Case, clips: Path, folder: Path, **changes: Any) -> Config:
    """The config, small, without an average of the weights."""
    config = Config.fromfile(OPTIONS / 'mmengine' / case.config)
    optimizers = ('net_g.', 'net_d.') if case.discriminator else ('',)
    config.merge_from_dict({
        'work_dir': str(folder / 'work'), 'custom_hooks': [], 'log_level': 'ERROR',
        'model.network_g': replacing_parts(case.network), 'model.path.pretrain_network_g': None,
        **({'model.network_d': case.discriminator} if case.discriminator else {}),
        **{f'model.train.{name}': value for name, value in case.train.items()},
        'train_dataloader': {'batch_size': 2, 'persistent_workers': False},
        'train_dataloader.dataset.dataset': {
            'dataroot_gt': str(clips), 'gt_size': case.gt_size, 'cache': False, **case.data},
        **{f'{name}_dataloader.dataset.dataroot_gt': str(clips) for name in ('val', 'test')},
        **{f'{name}_dataloader.num_workers': 0 for name in ('train', 'val', 'test')},
        'train_cfg': {'max_iters': NUM_STEPS, 'val_begin': 10**6},
        **{f'optim_wrapper.{name}optimizer.lr': case.lr for name in optimizers}, **changes})
    return config


def replacing_parts(network: dict[str, Any]) -> dict[str, Any]:
    """Options of a network that replace those of a config instead of being merged with them."""
    return {name: {**value, '_delete_': True} if isinstance(value, dict) else value for name, value in network.items()}


def make_runner(config: Config) -> Runner:
    """Return a Runner with a unique name, because mmengine keeps all Runners by name."""
    config.experiment_name = f'runner_{next(NUMBERS)}'
    return Runner.from_cfg(config)


def write_weights(model: Any, folder: Path) -> dict[str, Any]:
    """Writes the weights of a model of BasicSR, and returns the options that read them."""
    paths = {}
    for name in ('net_g', 'net_d'):
        if getattr(model, name, None) is not None:
            paths[f'model.path.pretrain_network_{name[-1]}'] = str(folder / f'{name}.pth')
            torch.save({'params': getattr(model, name).state_dict()}, folder / f'{name}.pth')
    return paths | {'model.path.param_key_g': 'params', 'model.path.strict_load_g': True}


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the weights of both networks."""
    return {f'{name}.{key}': value.clone() for name in ('net_g', 'net_d') if getattr(model, name, None) is not None
            for key, value in getattr(model, name).state_dict().items()}


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert float((value - second[name]).abs().max()) <= atol, name


def train_both(case: Case, clips: Path, folder: Path) -> tuple[dict[str, torch.Tensor], ...]:
    """The weights before, after BasicSR's steps, and after mmengine's, which have seen the same samples."""
    opt = small_options(case, clips, folder)
    model = build_model(opt)
    before, options_of_weights = weights_of(model), write_weights(model, folder)
    batches, keys, seen = make_train_loader(opt, build_dataset(opt['datasets']['train'])), [], []
    for number, batch in zip(range(1, NUM_STEPS + 1), batches, strict=False):
        keys += batch['key']
        model.feed_data(batch)
        model.update_learning_rate(number, warmup_iter=opt['train'].get('warmup_iter', -1))
        model.optimize_parameters(number)

    runner = make_runner(small_config(case, clips, folder, **options_of_weights))
    feed_data = runner.model.recipe.feed_data
    runner.model.recipe.feed_data = lambda data: (seen.extend(data['key']), feed_data(data))
    runner.train()
    assert seen == keys
    return before, weights_of(model), weights_of(runner.model)


@every_case
def test_five_steps_are_those_of_basicsr(case, clips, tmp_path):
    """Batches, losses, learning rates, optimisers and clipping each come from the file of their own."""
    before, expected, weights = train_both(case, clips, tmp_path)
    assert_close(weights, expected, case.atol)
    for network in {name.partition('.')[0] for name in expected}:  # which the steps have taken far
        assert max(float((value - before[name]).abs().max()) for name, value in expected.items()
                   if name.startswith(network)) > 2e-3


def test_the_discriminator_learns_alone_in_its_iterations(clips, tmp_path):
    """The generator is to take one step of five, the fourth."""
    case = GAN._replace(train={'net_d_init_iters': 2, 'net_d_iters': 2, 'feature_opt': None})
    before, expected, weights = train_both(case, clips, tmp_path)
    assert_close(weights, expected, 1e-5)
    # Adam's first step is the learning rate, which a warm-up of 100 has brought to 4 %.
    moved = (expected['net_g.last.weight'] - before['net_g.last.weight']).abs().max()
    assert float(moved) == pytest.approx(0.04 * case.lr, rel=1e-3)


# ---------------------------------------------------------------- configs and option files

@every_case
def test_configs_say_what_option_files_say(case):
    config, opt = Config.fromfile(OPTIONS / 'mmengine' / case.config), file_options(case, 'train')
    options = check_options({**opt, 'num_gpu': 0}, is_train=True)
    model, train = config.model.to_dict(), options['train']
    for name in ('model_type', 'scale', 'network_g', 'network_d'):
        assert model.get(name) == opt.get(name)
    for name, value in train.items():
        if name in model['train'] or name.endswith('_opt'):
            assert model['train'][name] == value
    assert config.train_cfg.max_iters == train['total_iter']
    assert config.train_cfg.val_interval == options['val']['val_freq']
    assert config.randomness.seed == options['manual_seed']
    hook, = config.custom_hooks
    assert hook.momentum == pytest.approx(1 - train['ema_decay'])
    assert config.param_scheduler.get('warmup_iter', -1) == train['warmup_iter']
    for key, value in config.param_scheduler.scheduler.to_dict().items():
        assert train['scheduler'][key] == value
    for key, wrapper in {'optim_g': config.optim_wrapper.get('net_g', config.optim_wrapper),
                         'optim_d': config.optim_wrapper.get('net_d')}.items():
        if wrapper:
            optimizer = {**wrapper.optimizer.to_dict(), 'betas': list(wrapper.optimizer.betas)}
            assert optimizer == {**{name: value for name, value in train[key].items() if name != 'weight_decay'},
                                 'fused': True}
            assert not train[key].get('weight_decay')
    assert config.optim_wrapper.get('clip_grad', {}).get('max_norm') == train.get('grad_clip')

    dataset = options['datasets']['train']
    loader = {'num_worker_per_gpu', 'batch_size_per_gpu', 'dataset_enlarge_ratio'}
    assert config.train_dataloader.batch_size == dataset['batch_size_per_gpu']
    assert config.train_dataloader.sampler.enlarge_ratio == dataset['dataset_enlarge_ratio']
    compare_datasets(config.train_dataloader.dataset.dataset.to_dict(), dataset, loader)
    compare_datasets(config.val_dataloader.dataset.to_dict(), options['datasets']['val'], set())
    assert METRICS.build(config.val_evaluator).scorer.metrics == scores_of(options)


def scores_of(opt: dict[str, Any]) -> dict[str, Any]:
    """Metrics, without the arguments that are the default."""
    return {name: {key: value for key, value in metric.items() if (key, value) != ('test_y_channel', False)}
            for name, metric in opt['val']['metrics'].items()}


def compare_datasets(config: dict[str, Any], options: dict[str, Any], passed_over: set[str]) -> None:
    """As the data sets read them, with all defaults."""
    kind = DATASET_REGISTRY.get(config['type']).options
    ours, theirs = (kind.read({**block, 'name': 'a', 'scale': config['scale']}, '').complete()
                    for block in (config, options))
    assert {key: value for key, value in ours.items() if key not in passed_over} == {
        key: value for key, value in theirs.items() if key not in passed_over}


@with_test
def test_a_test_scores_as_basicsr(case, clips, tmp_path):
    """The test of a config, and that of the option file, of the same small network."""
    opt = file_options(case, 'test')
    dataset = next(iter(opt['datasets'].values())) | {'dataroot_gt': str(clips), 'name': 'both', 'num_frame': 5}
    # The network of the training, which may be newer than the one of the shipped weights that the file tests.
    opt |= {'datasets': {'test': dataset}, 'network_g': file_options(case, 'train')['network_g']}
    opt['network_g'] |= copy.deepcopy(case.network)
    opt['path'] = {'pretrain_network_g': None, 'results_root': str(tmp_path)}
    opt['val']['metrics'].pop('niqe', None)  # which takes as long as all others together
    opt = completed(opt, tmp_path, is_train=False)
    model = build_model(opt)
    model.validation(build_dataloader(build_dataset(opt['datasets']['test']), opt['datasets']['test']), 0, None)
    expected = {f'{name}_{group}': value for name, groups in model.validation_results['both'].items()
                for group, value in groups.items()}

    config = small_config(case, clips, tmp_path, **write_weights(model, tmp_path), **{
        'test_dataloader.dataset.num_frame': 5, 'model.train': None, 'model.network_d': None})
    config.test_evaluator.frame_metrics.pop('niqe', None)
    assert make_runner(config).test() == pytest.approx(expected, rel=1e-5)
    assert len(expected) >= 4


# ---------------------------------------------------------------- what the scope finds

BUILT = """
import sys
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope

configs = [Config.fromfile(path) for path in sys.argv[1:]]
init_default_scope(configs[0].default_scope)
assert 'basicsr_stvsr' not in sys.modules
for config in configs:
    for registry, name in ((MODELS, 'arch'), (MODELS, 'loss'), (METRICS, 'metric'), (DATASETS, 'dataset')):
        built = type(registry.build(config[name]))
        print(built.__module__, built.__name__)
"""
AS_PYTHON = """
default_scope = 'basicsr_stvsr'
arch = dict(type='FSTRN', num_feat=8, num_frb=1)
loss = dict(type='PyramidWarpLoss', level_weights=[0.5, 0.5, 1.0])
metric = dict(type='calculate_psnr', crop_border=4)
dataset = dict(type='STVSRTestDataset', scale=4, dataroot_gt='{clips}', temporal_scale=1)
"""
AS_YAML = """
default_scope: basicsr_stvsr
arch: {{type: FSTRN, num_feat: 8, num_frb: 1}}
loss: {{type: PyramidWarpLoss, level_weights: [0.5, 0.5, 1.0]}}
metric: {{type: calculate_psnr, crop_border: 4}}
dataset: {{type: STVSRTestDataset, scale: 4, dataroot_gt: '{clips}', temporal_scale: 1}}
"""


def test_configs_build_without_importing_the_package(clips, tmp_path):
    (tmp_path / 'a.py').write_text(AS_PYTHON.format(clips=clips))
    (tmp_path / 'a.yaml').write_text(AS_YAML.format(clips=clips))
    process = run_fresh('-c', BUILT, tmp_path / 'a.py', tmp_path / 'a.yaml')
    assert process.stdout.splitlines() == [
        'basicsr_stvsr.archs.fstrn_arch FSTRN', 'basicsr_stvsr.losses.flow_loss PyramidWarpLoss',
        'basicsr_stvsr.openmmlab.clip_metrics ClipMetrics', 'basicsr_stvsr.data.clip_dataset STVSRTestDataset'
    ] * 2, process.stderr[-2000:]


def test_nothing_imports_mmengine_unless_asked():
    process = run('-c', 'import sys, basicsr_stvsr.cli.restore, basicsr_stvsr.test, basicsr_stvsr.train\n'
                        'assert "mmengine" not in sys.modules')
    assert process.returncode == 0, process.stderr


def test_without_mmengine_the_error_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmengine', None)
    with pytest.raises(ModuleNotFoundError, match='install it with `pip install mmengine`'):
        importlib.reload(registry)  # which gets no further than that


def test_whatever_is_registered_with_basicsr_is_found(monkeypatch):
    for ours in (ARCH_REGISTRY, LOSS_REGISTRY):
        for name, entry in ours:
            assert MODELS.get(f'basicsr_stvsr.{name}') is entry
    for name, _ in METRIC_REGISTRY:
        assert METRICS.get(f'basicsr_stvsr.{name}') is not None
    for name, _ in DATASET_REGISTRY:
        assert DATASETS.get(f'basicsr_stvsr.{name}') is not None

    class LateNet(nn.Module):
        """Registered after mmengine has looked."""

    monkeypatch.setattr(ARCH_REGISTRY, '_obj_map', dict(ARCH_REGISTRY._obj_map))
    ARCH_REGISTRY.register(LateNet)
    assert isinstance(MODELS.build({'type': 'LateNet'}), LateNet)


def test_a_data_set_of_a_config_is_that_of_the_options(clips):
    opt = {'scale': 4, 'dataroot_gt': str(clips), 'temporal_scale': 1, 'color': 'y', 'num_frame': 3}
    ours = DATASETS.build(Config({'data': {'type': 'STVSRTestDataset', **opt}}).data)
    expected = build_dataset({'type': 'STVSRTestDataset', 'name': 'a', **opt})
    assert ours.metainfo['color'] == 'y' and len(ours) == len(expected) == 2
    torch.testing.assert_close(ours[1]['lq'], expected[1]['lq'])


def test_scores_by_hand():
    """Luma without rounding: given frames are off by 0.1 (20 dB), the new one of the longer clip by 0.01 (40 dB).

    The ground truth of the other clip begins with its frame 1.
    """
    gt = torch.full((3, 1, 8, 8), 0.5)
    offsets, starts = [[0.1, 0.01, 0.1], [0.0, 0.1]], [0, 1]
    for average, expected in {'clips': (20, 30, (80 / 3 + 20) / 2), 'frames': (20, 30, 100 / 4)}.items():
        metric = METRICS.build({'type': 'calculate_float_psnr', 'average': average})
        metric.dataset_meta = {'color': 'y'}
        metric.process({'gt': [gt, gt[:1]], 'gt_start': starts}, [{'temporal_scale': 2, 'frames': [
            (number, gt[number] + offset) for number, offset in enumerate(clip)]} for clip in offsets])
        assert metric.evaluate(2) == pytest.approx(
            dict(zip(('float_psnr_vsr', 'float_psnr_vfi', 'float_psnr_all'), expected, strict=True)), rel=1e-5)


# ---------------------------------------------------------------- checkpoints

def test_a_training_is_resumed_exported_and_tested(clips, tmp_path):
    """Four steps, and two and two more: the same weights and average, in checkpoints and in files of BasicSR."""
    ema = {'type': 'EMAHook', 'ema_type': 'ExponentialMovingAverage', 'momentum': 0.25}

    def train(folder: str, steps: int, *, resume: bool = False) -> Runner:
        torch.manual_seed(0)
        runner = make_runner(small_config(CASES['FSTRN'], clips, tmp_path / folder, **{
            'custom_hooks': [ema], 'train_cfg': {'max_iters': steps, 'val_begin': steps},
            'default_hooks.checkpoint.interval': 2, 'resume': resume, 'randomness.seed': 1,
            'param_scheduler.warmup_iter': -1}))
        runner.train()
        return runner

    straight = train('straight', 4)
    train('stopped', 2)
    resumed = train('stopped', 4, resume=True)
    assert_close(weights_of(resumed.model), weights_of(straight.model), 1e-5)  # of steps of 0.1
    export_weights(tmp_path / 'stopped' / 'work' / 'iter_4.pth', tmp_path / 'exported.pth')
    exported = torch.load(tmp_path / 'exported.pth', weights_only=True)
    assert_close(exported['params'], resumed.model.net_g.state_dict(), 0)
    assert not all(torch.equal(value, exported['params'][name]) for name, value in exported['params_ema'].items())
    average, = (hook.ema_model.module for hook in resumed.hooks if hasattr(hook, 'ema_model'))
    assert_close(exported['params_ema'], average.net_g.state_dict(), 0)

    network = straight.cfg.model.network_g.to_dict()
    load_network(network, tmp_path / 'exported.pth')  # as `stvsr restore --weights` does
    scores = resumed.val_loop.run()
    config = small_config(CASES['FSTRN'], clips, tmp_path, custom_hooks=[ema])
    config.merge_from_dict({'load_from': str(tmp_path / 'stopped' / 'work' / 'iter_4.pth'), 'model.train': None})
    config.test_dataloader, config.test_evaluator = config.val_dataloader, config.val_evaluator
    assert make_runner(config).test() == pytest.approx(scores, rel=1e-6)  # of the average, both


class Intruder:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_of_a_checkpoint_only_the_log_is_read(tmp_path):
    torch.save({'state_dict': {}, 'message_hub': Intruder()}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='a.pth is a PyTorch file that is damaged, or holds more than tensors'):
        export_weights(tmp_path / 'a.pth', tmp_path / 'b.pth')
    torch.save({'state_dict': {'net_g.weight': torch.ones(100)}}, tmp_path / 'a.pth')
    data = (tmp_path / 'a.pth').read_bytes()
    for damaged in (data[:-50], data.replace(b'\x00\x00\x80\x3f', b'\x00\x00\x81\x3f', 1)):
        (tmp_path / 'a.pth').write_bytes(damaged)
        with pytest.raises(ValueError, match=r'a\.pth is (cut off|damaged)'):
            export_weights(tmp_path / 'a.pth', tmp_path / 'b.pth')
    torch.save({'params': {'weight': torch.zeros(1)}}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='a.pth is not a checkpoint .* weights of net_g, found params'):
        export_weights(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def test_the_commands(tmp_path):
    config = make_config(read_command([
        'test', str(OPTIONS / 'mmengine' / 'hoffr_small.py'), 'a.pth', '--cfg-options', 'model.val.overlap=last']))
    assert config.load_from == 'a.pth' and config.model.val.overlap == 'last'
    assert config.model.train is None and config.model.path is None and config.work_dir == 'work_dirs/hoffr_small'
    config = make_config(read_command(['train', str(OPTIONS / 'mmengine' / 'fstrn_small.py'), '--resume']))
    assert config.resume and config.model.train


# ---------------------------------------------------------------- what is refused

def recipe(**blocks: Any) -> dict[str, Any]:
    return {'type': 'RecipeModel', 'model_type': 'STVSRModel', 'scale': 4,
            'network_g': {'type': 'FSTRN', 'num_feat': 8, 'num_frb': 1}, 'train': {'pixel_opt': {'type': 'L1Loss'}},
            **blocks}


@pytest.mark.parametrize('blocks, message', [
    ({'model_type': 'STVSRModle'}, "model.model_type must be a model of this package, .* but is 'STVSRModle'"),
    ({'network_g': {'type': 'FSTRN', 'num_fat': 8}}, 'model.network_g.num_fat is not an option .* Did you mean num_fe'),
    ({'network_g': {'type': 'FSTRN', 'scale': 2}}, 'model.network_g.scale is 2, but scale is 4'),
    ({'train': {}}, 'model.train.pixel_opt is missing'),
    ({'train': {'pixel_opt': {'type': 'L1Loss'}, 'grad_clip': 1.0}},
     'model.train.grad_clip is not an option of the model; use optim_wrapper.clip_grad'),
    ({'val': {'metrics': {}}}, 'model.val.metrics is not an option of the model, which has overlap'),
])
def test_models_that_are_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(recipe(**blocks))


def test_steps_that_are_refused():
    model = MODELS.build(recipe(train=None))
    with pytest.raises(ValueError, match='model.train is missing: the losses to train on'):
        model(torch.rand(1, 5, 1, 8, 8), 'loss', gt=torch.rand(1, 5, 1, 32, 32))
    with pytest.raises(ValueError, match="mode must be 'tensor', 'loss' or 'predict', but is 'losses'"):
        model(torch.rand(1, 5, 1, 8, 8), 'losses')
    lq = torch.rand(1, 5, 1, 8, 8)
    torch.testing.assert_close(model.eval()(lq), model.net_g(lq))
    model = MODELS.build(recipe(
        model_type='AdaptiveGANModel', network_g={'type': 'VSRResNet', 'num_feat': 8, 'num_block': 1, 'scale': 4},
        network_d={'type': 'VSRResDiscriminator', 'num_feat': 8, 'patch_size': 32},
        train={'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 1.0}}))
    with pytest.raises(ValueError, match="needs optim_wrapper=dict.constructor='NetworkOptimWrapperConstructor'"):
        model.train_step({}, OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0)))


def test_parts_that_are_refused(clips):
    with pytest.raises(ValueError, match="SeededSampler needs dataset=dict.type='SeededDataset'.* data set is list"):
        DATA_SAMPLERS.build({'type': 'SeededSampler', 'dataset': []})
    with pytest.raises(ValueError, match=r'ClipMetrics.metrics.a.border is not an option'):
        METRICS.build({'type': 'ClipMetrics', 'frame_metrics': {'a': {'type': 'calculate_psnr', 'border': 1}}})
    with pytest.raises(ValueError, match=r'datasets.STVSRTestDataset.num_frames is not an option'):
        DATASETS.build({'type': 'STVSRTestDataset', 'scale': 4, 'dataroot_gt': str(clips), 'num_frames': 3})
    with pytest.raises(ValueError, match='optim_wrapper.net_a: Linear has no network of this name'):
        OPTIM_WRAPPER_CONSTRUCTORS.build({
            'type': 'NetworkOptimWrapperConstructor', 'optim_wrapper_cfg': {'net_a': {}}})(nn.Linear(1, 1))


# ---------------------------------------------------------------- learning rates

def rates(number: int, **schedule: Any) -> list[float]:
    """Those of so many iterations, relative to the first."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler, found = RecipeLR(optimizer, by_epoch=False, end=number, **schedule), []
    for _ in range(number):
        found.append(optimizer.param_groups[0]['lr'] / 2)
        optimizer.step()
        scheduler.step()
    return found


def test_rates_by_hand():
    steps = {'type': 'MultiStepLR', 'milestones': [3, 5], 'gamma': 0.5}
    assert rates(7, scheduler=steps) == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25])
    assert rates(7, scheduler=steps, warmup_iter=4) == pytest.approx([0.25, 0.5, 0.75, 1, 0.5, 0.25, 0.25])
    cosine = {'type': 'CosineAnnealingRestartLR', 'periods': [4]}
    half = 0.5 ** 0.5 / 2
    assert rates(4, scheduler=cosine) == pytest.approx([1, 0.5 + half, 0.5, 0.5 - half], abs=1e-9)


@pytest.mark.parametrize('arguments, message', [
    ({'by_epoch': True}, 'RecipeLR counts iterations; set by_epoch=False'),
    ({'by_epoch': False, 'scheduler': {'type': 'StepLR'}}, 'scheduler.type must be one of MultiStepLR, .*, but is .St'),
    ({'by_epoch': False, 'scheduler': {'type': 'MultiStepLR', 'milestones': [2, 1]}},
     r'param_scheduler.scheduler.milestones must be in ascending order, but is \[2, 1\]'),
    ({'by_epoch': False, 'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [4]}, 'end': 5},
     'param_scheduler.scheduler.periods add up to 4, but must reach train_cfg.max_iters 5'),
])
def test_schedules_that_are_refused(arguments, message):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=message):
        RecipeLR(optimizer, **{'scheduler': {'type': 'MultiStepLR', 'milestones': [1]}, **arguments})


# ---------------------------------------------------------------- multiplications and parameters

class OneConvolution(nn.Module):
    """Three frames in, the same twice as large."""

    spec = NetSpec(scale=2, num_frames=3, size_multiple=2)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, lq):
        return nn.functional.pixel_shuffle(self.conv(lq.flatten(0, 1)), 2).unflatten(0, lq.shape[:2])


def test_a_convolution_counted_by_hand():
    found = complexity(OneConvolution(), (8, 10))
    assert found.flops == found.flops_of_convolutions == 3 * 8 * 10 * 12 * 27
    assert found.parameters == 12 * 28 and found.frames == 3
    assert 'aten::pixel_shuffle' in found.uncounted
    with pytest.raises(ValueError, match='OneConvolution takes sides divisible by 2, but size is 8x9'):
        complexity(OneConvolution(), (8, 9))


@pytest.mark.parametrize('action, message', [
    (['train', '{config}'], 'error: .*nowhere'),
    (['test', '{config}', 'nope.pth'], 'error: .*nope.pth'),
])
def test_missing_files_are_told_in_a_line(clips, tmp_path, action, message, capsys):
    config = small_config(CASES['FSTRN'], clips, tmp_path)
    if action[0] == 'train':
        config.train_dataloader.dataset.dataset.dataroot_gt = 'nowhere'
    config.dump(tmp_path / 'config.py')
    with pytest.raises(SystemExit) as end:
        run_command([word.format(config=tmp_path / 'config.py') for word in action])
    assert end.value.code == 2 and re.search(message, capsys.readouterr().err)


def test_convolutions_count_as_in_stvsr_info():
    """By torch's counter and by mmengine's, which counts bilinear resizing as well."""
    net = build_network(dict(ZOO['fisr-small'].network))
    facts, found = facts_of_model(net, 'fisr-small', None), complexity(net)
    assert found.flops_of_convolutions == pytest.approx(1e9 * facts['gmacs'], rel=1e-9)
    assert found.parameters == facts['parameters']
    assert found.flops_of_convolutions < found.flops < 1.01 * found.flops_of_convolutions


@pytest.mark.parametrize('name', ZOO)
def test_the_zoo_tells_what_is_counted(name):
    found = complexity(build_network(dict(ZOO[name].network)))
    assert (ZOO[name].parameters, ZOO[name].gflops) == (found.parameters, round(found.flops / 1e9, 3))


def test_what_is_published_is_counted(tmp_path):
    network = {'type': 'FSTRN', 'num_feat': 8, 'num_frb': 1}
    torch.save(build_network(dict(network)).state_dict(), tmp_path / 'net.pth')
    (tmp_path / 'net.yml').write_text(f'network_g: {network}')
    done = publish(tmp_path / 'net.pth', name='Tiny_clips_x4', opt=tmp_path / 'net.yml', into=tmp_path)
    # Rounded to 0.001, and resizing is in it
    assert done.entry.gflops == pytest.approx(facts_of_model(build_network(dict(network)), 'tiny', None)['gmacs'],
                                              abs=1e-3)
    assert f'| GFLOPs | {done.entry.gflops:.3f} ' in done.card.read_text()


@pytest.mark.slow
def test_the_table_of_the_page_is_what_is_counted():
    assert zoo_table() in (ROOT / 'docs' / 'openmmlab.md').read_text()
