"""What a training and a test say on the terminal, and what their log files keep."""
import logging
import math
import re
import sys

import pytest
import yaml
from basicsr.utils import get_root_logger
from conftest import TINY_NET
from run_util import train_opt

from basicsr_stvsr.config import check_options
from basicsr_stvsr.test import test_pipeline as run_test_pipeline
from basicsr_stvsr.training.log_file import details_to_file


def log_of(folder) -> str:
    (file,) = folder.glob('*.log')
    return file.read_text()


def test_one_screen_on_the_terminal_and_the_details_in_the_log_file(train_here, clips, tmp_path, capsys):
    opt = train_opt(clips)
    folder = train_here(opt)
    shown, log = capsys.readouterr().err, log_of(folder)
    before, _, after = shown.partition('iter:       1, ')
    assert before.count('\n') <= 20 and after.count('\n') <= 20
    lines = re.findall(r'^  (\w+) +(.*)$', before, re.MULTILINE)
    parameters = re.search(r'Network: MBNet, with parameters: ([\d,]+)', log)[1]
    assert lines == [
        ('network', f'MBNet ({parameters} parameters)'),
        ('data', 'clips: 10 samples, batches of 2'),
        ('validation', 'both: 2 clips, one: 1 clip; every 100 iterations'),
        ('device', 'CPU, 1 thread'),
        ('precision', 'fp32'),
        ('schedule', 'iterations 0 to 4, 5 in an epoch; Adam, learning rate 0.001, MultiStepRestartLR'),
        ('output', str(folder))]
    for detail in ('PyTorch: ', 'use_hflip: True', '(flow_net): OFRNet('):
        assert detail not in shown and log.count(detail) == 1
    assert all(line in log for line in shown.splitlines())

    test = {key: opt[key] for key in ('name', 'model_type', 'scale', 'num_gpu', 'val')} | {
        'network_g': TINY_NET, 'datasets': {'test': opt['datasets']['val']},
        'path': {'pretrain_network_g': str(folder / 'models' / 'net_g_latest.pth')}}
    (tmp_path / 'test.yml').write_text(yaml.safe_dump(test))
    run_test_pipeline(str(tmp_path), ['-opt', str(tmp_path / 'test.yml')])
    shown, log = capsys.readouterr().err, log_of(tmp_path / 'results' / 'tiny')
    assert shown.count('\n') <= 20 and '  data        both: 2 clips\n' in shown and 'psnr: vsr' in shown
    for detail in ('PyTorch: ', 'calculate_psnr', '(flow_net): OFRNet('):
        assert detail not in shown and log.count(detail) == 1


def test_warnings_are_shown_while_details_are_not(capsys, monkeypatch):
    """And whatever happens, the terminal is as it was."""
    logger = get_root_logger()
    monkeypatch.setattr(logger, 'handlers', [logging.StreamHandler(sys.stderr)])
    with pytest.raises(ValueError), details_to_file(logger):
        logger.info('a detail')
        logger.warning('a warning')
        raise ValueError
    logger.info('a message')
    assert capsys.readouterr().err == 'a warning\na message\n'


@pytest.mark.parametrize('value', [3, [1], 'text'])
@pytest.mark.parametrize('name', ['val', 'path', 'network_g'])
@pytest.mark.parametrize('model', ['MBNetModel', 'SRModel'])
def test_what_is_no_block_is_named(clips, model, name, value):
    opt = train_opt(clips) | {'model_type': model, name: value}
    with pytest.raises(ValueError, match=f'^{name} must be a block, but is '):
        check_options(opt, is_train=True)


def test_there_is_no_best_of_scores_that_are_left_out(train_here, clips, capsys, monkeypatch):
    """NIQE takes frames of 192 pixels and more; those of these clips are smaller."""
    opt = train_opt(clips)
    niqe = {'type': 'calculate_niqe', 'crop_border': 0, 'better': 'lower'}
    opt['val'] |= {'val_freq': 2, 'metrics': opt['val']['metrics'] | {'niqe': niqe}}
    train_here(opt)
    shown = capsys.readouterr().err
    assert 'niqe' in shown and 'inf' not in shown.replace('INFO', '') and 'Best all: ' in shown
    assert not math.isnan(float(re.search(r'Best all: ([\d.]+) @', shown)[1]))
