"""Command-line parser of `stvsr`."""
import argparse
import runpy
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

from .arguments import Parser
from .imported import imported
from .training_parser import add_init_options, add_options_commands
from .zoo_parser import add_zoo_commands

# Same as in RestoreOptions, which takes seconds to import
PRECISIONS, AT_CUT = ('fp32', 'bf16', 'fp16'), ('previous', 'next')
PIPE_FORMATS = 'y4m', 'nut'  # same as in io.pipes
ONLY_RESTORE = 'restore', 'info', 'app'  # commands that need only networks
# The best PSNR of the zoo's x4 networks, more frames per second than the others, and it does both: --space-only and
# --time-only choose
DEFAULT_MODEL = 'mbnet-small'
CODEC_ALIASES = {'h264': 'x264', 'avc': 'x264', 'h265': 'x265', 'hevc': 'x265'}


def read_version() -> str:
    """Return the version of basicsr_stvsr without importing the package."""
    spec = find_spec('basicsr_stvsr')
    assert spec is not None and spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    return str(runpy.run_path(str(Path(folder) / 'version.py'))['__version__'])


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog='stvsr', description='Super-resolution and frame interpolation of videos.',
        epilog='exit status: 0 success; 1 failed midway, finished work is kept; 2 invalid request, nothing was '
        'started; 130 interrupted')
    parser.add_argument('--version', action='version', version=f'stvsr {read_version()}')
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

    def add(name: str, about: str, example: str, fromfile_prefix_chars: str | None = None) -> Parser:
        command = commands.add_parser(
            name, help=about, description=f'{about[0].upper()}{about[1:]}.', epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter, fromfile_prefix_chars=fromfile_prefix_chars)
        command.set_defaults(run=imported(f'basicsr_stvsr.cli.{name}:run', needs_networks_only=name in ONLY_RESTORE),
                             parser=command)
        return command

    restore = add('restore', 'restore a video, or a folder of frames',
                  'stvsr restore in.mp4 out.mp4\n'
                  '  stvsr restore in.mp4 out.mp4 --model fstrn-small --codec hevc --crf 16\n'
                  '  stvsr restore in.mp4 out.mp4 --height 1080 --fps 60\n'
                  '  stvsr restore in.mp4 out.mp4 --model dis\n'
                  '  stvsr restore in.mp4 out.mp4 --model RealESRGAN_x4plus.pth --interpolate mbnet-small\n'
                  '  stvsr restore in.mp4 preview.mp4 --start 1:30 --duration 10 --compare-clip both.mp4\n'
                  '  stvsr restore in.mp4 out.mp4 --dry-run\n'
                  '  ffmpeg -i in.avi -f yuv4mpegpipe - | stvsr restore - - | ffmpeg -i - out.mkv\n'
                  '  stvsr restore frames_in/ frames_out/ --model mbnet-small\n'
                  '  stvsr restore videos/ --into restored/\n'
                  '  torchrun --nproc-per-node 4 -m basicsr_stvsr restore @list.txt --into out/ --model fisr-small',
                  fromfile_prefix_chars='@')
    restore.usage = 'stvsr restore [options] (INPUT OUTPUT | INPUT ... --into FOLDER) [--model NAME | --opt FILE]'
    restore.add_argument('paths', type=Path, nargs='+', metavar='INPUT [OUTPUT]',
                         help='video file or folder of frames, or - for a pipe (y4m or NUT, frames only); the suffix '
                         'of the output selects the container. '
                         '@FILE reads paths from a file, one a line')
    restore.add_argument('--into', type=Path, metavar='FOLDER',
                         help='restore all inputs into a folder; of an input folder, all its videos. Skip outputs '
                         'that exist. The processes of torchrun share the inputs')
    restore.add_argument('--suffix', metavar='.EXT',
                         help='with --into: suffix of the outputs (default: that of the input)')
    restore.add_argument('--start', type=seconds, metavar='TIME', default=Fraction(0),
                         help='where the part to restore begins: seconds, or [hours:]minutes:seconds')
    restore.add_argument('--duration', type=seconds, metavar='TIME', help='length of the part to restore')
    restore.add_argument('--dry-run', action='store_true', help='write nothing; print what would be done, with an '
                         'estimate of the time and the disk space from the first frames')
    restore.add_argument('--compare-clip', type=Path, metavar='FILE', help='also write a video of the input beside the '
                         'output; with --into, the folder for these videos')
    restore.add_argument('--compare', action='store_true', help='also write a web page that compares input and output '
                         'frame by frame: OUTPUT.html')
    restore.add_argument('--overwrite', action='store_true', help='replace existing outputs')
    add_model_options(restore, default=DEFAULT_MODEL)
    add_shape_options(restore)
    add_restore_options(restore)
    add_encoding_options(restore)

    info = add('info', 'describe a video or a model',
               'stvsr info in.mp4\n  stvsr info mbnet-small\n  stvsr info options/train_mbnet.yml')
    info.add_argument('what', nargs='?',
                      help='video file, folder of frames, name of a model, weights file of another tool, or option '
                      'file (default: list the models)')
    info.add_argument('--speed', action='store_true',
                      help='also measure how many frames per second a model restores here; takes up to a minute')
    info.add_argument('--json', action='store_true', help='print JSON')

    compare = add('compare', 'write a web page that compares two or three videos frame by frame',
                  'stvsr compare in.mp4 out.mp4 --output compare.html --open\n'
                  '  stvsr compare in.mp4 a.mp4 b.mp4')
    compare.add_argument('videos', type=Path, nargs='+', metavar='VIDEO', help='two or three video files, or folders '
                         'of frames')
    compare.add_argument('--gt', type=Path, help='reference video, for scores of all (default: the last VIDEO)')
    compare.add_argument('--output', type=Path, default=Path('compare.html'), help='(default: %(default)s)')
    compare.add_argument('--mode', choices=('slider', 'side-by-side', 'difference'),
                         help='view when the page opens (default: slider; side-by-side for three videos)')
    compare.add_argument('--max-frames', type=int, default=240, metavar='N',
                         help='number of frames to show at most; scores cover all frames (default: %(default)s)')
    compare.add_argument('--open', action='store_true', help='open the page in the browser')

    app = add('app', 'restore videos in the browser, with a web app on this machine', 'stvsr app --open')
    app.add_argument('--host', help='address to serve other machines, such as 0.0.0.0; the printed address then has a '
                     'token (default: only this machine)')
    app.add_argument('--port', type=int, help='(default: 8765, or any free port)')
    app.add_argument('--max-upload', type=float, default=4, metavar='GB', help='largest upload (default: %(default)s)')
    app.add_argument('--keep-hours', type=float, default=12, metavar='HOURS',
                     help='hours after which unused uploads are removed (default: %(default)s)')
    app.add_argument('--open', action='store_true', help='open the app in the browser')

    add_zoo_commands(commands.add_parser('zoo', help='the model zoo: list, info, fetch, verify, publish'))

    export = add('export', 'export a network to ONNX, and compare it with PyTorch in onnxruntime',
                 'stvsr export fstrn.onnx --model fstrn-small\n'
                 '  stvsr export net.onnx --opt options/train_fstrn.yml --weights net_g_latest.pth')
    export.add_argument('output', type=Path, metavar='FILE.onnx')
    export.add_argument('--no-check', action='store_true', help='do not compare the file with PyTorch')
    export.add_argument('--overwrite', action='store_true', help='replace an existing file')
    add_model_options(export)

    test = add('test', 'score a model by a protocol, or by an option file: stvsr test -opt FILE',
               'stvsr test --protocol mbnet-table3 --model mbnet-small --datasets vid4\n'
               '  stvsr test --protocol reds4 --model bicubic\n'
               '  stvsr test --protocol reds4 --frames frames/ --label BasicVSR\n'
               '  stvsr test -opt options/test_mbnet_small.yml')
    test.add_argument('--protocol', required=True, metavar='NAME',
                      help='name of the protocol; an unknown name lists all')
    test.add_argument('--precision', choices=PRECISIONS, default='fp32',
                      help='precision of convolutions; use fp32 for comparable scores (default: %(default)s)')
    test.add_argument('--data', type=Path, default=Path('datasets'), metavar='FOLDER',
                      help='folder of the data sets (default: %(default)s)')
    test.add_argument('--datasets', nargs='+', default=[], metavar='NAME', help='score only these')
    test.add_argument('--into', type=Path, default=Path('results'), metavar='FOLDER',
                      help='folder for the results (default: %(default)s)')
    test.add_argument('--workers', type=int, metavar='N',
                      help='number of processes that compute scores (default: all cores but one)')
    which = add_model_options(test)
    which.add_argument('--frames', type=Path, metavar='FOLDER', help='score saved frames of another program, named '
                       'like the true ones: FOLDER/<data set>/<clip>/<frame>.png, or <frame>_<suffix>.png')
    test.add_argument('--label', metavar='NAME', help='with --frames: name in tables (default: that of the folder)')
    commands.add_parser('train', help='train by an option file: stvsr train -opt FILE', add_help=False)
    add_init_options(add('init', 'write an option file to train on your own clips', ''))
    add_options_commands(commands.add_parser('options', help='work with option files: flatten'))
    return parser


