"""Table of the pretrained networks of the zoo.

Each entry says what to build, which weights to load, what they were trained on, and what was measured. Scores are read
from weights/measured.json; scripts/update_tables.py writes that file, and the tables of the documentation, from result
files. Files without a url ship with the package, next to a model card; `stvsr zoo fetch` downloads the others.
"""
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from ..archs.arch_util import to_channels_last
from ..archs.basicsr_networks import adapt
from ..archs.weight_files import LAYOUTS, check_hash, check_sha256, load_weights, read_state_dict
from ..discovery import register_everything
from ..inference.precision import prefers_channels_last

WEIGHTS = Path(__file__).parents[1] / 'weights'
MEASURED = WEIGHTS / 'measured.json'


class Stage(NamedTuple):
    """One of the successive trainings that produced the weights.

    Attributes:
        options: its option file.
        iterations: optimiser steps; None: unknown.
        command: command that started it; None: basicsr/train.py with the option file.
    """
    options: str
    iterations: int | None
    command: str | None = None


class Score(NamedTuple):
    """A measured or published score on a test set.

    Attributes:
        test_set: clips and frames that were scored.
        color: compared channels, such as RGB or Y.
        frames: group of output frames: all, vsr (given frames) or vfi (frames between them).
        psnr: dB.
        ssim: None: not measured.
    """
    test_set: str
    color: str
    frames: str
    psnr: float
    ssim: float | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network of the zoo.

    Attributes:
        network: its `network_g`.
        weights: file name, `<Method>_<train set>_x<scale>-<first 8 digits of its sha256>.pth` or .safetensors.
        sha256: all digits, in hex.
        size: of the file, in bytes.
        about: what the network does, in one line.
        purpose: which videos it suits; None: unknown.
        parameters: number of parameters.
        gflops: billions of multiplications, each with an addition, that mmengine.analysis counts for one window of
            64x64 frames (for a recurrent network, one frame); None: not counted.
        data: training data.
        stages: the trainings.
        licence: of the weights.
        measured: measured scores.
        measured_by: command that measures them; None: nothing was measured.
        published: scores from the paper for such a network, if any.
        url: http, https or file address of the weights; None: they ship with the package.
        system: name of the system in `papers.SYSTEMS`, which has the papers to cite; None: another network.
    """
    network: Mapping[str, Any]
    weights: str
    sha256: str
    size: int
    about: str
    parameters: int
    data: str
    stages: tuple[Stage, ...]
    licence: str
    purpose: str | None = None
    gflops: float | None = None
    measured: tuple[Score, ...] = ()
    measured_by: str | None = None
    published: tuple[Score, ...] = ()
    url: str | None = None
    system: str | None = None

    @property
    def path(self) -> Path:
        """Return the path of the weights, whether or not they are fetched yet."""
        return WEIGHTS / self.weights if self.url is None else home() / self.weights


def home() -> Path:
    """Return the folder of fetched weights: STVSR_HOME, or ~/.cache/basicsr_stvsr."""
    return Path(os.environ.get('STVSR_HOME') or '~/.cache/basicsr_stvsr').expanduser()


@cache
def measured_results() -> dict[str, Any]:
    """Return the results measured with the shipped weights.

    `tests`: name of a test -> data set -> metric -> group of frames (all, vsr, vfi) -> mean score.
    `speed`: `machine`, and output frames per second by model, as measured by `stvsr info MODEL --speed`.
    """
    return cast(dict[str, Any], json.loads(MEASURED.read_text(encoding='utf-8')))


def measured_scores(test: str, sets: Mapping[str, str], metrics: Mapping[str, str],
                    groups: tuple[str, ...] = ('all',)) -> tuple[Score, ...]:
    """Return the scores of a test of the shipped weights, in the form of a zoo entry.

    Args:
        test: name in the option file of the test.
        sets: data set -> its display name.
        metrics: colour -> PSNR metric. The SSIM metric has the same name with `ssim` instead of `psnr`.
        groups: groups of frames.
    """
    results = measured_results()['tests'][test]
    return tuple(
        Score(title, color, group, results[name][metric][group],
              results[name].get(metric.replace('psnr', 'ssim'), {}).get(group))
        for name, title in sets.items() for color, metric in metrics.items() for group in groups)


CLIPS = ('18 short clips of research data sets and demo clips of public repositories (DAVIS, NTIA, KITTI, GoPro '
         'footage and others), 450 frames')
MORE_CLIPS = ('74 short clips of research data sets and demo clips of public repositories (DAVIS, NTIA, KITTI, GoPro '
              'footage and others), 1,279 frames; JPEG frames at least 700 pixels wide are halved')
BICUBIC = 'low-resolution frames by MATLAB-like bicubic'
RESEARCH = 'for research only: the footage belongs to third parties, whose terms cover research'
VID4, MIDDLEBURY, UCF101 = 'Vid4 (frames 0-12)', 'Middlebury-other', 'UCF101 (22 of 379 triplets)'

ZOO = {
    'mbnet-small': Entry(
        system='mbnet',
        network={
            'type': 'MBNet', 'scale': 4, 'num_iters': 1, 'feedback': 'none', 'vfi_feature': 'vsr',
            'init_feedback': 'warped_hr',
            'flow_net': {'type': 'OFRNet', 'num_feat': 64, 'num_res': 4, 'flow_unit': 4.0},
            'refine_net': {'type': 'PACFlowNet', 'num_feat': 16, 'guide_channels': 8, 'kernel_size': 3,
                           'unshuffle': 2},
            'vsr_net': {'type': 'RDN', 'num_feat': 48, 'num_grow': 48, 'num_blocks': 10, 'num_layers': 1,
                        'joint': False, 'upscale': 'direct', 'residual': 'last'},
            'vfi_net': {'type': 'GridNet', 'channels': [32, 48, 64], 'num_columns': 4, 'unshuffle': 4,
                        'residual': True, 'blend': True}},
        weights='MBNet_small_clips_x4-c192105a.pth',
        sha256='c192105a131902ddb6b96e0550ab175b36ac38fcbef017bc8b950acf784289cb',
        size=3_065_011,
        about='x4 in space, x2 in time',
        purpose='small videos that stutter',
        parameters=1_507_756,
        gflops=4.813,
        data=f'{MORE_CLIPS}; {BICUBIC}',
        stages=(Stage('options/train_mbnet_small_flow.yml', 2000), Stage('options/train_mbnet_small.yml', 2800),
                Stage('options/train_mbnet_small_vsr.yml', 4500)),
        licence=RESEARCH,
        measured=measured_scores(
            'test_MBNet_small_x4', {'vid4': VID4, 'middlebury_other': MIDDLEBURY, 'ucf101': UCF101},
            {'RGB': 'psnr', 'Y': 'psnr_y'}, ('vsr', 'vfi')),
        measured_by='python basicsr/test.py -opt options/test_mbnet_small.yml'),
    'fisr-small': Entry(
        system='fisr',
        network={'type': 'FISRNet', 'num_feat': [6, 8, 16], 'residual': True},
        weights='FISR_small_clips_x2-939ed9bf.pth',
        sha256='939ed9bf02813457bc30261104f4c2c2818d318e99df1036168c1ae329ed5d37',
        size=2_910_991,
        about='x2 in space, x2 in time',
        purpose='videos that stutter',
        parameters=1_412_625,
        gflops=0.592,
        data=f"{CLIPS}, of which 16 clips are long enough; {BICUBIC}, flow by OpenCV's DIS",
        stages=(Stage('options/v0.1/train_fisr_small.yml', 3300),),
        licence=RESEARCH,
        measured=measured_scores(
            'test_FISR_small_x2', {'vid4': 'Vid4 (frames 1-11 of 0-12)'}, {'YUV': 'psnr_yuv', 'Y': 'psnr_y'},
            ('vsr', 'vfi')),
        measured_by='python basicsr/test.py -opt options/test_fisr_small.yml'),
    'fstrn-small': Entry(
        system='fstrn',
        network={'type': 'FSTRN', 'num_feat': 32, 'num_frb': 20, 'up_kernel': 'pixelshuffle'},
        weights='FSTRN_small_clips_x4-c56e3bb9.pth',
        sha256='c56e3bb93b6d36c647114c45a216cf00ab67c1c59afca056449546c5815a9e67',
        size=750_505,
        about='x4 in space, of luma',
        purpose='small, sharp videos',
        parameters=359_545,
        gflops=6.424,
        data=f'{MORE_CLIPS}; {BICUBIC}',
        stages=(Stage('options/train_fstrn_small.yml', 3800), Stage('options/train_fstrn_small_stage2.yml', 2800)),
        licence=RESEARCH,
        measured=measured_scores('test_FSTRN_small_x4', {'vid4': VID4}, {'Y': 'psnr'}),
        measured_by='python basicsr/test.py -opt options/test_fstrn_small.yml'),
    'hoffr-small': Entry(
        system='hoffr',
        network={'type': 'HOFFR', 'num_feat': 32, 'num_block': 5, 'num_rcab': 2, 'reduction': 8, 'num_flow_feat': 16},
        weights='HOFFR_small_clips_x4-148ba7c3.pth',
        sha256='148ba7c35cd2558fe724ebf4d545359062624cfd12894f99e5d7c5223760591f',
        size=1_333_523,
        about='x4 in space, of frames blurred by motion, which it sharpens',
        purpose='small videos with motion blur',
        parameters=648_546,
        gflops=3.559,
        data=f'{CLIPS}, of which those with eight frames and more are used; blurred over half to twice the time '
             'between frames along DIS flow, then MATLAB-like bicubic',
        stages=(Stage('options/v0.1/train_hoffr_small_flow.yml', 1000),
                Stage('options/v0.1/train_hoffr_small.yml', 1600)),
        licence=RESEARCH,
        measured=measured_scores(
            'test_HOFFR_small_x4', {'vid4': f'{VID4}, blurred'}, {'RGB': 'psnr', 'Y': 'psnr_y'}),
        measured_by='python basicsr/test.py -opt options/test_hoffr_small.yml'),
    'adaptive-gan-small': Entry(
        system='adaptive_gan',
        network={'type': 'VSRResNet', 'scale': 4, 'num_feat': 32, 'num_block': 4, 'add_center': True},
        weights='AdaptiveGAN_small_clips_x4-0197b860.pth',
        sha256='0197b8604c5b14bf01bb00bfe86abf2002c6d21dd87ebbb1dadfba60b5d5cb51',
        size=249_333,
        about='x4 in space, of luma; sharper, and further from the truth',
        purpose='small videos; sharper look, invented detail',
        parameters=120_705,
        gflops=7.965,
        data=f'{CLIPS}; {BICUBIC}',
        stages=(Stage('options/v0.1/train_vsrresnet_small.yml', 4000),
                Stage('options/v0.1/train_adaptive_gan_small.yml', 1500)),
        licence=RESEARCH,
        measured=measured_scores('test_AdaptiveGAN_small_x4', {'vid4': VID4}, {'Y': 'psnr'}),
        measured_by='python basicsr/test.py -opt options/test_adaptive_gan_small.yml'),
}


def entry_of(name: str) -> Entry:
    """Return the zoo entry of a name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ZOO:
        raise ValueError(f'no model {name!r} in the zoo, expected one of {", ".join(ZOO)}; or give an option file and '
                         'weights')
    return ZOO[name]


