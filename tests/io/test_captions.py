"""Closed captions in the frames of a video become a subtitle stream."""
from fractions import Fraction

import av
import numpy as np
import pytest
from torch import nn
from video_util import moving_clip, write_video

from basicsr_stvsr.archs.spec import NetSpec
from basicsr_stvsr.io.captions import joined
from basicsr_stvsr.io.encoding import Encoding, OutputSpec
from basicsr_stvsr.io.output_checks import check_output
from basicsr_stvsr.io.video_info import probe
from basicsr_stvsr.io.video_reader import open_source
from basicsr_stvsr.video.excerpt import Excerpt
from basicsr_stvsr.video.job import Job


def with_captions(path, num_frames, shown):
    """Write a video with CEA-608 as ATSC A/53 stores it in the user data of H.264: two bytes in each picture.

    `shown` has (number of a frame, text that appears there), '' for nothing.
    """
    pairs = [(0, 0)] * num_frames
    for number, text in shown:
        letters = text.encode() + b'\0' * (len(text) % 2)
        letter_pairs = zip(letters[::2], letters[1::2], strict=True)
        # Twice each: load a hidden text, erase it, go to the last row; letters; show it. Or only erase what is shown
        commands = [*[(0x14, 0x20)] * 2, *[(0x14, 0x2e)] * 2, *[(0x14, 0x70)] * 2, *letter_pairs,
                    *[(0x14, 0x2f)] * 2] if text else [(0x14, 0x2c)] * 2
        pairs[number + 2 - len(commands):number + 2] = commands
    raw = path.with_suffix('.h264')
    write_video(raw, [np.roll(moving_clip(1)[0], number, axis=1) for number in range(num_frames)], options={'bf': '0'})
    units = raw.read_bytes().split(b'\x00\x00\x01')
    out, coming = units[0], iter(pairs)
    for unit in units[1:]:
        if unit[0] & 31 in (1, 5):
            odd = bytes(byte | 0x80 * (byte.bit_count() % 2 == 0) for byte in next(coming))
            out += (b'\x00\x00\x01\x06\x04\x0e\xb5\x00\x31GA94\x03\x41\xff\xfc' + odd + b'\xff\x80')
        out += b'\x00\x00\x01' + unit
    raw.write_bytes(out)
    with av.open(str(raw)) as given, av.open(str(path), 'w') as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            container.mux(packet)


class Same(nn.Module):
    spec = NetSpec(scale=1, num_frames=1)

    def forward(self, lq):
        return lq


@pytest.mark.parametrize(('name', 'codec'), [('out.mp4', 'mov_text'), ('out.mkv', 'subrip')])
def test_captions_become_subtitles(tmp_path, name, codec):
    path = tmp_path / 'in.ts'
    with_captions(path, 100, [(25, 'HELLO'), (50, ''), (75, 'Second, text')])
    with open_source(path) as source:
        job = Job(source, tmp_path / name, Same(), model='')
        assert len(job.warnings) == 1 and 'closed captions in the picture become a subtitle stream' in job.warnings[0]
        job.run()
        assert len(job.warnings) == 1
        Job(Excerpt(source, Fraction(7, 5), Fraction(2)), tmp_path / 'part.mkv', Same(), model='').run()
    assert texts_of(tmp_path / name) == [(1, 2, 'HELLO'), (3, 3.96, 'Second, text')]
    assert texts_of(tmp_path / 'part.mkv') == [(0, 0.6, 'HELLO'), (1.6, 1.96, 'Second, text')]
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.subtitles[0].codec_context.name in (codec, 'srt')


def texts_of(path):
    with av.open(str(path)) as container:
        return [(round(float(packet.pts * packet.time_base), 2),
                 round(float((packet.pts + packet.duration) * packet.time_base), 2),
                 packet.decode()[0].dialogue.decode())
                for packet in container.demux(subtitles=0) if packet.size > 2]


def test_captions_that_are_typed():
    """Letters that follow soon belong to the same text."""
    screens = [(0, 'H'), (0.1, 'HE'), (0.2, 'HEY'), (3, 'HEY\nY'), (3.1, 'HEY\nYOU'), (4, '')]
    assert list(joined(screens)) == [(0, 3, 'HEY'), (3, 4, 'HEY\nYOU')]


def test_captions_without_text_or_place(tmp_path):
    with_captions(tmp_path / 'in.ts', 10, [])
    info = probe(tmp_path / 'in.ts')
    assert check_output(tmp_path / 'out', info, Encoding('png'), OutputSpec.of(info)) == [
        'a folder of frames cannot hold closed captions']
    with open_source(tmp_path / 'in.ts') as source:
        job = Job(source, tmp_path / 'out.mp4', Same(), model='')
        job.run()
    assert 'no text' in job.warnings[-1]
    with av.open(str(tmp_path / 'out.mp4')) as container:
        assert not container.streams.subtitles
