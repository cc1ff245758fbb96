"""The blocks of an option file."""
from fnmatch import fnmatchcase
from importlib.util import find_spec
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import torch
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ValidationError
from torch import nn

from .block import Block, Count, Positive, Problem, problem, refuse, refuse_field, shown, whole_number
from .registered import Dataset, Loss, Metric, Network, Optimizer, Registered, entries, find

# How to merge the copies of a frame that overlapping windows produce; see `inference.windows`
OverlapRule = Literal['first', 'last', 'middle', 'mean', 'all']
OVERLAP_RULES = get_args(OverlapRule)

# ---------------------------------------------------------------- train


class MultiStepOptions(Block):
    """`train.scheduler` of type MultiStepLR: multiply the learning rate by gamma at every milestone."""

    type: Literal['MultiStepLR', 'MultiStepRestartLR']
    """MultiStepLR or MultiStepRestartLR. BasicSR has one class for both."""
    milestones: list[Count]
    """When to lower the learning rate, in `unit`s and in rising order."""
    gamma: float = Field(0.1, gt=0)
    """Factor by which each milestone multiplies the learning rate."""
    restarts: list[Count] = [0]
    """When to restart from optim_g.lr times the weight of the restart, in `unit`s."""
    restart_weights: list[float] = Field([1], validate_default=True)
    """One weight for each restart, relative to optim_g.lr."""

    @field_validator('milestones')
    @classmethod
    def check_order(cls, milestones: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            raise refuse(f'must be in ascending order, but is {shown(milestones)}')
        return milestones

    @field_validator('restart_weights')
    @classmethod
    def check_weights(cls, weights: list[float], info: ValidationInfo) -> list[float]:
        return check_length(weights, info.data.get('restarts'), 'restarts')


class CosineOptions(Block):
    """`train.scheduler` of type CosineAnnealingRestartLR: anneal the rate along half a cosine in every period."""

    type: Literal['CosineAnnealingRestartLR']
    """BasicSR's scheduler."""
    periods: list[Positive] = Field(min_length=1)
    """Length of each period, in `unit`s; together at least train.total_iter."""
    restart_weights: list[float] = Field([1], validate_default=True)
    """Learning rate at the start of each period, relative to optim_g.lr."""
    eta_min: float = Field(0, ge=0)
    """Learning rate at the end of a period."""

    @field_validator('restart_weights')
    @classmethod
    def check_weights(cls, weights: list[float], info: ValidationInfo) -> list[float]:
        return check_length(weights, info.data.get('periods'), 'periods')


def check_length(weights: list[float], others: list[int] | None, name: str) -> list[float]:
    if others is not None and len(weights) != len(others):
        raise refuse(f'must hold {len(others)} numbers, one for each of {name} {others}, but is {shown(weights)}')
    return weights


SCHEDULERS: dict[str, type[Block]] = {
    'MultiStepLR': MultiStepOptions, 'MultiStepRestartLR': MultiStepOptions, 'CosineAnnealingRestartLR': CosineOptions}
Scheduler = Annotated[dict[str, Any], Registered('scheduler', lambda: SCHEDULERS, block=lambda block: block)]


class TrainOptions(Block):
    """`train`: options that every model of this package shares.

    A paper adds its losses in a subclass. Its model names that subclass as `train_options`.

    Attributes:
        gives_flow: whether the model passes the flow between LR frames to the network.
        has_discriminator: whether the model can train network_d.
    """

    gives_flow: ClassVar[bool] = False
    has_discriminator: ClassVar[bool] = False

    optim_g: Optimizer
    """Optimiser: {type, lr, ...}. Adam and AdamW run fused where torch supports it."""
    scheduler: Scheduler
    """Learning rate schedule: {type: MultiStepLR | MultiStepRestartLR | CosineAnnealingRestartLR, ...}."""
    total_iter: Positive
    """How long to train, in `unit`s."""
    warmup_iter: Annotated[int, BeforeValidator(whole_number), Field(ge=-1)] = -1
    """Length of the linear warm-up of the learning rate, in `unit`s; -1: no warm-up."""
    unit: Literal['iterations', 'samples'] = 'iterations'
    """What total_iter, warmup_iter and the scheduler's milestones, periods and restarts count: steps of the optimiser,
    or samples seen. Samples do not depend on the batch size and the number of GPUs."""
    pixel_opt: Loss
    """Loss on the frames: {type, loss_weight, reduction}."""
    ema_decay: float = Field(0, ge=0, lt=1)
    """Decay of the moving average (EMA) of the weights. Validation uses the average; 0: no average."""
    ema_warmup: bool = False
    """Whether the decay rises to ema_decay as (1 + step) / (10 + step). Without it, the initial weights keep a share of
    ema_decay ** steps in the average: 5 % after 3,000 steps at 0.999."""
    lr_mul: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Learning rates of parts, relative to optim_g.lr: {part, or pattern of parameter names: factor}. The first match
    applies."""
    grad_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradients. Larger gradients are scaled down to it; default: no clipping."""
    accumulate: Positive = 1
    """Split each batch into this many parts and accumulate their gradients, to save memory. Must divide the batch
    size."""
    amp: Literal['none', 'auto', 'bf16', 'fp16'] = 'none'
    """Automatic mixed precision. auto: bf16 where the device has instructions for it, else none."""
    compile: bool = False
    """Whether to compile the network with torch.compile. Needs a compiler, and takes minutes at the start."""
    channels_last: bool | Literal['auto'] = 'auto'
    """Whether weights and images use the channels_last memory layout. auto: on a CPU, where it is faster. On a GPU it
    is often faster with amp."""
    max_nonfinite: Positive = 10
    """Stop training after this many consecutive steps whose loss or gradient is not finite. Such steps are skipped."""

    @model_validator(mode='after')
    def check_periods(self) -> Self:
        periods = self.scheduler.get('periods')
        if periods and sum(periods) < self.total_iter:  # BasicSR has no rate after the last period
            raise refuse_field('scheduler', f'has the periods {shown(periods)}, which add up to {sum(periods)}; they '
                               f'must reach train.total_iter {self.total_iter}')
        return self

    def lr_pattern(self, name: str) -> str | None:
        """Return the key of lr_mul that applies to a parameter, or None.

        A key is the name of the parameter, the name of a part that contains it, or a pattern with * and ?.
        """
        return next((pattern for pattern in self.lr_mul if name == pattern or name.startswith(f'{pattern}.')
                     or fnmatchcase(name, pattern)), None)

    def check_network(self, net: nn.Module) -> None:
        """Raise ValueError if these options do not fit the network. The message names the option.

        Subclasses may add checks.
        """
        spec: Any = net.spec  # a NetSpec
        if spec.needs_flow != self.gives_flow:
            problem = 'does not accept the flow that the model passes to it' if self.gives_flow else (
                'needs the flow between LR frames: set model_type to one that passes it, such as FISRModel')
            raise ValueError(f'network_g.type: {type(net).__name__} {problem}')
        unused = self.lr_mul.keys() - {self.lr_pattern(name) for name, _ in net.named_parameters()}
        if unused:
            raise ValueError(f'train.lr_mul.{min(unused)} matches no parameter of {type(net).__name__}, or only '
                             'parameters that an earlier pattern matches; parts of the network: '
                             f'{", ".join(dict(net.named_children()))}')


# ---------------------------------------------------------------- datasets

MOST_BYTES_OF_NAME = 200  # file systems take 255; the rest is for what is added, such as _archived_<time>


def check_name(name: str) -> str:
    """Check that a name can be a folder, also for other programs. An older folder of that name is moved away."""
    if name.strip(' .') == '' or name[0] in ' -' or name[-1] == ' ' or set(name) & set('/\\') or (
            not name.isprintable()):
        raise refuse(f'must be usable as the name of a folder, but is {shown(name)}')
    if len(name.encode()) > MOST_BYTES_OF_NAME:
        raise refuse(f'must be usable as the name of a folder, of at most {MOST_BYTES_OF_NAME} bytes, but has '
                     f'{len(name.encode())}')
    return name


class DatasetOptions(Block):
    """`datasets.<name>`: options that every data set has.

    A data set of this package names a subclass, with more keys, as `options`.
    """

    name: Annotated[str, AfterValidator(check_name)]
    """Name in logs and of the folder of results."""
    type: str | None = None
    """Class of the data set. Every file must set it."""
    scale: Annotated[int, Field(ge=1)] = Field(json_schema_extra={'readOnly': True})
    """Set by the program: `scale` of the file."""
    key: str | None = Field(None, json_schema_extra={'readOnly': True})
    """Set by the program: name of this block in the file."""
    phase: Literal['train', 'val', 'test'] | None = Field(None, json_schema_extra={'readOnly': True})
    """Set by the program: train, val or test."""
    num_worker_per_gpu: Count = 0
    """Worker processes that read data, for each GPU."""
    batch_size_per_gpu: Positive = 1
    """Samples in a batch, for each GPU."""
    dataset_enlarge_ratio: float = Field(1, gt=0)
    """Passes through the data in one epoch."""
    use_shuffle: bool = True
    """Whether training shuffles the samples, anew in each epoch."""
    pin_memory: bool = False
    """Whether to keep batches in pinned memory. A GPU copies them faster from there."""
    prefetch_mode: Literal['cpu', 'cuda'] | None = None
    """cpu: keep num_prefetch_queue more batches ready, with at least one worker. cuda: copy the next batch to the GPU
    early; needs pin_memory."""
    num_prefetch_queue: Positive = 1
    """Batches that prefetch_mode cpu keeps ready in addition."""

    @model_validator(mode='after')
    def check_memory(self) -> Self:
        if self.prefetch_mode == 'cuda' and not self.pin_memory:
            raise refuse_field('prefetch_mode', "is 'cuda', which also needs pin_memory: true")
        return self


class ForeignDatasetOptions(DatasetOptions):
    """A data set that states no options, such as BasicSR's: the common keys, and any others."""

    model_config = ConfigDict(extra='allow')


# ---------------------------------------------------------------- the other blocks

class PathOptions(Block):
    """`path`: files and folders."""

    pretrain_network_g: str | None = None
    """Checkpoint to start from."""
    param_key_g: str = 'params'
    """Which weights of the checkpoint to load: params, or params_ema, their moving average."""
    strict_load_g: bool = True
    """Whether the checkpoint must hold all weights of the network and no others."""
    pretrain_network_d: str | None = None
    """Checkpoint that the discriminator starts from."""
    strict_load_d: bool = True
    """Whether that checkpoint must hold all weights of the discriminator and no others."""
    resume_state: str | None = None
    """Training state to resume from."""
    ignore_resume_networks: list[str] = []
    """Networks that do not load the weights saved with the training state."""
    experiments_root: str | None = None
    """Folder for checkpoints and logs; default: `experiments/<name>`."""
    results_root: str | None = None
    """Folder for scores and images of a test; default: `results/<name>`."""


class TileOptions(Block):
    """`val.tile`: process frames that are too large for the network in tiles."""

    grid: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    """Rows and columns of tiles."""
    overlap: Count
    """Overlap of tiles in LR pixels, added around each tile. Rounded up to a multiple that the network works on, such
    as FISR's 32. An overlap below the network's receptive field changes its output a little."""


class ValOptions(Block):
    """`val`: validation and testing."""

    val_freq: Positive | None = None
    """Iterations between two validations. Required for training with validation data sets."""
    save_img: bool = False
    """Whether to save the output frames."""
    suffix: str | None = None
    """Suffix of the names of saved frames; default: the name of the run."""
    pbar: bool = False
    """Whether to show a progress bar."""
    overlap: OverlapRule | None = None
    """How to score a frame that overlapping windows produce more than once. first, last: that copy; middle: the copy
    nearest the middle of its window; mean: their average; all: every copy, that is by triplets. Default: the network's
    rule, usually first; last for FISR, middle for FSTRN."""
    reset_at_cuts: bool = False
    """Whether a recurrent network resets its state at scene cuts. Cuts are detected in the LR frames."""
    frames: str | None = None
    """Folder of saved frames to score instead of the network's: <frames>/<data set>/<clip>/<frame>.png. For testing."""
    precision: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    """Precision of convolutions. Scores are comparable in fp32."""
    tile: TileOptions | None = None
    """Tiling of frames: {grid: [rows, columns], overlap}; default: whole frames."""
    average: Literal['clips', 'frames'] = 'clips'
    """What scores are averaged over. clips: within each clip, then over all clips; frames: over all frames."""
    metrics: dict[str, Metric | None] = {}
    """Name in the log -> {type, arguments}. Add better: lower where a smaller score is better. ~ removes a metric."""
    num_worker: Count = 0
    """Processes that compute scores while the network runs; 0: compute them between two frames."""


class WandbOptions(Block):
    """`logger.wandb`: Weights & Biases; it receives the values that are logged to TensorBoard."""

    project: str | None = None
    """Name of the project. Nothing is sent without it."""
    resume_id: str | None = None
    """Run to resume."""


class LoggerOptions(Block):
    """`logger`: what to log and save, and how often."""

    print_freq: Positive
    """Iterations between two lines of the log."""
    save_checkpoint_freq: Positive
    """Iterations between two checkpoints."""
    use_tb_logger: bool = False
    """Whether to write logs for TensorBoard."""
    wandb: WandbOptions | None = None
    """Weights & Biases: {project, resume_id}."""

    @model_validator(mode='after')
    def check_wandb(self) -> Self:
        if self.wandb and self.wandb.project:
            if not self.use_tb_logger:
                raise refuse_field('wandb', 'has a project, which also needs use_tb_logger: true')
            if find_spec('wandb') is None:
                raise refuse_field('wandb', 'has a project, but wandb is not installed: pip install wandb')
        return self


class ArchSpecOptions(Block):
    """`arch_spec`: what a network needs that does not state it itself, and is called like BasicSR's networks."""

    input: Literal['image', 'window', 'clip']
    """What the network is called with, and returns. image: one frame, (B, C, H, W) -> (B, C, sH, sW); window: num_frame
    frames, of which it restores the middle one, (B, T, C, H, W) -> (B, C, sH, sW); clip: all frames of a scene, (B, T,
    C, H, W) -> (B, T, C, sH, sW)."""
    scale: Positive
    """Factor s by which it upscales frames."""
    num_frame: Positive | None = None
    """Frames in a window, T; odd."""
    size_multiple: Positive = 1
    """H and W must be multiples of it; other frames are padded."""
    min_size: Positive = 1
    """Smallest H and W; smaller frames are padded."""
    min_frames: Positive = 1
    """With clip, the smallest T; in shorter scenes the last frame is repeated."""
    color: Literal['rgb', 'y', 'yuv'] = 'rgb'
    """Colour space of its frames."""

    @model_validator(mode='after')
    def check_input(self) -> Self:
        if self.input == 'window' and (self.num_frame or 0) % 2 == 0:
            raise refuse_field('num_frame', f'must be odd with input window, but is {self.num_frame}')
        for name, least, input_ in (('num_frame', None, 'window'), ('min_frames', 1, 'clip')):
            if getattr(self, name) != least and self.input != input_:
                raise refuse_field(name, f'goes with input {input_}, but input is {self.input}')
        return self


class DistOptions(Block):
    """`dist_params`: distributed training."""

    backend: Literal['nccl', 'gloo'] | None = None
    """Communication backend; default: nccl with GPUs, gloo without."""
    port: int | None = Field(None, ge=1, le=65535)
    """Port of the first node, for slurm; default: MASTER_PORT of the environment, else 29500."""


# ---------------------------------------------------------------- the file


def check_phase(name: str) -> str:
    if name.split('_')[0] not in ('train', 'val', 'test'):
        raise refuse('must be named train, val or test, or such as val_2')
    return name


def check_model(name: str) -> str:
    find(entries(MODEL_REGISTRY), name, 'model')
    return name


def check_gpus(number: int | str) -> int | str:
    if number not in (0, 'auto') and not torch.cuda.is_available():
        raise refuse(f'is {number}, but torch finds no GPU: set it to auto to use all GPUs, or to 0 to use the CPU '
                     f'(torch {torch.__version__}; see also nvidia-smi and CUDA_VISIBLE_DEVICES)')
    return number


class BasicSROptions(Block):
    """A file for one of BasicSR's own models: other keys are passed on to BasicSR."""

    model_config = ConfigDict(extra='allow')

    name: Annotated[str, AfterValidator(check_name)]
    """Name of the run and of its folder."""
    model_type: Annotated[str, AfterValidator(check_model)]
    """Class of the model that runs the training loop."""
    scale: Annotated[int, Field(ge=1)] | None = None
    """Factor by which frames are upscaled in height and width."""
    num_gpu: Annotated[Literal['auto'] | Annotated[int, Field(ge=0)], AfterValidator(check_gpus)] = 'auto'
    """Number of GPUs. 0: use the CPU; auto: use all GPUs."""
    datasets: dict[Annotated[str, AfterValidator(check_phase)], Dataset | None] = Field(
        json_schema_extra={'propertyNames': {'pattern': '^(train|val|test)(_|$)'}})
    """train; val, val_2, ...; test, test_1, ...; each {type, name, ...}. ~ removes a data set."""

    @field_validator('datasets', mode='before')
    @classmethod
    def give_scale(cls, datasets: Any, info: ValidationInfo) -> Any:
        """Pass the scale to each data set, as `complete_datasets` does later: a wrong scale is then reported once."""
        if not isinstance(datasets, dict):
            return datasets
        return {name: {**dataset, 'scale': info.data.get('scale') or 1} if isinstance(dataset, dict) else dataset
                for name, dataset in datasets.items()}


    @field_validator('datasets')
    @classmethod
    def check_foreign(cls, datasets: dict[str, Any]) -> dict[str, Any]:
        """Check the data sets that state no options. `Dataset` checks those of this package."""
        problems: list[Problem] = []
        for name, dataset in datasets.items():
            if dataset and not hasattr(find(entries(DATASET_REGISTRY), dataset['type'], 'data set'), 'options'):
                try:
                    ForeignDatasetOptions.model_validate(dataset)
                except ValidationError as error:
                    problems += [problem(details['ctx']['text'], name, *details['loc']) for details in error.errors()]
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, problems)
        return datasets


