"""Weights that are damaged or made to do harm: refused in one line, before they take memory or give wrong frames."""
import pickle
import re
import resource
import zipfile

import pytest
import torch
from torch import nn

from basicsr_stvsr.archs.archive import digest_of
from basicsr_stvsr.archs.weight_files import load_file, load_weights, read_state_dict
from basicsr_stvsr.zoo.publish import to_safetensors


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def with_weight(value: torch.Tensor) -> dict:
    return {'params': {**small_net().state_dict(), '0.weight': value}}


def load(path) -> nn.Module:
    net = small_net()
    load_weights(net, read_state_dict(path, what='Net'), path=path, what='Net')
    return net


WEIGHT = torch.rand(4, 3, 3, 3)
ONE_NAN = WEIGHT.clone().index_put_((torch.tensor(1), torch.tensor(0)), torch.tensor(float('nan')))


@pytest.mark.parametrize('value, message', [
    (ONE_NAN, r'diverged: 9 of 108 values of 0\.weight are not finite'),
    (WEIGHT / 0, r'108 of 108 values of 0\.weight are not finite'),
    (WEIGHT.double() + 1e300, r'108 of 108 values of 0\.weight are not finite'),  # infinite in the network's float32
    (WEIGHT.to(torch.complex64), r'1 of another type \(first: 0\.weight complex64, expected float32\)'),
    (WEIGHT > 0.5, r'0\.weight bool, expected float32'),
    (WEIGHT.to(torch.int8), r'0\.weight int8, expected float32'),
    (WEIGHT.to(torch.float8_e4m3fn), r'0\.weight float8_e4m3fn, expected float32'),
    (WEIGHT.to_sparse(), r'0\.weight is a tensor of the layout sparse_coo, but weights are dense'),
    (torch.eye(4).to_sparse_csr(), r'0\.weight is a tensor of the layout sparse_csr'),
    (torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8), r'0\.weight is a quantised tensor'),
    (WEIGHT.to('meta'), r'0\.weight is on the device meta, which holds no numbers'),
    (torch.nested.nested_tensor([torch.rand(2), torch.rand(3)]), r'0\.weight is a nested tensor'),
    (torch.zeros(1).expand(10**9, 10**6), r'1 of another shape'),  # 4 bytes in the file
], ids=lambda value: value[:30] if isinstance(value, str) else '')
@pytest.mark.filterwarnings('ignore')
def test_values_that_are_no_weights(tmp_path, value, message):
    torch.save(with_weight(value), tmp_path / 'net.pth')
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path / 'net.pth')
    assert '\n' not in str(error.value) and 'net.pth' in str(error.value)


def with_key(path, key, *, old: bool):
    """A checkpoint with a key that is never hashed while it is written."""
    torch.save({'params': {'KEY': torch.rand(2)}}, path, _use_new_zipfile_serialization=not old)
    text = pickle.dumps('KEY', 2)[2:-1].replace(b'q\x00', b'')
    made = pickle.dumps(key, 2)[2:-1]
    # The memo of the key must not overwrite that of what is outside
    made = re.sub(b'([qh])(.)', lambda found: found[1] + bytes([found[2][0] + 100]), made, flags=re.DOTALL)
    if old:
        path.write_bytes(path.read_bytes().replace(text, made))
        return
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in entries.items():
            archive.writestr(name, data.replace(text, made) if name.endswith('data.pkl') else data)


@pytest.mark.parametrize('old', [False, True])
def test_keys_that_take_forever_to_hash(tmp_path, old):
    key = ('a',)
    for _ in range(40):
        key = (key, key)
    with_key(tmp_path / 'net.pth', key, old=old)
    with pytest.raises(ValueError, match=r'net\.pth has a tuple of more than 10,000 values, or that repeats its parts'):
        load(tmp_path / 'net.pth')


@pytest.mark.parametrize('old', [False, True])
def test_the_key_of_that_test_is_read(tmp_path, old):
    with_key(tmp_path / 'net.pth', (('a', 'b'), ('c',)), old=old)
    assert list(load_file(tmp_path / 'net.pth', 'weights')['params']) == [(('a', 'b'), ('c',))]


