"""Protocols: what they fix, what they write, and the baselines by each of them."""
import argparse
import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from conftest import ROOT, write_moving_clips
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.archs.baseline_arch import BicubicAverage
from basicsr_stvsr.cli.model import network_source
from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.inference.windows import restore_frames
from basicsr_stvsr.io.color_spaces import convert_frame
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb
from basicsr_stvsr.io.saved_frames import SavedFrames
from basicsr_stvsr.models.clip_model import output_numbers
from basicsr_stvsr.protocols import FOLDER, PROTOCOLS, protocol_of
from basicsr_stvsr.protocols.measure import BASELINES, baseline, options_of
from basicsr_stvsr.protocols.report import table, write_report
from basicsr_stvsr.zoo.publish import read_results
from basicsr_stvsr.zoo.table import Score, load_network
from stvsr.main import main

NUM_FRAME = 5
FSTRN = {'type': 'FSTRN', 'num_feat': 4, 'num_frb': 1}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """datasets/ with a Vid4 of two clips, five frames of 96x112 each."""
    root = tmp_path_factory.mktemp('data')
    (root / 'clips').mkdir()
    write_moving_clips(root / 'clips', num_frames=NUM_FRAME, height=96, width=112)
    files = sorted((root / 'clips').rglob('*.png'))
    write_lmdb(root / 'vid4_GT.lmdb', [
        FrameSource(f'{file.parent.name}/{file.stem}', str(file), lambda file=file: cv2.imread(str(file)))
        for file in files])
    return root


def measure(data, into, *words: str) -> int:
    return main(['test', '--data', str(data), '--into', str(into), '--workers', '0', *words])


@pytest.mark.parametrize('name', PROTOCOLS)
def test_published_rows_name_what_is_measured(name):
    """Each published score is of a data set and a metric of the protocol's file."""
    protocol = protocol_of(name)
    opt = load_options(str(protocol.file))
    assert opt.keys() == {'scale', 'datasets', 'val'}
    sets = {dataset['name']: dataset for dataset in opt['datasets'].values() if dataset}
    for row in protocol.published:
        if name == 'mbnet-ablation' and not row.note:  # of 7 frames 4 are given, and the means add up
            given, new, both = (row.scores[f'vimeo90k_00001/psnr/{group}'] for group in ('vsr', 'vfi', 'all'))
            assert (4 * given + 3 * new) / 7 == pytest.approx(both, abs=0.07)
        for key in row.scores:
            dataset, metric, group = key.split('/')
            assert metric in opt['val']['metrics'] and group in ('all', 'vsr', 'vfi')
            assert group != 'vfi' or sets[dataset].get('temporal_scale', 2) == 2


def test_no_file_is_left_out():
    assert {protocol.file for protocol in PROTOCOLS.values()} == set(FOLDER.glob('*.yml'))


@pytest.mark.parametrize('name, file', [
    ('mbnet-table3', 'test_mbnet.yml'), ('mbnet-ablation', 'ablations/test_mbnet.yml'), ('fisr-4k', 'test_fisr.yml'),
    ('fstrn-5clips', 'test_fstrn.yml'), ('reds4', 'test_hoffr_reds4.yml'), ('dvd10', 'test_hoffr_dvd.yml'),
    ('vsrresnet-vid4', 'test_adaptive_gan_x4.yml'), ('vsrresnet-vid4-x3', 'test_vsrresnet_x3.yml'),
    ('vsrresnet-vid4-x2', 'test_vsrresfeatgan_x2.yml')])
def test_option_files_measure_by_them(name, file):
    protocol, opt = load_options(str(protocol_of(name).file)), load_options(str(ROOT / 'options' / file))
    assert (protocol['scale'], protocol['datasets']) == (opt['scale'], opt['datasets'])
    assert protocol['val'].items() <= opt['val'].items()


@pytest.mark.parametrize('name', PROTOCOLS)
def test_baselines_give_the_frames_that_are_scored(name):
    opt = load_options(str(protocol_of(name).file))
    for network in (baseline(each, opt) for each in BASELINES):
        assert network['scale'] == opt['scale'] and network['first_output'] == (name == 'fisr-4k')
        assert network['temporal_scale'] == (2 if name.startswith(('mbnet', 'fisr')) else 1)


