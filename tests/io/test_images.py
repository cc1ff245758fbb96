"""Images as viewers show them, single images, animations, and what file managers leave in folders."""
import io

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn
from video_util import moving_clip, write_video

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.io.encoding import Encoding, default_codec
from basicsr_stvsr.io.frames import FolderReader
from basicsr_stvsr.io.images import is_hidden
from basicsr_stvsr.io.photographs import PhotoReader
from basicsr_stvsr.io.video_info import VideoError
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.video.job import Job


class Enlarge(nn.Module):
    """Each pixel four times."""

    def __init__(self):
        super().__init__()
        self.spec = NetSpec(scale=2, num_frames=1)
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, lq):
        return lq.repeat_interleave(2, -1).repeat_interleave(2, -2) * self.factor


def read(path):
    with open_source(path) as source:
        return [frame.image for frame in source.frames()]


def turned_exif():
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    return exif


CASES = {
    'opaque.png': ('RGBA', {}), 'opaque.webp': ('RGBA', {'lossless': True}), 'palette.png': ('P', {}),
    'grey.png': ('L', {}), 'grey_alpha.png': ('LA', {}), 'bits.png': ('1', {}), 'cmyk.jpg': ('CMYK', {'quality': 95}),
    'turned.png': ('RGB', {'exif': turned_exif()}), 'turned.jpg': ('RGB', {'exif': turned_exif(), 'quality': 95}),
    'turned.webp': ('RGB', {'exif': turned_exif(), 'lossless': True}), 'turned.tif': ('RGB', {'tiffinfo': {274: 6}}),
    'turned_opaque.png': ('RGBA', {'exif': turned_exif()})}


@pytest.mark.parametrize('name', CASES)
def test_images_are_read_as_pillow_shows_them(tmp_path, name):
    mode, options = CASES[name]
    image = Image.fromarray(moving_clip(1)[0]).convert(mode)
    image.save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert('RGB'))
    assert expected.shape == ((64, 48, 3) if 'turned' in name else (48, 64, 3))
    (frame,) = read(tmp_path)
    (alone,) = read(tmp_path / name)
    assert np.abs(frame.astype(int) - expected).max() <= (2 if name.endswith('jpg') else 0)
    assert np.array_equal(frame, alone)


def test_16_bits_with_opaque_alpha(tmp_path):
    image = np.random.default_rng(0).integers(0, 65536, (8, 9, 4), np.uint16)
    image[..., 3] = 65535
    cv2.imwrite(str(tmp_path / '0.png'), image)
    assert np.array_equal(read(tmp_path)[0], image[..., 2::-1])


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparent_pixels_are_refused(tmp_path, mode):
    image = Image.fromarray(moving_clip(1)[0]).convert(mode)
    image.putalpha(Image.fromarray(np.full((48, 64), 254, np.uint8)))
    image.save(tmp_path / '0.png')
    with pytest.raises(VideoError, match='transparent pixels'):
        read(tmp_path)


@pytest.mark.parametrize(('name', 'output'), [('in.png', 'out.png'), ('in.png', 'out.jpg'), ('in.jpg', 'out.webp'),
                                              ('in.webp', 'out.tif'), ('in.bmp', 'out.bmp')])
def test_one_image(tmp_path, name, output):
    Image.fromarray(moving_clip(1)[0]).save(tmp_path / name)
    expected = read(tmp_path / name)[0].repeat(2, 0).repeat(2, 1)
    with open_source(tmp_path / name) as source:
        encoding = Encoding(default_codec(tmp_path / output, source.info))
        Job(source, tmp_path / output, Enlarge(), model='', encoding=encoding).run()
    found = np.asarray(Image.open(tmp_path / output).convert('RGB'))
    assert np.abs(found.astype(int) - expected).mean() <= (5 if output.endswith('jpg') else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, output])


def test_image_for_several_frames_is_refused(tmp_path):
    for number in range(2):
        cv2.imwrite(str(tmp_path / f'{number}.png'), moving_clip(1)[0])
    with open_source(tmp_path) as source, pytest.raises(VideoError, match='named like an image'):
        Job(source, tmp_path / 'out.png', Enlarge(), model='', encoding=Encoding('png'))


# Animations

def write_animation(path, clip, durations, **options):
    images = [Image.fromarray(image) for image in clip]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, **options)


