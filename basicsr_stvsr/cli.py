"""The command `stvsr`: videos in, videos out.

Exit codes: 0, done; 1, it failed on the way, and what was done is kept; 2, what was asked for cannot be done, and
nothing was begun; 130, interrupted.
"""
import argparse
import json
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from tqdm import tqdm

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
MEASURED_SIZE = 64, 64  # of the frames for which multiplications are counted
PRECISIONS, AT_CUT = ('fp32', 'bf16', 'fp16'), ('previous', 'next')  # as RestoreOptions, which takes seconds to import


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] in (['train'], ['test']):  # their options are those of BasicSR
        sys.argv = [f'stvsr {arguments[0]}', *arguments[1:]]
        runpy.run_module(f'basicsr_stvsr.{arguments[0]}', run_name='__main__')
        return 0
    args = make_parser().parse_args(arguments)
    try:
        return args.run(args)
    except KeyboardInterrupt as interrupt:
        print(f'interrupted; {interrupt}; go on with --resume' if interrupt.args else 'interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return EXIT_REFUSED


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='stvsr', description='Super-resolution and frame interpolation of videos.',
        epilog='exit codes: 0 done; 1 failed on the way, what was done is kept; 2 refused, nothing was begun; '
        '130 interrupted')
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

    def add(name: str, run: Callable[[argparse.Namespace], int], about: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=about, description=f'{about[0].upper()}{about[1:]}.', epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter)
        command.set_defaults(run=run)
        return command

    restore = add('restore', run_restore, 'restore a video, or a folder of frames',
                  'stvsr restore in.mp4 out.mp4 --model fstrn-small --crf 16')
    restore.add_argument('input', type=Path, help='video file, or folder of frames')
    restore.add_argument('output', type=Path,
                         help='video file, whose suffix tells the container; or, with --codec png, a folder')
    add_model_options(restore)
    add_restore_options(restore)
    add_encoding_options(restore)

    info = add('info', run_info, 'tell what a video is, or a model', 'stvsr info in.mp4\n  stvsr info mbnet-small')
    info.add_argument('what', help='video file, folder of frames, or name of a model')
    info.add_argument('--json', action='store_true', help='for machines')

    compare = add('compare', run_compare, 'write a page in which two videos are compared frame by frame',
                  'stvsr compare in.mp4 out.mp4 --output compare.html')
    compare.add_argument('first', type=Path, help='video file, or folder of frames')
    compare.add_argument('second', type=Path)
    compare.add_argument('--gt', type=Path, help='what both are compared with')
    compare.add_argument('--output', type=Path, default=Path('compare.html'), help='(default: %(default)s)')
    compare.add_argument('--mode', choices=('slider', 'side-by-side', 'difference'), default='slider',
                         help='how the page opens (default: %(default)s)')
    compare.add_argument('--max-frames', type=int, default=240, metavar='N',
                         help='the most frames to show; scores are of all (default: %(default)s)')

    for name in ('train', 'test'):
        commands.add_parser(name, help=f'{name} by an option file: stvsr {name} -opt FILE', add_help=False)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group('model')
    which = model.add_mutually_exclusive_group(required=True)
    which.add_argument('--model', metavar='NAME', help='of the zoo, such as mbnet-small; an unknown one lists them')
    which.add_argument('--opt', type=Path, metavar='FILE', help='option file, of which network_g is taken')
    model.add_argument('--weights', type=Path, metavar='FILE', help='with --opt: checkpoint of a training')