def test_what_a_measurement_writes(data, tmp_path, capsys):
    """Bicubic, and a repeated frame: PSNR of frames enlarged by hand, a row beside the published ones."""
    results = tmp_path / 'results'
    assert measure(data, results, '--protocol', 'mbnet-table3', '--model', 'bicubic-repeat', '--datasets', 'vid4') == 0
    folder = results / 'mbnet-table3_bicubic-repeat'
    found = json.loads((folder / 'results.json').read_text())
    assert found['protocol'] == 'mbnet-table3' and found['versions'].keys() > {'torch', 'basicsr'}
    assert found['network'] == {'type': 'BicubicAverage', 'scale': 4, 'temporal_scale': 2, 'first_output': 0,
                                'between': 'repeat'}
    assert {row['method'] for row in found['published']} > {'MBNet', 'STARnet'}

    with open(folder / 'frames.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    psnr = {(row['clip'], int(row['frame'])): float(row['score']) for row in rows if row['metric'] == 'psnr'}
    assert psnr.keys() == {(clip, number) for clip in ('first', 'second') for number in range(NUM_FRAME)}
    from basicsr.utils.matlab_functions import imresize
    for clip in ('first', 'second'):
        true = [cv2.imread(str(path)) for path in sorted((data / 'clips' / clip).glob('*.png'))]
        made = []
        for number in range(NUM_FRAME):
            small = imresize(true[number // 2 * 2] / 255., 1 / 4).clip(0, 1).astype(np.float32)
            small = (small * 255).round() / 255
            made.append((imresize(small, 4) * 255).clip(0, 255).round().astype(np.uint8))
        expected = [peak_signal_noise_ratio(*pair) for pair in zip(true, made, strict=True)]
        assert [psnr[clip, number] for number in range(NUM_FRAME)] == pytest.approx(expected, abs=0.02)
        with open(folder / 'clips.csv', newline='') as file:
            mean, = (float(row['score']) for row in csv.DictReader(file) if (
                row['clip'], row['metric'], row['frames']) == (clip, 'psnr', 'vfi'))
        assert mean == pytest.approx(np.mean(expected[1::2]), abs=0.02)

    text = (folder / 'table.md').read_text()
    average = found['average']['vid4']['psnr']['all']
    assert text in capsys.readouterr().out
    head, _, *rows = [line.split(' | ') for line in text.splitlines() if line.startswith('|')]
    column = head.index('vid4 psnr')
    shown = {row[0].strip('|* ').replace('** (measured)', ''): row[column] for row in rows}
    assert shown['MBNet'] == '24.505' and shown['STARnet'] == '–' and shown['bicubic-repeat'] == f'{average:.3f}'
    assert all((folder / name).stat().st_size > 5000 for name in ('frames.png', 'clips.png'))
    assert load_options(str(folder / 'options.yml'))['network_g'] == found['network']
    scores, command = read_results([folder / 'results.json'], found['network'], [None])  # as a model card has it
    ssim = found['average']['vid4']['ssim']['all']
    assert Score('vid4 by mbnet-table3', 'RGB', 'all', round(average, 3), round(ssim, 4)) in scores
    assert command == found['command'] and command.startswith('stvsr')


def test_coverage_stands_beside_scores(tmp_path):
    """Of metrics that score but a part of the frames; made by hand: two clips, one without a face."""
    groups = {'vsr': 0.5, 'vfi': 0.25, 'all': 0.4}
    result = {
        'average': {'psnr': dict.fromkeys(groups, 30.0), 'identity': {'vsr': 0.875, 'vfi': None, 'all': 0.875}},
        'clips': {'first': {'psnr': {'all': 30.0}, 'identity': {'all': 0.875}},
                  'second': {'psnr': {'all': 30.0}, 'identity': {'all': None}}},
        'frames': {clip: {'psnr': [[0, 30.0], [1, 30.0]]} for clip in ('first', 'second')},
        'coverage': {'average': {'identity': groups}, 'clips': {'first': {'identity': {'all': 0.8}},
                                                                'second': {'identity': {'all': 0.0}}}}}
    (tmp_path / 'vid4.json').write_text(json.dumps(result))
    made = {'protocol': 'mbnet-table3', 'model': 'ours', 'versions': {}, 'command': 'stvsr'}
    write_report(tmp_path, protocol_of('mbnet-table3'), made, ['vid4'])

    head, _, *rows = [line.strip('| ').split(' | ') for line in (tmp_path / 'table.md').read_text().splitlines()
                      if line.startswith('|')]
    shown = dict(zip(head, rows[-1], strict=True))
    assert shown['vid4 identity'] == '0.8750 (40.0%)' and shown['vid4 identity, new'] == '– (25.0%)'
    assert shown['vid4 psnr'] == '30.000'
    assert 'Numbers in brackets are the coverage' in (tmp_path / 'table.md').read_text()
    assert json.loads((tmp_path / 'results.json').read_text())['coverage'] == {'vid4': {'identity': groups}}
    with open(tmp_path / 'clips.csv', newline='') as file:
        found = {(row['clip'], row['metric']): (row['score'], row['coverage']) for row in csv.DictReader(file)}
    assert found == {('first', 'psnr'): ('30.0', ''), ('first', 'identity'): ('0.875', '0.8'),
                     ('second', 'psnr'): ('30.0', ''), ('second', 'identity'): ('', '0.0')}


# ---------------------------------------------------------------- every protocol, on sets in miniature

def frames_of(num: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """A texture that moves by a pixel a frame."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 2)
    return [texture[number:number + size[0], :size[1]] for number in range(num)]


def small(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)


def write_set(path: Path, frames: dict[str, np.ndarray]) -> None:
    """An LMDB, or a folder, by its name."""
    if path.suffix == '.lmdb':
        write_lmdb(path, [FrameSource(key, key, lambda frame=frame: frame) for key, frame in frames.items()])
        return
    for key, frame in frames.items():
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path / f'{key}.png'), frame)


@pytest.fixture(scope='module')
def miniatures(tmp_path_factory) -> Path:
    """Write all sets of the protocols except FSTRN's, which need hundreds of large frames."""
    root = tmp_path_factory.mktemp('miniatures')
    for name, clip in (('vid4_GT.lmdb', 'city'), ('middlebury.lmdb', 'Beanbags'), ('ucf101.lmdb', '1')):
        write_set(root / name, {f'{clip}/{i}': frame for i, frame in enumerate(frames_of(5))})
    write_set(root / 'vimeo90k_test_GT.lmdb', {
        f'{clip}/im{i + 1}': frame for clip in ('00001/0266', '00002/0001') for i, frame in enumerate(frames_of(7))})
    sharp = {f'000/{i:08d}': frame for i, frame in enumerate(frames_of(4))}
    write_set(root / 'reds4_sharp.lmdb', sharp)
    write_set(root / 'reds4_blur_bicubic.lmdb', {key: small(frame) for key, frame in sharp.items()})
    write_set(root / 'dvd_test_GT.lmdb', sharp)
    write_set(root / 'dvd_test_input.lmdb', {key: cv2.blur(frame, (3, 3)) for key, frame in sharp.items()})
    scene = [convert_frame(frame, 'rgb', 'yuv') for frame in frames_of(9, (128, 128))]
    write_set(root / 'fisr_test' / 'HR_HFR', {f'scene/h{i}': scene[i - 1] for i in range(2, 9)})
    write_set(root / 'fisr_test' / 'LR_LFR', {
        f'scene/h{i}': cv2.resize(scene[i - 1], (64, 64), interpolation=cv2.INTER_AREA) for i in range(1, 10, 2)})
    return root


@pytest.mark.parametrize('model', BASELINES)
@pytest.mark.parametrize('name', [name for name in PROTOCOLS if name != 'fstrn-5clips'])
def test_baselines_run_under_every_protocol(name, model, miniatures, tmp_path):
    assert measure(miniatures, tmp_path, '--protocol', name, '--model', model) == 0
    result = json.loads((tmp_path / f'{name}_{model}' / 'results.json').read_text())
    opt = load_options(str(protocol_of(name).file))
    assert result['average'].keys() == {dataset['name'] for dataset in opt['datasets'].values() if dataset}
    num_frame = {'mbnet-ablation': 7, 'fisr-4k': 7, 'reds4': 4, 'dvd10': 4, 'vsrresnet-vid4': 5}
    with open(tmp_path / f'{name}_{model}' / 'frames.csv', newline='') as file:
        scored = [row for row in csv.DictReader(file) if row['metric'].startswith('psnr')]
    kinds = sum(metric.startswith('psnr') for metric in opt['val']['metrics'])
    if name in num_frame:
        assert len(scored) == kinds * num_frame[name]
    assert all(10 < float(row['score']) < 70 for row in scored)


@pytest.mark.slow
@pytest.mark.parametrize('model', BASELINES)
def test_baselines_run_on_the_clips_of_fstrn(model, tmp_path):
    """Of which a thousand large frames are read; each is a link to the same one."""
    areas = load_options(str(protocol_of('fstrn-5clips').file))['datasets']['test']['clip_areas']
    frame = cv2.resize(frames_of(1, (256, 256))[0], (720, 480))
    cv2.imwrite(str(tmp_path / 'frame.png'), frame)
    for clip, area in areas.items():
        folder = tmp_path / 'data' / 'fstrn_test' / clip
        folder.mkdir(parents=True)
        for number in range(area['frames'][1]):
            (folder / f'{number:04d}.png').hardlink_to(tmp_path / 'frame.png')
    assert measure(tmp_path / 'data', tmp_path, '--protocol', 'fstrn-5clips', '--model', model) == 0
    with open(tmp_path / f'fstrn-5clips_{model}' / 'frames.csv', newline='') as file:
        numbers = [row['clip'] for row in csv.DictReader(file) if row['metric'] == 'psnr']
    assert {clip: numbers.count(clip) for clip in areas} == {
        clip: area['frames'][1] - area['frames'][0] + 1 for clip, area in areas.items()}


# ---------------------------------------------------------------- saved frames

@pytest.fixture
def saved(data, tmp_path):
    """Frames of vid4 that are one level too bright in all channels, but the last of each clip, 2 levels."""
    for clip in ('first', 'second'):
        folder = tmp_path / 'frames' / 'vid4' / clip
        folder.mkdir(parents=True)
        paths = sorted((data / 'clips' / clip).glob('*.png'))
        for number, path in enumerate(paths):
            frame = cv2.imread(str(path)).astype(int) + 1 + (number == NUM_FRAME - 1)
            assert frame.max() < 256
            cv2.imwrite(str(folder / f'{path.stem}_Other.png'), frame.astype(np.uint8))
    return tmp_path / 'frames'


def measure_saved(data, saved, *words: str, protocol: str = 'mbnet-table3') -> int:
    return measure(data, saved.parent / 'results', '--protocol', protocol, '--frames', str(saved), '--datasets', 'vid4',
                   *words)


def test_frames_of_something_else_are_measured(data, saved):
    """By hand: an error of one level is 20 log10(255) dB, of two 20 log10(255 / 2)."""
    assert measure_saved(data, saved, '--label', 'Other') == 0
    folder = saved.parent / 'results' / 'mbnet-table3_Other'
    average = json.loads((folder / 'results.json').read_text())['average']['vid4']['psnr']
    one, two = 20 * np.log10(255), 20 * np.log10(255 / 2)
    assert average['vfi'] == pytest.approx(one, abs=1e-6)
    assert average['vsr'] == pytest.approx((2 * one + two) / 3, abs=1e-6)
    assert '| **Other** (measured) | ' in (folder / 'table.md').read_text()


def test_luma_of_saved_frames_is_not_rounded(saved):
    names = [path.stem.removesuffix('_Other') for path in sorted((saved / 'vid4' / 'first').iterdir())]
    (number, luma), = SavedFrames(saved / 'vid4', 'y').clip('first', names, [3], (96, 112))
    rgb = cv2.imread(str(saved / 'vid4' / 'first' / f'{names[3]}_Other.png'))[..., ::-1]
    assert number == 3 and luma.shape == (1, 96, 112)
    assert np.abs(255 * luma[0].numpy() - rgb2ycbcr(rgb)[..., 0]).max() < 1e-3


def spoil(folder, what: str) -> None:
    first, *_, last = sorted((folder / 'vid4' / 'second').iterdir())
    if what == 'missing':
        last.unlink()
    elif what == 'unknown':
        last.rename(last.with_name('other.png'))
    elif what == 'double':
        cv2.imwrite(str(last.with_name(last.name.replace('Other', 'Another'))), cv2.imread(str(last)))
    elif what == 'deep':
        cv2.imwrite(str(first), cv2.imread(str(first)).astype(np.uint16) * 257)
    elif what == 'smaller':
        for path in (folder / 'vid4' / 'second').iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path))[:-4])
    elif what == 'no clip':
        for path in (folder / 'vid4' / 'second').iterdir():
            path.unlink()
    else:
        (folder / 'vid4').rename(folder / 'vid5')


@pytest.mark.parametrize('what, message', [
    ('missing', r"vid4: clip 'second' lacks 1 of the 5 frames that are scored: '\w+'"),
    ('unknown', r"vid4: frame 'other' of clip 'second' matches no GT frame; expected the names .*<name>_<suffix>"),
    ('double', r"vid4: clip 'second' has two frames for '\w+': '\w+_(Another|Other)' and '\w+_(Another|Other)'"),
    ('deep', r'\w+_Other.png: the image has 16 bits a channel \(uint16\), expected 8; convert it'),
    ('smaller', r'the frames of clip .second. are 92x112 \(h x w\), but GT frames are 96x112'),
    ('no clip', r"vid4: no clip 'second'; its clips are 'first'"),
    ('no data set', r'vid4 does not exist; expected the saved frames of the data set vid4 there'),
])
def test_saved_frames_that_do_not_fit(data, saved, what, message, capsys):
    spoil(saved, what)
    assert measure_saved(data, saved) in (1, 2)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize('overlap', ['first', 'all'])
@pytest.mark.parametrize('first_output', [0, 1])
def test_saved_frames_are_those_that_a_network_makes(first_output, overlap):
    """With all copies as well, of frames that several windows make."""
    net = BicubicAverage(scale=2, temporal_scale=2, first_output=first_output)
    restored = restore_frames(net, torch.zeros(1, 5, 3, 8, 8), overlap=overlap)
    assert output_numbers(net, 5, overlap) == [number for number, _ in restored]


@pytest.mark.parametrize('words, message', [
    (['--model', 'bicubic', '--label', 'x'], '--label is for --frames'),
    (['--frames', 'frames', '--weights', 'net.pth'], '--weights goes with --opt; saved frames need none'),
    (['--frames', 'frames', '--label', 'a/b'], "--label 'a/b': expected letters"),
    (['--frames', 'frames', '--label', 'bicubic'], 'but no name of a model'),
    (['--model', 'bicubic', '--weights', 'net.pth'], '--weights goes with --opt'),
    (['--model', 'mbnet-small', '--weights', 'net.pth'], '--weights goes with --opt'),
    (['--opt', 'net.yml'], 'net.yml names no weights for FSTRN; give them with --weights'),
])
def test_options_that_do_not_go_together(data, tmp_path, words, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'net.yml').write_text(f'network_g: {FSTRN}')
    assert measure(data, tmp_path / 'results', '--protocol', 'vsrresnet-vid4', *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'results').exists()


def test_a_refusal_leaves_older_results_where_they_are(data, saved, capsys):
    assert measure_saved(data, saved, '--label', 'Other') == 0
    results = saved.parent / 'results'
    table = (results / 'mbnet-table3_Other' / 'table.md').read_text()
    spoil(saved, 'missing')
    assert measure_saved(data, saved, '--label', 'Other') == 2
    assert [path.name for path in results.iterdir()] == ['mbnet-table3_Other']
    assert (results / 'mbnet-table3_Other' / 'table.md').read_text() == table


# ---------------------------------------------------------------- models

def test_published_scores_stand_where_ours_do():
    """Also for a metric with coverage, and for one that could not be measured."""
    made = {'protocol': 'vsrresnet-vid4', 'model': 'ours', 'versions': {}, 'command': 'stvsr'}
    scores = {'psnr': {'vsr': 24.0, 'all': 24.0}, 'ssim': {'vsr': 0.7, 'all': 0.7}}

    def columns(averages):
        lines = table(protocol_of('vsrresnet-vid4'), made, {'vid4': averages}, {}).splitlines()
        rows = [line.strip('| ').split(' | ') for line in lines if line.startswith('|')]
        return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}

    found = columns(scores | {'percep_dist (alex-7be5be79)': {'vsr': 0.00012345, 'all': 0.00012345}})
    assert found['adaptive losses']['vid4 percep_dist (alex-7be5be79)'] == '0.1010'
    assert found['**ours** (measured)']['vid4 percep_dist (alex-7be5be79)'] == '0.000123'
    found = columns(scores)
    assert found['adaptive losses']['vid4 percep_dist'] == '0.1010'
    assert found['**ours** (measured)']['vid4 percep_dist'] == '–'