def test_gif_is_read_with_its_times(tmp_path):
    """Most of its pixels are stored as transparent where they do not change; what is shown is opaque."""
    clip = [np.full((48, 64, 3), 40, np.uint8) for _ in range(5)]
    for number, image in enumerate(clip):
        image[10:20, 8 * number:8 * number + 8] = 200, 20, 60
    write_animation(tmp_path / 'clip.gif', clip, [100, 100, 300, 50, 100], loop=0)
    with open_source(tmp_path / 'clip.gif') as source:
        frames = list(source.frames())
    assert [float(frame.time) for frame in frames] == [0, 0.1, 0.2, 0.5, 0.55]
    assert all(np.abs(frame.image.astype(int) - image).max() <= 4 for frame, image in zip(frames, clip, strict=True))


@pytest.mark.parametrize('mode', ['RGB', 'RGBA'])
def test_animated_png(tmp_path, mode):
    clip = moving_clip(4)
    write_animation(tmp_path / 'clip.png', [np.asarray(Image.fromarray(image).convert(mode)) for image in clip], 100)
    with open_source(tmp_path / 'clip.png') as source:
        frames = list(source.frames())
    assert [float(frame.time) for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, clip, strict=True))


@pytest.mark.parametrize('name', ['clip.png', 'clip.webp', 'clip.gif', 'clip.mov', 'clip.mkv', 'folder', 'photo.png'])
def test_transparent_pixels_are_kept_or_laid_over_a_colour(tmp_path, name):
    """As Pillow does it."""
    clip = [Image.fromarray(image).convert('RGBA') for image in moving_clip(3)]
    for number, image in enumerate(clip):
        alpha = np.full((48, 64), 255, np.uint8)
        alpha[:, :20 + 5 * number] = 0 if name == 'clip.gif' else 100
        image.putalpha(Image.fromarray(alpha))
    ground = Image.new('RGBA', clip[0].size, '#20a0ff')
    expected = [np.asarray(Image.alpha_composite(ground, image))[..., :3].astype(int) for image in clip]
    path = tmp_path / name
    if name == 'folder':
        path.mkdir()
        for number, image in enumerate(clip):
            image.save(path / f'{number}.png')
    elif name == 'photo.png':
        clip[0].save(path)
    elif path.suffix in ('.mov', '.mkv'):
        codec, pix_fmt = ('qtrle', 'argb') if path.suffix == '.mov' else ('ffv1', 'bgra')
        write_video(path, [av.VideoFrame.from_ndarray(np.asarray(image), format='rgba').reformat(format=pix_fmt)
                           for image in clip], codec=codec, pix_fmt=pix_fmt)
    else:
        clip[0].save(path, save_all=True, append_images=clip[1:], duration=100, disposal=2,
                     **({'lossless': True, 'exact': True} if name == 'clip.webp' else {}))
    with open_source(path, keep_alpha=True) as source:
        for frame, image in zip(source.frames(), map(np.asarray, clip), strict=False):
            assert np.array_equal(frame.image[..., 3], image[..., 3])
            error = np.abs(frame.image.astype(int) - image)[image[..., 3] > 0]
            assert error.mean() < 10 if name == 'clip.gif' else error.max() == 0
    with open_source(path, background=(0x20, 0xa0, 0xff)) as source:
        frames = [frame.image.astype(int) for frame in source.frames()]
    assert len(frames) == (1 if name == 'photo.png' else 3)
    for image, other in zip(frames, expected, strict=False):
        error = np.abs(image - other)
        assert error[:, :20].max() <= 1
        assert error.mean() < 10 if name == 'clip.gif' else error.max() <= 1  # GIF has a palette


# Folders

def test_hidden_and_thumbnail_folders_are_no_clips(tmp_path):
    data = io.BytesIO()
    Image.fromarray(moving_clip(1)[0]).save(data, 'PNG')
    for name in ('a/0.png', 'a/1.png', 'a/@eaDir/0.png/SYNOPHOTO_THUMB_M.png', 'b/0.png', 'b/._0.png', '.git/0.png',
                 '__MACOSX/a/0.png', '@eaDir/0.png', 'b/.thumbnails/0.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data.getvalue())
    (tmp_path / 'a' / 'Thumbs.db').write_bytes(b'x')
    reader = FolderReader(tmp_path)
    assert {clip: reader.num_frames(clip) for clip in reader.clips} == {'a': 2, 'b': 1}
    assert PhotoReader(tmp_path).clips == ['a/0.png', 'a/1.png', 'b/0.png']
    assert len(read(tmp_path / 'b')) == 1
    with pytest.raises(VideoError, match=r'2 folders of images \(a, b\)'):
        open_source(tmp_path)


@pytest.mark.parametrize(('name', 'expected'), [('.a', True), ('._a.png', True), ('@eaDir', True), ('Thumbs.db', True),
                                                ('__MACOSX', True), ('a.b', False), ('_a', False), ('eaDir', False)])
def test_names_of_hidden_files(name, expected):
    assert is_hidden(name) == expected
