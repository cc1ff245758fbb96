"""Make basicsr 1.4.2 import with current torch and torchvision, and import fast. All patches are in this module.

Every patch first checks whether it is needed, and leaves a working installation alone.
"""
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any, cast

import torch

# A Library object removes its definitions when it is collected, so these live as long as the process.
_libraries: list[torch.library.Library] = []

# The operators whose schemas torchvision requires from its C++ extension during import.
_TORCHVISION_SCHEMAS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)


def import_torchvision() -> None:
    """Import torchvision, even if its CUDA wheel is installed next to a CPU-only torch.

    In that case its C++ operators do not load, and the import fails with 'operator torchvision::nms does not exist'.
    With two schemas declared, all Python code of torchvision works. The operators themselves (nms, roi_align) stay
    unavailable, except for deform_conv2d, which BasicSR's EDVR needs: it is replaced by one in plain PyTorch.

    Raises:
        RuntimeError: torchvision is broken in another way.
    """
    try:
        importlib.import_module('torchvision')
    except RuntimeError as error:
        if 'torchvision::nms does not exist' not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
            del sys.modules[name]
        library = torch.library.Library('torchvision', 'DEF')
        for schema in _TORCHVISION_SCHEMAS:
            library.define(schema)
        _libraries.append(library)
        importlib.import_module('torchvision')
        cast(Any, importlib.import_module('torchvision.ops')).deform_conv2d = _deform_conv2d


def _deform_conv2d(*args: Any, **kwargs: Any) -> torch.Tensor:
    # This module is also used alone, without the package around it
    from basicsr_stvsr.utils.deform_conv import deform_conv2d

    return deform_conv2d(*args, **kwargs)


def alias_functional_tensor() -> None:
    """Provide the module `functional_tensor`, dropped in torchvision 0.17, to basicsr.data.degradations."""
    name = 'torchvision.transforms.functional_tensor'
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        sys.modules[name] = importlib.import_module('torchvision.transforms.functional')


def provide_wandb_ids() -> None:
    """Provide `wandb.util.generate_id`, which current versions of wandb have elsewhere, to BasicSR's logger."""
    wandb = importlib.import_module('wandb')
    if not hasattr(wandb.util, 'generate_id'):
        wandb.util.generate_id = importlib.import_module('wandb.sdk.lib.runid').generate_id


class _DeferredPackage(ModuleType):
    """A package whose __init__ runs when one of its names is first used; its modules can be imported before."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') and name != '__all__':  # attributes that Python itself looks up on every module
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        self.run()
        return getattr(self, name)

    def run(self) -> None:
        apply()
        self.__class__ = ModuleType  # type: ignore[assignment]  # it becomes an ordinary module
        spec = self.__spec__
        assert spec is not None and spec.loader is not None  # see `_defer`
        spec.loader.exec_module(self)


def defer_basicsr() -> None:
    """Let `from basicsr.utils.registry import ...` run only that module.

    The __init__ of basicsr imports all of its modules, including torchvision and SciPy, which takes longer than
    importing torch. It now runs when something is first imported from the package itself. Does nothing if basicsr is
    already imported.
    """
    if 'basicsr' in sys.modules:
        return
    root = _defer('basicsr', None)
    for room in ('archs', 'data', 'losses', 'metrics', 'models', 'ops', 'utils'):
        setattr(root, room, _defer(f'basicsr.{room}', root.__path__))


def _defer(name: str, path: Sequence[str] | None) -> _DeferredPackage:
    spec = PathFinder.find_spec(name, path)
    assert spec is not None, f'{name} is not installed'
    package = module_from_spec(spec)
    package.__class__ = _DeferredPackage
    sys.modules[name] = package
    return cast(_DeferredPackage, package)


def import_basicsr() -> None:
    """Import all of basicsr, including deferred modules."""
    apply()
    importlib.import_module('basicsr')
    for name, module in list(sys.modules.items()):
        if name.partition('.')[0] == 'basicsr' and isinstance(module, _DeferredPackage):
            module.run()
    keep_scores_on_device()


def keep_scores_on_device() -> None:
    """Let BasicSR's video models validate without a GPU, and on several data sets.

    They allocate their scores on 'cuda', and keep those of the clips of the first data set. They also change the shape
    of a clip after the model has taken it, which is the same tensor if no GPU needs a copy.
    """
    from basicsr.models.video_base_model import VideoBaseModel
    from basicsr.models.video_recurrent_model import VideoRecurrentModel

    for model in (VideoBaseModel, VideoRecurrentModel):
        if hasattr(model.dist_validation, '__wrapped__'):  # by an earlier call
            continue
        model.dist_validation = with_own_scores(model.dist_validation)


def with_own_scores(validate: Callable[..., None]) -> Callable[..., None]:
    """Wrap `dist_validation` of BasicSR so that it finds its scores allocated, and gives the model copies of clips."""
    @wraps(validate)
    def validation(model: Any, dataloader: Any, *args: Any) -> None:
        metrics = model.opt['val'].get('metrics')
        if metrics is not None:
            counts = Counter(dataloader.dataset.data_info['folder'])
            model.metric_results = {
                clip: torch.zeros(number, len(metrics), device=model.device) for clip, number in counts.items()}
        take = model.feed_data
        model.feed_data = lambda data: take(
            {name: value.clone() if torch.is_tensor(value) else value for name, value in data.items()})
        try:
            validate(model, dataloader, *args)
        finally:
            del model.feed_data
    return validation


def apply() -> None:
    """Apply every patch that this installation needs; further calls do nothing."""
    import_torchvision()
    alias_functional_tensor()