class Options(BasicSROptions):
    """The file: options for a model of this package."""

    model_config = ConfigDict(extra='forbid')

    scale: Annotated[int, Field(ge=1)]
    """Factor by which frames are upscaled in height and width."""
    manual_seed: Annotated[Count, Field(le=2**32 - 1)] | None = None
    """Seed of all random numbers; default: a different one for each run."""
    dist_params: DistOptions | None = None
    """Settings of distributed training: {backend, port}."""
    find_unused_parameters: bool = False
    """Whether some parameters may get no gradient, in distributed training."""
    network_g: Network
    """The network: {type, arguments}."""
    arch_spec: ArchSpecOptions | None = None
    """What network_g needs, if it does not state it itself; BasicSR's networks are known."""
    network_d: Network | None = None
    """The discriminator for adversarial training: {type, arguments}."""
    path: PathOptions | None = None
    """Files and folders."""
    train: TrainOptions | None = None
    """How to train. The model adds the keys of its paper."""
    val: ValOptions | None = None
    """How to validate and test."""
    logger: LoggerOptions | None = None
    """What to log and save, and how often."""

    @field_validator('train', mode='before')
    @classmethod
    def read_train(cls, train: Any, info: ValidationInfo) -> TrainOptions | None:
        """Read `train` by the options class that the model names."""
        model = info.data.get('model_type')
        return entries(MODEL_REGISTRY)[model].train_options.model_validate(train) if model and train else None
