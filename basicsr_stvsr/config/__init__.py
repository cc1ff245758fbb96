"""The options of an option file, and their check.

`Block` is the base of all option blocks. A paper adds keys to `TrainOptions` and `DatasetOptions`.
`python -m basicsr_stvsr.config` prints the JSON schema of an option file, for editors.
"""
from .block import Block, Count, Positive
from .check import check_options, has_schema
from .options import DatasetOptions, Options, TrainOptions
from .registered import Flow, Loss, Optimizer

__all__ = [
    'Block', 'Count', 'DatasetOptions', 'Flow', 'Loss', 'Optimizer', 'Options', 'Positive', 'TrainOptions',
    'check_options', 'has_schema']
