"""`stvsr info`."""
import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..zoo.network_source import WITHOUT_WEIGHTS, is_image_network
from ..zoo.table import ZOO

if TYPE_CHECKING:
    from torch import nn

NAMES = *ZOO, *WITHOUT_WEIGHTS
Described = tuple[dict[str, Any], dict[str, str]]  # facts as values, and as text


def run(args: argparse.Namespace) -> int:
    facts, shown = describe(args.what, with_speed=args.speed)
    if args.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, shown)) + 2
    for name, value in shown.items():
        print(f'{name:{width}}{value}')
    return 0


def describe(what: str | None, *, with_speed: bool) -> Described:
    """Return facts about a model, an option file's network, a video, or all models (None).

    Raises:
        ValueError: `what` is none of these, or a speed was requested for something else than a network.
    """
    is_network = what is not None and (what in NAMES or is_image_network(what) or what.endswith(('.yml', '.yaml')))
    if with_speed and not is_network:
        raise ValueError('--speed is for models and option files')
    if what is not None and is_network:
        return describe_network(what, with_speed=with_speed)
    if what is None:
        models = {name: entry.about for name, entry in ZOO.items()}
        return models, models
    if not Path(what).exists():
        raise ValueError(f'{what} is neither a file, nor one of the models {", ".join(NAMES)}')

    from ..io.video_reader import open_source
    from ..zoo.info import describe_video, facts_of_video

    with open_source(what, keep_alpha=True) as source:
        facts = facts_of_video(source)
    return facts, describe_video(facts)


def describe_network(what: str, *, with_speed: bool) -> Described:
    """Return facts about a network, given by its zoo name or its option file."""
    from ..config.loading import load_options
    from ..zoo.info import describe_model, facts_of_model
    from ..zoo.network_source import network_of
    from ..zoo.table import load_network, outline

    if is_image_network(what):
        return describe_image_network(what, with_speed=with_speed)
    if what in ZOO:
        network, name, weights = ZOO[what].network, f'{what}: {ZOO[what].about}', ZOO[what].weights
    elif what in WITHOUT_WEIGHTS:
        network, name, weights = WITHOUT_WEIGHTS[what], f'{what}: x2 in time', None
    else:
        network, name, weights = network_of(load_options(what), what), what, None
    facts = facts_of_model(outline(network), name, weights)
    shown = describe_model(facts)
    if what in ZOO:
        facts['licence'] = shown['licence'] = ZOO[what].licence
    if with_speed:
        facts['speed'] = speed_of(load_network(network, None))
        shown['speed'] = describe_speed(facts['speed'])
    return facts, shown


def describe_image_network(path: str, *, with_speed: bool) -> Described:
    """Return facts about a network in a weights file of another tool."""
    from ..archs.image_network import load_image_network
    from ..zoo.info import describe_model, facts_of_model

    net = load_image_network(path)
    facts = facts_of_model(net, path, path)
    shown = describe_model(facts)
    facts['network'] = shown['network'] = net.architecture
    facts['licence'], shown['licence'] = None, 'not stated in the file; see where you got it'
    if with_speed:
        facts['speed'] = speed_of(net)
        shown['speed'] = describe_speed(facts['speed'])
    return facts, shown


def speed_of(net: 'nn.Module') -> dict[str, Any]:
    """Measure how fast `stvsr restore` would run a network on this machine; the weights do not matter."""
    import torch

    from ..archs.arch_util import to_channels_last
    from ..inference.precision import prefers_channels_last
    from ..video.speed import SIZE, measure_speed
    from .model import devices_of
    from .restore import CPU_TILE

    (device,) = devices_of('auto')
    net = net.to(device)
    net = to_channels_last(net) if prefers_channels_last(device) else net
    speed = measure_speed(net, tile=CPU_TILE if device == 'cpu' else None)
    height, width = SIZE
    return {'frames_per_second': speed.frames_per_second, 'width': width, 'height': height,
            'measured_at': {'width': speed.width, 'height': speed.height},
            'device': device if device == 'cpu' else torch.cuda.get_device_name(device),
            'threads': torch.get_num_threads()}


def describe_speed(speed: Mapping[str, Any]) -> str:
    at, rate = speed['measured_at'], speed['frames_per_second']
    estimated = f', estimated from {at["width"]}x{at["height"]}' if at['width'] != speed['width'] else ''
    threads = f', {speed["threads"]} thread{"s" * (speed["threads"] > 1)}' if speed['device'] == 'cpu' else ''
    return (f'{rate:.3g} frames a second come out, for frames of {speed["width"]}x{speed["height"]}{estimated} '
            f'({speed["device"]}{threads})')
