from pathlib import Path

import numpy as np
import pytest
import torch

import basicsr_stvsr  # noqa: F401  (registers the classes, and patches what basicsr needs)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder of real clips beside the checkout (train/, eval/); read only."""
    folder = SHARED / 'data'
    if not folder.is_dir():
        pytest.skip(f'no real clips: {folder} does not exist')
    return folder


@pytest.fixture(scope='session')
def load_reference():
    """Loads `refs/<name>.npz`, numeric outputs of the official implementations, as a dict of float tensors."""

    def load(name: str) -> dict[str, torch.Tensor]:
        path = SHARED / 'refs' / f'{name}.npz'
        if not path.is_file():
            pytest.skip(f'no reference outputs: {path} does not exist')
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != 'meta'}

    return load
