"""Export networks to ONNX for frames of any size, and compare the results of onnxruntime with those of torch.

docs/export.md describes the inputs, outputs and metadata of a file. The file takes a whole window; for a recurrent
network it holds one step, with the state as input and output. Needs the packages onnx and onnxscript.
Shapes: B clips, T input frames, U output frames, C channels, H x W pixels of the LR grid, s = scale; k x k taps of a
window.
"""
import io
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..archs import pacnet_arch  # noqa: F401  (registers the operators that are translated below)
from ..archs.hoffr_arch import HOFFR
from ..archs.spec import Network, spec_of
from ..archs.weight_files import sha256_of
from ..utils.atomic_files import whole_file
from ..version import __version__

OPSET = 20  # has the GridSample that torch's exporter writes; supported by onnxruntime since 1.17
TOLERANCE = 1e-4  # for frames in 0-1
MAX_SIDE = 2**16  # in multiples of size_multiple; torch.export requires a limit
LAST = 2**63 - 1  # 'to the end' in ONNX's Slice
PACKAGES = 'onnx', 'onnxscript'
FLOW_RANGE = 4.0  # pixels, of the test flow


class ExportError(ValueError):
    """The network cannot be expressed in ONNX."""


class CheckError(RuntimeError):
    """onnxruntime and the network give different results, or onnxruntime cannot run the file."""


# ---------------------------------------------------------------- inputs and outputs

