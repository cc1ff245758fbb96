"""Videos and images with transparent pixels: read, restored with a grey picture of their alpha, and written."""
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence
from torch import nn
from torch.nn import functional as F

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.cli.info import describe
from basicsr_stvsr.io.encoding import Encoding
from basicsr_stvsr.io.transparency import BLACK, Opaque
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.video.excerpt import Excerpt
from basicsr_stvsr.video.job import Job
from basicsr_stvsr.video.plan import describe_plan, plan
from basicsr_stvsr.zoo.network_source import NetworkSource
from basicsr_stvsr.zoo.restore_video import LoadedNetwork, VideoOptions, restore_video

COLOR = 220, 180, 40
SIZE = 48, 64
CODECS = {'.mov': 'prores', '.mkv': 'ffv1'}


class Bicubic(nn.Module):
    """x2 in space; remembers how many pictures it got."""

    spec = NetSpec(scale=2, num_frames=1)

    def forward(self, lq):
        self.num_pictures = len(lq)
        return F.interpolate(lq[:, 0], scale_factor=2, mode='bicubic').unsqueeze(1)


def disc_at(number: float, scale: int = 1) -> np.ndarray:
    """Alpha, 0-255, of an opaque disc that moves by 4 pixels a frame; each pixel is the mean of 4x4 points."""
    fine = 4 * scale
    y, x = np.mgrid[:SIZE[0] * fine, :SIZE[1] * fine] + 0.5
    inside = (x - (18 + 4 * number) * fine)**2 + (y - 24 * fine)**2 < (12 * fine)**2
    return 255 * inside.reshape(SIZE[0] * scale, 4, SIZE[1] * scale, 4).mean(axis=(1, 3))


@pytest.fixture
def disc(tmp_path) -> Path:
    """A disc over transparency, as images; pixels that are transparent everywhere are black, as most programs write."""
    folder = tmp_path / 'disc'
    folder.mkdir()
    for number in range(4):
        alpha = disc_at(number).round().astype(np.uint8)
        image = np.where(alpha[..., None] > 0, np.uint8(COLOR), np.uint8(0))
        Image.fromarray(np.dstack([image, alpha])).save(folder / f'{number:02d}.png')
    return folder


def restore(source: Path, output: Path, net: nn.Module, **options) -> list[str]:
    """Restore as the command does; return warnings."""
    warnings: list[str] = []
    loaded = LoadedNetwork(net, 'net', (), None)
    restore_video(VideoOptions(source=source, output=output, network=NetworkSource.of_name('fstrn-small'),
                               codec=CODECS.get(output.suffix), **options), loaded=loaded, on_warning=warnings.append)
    return warnings


def read_rgba(path: Path) -> list[np.ndarray]:
    """As other programs read it."""
    if path.is_dir():
        return [np.asarray(Image.open(file)) for file in sorted(path.iterdir())]
    if path.suffix in CODECS:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format='rgba') for frame in container.decode(video=0)]
    with Image.open(path) as image:
        return [np.asarray(picture.convert('RGBA')) for picture in ImageSequence.Iterator(image)]


