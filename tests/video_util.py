"""Videos for the tests, made with PyAV alone: nothing here comes from the package that they test."""
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

LUMA = {'bt601': (0.299, 0.114), 'bt709': (0.2126, 0.0722), 'bt2020': (0.2627, 0.0593)}  # of red and blue, ITU-R
COLORSPACE = {'rgb': 0, 'bt709': 1, 'unspecified': 2, 'bt601': 6, 'bt2020': 9}  # ITU-T H.273


def moving_clip(num_frames: int, *, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Smooth noise that moves by two pixels a frame; uint8 RGB."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height // 8 + 2, (width + 2 * num_frames) // 8 + 2, 3), np.uint8)
    scene = cv2.resize(scene, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(scene[:height, 2 * i:2 * i + width]) for i in range(num_frames)]


def numbered_clip(num_frames: int, *, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames that show their number by their grey, so that none can be taken for another; see `number_of`."""
    return [np.full((height, width, 3), 16 + 5 * (number % 45), np.uint8) for number in range(num_frames)]


def number_of(image: np.ndarray) -> int:
    return round((float(image.mean()) / (257 if image.dtype == np.uint16 else 1) - 16) / 5)


def rgb_of(yuv: np.ndarray, matrix: str, *, full_range: bool, bits: int) -> np.ndarray:
    """RGB in 0-1 of (..., 3) YUV levels, by the formulas of ITU-R BT.601, BT.709 and BT.2020."""
    red, blue = LUMA[matrix]
    y, u, v = np.moveaxis(np.asarray(yuv, float), -1, 0)
    top, unit = 2**bits - 1, 2**(bits - 8)
    if full_range:
        y, u, v = y / top, (u - 128 * unit) / top, (v - 128 * unit) / top
    else:
        y, u, v = (y - 16 * unit) / (219 * unit), (u - 128 * unit) / (224 * unit), (v - 128 * unit) / (224 * unit)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b], axis=-1).clip(0, 1)


def yuv_of(rgb: np.ndarray, matrix: str, *, full_range: bool, bits: int) -> np.ndarray:
    """YUV levels, not rounded, of (..., 3) RGB in 0-1: the reverse of `rgb_of`."""
    red, blue = LUMA[matrix]
    r, g, b = np.moveaxis(np.asarray(rgb, float), -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    top, unit = 2**bits - 1, 2**(bits - 8)
    if full_range:
        return np.stack([y * top, u * top + 128 * unit, v * top + 128 * unit], axis=-1)
    return np.stack([16 * unit + 219 * unit * y, 128 * unit + 224 * unit * u, 128 * unit + 224 * unit * v], axis=-1)


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """The memory of a frame's planes, without padding."""
    dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    return [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, :plane.width] for plane in frame.planes]


def shown(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) RGB, 0-255, by the formulas of ITU-R; chroma is that of the nearest sample."""
    bits = frame.format.components[0].bits
    if frame.format.is_rgb:
        return frame.to_ndarray(format='rgb24').astype(float) if bits == 8 else (
            frame.to_ndarray(format='gbrp16le') / 257)
    luma, *chroma = planes(frame)
    (height, width), (rows, columns) = luma.shape, chroma[0].shape
    chroma = [plane.repeat(-(-height // rows), 0).repeat(-(-width // columns), 1)[:height, :width] for plane in chroma]
    matrix = 'bt709' if frame.colorspace == 1 else 'bt601'
    return 255 * rgb_of(np.stack([luma, *chroma], -1), matrix, full_range=frame.color_range == 2, bits=bits)


def frame_of_planes(arrays: Sequence[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    height, width = arrays[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, array in zip(frame.planes, arrays, strict=True):
        memory = np.frombuffer(plane, array.dtype).reshape(plane.height, -1)
        memory[:, :plane.width] = array
    return frame


def write_video(path: Path, frames: Sequence[np.ndarray | av.VideoFrame], *, codec: str = 'libx264',
                pix_fmt: str = 'yuv420p', rate: Fraction = Fraction(25), times: Sequence[Fraction] | None = None,
                time_base: Fraction | None = None, rotation: int = 0, color: dict[str, int] | None = None,
                options: dict[str, str] | None = None, container_options: dict[str, str] | None = None,
                container_format: str | None = None) -> list[Fraction]:
    """Writes uint8 RGB arrays, or frames as they are; returns their times.

    `rotation` is in degrees clockwise by which players turn the video; `color` holds fields of the codec context.
    """
    times = [number / rate for number in range(len(frames))] if times is None else list(times)
    time_base = time_base or 1 / rate
    with av.open(str(path), 'w', format=container_format, container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {}, time_base=time_base)
        context = stream.codec_context
        first = frames[0]
        stream.width, stream.height = ((first.width, first.height) if isinstance(first, av.VideoFrame)
                                       else (first.shape[1], first.shape[0]))
        stream.pix_fmt, context.time_base, context.thread_count = pix_fmt, time_base, 1
        for name, value in (color or {}).items():
            setattr(context, name, value)
        if rotation:
            stream.set_display_rotation(-rotation)
        for frame, time in zip(frames, times, strict=True):
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base, frame.duration = int(time / time_base), time_base, round(1 / rate / time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return times


def packets_of(path: Path) -> dict[int, list[tuple[Fraction, bytes]]]:
    """Time and data of each packet, by the index of its stream."""
    found: dict[int, list[tuple[Fraction, bytes]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None:
                found.setdefault(packet.stream_index, []).append((packet.pts * packet.time_base, bytes(packet)))
    return found


def write_film(path: Path, *, rate: Fraction = Fraction(24000, 1001), num_frames: int = 48, flash: int = 24,
               audio: Sequence[str] = ('aac', 'ac3'), subtitle: str | None = 'mov_text', text: bytes | None = None,
               container_options: dict[str, str] | None = None) -> float:
    """A dark video with one white frame, and a beep in each sound track at the same time; returns that time.

    The film has a title, two chapters, and languages and titles of its streams. Subtitles are 'line 0' and 'line 1', or
    packets of `text`.
    """
    with av.open(str(path), 'w', container_options=container_options or {}) as container:
        container.metadata.update(title='A film', comment='of nothing')
        video = container.add_stream('libx264', rate=rate, options={'g': '12'}, width=64, height=48)
        video.pix_fmt, video.codec_context.time_base, video.codec_context.thread_count = 'yuv420p', 1 / rate, 1
        tracks = []
        for number, codec in enumerate(audio):
            tracks.append(container.add_stream(codec, rate=48000))
            tracks[-1].metadata.update(language=('deu', 'fra')[number], title=f'Track {number}')
            tracks[-1].disposition = int(number == len(audio) - 1)
        texts = None
        if subtitle:
            texts = container.add_mux_stream(subtitle)
            texts.time_base = Fraction(1, 1000)
            texts.metadata['language'] = 'spa'
        container.set_chapters([
            {'id': 1, 'start': 0, 'end': 1000, 'time_base': Fraction(1, 1000), 'metadata': {'title': 'One'}},
            {'id': 2, 'start': 1000, 'end': 2000, 'time_base': Fraction(1, 1000), 'metadata': {'title': 'Two'}}])
        for number in range(num_frames):
            image = np.full((48, 64, 3), 235 if number == flash else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format='yuv420p', threads=1)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode())
        seconds = np.arange(int(48000 * num_frames / rate)) / 48000
        start = float(flash / rate)
        beep = np.sin(2 * np.pi * 1000 * seconds) * ((seconds >= start) & (seconds < start + 0.04)) * 0.5
        for track in tracks:
            _encode_sound(container, track, beep.astype(np.float32))
        if texts is not None:
            for number, (begin, end) in enumerate(((200, 700), (1200, 1700))):
                line = f'line {number}'.encode()
                packet = av.Packet(text or (len(line).to_bytes(2) + line if subtitle == 'mov_text' else line))
                packet.pts = packet.dts = begin
                packet.duration, packet.time_base, packet.stream = end - begin, Fraction(1, 1000), texts
                container.mux(packet)
    return start


def _encode_sound(container: Any, track: Any, samples: np.ndarray) -> None:
    size = 1024
    for start in range(0, len(samples) - size, size):
        both = np.ascontiguousarray(np.stack([samples[start:start + size]] * 2))
        frame = av.AudioFrame.from_ndarray(both, format='fltp', layout='stereo')
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(track.encode(frame))
    container.mux(track.encode())


def beep_time(path: Path, track: int) -> float:
    """When the sound of an audio track gets loud, seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        resampler = av.AudioResampler(format='fltp', layout='mono')
        for frame in container.decode(stream):
            start = frame.pts * frame.time_base
            for part in resampler.resample(frame):
                loud = np.flatnonzero(np.abs(part.to_ndarray()[0]) > 0.1)
                if len(loud):
                    return float(start) + loud[0] / part.sample_rate
    raise AssertionError(f'{path}: track {track} is silent')


def flash_time(path: Path) -> float:
    """When the frame is shown that is white, seconds."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if planes(frame)[0].mean() > 128:
                return float(frame.pts * frame.time_base)
    raise AssertionError(f'{path}: no frame is white')


def write_yuv(path: Path, clip: Sequence[Sequence[np.ndarray]]) -> Path:
    """Writes raw video: the planes of each frame, Y, U and V."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b''.join(plane.tobytes() for frame in clip for plane in frame))
    return path