class Port(NamedTuple):
    """An input or output, (B, *middle, ratio H, ratio W)."""

    name: str
    middle: tuple[int, ...]  # frames, directions, channels
    ratio: int = 1

    def shape(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        return batch, *self.middle, self.ratio * height, self.ratio * width

    def axes(self) -> list[str | int]:
        """Return the symbolic shape for the file."""
        times = f'{self.ratio}*' if self.ratio > 1 else ''
        return ['batch', *self.middle, f'{times}height', f'{times}width']

    def sample(self, batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Return random values in the range of this port."""
        values = torch.rand(self.shape(batch, height, width), generator=generator)
        return (2 * values - 1) * FLOW_RANGE if self.name == 'flow' else values


class Interface(NamedTuple):
    """Inputs and outputs of a network in ONNX."""

    module: nn.Module  # tensors in, a tuple of tensors out
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def samples(self, batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Return random inputs, always the same."""
        generator = torch.Generator().manual_seed(0)
        return tuple(port.sample(batch, height, width, generator) for port in self.inputs)


class Wrapped(nn.Module):
    net: Network

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = cast(Network, net)


class Window(Wrapped):
    """Wrap a network to take a window of frames, with the flow between them if needed."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        return (self.net(*(self.net.inputs(*inputs) if self.net.spec.needs_flow else inputs)),)


class Step(Wrapped):
    """Wrap a recurrent network to take a frame and the previous state."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        frame, *state = inputs
        restored, left = self.net.step(frame, self.net.spec.state_of(state))
        return restored, *left


def interface_of(net: nn.Module) -> Interface:
    """Return the interface of a network, which is called as in `basicsr_stvsr.inference.windows`.

    Raises:
        ExportError: the network takes clips of any length at once.
        ValueError: the network has no `spec`.
    """
    spec = spec_of(net)
    channels = spec.num_channels
    if spec.recurrent:
        return recurrent_interface(net)
    if spec.num_frames is None:
        raise ExportError(f'{type(net).__name__} cannot be exported: it processes clips of any length at once, but '
                          'ONNX needs windows of a fixed number of frames (num_frames) or a recurrent step (step)')
    inputs = [Port('lq', (spec.num_frames, channels))]
    if spec.needs_flow:
        inputs.append(Port('flow', (spec.num_frames - 1, 2, 2)))
    num_out = spec.length_of_window(spec.num_frames)
    return Interface(Window(net), tuple(inputs), (Port('hr', (num_out, channels), spec.scale),))


@torch.no_grad()
def recurrent_interface(net: nn.Module) -> Interface:
    spec = spec_of(net)
    channels, side = spec.num_channels, spec.size_multiple * -(-8 // spec.size_multiple)
    state: Any  # a NamedTuple
    _, state = cast(Network, net).step(torch.zeros(1, channels, side, side), None)
    shapes = {name: ((x.shape[1],), x.shape[-1] // side) for name, x in zip(state._fields, state, strict=True)}
    inputs = Port('lq', (channels,)), *(Port(f'state_{name}', *shape) for name, shape in shapes.items())
    outputs = Port('hr', (channels,), spec.scale), *(Port(f'next_{name}', *shape) for name, shape in shapes.items())
    return Interface(Step(net), inputs, outputs)


def metadata_of(net: nn.Module, name: str, weights: Path | None) -> dict[str, str]:
    """Return the metadata that a user of the file needs; see docs/export.md."""
    spec = spec_of(net)
    facts = {
        'name': name,
        'network': type(net).__name__,
        'scale': spec.scale,
        'temporal_scale': spec.temporal_scale,
        'num_frames': 1 if spec.recurrent else spec.num_frames,
        'size_multiple': spec.size_multiple,
        'color': spec.color or 'any',
        'first_output': spec.first_output,
        'pads_ends': str(spec.pads_ends).lower(),
        'overlap': spec.overlap,
        'recurrent': str(spec.recurrent).lower(),
        'weights_sha256': sha256_of(weights) if weights else 'none',
        'basicsr_stvsr_version': __version__}
    if spec.recurrent:
        facts['init_state'] = net.init_state if isinstance(net, HOFFR) else 'zeros'
    return {key: str(value) for key, value in facts.items()}


# ---------------------------------------------------------------- pixel-adaptive convolution

def shifted(opset: Any, padded: Any, y: int, x: int, kernel_size: int) -> Any:
    """Slice the values under the tap at (y, x) of a window sliding over a padded (B, C, H + k - 1, W + k - 1)."""
    ends = [place - kernel_size + 1 or LAST for place in (y, x)]  # from the end, as H and W are not known
    return opset.Slice(padded, [y, x], ends, [2, 3])


def pad(opset: Any, x: Any, margin: int) -> Any:
    return opset.Pad(x, [0, 0, margin, margin, 0, 0, margin, margin])


@cache
def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Map the operators of `archs.pacnet_arch` to ONNX, tap by tap, to avoid unfolding."""
    opset = getattr(import_module('onnxscript'), f'opset{OPSET}')

    def pac_kernel(guide: Any, kernel_size: int) -> Any:
        padded, taps = pad(opset, guide, kernel_size // 2), []
        for y, x in product(range(kernel_size), repeat=2):
            difference = opset.Sub(shifted(opset, padded, y, x, kernel_size), guide)
            taps.append(opset.ReduceSum(opset.Mul(difference, difference), [1], keepdims=1))
        return opset.Exp(opset.Mul(opset.Concat(*taps, axis=1), opset.Constant(value_float=-0.5)))

    def pac_conv(x: Any, kernel: Any, weight: Any, stride: int) -> Any:
        # Split as in `archs.pacnet_arch._phases`: a tap meets input pixels in only one of the stride^2 phases.
        kernel_size = weight.shape[2]
        sums: dict[tuple[int, ...], Any] = {}
        margin = kernel_size // 2
        padded = pad(opset, x, margin)
        for number, tap in enumerate(product(range(kernel_size), repeat=2)):
            phase = tuple((margin - place) % stride for place in tap)
            top, left = ((start + place - margin) // stride + margin for start, place in zip(phase, tap, strict=True))
            factor = opset.Slice(kernel, [number, *phase], [number + 1, LAST, LAST], [1, 2, 3], [1, stride, stride])
            tap_weight = opset.Slice(weight, list(tap), [each + 1 for each in tap], [2, 3])
            part = opset.Conv(opset.Mul(shifted(opset, padded, top, left, kernel_size), factor), tap_weight)
            sums[phase] = opset.Add(sums[phase], part) if phase in sums else part
        phases = opset.Concat(*(sums[phase] for phase in sorted(sums)), axis=1)
        return opset.DepthToSpace(phases, blocksize=stride, mode='DCR')

    operators = torch.ops.basicsr_stvsr
    return {operators.pac_kernel.default: pac_kernel, operators.pac_conv.default: pac_conv}


# ---------------------------------------------------------------- torch to ONNX

def check_packages() -> None:
    """Raise ValueError if a package that torch's exporter needs is missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ValueError(f'ONNX export needs the packages {" and ".join(PACKAGES)}, but {" and ".join(missing)} cannot '
                         "be found: pip install 'basicsr_stvsr[onnx]', or onnx, onnxscript and onnxruntime")


def to_onnx(net: nn.Module, interface: Interface) -> Any:
    """Trace a network on a CPU, with dynamic batch, height and width.

    Returns:
        torch.onnx.ONNXProgram.

    Raises:
        ExportError: an operation does not support dynamic sizes, or has no counterpart in ONNX.
    """
    multiple = spec_of(net).size_multiple
    batch = Dim('batch', min=1, max=MAX_SIDE)
    rows, columns = (Dim(name, min=1, max=MAX_SIDE) for name in ('rows', 'columns'))
    open_axes = tuple(
        {0: batch, len(port.middle) + 1: port.ratio * multiple * rows,
         len(port.middle) + 2: port.ratio * multiple * columns} for port in interface.inputs)
    # Trace with no size of 1, because torch assumes that such a size is constant.
    units = -(-4 // multiple) + 1
    samples = interface.samples(2, units * multiple, (units + 1) * multiple)
    # The exporter based on TorchScript is faster, but silently wrote a file with wrong results for FSTRN.
    try:
        with warnings.catch_warnings(), torch.no_grad(), without_graphs():
            warnings.simplefilter('ignore', FutureWarning)  # warnings of torch about itself
            program = torch.export.export(interface.module, samples, dynamic_shapes=(open_axes,), strict=False)
            check_operations(program)
            return torch.onnx.export(
                program, input_names=[port.name for port in interface.inputs],
                output_names=[port.name for port in interface.outputs], opset_version=OPSET,
                custom_translation_table=translations(), verbose=False)
    except Exception as error:  # from torch.export, sympy, the exporter or onnxscript: any type
        raise ExportError(f'{type(net).__name__} cannot be exported: {reason_of(error)}') from error


@contextmanager
def without_graphs() -> Iterator[None]:
    """Keep torch from printing a page of graph when it fails; its error has the details."""
    logger = logging.getLogger('torch.fx.experimental.symbolic_shapes')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def check_operations(program: torch.export.ExportedProgram) -> None:
    """Raise ValueError for operations that the exporter would silently translate wrongly."""
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.unfold.default:
            raise ValueError('the operation aten.unfold: a window as large as the frame would keep the size that it '
                             'was traced with')


def reason_of(error: Exception) -> str:
    """Return in one line which operation failed to export, and the error message."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    texts = [str(each) for each in chain]
    said = next((line for line in map(first_line, reversed(texts)) if line), type(error).__name__)
    if unfit := re.search(r'^ *- (.*(?:guard|specialized).*)$', texts[0], re.MULTILINE):
        return f'it only works with some frame sizes: {unfit[1]}'
    if operator := re.search(r"(?:OpOverload\(op='|target=torch\.ops\.)(\w+\.\w+(?:\.\w+)?)", '\n'.join(texts)):
        return f'ONNX or its exporter lacks the operation {operator[1]}: {said}'
    frames = [frame for each in chain for frame in traceback.extract_tb(each.__traceback__) if is_of_network(frame)]
    if frames:
        return f'{Path(frames[-1].filename).name}, line {frames[-1].lineno}, {frames[-1].line!r}: {said}'
    return said


def first_line(text: str) -> str:
    return text.strip().partition('\n')[0].strip()


def is_of_network(frame: traceback.FrameSummary) -> bool:
    """Whether a traceback line belongs to the network, and not to the tools that run or trace it."""
    path = Path(frame.filename)
    tools = [Path(cast(str, import_module(name).__file__)).parent for name in ('torch', 'sympy', 'onnxscript')]
    is_tool = path == Path(__file__) or any(path.is_relative_to(folder) for folder in tools)
    is_python = path.is_relative_to(sysconfig.get_path('stdlib')) and 'site-packages' not in path.parts
    return path.is_file() and not is_tool and not is_python


def finish(program: Any, interface: Interface, facts: dict[str, str]) -> None:
    """Name the axes and add metadata; remove paths and code lines of this machine that the exporter adds."""
    ir = import_module('onnx_ir')
    model = program.model
    outputs = list(model.graph.outputs)
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in outputs:  # has torch's axis names; readers of the file infer its shape
                value.shape = value.type = None
    for port, value in zip(interface.inputs + interface.outputs, [*model.graph.inputs, *outputs], strict=True):
        value.shape = ir.Shape(port.axes())
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update(facts)


def export_network(net: nn.Module, path: Path, *, name: str, weights: Path | None = None, check: bool = True,
                   overwrite: bool = False) -> list['Difference'] | None:
    """Export a network to an ONNX file, which appears when it is complete and checked.

    Args:
        net: a network with a `spec`, on a CPU, in evaluation mode.
        path: the file.
        name: name of the network.
        weights: file of its weights, whose sha256 is stored in the ONNX file; None: it has none.
        check: whether to run the file in onnxruntime, if that is installed.
        overwrite: whether to replace an existing file.

    Returns:
        differences of the results at each size; None: not checked.

    Raises:
        ExportError: the network cannot be expressed in ONNX.
        CheckError: onnxruntime cannot run the file, or gives different results.
        ValueError: a package is missing, or the network has no `spec`.
        OSError: the file exists, or cannot be written.
    """
    check_packages()
    if path.exists() and not overwrite:
        raise FileExistsError(f'{path}: already exists; --overwrite replaces it')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: the folder {path.parent} does not exist')
    interface = interface_of(net)
    program = to_onnx(net, interface)
    finish(program, interface, metadata_of(net, name, weights))
    with whole_file(path) as part:
        program.save(part, external_data=False)
        return check_file(part, net, interface) if check and find_spec('onnxruntime') else None


# ---------------------------------------------------------------- onnxruntime

class Difference(NamedTuple):
    """Largest difference between the results of onnxruntime and torch."""

    batch: int
    height: int
    width: int
    largest: float


def check_file(path: Path, net: nn.Module, interface: Interface) -> list[Difference]:
    """Run the file and the network on random frames of three sizes.

    Raises:
        CheckError: onnxruntime cannot run it, or a pixel of an output differs by more than TOLERANCE.
    """
    differences = []
    try:
        for difference in compare(path, net, interface):
            differences.append(difference)
            if not difference.largest <= TOLERANCE:  # also catches NaN
                batch, height, width, largest = difference
                raise CheckError(f'{type(net).__name__}: for {batch} x {height}x{width}, onnxruntime and torch differ '
                                 f'by {largest:.2g}, more than {TOLERANCE:g}; nothing was written')
    except CheckError:
        raise
    except Exception as error:  # onnxruntime has no error class of its own
        raise CheckError(f'{type(net).__name__}: onnxruntime cannot run the file: {first_line(str(error))}; nothing '
                         'was written') from error
    return differences


def compare(path: Path, net: nn.Module, interface: Interface) -> Iterator[Difference]:
    """Run the file and the network on three sizes, none of which was used for tracing."""
    session = import_module('onnxruntime').InferenceSession(str(path), providers=['CPUExecutionProvider'])
    multiple = spec_of(net).size_multiple
    units = -(-16 // multiple)
    for batch, rows, columns in ((1, units, units + 1), (2, units + 1, units), (1, units + 3, units + 2)):
        height, width = multiple * rows, multiple * columns
        inputs = interface.samples(batch, height, width)
        with torch.no_grad():
            expected = interface.module(*inputs)
        given = {port.name: x.numpy() for port, x in zip(interface.inputs, inputs, strict=True)}
        outputs = map(torch.from_numpy, session.run([port.name for port in interface.outputs], given))
        yield Difference(batch, height, width, max(
            largest_difference(output, truth) for output, truth in zip(outputs, expected, strict=True)))


def largest_difference(output: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference of two tensors; infinite if their shapes differ."""
    return (output - expected).abs().max().item() if output.shape == expected.shape else float('inf')
