"""The blocks of an option file."""
from fnmatch import fnmatchcase
from importlib.util import find_spec
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

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

from .block import Block, Count, Positive, problem, refuse, refuse_field, shown, whole_number
from .registered import Dataset, Loss, Metric, Network, Optimizer, Registered, entries, find

# Which copy of a frame that several windows made counts; see `inference.windows`
OVERLAP_RULES = ('first', 'last', 'middle', 'mean', 'all')

# ---------------------------------------------------------------- train


class MultiStepOptions(Block):
    """`train.scheduler` of type MultiStepLR: the rate is multiplied by gamma at every milestone."""

    type: Literal['MultiStepLR', 'MultiStepRestartLR']
    """BasicSR has one class for both."""
    milestones: list[Count]
    """When the learning rate falls, in rising order."""
    gamma: float = Field(0.1, gt=0)
    """What it is multiplied by."""
    restarts: list[Count] = [0]
    """When it starts again from optim_g.lr, times the weight of the restart."""
    restart_weights: list[float] = Field([1], validate_default=True)
    """One number for each restart."""

    @field_validator('milestones')
    @classmethod
    def check_order(cls, milestones: list[int]) -> list[int]:
        if any(later <= earlier for earlier, later in pairwise(milestones)):
            raise refuse(f'must rise, but is {shown(milestones)}')
        return milestones

    @field_validator('restart_weights')
    @classmethod
    def check_weights(cls, weights: list[float], info: ValidationInfo) -> list[float]:
        return check_length(weights, info.data.get('restarts'), 'restarts')


