"""Train and test the systems of this package with mmengine's Runner; `registry` imports this package on demand."""
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY

from ..registry import DATASETS, METRICS, MODELS
from . import checkpoint, optim, recipe_model, schedule  # noqa: F401  (imported for what they register)
from .clip_metrics import metric_builder
from .data import dataset_builder

MODELS.share(ARCH_REGISTRY)
MODELS.share(LOSS_REGISTRY)
DATASETS.share(DATASET_REGISTRY, dataset_builder)
METRICS.share(METRIC_REGISTRY, metric_builder)
