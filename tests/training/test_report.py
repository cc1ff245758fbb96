"""report.html shows what metrics.jsonl and the files of a training hold."""
import base64
import html
import json
import math
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from run_util import train_opt

from basicsr_stvsr.evaluation.visuals import Sample, sample_numbers
from basicsr_stvsr.training import report
from basicsr_stvsr.training.report_files import MAX_VALIDATIONS, keep_samples, keep_validation, start_files, thin_out
from basicsr_stvsr.utils.json_files import read_rows

pytestmark = pytest.mark.usefixtures('quick_curves')


def section(page: str, title: str) -> str:
    return re.search(f'<section><h2>{title}</h2>(.*?)</section>', page, re.S)[1]


def table(part: str) -> list[list[str]]:
    """Cells of the rows of a table, without its head."""
    rows = [re.findall('<td[^>]*>(.*?)</td>', row) for row in re.findall('<tr>(.*?)</tr>', part)]
    return [[html.unescape(cell) for cell in row] for row in rows if row]


def pictures(part: str) -> dict[str, np.ndarray]:
    """Caption -> picture."""
    found = re.findall('src="data:image/webp;base64,([^"]+)"><figcaption>(.*?)</figcaption>', part)
    return {caption: cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            for data, caption in found}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255 ** 2 / ((a.astype(float) - b) ** 2).mean())


def test_a_training_and_its_continuation(train_here, clips, log):
    opt = train_opt(clips)
    opt['val']['val_freq'] = opt['logger']['save_checkpoint_freq'] = 2
    opt['val']['metrics']['niqe_like'] = {'type': 'calculate_ssim', 'crop_border': 0, 'better': 'lower'}
    folder = train_here(opt)
    path = folder / 'report.html'
    assert log.messages[-1] == f'Report: {path}'
    opt['train']['total_iter'] = 6
    train_here(opt, '--auto_resume')
    page, rows = path.read_text(), read_rows(str(folder / 'metrics.jsonl'))

    assert re.findall(r'(?:src|href)="(?!data:)|url\(|https?:', page.split('<summary>Options')[0]) == []
    validations = {row['iter']: row['validation'] for row in rows if 'validation' in row}
    assert sorted(validations) == [2, 4, 6]
    scores = {(name, score.split()[0], group): cells for name, score, group, *cells in table(section(page, 'Scores'))}
    assert len(scores) == 2 * 2 * 3
    for (name, metric, group), (first, latest, best, at) in scores.items():
        values = {iteration: of_sets[name][metric][group] for iteration, of_sets in validations.items()}
        expected = values[2], values[6], (min if metric == 'niqe_like' else max)(values.values())
        assert [float(first), float(latest), float(best)] == pytest.approx(expected, abs=6e-5)
        assert values[int(at)] == expected[2]

    losses = {name: cells for name, *cells in table(section(page, 'Losses and other values'))}
    steps = [row for row in rows if 'l_sr' in row]
    assert len(steps) == 6 and losses.keys() == steps[0].keys() - {'iter', 'epoch', 'time', 'data_time'}
    for name, (*numbers, missing) in losses.items():
        values = [row[name] for row in steps]
        assert [float(text) for text in numbers] == pytest.approx(
            [values[0], values[-1], min(values), max(values)], rel=6e-4)
        assert missing == '0'

    clip_scores = json.loads((folder / 'report' / 'clips.json').read_text())['sets']['both']
    worst = sorted(clip_scores, key=lambda clip: clip_scores[clip]['psnr']['all'])
    assert [row[0] for row in table(section(page, 'Worst clips'))] == [*worst, 'second']
    mean = np.mean([clip_scores[clip]['psnr']['vfi'] for clip in worst])
    assert mean == pytest.approx(validations[6]['both']['psnr']['vfi'])

    shown = [pictures(part) for part in section(page, 'Sample frames').split('<h3>')[1:]]
    assert [list(each) for each in shown] == [
        [name, 'iteration 2', 'iteration 4', 'iteration 6', 'truth'] for name in ('input', 'input before it') * 2]
    for each in shown:
        assert each['input' if 'input' in each else 'input before it'].shape == (16, 18, 3)
        assert {each[name].shape for name in ('iteration 2', 'iteration 6', 'truth')} == {(64, 72, 3)}
    # The clips are tested on three frames, so the new one is the only one of its kind.
    assert psnr(shown[1]['iteration 6'], shown[1]['truth']) == pytest.approx(clip_scores['first']['psnr']['vfi'])
    truth = cv2.imread(str(clips / 'first' / 'im2.png'))
    np.testing.assert_array_equal(shown[1]['truth'], truth)
    assert f'torch</td><td>{torch.__version__}' in section(page, 'Environment')
    assert 'MBNet (' in section(page, 'Summary') and 'total_iter: 6' in page


