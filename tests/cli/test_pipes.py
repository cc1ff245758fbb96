"""`-`: videos through standard input and output, with readers and writers of others (PyAV) at the other end."""
import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import ROOT
from run_util import ENVIRONMENT
from video_util import moving_clip, write_video

from basicsr_stvsr.io.video_reader import open_source

FILM = Fraction(24000, 1001)


def through(data: bytes, *arguments: object) -> bytes:
    command = [sys.executable, '-m', 'stvsr', 'restore', *map(str, arguments), '--device', 'cpu']
    process = subprocess.run(command, input=data, capture_output=True, cwd=ROOT, env=ENVIRONMENT, timeout=200)
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout


def piped(frames: list[np.ndarray], form: str, times: list[int]) -> bytes:
    """NUT as PyAV writes it; y4m by hand, of grey frames alone."""
    if form == 'y4m':
        height, width, _ = frames[0].shape
        chroma = bytes([128]) * (height // 2 * (width // 2) * 2)
        header = f'YUV4MPEG2 W{width} H{height} F24000:1001 Ip A1:1 C420mpeg2\n'.encode()
        return header + b''.join(b'FRAME\n' + frame[..., 0].tobytes() + chroma for frame in frames)
    memory = io.BytesIO()
    with av.open(memory, 'w', format='nut') as container:
        stream = container.add_stream('rawvideo', rate=FILM, width=frames[0].shape[1], height=frames[0].shape[0])
        stream.pix_fmt, stream.codec_context.time_base = 'yuv420p', Fraction(1, 1000)
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(format='yuv420p', threads=1)
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return memory.getvalue()


@pytest.mark.parametrize('form', ['y4m', 'nut'])
def test_from_pipe_to_pipe(form):
    """Grey levels and times come out as they came in, with new frames between."""
    levels, times = [40, 80, 120, 160], [0, 40, 120, 160]
    frames = [np.full((32, 48, 3), level, np.uint8) for level in levels]
    data = through(piped(frames, form, times), '-', '-', '--model', 'dis', '--no-cuts', '--pipe-format', form)
    assert data[:9] == (b'YUV4MPEG2' if form == 'y4m' else b'nut/multi')
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        shown = list(container.decode(stream))
    assert len(shown) == 7 and (shown[0].width, shown[0].height) == (48, 32)
    luma = [frame.to_ndarray()[:32].mean() for frame in shown[::2]]  # of yuv420p
    expected = levels if form == 'y4m' else [16 + level * 219 / 255 for level in levels]
    assert luma == pytest.approx(expected, abs=1)
    if form == 'y4m':
        assert b' F48000:1001 ' in data[:80]
    else:
        seconds = [float(frame.pts * frame.time_base) for frame in shown]
        assert seconds == pytest.approx([0, 0.02, 0.04, 0.08, 0.12, 0.14, 0.16], abs=1e-3)


def test_from_a_file_to_a_pipe_to_a_file(tmp_path):
    write_video(tmp_path / 'in.mkv', moving_clip(5), rate=FILM)
    data = through(b'', tmp_path / 'in.mkv', '-', '--model', 'dis')
    through(data, '-', tmp_path / 'out.mkv', '--model', 'dis', '--codec', 'ffv1')
    with open_source(tmp_path / 'out.mkv') as source:
        assert (source.info.rate, len(list(source.times()))) == (4 * FILM, 17)
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ['in.mkv', 'out.mkv']
