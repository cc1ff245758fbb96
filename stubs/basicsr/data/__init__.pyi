from typing import Any

from torch.utils.data import DataLoader, Sampler

def build_dataset(dataset_opt: dict[str, Any]) -> Any: ...  # a class of DATASET_REGISTRY
def build_dataloader(dataset: Any, dataset_opt: dict[str, Any], num_gpu: int = 1, dist: bool = False,
                     sampler: Sampler[Any] | None = None, seed: int | None = None) -> DataLoader[Any]: ...
