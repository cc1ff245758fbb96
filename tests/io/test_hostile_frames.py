"""Images, folders and LMDBs that are damaged, or other than they seem."""
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from basicsr_stvsr.io import images
from basicsr_stvsr.io.frame_folder import FolderSource
from basicsr_stvsr.io.frames import FolderReader, FrameReadError
from basicsr_stvsr.io.images import decode_image
from basicsr_stvsr.io.lmdb_files import FrameSource, write_lmdb
from basicsr_stvsr.io.opening import open_reader
from basicsr_stvsr.io.photographs import PhotoReader
from basicsr_stvsr.io.video_info import VideoError


@pytest.mark.parametrize('suffix', ['png', 'webp'])
def test_animations(tmp_path, suffix):
    """OpenCV gives their first frame without a word."""
    shades = [Image.new('RGB', (16, 16), (shade, 0, 0)) for shade in (0, 100, 200)]
    path = tmp_path / f'0.{suffix}'
    shades[0].save(path)
    assert decode_image(path.read_bytes()).shape == (16, 16, 3)
    shades[0].save(path, save_all=True, append_images=shades[1:])
    with pytest.raises(ValueError, match='is an animation, expected one frame'):
        decode_image(path.read_bytes())
    with FolderReader(tmp_path) as reader, pytest.raises(FrameReadError, match=f'0.{suffix}: the image is an anim'):
        reader.frame(reader.clips[0], 0)
    with pytest.raises(VideoError, match='is an animation'):
        FolderSource(tmp_path)


def test_links_in_a_circle(tmp_path):
    (tmp_path / 'clip').mkdir()
    cv2.imwrite(str(tmp_path / 'clip' / '0.png'), np.zeros((8, 8, 3), np.uint8))
    os.symlink(tmp_path, tmp_path / 'clip' / 'above')
    os.symlink(tmp_path / 'clip', tmp_path / 'same')
    assert FolderReader(tmp_path).num_frames('clip') == 1
    assert len(PhotoReader(tmp_path).clips) == 1


def test_a_search_without_end(tmp_path, monkeypatch):
    """Such as of / or /proc."""
    monkeypatch.setattr(images, 'MOST_EMPTY_FOLDERS', 20)
    for number in range(22):
        (tmp_path / str(number)).mkdir()
    for reader in (FolderReader, PhotoReader):
        with pytest.raises(FrameReadError, match='more than 20 folders below it hold no images; is it the right folde'):
            reader(tmp_path)


def test_an_lmdb_with_zeroed_pages(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / 'a.lmdb'
    write_lmdb(path, [FrameSource(f'clip/{number}', f'clip/{number}', lambda frame=frame: frame)
                      for number, frame in enumerate(frames)])
    whole = (path / 'data.mdb').read_bytes()
    seen = set()
    for page in range(len(whole) // 4096):
        data = bytearray(whole)
        data[4096 * page:4096 * (page + 1)] = bytes(4096)
        (path / 'data.mdb').write_bytes(data)
        try:
            with open_reader(path) as reader:
                for number in range(8):
                    assert np.array_equal(reader.frame('clip', number), frames[number])
        except FrameReadError as error:
            assert '\n' not in str(error)
            seen.add('LMDB cannot read the key' in str(error))
    assert True in seen  # not only images that cannot be decoded


def test_a_list_of_keys_that_is_no_text(tmp_path):
    path = tmp_path / 'a.lmdb'
    write_lmdb(path, [FrameSource('clip/0', 'clip/0', lambda: np.zeros((8, 8, 3), np.uint8))])
    (path / 'meta_info.txt').write_bytes(b'clip/\xff')
    with pytest.raises(FrameReadError, match=r'a.lmdb: meta_info.txt is not UTF-8 text \(byte 6\)'):
        open_reader(path)