def check_file(name: str) -> Path:
    """Check the sha256 of a network's weights file without loading it, and return its path.

    Raises:
        FileNotFoundError: the file is missing; the message says how to get it.
        ValueError: an unknown network, or the file is damaged.
    """
    entry = entry_of(name)
    if not entry.path.is_file():
        how = f'`stvsr zoo fetch {name}` gets it' if entry.url else 'it ships with the package; reinstall the package'
        raise FileNotFoundError(f'the weights of {name} are not at {entry.path}; {how}')
    check_sha256(entry.path, entry.sha256, f'the weights of {name}')
    return entry.path


def load(name: str, device: str | torch.device = 'cpu') -> nn.Module:
    """Build a zoo network with its weights, in evaluation mode. Nothing is downloaded.

    Raises:
        ValueError: an unknown network, or its weights file is damaged.
        FileNotFoundError: its weights file is missing.
    """
    path = check_file(name)
    return load_network(entry_of(name).network, path, device)


def load_network(network: Mapping[str, Any], weights: str | Path | None, device: str | torch.device = 'cpu',
                 param_key: str | None = None, channels_last: bool | None = None) -> nn.Module:
    """Build a network from its options, load weights, and set evaluation mode.

    Args:
        network: `network_g` of an option file; its key `arch_spec`, if it has one, is the block of that name.
        weights: a training checkpoint, or weights alone; None: keep the initial values, for networks without weights.
        device: device of the network.
        param_key: which weights of a checkpoint; default: the moving average, `params_ema`, if there is one, else
            `params`.
        channels_last: memory layout of the convolutions; default: the faster one.

    Raises:
        ValueError: an unknown network, a wrong option, or a file that is damaged or holds other weights.
        FileNotFoundError: the file does not exist.
    """
    net = build(network)
    if weights is not None:
        check_hash(weights)
        what = network['type']
        keys = LAYOUTS if param_key is None else (param_key,)
        load_weights(net, read_state_dict(weights, what=what, keys=keys), path=weights, what=what)
    net = net.eval().requires_grad_(False).to(device)
    if channels_last is None:
        channels_last = prefers_channels_last(device or 'cpu')
    return to_channels_last(net) if channels_last else net


def outline(network: Mapping[str, Any]) -> nn.Module:
    """Build a network on the meta device: shapes without values, in no time and memory.

    Raises:
        ValueError: an unknown network, or a wrong option.
    """
    with torch.device('meta'):
        net = build(network)
    return net.to('meta').eval().requires_grad_(False)


def build(network: Mapping[str, Any]) -> nn.Module:
    """Build a network from its options; raise ValueError if its type is unknown or an option is wrong."""
    arguments = deepcopy(dict(network))
    name, arch_spec = arguments.pop('type', None), arguments.pop('arch_spec', None)
    names = name, f'{name}_basicsr'  # BasicSR adds its name to some
    if not any(each in ARCH_REGISTRY for each in names):  # BasicSR's own networks may not be registered yet
        register_everything()
    if not any(each in ARCH_REGISTRY for each in names):
        raise ValueError(f'network_g: type {name!r} is not in ARCH_REGISTRY')
    try:
        net = ARCH_REGISTRY.get(name)(**arguments)
    except TypeError as error:  # unknown argument
        raise ValueError(f'network_g: {error}') from error
    return adapt(net, arch_spec)