def add_restore_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group('restoring')
    how.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N (default: %(default)s)')
    how.add_argument('--precision', choices=PRECISIONS, default='fp32', help='of convolutions (default: %(default)s)')
    how.add_argument('--channels-last', action='store_true', help='the memory layout that many GPUs are faster with')
    how.add_argument('--compile', action='store_true', help='by torch.compile: minutes at the start, faster afterwards')
    how.add_argument('--tile', type=int, metavar='PIXELS',
                     help='longest side of tiles of the input (default: whole frames; halved where a GPU lacks memory)')
    how.add_argument('--tile-overlap', type=int, default=32, metavar='PIXELS', help='(default: %(default)s)')
    how.add_argument('--no-cuts', action='store_true', help='take the video for one scene')
    how.add_argument('--at-cut', choices=AT_CUT, default='previous',
                     help='which frame is shown twice between two scenes, by models that double the frame rate '
                     '(default: %(default)s)')
    how.add_argument('--even', action='store_true',
                     help='of such models: make 2n frames of n, the last shown twice, instead of 2n - 1')
    how.add_argument('--deinterlace', action='store_true', help='make one frame of every two fields')
    how.add_argument('--rate', type=Fraction, help='frames a second of a folder (default: 25)')
    how.add_argument('--resume', action='store_true', help='go on with work that was interrupted')
    how.add_argument('--json', action='store_true', help='progress as a JSON object a line, for machines')


def add_encoding_options(parser: argparse.ArgumentParser) -> None:
    encoding = parser.add_argument_group('encoding')
    encoding.add_argument('--codec', default='x264', help='x264, x265, av1, prores, ffv1 (lossless) or png (default: '
                          '%(default)s)')
    encoding.add_argument('--crf', type=float, help='quality, less is better (default: that of the codec)')
    encoding.add_argument('--preset', help='speed of the encoder (default: that of the codec)')


# ---------------------------------------------------------------- commands

def run_restore(args: argparse.Namespace) -> int:
    from .cpu_memory import keep_freed_memory
    from .video.job import Job, RestoreError
    from .video.restorer import RestoreOptions
    from .video.sink import Encoding
    from .video.source import open_source

    options = RestoreOptions(tile=args.tile, tile_overlap=args.tile_overlap, precision=args.precision,
                             detect_cuts=not args.no_cuts, at_cut=args.at_cut, even=args.even)
    encoding = Encoding(args.codec, args.crf, args.preset)
    if args.weights and not args.opt:
        raise ValueError('--weights goes with --opt; models of the zoo have weights')
    with open_source(args.input, deinterlace=args.deinterlace, rate=args.rate) as source:
        net, model = load_model(args)
        if args.device == 'cpu':
            keep_freed_memory()
        job = Job(source, args.output, net, model=model, options=options, encoding=encoding)
        for warning in job.warnings:
            print(f'warning: {warning}', file=sys.stderr)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with ProgressBar(args.json) as progress:
                job.run(resume=args.resume, on_progress=progress)
        except RestoreError as error:
            print(f'error: {error}', file=sys.stderr)
            return EXIT_FAILED
    return 0


def run_info(args: argparse.Namespace) -> int:
    from .zoo import ZOO

    if args.what in ZOO:
        facts = facts_of_model(args.what)
    elif Path(args.what).exists():
        facts = facts_of_video(Path(args.what))
    else:
        raise ValueError(f'{args.what} is neither a file, nor one of the models {", ".join(ZOO)}')
    if args.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines or ['none']):
            print(f'{name if number == 0 else "":{width}}{line}')
    return 0