@pytest.mark.parametrize('name', ['images', 'photo.png', 'photo.tif', 'clip.mov', 'clip.mkv', 'clip.gif', 'clip.webp'])
def test_alpha_is_restored(disc, tmp_path, name):
    """Its edges are those of an enlarged grey picture, and no black shines through at them."""
    output, net = tmp_path / name, Bicubic()
    is_one = name.startswith('photo')
    assert restore(disc / '00.png' if is_one else disc, output, net) == []
    pictures = read_rgba(output)
    if name == 'clip.mov':
        with av.open(str(output)) as container:
            assert container.streams.video[0].codec_context.codec_tag == 'ap4h'  # others promise no alpha
    assert net.num_pictures == 2 and len(pictures) == (1 if is_one else 4)
    for number, picture in enumerate(pictures):
        colour, alpha = picture[..., :3].astype(float), picture[..., 3].astype(float)
        expected = cv2.resize(disc_at(number).round(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).clip(0, 255)
        if name == 'clip.gif':  # half-transparent pixels become one or the other
            assert {*alpha.flat} == {0, 255}
            alpha, expected = alpha[np.abs(expected - 128) > 3], 255 * (expected > 128)[np.abs(expected - 128) > 3]
        assert np.abs(alpha - expected).max() <= 5.1 + 1  # a fiftieth becomes 0 or 1
        assert (alpha[expected <= 0] == 0).all() and (alpha[expected >= 255] == 255).all()
        assert np.abs(colour[picture[..., 3] > 0] - COLOR).max() <= (3 if name in CODECS or '.' in name else 1)


def test_16_bits_and_a_tag_for_rotation(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 65536, (8, 10, 4), np.uint16)
    cv2.imwrite(str(tmp_path / '0.png'), image)
    (frame,) = open_source(tmp_path / '0.png', keep_alpha=True).frames()
    assert np.array_equal(frame.image, image[..., [2, 1, 0, 3]])
    exif = Image.Exif()
    exif[274] = 6
    small = (image >> 8).astype(np.uint8)
    Image.fromarray(small).save(tmp_path / 'turned.png', exif=exif)
    (frame,) = open_source(tmp_path / 'turned.png', keep_alpha=True).frames()
    turned = np.rot90(small, -1)
    is_visible = turned[..., 3] > 0
    assert np.array_equal(frame.image[is_visible], turned[is_visible])


@pytest.mark.parametrize('pix_fmt', ['yuva444p10le', 'gbrap10le', 'gbrap16le', 'yuva420p'])
def test_alpha_of_videos_has_all_levels(tmp_path, pix_fmt):
    bits = 16 if '16' in pix_fmt else 10 if '10' in pix_fmt else 8
    dtype = np.uint8 if bits == 8 else np.uint16
    levels = np.linspace(0, 2**bits - 1, 64).astype(dtype)[None].repeat(48, 0)
    frame = av.VideoFrame(64, 48, pix_fmt)
    for number, plane in enumerate(frame.planes):
        memory = np.frombuffer(plane, dtype).reshape(plane.height, -1)
        memory[:] = 2**(bits - 1)
        if number == 3:
            memory[:, :64] = levels
    with av.open(str(tmp_path / 'clip.mkv'), 'w') as container:
        stream = container.add_stream('ffv1', rate=25, width=64, height=48)
        stream.pix_fmt = pix_fmt
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(tmp_path / 'clip.mkv', keep_alpha=True) as source:
        (image, _), = source.frames()
    white = np.iinfo(image.dtype).max
    assert np.abs(image[..., 3] - levels * (white / (2**bits - 1))).max() <= white / (2**bits - 1)
    assert image[..., 3].max() == white


def test_an_output_without_alpha_is_over_black_with_a_warning(disc, tmp_path):
    (warning,) = restore(disc, tmp_path / 'out.mp4', Bicubic())
    assert 'has transparent pixels, which x264 cannot keep' in warning and '--background' in warning
    with open_source(tmp_path / 'out.mp4') as source:
        image = next(source.frames()).image
    assert image[0, 0].max() < 3 and np.abs(image[48, 36].astype(int) - COLOR).max() < 6
    assert restore(disc, tmp_path / 'blue.mp4', Bicubic(), background=(0, 0, 200)) == []
    (warning,) = restore(disc / '00.png', tmp_path / 'out.jpg', Bicubic())
    assert '.jpg files cannot keep' in warning
    assert 'prores cannot keep' in restore(disc, tmp_path / 'hq.mov', Bicubic(), preset='hq')[0]


def test_opaque_pixels_cost_nothing(tmp_path):
    """An alpha channel that is opaque everywhere is no picture for the network."""
    Image.new('RGBA', SIZE[::-1], (*COLOR, 255)).save(tmp_path / 'in.png')
    net = Bicubic()
    assert restore(tmp_path / 'in.png', tmp_path / 'out.png', net) == []
    assert net.num_pictures == 1 and Image.open(tmp_path / 'out.png').mode == 'RGB'


def test_work_with_alpha_goes_on(disc, tmp_path):
    """Segments and parts have the frames of an uninterrupted run, also with a recurrent network."""
    net = NetworkSource.of_name('hoffr-small').load('cpu')

    def run(output, source, **options):
        Job(source, output, net, model='', encoding=Encoding('ffv1'), segment_length=2).run(**options)
        return read_rgba(output)

    with open_source(disc, keep_alpha=True) as source:
        whole = run(tmp_path / 'whole.mkv', source)
        step, calls = net.step, []

        def interrupted(*args):
            calls.append(args)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return step(*args)

        net.step = interrupted
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / 'out.mkv', source)
        assert np.array_equal(run(tmp_path / 'out.mkv', source, resume=True), whole)
        part = run(tmp_path / 'part.mkv', Excerpt(source, Fraction(0), Fraction(2, 25)))
    assert np.array_equal(part, whole[:2])