def add_model_options(parser: argparse.ArgumentParser, *, default: str | None = None) -> (
        argparse._MutuallyExclusiveGroup):
    """Add --model, --opt and --weights; return the group of these, which requires one if there is no default."""
    model = parser.add_argument_group('model')
    which = model.add_mutually_exclusive_group(required=default is None)
    about = 'a model of the zoo, such as mbnet-small, or dis (interpolation by optical flow); an unknown name lists all'
    if default:
        about += ('; or a weights file of another tool for single images, such as RealESRGAN_x4plus.pth (needs '
                  'spandrel)')
        about += (f' (default: {default}, the best and fastest of those that enlarge by 4; it also doubles the frame '
                  'rate)')
    which.add_argument('--model', metavar='NAME', help=about)
    which.add_argument('--opt', type=Path, metavar='FILE', help='option file with the network (network_g)')
    model.add_argument('--weights', type=Path, metavar='FILE',
                       help='with --opt: checkpoint of a training (default: path.pretrain_network_g of the '
                       'option file)')
    return which


def add_shape_options(parser: argparse.ArgumentParser) -> None:
    shape = parser.add_argument_group('size and rate', 'by default, what the model makes')
    size = shape.add_mutually_exclusive_group()
    size.add_argument('--scale', type=number, metavar='N', help='output size / input size, such as 2 or 1.5; the model '
                      'enlarges by its scale, then bicubic resizing follows')
    size.add_argument('--height', type=int, metavar='PIXELS', help='output height, such as 1080; keeps the proportions')
    size.add_argument('--size', type=width_and_height, metavar='WxH', help='output size, such as 1920x1080')
    shape.add_argument('--fps', type=number, metavar='RATE', help='output frames per second, such as 60 or 24000/1001: '
                       'doubles the rate as often as needed, then shows the nearest frame at each time')
    only = shape.add_mutually_exclusive_group()
    only.add_argument('--space-only', dest='only', action='store_const', const='space',
                      help='keep the frame rate with a model that doubles it')
    only.add_argument('--time-only', dest='only', action='store_const', const='time',
                      help='keep the size, and the given frames unchanged, with a model that also enlarges')
    shape.add_argument('--interpolate', metavar='NAME', help='model that doubles the frame rate before --model '
                       'enlarges the frames: mbnet-small, fisr-small or dis')


