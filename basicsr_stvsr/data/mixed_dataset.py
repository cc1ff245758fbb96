"""One data set to train on made of several roots, each with its share of the samples."""
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor

from .clip_dataset import STVSRClipDataset
from .clip_options import ClipTrainOptions, MixedOptions
from .samples import SampleDataset, TrainSamples, check_cache
from .stills_dataset import STVSRStillsDataset

_LONGEST = 10**8  # samples of an epoch, whose order takes 8 bytes each


@DATASET_REGISTRY.register()
class STVSRMixedDataset(SampleDataset):
    """Samples of several roots of clips and of stills; see `TrainSamples` for what they hold.

    Each index is a window of one source. The weights decide how many indices a source has, and the set is as long as
    it takes for every window of every source to come at least once: see `shares`.

    Args:
        opt: see `MixedOptions`.

    Attributes:
        sources: the data sets of the sources, as each would be by itself.

    Raises:
        FileNotFoundError: paths of the options do not exist; the message names all of them.
        FrameReadError: damaged data, see `frames`.
        ValueError: an unknown or impossible option, or sources that do not fit each other.
    """

    options = MixedOptions

    def __init__(self, opt: dict):
        super().__init__(opt)
        self.sources = self._open_sources()
        if self.settings.cache:
            needed = sum(source.cache_bytes() for source in self.sources)
            check_cache(needed, self.settings.num_worker_per_gpu, self._where)
        lengths = shares([source.weight for source in self.settings.sources], list(map(len, self.sources)))
        if sum(lengths) > _LONGEST:
            number = int(np.argmax(list(map(len, self.sources)) / np.array(lengths)))
            raise ValueError(
                f'{self._where}: an epoch would have {sum(lengths):,} samples, so that each of the '
                f'{len(self.sources[number]):,} windows of sources[{number}] comes once; raise its weight, '
                f'{self.settings.sources[number].weight:g}, or take fewer of them, by clips or frame_stride')
        self._ends = [0, *accumulate(lengths)]  # source k has the indices from its entry to the next

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """A sample of a source; key as that source has it."""
        number, window = self.locate(index)
        return self.sources[number][window]

    def locate(self, index: int) -> tuple[int, int]:
        """Return the number of an index's source, and the index there; repeated ones follow each other."""
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} was asked for, there are {len(self)}')
        number = bisect_right(self._ends, index) - 1
        start, end = self._ends[number:number + 2]
        return number, (index - start) * len(self.sources[number]) // (end - start)

    def _open_sources(self) -> list[TrainSamples]:
        key = self.opt.get('key', self.opt.get('phase', '?'))
        sources, missing = [], []
        for number in range(len(self.settings.sources)):
            options = self.settings.of_source(number)
            kind = STVSRClipDataset if isinstance(options, ClipTrainOptions) else STVSRStillsDataset
            try:
                sources.append(kind({**options.complete(), 'key': f'{key}.sources[{number}]'}))
            except FileNotFoundError as error:
                missing.append(str(error))
        if missing:
            raise FileNotFoundError('\n'.join(missing))
        return sources


def shares(weights: Sequence[float], num_windows: Sequence[int]) -> list[int]:
    """Return how many samples of an epoch come from each source.

    Their ratio is that of the weights, but for rounding, and no source has fewer samples than windows: the source with
    the most windows for its weight has each of them once.

    Args:
        weights: of the sources, in any unit.
        num_windows: of the sources.
    """
    per_weight = max(num / weight for num, weight in zip(num_windows, weights, strict=True))
    return [round(per_weight * weight) for weight in weights]
