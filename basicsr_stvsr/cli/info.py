"""`stvsr info`."""
import argparse
import json
from pathlib import Path
from typing import Any

from ..zoo import ZOO


def run(args: argparse.Namespace) -> int:
    facts, shown = facts_of(args.what)
    if args.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, shown)) + 2
    for name, value in shown.items():
        print(f'{name:{width}}{value}')
    return 0


def facts_of(what: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Facts about a model, an option file's network, a video, or all models (None): as values, and in words.

    Each kind imports what it needs: a video no networks, a network no FFmpeg.
    """
    if what is None:
        models = {name: entry.about for name, entry in ZOO.items()}
        return models, models
    if what in ZOO or what.endswith(('.yml', '.yaml')):
        return facts_of_network(what)
    if not Path(what).exists():
        raise ValueError(f'{what} is neither a file, nor one of the models {", ".join(ZOO)}')

    from ..info import describe_video, facts_of_video
    from ..video.source import open_source

    with open_source(what) as source:
        facts = facts_of_video(source)
    return facts, describe_video(facts)


def facts_of_network(what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Facts about a network by its name in the zoo, or by its option file."""
    from ..info import describe_model, facts_of_model
    from ..options import load_options
    from ..zoo import load, load_network
    from .model import network_of

    if what in ZOO:
        net, name, weights = load(what), f'{what}: {ZOO[what].about}', ZOO[what].weights
    else:
        net, name, weights = load_network(network_of(load_options(what), what), None), what, None
    facts = facts_of_model(net, name, weights)
    return facts, describe_model(facts)
