"""The command `stvsr`: videos in, videos out.

Exit codes: 0, done; 1, it failed on the way, and what was done is kept; 2, what was asked for cannot be done, and
nothing was begun; 130, interrupted.
"""
import argparse
import hashlib
import json
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from .threads import available_cores
from .version import __version__
from .zoo_cli import add_zoo_commands

EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 130
CPU_TILE = 256  # pixels
PRECISIONS, AT_CUT = ('fp32', 'bf16', 'fp16'), ('previous', 'next')  # as RestoreOptions, which takes seconds to import


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Their options are those of BasicSR, but for `test --protocol`
    if arguments[:1] == ['train'] or arguments[:1] == ['test'] and not {'--protocol', '-h', '--help'} & set(arguments):
        sys.argv = [f'stvsr {arguments[0]}', *arguments[1:]]
        runpy.run_module(f'basicsr_stvsr.{arguments[0]}', run_name='__main__')
        return 0
    parser = make_parser()
    args, others = parser.parse_known_args(arguments)
    if others and (not hasattr(args, 'paths') or any(other.startswith('-') for other in others)):
        parser.error(f'unrecognized arguments: {" ".join(others)}')
    if others:  # argparse takes the paths in front of an option for all of them
        args.paths += map(Path, others)
    try:
        return args.run(args)
    except BrokenPipeError:  # who read has gone; else Python would fail once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt as interrupt:
        print(f'interrupted; {interrupt}; go on with --resume' if interrupt.args else 'interrupted', file=sys.stderr)
        return EXIT_INTERRUPTED
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return EXIT_REFUSED


class Parser(argparse.ArgumentParser):
    """Takes @FILE for the lines of a file, of which empty ones do not count."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        line = arg_line.strip()
        return [line] if line else []


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog='stvsr', description='Super-resolution and frame interpolation of videos.',
        epilog='exit codes: 0 done; 1 failed on the way, what was done is kept; 2 refused, nothing was begun; '
        '130 interrupted')
    parser.add_argument('--version', action='version', version=f'stvsr {__version__}')
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

    def add(name: str, run: Callable[[argparse.Namespace], int], about: str, example: str,
            fromfile_prefix_chars: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=about, description=f'{about[0].upper()}{about[1:]}.', epilog=f'example:\n  {example}',
            formatter_class=argparse.RawDescriptionHelpFormatter, fromfile_prefix_chars=fromfile_prefix_chars)
        command.set_defaults(run=run)
        return command

    restore = add('restore', run_restore, 'restore a video, or a folder of frames',
                  'stvsr restore in.mp4 out.mp4 --model fstrn-small --crf 16\n'
                  '  stvsr restore frames_in/ frames_out/ --model mbnet-small\n'
                  '  torchrun --nproc-per-node 4 -m basicsr_stvsr restore @list.txt --into out/ --model fisr-small',
                  fromfile_prefix_chars='@')
    restore.usage = 'stvsr restore [options] (INPUT OUTPUT | INPUT ... --into FOLDER) (--model NAME | --opt FILE)'
    restore.add_argument('paths', type=Path, nargs='+', metavar='INPUT [OUTPUT]',
                         help='video file, or folder of frames; the output likewise, whose suffix tells the container. '
                         '@FILE stands for the lines of a file')
    restore.add_argument('--into', type=Path, metavar='FOLDER',
                         help='restore all inputs into a folder; those that are there already are passed over. The '
                         'processes of torchrun share them')
    restore.add_argument('--suffix', metavar='.EXT', help='with --into: of the outputs (default: that of the input)')
    restore.add_argument('--overwrite', action='store_true', help='replace outputs that are there already')
    add_model_options(restore)
    add_restore_options(restore)
    add_encoding_options(restore)

    info = add('info', run_info, 'tell what a video is, or a model',
               'stvsr info in.mp4\n  stvsr info mbnet-small\n  stvsr info options/train_mbnet.yml')
    info.add_argument('what', nargs='?',
                      help='video file, folder of frames, name of a model, or option file; nothing: the models')
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

    add_zoo_commands(commands.add_parser('zoo', help='the model zoo: list, info, fetch, verify, publish'))

    export = add('export', run_export, 'write a network to ONNX, and compare it with torch by onnxruntime',
                 'stvsr export fstrn.onnx --model fstrn-small\n'
                 '  stvsr export net.onnx --opt options/train_fstrn.yml --weights net_g_latest.pth')
    export.add_argument('output', type=Path, metavar='FILE.onnx')
    export.add_argument('--no-check', action='store_true', help='do not compare it with torch')
    export.add_argument('--overwrite', action='store_true', help='replace a file that is there already')
    add_model_options(export)

    test = add('test', run_test, 'measure a model by a protocol, or by an option file: stvsr test -opt FILE',
               'stvsr test --protocol mbnet-table3 --model mbnet-small --datasets vid4\n'
               '  stvsr test --protocol reds4 --model bicubic\n'
               '  stvsr test --protocol reds4 --frames frames/ --label BasicVSR\n'
               '  stvsr test -opt options/test_mbnet_small.yml')
    test.add_argument('--protocol', required=True, metavar='NAME', help='an unknown one lists them')
    test.add_argument('--data', type=Path, default=Path('datasets'), metavar='FOLDER',
                      help='where the data sets lie (default: %(default)s)')
    test.add_argument('--datasets', nargs='+', default=[], metavar='NAME', help='measure these alone')
    test.add_argument('--into', type=Path, default=Path('results'), metavar='FOLDER', help='(default: %(default)s)')
    test.add_argument('--workers', type=int, default=max(1, available_cores() - 1), metavar='N',
                      help='processes that compute scores beside the network (default: all cores but one)')
    which = add_model_options(test)
    which.add_argument('--frames', type=Path, metavar='FOLDER', help='frames that something else has made, named '
                       'as the true ones: FOLDER/<data set>/<clip>/<frame>.png, or <frame>_<suffix>.png')
    test.add_argument('--label', metavar='NAME', help='of these in tables (default: the name of their folder)')
    commands.add_parser('train', help='train by an option file: stvsr train -opt FILE', add_help=False)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Adds --model, --opt and --weights; returns the group of which one must be given."""
    model = parser.add_argument_group('model')
    which = model.add_mutually_exclusive_group(required=True)
    which.add_argument('--model', metavar='NAME', help='of the zoo, such as mbnet-small; an unknown one lists them')
    which.add_argument('--opt', type=Path, metavar='FILE', help='option file, of which network_g is taken')
    model.add_argument('--weights', type=Path, metavar='FILE',
                       help='with --opt: checkpoint of a training (default: what the file names in '
                       'path.pretrain_network_g)')
    return which