@pytest.fixture
def experiment(tmp_path) -> Path:
    """NaN losses, a validation without finite scores, times that are easy to add, and no options."""
    rows = [{'iter': 100, 'epoch': 0, 'lr': 1e-4, 'time': 0.5, 'data_time': 0.1, 'l_sr': 0.5, 'l_flow': None},
            {'iter': 200, 'epoch': 0, 'lr': 1e-4, 'time': 1.5, 'data_time': 0.2, 'l_sr': None, 'l_flow': None},
            {'iter': 200, 'validation': {'<vid&4>': {'psnr': {'vsr': None, 'all': None}}}, 'validation_time': 40.0},
            {'iter': 250, 'epoch': 1, 'lr': 1e-4, 'time': None, 'data_time': None, 'l_sr': 0.25, 'l_flow': None}]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return tmp_path


def test_values_that_are_not_finite(experiment):
    keep_validation(str(experiment), 200, {'<vid&4>': {'<b>': {'psnr': {'all': math.nan}},
                                                       'good': {'psnr': {'all': 30.0}}}}, {})
    page = report.write_report(str(experiment)).read_text()
    assert table(section(page, 'Losses and other values')) == [
        ['lr', '0.0001', '0.0001', '0.0001', '0.0001', '0'], ['l_sr', '0.5', '0.25', '0.25', '0.5', '1'],
        ['l_flow', 'not finite', 'not finite', '–', '–', '3']]
    assert [row[3:] for row in table(section(page, 'Scores'))] == [['not finite', 'not finite', '–', '–']] * 2
    assert table(section(page, 'Worst clips')) == [['<b>', 'not finite'], ['good', '30.0000']]
    assert '<b>' not in page and '<vid' not in page


def test_times_of_the_phases(experiment):
    page = report.write_report(str(experiment)).read_text()
    assert [row[1:3] for row in table(section(page, 'Time'))] == [
        ['0:00:30', '12.5%'], ['0:02:50', '70.8%'], ['0:00:40', '16.7%'], ['0:04:00', '100.0%']]


def test_by_command(experiment, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['report', str(experiment)])
    report.main()
    assert capsys.readouterr().out.strip() == str(experiment / 'report.html')
    assert 'data:image/png;base64' in (experiment / 'report.html').read_text()
    monkeypatch.setattr('sys.argv', ['report', str(experiment / 'missing')])
    with pytest.raises(SystemExit, match='usage: .* FOLDER, the folder of metrics.jsonl'):
        report.main()


def sample(clip: str = 'first', value: int = 0) -> Sample:
    truth = np.zeros((400, 600, 3), np.uint8)
    truth[200:240, 300:340] = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    return Sample('vsr', clip, 'im3', truth[::4, ::4], np.full_like(truth, value), truth)


def results(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.rglob('*.webp'))


