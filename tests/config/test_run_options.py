"""Trainings and tests from Python, without a command line or a file."""
import json

import pytest
import yaml
from conftest import ROOT

from basicsr_stvsr.config.run_options import RunOptions, read_command, start_run
from basicsr_stvsr.test import test as run_test

BASELINE = {
    'name': 'x', 'model_type': 'STVSRModel', 'scale': 4, 'num_gpu': 0, 'manual_seed': 0,
    'datasets': {'test': {'name': 'clips', 'type': 'STVSRTestDataset'}},
    'network_g': {'type': 'BicubicAverage', 'scale': 4}, 'path': {},
    'val': {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}}}


def baseline(clips) -> dict:
    return {**BASELINE, 'datasets': {'test': {**BASELINE['datasets']['test'], 'dataroot_gt': str(clips)}}}


def test_a_test_from_python_writes_what_the_command_writes(tmp_path, clips, monkeypatch):
    """Without a file; the options stay as they are."""
    options = baseline(clips)
    run_test(RunOptions(action='test', options=options, root=tmp_path / 'ours'))
    assert options == baseline(clips)
    (tmp_path / 'x.yml').write_text(yaml.safe_dump(options))
    run_test(read_command('test', tmp_path / 'command', ['-opt', str(tmp_path / 'x.yml')]))
    ours, theirs = (json.loads((tmp_path / name / 'results' / 'x' / 'clips.json').read_text())
                    for name in ('ours', 'command'))
    assert ours['average'] == theirs['average'] and ours['average']['psnr']['vfi'] > 10


def test_errors_are_exceptions(tmp_path):
    options = {**baseline(tmp_path / 'missing'), 'scale': 'four'}
    with pytest.raises(ValueError, match="^scale must be a whole number, but is 'four'"):
        run_test(RunOptions(action='test', options=options, root=tmp_path))
    with pytest.raises(FileNotFoundError, match='missing'):
        run_test(RunOptions(action='test', options=baseline(tmp_path / 'missing'), root=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_run_holds_what_the_command_line_says(tmp_path):
    file = ROOT / 'options' / 'train_fstrn_small.yml'
    run = read_command('train', tmp_path, ['-opt', str(file), '--check', '--auto_resume', '--force_yml', 'scale=2'])
    assert run == RunOptions.from_file('train', file, root=tmp_path, changes=['scale=2'], check=True, auto_resume=True,
                                       command=run.command)
    assert run.is_train and run.options['scale'] == 2 and run.command.endswith('--force_yml scale=2')
    with pytest.raises(ValueError, match='network_g.scale is 4, but scale is 2|scale'):
        start_run(run)
