"""Measures a network by a protocol, and writes what came out."""
import platform
import shlex
import sys
from collections.abc import Collection, Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ..archs.checkpoint import sha256_of
from ..data.advice import advice
from ..options import load_options
from ..test import test_pipeline
from ..version import __version__
from . import protocol_of
from .report import write_report

BASELINES = {'bicubic': 'mean', 'bicubic-repeat': 'repeat'}  # name -> what stands between two frames
_DATA = 'datasets'  # the folder that files of protocols name


def baseline(name: str, opt: Mapping[str, Any]) -> dict[str, Any]:
    """`network_g` of bicubic interpolation that gives the frames which a protocol scores."""
    dataset = next(dataset for dataset in opt['datasets'].values() if dataset)
    return {'type': 'BicubicAverage', 'scale': opt['scale'], 'temporal_scale': dataset.get('temporal_scale', 2),
            'first_output': dataset.get('gt_start', 0), 'between': BASELINES[name]}


def options_of(name: str, data: Path, chosen: Collection[str] = ()) -> dict[str, Any]:
    """`scale`, `datasets` and `val` of a protocol.

    Args:
        name: of the protocol.
        data: the folder in which the data sets lie.
        chosen: names of data sets; default: all.

    Raises:
        ValueError: there is no such protocol, or it has no such data set.
        FileNotFoundError: a data set is not there.
    """
    opt = load_options(str(protocol_of(name).file))
    sets = {key: dict(dataset) for key, dataset in opt['datasets'].items() if dataset}
    known = [dataset['name'] for dataset in sets.values()]
    if unknown := set(chosen) - set(known):
        raise ValueError(f'protocol {name} has no data set {min(unknown)!r}, but {", ".join(known)}')
    opt['datasets'] = {key: dataset for key, dataset in sets.items() if not chosen or dataset['name'] in chosen}
    for dataset in opt['datasets'].values():
        for key, value in dataset.items():
            if key.startswith('dataroot') and value:
                root = data / Path(value).relative_to(_DATA)
                if not root.exists():
                    others = ' '.join(other for other in known if other != dataset['name'])
                    rest = f'\n--datasets {others} measures the others.' if others else ''
                    raise FileNotFoundError(f'protocol {name} needs the data set {dataset["name"]} at {root}, which '
                                            f'does not exist.{advice(key, root, None, opt["scale"])}{rest}')
                dataset[key] = str(root)
    return opt


def measure(name: str, label: str, network: Mapping[str, Any] | None, weights: Path | None, *,
            data: Path = Path(_DATA), into: Path = Path('results'), chosen: Collection[str] = (),
            num_worker: int = 0, frames: Path | None = None) -> Path:
    """Measures, and writes results.json, table.md, clips.csv, frames.csv and pictures, see `write_report`.

    Args:
        name: of the protocol.
        label: of the network, in tables and in the folder's name.
        network: its options; None for a baseline, whose name is then the label.
        weights: None: it has none.
        data: the folder in which the data sets lie.
        into: the folder in which a folder of results is made; one that is there is moved aside, as BasicSR does.
        chosen: names of the data sets to measure; default: all of the protocol.
        num_worker: processes that compute scores beside the network.
        frames: folder of saved frames, `<frames>/<data set>/<clip>/<frame>.png`, which are measured in place of those
            of a network; that is then left out.

    Returns:
        the folder of the results.

    Raises:
        ValueError, FileNotFoundError: as `options_of`; or the network does not fit the protocol.
        FrameReadError: saved frames are missing or damaged.
    """
    opt = options_of(name, data, chosen)
    if network is None:  # of saved frames, a baseline tells which are made
        network = baseline(label if frames is None else 'bicubic', opt)
    run = f'{name}_{label}'
    opt = {
        'name': run, 'model_type': 'STVSRModel', 'num_gpu': 'auto', 'manual_seed': 0, **opt,
        'network_g': dict(deepcopy(network)),
        'path': {'pretrain_network_g': None if weights is None else str(weights), 'strict_load_g': True,
                 'results_root': str(into / run)}}
    opt['val'] = {'pbar': True, **opt['val'], 'num_worker': num_worker}
    if frames is not None:
        for dataset in opt['datasets'].values():
            if not (frames / dataset['name']).exists():
                raise FileNotFoundError(f'{frames / dataset["name"]} does not exist, where the saved frames of the '
                                        f'data set {dataset["name"]} should be; --datasets measures some alone')
        opt['val']['frames'] = str(frames)
    into.mkdir(parents=True, exist_ok=True)
    file = into / f'{run}.yml'
    file.write_text(yaml.safe_dump(opt, sort_keys=False, allow_unicode=True))
    test_pipeline(str(into.parent), ['-opt', str(file)])
    file = file.replace(into / run / 'options.yml')
    made = {
        'protocol': name, 'model': label, 'network': opt['network_g'] if frames is None else None,
        'frames': frames and str(frames),
        'weights': weights and {'file': str(weights), 'sha256': sha256_of(weights)},
        'command': shlex.join(['stvsr', *sys.argv[1:]]),
        'versions': {'basicsr_stvsr': __version__, 'python': platform.python_version(),
                     **{package: version(package) for package in ('basicsr', 'torch', 'numpy', 'opencv-python')}}}
    write_report(into / run, protocol_of(name), made, [dataset['name'] for dataset in opt['datasets'].values()])
    return into / run
