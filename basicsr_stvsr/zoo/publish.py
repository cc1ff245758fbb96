"""Publish a training checkpoint: weights only, named by their hash, with a model card.

The card is filled in from the folder of the training and from the result files of `stvsr test`.
"""
import hashlib
import io
import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..archs.archive import digest_of
from ..archs.spec import spec_of
from ..archs.weight_files import import_safetensors, load_weights, read_params, sha256_of
from ..config.loading import load_options
from ..training.state import saved_states
from ..utils.atomic_files import replace_file
from .cards import NOT_TOLD, card
from .info import MEASURED_SIZE
from .network_source import network_of
from .table import Entry, Score, Stage, build

NAME = re.compile(r'[A-Za-z0-9.]\w*_[A-Za-z0-9.-]+_x(\d+)')  # <Method>_<train set>_x<scale>
SAVED_COMMAND = re.compile(r'# .*\d\d:\d\d:\d\d \d{4}: (?P<command>.+)')  # the first line of options.yml

Blocks = dict[str, dict[str, Tensor]]  # 'params', 'params_ema' or both


@dataclass(frozen=True)
class Publication:
    """The files written by `publish`.

    Attributes:
        name: key in the table of the zoo.
        entry: row of that table.
        path: the weights.
        card: the model card.
    """
    name: str
    entry: Entry
    path: Path
    card: Path


def publish(checkpoint: Path, *, name: str | None = None, opt: Path | None = None, into: Path = Path(),
            key: str | None = None, half: bool = False, as_safetensors: bool = False, results: Sequence[Path] = (),
            data: str | None = None, licence: str = NOT_TOLD, url: str | None = None) -> Publication:
    """Write `<name>-<first 8 digits of its sha256>.pth`, and a model card `.md` of the same name.

    Args:
        checkpoint: of a training; or weights in another layout, see `read_state_dict`.
        name: <Method>_<train set>_x<scale>; None: derived from the options.
        opt: option file of the training; None: the one in the folder of the training.
        into: output folder.
        key: 'params' or 'params_ema': keep only this set, as `params`; None: keep all sets of the checkpoint.
        half: whether to round the weights to half precision.
        as_safetensors: whether to write .safetensors, which holds one set only: `key`, or by default the average if
            there is one.
        results: result files of `stvsr test`.
        data: description of the training data; None: the name of the data set.
        licence: of the weights.
        url: web folder that will serve the file.

    Raises:
        FileNotFoundError: the checkpoint, the option file or a result is missing.
        ValueError: one of these files is invalid, or the name has the wrong form. Nothing is written.
    """
    opt = opt or options_beside(checkpoint)
    options = load_options(str(opt))
    network = network_of(options, opt)
    net = build(network)
    blocks = chosen(read_params(checkpoint, what=type(net).__name__), key, checkpoint)
    for state in blocks.values():
        load_weights(net, state, path=checkpoint, what=f'{type(net).__name__} of {opt}')
    name = check_name(name or default_name(options, net, opt), net)
    blocks = {block: stored(state, half, checkpoint) for block, state in blocks.items()}
    content = to_safetensors(blocks) if as_safetensors else to_pth(blocks)
    digest = hashlib.sha256(content).hexdigest()
    path = into / f'{name}-{digest[:8]}.{"safetensors" if as_safetensors else "pth"}'
    measured, tests = read_results(results, network, {sha256_of(checkpoint), digest})
    entry = Entry(
        network=network, weights=path.name, sha256=digest, size=len(content), about=about(net),
        parameters=sum(parameter.numel() for parameter in net.parameters()), gflops=gflops_of(net),
        data=data or data_of(options), stages=(Stage(*command_of(opt, iterations_of(checkpoint))),),
        licence=licence, measured=measured, measured_by=tests, url=f'{url.rstrip("/")}/{path.name}' if url else None)
    into.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)
    card_path = path.with_suffix('.md')
    replace_file(card_path, card(zoo_name(name), entry).encode())
    return Publication(zoo_name(name), entry, path, card_path)


def gflops_of(net: nn.Module) -> float | None:
    """Return `Entry.gflops`; None if mmengine is not installed or the network does not support the frame size."""
    if find_spec('mmengine') is None or any(side % spec_of(net).size_multiple for side in MEASURED_SIZE):
        return None
    from .complexity import complexity

    return round(complexity(net.eval()).flops / 1e9, 3)