def add_restore_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group('restoring')
    how.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:N or mps (GPU of a Mac); several '
                     'devices, such as cuda:0,cuda:1, share a video (default: %(default)s)')
    how.add_argument('--precision', choices=('auto', *PRECISIONS), default='auto',
                     help='precision of convolutions; auto: bf16 on CPUs and GPUs with instructions for it, else fp32 '
                     '(default: %(default)s)')
    how.add_argument('--channels-last', action=argparse.BooleanOptionalAction, default=None,
                     help='memory layout of convolutions (default: channels_last on a CPU)')
    how.add_argument('--compile', action='store_true',
                     help='compile the network (torch.compile): slower start by minutes, then faster')
    how.add_argument('--tile', type=int, metavar='PIXELS',
                     help='longest side of tiles of the input; 0: whole frames (default: 256 on a CPU; whole frames '
                     'on a GPU, halved if memory runs out)')
    how.add_argument('--tile-overlap', type=int, default=32, metavar='PIXELS',
                     help='overlap of tiles, input pixels (default: %(default)s)')
    how.add_argument('--no-cuts', action='store_true', help='disable scene-cut detection')
    how.add_argument('--at-cut', choices=AT_CUT, default='previous',
                     help='frame to repeat between two scenes, for models that double the frame rate '
                     '(default: %(default)s)')
    how.add_argument('--even', action='store_true',
                     help='for such models: output 2n frames for n, with the last one repeated, instead of 2n - 1')
    how.add_argument('--deinterlace', action='store_const', const=True, default=False,
                     help='output one frame for every two fields (default: refuse interlaced videos)')
    how.add_argument('--deinterlace=auto', action='store_const', const='auto', dest='deinterlace',
                     help='the same, only for frames that are flagged as interlaced; for videos of both kinds')
    how.add_argument('--stream', type=int, metavar='N', help='number of the video stream, as `stvsr info` lists them '
                     '(default: the main one)')
    how.add_argument('--background', type=color, metavar='COLOR', help='colour to lay transparent pixels over, such as '
                     'white or #20a0ff (default: keep them; black where the output cannot)')
    how.add_argument('--strict', action='store_true',
                     help='fail where the input is damaged or incomplete, also where only a warning is usual')
    how.add_argument('--rate', type=number, help='frames per second of a folder of frames (default: 25)')
    how.add_argument('--resume', action='store_true', help='continue interrupted work')
    how.add_argument('--json', action='store_true', help='print progress as JSON lines')


