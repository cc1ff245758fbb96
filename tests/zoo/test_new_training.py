"""`stvsr init`: option files for a user's clips, which train at once."""
import cv2
import numpy as np
import pytest
import yaml
from video_util import moving_clip, write_video

from basicsr_stvsr.train import train_pipeline
from basicsr_stvsr.zoo.new_training import RECIPES
from stvsr.main import main
from stvsr.training_parser import SYSTEMS



def write_clips(folder, clips: dict[str, tuple[int, int, int]]):
    """Clips of frames of noise: name -> (frames, height, width)."""
    for name, (number, *size) in clips.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            frame = cv2.GaussianBlur(np.random.default_rng(i).uniform(0, 255, (*size, 3)), (0, 0), 3)
            cv2.imwrite(str(folder / name / f'{i:08d}.png'), frame)
    return folder


def test_every_system_has_a_recipe():
    assert tuple(RECIPES) == SYSTEMS


@pytest.mark.parametrize('system', SYSTEMS)
def test_what_init_writes_trains(system, tmp_path, capsys):
    data = write_clips(tmp_path / 'clips', {name: (9 if system == 'fisr' else 6, 64, 72) for name in 'abc'})
    assert main(['init', system, '--data', str(data), '--output', str(tmp_path / 'my.yml')]) == 0
    printed = capsys.readouterr().out
    assert '2 clips for training, 1 for validation' in printed and 'patches of 64 pixels' in printed
    assert (tmp_path / 'my_train.txt').read_text() == 'a\nc\n' and (tmp_path / 'my_val.txt').read_text() == 'b\n'
    train_pipeline(str(tmp_path), [
        '-opt', str(tmp_path / 'my.yml'), '--check', '--force_yml', 'datasets:train:batch_size_per_gpu=1',
        'datasets:train:num_worker_per_gpu=0', 'num_gpu=0'])
    printed = capsys.readouterr().out
    assert 'first step  l_' in printed and "clip 'b' of val" in printed
    assert not (tmp_path / 'experiments').exists()
