"""Protocols: what they fix, what they write, and the baselines by each of them."""
import csv
import json
import re

import cv2
import numpy as np
import pytest
from conftest import ROOT, write_moving_clips
from skimage.metrics import peak_signal_noise_ratio

from basicsr_stvsr.cli import main
from basicsr_stvsr.data.lmdb_io import FrameSource, write_lmdb
from basicsr_stvsr.options import load_options
from basicsr_stvsr.protocols import FOLDER, PROTOCOLS, protocol_of
from basicsr_stvsr.protocols.run import BASELINES, baseline, options_of

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
