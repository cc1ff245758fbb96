"""What an option file may say, and the check that a file says nothing else.

`Block` is the base of all option blocks; `TrainOptions` and `DatasetOptions` are those that a paper adds keys to.
`python -m basicsr_stvsr.config` prints the JSON schema of an option file, for editors.
"""
from .block import Block, Count, Positive
from .check import check_options, has_schema
from .options import DatasetOptions, Options, TrainOptions
from .registered import Flow, Loss, Optimizer

__all__ = [
    'Block', 'Count', 'DatasetOptions', 'Flow', 'Loss', 'Optimizer', 'Options', 'Positive', 'TrainOptions',
    'check_options', 'has_schema']