# ---------------------------------------------------------------- the weights

def chosen(blocks: Blocks, key: str | None, checkpoint: Path) -> Blocks:
    """Return the sets of weights to keep; raise ValueError if `key` is missing."""
    if key is None:
        return blocks
    if key not in blocks:
        raise ValueError(f'{checkpoint} holds {" and ".join(blocks)}, but no {key}')
    return {'params': blocks[key]}


def stored(state: Mapping[str, Tensor], half: bool, checkpoint: Path) -> dict[str, Tensor]:
    """Return copies of the tensors to save; a view would save its whole storage.

    Raises:
        ValueError: a value is infinite or NaN.
    """
    tensors = {}
    for name, tensor in state.items():
        tensor = tensor.detach().clone(memory_format=torch.contiguous_format)
        tensor = tensor.half() if half and tensor.is_floating_point() else tensor
        if not tensor.isfinite().all():  # `load_weights` has checked them in full precision
            raise ValueError(f'{checkpoint}: {name} is not finite{" in half precision" if half else ""}')
        tensors[name] = tensor
    return tensors


def to_pth(blocks: Blocks) -> bytes:
    buffer = io.BytesIO()  # torch.save would store the name of a file, so equal weights would get different hashes
    torch.save(blocks, buffer)
    return buffer.getvalue()


def to_safetensors(blocks: Blocks) -> bytes:
    """Serialise one set of weights; the format holds no more."""
    _, torch_side = import_safetensors()
    tensors = blocks.get('params_ema') or blocks['params']
    return cast(bytes, torch_side.save(tensors, metadata={'format': 'pt', 'sha256': digest_of(tensors)}))


# ---------------------------------------------------------------- the name

def default_name(options: Mapping[str, Any], net: nn.Module, opt: Path) -> str:
    """Return <network>_<train set>_x<scale> from the options; raise ValueError if they name no training set."""
    train_set = train_set_of(options)
    if not train_set.get('name'):
        raise ValueError(f'{opt} has no training data set to name the weights after; set --name <Method>_<train '
                         'set>_x<scale>')
    return f'{options["network_g"]["type"]}_{re.sub("[^A-Za-z0-9.-]", "", train_set["name"])}_x{spec_of(net).scale}'


def check_name(name: str, net: nn.Module) -> str:
    """Return the name; raise ValueError if its form is wrong or its scale differs from that of the network."""
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f'--name must be <Method>_<train set>_x<scale>, such as MBNet_vimeo90k_x4, but is {name!r}')
    if int(match[1]) != spec_of(net).scale:
        raise ValueError(f'--name {name}: {type(net).__name__} with these options upscales x{spec_of(net).scale}')
    return name


def zoo_name(name: str) -> str:
    return name.lower().replace('_', '-')


# ---------------------------------------------------------------- the card

def about(net: nn.Module) -> str:
    spec = spec_of(net)
    time = f', x{spec.temporal_scale} in time' if spec.temporal_scale > 1 else ''
    return f'x{spec.scale} in space{time}{", of luma" if spec.color == "y" else ""}'


