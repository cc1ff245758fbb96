"""The model zoo: its table, `stvsr zoo`, files that come from elsewhere, and files that are made."""
import argparse
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from torch import nn

from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.utils.file_lock import FileLock
from basicsr_stvsr.zoo import cards
from basicsr_stvsr.zoo import table as zoo
from basicsr_stvsr.zoo.fetch import fetch, verify
from basicsr_stvsr.zoo.publish import publish
from basicsr_stvsr.zoo.table import ZOO, Entry, Score, Stage, build, load, load_network
from stvsr.zoo_parser import add_zoo_commands

TINY = {'type': 'VSRResNet', 'scale': 4, 'num_feat': 4, 'num_block': 1}

every_entry = pytest.mark.parametrize('name', ZOO)


def stvsr_zoo(*words: object) -> int:
    """`stvsr zoo ...`; errors are raised."""
    parser = argparse.ArgumentParser()
    add_zoo_commands(parser)
    args = parser.parse_args([str(word) for word in words])
    return args.run(args)


# ---------------------------------------------------------------- the table

def test_the_page_is_made_of_the_table():
    """If this fails: python scripts/update_tables.py"""
    assert (ROOT / 'docs' / 'model_zoo.md').read_text() == cards.page()


@every_entry
def test_what_the_table_says_of_a_file(name):
    entry = ZOO[name]
    content = entry.path.read_bytes()
    assert (entry.size, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert re.fullmatch(rf'[A-Za-z]+_small_clips_x\d-{entry.sha256[:8]}\.pth', entry.weights)
    net = load(name)
    assert entry.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert f'_x{net.spec.scale}-' in entry.weights and entry.about.startswith(f'x{net.spec.scale} in space')


@every_entry
def test_what_the_table_says_of_option_files(name):
    entry = ZOO[name]
    test = load_options(str(ROOT / re.fullmatch('python basicsr/test.py -opt (.*)', entry.measured_by)[1]))
    assert Path(test['path']['pretrain_network_g']).name == entry.weights
    trainings = [load_options(str(ROOT / stage.options)) for stage in entry.stages]
    trained = trainings[-1]['network_g']  # which may name more, such as what matters to the training alone
    assert entry.network == {option: trained[option] for option in entry.network}
    assert [training['train']['total_iter'] for training in trainings] == [
        stage.iterations for stage in entry.stages]


@every_entry
def test_the_card_has_the_scores_of_the_zoo(name):
    entry = ZOO[name]
    card = (ROOT / 'basicsr_stvsr' / 'weights' / 'README.md').read_text().split(f'\n## {entry.weights}\n')[1]
    card = card.split('\n## ')[0]
    assert entry.measured
    for score in entry.measured:
        assert f'{score.psnr:.2f}' in card


def test_list_and_info(capsys):
    assert stvsr_zoo('list') == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert ' '.join(line.split()) == 'fstrn-small 359,545 parameters 0.75 MB in the package x4 in space, of luma'
    assert stvsr_zoo('info', 'fstrn-small') == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'sha256       c56e3bb93b6d36c647114c45a216cf00ab67c1c59afca056449546c5815a9e67' in lines
    assert 'measured     Vid4 (frames 0-12), Y, frames all: 24.83 dB, SSIM 0.724' in lines
    with pytest.raises(ValueError, match="no model 'fstrn' in the zoo, expected one of mbnet-small, fisr-small"):
        stvsr_zoo('info', 'fstrn')


def test_rows_of_a_table():
    """As BasicSR's docs/ModelZoo.md has them for video networks; by hand."""
    entry = replace(ZOO['fstrn-small'], weights='A_b_x4-01234567.pth', url='https://x.org/A.pth', measured=(
        Score('vid4', 'RGB', 'vsr', 23.014, 0.6539), Score('vid4', 'Y', 'vfi', 22.9),
        Score('reds', 'RGB', 'all', 30.0, 0.9)))
    assert cards.basicsr_row(entry) == (
        '| [A_b_x4-01234567](https://x.org/A.pth) | [vid4] (RGB, frames given) 23.01/0.654<br/> '
        '(Y, frames between) 22.90/-<br/> [reds] (RGB) 30.00/0.900 |')
    assert cards.basicsr_row(replace(entry, url=None, measured=())) == '| A_b_x4-01234567 | not measured |'


def row_of(source: str) -> tuple[str, Entry]:
    """What a printed row of the table in zoo/table.py makes."""
    (name, entry), = eval(f'{{{source}}}', {'Entry': Entry, 'Score': Score, 'Stage': Stage}).items()
    return name, entry


@every_entry
def test_rows_of_the_zoo_itself(name):
    assert row_of(cards.source(name, ZOO[name])) == (name, ZOO[name])


# ---------------------------------------------------------------- weights that are damaged, or more than weights

@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The folder of fetched weights."""
    monkeypatch.setenv('STVSR_HOME', str(tmp_path / 'home'))
    monkeypatch.delenv('STVSR_ZOO', raising=False)
    return tmp_path / 'home'


@pytest.fixture
def tiny(tmp_path, monkeypatch, home) -> tuple[Entry, bytes]:
    """The only network of the zoo, `tiny`, which does not ship; and what its file holds."""
    net = build(TINY)
    file = tmp_path / 'tiny.pth'
    torch.save({'params': net.state_dict()}, file)
    entry = entry_for(file, parameters=sum(parameter.numel() for parameter in net.parameters()))
    monkeypatch.setattr(zoo, 'ZOO', {'tiny': entry})
    return entry, file.read_bytes()


def entry_for(file: Path, parameters: int) -> Entry:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Entry(
        network=TINY, weights=f'Tiny_clips_x4-{digest[:8]}.pth', sha256=digest, size=len(content), about='small',
        parameters=parameters, data='none', stages=(), licence='none', url=file.as_uri())


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]


def plant(path: Path, trap: Path) -> None:
    """A pickle that makes a folder where it is loaded without care."""
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    torch.save({'params': {'w': Trap()}}, path)


def test_the_trap_works(tmp_path):
    """Otherwise the tests below would show nothing."""
    plant(tmp_path / 'net.pth', tmp_path / 'trapped')
    torch.load(tmp_path / 'net.pth', weights_only=False)
    assert (tmp_path / 'trapped').is_dir()


@pytest.mark.parametrize('use', [load, verify])
def test_one_flipped_bit(tiny, home, use):
    entry, content = tiny
    fetch('tiny')
    use('tiny')
    (home / entry.weights).write_bytes(flip_a_bit(content))
    with pytest.raises(ValueError, match=f'{entry.weights} is damaged or another file: its sha256 is .*, not '
                                         f'{entry.sha256}; expected the weights of tiny$'):
        use('tiny')


@pytest.mark.parametrize('use', [load, verify])
@pytest.mark.parametrize('known', [True, False], ids=['in the table', 'put there'])
def test_code_in_a_zoo_file_does_not_run(tmp_path, monkeypatch, tiny, home, use, known):
    """Put there, it is not even opened as a PyTorch file; and if the table itself were wrong, it is not run."""
    entry, _ = tiny
    trap = tmp_path / 'trapped'
    plant(tmp_path / 'hostile.pth', trap)
    if known:
        entry = entry_for(tmp_path / 'hostile.pth', parameters=1)
        monkeypatch.setattr(zoo, 'ZOO', {'tiny': entry})
        fetch('tiny')
    else:
        home.mkdir()
        shutil.copy(tmp_path / 'hostile.pth', home / entry.weights)
        monkeypatch.setattr(torch, 'load', None)
    with pytest.raises(ValueError, match='or holds more than tensors' if known else 'is damaged or another file'):
        use('tiny')
    assert not trap.exists()


def test_verify_knows_another_network(tiny, monkeypatch):
    """Of the right hash; the table is wrong."""
    entry, _ = tiny
    fetch('tiny')
    monkeypatch.setattr(zoo, 'ZOO', {'tiny': replace(entry, parameters=5)})
    with pytest.raises(ValueError, match=r'tiny has [\d,]+ parameters, but the zoo states 5'):
        verify('tiny')
    monkeypatch.setattr(zoo, 'ZOO', {'tiny': replace(entry, network={**TINY, 'num_feat': 8})})
    with pytest.raises(ValueError, match='does not hold the weights of VSRResNet'):
        verify('tiny')


def test_the_verb_verify(tiny, home, capsys):
    entry, content = tiny
    assert stvsr_zoo('verify') == 0 and capsys.readouterr().out == 'tiny: not fetched\n'
    assert stvsr_zoo('verify', 'tiny') == 1
    assert '`stvsr zoo fetch tiny` gets it' in capsys.readouterr().err
    fetch('tiny')
    assert stvsr_zoo('verify') == 0 and capsys.readouterr().out == f'tiny: {home / entry.weights} is whole\n'
    (home / entry.weights).write_bytes(flip_a_bit(content))
    assert stvsr_zoo('verify') == 1 and 'error: tiny: ' in capsys.readouterr().err


def test_verify_the_package(capsys):
    assert stvsr_zoo('verify') == 0
    assert [line.partition(':')[0] for line in capsys.readouterr().out.splitlines()] == list(ZOO)


# ---------------------------------------------------------------- fetching

class Server(ThreadingHTTPServer):
    """Serves `content` under every path, and notes the range that was asked for.

    Attributes:
        ranges: whether it knows ranges.
        announces: whether it states the length of the content.
        most: bytes after which it hangs up; None: never.
    """
    content, ranges, announces, most, status = b'', True, True, None, 200

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}/tiny.pth'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked, server = self.headers['Range'], self.server
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        begin = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and server.ranges else 0
        if begin >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header('Content-Range', f'bytes {begin}-{len(server.content) - 1}/{len(server.content)}')
        if server.announces:
            self.send_header('Content-Length', str(len(server.content) - begin))
        self.end_headers()
        self.wfile.write(server.content[begin:][:server.most])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tiny, monkeypatch) -> Iterator[Server]:
    """Where `tiny` is to be fetched from."""
    entry, content = tiny
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        server.content = content
        monkeypatch.setattr(zoo, 'ZOO', {'tiny': replace(entry, url=server.url)})
        yield server
        server.shutdown()


def begin(home: Path, entry: Entry, content: bytes) -> Path:
    """As an interrupted run leaves it."""
    home.mkdir(exist_ok=True)
    part = home / f'{entry.weights}.part'
    part.write_bytes(content)
    return part


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch_and_load(server, tiny, home, capsys):
    entry, content = tiny
    with pytest.raises(FileNotFoundError, match='the weights of tiny are not at .*; `stvsr zoo fetch tiny` gets it'):
        load('tiny')
    assert not server.asked
    assert stvsr_zoo('fetch', 'tiny') == 0
    assert capsys.readouterr().out == f'{home / entry.weights}\n'
    assert files(home) == [entry.weights] and (home / entry.weights).read_bytes() == content
    load('tiny')
    fetch('tiny')  # there already
    assert server.asked == [None]


def test_fetch_goes_on(server, tiny, home):
    entry, content = tiny
    begin(home, entry, content[:1000])
    assert fetch('tiny').read_bytes() == content
    assert server.asked == ['bytes=1000-'] and files(home) == [entry.weights]


@pytest.mark.parametrize('begun, asked', [
    (lambda content: content, []),  # interrupted before it was given its name
    (lambda content: content + b'more', [None]),
    (lambda content: b'of another file', ['bytes=15-', None]),  # only the hash shows it
    (lambda content: flip_a_bit(content), [None]),
], ids=['whole', 'too long', 'other', 'damaged'])
def test_fetch_goes_on_from_anything(server, tiny, home, begun, asked):
    entry, content = tiny
    begin(home, entry, begun(content))
    assert fetch('tiny').read_bytes() == content
    assert server.asked == asked and files(home) == [entry.weights]


def test_fetch_begins_anew_where_a_server_knows_no_ranges(server, tiny, home):
    entry, content = tiny
    server.ranges = False
    begin(home, entry, content[:1000])
    assert fetch('tiny').read_bytes() == content
    assert server.asked == ['bytes=1000-']


def test_a_connection_that_ends_early(server, tiny, home, capsys):
    entry, content = tiny
    server.most = 2000
    assert stvsr_zoo('fetch', 'tiny') == 1
    size = len(content)
    assert re.search(rf'error: http://.*; 2,000 of {size:,} bytes are in .*\.part; the next attempt continues',
                     capsys.readouterr().err)
    assert files(home) == [f'{entry.weights}.part']
    server.most = None
    assert fetch('tiny').read_bytes() == content
    assert server.asked == [None, 'bytes=2000-'] and files(home) == [entry.weights]


@pytest.mark.parametrize('status, match', [(404, 'HTTP Error 404: Not Found; 0 of'), (500, 'HTTP Error 500')])
def test_a_server_that_refuses(server, home, status, match):
    server.status = status
    with pytest.raises(OSError, match=f'{server.url}: {match}'):
        fetch('tiny')


def test_no_server(tiny, home, monkeypatch):
    monkeypatch.setattr(zoo, 'ZOO', {'tiny': replace(tiny[0], url='http://127.0.0.1:9/tiny.pth')})
    with pytest.raises(OSError, match='http://127.0.0.1:9/tiny.pth: .*refused.*; 0 of'):
        fetch('tiny')


@pytest.mark.parametrize('change, match', [
    (flip_a_bit, 'part is damaged or another file: its sha256 is'),
    (lambda content: content + b'!', r'is another file: it has [\d,]+ bytes, expected'),
    (lambda content: content[:-1], r'is another file: it has [\d,]+ bytes, expected'),
], ids=['flipped bit', 'longer', 'shorter'])
@pytest.mark.parametrize('begun', [False, True])
@pytest.mark.parametrize('way', ['http', 'file', 'mirror'])
def test_another_file_is_refused(server, tiny, tmp_path, home, monkeypatch, way, begun, change, match):
    """By every way, also at the end of what was begun well; and nothing is left."""
    entry, content = tiny
    server.content = change(content)
    if way != 'http':
        (tmp_path / 'mirror').mkdir()
        source = tmp_path / 'mirror' / entry.weights
        source.write_bytes(server.content)
        url = source.as_uri() if way == 'file' else server.url
        monkeypatch.setattr(zoo, 'ZOO', {'tiny': replace(entry, url=url)})
        if way == 'mirror':
            monkeypatch.setenv('STVSR_ZOO', str(tmp_path / 'mirror'))
    if begun:
        begin(home, entry, content[:1000])
    with pytest.raises(ValueError, match=match):
        fetch('tiny')
    assert files(home) == [] and bool(server.asked) == (way == 'http')


def test_less_than_was_begun_is_another_file(server, tiny, home):
    entry, content = tiny
    begin(home, entry, content[:1000])
    server.content = content[:500]  # 416
    with pytest.raises(ValueError, match='is another file: it has at most 1,000 bytes, expected'):
        fetch('tiny')
    assert files(home) == []


def test_a_server_that_tells_no_length(server, tiny, home):
    """Nor ends: no more is written than the file has, but for a last piece."""
    entry, content = tiny
    server.announces = False
    fetch('tiny').unlink()
    server.content = content + bytes(10_000_000)
    with pytest.raises(ValueError, match=f'is another file: it has more than {len(content):,} bytes'):
        fetch('tiny')
    assert files(home) == []


def test_a_damaged_file_is_fetched_again(server, tiny, home):
    entry, content = tiny
    home.mkdir()
    (home / entry.weights).write_bytes(flip_a_bit(content))
    assert fetch('tiny').read_bytes() == content


def test_the_mirror_comes_first(server, tiny, tmp_path, monkeypatch):
    entry, content = tiny
    monkeypatch.setenv('STVSR_ZOO', str(tmp_path / 'mirror'))
    with pytest.raises(ValueError, match='STVSR_ZOO must name a folder of weights, but .*mirror is not a folder'):
        fetch('tiny')
    (tmp_path / 'mirror').mkdir()
    (tmp_path / 'mirror' / entry.weights).write_bytes(content)
    fetch('tiny').unlink()
    assert not server.asked
    (tmp_path / 'mirror' / entry.weights).unlink()
    fetch('tiny')
    assert server.asked == [None]


def test_other_addresses_are_refused(tiny, monkeypatch):
    monkeypatch.setattr(zoo, 'ZOO', {'tiny': replace(tiny[0], url='ftp://x.org/tiny.pth')})
    with pytest.raises(ValueError, match='ftp://x.org/tiny.pth: the address must begin with http://, https:// or file://'):
        fetch('tiny')


def test_one_fetch_at_a_time(server, tiny, home):
    entry, _ = tiny
    home.mkdir()
    lock = FileLock(home / f'{entry.weights}.lock')
    assert lock.acquire()
    with pytest.raises(OSError, match='another process is downloading this file'):
        fetch('tiny')
    lock.release()
    fetch('tiny')
    assert files(home) == [entry.weights]


def test_what_ships_is_not_fetched(home, tmp_path, monkeypatch):
    assert fetch('fstrn-small') == ZOO['fstrn-small'].path and not home.exists()
    monkeypatch.setattr(zoo, 'WEIGHTS', tmp_path)
    with pytest.raises(FileNotFoundError, match='it ships with the package; reinstall the package'):
        fetch('fstrn-small')


def test_where_files_lie(monkeypatch):
    monkeypatch.delenv('STVSR_HOME', raising=False)
    assert zoo.home() == Path.home() / '.cache' / 'basicsr_stvsr'


# ---------------------------------------------------------------- publishing

OPTIONS = {'name': 'Tiny', 'scale': 4, 'datasets': {'train': {'name': 'own_clips', 'type': 'STVSRClipDataset'}},
           'network_g': TINY}
COMMAND = '# Sun Nov  2 03:05:07 2025: basicsr/train.py -opt options/train_tiny.yml --auto_resume'


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """As a training leaves it, in a folder as it leaves it."""
    folder = tmp_path / 'experiments' / 'Tiny'
    for name in ('models', 'training_states'):
        (folder / name).mkdir(parents=True)
    (folder / 'options.yml').write_text(f'{COMMAND}\n{yaml.safe_dump(OPTIONS)}')
    (folder / 'train_tiny.yml').write_text('base: of_another_folder.yml')
    net = build(TINY)
    params = {f'module.{name}': value for name, value in net.state_dict().items()}
    averaged = {name: value / 2 for name, value in net.state_dict().items()}
    path = folder / 'models' / 'net_g_latest.pth'
    torch.save({'params': params, 'params_ema': averaged, 'optimizer': {'state': {0: torch.ones(3)}}}, path)
    shutil.copy(path, path.with_name('net_g_5000.pth'))
    for number in (400, 5000):
        torch.save({'iter': number}, folder / 'training_states' / f'{number}.state')
    return path


@pytest.fixture
def results(tmp_path) -> Path:
    """As `stvsr test` writes it, scores of clips and frames aside."""
    path = tmp_path / 'vid4.json'
    options = {'crop_border': 0, 'test_y_channel': True}
    metrics = {'psnr': {'type': 'calculate_psnr', **options}, 'ssim': {'type': 'calculate_ssim', **options},
               'niqe': {'type': 'calculate_niqe', 'crop_border': 0},
               'psnr_crop': {'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': True}}
    path.write_text(json.dumps({
        'dataset': 'vid4', 'model': 'test_Tiny', 'clips': {}, 'frames': {}, 'metrics': metrics, 'average': {
            'psnr': {'all': 24.65678, 'vsr': 24.65678}, 'ssim': {'all': 0.71549, 'vsr': 0.71549}, 'niqe': {'all': 7.0},
            'psnr_crop': {'all': 25.5}}}))
    return path


def test_publish(checkpoint, results, tmp_path):
    done = publish(checkpoint, into=tmp_path / 'out', results=[results])
    digest = hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert done.path.name == f'VSRResNet_ownclips_x4-{digest[:8]}.pth'
    assert files(tmp_path / 'out') == [f'{done.path.stem}.md', done.path.name]
    given, kept = (torch.load(path, weights_only=True) for path in (checkpoint, done.path))
    assert list(kept) == ['params', 'params_ema']
    for name, value in kept['params'].items():
        assert torch.equal(value, given['params'][f'module.{name}'])
        assert torch.equal(kept['params_ema'][name], value / 2)
    assert done.entry == Entry(
        network=TINY, weights=done.path.name, sha256=digest, size=done.path.stat().st_size,
        about='x4 in space, of luma', parameters=sum(value.numel() for value in kept['params'].values()),
        gflops=done.entry.gflops,  # see test_mmengine
        data='own_clips (STVSRClipDataset)', stages=(Stage('options/train_tiny.yml', 5000,
                      'python basicsr/train.py -opt options/train_tiny.yml --auto_resume'),),
        licence='not stated',
        measured=(Score('vid4', 'Y', 'all', 24.657, 0.7155), Score('vid4', 'Y, border 4', 'all', 25.5)),
        measured_by='stvsr test, by the options named test_Tiny')


def test_the_card(checkpoint, results, tmp_path):
    done = publish(checkpoint, name='Tiny_vid_x4', into=tmp_path, results=[results], data='three clips', licence='MIT',
                   url='https://x.org/zoo/')
    card = done.card.read_text()
    for line in (
            f'## {done.path.name}', f'| sha256 | `{done.entry.sha256}` |', '| trained on | three clips |',
            f'| from | https://x.org/zoo/{done.path.name} |', '| licence | MIT |',
            '| option file | `options/train_tiny.yml`, 5,000 iterations |',
            '| trained by | `python basicsr/train.py -opt options/train_tiny.yml --auto_resume` |',
            '| measured by | stvsr test, by the options named test_Tiny |', '| vid4 | Y | all | 24.66 | 0.716 |'):
        assert f'{line}\n' in card


def test_a_card_without_an_address(checkpoint, tmp_path):
    assert '| from | no address yet |' in publish(checkpoint, into=tmp_path).card.read_text()


def test_publish_fetch_load(checkpoint, results, tmp_path, home, monkeypatch, capsys):
    """The printed row, put into the table, makes the network known that was published."""
    assert stvsr_zoo('publish', checkpoint, '--name', 'Tiny_vid_x4', '--into', tmp_path / 'out', '--results', results,
                     '--url', (tmp_path / 'out').as_uri()) == 0
    printed = capsys.readouterr().out
    weights, = (tmp_path / 'out').glob('*.pth')
    scores = '[vid4] (Y) 24.66/0.716<br/> (Y, border 4) 25.50/-'
    assert f'\n\n| [{weights.stem}]({weights.as_uri()}) | {scores} |\n\n' in printed
    name, entry = row_of(printed.partition('zoo/table.py:\n\n')[2])
    assert name == 'tiny-vid-x4'
    monkeypatch.setattr(zoo, 'ZOO', {name: entry})
    fetch(name)
    assert verify(name) == home / weights.name
    averaged = torch.load(checkpoint, weights_only=True)['params_ema']
    assert all(torch.equal(value, averaged[key]) for key, value in load(name).state_dict().items())


def test_equal_weights_have_equal_names(checkpoint, tmp_path):
    paths = [publish(checkpoint, name='Tiny_vid_x4', into=tmp_path / folder).path for folder in 'ab']
    assert paths[0].name == paths[1].name


def test_one_of_both_in_half_precision(checkpoint, tmp_path):
    path = publish(checkpoint, into=tmp_path, key='params_ema', half=True).path
    given, kept = (torch.load(file, weights_only=True) for file in (checkpoint, path))
    assert list(kept) == ['params']
    assert all(torch.equal(value, given['params_ema'][name].half()) for name, value in kept['params'].items())


@pytest.mark.parametrize('as_safetensors', [False, True])
def test_tensors_do_not_bring_more_along(checkpoint, tmp_path, as_safetensors):
    """As views of what was trained beside them do, and two of one memory."""
    both = {name: torch.cat([value, value.new_zeros(20_000, *value.shape[1:])])[:len(value)]
            for name, value in build(TINY).state_dict().items()}
    torch.save({'params': both, 'params_ema': both}, checkpoint)
    assert checkpoint.stat().st_size > 1e6
    path = publish(checkpoint, into=tmp_path, as_safetensors=as_safetensors).path
    assert path.stat().st_size < 50_000


@pytest.mark.parametrize('key, factor', [(None, 0.5), ('params', 1), ('params_ema', 0.5)])
def test_publish_safetensors(checkpoint, tmp_path, key, factor):
    from safetensors.torch import load_file

    path = publish(checkpoint, into=tmp_path, key=key, as_safetensors=True).path
    assert path.suffix == '.safetensors' and hashlib.sha256(path.read_bytes()).hexdigest()[:8] in path.stem
    given = torch.load(checkpoint, weights_only=True)['params']
    kept = load_file(path)
    assert len(kept) == len(given)
    assert all(torch.equal(value, given[f'module.{name}'] * factor) for name, value in kept.items())
    net = load_network(TINY, path)
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())


def test_publish_another_layout(tmp_path, log):
    """An old checkpoint, with the option file it was trained by."""
    net = nn.DataParallel(build(TINY))
    torch.save({'state_dict': net.state_dict(), 'optimizer': {}}, tmp_path / 'best_77.pth')
    (tmp_path / 'old.yml').write_text(yaml.safe_dump(OPTIONS))
    done = publish(tmp_path / 'best_77.pth', opt=tmp_path / 'old.yml', into=tmp_path)
    kept = torch.load(done.path, weights_only=True)
    assert list(kept) == ['params'] and kept['params'].keys() == net.module.state_dict().keys()
    assert done.entry.stages == (Stage('old.yml', 77, 'not stated'),) and done.entry.measured_by is None
    assert "took the weights from its block state_dict, and left out 'module.' before" in log.text


@pytest.mark.parametrize('change, iterations', [
    (lambda folder: None, 5000),
    (lambda folder: (folder / 'training_states' / '5000.state').unlink(), None),  # 400 is not what latest holds
    (lambda folder: (folder / 'models' / 'net_g_5000.pth').write_bytes(b'other'), None),
    (lambda folder: shutil.rmtree(folder / 'training_states'), None),
])
def test_iterations_are_told_only_where_they_are_known(checkpoint, tmp_path, change, iterations):
    change(checkpoint.parent.parent)
    assert publish(checkpoint, into=tmp_path).entry.stages[0].iterations == iterations


@pytest.mark.parametrize('noted, stated', [
    ("'stvsr train' -opt a.yml", 'stvsr train -opt a.yml'),
    ('/venv/site-packages/basicsr_stvsr/train.py -opt a.yml', 'python -m basicsr_stvsr.train -opt a.yml'),
])
def test_commands(checkpoint, tmp_path, noted, stated):
    (checkpoint.parent.parent / 'options.yml').write_text(
        f'# Sun Nov 22 03:05:07 2026: {noted}\n{yaml.safe_dump(OPTIONS)}')
    assert publish(checkpoint, into=tmp_path).entry.stages[0][::2] == ('a.yml', stated)


def overflowing(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    next(iter(content['params'].values())).view(-1)[0] = 1e6  # half precision ends at 65,504
    torch.save(content, path)


@pytest.mark.parametrize('prepare, arguments, match', [
    (lambda path: plant(path, path.with_name('trapped')), {}, 'or holds more than tensors and plain values'),
    (lambda path: path.write_bytes(path.read_bytes()[:2000]), {}, 'is cut off after 2,000 bytes'),
    (lambda path: path.unlink(), {}, 'net_g_latest.pth does not exist'),
    (lambda path: torch.save({'params': {'w': torch.ones(1)}}, path), {}, 'does not hold the weights of VSRResNet of'),
    (lambda path: torch.save({'params_ema': build(TINY).state_dict()}, path), {'key': 'params'},
     'holds params_ema, but no params'),
    (overflowing, {'half': True}, 'is not finite in half precision'),
    (None, {'name': 'Tiny_x4'}, "--name must be <Method>_<train set>_x<scale>, such as .*, but is 'Tiny_x4'"),
    (None, {'name': '../Tiny_clips_x4'}, '--name must be'),
    (None, {'name': 'Tiny_clips_x2'}, '--name Tiny_clips_x2: VSRResNet with these options upscales x4'),
    (None, {'opt': Path('nowhere.yml')}, 'option file nowhere.yml does not exist'),
    (lambda path: (path.parent.parent / 'options.yml').write_text('name: x'), {}, 'options.yml has no network_g'),
    (lambda path: (path.parent.parent / 'options.yml').write_text(f'network_g: {json.dumps(TINY)}'), {},
     'has no training data set to name the weights after; set --name'),
    (None, {'results': [Path('nowhere.json')]}, 'nowhere.json'),
])
def test_what_is_not_published(checkpoint, tmp_path, prepare, arguments, match):
    """Nothing ran, and nothing was written."""
    if prepare:
        prepare(checkpoint)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        publish(checkpoint, into=tmp_path / 'out', **arguments)
    assert not (tmp_path / 'out').exists() and not checkpoint.with_name('trapped').exists()


def test_several_option_files(checkpoint, tmp_path):
    """BasicSR copies the option file; of two, one must be named."""
    folder = checkpoint.parent.parent
    (folder / 'train_tiny.yml').write_text(yaml.safe_dump(OPTIONS))
    (folder / 'options.yml').unlink()
    assert publish(checkpoint, into=tmp_path).entry.stages[0].options == 'train_tiny.yml'
    (folder / 'other.yml').write_text('')
    with pytest.raises(FileNotFoundError, match='has 2 option files, but no options.yml .* with --opt'):
        publish(checkpoint, into=tmp_path)


@pytest.mark.parametrize('content, match', [
    ('not JSON', 'is not a result file of `stvsr test`'), ('[]', 'is not a result file of `stvsr test`'),
    ('{"dataset": "a", "model": "b", "average": {"psnr": 3}}', 'is not a result file of `stvsr test`'),
    ('{"dataset": "a", "model": "b", "average": {"niqe": {"all": 3}}, "metrics": {"niqe": {"type": "calculate_niqe"}}}',
     'has no PSNR, only niqe'),
    (json.dumps({'protocol': 'p', 'model': 'bicubic', 'command': 'stvsr', 'network': {'type': 'BicubicAverage'},
                 'weights': None, 'average': {'a': {'psnr': {'all': 3}}},
                 'metrics': {'psnr': {'type': 'calculate_psnr'}}}),
     "has the scores of 'bicubic', which has another network or other weights than the")])
def test_results_of_something_else(checkpoint, results, tmp_path, content, match):
    results.write_text(content)
    with pytest.raises(ValueError, match=f'vid4.json {match}'):
        publish(checkpoint, into=tmp_path / 'out', results=[results])
    assert not (tmp_path / 'out').exists()


def test_colours_are_those_of_the_metrics(results):
    """Under any name; an SSIM belongs to the PSNR of its kind."""
    from basicsr_stvsr.zoo.publish import read_results

    luma = {'crop_border': 0, 'test_y_channel': True}
    metrics = {'a': {'type': 'calculate_psnr', 'crop_border': 0}, 'b': {'type': 'calculate_psnr', **luma},
               'c': {'type': 'calculate_ssim', **luma}, 'd': {'type': 'calculate_fisr_psnr'},
               'e': {'type': 'calculate_float_psnr', 'crop_border': 2}}
    results.write_text(json.dumps({'dataset': 'vid4', 'model': 'test', 'metrics': metrics, 'average': {
        'a': {'all': 1.0, 'vsr': 1.0}, 'b': {'vsr': 2.0, 'vfi': 3.0}, 'c': {'vsr': 0.2, 'vfi': None}, 'd': {'all': 4.0},
        'e': {'all': 5.0}}}))
    assert read_results([results, results], {}, ()) == (2 * (
        Score('vid4', 'RGB', 'all', 1.0), Score('vid4', 'Y', 'vsr', 2.0, 0.2), Score('vid4', 'Y', 'vfi', 3.0),
        Score('vid4', 'YUV', 'all', 4.0), Score('vid4', 'Y, border 2', 'all', 5.0)),
        'stvsr test, by the options named test')