def add_restore_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group('restoring')
    how.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N; or several, such as cuda:0,cuda:1, '
                     'which share a video (default: %(default)s)')
    how.add_argument('--precision', choices=PRECISIONS, default='fp32', help='of convolutions (default: %(default)s)')
    how.add_argument('--channels-last', action='store_true', help='the memory layout that many GPUs are faster with')
    how.add_argument('--compile', action='store_true', help='by torch.compile: minutes at the start, faster afterwards')
    how.add_argument('--tile', type=int, metavar='PIXELS',
                     help='longest side of tiles of the input; 0: whole frames (default: 256 on a CPU, else whole '
                     'frames, which are halved where a GPU lacks memory)')
    how.add_argument('--tile-overlap', type=int, default=32, metavar='PIXELS', help='(default: %(default)s)')
    how.add_argument('--no-cuts', action='store_true', help='take the video for one scene')
    how.add_argument('--at-cut', choices=AT_CUT, default='previous',
                     help='which frame is shown twice between two scenes, by models that double the frame rate '
                     '(default: %(default)s)')
    how.add_argument('--even', action='store_true',
                     help='of such models: make 2n frames of n, the last shown twice, instead of 2n - 1')
    how.add_argument('--deinterlace', action='store_true', help='make one frame of every two fields')
    how.add_argument('--rate', type=frame_rate, help='frames a second of a folder (default: 25)')
    how.add_argument('--resume', action='store_true', help='go on with work that was interrupted')
    how.add_argument('--json', action='store_true', help='progress as a JSON object a line, for machines')


def frame_rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f'{text} is no number') from None


