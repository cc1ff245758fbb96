"""Altered training states: each is refused in one line that names the value."""
from copy import deepcopy

import pytest
import torch
from conftest import ROOT

from basicsr_stvsr.training.saved_state import SavedState

NAN = float('nan')


@pytest.fixture(scope='module')
def whole() -> dict:
    return torch.load(ROOT / 'tests' / 'v0_1' / '2.state', weights_only=True)


def test_a_whole_state(whole):
    assert SavedState.read(whole).iter == 2


def test_a_state_of_basicsr(whole):
    SavedState.read({key: whole[key] for key in ('epoch', 'iter', 'optimizers', 'schedulers')})


GROUP = 'optimizers', 0, 'param_groups', 0
MOMENTS = 'optimizers', 0, 'state', 0


@pytest.mark.parametrize('keys, value, message', [
    (('networks',), None, 'networks must be a block, but is ~'),
    (('networks', 'net_g'), 3, 'networks.net_g must be text, but is 3'),
    (('networks', 'net_g'), 'abc', 'networks.net_g '),
    (('iter',), torch.tensor(3), 'iter must be a whole number'),
    (('iter',), 10**30, 'iter must be <= 1e+12'),
    (('epoch',), True, 'epoch must be a whole number, but is true'),
    (('seed',), 'x', "seed must be a whole number, but is 'x'"),
    (('samples',), None, 'samples must be a whole number, but is ~'),
    (('samples',), -1, 'samples must be >= 0'),
    (('skipped',), [1], 'skipped must be a list of at least 2'),
    (('optimizers',), [], 'optimizers must be a list of at least 1'),
    (('optimizers',), {}, 'optimizers must be a list, but is {}'),
    ((*GROUP, 'lr'), 'x', "optimizers[0].param_groups[0].lr must be a finite number, but is 'x'"),
    ((*GROUP, 'lr'), NAN, 'optimizers[0].param_groups[0].lr must be a finite number, but is nan'),
    ((*GROUP, 'params'), ['a'], 'optimizers[0].param_groups[0].params[0] must be a whole number'),
    ((*MOMENTS, 'exp_avg'), torch.tensor([NAN]), 'optimizers[0].state[0] has a tensor exp_avg that is not finite'),
    ((*MOMENTS, 'exp_avg'), torch.zeros(1).expand(10**12), 'optimizers[0].state[0] has a tensor exp_avg that is not'),
    ((*MOMENTS, 'exp_avg'), torch.eye(2).to_sparse(), 'optimizers[0].state[0] has a tensor exp_avg that holds no fl'),
    ((*MOMENTS, 'step'), 'x', "optimizers[0].state[0] must be a finite number, but is 'x'"),
    (('optimizers', 0, 'state', 'a'), {}, 'optimizers[0].state.a must be a whole number'),
    (('schedulers',), None, 'schedulers must be a list, but is ~'),
    (('schedulers', 0, 'last_epoch'), -10**9, 'schedulers[0].last_epoch must be >= 0'),
    (('schedulers', 0, 'base_lrs'), [NAN], 'schedulers[0].base_lrs[0] must be a finite number'),
    (('scaler',), {'scale': 0.0}, 'scaler.scale must be > 0'),
    (('rng', 0), 3, 'rng[0] must be a block'),
    (('rng', 0, 'python'), (3, (1, 2), None), 'rng[0] is no state of the random generators (ValueError)'),
    (('rng', 0, 'torch'), torch.zeros(3), 'rng[0] is no state of the random generators'),
    (('rng', 0, 'numpy'), None, 'rng[0] is no state of the random generators'),
    (('best_metric_results',), {'set': {'psnr': {'better': 'more', 'val': 1.0, 'iter': 2}}},
     'best_metric_results.set.psnr.better must be one of higher, lower'),
])
def test_altered_states(whole, keys, value, message):
    state = deepcopy(whole)
    *path, last = keys
    block = state
    for key in path:
        block = block[key]
    block[last] = value
    with pytest.raises(ValueError) as error:
        SavedState.read(state)
    assert str(error.value).startswith(message) and '\n' not in str(error.value)