def test_a_model_of_the_zoo(data, tmp_path):
    assert measure(data, tmp_path, '--protocol', 'mbnet-table3', '--model', 'mbnet-small', '--datasets', 'vid4') == 0
    found = json.loads((tmp_path / 'mbnet-table3_mbnet-small' / 'results.json').read_text())
    assert found['weights']['sha256'].startswith(found['weights']['file'].rsplit('-')[-1].removesuffix('.pth'))
    assert found['average']['vid4']['psnr']['vfi'] > 10


@pytest.mark.parametrize('named, expected', [(None, 'params_ema'), ('params', 'params')])
def test_the_weights_are_those_that_are_restored_with(data, tmp_path, named, expected, monkeypatch):
    """The moving average, if there is one, unless the option file names others beside its weights."""
    monkeypatch.chdir(tmp_path)
    net = build_network(dict(FSTRN))
    states = {key: {name: value + noise for name, value in net.state_dict().items()}
              for key, noise in (('params', 0.0), ('params_ema', 0.01))}
    torch.save(states, tmp_path / 'net.pth')
    (tmp_path / 'net.yml').write_text(json.dumps({
        'network_g': FSTRN, 'path': {'pretrain_network_g': 'net.pth', **({'param_key_g': named} if named else {})}}))
    assert measure(data, tmp_path / 'results', '--protocol', 'vsrresnet-vid4', '--opt', 'net.yml') == 0
    result = json.loads((tmp_path / 'results' / 'vsrresnet-vid4_net' / 'results.json').read_text())
    assert result['weights']['param_key'] == expected
    log, = (tmp_path / 'results' / 'vsrresnet-vid4_net').glob('*.log')
    assert f'Loaded FSTRN from net.pth ({expected}).' in log.read_text()
    chosen = network_source(argparse.Namespace(model=None, opt=Path('net.yml'), weights=None))
    restored_with = load_network(chosen.network, chosen.weights, param_key=chosen.param_key)
    for name, value in restored_with.state_dict().items():
        assert torch.equal(value, states[expected][name])


