"""The files of a model: weights, and the state from which a training resumes."""
from itertools import zip_longest
from os import path as osp
from typing import Any, NotRequired, TypedDict

import torch
from basicsr.utils.logger import get_root_logger
from torch import nn

from ..archs.weight_files import check_hash, load_weights, read_block
from ..utils.atomic_files import write_whole
from ..utils.distributed import gather, on_first_rank
from ..utils.random_state import rng_state
from .clip_model import BestScore, ClipModel
from .optimizer_state import check_moments, check_settings, group_sizes, match_layout

SCHEDULER_POSITION = ('base_lrs', 'last_epoch', '_step_count', '_last_lr')


class TrainingState(TypedDict):
    """The contents of a file of training_states/; those of BasicSR have only the required entries.

    Attributes:
        samples: number of samples that all processes together have trained on.
        networks: sha256 of each file of weights, by 'net_g' and 'net_d'.
        skipped: number of skipped steps, in all and in a row.
        rng: random states of each rank.
    """

    epoch: int
    iter: int
    optimizers: list[dict[str, Any]]
    schedulers: list[dict[str, Any]]
    samples: NotRequired[int]
    seed: NotRequired[int]
    networks: NotRequired[dict[str, str]]
    scaler: NotRequired[dict[str, Any]]
    skipped: NotRequired[list[int]]
    rng: NotRequired[list[dict[str, Any]]]
    best_metric_results: NotRequired[dict[str, dict[str, BestScore]]]


class SavedModel(ClipModel):
    """Load and save the weights and the training state, with checked files that are complete or not written.

    Attributes:
        samples: Number of samples that all processes together have trained on.
        skipped, skipped_in_a_row: Number of steps without finite losses and gradients.
        saved_networks: Label of a network, such as 'net_g' -> sha256 of the file last written.
    """

    samples: int
    skipped: int
    skipped_in_a_row: int
    scaler: torch.amp.GradScaler

    def __init__(self, opt: dict[str, Any]):
        self.saved_networks: dict[str, str] = {}
        super().__init__(opt)

    # BasicSR's version runs code from the file, and prints every name if the weights do not fit.
    def load_network(self, net: nn.Module, load_path: str, strict: bool = True,
                     param_key: str | None = 'params') -> None:
        net = self.get_bare_model(net)
        check_hash(load_path)
        what = f'{type(net).__name__} with these options'
        keys = () if param_key is None else (param_key, 'params', 'params_ema')
        state, taken = read_block(load_path, what=what, keys=keys)
        load_weights(net, state, path=load_path, what=what, strict=strict)
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path} ({taken or "all of it"}).')

    # BasicSR's version writes in place, and only warns if writing fails.
    def save_network(self, net: nn.Module | list[nn.Module], net_label: str, current_iter: int,
                     param_key: str | list[str] = 'params') -> None:
        """Write `models/<net_label>_<current_iter>.pth`, with -1 as 'latest'; call it on all ranks.

        Raises:
            CheckpointError: the file could not be written.
        """
        name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]

        def write() -> str:
            weights = {key: self.get_bare_model(net).state_dict() for key, net in zip(keys, nets, strict=True)}
            return write_whole(osp.join(self.opt['path']['models'], name), {
                key: {k: v.cpu().contiguous() for k, v in state.items()} for key, state in weights.items()})

        self.saved_networks[net_label] = on_first_rank(write)

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write `training_states/<current_iter>.state`, unless `current_iter` is -1; call it on all ranks.

        Raises:
            CheckpointError: the file could not be written.
        """
        if current_iter == -1:
            return
        rng = gather(rng_state())
        state: TrainingState = {
            'epoch': epoch, 'iter': current_iter, 'samples': self.samples, 'seed': self.opt['manual_seed'],
            'networks': self.saved_networks,
            'optimizers': [optimizer.state_dict() for optimizer in self.optimizers],
            'schedulers': [scheduler.state_dict() for scheduler in self.schedulers],
            'scaler': self.scaler.state_dict(), 'skipped': [self.skipped, self.skipped_in_a_row], 'rng': rng,
            'best_metric_results': self.best_metric_results,
        }
        path = osp.join(self.opt['path']['training_states'], f'{current_iter}.state')
        on_first_rank(lambda: write_whole(path, state))

    def parameters_by_name(self, optimizer: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
        """Return an optimiser's parameters in its order, by names such as 'net_g.head.weight'."""
        names = {id(parameter): f'{label}.{name}' for label in ('net_g', 'net_d') if getattr(self, label, None)
                 for name, parameter in self.get_bare_model(getattr(self, label)).named_parameters()}
        parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
        return {names.get(id(parameter), f'parameter {number}'): parameter
                for number, parameter in enumerate(parameters)}

    def resume_training(self, resume_state: TrainingState) -> None:
        """Load a state of `save_training_state`, or of BasicSR; the caller restores random numbers.

        Raises:
            ValueError: it is the state of another network or of other optimisers, or damaged.
        """
        path = self.opt['path'].get('resume_state')
        own, saved = (group_sizes(states) for states in (
            [optimizer.state_dict() for optimizer in self.optimizers], resume_state['optimizers']))
        if own != saved:
            raise ValueError(f'{path} holds optimisers with groups of {saved} parameters, but here groups have {own}: '
                             'the network or train.lr_mul differs')
        for schedule, own_schedule in zip_longest(resume_state['schedulers'], self.schedulers):
            if schedule is None or own_schedule is None or len(schedule['base_lrs']) != len(own_schedule.base_lrs):
                raise ValueError(f'{path} holds other learning rate schedules than the {len(self.schedulers)} of these '
                                 'options')
        for optimizer, state in zip(self.optimizers, resume_state['optimizers'], strict=True):
            check_moments(state, self.parameters_by_name(optimizer), path)
            settings = [dict(group) for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            check_settings(optimizer, settings, path)
            match_layout(optimizer)
        # Load only the position in the schedule. BasicSR's version also loads the schedule itself, whatever the options
        # now say.
        for scheduler, state in zip(self.schedulers, resume_state['schedulers'], strict=True):
            scheduler.load_state_dict({name: state[name] for name in SCHEDULER_POSITION if name in state})
        self.samples = resume_state.get('samples', self.samples)
        self.skipped, self.skipped_in_a_row = resume_state.get('skipped', (0, 0))
        if self.scaler.is_enabled() and resume_state.get('scaler'):
            self.scaler.load_state_dict(resume_state['scaler'])
        if resume_state.get('best_metric_results'):
            self.best_metric_results = resume_state['best_metric_results']
