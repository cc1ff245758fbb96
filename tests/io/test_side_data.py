"""HDR metadata and what else frames carry."""
import pytest
from video_util import moving_clip, write_video

from basicsr_stvsr.io.encoding import Encoding, OutputSpec
from basicsr_stvsr.io.output_checks import check_output
from basicsr_stvsr.io.side_data import HdrMetadata
from basicsr_stvsr.io.video_info import probe
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.io.video_writer import VideoWriter

# Of a display of DCI-P3 and 1000 cd/m2, as x265's documentation gives it
DISPLAY = 'G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)'
HDR = HdrMetadata((0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329), (0.005, 1000.0), (1000, 400))


@pytest.fixture
def hdr10(tmp_path):
    path = tmp_path / 'hdr10.mp4'
    write_video(path, moving_clip(3, height=64, width=96), codec='libx265', pix_fmt='yuv420p10le',
                color={'color_primaries': 9, 'color_trc': 16, 'colorspace': 9, 'color_range': 1},
                options={'x265-params': f'log-level=error:hdr10=1:master-display={DISPLAY}:max-cll=1000,400'})
    return path


def approx(metadata):
    return tuple(pytest.approx(values, abs=1e-4) for values in metadata)


def test_hdr_is_read(hdr10):
    assert probe(hdr10).hdr == approx(HDR)


@pytest.mark.parametrize('codec', ['x264', 'x265', 'av1'])
def test_hdr_is_kept(tmp_path, hdr10, codec):
    encoding, path = Encoding(codec, preset='12' if codec == 'av1' else 'ultrafast'), tmp_path / 'out.mp4'
    with open_source(hdr10) as source:
        spec = OutputSpec.of(source.info)
        assert check_output(path, source.info, encoding, spec) == []
        with VideoWriter(path, spec, encoding, threads=1) as writer:
            for frame in source.frames():
                writer.write(*frame)
    info = probe(path)
    assert (info.bits, info.color.primaries, info.color.transfer, info.color.matrix) == (10, 9, 16, 'bt2020')
    assert info.hdr == approx(HDR)


def test_hdr_that_is_lost_is_a_warning(tmp_path, hdr10):
    info = probe(hdr10)
    (warning,) = check_output(tmp_path / 'out.mov', info, Encoding('prores'), OutputSpec.of(info))
    assert 'HDR metadata' in warning


def test_other_videos_have_none(tmp_path):
    write_video(tmp_path / 'clip.mp4', moving_clip(3))
    info = probe(tmp_path / 'clip.mp4')
    assert (info.hdr, info.lost) == (None, ())