@pytest.mark.parametrize('words, message', [
    (['--protocol', 'mbnet'], "no protocol 'mbnet', expected one of mbnet-table3, mbnet-ablation"),
    (['--protocol', 'reds4'], r'protocol reds4 needs the data set reds4 at .*reds4_sharp.lmdb, which does not exist.'),
    (['--protocol', 'mbnet-table3'], '(?s)needs the data set middlebury_other .*create_lmdb.py --dataset middlebury .*'
     '--datasets vid4 ucf101 vimeo90k measures the others'),
    (['--protocol', 'vsrresnet-vid4', '--datasets', 'vid5'], "no data set 'vid5'; its data sets are vid4"),
])
def test_refused(data, tmp_path, words, message, capsys):
    assert measure(data, tmp_path / 'results', '--model', 'bicubic', *words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / 'results').exists()


def test_a_network_that_does_not_fit(data, tmp_path, capsys):
    assert measure(data, tmp_path, '--protocol', 'vsrresnet-vid4', '--model', 'mbnet-small') == 2
    assert 'takes rgb clips, but this one is y' in capsys.readouterr().err


def test_options_of_leaves_the_file_alone(data):
    opt = options_of('mbnet-table3', data, ['vid4'])
    assert [dataset['dataroot_gt'] for dataset in opt['datasets'].values()] == [str(data / 'vid4_GT.lmdb')]