class CosineOptions(Block):
    """`train.scheduler` of type CosineAnnealingRestartLR: the rate falls along half a cosine in every period."""

    type: Literal['CosineAnnealingRestartLR']
    """BasicSR's scheduler."""
    periods: list[Positive] = Field(min_length=1)
    """Lengths of the periods, together at least train.total_iter."""
    restart_weights: list[float] = Field([1], validate_default=True)
    """The learning rate that each period starts with, relative to optim_g.lr."""
    eta_min: float = Field(0, ge=0)
    """The learning rate at the end of a period."""

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
    """`train`: what every system of this package has.

    A paper's own is a subclass with its losses, which its model names as `train_options`.

    Attributes:
        gives_flow: whether the model hands the network the flow between LR frames.
        has_discriminator: whether the model can train network_d.
    """

    gives_flow: ClassVar[bool] = False
    has_discriminator: ClassVar[bool] = False

    optim_g: Optimizer
    """Optimiser: {type, lr, ...}; Adam and AdamW are fused where torch can."""
    scheduler: Scheduler
    """Learning rate over time: {type: MultiStepLR | MultiStepRestartLR | CosineAnnealingRestartLR, ...}."""
    total_iter: Positive
    """How long to train, in `unit`s."""
    warmup_iter: Annotated[int, BeforeValidator(whole_number), Field(ge=-1)] = -1
    """The learning rate rises linearly over so many `unit`s; -1: it does not."""
    unit: Literal['iterations', 'samples'] = 'iterations'
    """What total_iter, warmup_iter and the scheduler's milestones, periods and restarts count: steps of the optimiser,
    or samples seen, which do not depend on the batch size and the number of GPUs."""
    pixel_opt: Loss
    """Loss on the frames: {type, loss_weight, reduction}."""
    ema_decay: float = Field(0, ge=0, lt=1)
    """Decay of the moving average of the weights that validation uses; 0: none."""
    ema_warmup: bool = False
    """Whether the decay rises to ema_decay as (1 + step) / (10 + step). Without it, the first weights keep a share of
    ema_decay ** steps of the average: 5 % after 3,000 steps at 0.999."""
    lr_mul: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Learning rates of parts, relative to optim_g.lr: {part, or pattern of parameter names: factor}; the first that
    matches counts."""
    grad_clip: float | None = Field(None, gt=0)
    """Gradients are scaled down to this norm where theirs is larger; default: they are not."""
    accumulate: Positive = 1
    """A batch goes through the network in so many parts, one after another, which needs less memory; it must divide
    the batch size."""
    amp: Literal['none', 'auto', 'bf16', 'fp16'] = 'none'
    """Precision of automatic mixed precision; auto: bf16 where the device has instructions for it, else none."""
    compile: bool = False
    """Whether to compile the network (torch.compile), which takes minutes at the start and a compiler."""
    channels_last: bool | Literal['auto'] = 'auto'
    """Memory layout of weights and images; auto: on a CPU, where it is faster; GPUs often are with amp."""
    max_nonfinite: Positive = 10
    """A step whose loss or gradient is not finite is skipped; so many in a row stop the training."""

    @model_validator(mode='after')
    def check_periods(self) -> Self:
        periods = self.scheduler.get('periods')
        if periods and sum(periods) < self.total_iter:  # BasicSR's scheduler knows no learning rate behind the last
            raise refuse_field('scheduler', f'has the periods {shown(periods)}, which add up to {sum(periods)}; they '
                               f'must reach train.total_iter {self.total_iter}')
        return self

    def lr_pattern(self, name: str) -> str | None:
        """The key of lr_mul for a parameter: its name, that of a part it lies in, or a pattern with * and ?."""
        return next((pattern for pattern in self.lr_mul if name == pattern or name.startswith(f'{pattern}.')
                     or fnmatchcase(name, pattern)), None)

    def check_network(self, net: nn.Module) -> None:
        """Raises ValueError, which names the option, where these options do not fit the network; for subclasses too."""
        if net.spec.needs_flow != self.gives_flow:
            problem = 'does not take the flow that this model gives it' if self.gives_flow else (
                'needs the flow between LR frames: set model_type to one that gives it, such as FISRModel')
            raise ValueError(f'network_g.type: {type(net).__name__} {problem}')
        unused = self.lr_mul.keys() - {self.lr_pattern(name) for name, _ in net.named_parameters()}
        if unused:
            raise ValueError(f'train.lr_mul.{min(unused)} fits no parameter of {type(net).__name__} that a pattern '
                             f'before it has not taken; its parts are {", ".join(dict(net.named_children()))}')


# ---------------------------------------------------------------- datasets

class DatasetOptions(Block):
    """`datasets.<name>`: what every data set has.

    A data set of this package names a subclass, with its own keys, as `options`.
    """

    name: str
    """Its name in logs, and of its folder of results."""
    type: str | None = None
    """Its class, which a file must name."""
    scale: Annotated[int, Field(ge=1)] = Field(json_schema_extra={'readOnly': True})
    """Set by the program: `scale` of the file."""
    key: str | None = Field(None, json_schema_extra={'readOnly': True})
    """Set by the program: what the block is called in the file."""
    phase: Literal['train', 'val', 'test'] | None = Field(None, json_schema_extra={'readOnly': True})
    """Set by the program: train, val or test."""
    num_worker_per_gpu: Count = 0
    """Processes that read, for each GPU."""
    batch_size_per_gpu: Positive = 1
    """Samples of a batch, for each GPU."""
    dataset_enlarge_ratio: float = Field(1, gt=0)
    """An epoch goes so many times through the data."""
    use_shuffle: bool = True
    """Whether a training takes the samples in another order in each epoch."""
    pin_memory: bool = False
    """Whether batches are kept where a GPU can fetch them fast."""
    prefetch_mode: Literal['cpu', 'cuda'] | None = None
    """cpu: the workers, one at least, keep num_prefetch_queue more batches ready; cuda: the next batch is brought to
    the GPU early, which needs pin_memory."""
    num_prefetch_queue: Positive = 1
    """How many more batches prefetch_mode cpu keeps ready."""

    @model_validator(mode='after')
    def check_memory(self) -> Self:
        if self.prefetch_mode == 'cuda' and not self.pin_memory:
            raise refuse_field('prefetch_mode', "is 'cuda', which needs pin_memory: true beside it")
        return self


class ForeignDatasetOptions(DatasetOptions):
    """Of a data set that states no options, such as BasicSR's: what every data set has, and anything else."""

    model_config = ConfigDict(extra='allow')


