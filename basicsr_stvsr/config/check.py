"""Check all options of a run before any data is opened."""
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
from pydantic_core import PydanticCustomError
from torch import nn

from .block import refuse, shown
from .options import BasicSROptions, Options
from .registered import entries, is_from, try_out

# Channels, blocks, ... of a network: building one of a billion blocks would take hours
MOST_OF_A_NETWORK = 10_000
MOST_BYTES_OF_WEIGHTS = 64 * 2**30


def has_schema(opt: Mapping[str, Any]) -> bool:
    """Return whether the options are for a model of this package. Keys of BasicSR's own models are not known."""
    model = opt.get('model_type')
    return isinstance(model, str) and hasattr(entries(MODEL_REGISTRY).get(model), 'train_options')


def check_options(opt: dict[str, Any], is_train: bool) -> dict[str, Any]:
    """Check the options of a run: keys, types, values, and consistency between blocks.

    Args:
        opt: the options of the file and the command line.
        is_train: whether to train or to test.

    Returns:
        The options with defaults filled in, without those that are `~`. Options for BasicSR's own models are returned
        unchanged.

    Raises:
        ValueError: an option is wrong. Each problem is one line that starts with the path of the option.
    """
    if not has_schema(opt):
        BasicSROptions.read(opt)
        for name in ('network_g', 'path', 'train', 'val', 'logger'):
            if not isinstance(opt.get(name), dict | None):
                raise ValueError(f'{name} must be a block, but is {shown(opt[name])}')
        return opt
    options = Options.read(opt)
    problems = [*missing_blocks(opt, options, is_train), *misfits(opt, options)]
    if problems:
        raise ValueError('\n'.join(problems))
    return options.complete()


def missing_blocks(opt: Mapping[str, Any], options: Options, is_train: bool) -> Iterator[str]:
    """Yield a message for each block that training or testing needs and the file lacks."""
    phases = {name: name.split('_')[0] for name, dataset in options.datasets.items() if dataset}
    for name, phase in phases.items():
        if is_train and phase == 'test':
            yield f'datasets.{name} is for testing; a training run uses train, val, val_2, ...'
        if not is_train and phase == 'train':
            yield f'datasets.{name} is for training; a test uses test, test_1, ..., val, val_2, ...'
    if not is_train:
        if not phases:
            yield 'datasets.test is missing: set the data to test on'
        return
    for name in ('train', 'logger'):
        if getattr(options, name) is None:
            yield f'{name} is missing{Options.purpose(name)}'
    if 'train' not in phases:
        yield 'datasets.train is missing: set the data to train on'
    # `~` turns a block off on purpose; a missing block may be an oversight.
    val_sets = [name for name in phases if phases[name] == 'val']
    if val_sets and not (options.val and options.val.val_freq) and opt.get('val', {}) is not None:
        yield (f'val.val_freq is missing: set how often to validate on datasets.{val_sets[0]}, or set val: ~ for no '
               'validation')


def misfits(opt: Mapping[str, Any], options: Options) -> Iterator[str]:
    """Yield a message for each mismatch between blocks, and for what the network itself rejects."""
    datasets = {name: dataset for name, dataset in options.datasets.items() if dataset}
    names: dict[str, str] = {}
    for key, dataset in datasets.items():
        scale = opt['datasets'][key].get('scale')
        if scale not in (None, options.scale):
            yield f'datasets.{key}.scale is {shown(scale)}, but scale is {options.scale}; remove it'
        if dataset.get('prefetch_mode') == 'cuda' and not (options.num_gpu and torch.cuda.is_available()):
            yield f"datasets.{key}.prefetch_mode is 'cuda', which needs a GPU, but num_gpu is {options.num_gpu}" + (
                ' and torch finds none here' if options.num_gpu else '')
        name = shown(dataset.get('name', key))
        if key != 'train' and names.setdefault(name, key) != key:
            yield (f'datasets.{key}.name is {name}, the same as datasets.{names[name]}.name; their results would '
                   'overwrite each other')
    batch_size = datasets.get('train', {}).get('batch_size_per_gpu', 1)
    if options.train and isinstance(batch_size, int) and batch_size % options.train.accumulate:
        yield (f'train.accumulate must divide datasets.train.batch_size_per_gpu {batch_size}, but is '
               f'{options.train.accumulate}')
    yield from misfits_of_discriminator(options)
    try:
        net = network_without_weights(options.network_g)
        if net is None:
            return
        spec: Any = options.arch_spec or getattr(net, 'spec', None)  # a NetSpec
        if spec is None:
            yield f'arch_spec is missing: {type(net).__name__} does not state what it needs; see docs/basicsr.md'
            return
        if spec.scale != options.scale:
            yield f'network_g.scale is {spec.scale}, but scale is {options.scale}'
        if options.train and not options.arch_spec:  # the model adapts the network, and checks it then
            options.train.check_network(net)
    except PydanticCustomError as error:
        yield f'network_g{error}'
    except ValueError as error:
        yield str(error)


def misfits_of_discriminator(options: Options) -> Iterator[str]:
    model = entries(MODEL_REGISTRY)[options.model_type]
    is_adversarial = bool(getattr(options.train, 'gan_opt', None))
    if options.network_d and not model.train_options.has_discriminator:
        yield f'network_d: {options.model_type} trains no discriminator'
    elif options.network_d and options.train and not is_adversarial:
        yield 'train.gan_opt is missing, but network_d is set'
    elif is_adversarial and not options.network_d:
        yield 'network_d is missing, but train.gan_opt is set'
    elif options.network_d:
        try:
            network_without_weights(options.network_d)
        except PydanticCustomError as error:
            yield f'network_d{error}'


def network_without_weights(network_opt: Mapping[str, Any]) -> nn.Module | None:
    """Build the network on the meta device; return None if that is not possible.

    Raises:
        PydanticCustomError: the network rejects its arguments.
    """
    arguments = dict(network_opt)
    arch = ARCH_REGISTRY.get(arguments.pop('type'))
    for path, value in numbers_in(arguments):
        if abs(value) > MOST_OF_A_NETWORK:
            raise refuse(f'{path} must be at most {MOST_OF_A_NETWORK:,}, but is {value:g}')
    net = try_out(lambda: arch(**arguments))
    num_bytes = sum(parameter.numel() * parameter.element_size() for parameter in net.parameters()) if net else 0
    if num_bytes > MOST_BYTES_OF_WEIGHTS:
        raise refuse(f' has weights of {num_bytes / 2**30:,.0f} GiB, which is more than {MOST_BYTES_OF_WEIGHTS >> 30}')
    return None if is_from(arch, 'basicsr') else net


def numbers_in(options: Any, path: str = '') -> Iterator[tuple[str, float]]:
    """Yield the whole numbers in a block, in its lists and the blocks within it, and their paths."""
    if isinstance(options, int) and not isinstance(options, bool):
        yield path, options
    elif isinstance(options, Mapping):
        for name, value in options.items():
            yield from numbers_in(value, f'{path}.{name}')
    elif isinstance(options, list | tuple):
        for number, value in enumerate(options):
            yield from numbers_in(value, f'{path}[{number}]')
