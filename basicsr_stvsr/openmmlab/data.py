"""Build BasicSR data sets in mmengine, with the sample order of this package's BasicSR loop."""
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, cast

from mmengine.config import ConfigDict
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from ..data.sample_order import BuiltDataset, SampleStream, SeededDataset, SeededIndex
from ..models.clip_model import color_of
from ..registry import DATA_SAMPLERS, DATASETS


def dataset_builder(_name: str, dataset: Callable[..., Any]) -> Callable[..., BuiltDataset]:
    """Return a function that builds a data set from the keys of a config."""
    return partial(build_dataset, dataset)


def build_dataset(dataset_class: Callable[..., Any], **options: Any) -> BuiltDataset:
    """Build a BasicSR data set, whose options are a single dict.

    Args:
        dataset_class: its class.
        options: as in `datasets.<name>` of an option file, with `scale`.

    Raises:
        ValueError, OSError: raised by the data set; messages name options as `datasets.<class>.<option>`.
    """
    name = dataset_class.__name__
    dataset = dataset_class({'name': name, 'key': name, **ConfigDict(options).to_dict()})
    dataset.metainfo = {'name': dataset.opt['name'], 'color': color_of(dataset)}  # mmengine passes it to evaluators
    return cast(BuiltDataset, dataset)


@DATASETS.register_module(name='SeededDataset')
def build_seeded_dataset(dataset: dict[str, Any]) -> SeededDataset:
    """Build a data set whose samples, including crops and flips, depend on the seeds of `SeededSampler`.

    Args:
        dataset: config of the data set.
    """
    built = DATASETS.build(dataset)
    seeded = SeededDataset(built)
    seeded.metainfo = built.metainfo
    return seeded


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler[SeededIndex]):
    """Yield the samples of this process without end, in the order of this package's BasicSR loop.

    With the same batch size and seed (`manual_seed` there, `randomness.seed` here), batches are the same for any number
    of processes and workers. A resumed training continues with the next samples.

    Args:
        dataset: a SeededDataset.
        seed: of the order and of the samples; None: all processes agree on a random one.
        enlarge_ratio: how many times an epoch repeats every sample, as `dataset_enlarge_ratio` of option files.
        shuffle: False: keep the order of the data set.

    Raises:
        ValueError: the data set does not take seeds.
    """

    def __init__(self, dataset: Dataset[Any], seed: int | None = None, enlarge_ratio: float = 1, shuffle: bool = True):
        if not isinstance(dataset, SeededDataset):
            raise ValueError("SeededSampler needs dataset=dict(type='SeededDataset', dataset=dict(type=...)), but the "
                             f'data set is {type(dataset).__name__}')
        rank, world_size = get_dist_info()
        # A batch of n equals n successive batches of one
        self.stream = SampleStream(
            len(dataset), 1, rank=rank, world_size=world_size, seed=sync_random_seed() if seed is None else seed,
            enlarge_ratio=enlarge_ratio, shuffle=shuffle)

    def __iter__(self) -> Iterator[SeededIndex]:
        return chain.from_iterable(self.stream)

    def __len__(self) -> int:
        return self.stream.epoch_length // self.stream.world_size
