"""A training set of several sources, each with a share of the samples."""
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY

from .clip_dataset import STVSRClipDataset
from .clip_options import ClipTrainOptions, MixedOptions
from .items import TrainSample
from .stills_dataset import STVSRStillsDataset
from .train_samples import SampleDataset, check_cache

_LONGEST = 10**8  # samples of an epoch; their order takes 8 bytes each


@DATASET_REGISTRY.register()
class STVSRMixedDataset(SampleDataset):
    """Samples from several sources of clips and stills; see `TrainSamples` for their content.

    Each index is a window of one source. The weights set how many indices a source gets. The length of the set ensures
    that every window of every source occurs at least once: see `shares`.

    Args:
        opt: see `MixedOptions`.

    Attributes:
        sources: the data set of each source.

    Raises:
        FileNotFoundError: paths of the options do not exist; the message names all of them.
        FrameReadError: damaged data, see `frames`.
        ValueError: an unknown or impossible option, or sources that do not match each other.
    """

    options = MixedOptions
    settings: MixedOptions

    def __init__(self, opt: dict[str, Any]):
        super().__init__(opt)
        self.sources = self._open_sources()
        if self.settings.cache:
            needed = sum(source.cache_bytes() for source in self.sources)
            check_cache(needed, self.settings.num_worker_per_gpu, self._where)
        lengths = shares([source.weight for source in self.settings.sources], list(map(len, self.sources)))
        if sum(lengths) > _LONGEST:
            number = int(np.argmax(list(map(len, self.sources)) / np.array(lengths)))
            raise ValueError(
                f'{self._where}: an epoch would have {sum(lengths):,} samples, to contain each of the '
                f'{len(self.sources[number]):,} windows of sources[{number}] once; raise the weight of this source, '
                f'now {self.settings.sources[number].weight:g}, or use fewer windows by clips or frame_stride')
        self._ends = [0, *accumulate(lengths)]  # source k has the indices from its entry to the next

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> TrainSample:
        """Return a sample of a source, with the key that the source gives it."""
        number, window = self.locate(index)
        return self.sources[number][window]

    def locate(self, index: int) -> tuple[int, int]:
        """Return the number of an index's source, and the index in it. Repetitions of a window are consecutive."""
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} does not exist; there are {len(self)} samples')
        number = bisect_right(self._ends, index) - 1
        start, end = self._ends[number:number + 2]
        return number, (index - start) * len(self.sources[number]) // (end - start)

    def _open_sources(self) -> list[STVSRClipDataset | STVSRStillsDataset]:
        key = self.opt.get('key', self.opt.get('phase', '?'))
        sources: list[STVSRClipDataset | STVSRStillsDataset] = []
        missing = []
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

    Their ratio is that of the weights, up to rounding. No source gets fewer samples than it has windows; the source
    with the most windows per weight gets each of them once.

    Args:
        weights: weights of the sources, in any unit.
        num_windows: numbers of windows of the sources.
    """
    per_weight = max(num / weight for num, weight in zip(num_windows, weights, strict=True))
    return [round(per_weight * weight) for weight in weights]
