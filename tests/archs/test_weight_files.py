"""Weights in files of other layouts, and of another format."""
import json
import struct
import sys

import pytest
import torch

from basicsr_stvsr.archs.weight_files import check_hash, read_params, read_state_dict, sha256_of
from basicsr_stvsr.zoo.table import load_network

WEIGHTS = {'w': torch.arange(6.0).view(2, 3), 'n': torch.tensor(7)}
WRAPPED = {f'module.{name}': tensor for name, tensor in WEIGHTS.items()}


def is_weights(state: dict) -> bool:
    return state.keys() == WEIGHTS.keys() and all(torch.equal(state[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize('content, line', [
    ({'params': WEIGHTS}, None),
    ({'params_ema': WEIGHTS, 'params': {'w': torch.zeros(1)}}, None),
    (WEIGHTS, 'took all of the file for weights, as it has no block of them'),
    ({'state_dict': WEIGHTS, 'epoch': 3}, 'took the weights from its block state_dict'),
    ({'params': WRAPPED}, "left out 'module.' before 2 of 2 names"),
    ({'state_dict': WRAPPED, 'optimizer': {'lr': 0.1}},
     "took the weights from its block state_dict, and left out 'module.' before 2 of 2 names"),
])
def test_layouts(tmp_path, log, content, line):
    path = tmp_path / 'net.pth'
    torch.save(content, path)
    assert is_weights(read_state_dict(path, what='Net'))
    assert log.messages == ([f'{path} is no checkpoint of BasicSR: {line}'] if line else [])


def test_the_format_of_old_torch(tmp_path, log):
    """A bare pickle, as torch before 1.6 wrote it. It has no checksum."""
    torch.save({'params': WEIGHTS}, tmp_path / 'net.pth', _use_new_zipfile_serialization=False)
    assert is_weights(read_state_dict(tmp_path / 'net.pth', what='Net'))
    assert log.messages == [f'{tmp_path / "net.pth"} has no checksum, so damaged values in it would go unnoticed']


def test_layouts_are_found_whatever_is_asked_for(tmp_path, log):
    """As option files ask for `params`; and of weights alone, which are asked for, nothing is said."""
    path = tmp_path / 'net.pth'
    torch.save({'state_dict': WEIGHTS}, path)
    assert is_weights(read_state_dict(path, what='Net', keys=('params',)))
    torch.save(WEIGHTS, path)
    log.clear()
    assert is_weights(read_state_dict(path, what='Net', keys=()))
    assert not log.messages


def test_files_that_others_published_need_no_line(tmp_path, log):
    torch.save({'state_dict': WRAPPED}, tmp_path / 'net.pth')
    assert is_weights(read_state_dict(tmp_path / 'net.pth', what='Net', published='net.pth on GitHub'))
    assert not log.messages


def test_names_must_be_text(tmp_path):
    torch.save({0: torch.ones(1)}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='net.pth holds no tensors by name, but a block of 0; expected the weights of'):
        read_state_dict(tmp_path / 'net.pth', what='Net')


@pytest.mark.parametrize('content, keys', [
    ({'params': WRAPPED, 'params_ema': WEIGHTS, 'iter': 3}, ['params', 'params_ema']),
    ({'params_ema': WEIGHTS}, ['params_ema']),
    ({'state_dict': WRAPPED}, ['params']),
    (WEIGHTS, ['params']),
])
def test_all_weights_of_a_checkpoint(tmp_path, content, keys):
    torch.save(content, tmp_path / 'net.pth')
    blocks = read_params(tmp_path / 'net.pth', what='Net')
    assert list(blocks) == keys and all(map(is_weights, blocks.values()))


# ---------------------------------------------------------------- safetensors

def write_by_hand(path, name: str = 'w') -> None:
    """By the description of the format: length of the header, the header, then the numbers."""
    header = json.dumps({name: {'dtype': 'F32', 'shape': [2, 1], 'data_offsets': [0, 8]}}).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header + struct.pack('<2f', 1.5, -2.0))


def test_safetensors(tmp_path, log):
    path = tmp_path / 'net.safetensors'
    write_by_hand(path, 'module.w')
    state = read_state_dict(path, what='Net')
    assert state['w'].tolist() == [[1.5], [-2.0]] and list(state) == ['w']
    unchecked = f'{path} has no checksum, so damaged values in it would go unnoticed'
    assert log.messages == [
        unchecked, f"{path} is no checkpoint of BasicSR: left out 'module.' before 1 of 1 names"]
    log.clear()
    write_by_hand(path)
    assert read_params(path, what='Net')['params']['w'].tolist() == [[1.5], [-2.0]]
    assert log.messages == [unchecked]


@pytest.mark.parametrize('damage', [lambda data: data[:-1], lambda data: b'PK' + data[2:], lambda data: b''])
def test_damaged_safetensors(tmp_path, damage):
    path = tmp_path / 'net.safetensors'
    write_by_hand(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r'net.safetensors is no safetensors file, or is damaged \(.*\); expected the'):
        read_state_dict(path, what='Net')


def test_safetensors_may_be_missing(tmp_path, monkeypatch):
    write_by_hand(tmp_path / 'net.safetensors')
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(ValueError, match='not installed: pip install .*safetensors'):
        read_state_dict(tmp_path / 'net.safetensors', what='Net')


def test_the_hash_in_the_name_of_safetensors(tmp_path):
    path = tmp_path / 'Net_set_x4-00000000.safetensors'
    write_by_hand(path)
    with pytest.raises(ValueError, match='is damaged or was changed'):
        check_hash(path)
    check_hash(path.rename(path.with_name(f'Net_set_x4-{sha256_of(path)[:8]}.safetensors')))


def test_weights_of_an_option_file_are_compared_with_their_name(tmp_path):
    torch.save({'params': {}}, tmp_path / 'Net_set_x4-00000000.pth')
    with pytest.raises(ValueError, match='is damaged or was changed'):
        load_network({'type': 'VSRResNet', 'num_feat': 4}, tmp_path / 'Net_set_x4-00000000.pth')