def number(text: str) -> Fraction:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f'{text} is no number') from None


def seconds(text: str) -> Fraction:
    """Return the seconds of a time such as 90, 1:30 or 0:01:30.5."""
    total = Fraction(0)
    for part in text.split(':'):
        total = 60 * total + Fraction(part)
    if total < 0:
        raise ValueError(f'{text} is below 0')
    return total


def color(text: str) -> tuple[int, ...]:
    """Return red, green and blue of a colour such as white or #20a0ff."""
    from PIL import ImageColor  # here, so that other commands start quickly

    return ImageColor.getrgb(text)[:3]


def width_and_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition('x')
    return int(width), int(height)


def codec_name(text: str) -> str:
    return CODEC_ALIASES.get(text, text)


def add_encoding_options(parser: argparse.ArgumentParser) -> None:
    encoding = parser.add_argument_group('encoding')
    encoding.add_argument('--codec', type=codec_name, help='x264 (or h264), x265 (or hevc), av1, prores, ffv1 '
                          '(lossless), gif or png (default: x264; av1 in .webm; gif in .gif; png for a folder)')
    encoding.add_argument('--crf', type=float, help='quality; a lower value is better, with larger files '
                          '(default: that of the codec)')
    encoding.add_argument('--preset', help='speed of the encoder (default: that of the codec)')
    encoding.add_argument('--pipe-format', choices=PIPE_FORMATS, default='y4m', help='format of the output -: y4m, '
                          'which most programs read; nut keeps the times of a variable frame rate '
                          '(default: %(default)s)')
    encoding.add_argument('--audio', choices=('copy', 'aac', 'opus', 'none'), default='copy',
                          help='copy: encode only sound that the output file cannot hold; aac, opus: encode all '
                          'sound of other codecs; none: no sound (default: %(default)s)')
