"""What `stvsr restore` keeps of which files: the list behind the tables of docs/videos.md and the tests of each cell.

    python tests/video/format_table.py     # prints the tables
"""
from collections.abc import Sequence
from typing import NamedTuple

INPUT_FEATURES = ('frames', 'times', 'variable rate', 'B-frames', 'sound', 'subtitles', 'rotation', 'pixel aspect',
                  'colour tags', '10 bits')
OUTPUT_FEATURES = ('frames', 'variable rate', 'sound', 'subtitles', 'rotation', 'pixel aspect', 'colour tags',
                   '10 bits')
_NAMES = {'libx264': 'H.264', 'libx265': 'H.265', 'libsvtav1': 'AV1', 'libvpx': 'VP8', 'libvpx-vp9': 'VP9',
          'mpeg4': 'MPEG-4', 'msmpeg4': 'MS MPEG-4', 'mpeg2video': 'MPEG-2', 'mpeg1video': 'MPEG-1', 'mjpeg': 'MJPEG',
          'prores_ks': 'ProRes', 'dnxhd': 'DNxHR', 'qtrle': 'Animation', 'png': 'PNG', 'ffv1': 'FFV1',
          'huffyuv': 'HuffYUV', 'libtheora': 'Theora', 'wmv2': 'WMV', 'flv': 'FLV1', 'rawvideo': 'uncompressed'}


class Input(NamedTuple):
    """A kind of input.

    Attributes:
        suffix: of the file; '' for a folder of images.
        codec: FFmpeg's encoder, or the format of images.
        pixels: pixel format.
        sound, subtitle: FFmpeg's encoders; '' where there is no such stream.
        features: what the file has besides frames, times and streams.
        wide: pixel format of 10 bits or more.
        options: of the encoder.
        unit: times are multiples of it, seconds; 0: exact.
    """
    suffix: str
    codec: str
    pixels: str = 'yuv420p'
    sound: str = ''
    subtitle: str = ''
    features: str = ''
    wide: str = ''
    options: dict[str, str] = {}
    unit: float = 0
    sound_becomes: str = ''

    def __str__(self) -> str:
        return f'{self.suffix[1:] or "folder"}, {_NAMES.get(self.codec, self.codec)}'

    def cell(self, feature: str) -> str:
        if not self.has(feature):
            return '–'
        if feature == 'subtitles' and self.subtitle == 'mov_text':
            return 'as SubRip'
        return f'as {self.sound_becomes.upper()}' if feature == 'sound' and self.sound_becomes else '✓'

    def has(self, feature: str) -> bool:
        return {'frames': True, 'times': bool(self.suffix), 'sound': bool(self.sound), 'subtitles': bool(self.subtitle),
                '10 bits': bool(self.wide)}.get(feature, feature in self.features.split(', '))


