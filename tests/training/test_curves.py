"""curves.png shows what metrics.jsonl holds."""
import runpy
import sys

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from basicsr_stvsr.training.curves import plot_metrics, running_mean

SCORES = {'vid4': {'psnr': {'vsr': 26.0, 'vfi': 25.0, 'all': 25.5}, 'ssim': {'vsr': 0.8, 'vfi': 0.6, 'all': 0.7}}}


def lines_of(axes: Axes) -> dict[str, tuple[list, list]]:
    return {line.get_gid(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def test_curves_show_what_was_logged():
    times = {'time': 0.4, 'data_time': 0.1}
    rows = [
        {'iter': 100, 'epoch': 0, 'lr': 1e-4, **times, 'l_sr': 0.5, 'l_flow': 0.25, 'grad_norm': 2},
        {'iter': 200, 'epoch': 0, 'lr': 5e-5, **times, 'l_sr': 0.25, 'l_flow': None, 'grad_norm': 1},
        {'iter': 200, 'validation': SCORES},
        {'iter': 200, 'validation': {'reds': {'psnr': {'all': 30.0}}}},
        {'iter': 300, 'epoch': 1, 'lr': 5e-5, **times, 'l_sr': 0.01, 'l_flow': 0.0, 'grad_norm': 3},
        {'iter': 300, 'validation': {'vid4': {'psnr': {'vsr': 1.0, 'vfi': 1.0, 'all': 1.0}}}},
        {'iter': 300, 'validation': {'vid4': {'psnr': {'vsr': 27.0, 'vfi': 26.0, 'all': None}}}},
    ]
    figure = plot_metrics(rows, 'MBNet_x4')
    assert figure.get_suptitle() == 'MBNet_x4: iteration 300, epoch 1'
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ['Training losses', 'Learning rate', 'Validation vid4: psnr', 'Validation reds: psnr',
                            'Validation vid4: ssim', 'grad_norm', 'Time per iteration']
    assert {axes.get_xlabel() for axes in figure.axes} == {'iteration'}

    losses = lines_of(panels['Training losses'])
    assert losses['l_sr'] == ([100, 200, 300], [0.5, 0.25, 0.01])
    np.testing.assert_array_equal(losses['l_flow'][1], [0.25, np.nan, 0])
    np.testing.assert_array_equal(losses['loss'][1], [0.75, np.nan, 0.01])
    assert panels['Training losses'].get_yscale() == 'log'  # 0.01 to 0.75
    assert lines_of(panels['Learning rate']) == {'lr': ([100, 200, 300], [1e-4, 5e-5, 5e-5])}
    assert panels['Learning rate'].get_yscale() == 'linear'  # less than a power of ten
    psnr = lines_of(panels['Validation vid4: psnr'])
    assert psnr['vsr'] == ([200, 300], [26, 27]) and psnr['vfi'] == ([200, 300], [25, 26])  # the later at 300
    np.testing.assert_array_equal(psnr['all'][1], [25.5, np.nan])
    assert lines_of(panels['Validation reds: psnr']) == {'all': ([200], [30])}
    assert panels['Validation vid4: psnr'].get_ylabel() == 'psnr (dB)'
    assert panels['Validation vid4: ssim'].get_ylabel() == 'ssim'
    assert lines_of(panels['grad_norm']) == {'grad_norm': ([100, 200, 300], [2, 1, 3])}
    assert lines_of(panels['Time per iteration'])['time'][1] == [0.4, 0.4, 0.4]


def test_long_curves_are_smoothed_over_what_they_were():
    values = np.random.default_rng(0).uniform(1, 2, 200)
    rows = [{'iter': i + 1, 'l_sr': value} for i, value in enumerate(values)]
    lines = lines_of(plot_metrics(rows, 'run').axes[0])
    assert lines['raw'][1] == list(values)
    # 200 points in 50 windows: means of five, of three at the ends
    smooth = lines['l_sr'][1]
    assert smooth[100] == pytest.approx(values[98:103].mean())
    assert smooth[0] == pytest.approx(values[:3].mean()) and smooth[-1] == pytest.approx(values[-3:].mean())


def test_running_mean_leaves_gaps_out():
    values = np.arange(100, dtype=float)
    values[50] = np.nan
    values[60:63] = np.nan
    smooth = running_mean(values)  # three at a time
    assert smooth[49] == 48.5 and smooth[50] == 50 and np.isnan(smooth[61]) and smooth[99] == 98.5


def test_values_that_are_not_finite_are_marked():
    rows = [{'iter': i, 'l_sr': None if i == 3 else 1.0, 'l_flow': None if i in (3, 4) else 2.0} for i in range(1, 6)]
    axes = plot_metrics(rows, 'run').axes[0]
    assert lines_of(axes)['gaps'][0] == [3, 4]
    assert axes.get_legend().get_texts()[-1].get_text() == 'not finite: 2'


def test_a_folder_is_drawn_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['curves', str(tmp_path)])
    for module in ('basicsr_stvsr.training.curves', 'matplotlib.pyplot'):
        monkeypatch.delitem(sys.modules, module, raising=False)
    metrics = tmp_path / 'metrics.jsonl'
    metrics.write_text('no JSON\n')
    runpy.run_module('basicsr_stvsr.training.curves', run_name='__main__')
    assert not (tmp_path / 'curves.png').exists()
    metrics.write_text('{"iter": 100, "l_pix": 0.5}\n{"iter": 200, "l_pix": 0.25}\n{"iter": 300, "l_p')
    runpy.run_module('basicsr_stvsr.training.curves', run_name='__main__')
    image = cv2.imread(str(tmp_path / 'curves.png'))
    assert image.shape[1] == 1650 and image.std() > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ['curves.png', 'metrics.jsonl']
    assert 'matplotlib.pyplot' not in sys.modules  # it would choose a backend for the process
