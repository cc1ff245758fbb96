"""Folders of runs that have the name of earlier ones."""
import pytest

from basicsr_stvsr.utils import new_folder
from basicsr_stvsr.utils.new_folder import make_new_folder


def test_three_runs_in_one_second(tmp_path, monkeypatch):
    monkeypatch.setattr(new_folder.time, 'strftime', lambda form: '20260101_000000')
    for number in range(3):
        make_new_folder(tmp_path / 'run')
        (tmp_path / 'run' / str(number)).touch()
    start = 'run_archived_20260101_000000'
    assert {path.name: [file.name for file in path.iterdir()] for path in tmp_path.iterdir()} == {
        start: ['0'], f'{start}_2': ['1'], 'run': ['2']}


def test_a_run_that_starts_at_the_same_time(tmp_path, monkeypatch):
    """It makes the folder after this one has moved the older folder away."""
    (tmp_path / 'run').mkdir()
    monkeypatch.setattr(new_folder, 'moved_away', lambda folder: folder)
    with pytest.raises(FileExistsError, match='run was made by another run in this moment: give each its own name'):
        make_new_folder(tmp_path / 'run')
