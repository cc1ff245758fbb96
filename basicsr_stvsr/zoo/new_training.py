"""Write an option file that trains the small network of a system on a user's clips."""
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..archs.spec import NetSpec, spec_of
from ..io.frames import FrameReader
from ..io.opening import open_reader
from .table import ZOO, outline

MOST_OF_VALIDATION = 10  # clips; one in ten, up to this many
SMALL_WEIGHTS, SCRATCH = 'small-weights', 'scratch'
PSNR = {'psnr': {'type': 'calculate_psnr', 'crop_border': 0}}
PSNR_Y = {'psnr_y': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': True}}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train the small network of a system.

    Attributes:
        model: name in the zoo.
        model_type: class of the model.
        windows: numbers of frames that a training window may have, the best first.
        gt_size: side of the patches, in HR pixels.
        least_size: smallest side that is of use.
        batch_size: for a CPU.
        data: options of the data sets for training and validation.
        train_data: those of training only.
        losses: options of `train`.
        metrics: `val.metrics`.
        about_scratch: advice for a training from random weights.
    """
    model: str
    model_type: str
    windows: tuple[int, ...]
    gt_size: int
    least_size: int = 32
    batch_size: int
    data: Mapping[str, Any]
    losses: Mapping[str, Any]
    metrics: Mapping[str, Any]
    train_data: Mapping[str, Any]
    discriminator: bool = False
    about_scratch: str = 'about 10,000 steps give a first result'

    @property
    def spec(self) -> NetSpec:
        return spec_of(outline(ZOO[self.model].network))

    @property
    def multiple(self) -> int:
        """What gt_size must be a multiple of."""
        return self.spec.scale * self.spec.size_multiple


RECIPES = {
    'mbnet': Recipe(
        model='mbnet-small', model_type='MBNetModel', windows=(3,), gt_size=128, batch_size=4, data={}, train_data={},
        losses={'pixel_opt': {'type': 'L1Loss'}, 'flow_loss_images': 'gt',
                'lq_flow_opt': {'type': 'MultiScaleWarpLoss', 'loss_weight': 0.5},
                'hr_flow_opt': {'type': 'MiddleFlowLoss', 'loss_weight': 0.5}},
        metrics=PSNR,
        about_scratch='train its flow net alone first (flow_only), as options/train_mbnet_small_flow.yml does'),
    'fisr': Recipe(
        model='fisr-small', model_type='FISRModel', windows=(9,), gt_size=128, least_size=64, batch_size=2,
        data={'color': 'yuv', 'flow_opt': {'type': 'DISFlow'}}, train_data={'flow_strides': [1, 2]},
        losses={'temporal_opt': {'type': 'MultiScaleTemporalLoss', 'td_mode': 'official'}},
        metrics={'psnr_yuv': {'type': 'calculate_fisr_psnr'}, **PSNR_Y}),
    'fstrn': Recipe(
        model='fstrn-small', model_type='STVSRModel', windows=(5,), gt_size=128, batch_size=4,
        data={'color': 'y', 'temporal_scale': 1}, train_data={},
        losses={'pixel_opt': {'type': 'CharbonnierLoss', 'eps': 1e-6}}, metrics=PSNR_Y),
    'hoffr': Recipe(
        model='hoffr-small', model_type='HOFFRModel', windows=(8, 7, 6, 5, 4, 3), gt_size=128, batch_size=2,
        data={'temporal_scale': 1, 'motion_blur': {'exposure': [0.5, 2.0], 'num_frame': 9}},
        train_data={'lq_sharp': True},
        losses={'grad_clip': 0.1, 'pixel_opt': {'type': 'MSELoss'},
                'deblur_opt': {'type': 'MSELoss', 'loss_weight': 0.5},
                'flow_opt': {'type': 'PyramidWarpLoss', 'loss_weight': 0.1, 'level_weights': [0.5, 0.5, 1.0],
                             'distance': 'l1'}},
        metrics=PSNR,
        about_scratch='train its flow net alone first (flow_only), as options/train_hoffr_small_flow.yml does'),
    'adaptive-gan': Recipe(
        model='adaptive-gan-small', model_type='AdaptiveGANModel', windows=(5,), gt_size=64, batch_size=8,
        data={'color': 'y', 'temporal_scale': 1}, train_data={}, discriminator=True,
        losses={'optim_d': {'type': 'Adam', 'lr': 1e-4, 'betas': [0.9, 0.99]},
                'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.001},
                'pixel_opt': {'type': 'SpatiallyAdaptiveCharbonnierLoss', 'alpha': 0.001, 'beta': 0.099},
                'feature_opt': {'type': 'SpatiallyAdaptiveFeatureLoss', 'feature_net': 'random', 'alpha': 0.998,
                                'beta': 0.998}},
        metrics=PSNR_Y,
        about_scratch='train without network_d, optim_d, gan_opt and feature_opt first, then from that checkpoint'),
}


class Clips(NamedTuple):
    """The clips of a training, and what they allow.

    Attributes:
        names: usable clips.
        left_out: other clips -> why they are of no use.
        num_frame: frames in a window.
        gt_size: side of the patches.
    """
    names: list[str]
    left_out: dict[str, str]
    num_frame: int
    gt_size: int

    @property
    def validation(self) -> list[str]:
        """Clips for validation, spread over all; none if there is only one clip."""
        number = min(MOST_OF_VALIDATION, max(1, len(self.names) // 10)) if len(self.names) > 1 else 0
        return [self.names[(2 * i + 1) * len(self.names) // (2 * number)] for i in range(number)]

    @property
    def training(self) -> list[str]:
        return [name for name in self.names if name not in self.validation]


def choose_clips(reader: FrameReader, recipe: Recipe) -> Clips:
    """Find the clips that are long and large enough, and the window and patch that fit all of them.

    Raises:
        ValueError: there are none, or the name of a clip has white space.
        FrameReadError: a frame is damaged.
    """
    sizes: dict[str, int] = {}
    lengths: dict[str, int] = {}
    left_out: dict[str, str] = {}
    multiple = recipe.multiple
    least = -(-recipe.least_size // multiple) * multiple
    for name in reader.clips:
        if len(name.split()) != 1:
            raise ValueError(f'the name of the clip {name!r} has white space, which BasicSR\'s lists of clips do not '
                             'allow; rename it')
        lengths[name], sizes[name] = reader.num_frames(name), min(reader.frame(name, 0).shape[:2])
        if lengths[name] < min(recipe.windows):
            left_out[name] = f'{lengths[name]} frames, but a window has {min(recipe.windows)}'
        elif sizes[name] < least:
            left_out[name] = f'a side of {sizes[name]} pixels, but a patch has at least {least}'
    names = [name for name in reader.clips if name not in left_out]
    if not names:
        first = next(iter(left_out), None)
        raise ValueError('no clip is long and large enough to train on' if first is None else
                         f'none of {len(left_out)} clips is long and large enough to train on; the first, {first!r}, '
                         f'has {left_out[first]}')
    size = min(recipe.gt_size, min(sizes[name] for name in names))
    shortest = min(lengths[name] for name in names)
    return Clips(names, left_out, next(number for number in recipe.windows if number <= shortest),
                 size // multiple * multiple)


def write_training(system: str, data: Path, output: Path, start: str = SMALL_WEIGHTS, *, overwrite: bool = False
                   ) -> Clips:
    """Write an option file, and the names of the clips for training and validation beside it.

    Args:
        system: a key of `RECIPES`.
        data: a folder of clips, an LMDB, a video, or a folder of videos.
        start: 'small-weights', 'scratch', or the path of a checkpoint.

    Raises:
        ValueError: a file exists, or no clip is of use.
        FileNotFoundError: the checkpoint does not exist.
        FrameReadError: the clips cannot be read.
    """
    recipe, output = RECIPES[system], output.resolve()
    lists = {phase: output.with_name(f'{output.stem}_{phase}.txt') for phase in ('train', 'val')}
    for file in (output, *lists.values()):
        if file.exists() and not overwrite:
            raise ValueError(f'{file} exists; use --overwrite to replace it')
    if start not in (SMALL_WEIGHTS, SCRATCH) and not Path(start).is_file():
        raise FileNotFoundError(f'--from {start}: no such file; expected {SMALL_WEIGHTS}, {SCRATCH} or a checkpoint')
    clips = choose_clips(open_reader(data), recipe)
    for phase, names in (('train', clips.training), ('val', clips.validation or clips.names)):
        lists[phase].write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    output.write_text(option_file(recipe, data.resolve(), output.stem, lists, clips, start), encoding='utf-8')
    return clips


def option_file(recipe: Recipe, data: Path, name: str, lists: Mapping[str, Path], clips: Clips, start: str) -> str:
    """Return the text of an option file."""
    entry, is_scratch = ZOO[recipe.model], start == SCRATCH
    weights = {SMALL_WEIGHTS: f'basicsr_stvsr/weights/{entry.weights}', SCRATCH: None}.get(start, str(start))
    steps = 10_000 if is_scratch else 2000
    network_d = ''
    if recipe.discriminator:
        network_d = block('network_d', {'type': 'VSRResDiscriminator', 'num_feat': 32, 'patch_size': clips.gt_size})
    val_note = '' if clips.validation else '  # the only clip: these scores are those of the training data'
    return f'''\
# Trains {entry.network["type"]} ({entry.about}) on {data}.
# Written by `stvsr init`; docs/own_data.md explains what to change. Try it first: stvsr train -opt FILE --check
name: {scalar(name)}
model_type: {recipe.model_type}
scale: {recipe.spec.scale}
num_gpu: auto                                     # 0: the CPU
manual_seed: 0

datasets:
  train:
    name: train
    type: STVSRClipDataset
    dataroot_gt: {scalar(str(data))}
    meta_info_file: {scalar(str(lists["train"]))}  # names of the clips
{block_lines({**recipe.data, **recipe.train_data}, 4)}\
    num_frame: {clips.num_frame}                                  # frames in a window
    gt_size: {clips.gt_size}                                  # side of the patches, a multiple of {recipe.multiple}
    random_reverse: true
    use_hflip: true
    use_rot: true
    cache: true                                   # keep decoded frames in memory; false for many or large clips
    num_worker_per_gpu: 1
    batch_size_per_gpu: {recipe.batch_size}                         # raise it on a GPU
    dataset_enlarge_ratio: 100

  val:
    name: val
    type: STVSRTestDataset
    dataroot_gt: {scalar(str(data))}
    meta_info_file: {scalar(str(lists["val"]))}{val_note}
{block_lines(recipe.data, 4)}\
    num_frame: 25                                 # only the first frames of each clip

{block("network_g", entry.network)}{network_d}
path:
  pretrain_network_g: {scalar(weights) if weights else "~"}
  resume_state: ~

train:
  amp: auto                                       # bf16 where the device has instructions for it
  ema_decay: 0.999
  ema_warmup: true
  optim_g: {{type: Adam, lr: {"1.0e-3" if is_scratch else "1.0e-4"}, betas: [0.9, 0.99]}}
  scheduler: {{type: CosineAnnealingRestartLR, periods: [{steps}], restart_weights: [1], eta_min: 1.0e-6}}
  total_iter: {steps}                                # {recipe.about_scratch if is_scratch else "for fine-tuning"}
  warmup_iter: {100 if is_scratch else -1}
{block_lines(recipe.losses, 2)}
val:
  val_freq: 500
  metrics:
{block_lines(recipe.metrics, 4)}
logger:
  print_freq: 20
  save_checkpoint_freq: 500
'''


def scalar(value: str) -> str:
    """Return a text as YAML, in one line."""
    return flow(value).removesuffix('\n...').strip()


def flow(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)).strip()


def block_lines(options: Mapping[str, Any], indent: int) -> str:
    """Return options as YAML, one line each."""
    return ''.join(f'{" " * indent}{name}: {scalar(value)}\n' for name, value in options.items())


def block(name: str, options: Mapping[str, Any]) -> str:
    return f'{name}:\n{block_lines(options, 2)}'
