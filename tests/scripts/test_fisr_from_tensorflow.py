"""The weights of FISR's authors: the files of TensorFlow that hold them, and the script that converts them.

The bundles are written here, by a writer that shares nothing with the reader, except one that TensorFlow wrote.
"""
import base64
import io
import re
import runpy
import shutil
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
from conftest import ROOT, SHARED
from fisr_weights import from_tensorflow
from tensorflow_bundle import TensorFlowBundle
from torch import nn

from basicsr_stvsr.archs import fisr_arch
from basicsr_stvsr.archs.fisr_arch import FISRNet
from basicsr_stvsr.archs.weight_files import read_state_dict

# Of tensorflow/core/framework/types.proto
TYPES = {np.float32: 1, np.int64: 9, np.float16: 19}
RNG = np.random.default_rng(0)


# ---------------------------------------------------------------- a writer of bundles

def varint(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


def number_field(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b''  # Protobuf leaves zeros out


def bytes_field(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff)


def block(entries: Sequence[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    content, restarts, before = b'', [], b''
    for i, (key, value) in enumerate(entries):
        if i % restart_interval == 0:
            restarts.append(len(content))
            before = b''
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return content + struct.pack(f'<{len(restarts) + 1}I', *restarts, len(restarts))


def write_table(entries: Mapping[bytes, bytes], *, block_entries: int, restart_interval: int,
                compression: int = 0) -> bytes:
    table = b''

    def add(content: bytes) -> bytes:
        nonlocal table
        handle = varint(len(table)) + varint(len(content))
        typed = content + bytes([compression])
        table += typed + masked(typed)
        return handle

    ordered = sorted(entries.items())
    handles = []
    for start in range(0, len(ordered), block_entries):
        part = ordered[start:start + block_entries]
        handles.append((part[-1][0] + b'~', add(block(part, restart_interval))))
    footer = add(block([], 1)) + add(block(handles, 1))
    return table + footer.ljust(40, b'\0') + struct.pack('<Q', 0xdb4775248b80fb57)


def write_bundle(prefix: Path, *shards: Mapping[str, np.ndarray], block_entries: int = 3, restart_interval: int = 2,
                 endianness: int = 0, compression: int = 0) -> None:
    version = bytes_field(3, number_field(1, 1))
    entries = {b'': number_field(1, len(shards)) + number_field(2, endianness) + version}
    for shard, variables in enumerate(shards):
        with open(f'{prefix}.data-{shard:05d}-of-{len(shards):05d}', 'wb') as file:
            for name, value in variables.items():
                data = value.tobytes()
                shape = b''.join(bytes_field(2, number_field(1, size)) for size in value.shape)
                entries[name.encode()] = b''.join((
                    number_field(1, TYPES[value.dtype.type]), bytes_field(2, shape), number_field(3, shard),
                    number_field(4, file.tell()), number_field(5, len(data)), varint(6 << 3 | 5), masked(data)))
                file.write(data)
    Path(f'{prefix}.index').write_bytes(write_table(
        entries, block_entries=block_entries, restart_interval=restart_interval, compression=compression))


def noise(*shape: int) -> np.ndarray:  # never twice the same
    return RNG.standard_normal(shape, dtype=np.float32)


# ---------------------------------------------------------------- the reader

SMALL = {
    'FISRnet/level_1/SR/conv/0/w': noise(3, 3, 2, 4),
    'FISRnet/level_1/SR/conv/0/w/Adam': noise(3, 3, 2, 5),
    'FISRnet/level_1/SR/conv/0/w/Adam_1': noise(3, 3, 2, 6),
    'FISRnet/level_1/SR/conv/0/b': noise(4),
    'FISRnet/level_1/SR/conv/1/b': noise(300),  # sizes and places of more than seven bits
    'FISRnet/level_2/SR/conv/0/b': noise(5),
    'beta1_power': np.full((), 0.5, np.float32),
    'nothing': noise(0, 3),
}


def assert_holds(bundle: TensorFlowBundle, variables: Mapping[str, np.ndarray]) -> None:
    assert list(bundle) == sorted(variables) and len(bundle) == len(variables)
    for name, value in variables.items():
        assert bundle[name].shape == value.shape and bundle[name].dtype == np.float32
        np.testing.assert_array_equal(bundle[name], value, err_msg=name)


@pytest.fixture
def small(tmp_path) -> Path:
    write_bundle(tmp_path / 'model-7', SMALL)
    return tmp_path / 'model-7'


@pytest.fixture
def index(small) -> Path:
    return small.with_name('model-7.index')


@pytest.fixture
def data(small) -> Path:
    return small.with_name('model-7.data-00000-of-00001')


def test_checksums_of_the_writer():
    """The check value of CRC-32C, and the examples of RFC 3720, B.4."""
    assert google_crc32c.value(b'123456789') == 0xe3069283
    assert google_crc32c.value(bytes(32)) == 0x8a9136aa
    assert google_crc32c.value(b'\xff' * 32) == 0x62a8ab43
    assert google_crc32c.value(bytes(range(32))) == 0x46dd794e
    assert google_crc32c.value(bytes(range(31, -1, -1))) == 0x113fdb5c


def test_a_bundle_that_tensorflow_wrote(tmp_path):
    """By TensorFlow 2.21, `tf.compat.v1.train.Saver(sharded=True)` with two devices; deflated for this place only."""
    (tmp_path / 'tf.index').write_bytes(zlib.decompress(base64.b64decode(
        'eNpjYGDjYJZi4mBkEBBmKEgsKinWL2dgZGRqaGpo5GAU4hBi4mACYkYNDlNN5hnsPCyiTWgyChxQOQYJQTfP4KC81BL9nNSy1Jx4Q/3k/Lwy'
        'fQP9JKB6FqBaZgkmDR7TjQeVZ4ozSpYDBXlABkANYpZg1JAw5Xp3tpmBmz8ptSTRML4gvzy1CKiAQYJRQUKDxfTmXIPJDGzCGYk5afrlHMJg'
        'M5mAcjJAOdMPAW4M7EpQL0AdCFLAaMXBxSTABMSMVlxcLBxQNgMLf3FJagEHJ9B0JgUeoB8kHUP3MQABI4hIFku8DOcc+LRwAwMjcwnDdCa4'
        'mNrumhdzmDhWMvEzEAThvxu6VUrdbwMA7GQ8XA==')))
    for shard, values in enumerate((
            '00' * 16,
            '000000000000003e0000803e0000c03e0000003f0000203f0000403f003c003c',
            '0000c0bf000000000000004090dc010000000000')):
        (tmp_path / f'tf.data-0000{shard}-of-00003').write_bytes(bytes.fromhex(values))
    bundle = TensorFlowBundle(tmp_path / 'tf')
    assert list(bundle) == ['FISRnet/level_1/conv/0/b', 'FISRnet/level_1/conv/0/w', 'beta1_power', 'half/w', 'parts/w',
                            'step']
    assert bundle['FISRnet/level_1/conv/0/b'].tolist() == [-1.5, 0, 2]
    assert bundle['FISRnet/level_1/conv/0/w'].tolist() == [[[0, 0.125, 0.25], [0.375, 0.5, 0.625]]]
    assert bundle['beta1_power'].shape == () and bundle['beta1_power'] == 0.75
    with pytest.raises(ValueError, match="tf.index: step is of TensorFlow's type 9, expected float32 \\(1\\)$"):
        bundle['step']
    with pytest.raises(ValueError, match="tf.index: half/w is of TensorFlow's type 19, expected float32 "):
        bundle['half/w']
    with pytest.raises(ValueError, match='tf.index: parts/w was saved in parts, expected a whole variable$'):
        bundle['parts/w']
    with pytest.raises(KeyError):
        bundle['other']


@pytest.mark.parametrize('restart_interval', [1, 2, 16])
@pytest.mark.parametrize('block_entries', [1, 3, 100])
def test_tables_of_every_build(tmp_path, block_entries, restart_interval):
    write_bundle(tmp_path / 'x', SMALL, block_entries=block_entries, restart_interval=restart_interval)
    assert_holds(TensorFlowBundle(tmp_path / 'x'), SMALL)


@pytest.mark.parametrize('ending', ['', '.index', '.meta', '.data-00001-of-00003'])
def test_any_file_of_a_bundle_may_be_given(tmp_path, ending):
    items = list(SMALL.items())
    write_bundle(tmp_path / 'x.meta', dict(items[:2]), dict(items[2:5]), dict(items[5:]))
    assert_holds(TensorFlowBundle(f'{tmp_path / "x.meta"}{ending}'), SMALL)


def test_every_damaged_byte_of_the_index_is_noticed(small, index):
    """Or does no harm: nobody reads what fills the footer up, nor the empty block about the table."""
    whole = index.read_bytes()
    harmless = 0
    for i in range(len(whole)):
        index.write_bytes(whole[:i] + bytes([whole[i] ^ 0x11]) + whole[i + 1:])
        try:
            bundle = TensorFlowBundle(small)
        except ValueError as error:
            assert str(error).startswith(f'{index}: ') and '\n' not in str(error)
        else:
            assert_holds(bundle, SMALL)
            harmless += 1
    assert harmless < 60 < 400 < len(whole)
    index.write_bytes(whole[:40] + b'?' + whole[41:])
    with pytest.raises(ValueError, match='model-7.index: the checksum of the block at byte 0 is wrong$'):
        TensorFlowBundle(small)


def test_an_index_that_is_cut_off(small, index):
    whole = index.read_bytes()
    for length in range(0, len(whole), 5):
        index.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f'model-7.index: not an index .* truncated: its {length} bytes end in '):
            TensorFlowBundle(small)
    index.write_bytes(whole[100:])  # the other end
    with pytest.raises(ValueError, match=r'model-7.index: the block at byte \d+ should end at byte \d+ of \d+$'):
        TensorFlowBundle(small)


def test_what_is_no_index(small, index):
    index.write_bytes(b'<html>' * 20)
    ends = f"its 120 bytes end in {b'l><html>'.hex()}, expected 57fb808b247547db$"
    with pytest.raises(ValueError, match=f'model-7.index: not an index of a TensorFlow checkpoint, .*: {ends}'):
        TensorFlowBundle(small)
    index.unlink()
    with pytest.raises(FileNotFoundError, match='model-7.index does not exist; expected a checkpoint of TensorFlow, '):
        TensorFlowBundle(small)


def test_builds_that_are_refused(tmp_path):
    write_bundle(tmp_path / 'x', SMALL, compression=1)
    with pytest.raises(ValueError, match=r'x.index: the block at byte \d+ is compressed \(snappy\), which TensorFlow'):
        TensorFlowBundle(tmp_path / 'x')
    write_bundle(tmp_path / 'x', SMALL, endianness=1)
    with pytest.raises(ValueError, match='x.index: the values are big-endian, expected little-endian'):
        TensorFlowBundle(tmp_path / 'x')
    (tmp_path / 'x.index').write_bytes(write_table({b'FISRnet/w': b''}, block_entries=1, restart_interval=1))
    with pytest.raises(ValueError, match='x.index: it has no entry about the checkpoint as a whole'):
        TensorFlowBundle(tmp_path / 'x')
    (tmp_path / 'x.index').write_bytes(write_table({b'': b'\x08'}, block_entries=1, restart_interval=1))
    with pytest.raises(ValueError, match='x.index: expected 1 bytes, but only 0 are left'):
        TensorFlowBundle(tmp_path / 'x')


def test_damaged_data_are_noticed(small, data):
    start = sum(SMALL[name].nbytes for name in list(SMALL)[:4])  # of the fifth
    content = bytearray(data.read_bytes())
    content[start + 7] ^= 1
    data.write_bytes(content)
    bundle = TensorFlowBundle(small)
    name = 'FISRnet/level_1/SR/conv/1/b'
    with pytest.raises(ValueError, match=rf'00001 is damaged: the checksum of {name}, bytes [\d,]+ to [\d,]+, is wr'):
        bundle[name]
    assert all((bundle[other] == SMALL[other]).all() for other in SMALL if other != name)


def test_data_that_are_cut_off(small, data):
    size = data.stat().st_size
    with open(data, 'r+b') as file:
        file.truncate(size - 5)
    with pytest.raises(ValueError, match=f'00001 is truncated: beta1_power should end .* {size:,} of {size - 5:,}$'):
        TensorFlowBundle(small)['beta1_power']


def test_a_shard_that_is_missing(tmp_path):
    items = list(SMALL.items())
    write_bundle(tmp_path / 'x', dict(items[:4]), dict(items[4:]))
    (tmp_path / 'x.data-00001-of-00002').unlink()
    bundle = TensorFlowBundle(tmp_path / 'x')
    assert (bundle[items[0][0]] == items[0][1]).all()
    with pytest.raises(FileNotFoundError, match='x.data-00001-of-00002 does not exist, but .*x.index says .* nothing$'):
        bundle['nothing']


def test_without_the_library_of_checksums(small, monkeypatch):
    monkeypatch.setitem(sys.modules, 'google_crc32c', None)
    with pytest.raises(ImportError, match='google-crc32c is missing, .* with `pip install google-crc32c`'):
        TensorFlowBundle(small)


# ---------------------------------------------------------------- from TensorFlow's weights to ours

def convolutions(width: int) -> Iterator[tuple[str, int, int]]:
    """Names, input and output channels of the authors' graph."""
    def with_blocks(scope: str, before: int, after: int, num_blocks: int) -> Iterator[tuple[str, int, int]]:
        yield f'{scope}/conv/0', before, after
        for i in range(2 * num_blocks):
            yield f'{scope}/res_block/{i // 2}/conv/{i % 2}', after, after

    for level, channels in enumerate((29, 38, 38), start=1):
        scope = f'FISRnet/level_{level}'
        for size in range(3):
            yield from with_blocks(f'{scope}/enc/level_{size}', channels if size == 0 else width << size - 1,
                                   width << size, 2)
        yield from with_blocks(f'{scope}/bottleneck', 4 * width, 8 * width, 1)
        for size in (2, 1, 0):
            yield f'{scope}/dec/level_{size}/resize', width << size + 1, width << size
            yield from with_blocks(f'{scope}/dec/level_{size}', width << size + 1, width << size, 2)
        for head, channels in (('FI-SR', 6), ('SR', 3)):
            yield from with_blocks(f'{scope}/{head}', width, width, 1)
            yield f'{scope}/{head}/conv/1', width, 4 * width
            yield f'{scope}/{head}/conv/2', width, channels


def fisr_variables(width: int) -> dict[str, np.ndarray]:
    variables = {}
    for name, before, after in convolutions(width):
        variables |= {f'{name}/w': noise(3, 3, before, after), f'{name}/b': noise(after)}
    return variables


def test_names_and_shapes_are_the_authors():
    path = SHARED / 'refs' / 'fisr_tf_variables.txt'
    if not path.is_file():
        pytest.skip(f'no reference: {path} does not exist')
    ours = [line for name, before, after in convolutions(64)
            for line in (f'{name}/w [3, 3, {before}, {after}]', f'{name}/b [{after}]')]
    assert sorted(ours) == sorted(path.read_text().splitlines()) and len(ours) == 276


def test_order_of_the_dimensions():
    """By what the layers do: a kernel on a picture, and depth_to_space on channels, as TensorFlow documents them."""
    variables = fisr_variables(2)
    state = from_tensorflow(variables, FISRNet(num_feat=2))
    kernel, bias = (variables[f'FISRnet/level_2/enc/level_0/conv/0/{kind}'] for kind in 'wb')
    picture = noise(3, 3, 38)
    seen = nn.functional.conv2d(torch.from_numpy(picture).movedim(-1, 0)[None], state['levels.1.encoder.0.0.weight'],
                                state['levels.1.encoder.0.0.bias'])
    torch.testing.assert_close(seen.flatten(), torch.from_numpy(np.einsum('hwi,hwio->o', picture, kernel) + bias))

    theirs = variables['FISRnet/level_3/SR/conv/1/b'].reshape(2, 2, 2)  # row, column, channel
    shuffled = nn.functional.pixel_shuffle(state['levels.2.sr.3.bias'].view(1, 8, 1, 1), 2)
    np.testing.assert_array_equal(shuffled[0].movedim(0, -1), theirs)
    one_input = variables['FISRnet/level_3/SR/conv/1/w'][0, 2, 1].reshape(2, 2, 2)
    shuffled = nn.functional.pixel_shuffle(state['levels.2.sr.3.weight'][:, 1, 0, 2].view(1, 8, 1, 1), 2)
    np.testing.assert_array_equal(shuffled[0].movedim(0, -1), one_input)


def test_weights_that_do_not_fit_are_listed():
    variables = fisr_variables(2)
    with torch.device('meta'):
        net = FISRNet(num_feat=2)
    from_tensorflow({**variables, 'Other/w': noise(2), 'FISRnet/level_1/SR/conv/0/w/Adam': noise(1)}, net)

    changed = {name: value for name, value in variables.items() if 'level_2/SR' not in name}
    changed |= {'FISRnet/level_4/SR/w': noise(1), 'FISRnet/level_1/SR/conv/2/b': noise(6),
                'FISRnet/level_3/SR/conv/0/b': noise(2).astype(np.float64)}
    with pytest.raises(ValueError) as caught:
        from_tensorflow(changed, net)
    first, missing, unknown, misfit = str(caught.value).splitlines()
    assert first == 'these are not the 276 weights of FISR'
    assert missing.startswith('  10 missing: FISRnet/level_2/SR/conv/0/w, FISRnet/level_2/SR/conv/0/b, ')
    assert missing.endswith(', and 5 more') and missing.count('FISRnet/') == 5
    assert unknown == '  1 unknown: FISRnet/level_4/SR/w'
    assert misfit == ('  2 of another shape or type: FISRnet/level_1/SR/conv/2/b is float32 (6,), expected float32 '
                      '(3,), FISRnet/level_3/SR/conv/0/b is float64 (2,), expected float32 (2,)')
    with pytest.raises(ValueError, match=r'conv/0/w is float32 \(3, 3, 29, 2\), expected float32 \(3, 3, 29, 4\), '):
        from_tensorflow(variables, FISRNet(num_feat=4))


# ---------------------------------------------------------------- the script

ADAM = {'FISRnet/level_1/SR/conv/0/b/Adam': noise(2), 'FISRnet/level_1/SR/conv/0/b/Adam_1': noise(2),
        'FISRnet/level_3/bottleneck/conv/0/b/Adam': noise(16), 'beta1_power': np.zeros((), np.float32),
        'beta2_power': np.zeros((), np.float32), 'Variable': np.asarray(122000, np.int64)}


@pytest.fixture
def script(monkeypatch):
    """Runs the script in this process; what it leaves with is raised as SystemExit."""
    def run(*args: str | Path) -> None:
        path = ROOT / 'scripts' / 'convert_weights' / 'fisr_from_tensorflow.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        runpy.run_path(str(path), run_name='__main__')

    return run


@pytest.fixture
def small_net(monkeypatch) -> dict[str, np.ndarray]:
    """The script converts a network of two features; its variables by TensorFlow's names."""
    monkeypatch.setattr(fisr_arch, 'FISRNet', partial(FISRNet, num_feat=2))
    return fisr_variables(2)


def assert_fails(script, *args: str | Path, match: str) -> None:
    folder = args[1].parent
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(SystemExit, match='^1$'), redirect_stderr(io.StringIO()) as told:
        script(*args)
    assert re.search(match, told.getvalue().removesuffix('\n'))
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_published_size(tmp_path, script, capsys):
    """193 MB, which are not left behind; the checkpoint is loaded as any other."""
    variables = fisr_variables(64)
    (tmp_path / 'large').mkdir()
    try:
        write_bundle(tmp_path / 'large' / 'FISRnet-122000', {**variables, **ADAM}, block_entries=40)
        output = tmp_path / 'large' / 'out' / 'fisr.pth'
        script(tmp_path / 'large' / 'FISRnet-122000', output)
        state = read_state_dict(output, what='FISR', keys=('params',))
        assert [path.name for path in output.parent.iterdir()] == ['fisr.pth']
    finally:
        shutil.rmtree(tmp_path / 'large')
    assert capsys.readouterr().out.splitlines() == [
        f'Wrote {output}: 276 variables, 48,316,251 parameters, free for research and education use only.',
        'Skipped 6 other variables: 2 Adam, 1 Adam_1, 1 Variable, 1 beta1_power, 1 beta2_power.']
    with torch.device('meta'):
        net = FISRNet()
    net.load_state_dict(state, assign=True)
    deepest = net.levels[1].bottleneck[1][3]
    name = 'FISRnet/level_2/bottleneck/res_block/0/conv/1'
    np.testing.assert_array_equal(deepest.weight.detach().permute(2, 3, 1, 0), variables[f'{name}/w'])
    np.testing.assert_array_equal(deepest.bias.detach(), variables[f'{name}/b'])


def test_a_bundle_and_an_npz_give_the_same(tmp_path, script, small_net, capsys):
    variables = {**small_net, **ADAM}
    items = list(variables.items())
    write_bundle(tmp_path / 'x', dict(items[:100]), dict(items[100:]))
    np.savez(tmp_path / 'x.npz', **variables)
    states = []
    for source in ('x', 'x.npz'):
        script(tmp_path / source, tmp_path / 'net.pth', '--force')
        states.append(torch.load(tmp_path / 'net.pth', weights_only=True)['params'])
        assert 'Skipped 6 other variables: 2 Adam, ' in capsys.readouterr().out
    expected = from_tensorflow(small_net, FISRNet(num_feat=2))
    for state in states:
        assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in state)


def test_an_output_that_exists_stays(tmp_path, script, small_net):
    np.savez(tmp_path / 'x.npz', **small_net)
    output = tmp_path / 'net.pth'
    output.write_bytes(b'precious')
    assert_fails(script, tmp_path / 'x.npz', output, match='^error: .*net.pth exists; --force replaces it$')
    assert_fails(script, tmp_path / 'none.npz', output, '--force', match='^error: .*none.npz does not exist$')
    assert_fails(script, tmp_path / 'x.npz', tmp_path / 'x.npz', '--force', match='expected a name that ends in .pth$')
    (tmp_path / 'folder.pth').mkdir()
    assert_fails(script, tmp_path / 'x.npz', tmp_path / 'folder.pth', '--force', match='^error: .*Is a directory')
    script(tmp_path / 'x.npz', output, '--force')
    assert len(torch.load(output, weights_only=True)['params']) == 276


def test_checkpoints_that_are_refused(tmp_path, script, small_net):
    output = tmp_path / 'net.pth'
    assert_fails(script, tmp_path / 'x', output, match='x.index does not exist; expected a checkpoint of TensorFlow')
    write_bundle(tmp_path / 'x', {**small_net, **ADAM, 'FISRnet/level_1/enc/level_3/conv/0/w': noise(3, 3, 1, 1)})
    assert_fails(script, tmp_path / 'x', output,
                 match='/x: these are not the 276 weights of FISR\n  1 unknown: FISRnet/level_1/enc/level_3/conv/0/w$')
    write_bundle(tmp_path / 'x', {**small_net, 'FISRnet/level_1/SR/conv/0/b': np.zeros(2, np.float16)})
    assert_fails(script, tmp_path / 'x', output, match="SR/conv/0/b is of TensorFlow's type 19, expected float32")
    write_bundle(tmp_path / 'x', small_net)
    data = tmp_path / 'x.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:-4])
    assert_fails(script, tmp_path / 'x', output, match=r'data-00000-of-00001 is truncated: FISRnet/\S+ should end at')


def test_arrays_that_are_refused(tmp_path, script, small_net):
    path, output = tmp_path / 'x.npz', tmp_path / 'net.pth'
    np.savez(path, **ADAM)
    assert_fails(script, path, output, match=r'/x.npz: these are not .*\n  276 missing: .*, and 271 more$')
    np.savez(path, **small_net)
    whole = path.read_bytes()
    path.write_bytes(whole[:9000])
    assert_fails(script, path, output, match='x.npz is not an .npz file of arrays, or is damaged: ')
    damaged = bytearray(whole)
    damaged[whole.index(small_net['FISRnet/level_2/SR/conv/2/w'].tobytes())] ^= 1
    path.write_bytes(damaged)
    assert_fails(script, path, output, match="damaged: Bad CRC-32 for file 'FISRnet/level_2/SR/conv/2/w.npy'")
    np.savez(path, **{'FISRnet/w': np.array([{}])})
    assert_fails(script, path, output, match='x.npz is not an .npz file .* damaged: Object arrays cannot be')