def test_interpolated_alpha_is_halfway(disc, tmp_path):
    net = NetworkSource.of_name('dis').load('cpu')
    with open_source(disc, keep_alpha=True) as source:
        Job(source, tmp_path / 'out', net, model='', encoding=Encoding('png')).run()
    for number, picture in enumerate(read_rgba(tmp_path / 'out')):
        assert np.abs(picture[..., 3] - disc_at(number / 2)).max() <= 6
        assert np.abs(picture[picture[..., 3] > 0][:, :3].astype(int) - COLOR).max() <= 1


def test_video_that_becomes_transparent(tmp_path, monkeypatch):
    """Within the frames that are looked at, its alpha is kept; behind them, a warning says so."""
    clip = np.full((12, *SIZE, 4), 255, np.uint8)
    clip[10:, 5:, 5:] = 0, 0, 0, 100
    clip[..., 0] -= 3 * np.arange(12, dtype=np.uint8)[:, None, None]  # so that no two are alike
    images = [Image.fromarray(image) for image in clip]
    images[0].save(tmp_path / 'clip.png', save_all=True, append_images=images[1:], duration=100)
    with open_source(tmp_path / 'clip.png', keep_alpha=True) as source:
        assert [frame.image[-1, -1, 3] for frame in source.frames()] == 10 * [255] + 2 * [100]
    with pytest.raises(VideoError, match='has transparent pixels'):
        open_source(tmp_path / 'clip.png')
    monkeypatch.setattr('basicsr_stvsr.io.video_reader.NUM_CHECKED', 8)
    with open_source(tmp_path / 'clip.png', keep_alpha=True) as source:
        assert not source.info.has_alpha
        assert [frame.image.shape for frame in source.frames()] == 12 * [(*SIZE, 3)]
        assert 'at 1.000 s is the first with transparent pixels' in source.notes.warnings()[0]


def test_what_info_and_plans_say(disc, tmp_path):
    facts, shown = describe(str(disc), with_speed=False)
    assert facts['alpha'] is True and shown['transparent pixels'] == 'yes'
    with open_source(disc, keep_alpha=True) as source:
        facts = plan(Job(source, tmp_path / 'out', Bicubic(), model='', encoding=Encoding('png')), 'bicubic')
        assert Opaque(source, BLACK).reading != source.reading  # so that work is not resumed with another background
    assert facts['output']['alpha'] is True
    assert describe_plan(facts)['output'].endswith('png with transparent pixels')


def test_comparison_is_over_black(disc, tmp_path):
    restore(disc, tmp_path / 'out', Bicubic(), compare_clip=tmp_path / 'both.mp4', compare=True)
    with open_source(tmp_path / 'both.mp4') as source:
        image = next(source.frames()).image.astype(int)
    assert image.shape == (96, 256, 3) and (tmp_path / 'out.html').is_file()
    assert image[0].max() < 3 and all(np.abs(image[48, x] - COLOR).max() < 8 for x in (36, 164))