# ---------------------------------------------------------------- the other blocks

class PathOptions(Block):
    """`path`: files and folders."""

    pretrain_network_g: str | None = None
    """Weights to start from."""
    param_key_g: str = 'params'
    """Which weights of that file: params, or params_ema, their moving average."""
    strict_load_g: bool = True
    """Whether the file must hold all weights of the network, and no others."""
    pretrain_network_d: str | None = None
    """Weights that the discriminator starts from."""
    strict_load_d: bool = True
    """Whether that file must hold all weights of the discriminator, and no others."""
    resume_state: str | None = None
    """Training state to go on from."""
    ignore_resume_networks: list[str] = []
    """Networks that do not take the weights that were saved with the training state."""
    experiments_root: str | None = None
    """Folder of checkpoints and logs; default: `experiments/<name>`."""
    results_root: str | None = None
    """Folder of scores and pictures of a test; default: `results/<name>`."""


class TileOptions(Block):
    """`val.tile`: frames that are too large for the network go through it in tiles."""

    grid: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    """Rows and columns."""
    overlap: Count
    """LR pixels that a tile sees beyond its own, rounded up to a multiple that the network works on, such as FISR's 32;
    less than what a network looks at changes its output a little."""


class ValOptions(Block):
    """`val`: validation and testing."""

    val_freq: Positive | None = None
    """Iterations between two validations; needed for training with data sets to validate on."""
    save_img: bool = False
    """Whether to save the frames that were made."""
    suffix: str | None = None
    """End of the names of saved frames; default: the name of the run."""
    pbar: bool = False
    """Whether to show progress."""
    overlap: Literal[OVERLAP_RULES] | None = None
    """Which copy of a frame that several windows made is scored; middle: the one nearest the middle of its window; all:
    every copy, that is by triplets; default: the network's rule: first, for FISR last, for FSTRN middle."""
    reset_at_cuts: bool = False
    """Whether a recurrent network starts afresh where a new scene begins, which is told from the LR frames."""
    frames: str | None = None
    """Folder of saved frames that are scored in place of those of the network: <frames>/<data set>/<clip>/<frame>.png;
    for testing."""
    precision: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    """Precision of convolutions; scores are comparable in fp32."""
    tile: TileOptions | None = None
    """Tiles of a frame: {grid: [rows, columns], overlap}; default: frames are taken whole."""
    average: Literal['clips', 'frames'] = 'clips'
    """What the mean is over: clips (first within each, then over all) or frames."""
    metrics: dict[str, Metric | None] = {}
    """Name in the log -> {type, arguments}, and better: lower where a smaller score is better; ~ turns one off."""
    num_worker: Count = 0
    """Processes that compute scores beside the network; 0: they are computed between two frames."""


class WandbOptions(Block):
    """`logger.wandb`: Weights & Biases, which takes its numbers from tensorboard's."""

    project: str | None = None
    """Project there; without, nothing is sent."""
    resume_id: str | None = None
    """Run there to go on with."""


class LoggerOptions(Block):
    """`logger`: what is told and kept, and when."""

    print_freq: Positive
    """Iterations between two lines of the log."""
    save_checkpoint_freq: Positive
    """Iterations between two checkpoints."""
    use_tb_logger: bool = False
    """Whether to write for tensorboard."""
    wandb: WandbOptions | None = None
    """Weights & Biases: {project, resume_id}."""

    @model_validator(mode='after')
    def check_wandb(self) -> Self:
        if self.wandb and self.wandb.project:
            if not self.use_tb_logger:
                raise refuse_field('wandb', 'has a project, which needs use_tb_logger: true beside it')
            if find_spec('wandb') is None:
                raise refuse_field('wandb', 'has a project, but wandb is not installed: pip install wandb')
        return self


class DistOptions(Block):
    """`dist_params`: several processes."""

    backend: Literal['nccl', 'gloo'] | None = None
    """How they talk; default: nccl with GPUs, gloo without."""
    port: int | None = Field(None, ge=1, le=65535)
    """Of the first node, for slurm; default: MASTER_PORT of the environment, else 29500."""