def add_encoding_options(parser: argparse.ArgumentParser) -> None:
    encoding = parser.add_argument_group('encoding')
    encoding.add_argument('--codec', help='x264, x265, av1, prores, ffv1 (lossless) or png (default: x264; av1 in '
                          '.webm; png for a folder)')
    encoding.add_argument('--crf', type=float, help='quality, less is better (default: that of the codec)')
    encoding.add_argument('--preset', help='speed of the encoder (default: that of the codec)')


# ---------------------------------------------------------------- commands

def run_restore(args: argparse.Namespace) -> int:
    from .cpu_memory import keep_freed_memory
    from .inference import is_recurrent
    from .video.batch import Ranks, outputs_of
    from .video.restorer import RestoreOptions

    devices = devices_of(args.device)
    if args.tile is None and 'cpu' in devices:  # where what does not fit into memory ends without a word
        args.tile = CPU_TILE
    options = RestoreOptions(tile=args.tile or None, tile_overlap=args.tile_overlap, precision=args.precision,
                             detect_cuts=not args.no_cuts, at_cut=args.at_cut, even=args.even)
    if args.suffix and not args.into:
        raise ValueError('--suffix goes with --into')
    if args.into:
        inputs = args.paths
        outputs = outputs_of(inputs, args.into, codec=args.codec, suffix=args.suffix)
    elif len(args.paths) == 2:
        inputs, outputs = args.paths[:1], args.paths[1:]
    else:
        raise ValueError(f'expected an input and an output, or inputs and --into FOLDER, but got {len(args.paths)} '
                         'path(s)')
    with Ranks() as ranks:
        if 'cpu' in devices:
            keep_freed_memory()
        chosen = chosen_model(args)
        net = build_model(args, chosen, devices[0] if len(devices) == 1 else 'cpu')
        if len(devices) > 1 and is_recurrent(net):
            raise ValueError(f'--device: {type(net).__name__} goes from frame to frame, which one device does')
        if args.into:
            args.into.mkdir(parents=True, exist_ok=True)
        restore = Restoring(args, options, chosen, net, devices, several=bool(args.into))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        for number in ranks.share(len(inputs)):
            ranks.add('failed', not restore(inputs[number], outputs[number]))
        ranks.wait()
        failed = ranks.add('failed') if ranks.rank == 0 else 0
    if failed and args.into:
        print(f'{failed} of {len(inputs)} failed', file=sys.stderr)
    return EXIT_FAILED if failed else 0


class Restoring:
    """Restores one video after the other by one network.

    Args:
        args: of the command.
        options: how frames are restored.
        chosen: the model.
        net: where it is to run, or if there are several devices, to tell what it is.
        devices: where networks are to run.
        several: whether there are more videos: then what lies there already is passed over, and a video that cannot be
            restored is told and left.
    """

    def __init__(self, args: argparse.Namespace, options: Any, chosen: 'Chosen', net: Any, devices: Sequence[str], *,
                 several: bool):
        self.args, self.options, self.net, self.several = args, options, net, several
        self.name = chosen.fingerprint()  # reads the weights
        self.builders = [partial(build_model, args, chosen, device) for device in devices] if len(devices) > 1 else []

    def __call__(self, source: Path, output: Path) -> bool:
        """Restores one video; returns whether it is there."""
        import torch

        from .video.job import RestoreError

        with ProgressBar(output, as_json=self.args.json, named=self.several) as progress:
            if self.several and not self.args.overwrite and output.exists():
                progress.end('skipped', f'{output}: is there already, and passed over')
                return True
            try:
                self._restore(source, output, progress)
            except RestoreError as error:
                if not isinstance(error.__cause__, OSError | torch.OutOfMemoryError):  # whoever wrote it needs to see
                    traceback.print_exception(error.__cause__)
                progress.end('failed', f'error: {error}')
                return False
            except KeyboardInterrupt as interrupt:
                progress.end('interrupted', *interrupt.args, tell=False)
                raise
            except Exception as error:
                if not self.several:
                    progress.end('refused', str(error), tell=False)
                    raise
                name = '' if isinstance(error, OSError | ValueError) else f'{type(error).__name__}: '
                progress.end('failed', f'error: {source} -> {output}: {name}{error}')
                return False
            progress.end('done')
        return True

    def _restore(self, path: Path, output: Path, progress: 'ProgressBar') -> None:
        from .video.job import Job
        from .video.sink import Encoding, default_codec
        from .video.source import open_source

        args = self.args
        encoding = Encoding(args.codec or default_codec(output), args.crf, args.preset)
        with open_source(path, deinterlace=args.deinterlace, rate=args.rate) as source:
            job = Job(source, output, self.net, model=self.name, options=self.options, encoding=encoding,
                      builders=self.builders, overwrite=args.overwrite)
            told = list(job.warnings)
            for warning in told:
                progress.tell(f'warning: {warning}')
            job.run(resume=args.resume, on_progress=progress)
            for warning in job.warnings[len(told):]:
                progress.tell(f'warning: {warning}')