def test_a_resumed_run_drops_later_frames_and_scores(tmp_path):
    for iteration in (100, 200, 300):
        keep_validation(str(tmp_path), iteration, {}, {'vid4': [sample(value=iteration // 10)]})
    start_files(str(tmp_path), 200, 'summary')
    assert results(tmp_path) == ['vsr_100', 'vsr_200', 'vsr_input', 'vsr_truth']
    assert not (tmp_path / 'report' / 'clips.json').exists()
    assert cv2.imread(str(next(tmp_path.rglob('vsr_200.webp')))).mean() == 20


def test_the_part_with_the_detail_is_shown(tmp_path):
    keep_samples(tmp_path, 100, [sample()])
    truth = cv2.imread(str(tmp_path / 'vsr_truth.webp'))
    assert truth.shape == (160, 160, 3) and (truth > 0).sum() == (sample().gt > 0).sum()
    given = cv2.imread(str(tmp_path / 'vsr_input.webp'))
    np.testing.assert_array_equal(given, truth[::4, ::4])
    keep_samples(tmp_path, 200, [sample('second')])  # other frames are not compared
    assert results(tmp_path) == ['vsr_200', 'vsr_input', 'vsr_truth']


@pytest.mark.parametrize('dark', [False, True])
def test_in_a_browser(browser, experiment, dark):
    """It asks for nothing outside, shows all pictures, and follows the colours of the system; curves too."""
    keep_validation(str(experiment), 200, {}, {'vid4': [sample()]})
    assert cv2.imwrite(str(experiment / 'curves.png'), np.full((60, 300, 3), 255, np.uint8))
    browser.open(report.write_report(str(experiment)), dark=dark, ready='true')
    assert browser.run('[...document.images].map(image => image.naturalWidth)') == [300, 40, 160, 160]
    addresses = [event['params']['request']['url'] for event in browser.complaints()]
    assert {address.partition(',')[0] for address in addresses} == {'data:image/png;base64', 'data:image/webp;base64'}
    left, top, width, height = map(int, browser.box('.curves'))
    browser.run(f'window.scrollTo(0, {top - 100})')
    left, top, width, height = map(int, browser.box('.curves'))
    screen = browser.screenshot()
    for brightness in (screen[5, 5].mean(), screen[top + height // 2, left + width // 2].mean()):
        assert brightness < 50 if dark else brightness > 230


def test_few_validations_are_shown_of_many():
    kept: list[int] = []
    for iteration in range(1, 101):
        kept.append(iteration)
        kept = [each for each in kept if each not in thin_out(kept)]
    gaps = np.diff(kept)
    assert len(kept) == MAX_VALIDATIONS and kept[0] == 1 and kept[-1] == 100
    assert gaps.max() <= 32  # seven equal gaps would be 14


@pytest.mark.parametrize('first, num_frames, scale, expected', [
    (0, 7, 2, [2, 3]), (1, 7, 2, [3, 4]), (0, 1, 2, [0]), (1, 1, 2, [1]), (0, 5, 1, [2]), (2, 1, 1, [2])])
def test_frames_near_the_middle_are_shown(first, num_frames, scale, expected):
    assert sample_numbers(first, num_frames, scale) == expected


def test_an_error_in_the_report_is_a_warning(train_here, clips, log, monkeypatch):
    def fail(*_):
        raise RuntimeError('no report today')

    monkeypatch.setattr(report, 'write_report', fail)
    monkeypatch.setattr('basicsr_stvsr.training.log.keep_validation', fail)
    opt = train_opt(clips)
    opt['train']['total_iter'] = 1
    folder = train_here(opt)
    warnings = [record for record in log.records if 'RuntimeError: no report today' in record.getMessage()]
    assert warnings and {record.levelname for record in warnings} == {'WARNING'}
    assert (folder / 'models' / 'net_g_latest.pth').is_file() and not (folder / 'report.html').exists()


def test_a_report_of_a_long_training_takes_no_time(tmp_path):
    with (tmp_path / 'metrics.jsonl').open('w') as file:
        for iteration in range(100, 300_001, 100):
            file.write(json.dumps({'iter': iteration, 'epoch': 0, 'lr': 1e-4, 'time': 0.5, 'data_time': 0.1,
                                   **{f'l_{i}': 0.5 for i in range(6)}}) + '\n')
    start = time.process_time()
    report.write_report(str(tmp_path))
    assert time.process_time() - start < 1