# ---------------------------------------------------------------- the file

def check_phase(name: str) -> str:
    if name.split('_')[0] not in ('train', 'val', 'test'):
        raise refuse('must be named train, val or test, or such as val_2')
    return name


def check_name(name: str) -> str:
    """It becomes the name of a folder, and an older folder of that name is moved away."""
    if name in ('', '.', '..') or '/' in name or '\\' in name:
        raise refuse(f'must be usable as the name of a folder, but is {shown(name)}')
    return name


def check_model(name: str) -> str:
    find(entries(MODEL_REGISTRY), name, 'model')
    return name


def check_gpus(number: int | str) -> int | str:
    if number not in (0, 'auto') and not torch.cuda.is_available():
        raise refuse(f'is {number}, but torch finds no GPU here: set it to auto, which takes what is there, or to 0, '
                     f'which is the CPU (torch {torch.__version__}; nvidia-smi and CUDA_VISIBLE_DEVICES tell more)')
    return number


class BasicSROptions(Block):
    """A file for one of BasicSR's own models: whatever it says besides these keys is BasicSR's business."""

    model_config = ConfigDict(extra='allow')

    name: Annotated[str, AfterValidator(check_name)]
    """Name of the run, and of its folder."""
    model_type: Annotated[str, AfterValidator(check_model)]
    """Class of the model, which has the training loop."""
    scale: Annotated[int, Field(ge=1)] | None = None
    """How many times higher and wider frames become."""
    num_gpu: Annotated[Literal['auto'] | Annotated[int, Field(ge=0)], AfterValidator(check_gpus)] = 'auto'
    """Number of GPUs; 0: the CPU; auto: all there are."""
    datasets: dict[Annotated[str, AfterValidator(check_phase)], Dataset | None] = Field(
        json_schema_extra={'propertyNames': {'pattern': '^(train|val|test)(_|$)'}})
    """train; val, val_2, ...; test, test_1, ...; each {type, name, ...}; ~ turns one off."""

    @field_validator('datasets', mode='before')
    @classmethod
    def give_scale(cls, datasets: Any, info: ValidationInfo) -> Any:
        """As `complete_datasets` does later; a scale that is wrong is told of once, and not for every data set."""
        if not isinstance(datasets, dict):
            return datasets
        return {name: {**dataset, 'scale': info.data.get('scale') or 1} if isinstance(dataset, dict) else dataset
                for name, dataset in datasets.items()}


    @field_validator('datasets')
    @classmethod
    def check_foreign(cls, datasets: dict[str, Any]) -> dict[str, Any]:
        """Those of this package are checked as what they are, see `Dataset`."""
        problems = []
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
    """The file: what it holds for a model of this package."""

    model_config = ConfigDict(extra='forbid')

    scale: Annotated[int, Field(ge=1)]
    """How many times higher and wider frames become."""
    manual_seed: Annotated[Count, Field(le=2**32 - 1)] | None = None
    """Seed of all random numbers; default: another one each time."""
    dist_params: DistOptions | None = None
    """How several processes find each other: {backend, port}."""
    find_unused_parameters: bool = False
    """For several processes: whether parameters may be without a gradient."""
    network_g: Network
    """The network: {type, arguments}."""
    network_d: Network | None = None
    """The discriminator of an adversarial training: {type, arguments}."""
    path: PathOptions | None = None
    """Files and folders."""
    train: TrainOptions | None = None
    """How to train, with the keys of the model's own."""
    val: ValOptions | None = None
    """How to validate and to test."""
    logger: LoggerOptions | None = None
    """What is told and kept, and when."""

    @field_validator('train', mode='before')
    @classmethod
    def read_train(cls, train: Any, info: ValidationInfo) -> TrainOptions | None:
        """By the class that the model names."""
        model = info.data.get('model_type')
        return entries(MODEL_REGISTRY)[model].train_options.model_validate(train) if model and train else None
