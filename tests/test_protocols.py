"""Protocols: what they fix, what they write, and the baselines by each of them."""
import csv
import json
import re

import cv2
import numpy as np
import pytest
from conftest import ROOT, write_moving_clips
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.archs.baseline_arch import BicubicAverage
from basicsr_stvsr.cli import main
from basicsr_stvsr.data.lmdb_io import FrameSource, write_lmdb
from basicsr_stvsr.data.saved_frames import SavedFrames
from basicsr_stvsr.options import load_options
from basicsr_stvsr.protocols import FOLDER, PROTOCOLS, protocol_of
from basicsr_stvsr.protocols.report import write_report
from basicsr_stvsr.protocols.run import BASELINES, baseline, options_of
from basicsr_stvsr.zoo import Score
from basicsr_stvsr.zoo_publish import read_results

NUM_FRAME = 5


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

    table = (folder / 'table.md').read_text()
    average = found['average']['vid4']['psnr']['all']
    assert table in capsys.readouterr().out
    head, _, *rows = [line.split(' | ') for line in table.splitlines() if line.startswith('|')]
    column = head.index('vid4 psnr')
    shown = {row[0].strip('|* ').replace('** (measured)', ''): row[column] for row in rows}
    assert shown['MBNet'] == '24.505' and shown['STARnet'] == '–' and shown['bicubic-repeat'] == f'{average:.3f}'
    assert all((folder / name).stat().st_size > 5000 for name in ('frames.png', 'clips.png'))
    assert load_options(str(folder / 'options.yml'))['network_g'] == found['network']
    scores, command = read_results([folder / 'results.json'], BicubicAverage())  # as a model card has it
    ssim = found['average']['vid4']['ssim']['all']
    assert Score('vid4 by mbnet-table3', 'RGB', 'all', round(average, 3), round(ssim, 4)) in scores
    assert command == found['command'] and command.startswith('stvsr ')


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
    assert 'In brackets stands the coverage' in (tmp_path / 'table.md').read_text()
    assert json.loads((tmp_path / 'results.json').read_text())['coverage'] == {'vid4': {'identity': groups}}
    with open(tmp_path / 'clips.csv', newline='') as file:
        found = {(row['clip'], row['metric']): (row['score'], row['coverage']) for row in csv.DictReader(file)}
    assert found == {('first', 'psnr'): ('30.0', ''), ('first', 'identity'): ('0.875', '0.8'),
                     ('second', 'psnr'): ('30.0', ''), ('second', 'identity'): ('', '0.0')}


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
    ('unknown', r"vid4: frame 'other' of clip 'second' is none of the true frames, which are called .*<name>_<suffix>"),
    ('double', r"vid4: clip 'second' has two frames for '\w+': '\w+_(Another|Other)' and '\w+_(Another|Other)'"),
    ('deep', r'\w+_Other.png: the image has 16 bits a channel \(uint16\), expected 8; convert it'),
    ('smaller', r'the frames of clip .second. are 92x112 \(h x w\), those of the truth 96x112'),
    ('no clip', r"vid4: there is no clip 'second', but 'first'"),
    ('no data set', r'vid4 does not exist, where the saved frames of the data set vid4 should be'),
])
def test_saved_frames_that_do_not_fit(data, saved, what, message, capsys):
    spoil(saved, what)
    try:
        assert measure_saved(data, saved) in (1, 2)
    except SystemExit as end:
        assert end.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_label_is_for_saved_frames(data, tmp_path, capsys):
    assert measure(data, tmp_path, '--protocol', 'mbnet-table3', '--model', 'bicubic', '--label', 'x') == 2
    assert '--label is for --frames' in capsys.readouterr().err


# ---------------------------------------------------------------- models

def test_a_model_of_the_zoo(data, tmp_path):
    assert measure(data, tmp_path, '--protocol', 'mbnet-table3', '--model', 'mbnet-small', '--datasets', 'vid4') == 0
    found = json.loads((tmp_path / 'mbnet-table3_mbnet-small' / 'results.json').read_text())
    assert found['weights']['sha256'].startswith(found['weights']['file'].rsplit('-')[-1].removesuffix('.pth'))
    assert found['average']['vid4']['psnr']['vfi'] > 10


@pytest.mark.parametrize('words, message', [
    (['--protocol', 'mbnet'], "no protocol 'mbnet', expected one of mbnet-table3, mbnet-ablation"),
    (['--protocol', 'reds4'], r'protocol reds4 needs the data set reds4 at .*reds4_sharp.lmdb, which does not exist.'),
    (['--protocol', 'mbnet-table3'], '(?s)needs the data set middlebury_other .*create_lmdb.py --dataset middlebury .*'
     '--datasets vid4 ucf101 vimeo90k measures the others'),
    (['--protocol', 'vsrresnet-vid4', '--datasets', 'vid5'], "no data set 'vid5', but vid4"),
])
def test_refused(data, tmp_path, words, message, capsys):
    assert measure(data, tmp_path / 'results', '--model', 'bicubic', *words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / 'results').exists()


def test_a_network_that_does_not_fit(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        measure(data, tmp_path, '--protocol', 'vsrresnet-vid4', '--model', 'mbnet-small')
    assert end.value.code == 2 and 'takes rgb clips, but this one is y' in capsys.readouterr().err


def test_options_of_leaves_the_file_alone(data):
    opt = options_of('mbnet-table3', data, ['vid4'])
    assert [dataset['dataroot_gt'] for dataset in opt['datasets'].values()] == [str(data / 'vid4_GT.lmdb')]