def train_set_of(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return (options.get('datasets') or {}).get('train') or {}


def data_of(options: Mapping[str, Any]) -> str:
    train_set = train_set_of(options)
    return f'{train_set["name"]} ({train_set["type"]})' if {'name', 'type'} <= train_set.keys() else NOT_TOLD


def options_beside(checkpoint: Path) -> Path:
    """Return the option file in the folder of a training: `options.yml`; for BasicSR, a copy of the only option file.

    Raises:
        FileNotFoundError: there is no such file, or several.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f'{checkpoint} does not exist or is a folder; expected a checkpoint of a training run')
    folder = checkpoint.resolve().parent.parent
    files = [folder / 'options.yml'] if (folder / 'options.yml').is_file() else sorted(folder.glob('*.yml'))
    if len(files) != 1:
        raise FileNotFoundError(f'{folder} has {len(files)} option files, but no options.yml of a training run; name '
                                'the option file with --opt')
    return files[0]


def command_of(opt: Path, iterations: int | None) -> tuple[str, int | None, str | None]:
    """Return the fields of a `Stage`: the option file, the iterations, and the command recorded in options.yml."""
    match = SAVED_COMMAND.fullmatch(opt.read_text(encoding='utf-8').partition('\n')[0])
    if match is None:
        return opt.name, iterations, NOT_TOLD
    script, *words = shlex.split(match['command'])
    file = words[words.index('-opt') + 1] if '-opt' in words[:-1] else opt.name
    if script.endswith('.py'):  # `python -m` records where the package is installed
        script = 'python -m basicsr_stvsr.train' if Path(script).is_absolute() else f'python {script}'
    return file, iterations, f'{script} {shlex.join(words)}'


def iterations_of(checkpoint: Path) -> int | None:
    """Return the number in `net_g_<iterations>.pth`; for net_g_latest.pth, that of the newest state if it matches."""
    number = re.search(r'_(\d+)$', checkpoint.stem)
    if number:
        return int(number[1])
    for state in saved_states(checkpoint.resolve().parent.parent / 'training_states')[:1]:
        numbered = checkpoint.with_name(checkpoint.name.replace('latest', state.stem))
        if numbered.is_file() and sha256_of(numbered) == sha256_of(checkpoint):
            return int(state.stem)
    return None


def read_results(paths: Iterable[Path], network: Mapping[str, Any], hashes: Collection[str]) -> (
        tuple[tuple[Score, ...], str | None]):
    """Read PSNR and SSIM from result files of `stvsr test`, and name the protocols or option files that measured them.

    Args:
        network: `network_g` of the published network.
        hashes: sha256 of its files, before and after publishing.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is no result, has no PSNR, or belongs to another network.
    """
    scores: list[Score] = []
    tests: dict[str, None] = {}  # used as an ordered set
    for path in paths:
        try:
            result = json.loads(path.read_text(encoding='utf-8'))
            averages, test = averages_of(result)
            found = [score for test_set, average in averages.items()
                     for score in scores_of(test_set, average, result['metrics'])]
            measured = result.get('weights') or {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{path} is not a result file of `stvsr test`, such as results/<name>/<data set>.json, or '
                             'results/<protocol>_<model>/results.json') from error
        if not found:
            metrics = {name: None for average in averages.values() for name in average}
            raise ValueError(f'{path} has no PSNR, only {", ".join(metrics) or "nothing"}')
        if 'protocol' in result and (result.get('network') != network or measured.get('sha256') not in hashes):
            raise ValueError(f'{path} has the scores of {result.get("model")!r}, which has another network or other '
                             'weights than the checkpoint')
        scores += found
        tests[test] = None
    return tuple(scores), '; '.join(tests) or None


def averages_of(result: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], str]:
    """Return scores as test set -> metric -> group -> score, and the option file or protocol that measured them."""
    if 'protocol' in result:
        averages = {f'{test_set} by {result["protocol"]}': average for test_set, average in result['average'].items()}
        return averages, result['command']
    return {result['dataset']: result['average']}, f'stvsr test, by the options named {result["model"]}'


def scores_of(test_set: str, average: Mapping[str, Mapping[str, float | None]],
              metrics: Mapping[str, Mapping[str, Any]]) -> Iterable[Score]:
    """Yield each PSNR with its matching SSIM, for every group of frames.

    Args:
        average: metric name -> group -> score.
        metrics: the options of each metric.
    """
    for name, groups in average.items():
        options = metrics[name]
        if not options['type'].endswith('psnr'):
            continue
        wanted = {**options, 'type': options['type'].replace('psnr', 'ssim')}
        ssim = average.get(next((other for other, opt in metrics.items() if opt == wanted), ''), {})
        for group, psnr in groups.items():
            if psnr is None or group == 'vsr' and 'vfi' not in groups:  # PSNR of equal frames; or all are given
                continue
            matching = ssim.get(group)
            yield Score(test_set, color_of_metric(options), group, round(psnr, 3),
                        round(matching, 4) if matching is not None else None)


def color_of_metric(options: Mapping[str, Any]) -> str:
    """Return the channels that a PSNR compares, and the border that it leaves out."""
    color = {'calculate_fisr_psnr': 'YUV', 'calculate_float_psnr': 'Y'}.get(
        options['type'], 'Y' if options.get('test_y_channel') else 'RGB')
    border = options.get('crop_border')
    return f'{color}, border {border}' if border else color
