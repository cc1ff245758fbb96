"""Save and load training states.

Every file is written atomically, and the training state last. If a state exists, so do its weights; the state holds
their sha256.
"""
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.utils import check_resume, get_root_logger

from ..archs.weight_files import load_file, sha256_of
from ..models.model_files import TrainingState
from ..utils.distributed import on_first_rank
from .saved_state import SavedState

# Keys of every training state, BasicSR's included
NEEDED_KEYS = {'epoch', 'iter', 'optimizers', 'schedulers'}


def find_resume_state(opt: dict[str, Any]) -> TrainingState | None:
    """Load the training state to resume from, and point `opt` to its weights.

    With --auto_resume, this is the newest complete state of the experiment whose weights exist; a warning names
    incomplete ones. If there is none, or without the flag, it is `path.resume_state`, if set. Call this on all ranks:
    the first one chooses.

    Raises:
        FileNotFoundError, ValueError: training cannot resume from `path.resume_state`; one line says why.
    """
    path = on_first_rank(lambda: choose_state(opt))
    if path is None:
        return None
    opt['path']['resume_state'] = path
    state: TrainingState = load_file(path, 'a training state')
    check_resume(opt, state['iter'])
    return state


def choose_state(opt: Mapping[str, Any]) -> str | None:
    if opt['auto_resume']:
        for path in saved_states(Path(opt['path']['training_states'])):
            try:
                check_state(path, opt)
                return str(path)
            except (OSError, ValueError) as error:
                get_root_logger().warning(f'--auto_resume passes over {path}: {error}')
    path = opt['path'].get('resume_state')
    if path:
        try:
            check_state(Path(path), opt)
        except (OSError, ValueError) as error:
            raise type(error)(f'path.resume_state: {error}') from error
    return path or None


def saved_states(folder: Path) -> list[Path]:
    """Return the training states of a folder, newest first."""
    if not folder.is_dir():
        return []
    states = [path for path in folder.iterdir() if re.fullmatch(r'\d+\.state', path.name)]
    return sorted(states, key=lambda path: int(path.stem), reverse=True)


def check_state(path: Path, opt: Mapping[str, Any]) -> None:
    """Raise ValueError or FileNotFoundError if a training cannot resume from this state."""
    state = load_file(path, 'a training state')
    if not isinstance(state, dict) or not NEEDED_KEYS <= state.keys():
        raise ValueError(f'{path} holds no training state: expected a block of {", ".join(sorted(NEEDED_KEYS))}')
    try:
        SavedState.read(state)
    except ValueError as error:
        first, *others = str(error).splitlines()
        more = f', and {len(others)} more problems' if others else ''
        raise ValueError(f'{path} is damaged, or was changed: {first}{more}') from None
    ignored = opt['path'].get('ignore_resume_networks') or []
    for network in [key for key in opt if key.startswith('network_') and key not in ignored]:
        label = network.replace('network_', 'net_')
        weights = Path(opt['path']['models']) / f'{label}_{state["iter"]}.pth'
        if not weights.is_file():
            raise FileNotFoundError(f'{path} belongs to {weights}, which does not exist{hint(path, opt)}')
        saved = state.get('networks', {}).get(label)  # absent in BasicSR's states
        if saved and sha256_of(weights) != saved:
            raise ValueError(f'{weights} is damaged, or not the file that was saved with {path}{hint(path, opt)}')


def hint(path: Path, opt: Mapping[str, Any]) -> str:
    if path.parent.resolve() == Path(opt['path']['training_states']).resolve():
        return ''
    return (f'. The state lies outside of this experiment, {opt["path"]["experiments_root"]}: to go on with another '
            'one, set `name` or path.experiments_root to it; to begin anew with its weights, use '
            'path.pretrain_network_g')
