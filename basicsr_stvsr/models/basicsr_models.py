"""BasicSR's own models with the data sets of this package."""
from collections.abc import Iterable
from typing import Any, cast

from basicsr.models.base_model import BaseModel
from basicsr.models.video_recurrent_model import VideoRecurrentModel

from ..data.clip_dataset import STVSRTestDataset
from ..data.sample_order import BuiltDataset
from .clip_model import color_of


def check_data(model: BaseModel, datasets: Iterable[BuiltDataset]) -> None:
    """Check before a run that one of BasicSR's models can take its data, if they come from this package.

    Only VideoRecurrentModel takes clips in and clips out.

    Raises:
        ValueError: it cannot; the message says what to change.
    """
    if not type(model).__module__.startswith('basicsr.'):
        return
    name = model.opt['model_type']
    for dataset in datasets:
        if not hasattr(dataset, 'temporal_scale'):  # BasicSR's
            continue
        where, kind = f'datasets.{dataset.opt.get("key", dataset.opt["name"])}', dataset.opt.get('type')
        if not isinstance(model, VideoRecurrentModel):
            raise ValueError(f"{where}: {name} takes single frames or windows of BasicSR's data sets, but {kind} "
                             'gives clips; set model_type: STVSRModel, which trains the same networks')
        if cast(Any, dataset).temporal_scale != 1:
            raise ValueError(f'{where}: {name} needs all LR frames; set temporal_scale: 1')
        if color_of(dataset) != 'rgb':
            raise ValueError(f'{where}: {name} takes RGB, but color is {color_of(dataset)}; set color: rgb')
        if isinstance(dataset, STVSRTestDataset) and dataset.gt_reader is None:
            raise ValueError(f'{where}: {name} needs the ground truth; set dataroot_gt')