def test_a_counter_takes_integers_only(tmp_path):
    state = small_net().state_dict()
    torch.save({'params': {**state, '1.num_batches_tracked': torch.tensor(0.5)}}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='1.num_batches_tracked float32, expected int64'):
        load(tmp_path / 'net.pth')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_load(tmp_path, dtype):
    torch.save(with_weight(WEIGHT.to(dtype)), tmp_path / 'net.pth')
    assert torch.equal(load(tmp_path / 'net.pth')[0].weight, WEIGHT.to(dtype).float())


def test_flipped_bits_never_load_other_values(tmp_path):
    """torch.load itself loads half of such files."""
    path = tmp_path / 'net.pth'
    torch.save({'params': small_net().state_dict()}, path)
    data, whole = path.read_bytes(), load(path).state_dict()
    outcomes = set()
    for place in range(0, 8 * len(data), 331):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            read = load(path).state_dict()
            assert all(torch.equal(read[name], whole[name]) for name in whole)  # a bit that stands for nothing
        except ValueError as error:
            outcomes.add(re.sub('.*net.pth (?:holds |is )?', '', str(error))[:20])
    assert any('damaged' in outcome for outcome in outcomes), outcomes


def test_a_file_written_without_checksums(tmp_path, log):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'params': small_net().state_dict()}, tmp_path / 'net.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    load(tmp_path / 'net.pth')
    assert log.messages == [f'{tmp_path / "net.pth"} has no checksum, so damaged values in it would go unnoticed']


def test_a_small_file_that_unpacks_to_much(tmp_path):
    torch.save({'params': {'w': torch.zeros(10**7)}}, tmp_path / 'whole.pth')
    with zipfile.ZipFile(tmp_path / 'whole.pth') as whole, zipfile.ZipFile(
            tmp_path / 'net.pth', 'w', zipfile.ZIP_DEFLATED) as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r'pth unpacks to 40,\d{3},\d{3} bytes, but has only \d\d,\d{3}: .*expected'):
        load_file(tmp_path / 'net.pth', 'the weights of Net')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB


@pytest.mark.parametrize('key', ['\x1b[31mred', 'n' * 10_000, ('a', 'b'), 1])
def test_names_are_shown_in_short_and_without_escape_sequences(tmp_path, key):
    torch.save({key: {'w': torch.zeros(1)}}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='holds no tensors by name, but a block of') as error:
        read_state_dict(tmp_path / 'net.pth', what='Net')
    assert str(error.value).isprintable() and len(str(error.value)) < 300 + len(str(tmp_path))
    torch.save({'params': {'w': torch.zeros(1), '\x1b[31m' + 'n' * 999: torch.zeros(1)}}, tmp_path / 'net.pth')
    with pytest.raises(ValueError, match='unknown') as error:
        load(tmp_path / 'net.pth')
    assert str(error.value).isprintable() and len(str(error.value)) < 600 + len(str(tmp_path))


# ---------------------------------------------------------------- safetensors

def test_published_safetensors_carry_a_checksum(tmp_path, log):
    state = small_net().state_dict()
    data = to_safetensors({'params': state})
    path = tmp_path / 'net.safetensors'
    path.write_bytes(data)
    assert torch.equal(load(path)[0].weight, state['0.weight']) and not log.messages
    damaged = bytearray(data)
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='net.safetensors is damaged: its tensors differ from its checksum'):
        load(path)


def test_the_checksum_covers_names_types_and_shapes():
    value = torch.arange(6.0)
    others = {'a': value.view(2, 3)}, {'b': value}, {'a': value.view(torch.int32)}, {'a': value, 'b': value}
    assert len({digest_of(state) for state in ({'a': value}, *others)}) == 5
    assert digest_of({'a': value, 'b': value}) == digest_of({'b': value, 'a': value})
    assert digest_of({'a': torch.tensor(1, dtype=torch.bfloat16)})  # numpy lacks the type
