"""Convert the weights that FISR's authors trained with TensorFlow to a BasicSR checkpoint of FISRNet.

    python scripts/convert_weights/fisr_from_tensorflow.py FISRnet_exp1/FISRnet-122000 FISRnet-122000.pth

TensorFlow is not needed. google-crc32c is (`pip install google-crc32c`), to check that the files are intact.
The authors (https://github.com/JihyongOh/FISR) give their code and weights "free for research and education use only".
This also covers converted weights; the Apache licence of this package does not.
"""
import argparse
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from fisr_weights import from_tensorflow, is_weight
from tensorflow_bundle import TensorFlowBundle

import basicsr_stvsr  # noqa: F401  (registers the classes, and patches what basicsr needs)
from basicsr_stvsr.archs.fisr_arch import FISRNet
from basicsr_stvsr.utils.atomic_files import replace_file
from stvsr.errors import EXIT_FAILED, USER_ERRORS, user_errors


def convert(checkpoint: Path, output: Path, *, force: bool = False) -> None:
    """Write `{'params': weights}` to `output` atomically, and print its contents.

    Args:
        checkpoint: a TensorFlow checkpoint (the common prefix of its file names, or one of the files), or an .npz file
            of arrays with TensorFlow's names.
        output: the .pth file.
        force: replace `output` if it exists.

    Raises:
        FileExistsError: `output` exists, and `force` is not set.
        FileNotFoundError: the checkpoint or a part of it is missing.
        ValueError: the checkpoint is damaged, or does not hold exactly the weights of FISR.
    """
    if output.suffix != '.pth':
        raise ValueError(f'{output}: expected a name that ends in .pth')
    if output.exists() and not force:
        raise FileExistsError(f'{output} exists; --force replaces it')
    weights, others = read_npz(checkpoint) if checkpoint.suffix == '.npz' else read_bundle(checkpoint)
    with torch.device('meta'):
        net = FISRNet()
    try:
        state = from_tensorflow(weights, net)
    except ValueError as error:
        raise ValueError(f'{checkpoint}: {error}') from error
    output.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({'params': state}, buffer)
    replace_file(output, buffer.getbuffer())
    print(f'Wrote {output}: {len(state)} variables, {sum(value.numel() for value in state.values()):,} parameters, '
          'free for research and education use only.')
    if others:
        print(f'Skipped {len(others)} other variables: {count_kinds(others)}.')


def read_bundle(checkpoint: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the weights by name, and the names of other entries, which are not read."""
    bundle = TensorFlowBundle(checkpoint)
    return {name: bundle[name] for name in bundle if is_weight(name)}, [name for name in bundle if not is_weight(name)]


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the same as `read_bundle`, from {name: array}."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    try:
        with np.load(path) as arrays:
            weights = {name: arrays[name] for name in arrays if is_weight(name)}
            return weights, [name for name in arrays if name not in weights]
    except Exception as error:  # the type of NumPy's error depends on the damaged byte
        raise ValueError(f'{path} is not an .npz file of arrays, or is damaged: {error}') from error


def count_kinds(names: Iterable[str]) -> str:
    """Summarise ['a/w/Adam', 'b/w/Adam', 'Variable'] as '2 Adam, 1 Variable'."""
    kinds = Counter(name.rpartition('/')[2] for name in names)
    return ', '.join(f'{count} {kind}' for kind, count in kinds.most_common(8)) + (', ...' if len(kinds) > 8 else '')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog='The weights are "free for research and education use only".')
    parser.add_argument('checkpoint', type=Path,
                        help='of TensorFlow, such as FISRnet_exp1/FISRnet-122000, or an .npz file of arrays by name')
    parser.add_argument('output', type=Path, help='the .pth file to write')
    parser.add_argument('--force', action='store_true', help='replace the output if it exists')
    args = parser.parse_args()
    with user_errors((*USER_ERRORS, ImportError), code=EXIT_FAILED):
        convert(args.checkpoint, args.output, force=args.force)
