"""Data sets of BasicSR as mmengine builds them, and the order of samples that BasicSR's loop has here."""
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

from mmengine.config import ConfigDict
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from ..data.sampling import SampleStream, SeededDataset, SeededIndex
from ..models.clip_model import color_of
from ..registry import DATA_SAMPLERS, DATASETS


def dataset_builder(_name: str, dataset: type[Dataset]) -> Callable[..., Dataset]:
    """What builds a data set of the keys of a config."""
    return partial(build_dataset, dataset)


def build_dataset(dataset_class: type[Dataset], **options: Any) -> Dataset:
    """A data set of BasicSR, which takes all of its options as one dict.

    Args:
        dataset_class: its class.
        options: as in `datasets.<name>` of an option file, with `scale`.

    Raises:
        ValueError, OSError: as the data set does; options are named `datasets.<class>.<option>` there.
    """
    name = dataset_class.__name__
    dataset = dataset_class({'name': name, 'key': name, **ConfigDict(options).to_dict()})
    dataset.metainfo = {'name': dataset.opt['name'], 'color': color_of(dataset)}  # which mmengine hands to evaluators
    return dataset


@DATASETS.register_module(name='SeededDataset')
def build_seeded_dataset(dataset: dict[str, Any]) -> SeededDataset:
    """A data set whose samples, crops and flips included, follow from the seeds that `SeededSampler` gives.

    Args:
        dataset: config of the data set.
    """
    seeded = SeededDataset(DATASETS.build(dataset))
    seeded.metainfo = seeded.dataset.metainfo
    return seeded


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler[SeededIndex]):
    """The samples of this process, without end, in the order in which BasicSR's loop has them here.

    Of the same seed, `manual_seed` there and `randomness.seed` here, and batch size, batches are the same, whatever the
    number of processes and workers. A training that is resumed goes on with the samples that come next.

    Args:
        dataset: a SeededDataset.
        seed: of the order and of the samples; None: one that all processes agree upon.
        enlarge_ratio: an epoch has every sample so many times, as `dataset_enlarge_ratio` of option files.
        shuffle: False: in the order of the data set.

    Raises:
        ValueError: the data set does not take seeds.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None, enlarge_ratio: float = 1, shuffle: bool = True):
        if not isinstance(dataset, SeededDataset):
            raise ValueError("SeededSampler needs dataset=dict(type='SeededDataset', dataset=dict(type=...)), but the "
                             f'data set is {type(dataset).__name__}')
        rank, world_size = get_dist_info()
        # A batch of n is n batches of one, one after another
        self.stream = SampleStream(
            len(dataset), 1, rank=rank, world_size=world_size, seed=sync_random_seed() if seed is None else seed,
            enlarge_ratio=enlarge_ratio, shuffle=shuffle)

    def __iter__(self) -> Iterator[SeededIndex]:
        return chain.from_iterable(self.stream)

    def __len__(self) -> int:
        return self.stream.epoch_length // self.stream.world_size
