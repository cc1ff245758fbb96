"""The pipeline behind `stvsr restore`, from Python."""
from pathlib import Path

import numpy as np
import pytest
from video_util import moving_clip, write_video

import basicsr_stvsr
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.zoo.network_source import NetworkSource
from basicsr_stvsr.zoo.restore_video import VideoOptions, load, restore_video


@pytest.fixture
def options(tmp_path) -> VideoOptions:
    write_video(tmp_path / 'in.mkv', moving_clip(3), codec='ffv1', pix_fmt='bgr0')
    return VideoOptions(source=tmp_path / 'in.mkv', output=tmp_path / 'out.mkv', codec='ffv1',
                        network=NetworkSource('bicubic', {'type': 'BicubicAverage', 'scale': 2}, weights=None))


def images_of(path: Path) -> list[np.ndarray]:
    with open_source(path) as source:
        return [image for image, _ in source.frames()]


def test_a_video_is_restored_as_its_frames_are(options):
    seen = []
    restore_video(options, on_progress=seen.append)
    expected = list(basicsr_stvsr.restore(images_of(options.source), load(options).net))
    np.testing.assert_array_equal(images_of(options.output), expected)
    assert [progress.frames for progress in seen] == [1, 2, 3, 4, 5]


def test_a_loaded_network_serves_several_videos_and_outputs_are_kept(options):
    loaded = load(options)
    restore_video(options, loaded=loaded)
    with pytest.raises(VideoError, match=r'out\.mkv'):
        restore_video(options, loaded=loaded)


def test_options_are_those_of_the_file_and_of_nothing_else(tmp_path):
    (tmp_path / 'net.yml').write_text('network_g: {type: BicubicAverage, scale: 2}')
    source = NetworkSource.of_options(tmp_path / 'net.yml')
    assert source == NetworkSource('net', {'type': 'BicubicAverage', 'scale': 2}, weights=None)
    assert source.fingerprint() != NetworkSource('net', {'type': 'BicubicAverage', 'scale': 4}, None).fingerprint()
    with pytest.raises(TypeError, match='outputs'):
        VideoOptions(source=tmp_path, outputs=tmp_path, network=source)