def run_info(args: argparse.Namespace) -> int:
    from .info import describe_model, describe_video, facts_of_model, facts_of_video
    from .options import load_options
    from .video.source import open_source
    from .zoo import ZOO, load, load_network

    if args.what is None:
        facts = shown = {name: entry.about for name, entry in ZOO.items()}
    elif args.what in ZOO:
        entry = ZOO[args.what]
        facts = facts_of_model(load(args.what), f'{args.what}: {entry.about}', entry.weights)
        shown = describe_model(facts)
    elif args.what.endswith(('.yml', '.yaml')):
        facts = facts_of_model(load_network(network_of(load_options(args.what), args.what), None), args.what, None)
        shown = describe_model(facts)
    elif Path(args.what).exists():
        with open_source(args.what) as source:
            facts = facts_of_video(source)
        shown = describe_video(facts)
    else:
        raise ValueError(f'{args.what} is neither a file, nor one of the models {", ".join(ZOO)}')
    if args.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, shown)) + 2
    for name, value in shown.items():
        print(f'{name:{width}}{value}')
    return 0


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


def run_export(args: argparse.Namespace) -> int:
    from .export import CheckError, export_network
    from .zoo import load_network

    chosen = chosen_model(args)
    net = load_network(chosen.network, chosen.weights, param_key=chosen.param_key)
    try:
        checked = export_network(net, args.output, name=args.model or type(net).__name__, weights=chosen.weights,
                                 check=not args.no_check, overwrite=args.overwrite)
    except CheckError as error:
        print(f'error: {error}', file=sys.stderr)
        return EXIT_FAILED
    for each in checked or ():
        print(f'{each.batch} x {each.height}x{each.width}: differs from torch by at most {each.largest:.1e}')
    if checked is None:
        reason = 'as you asked' if args.no_check else 'onnxruntime is not installed'
        print(f'warning: {args.output} was not checked: {reason}', file=sys.stderr)
    print(args.output)
    return 0


def run_test(args: argparse.Namespace) -> int:
    from .protocols.run import BASELINES, measure, measure_frames
    from .zoo import ZOO

    where = {'data': args.data, 'into': args.into, 'chosen': args.datasets, 'num_worker': args.workers}
    if args.label and not args.frames:
        raise ValueError('--label is for --frames')
    if args.frames:
        label = args.label or args.frames.resolve().name
        if args.weights:
            raise ValueError('--weights goes with --opt; saved frames need none')
        if label in {*BASELINES, *ZOO} or not re.fullmatch(r'\w[\w.+-]*', label):
            raise ValueError(f'--label {label!r}: expected letters, digits, and . _ + -, but no name of a model')
        folder = measure_frames(args.protocol, label, args.frames, **where)
    elif args.model in BASELINES and not args.weights:
        folder = measure(args.protocol, args.model, None, None, **where)
    else:
        chosen = chosen_model(args)
        folder = measure(args.protocol, chosen.name, chosen.network, chosen.weights, param_key=chosen.param_key,
                         **where)
    print((folder / 'table.md').read_text())
    print(f'{folder}: results.json, table.md, clips.csv, frames.csv, frames.png, clips.png')
    return 0


def devices_of(text: str) -> list[str]:
    """The devices that `--device` names.

    Raises:
        ValueError: there is no such device.
    """
    import torch

    num_gpus = torch.cuda.device_count()
    if text == 'auto':  # of the processes of torchrun on a node, each has a GPU of its own
        return [f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % num_gpus}' if num_gpus else 'cpu']
    names = text.split(',')
    for name in names:
        try:
            device = torch.device(name)
        except RuntimeError:
            raise ValueError(f'--device {name}: expected auto, cpu, cuda, cuda:N, or several of these') from None
        if device.type == 'cuda' and (device.index or 0) >= num_gpus:
            raise ValueError(f'--device {name}: there is no such GPU, torch finds {num_gpus}')
    return names