_ALL = 'variable rate, rotation, pixel aspect, colour tags'  # that a container can store
_B = ', B-frames'
INPUTS = (
    Input('.mp4', 'libx264', sound='aac', subtitle='mov_text', features=_ALL + _B, wide='yuv420p10le'),
    Input('.mp4', 'libx265', sound='ac3', features=_ALL + _B, wide='yuv420p10le'),
    Input('.mp4', 'libsvtav1', sound='libopus', features=_ALL, wide='yuv420p10le', options={'preset': '6'}),
    Input('.mp4', 'libvpx-vp9', sound='aac', features=_ALL),
    Input('.mp4', 'mpeg4', sound='mp3', features=_ALL + _B),
    Input('.mov', 'libx264', sound='pcm_s16le', subtitle='mov_text', features=_ALL + _B, wide='yuv420p10le'),
    Input('.mov', 'prores_ks', 'yuv422p10le', sound='pcm_s24le', features=_ALL, wide='yuv422p10le'),
    Input('.mov', 'mjpeg', 'yuvj420p', sound='alac', features='variable rate, rotation, pixel aspect'),
    Input('.mov', 'qtrle', 'rgb24', features='variable rate, rotation, pixel aspect'),
    Input('.mkv', 'libx264', sound='flac', subtitle='srt', features=_ALL + _B, wide='yuv420p10le', unit=.001),
    Input('.mkv', 'libx265', sound='ac3', subtitle='ass', features=_ALL + _B, wide='yuv420p10le', unit=.001),
    Input('.mkv', 'ffv1', sound='pcm_s16le', features=_ALL, wide='yuv422p10le', unit=.001),
    Input('.mkv', 'mpeg2video', sound='mp2', features='rotation, pixel aspect, colour tags' + _B, unit=.001),
    Input('.webm', 'libvpx', sound='vorbis', features='variable rate, pixel aspect', unit=.001),
    Input('.webm', 'libvpx-vp9', sound='libopus', subtitle='webvtt', features=_ALL, unit=.001),
    Input('.webm', 'libsvtav1', sound='libopus', features=_ALL, wide='yuv420p10le', options={'preset': '6'}, unit=.001),
    Input('.avi', 'libx264', sound='mp3', features='B-frames, pixel aspect, colour tags', wide='yuv420p10le'),
    Input('.avi', 'mpeg4', sound='mp3', features='B-frames, pixel aspect'),
    Input('.avi', 'msmpeg4', sound='mp2'),
    Input('.avi', 'mjpeg', 'yuvj420p', sound='pcm_s16le'),
    Input('.avi', 'huffyuv', 'yuv422p', sound='ac3'),
    Input('.ts', 'libx264', sound='aac', features='variable rate, pixel aspect, colour tags' + _B, wide='yuv420p10le',
          unit=1 / 90000),
    Input('.ts', 'libx265', sound='ac3', features='variable rate, pixel aspect, colour tags' + _B, wide='yuv420p10le',
          unit=1 / 90000),
    Input('.ts', 'mpeg2video', sound='mp2', features='pixel aspect, colour tags' + _B, unit=1 / 90000),
    Input('.mpg', 'mpeg1video', sound='mp2', features='B-frames', unit=1 / 90000),
    Input('.mpg', 'mpeg2video', sound='ac3', features='pixel aspect, colour tags' + _B, unit=1 / 90000),
    Input('.ogv', 'libtheora', sound='libopus', features='pixel aspect'),
    Input('.wmv', 'wmv2', sound='wmav2', sound_becomes='aac', features='variable rate, pixel aspect', unit=.001),
    Input('.flv', 'flv', sound='mp3', features='variable rate', unit=.001),
    Input('.flv', 'libx264', sound='aac', features='variable rate, pixel aspect, colour tags' + _B, unit=.001),
    Input('.nut', 'ffv1', sound='flac', features='variable rate, pixel aspect', wide='yuv422p10le'),
    Input('.y4m', 'rawvideo', features='pixel aspect', wide='yuv420p10le'),
    Input('.gif', 'GIF', features='variable rate', unit=.01),
    Input('.png', 'APNG', features='variable rate'),
    Input('.webp', 'WebP', features='variable rate', unit=.001),
    Input('', 'PNG', wide='16'),
    Input('', 'TIFF', wide='16'),
    Input('', 'JPEG'),
    Input('', 'WebP'),
    Input('', 'BMP'),
)


class Output(NamedTuple):
    """A kind of output.

    Attributes:
        suffix: of the file.
        codec: as of --codec.
        refused: whether the container does not take the codec.
        sound, subtitle: codecs that AAC and mov_text become.
    """
    suffix: str
    codec: str
    refused: bool = False
    sound: str = 'aac'
    subtitle: str = 'mov_text'

    def __str__(self) -> str:
        return f'{self.suffix[1:]}, {self.codec}'

    def cell(self, feature: str) -> str:
        if self.refused:
            return 'refused' if feature == 'frames' else '–'
        if feature == 'sound' and self.sound != 'aac':
            return f'as {self.sound.capitalize()}'
        if feature == 'subtitles' and self.subtitle != 'mov_text':
            return {'srt': 'as SubRip', 'webvtt': 'as WebVTT'}[self.subtitle]
        return '✓'


OUTPUTS = (
    Output('.mp4', 'x264'),
    Output('.mp4', 'x265'),
    Output('.mp4', 'av1'),
    Output('.mp4', 'prores', refused=True),
    Output('.mp4', 'ffv1'),
    Output('.m4v', 'x264'),
    Output('.mov', 'x264'),
    Output('.mov', 'x265'),
    Output('.mov', 'av1', refused=True),
    Output('.mov', 'prores'),
    Output('.mov', 'ffv1', refused=True),
    Output('.mkv', 'x264', subtitle='srt'),
    Output('.mkv', 'x265', subtitle='srt'),
    Output('.mkv', 'av1', subtitle='srt'),
    Output('.mkv', 'prores', subtitle='srt'),
    Output('.mkv', 'ffv1', subtitle='srt'),
    Output('.webm', 'x264', refused=True),
    Output('.webm', 'x265', refused=True),
    Output('.webm', 'av1', sound='opus', subtitle='webvtt'),
    Output('.webm', 'prores', refused=True),
    Output('.webm', 'ffv1', refused=True),
)


def table(title: str, kinds: Sequence[Input | Output], features: tuple[str, ...]) -> str:
    """Return a table in Markdown."""
    rows = [[title, *features], ['---'] * (len(features) + 1),
            *([str(kind), *(kind.cell(feature) for feature in features)] for kind in kinds)]
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def tables() -> str:
    return f'{table("input", INPUTS, INPUT_FEATURES)}\n{table("output", OUTPUTS, OUTPUT_FEATURES)}'


if __name__ == '__main__':
    print(tables(), end='')