def facts_of_model(name: str) -> dict[str, Any]:
    """What a model of the zoo is, and what it wants."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from .inference import Tiles, frames_of_clip, is_recurrent, restore_windows
    from .zoo import ZOO, load

    net, entry = load(name), ZOO[name]
    h, w = MEASURED_SIZE
    window = 1 if is_recurrent(net) else net.num_frames
    lq = torch.zeros(1, window, 1 if net.color == 'y' else 3, h, w)
    flow = torch.zeros(1, window - 1, 2, 2, h, w) if getattr(net, 'needs_flow', False) else None
    with FlopCounterMode(display=False) as counter:
        next(restore_windows(Tiles(net), frames_of_clip(lq, flow)))
    return {
        'model': f'{name}: {type(net).__name__}, {entry.about}',
        'weights': entry.weights,
        'parameters': f'{sum(parameter.numel() for parameter in net.parameters()):,}',
        'GMACs': f'{counter.get_total_flops() / 2e9:.1f}, {window} given frame{"s" * (window > 1)} of {w}x{h}',
        'scale': f'{net.scale}x in space, {net.temporal_scale}x in time',
        'takes': 'frame after frame, with a state' if is_recurrent(net) else f'{window} frames at a time',
        'colours': {'y': 'luma; colours are enlarged by bicubic', 'yuv': 'YUV'}.get(net.color, 'RGB'),
        'flow': 'OpenCV DIS, of its input' if getattr(net, 'needs_flow', False) else 'none, or its own'}


def facts_of_video(path: Path) -> dict[str, Any]:
    from .video.source import FolderSource, open_source

    with open_source(path) as source:
        info = source.info
    rate = f'{float(info.rate):.6g} a second' + (' on average, variable' if info.is_variable else '')
    streams = [f'{stream.type} {stream.codec} {stream.language}'.strip() for stream in info.streams]
    return {
        'file': str(info.path),
        'frames': f'{info.num_frames or "number not told"}, {info.width}x{info.height}, '
                  f'{rate if info.rate else "rate not told"}',
        'duration': f'{float(info.duration):.3f} s' if info.duration else 'not told',
        'stored as': info.codec if isinstance(source, FolderSource) else f'{info.format}: {info.codec}, {info.pix_fmt}',
        'colours': f'{info.bits} bits, {info.color.matrix}, {"full" if info.color.full_range else "limited"} range',
        'rotation': f'{info.rotation} degrees',
        'interlaced': 'yes; --deinterlace' if info.interlaced else 'no',
        'other streams': streams}


def run_compare(args: argparse.Namespace) -> int:
    from .video.compare import write_comparison

    with tqdm(unit='frame', dynamic_ncols=True) as bar:
        def show(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        comparison = write_comparison(args.first, args.second, args.output, gt=args.gt, mode=args.mode,
                                      max_frames=args.max_frames, progress=show)
    for mean in comparison.means:
        psnr = 'equal' if mean.psnr is None else f'{mean.psnr:.2f} dB'
        print(f'{mean.compared}, {mean.group}: {psnr}' + (f', SSIM {mean.ssim:.4f}' if mean.ssim is not None else ''))
    for note in comparison.notes:
        print(f'note: {note}', file=sys.stderr)
    print(comparison.path)
    return 0


def load_model(args: argparse.Namespace) -> tuple[Any, str]:
    """The network that the options ask for, and what it is called."""
    import torch

    from .archs.arch_util import to_channels_last
    from .options import load_options
    from .zoo import load, load_network

    if args.device == 'auto':
        args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if args.model:
        net, name = load(args.model, args.device), args.model
    else:
        network = load_options(str(args.opt)).get('network_g')
        if not network:
            raise ValueError(f'{args.opt} has no network_g')
        net, name = load_network(network, args.weights, args.device), f'{network["type"]} {args.weights}'
    if args.channels_last:
        net = to_channels_last(net)
    if args.compile:
        net.compile()
    return net, name


class ProgressBar:
    """Shows how far a job is; a context manager."""

    def __init__(self, as_json: bool):
        self.as_json, self._bar = as_json, None

    def __call__(self, progress: Any) -> None:
        if self.as_json:
            print(json.dumps({'frames': progress.frames, 'total': progress.total or None,
                              'time': float(progress.time)}), flush=True)
            return
        if self._bar is None:  # the frames of an earlier run took no time
            self._bar = tqdm(total=progress.total or None, initial=progress.frames - 1, unit='frame',
                             dynamic_ncols=True)
        self._bar.update(progress.frames - self._bar.n)

    def __enter__(self) -> 'ProgressBar':
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()
