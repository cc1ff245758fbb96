"""Measure a network with a protocol, and write a report."""
import platform
import shlex
import sys
from collections.abc import Collection, Mapping
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ..archs.weight_files import read_block, sha256_of
from ..config.loading import load_options
from ..config.run_options import RunOptions
from ..data.hints import hint
from ..test import test
from ..version import __version__
from . import protocol_of
from .report import write_report

BASELINES = {  # name -> network, and how it makes interpolated frames
    'bicubic': {'type': 'BicubicAverage', 'between': 'mean'},
    'bicubic-repeat': {'type': 'BicubicAverage', 'between': 'repeat'},
    'bicubic-dis': {'type': 'BicubicDIS'},
}
_DATA = 'datasets'  # the data folder in the files of protocols


def baseline(name: str, opt: Mapping[str, Any]) -> dict[str, Any]:
    """Return `network_g` of bicubic interpolation for the frames that a protocol scores."""
    dataset = next(dataset for dataset in opt['datasets'].values() if dataset)
    network = {**BASELINES[name], 'scale': opt['scale'], 'temporal_scale': dataset.get('temporal_scale', 2),
               'first_output': dataset.get('gt_start', 0)}
    if name == 'bicubic-dis':
        network['color'] = dataset.get('color', 'rgb')
    return network


def options_of(name: str, data: Path, chosen: Collection[str] = ()) -> dict[str, Any]:
    """Return `scale`, `datasets` and `val` of a protocol.

    Args:
        name: of the protocol.
        data: the folder of the data sets.
        chosen: names of data sets; default: all.

    Raises:
        ValueError: an unknown protocol, or one without such a data set.
        FileNotFoundError: a data set is missing.
    """
    opt = load_options(str(protocol_of(name).file))
    sets = {key: dict(dataset) for key, dataset in opt['datasets'].items() if dataset}
    known = [dataset['name'] for dataset in sets.values()]
    if unknown := set(chosen) - set(known):
        raise ValueError(f'protocol {name} has no data set {min(unknown)!r}; its data sets are {", ".join(known)}')
    opt['datasets'] = {key: dataset for key, dataset in sets.items() if not chosen or dataset['name'] in chosen}
    for dataset in opt['datasets'].values():
        for key, value in dataset.items():
            if key.startswith('dataroot') and value:
                root = data / Path(value).relative_to(_DATA)
                if not root.exists():
                    others = ' '.join(other for other in known if other != dataset['name'])
                    rest = f'\n--datasets {others} measures the others.' if others else ''
                    raise FileNotFoundError(f'protocol {name} needs the data set {dataset["name"]} at {root}, which '
                                            f'does not exist.{hint(key, root, None, opt["scale"])}{rest}')
                dataset[key] = str(root)
    return opt


def measure(name: str, label: str, network: Mapping[str, Any] | None, weights: Path | None, *,
            param_key: str | None = None, data: Path = Path(_DATA), into: Path = Path('results'),
            chosen: Collection[str] = (), num_worker: int = 0, precision: str = 'fp32') -> Path:
    """Measure a network, and write results.json, table.md, clips.csv, frames.csv and plots, see `write_report`.

    Args:
        name: of the protocol.
        label: of the network, in tables and in the folder's name.
        network: its options; None for a baseline, which `label` names.
        weights: None: the network has none.
        param_key: which weights of the file; default: `params_ema` if it has them, else `params`.
        data: the folder of the data sets.
        into: the parent of the results folder; an existing results folder is renamed, as in BasicSR.
        chosen: names of the data sets to measure; default: all of the protocol.
        num_worker: additional processes that compute scores.
        precision: of convolutions, 'fp32', 'bf16' or 'fp16'; use 'fp32' to compare with others.

    Returns:
        the folder of the results.

    Raises:
        ValueError, FileNotFoundError: as `options_of`, a file is missing, or the network does not fit the protocol.
    """
    opt = options_of(name, data, chosen)
    opt['network_g'] = dict(deepcopy(network or baseline(label, opt)))
    opt['arch_spec'] = opt['network_g'].pop('arch_spec', None)
    opt['val'] = {**opt['val'], 'precision': precision}
    opt['path'] = {'pretrain_network_g': None if weights is None else str(weights), 'strict_load_g': True}
    if weights is not None:
        _, best = read_block(weights, what=opt['network_g']['type'])
        opt['path']['param_key_g'] = param_key or best or 'params'
    facts = {'network': network or opt['network_g'], 'weights': weights and {
        'file': str(weights), 'sha256': sha256_of(weights), 'param_key': opt['path']['param_key_g']}}
    return evaluate(name, label, opt, facts, into, num_worker)


def measure_frames(name: str, label: str, frames: Path, *, data: Path = Path(_DATA), into: Path = Path('results'),
                   chosen: Collection[str] = (), num_worker: int = 0) -> Path:
    """Measure saved frames, `<frames>/<data set>/<clip>/<frame>.png`.

    Args:
        name, label, data, into, chosen, num_worker: see `measure`.
        frames: the folder.

    Returns:
        the folder of the results.

    Raises:
        ValueError, FileNotFoundError: as `options_of`, the frames of a data set are missing, or those of a clip do not
            fit.
        FrameReadError: a frame cannot be read.
    """
    opt = options_of(name, data, chosen)
    for dataset in opt['datasets'].values():
        if not (frames / dataset['name']).exists():
            raise FileNotFoundError(f'{frames / dataset["name"]} does not exist; expected the saved frames of the data '
                                    f'set {dataset["name"]} there. --datasets selects data sets')
    opt['network_g'] = baseline('bicubic', opt)  # defines which frames there are
    opt['path'] = {}
    opt['val'] = {**opt['val'], 'frames': str(frames)}
    return evaluate(name, label, opt, {'network': None, 'frames': str(frames)}, into, num_worker)


def evaluate(name: str, label: str, opt: dict[str, Any], facts: Mapping[str, Any], into: Path, num_worker: int) -> Path:
    """Run a test with complete options, and write the report.

    Args:
        facts: facts about what was measured, for results.json.
    """
    folder = into / f'{name}_{label}'
    opt = {'name': folder.name, 'model_type': 'STVSRModel', 'num_gpu': 'auto', 'manual_seed': 0, **opt}
    opt['path'] = {**opt['path'], 'results_root': str(folder)}
    opt['val'] = {'pbar': True, **opt['val'], 'num_worker': num_worker}
    test(RunOptions(action='test', options=opt, root=into.parent))
    (folder / 'options.yml').write_text(yaml.safe_dump(opt, sort_keys=False, allow_unicode=True))
    facts = {
        'protocol': name, 'model': label, **facts,
        'metrics': {metric: options for metric, options in opt['val']['metrics'].items() if options},
        'command': shlex.join(['stvsr', *sys.argv[1:]]),
        'versions': {'basicsr_stvsr': __version__, 'python': platform.python_version(),
                     **{package: version(package) for package in ('basicsr', 'torch', 'numpy', 'opencv-python')}}}
    write_report(folder, protocol_of(name), facts, [dataset['name'] for dataset in opt['datasets'].values()])
    return folder