class Chosen(NamedTuple):
    """What the options of a model name.

    Attributes:
        name: of the zoo, or that of the option file.
        network: its `network_g`.
        weights: their file; None: it has none.
        param_key: which weights of that file; None: the best.
    """
    name: str
    network: dict[str, Any]
    weights: Path | None
    param_key: str | None

    def fingerprint(self) -> str:
        """What tells the network and its weights from others."""
        facts = json.dumps([self.network, self.param_key], sort_keys=True, default=str)
        digest = hashlib.sha256(facts.encode())
        if self.weights:
            digest.update(self.weights.read_bytes())
        return f'{self.network["type"]} {digest.hexdigest()}'


def network_of(opt: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """The `network_g` of an option file; ValueError where it has none."""
    if not opt.get('network_g'):
        raise ValueError(f'{file} has no network_g')
    return opt['network_g']


def chosen_model(args: argparse.Namespace) -> Chosen:
    """What --model, --opt and --weights name.

    Raises:
        ValueError: there is no such model, the option file has no network, or names no weights.
        FileNotFoundError: a file is missing.
    """
    from .options import load_options
    from .zoo import build, check_file, entry_of

    if args.weights and not args.opt:
        raise ValueError('--weights goes with --opt; other models have weights, or need none')
    if args.model:
        return Chosen(args.model, dict(entry_of(args.model).network), check_file(args.model), None)
    opt = load_options(str(args.opt))
    network, path = network_of(opt, args.opt), opt.get('path') or {}
    if args.weights:
        return Chosen(args.opt.stem, network, args.weights, None)
    if named := path.get('pretrain_network_g'):
        return Chosen(args.opt.stem, network, Path(named), path.get('param_key_g'))
    if any(True for _ in build(network).parameters()):
        raise ValueError(f'{args.opt} names no weights for {network["type"]}; give them with --weights')
    return Chosen(args.opt.stem, network, None, None)


def build_model(args: argparse.Namespace, chosen: Chosen, device: str) -> Any:
    """A network on a device, laid out and compiled as the options say."""
    import torch

    from .archs.arch_util import compile_network, to_channels_last
    from .zoo import load_network

    net = load_network(chosen.network, chosen.weights, device, chosen.param_key)
    if args.channels_last:
        net = to_channels_last(net)
    if args.compile and (problem := compile_network(net, torch.device(device))):
        print(f'warning: --compile is off: {problem}', file=sys.stderr)
    return net


class ProgressBar:
    """Shows how far the restoring of a video is; a context manager.

    Args:
        output: the video.
        as_json: lines on stdout instead of a bar.
        named: whether the bar shows the name of the output.
    """

    def __init__(self, output: Path, *, as_json: bool, named: bool):
        self.output, self.as_json, self.named = output, as_json, named
        self._bar = None

    def __call__(self, progress: Any) -> None:
        if self.as_json:
            self._print('running', frames=progress.frames, total=progress.total or None, time=float(progress.time))
            return
        if self._bar is None:  # the frames of an earlier run took no time
            self._bar = tqdm(desc=self.output.name if self.named else None, total=progress.total or None,
                             initial=progress.frames - 1, unit='frame', dynamic_ncols=True)
        self._bar.update(progress.frames - self._bar.n)

    def tell(self, message: str) -> None:
        """Prints a line for people."""
        tqdm.write(message, file=sys.stderr)

    def end(self, state: str, message: str = '', *, tell: bool = True) -> None:
        """Tells how it ended: 'done', 'skipped', 'failed', 'refused' or 'interrupted'.

        Args:
            tell: whether people are told, too.
        """
        if message and tell:
            self.tell(message)
        if self.as_json:
            with suppress(BrokenPipeError):  # who read has gone
                self._print(state, **({'message': message} if message else {}))

    def _print(self, state: str, **fields: Any) -> None:
        # In one piece: torchrun runs Python unbuffered, and its processes share a stream
        sys.stdout.write(json.dumps({'output': str(self.output), 'state': state, **fields}) + '\n')
        sys.stdout.flush()

    def __enter__(self) -> 'ProgressBar':
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._bar is not None:
            self._bar.close()
