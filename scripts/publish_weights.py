"""Makes of a training checkpoint the file that is shared: weights alone, in half precision, named by its own hash.

    python scripts/publish_weights.py experiments/X/models/net_g_latest.pth basicsr_stvsr/weights/MBNet_small_clips_x4
"""
import argparse
import hashlib
import os
import sys
from pathlib import Path

import torch


def publish(checkpoint: Path, name: Path, key: str) -> Path:
    """Writes `<name>-<first 8 digits of its sha256>.pth` and returns its path.

    Args:
        checkpoint: a checkpoint of BasicSR.
        name: path of the result, without hash and suffix.
        key: 'params' or 'params_ema'; saved as 'params'.
    """
    weights = torch.load(checkpoint, map_location='cpu', weights_only=True)
    if key not in weights:
        raise ValueError(f'{checkpoint} holds {", ".join(weights)}, but no {key}')
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights[key].items()}
    name.parent.mkdir(parents=True, exist_ok=True)
    part = name.with_name(f'{name.name}.part')
    torch.save({'params': half}, part)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    path = name.with_name(f'{name.name}-{digest[:8]}.pth')
    os.replace(part, path)
    print(f'{path}: {path.stat().st_size / 1e6:.2f} MB, sha256 {digest}')
    return path


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, help='models/net_g_*.pth of a training')
    parser.add_argument('name', type=Path, help='path of the result, without hash and suffix')
    parser.add_argument('--key', default='params_ema', choices=['params', 'params_ema'], help='which weights')
    args = parser.parse_args()
    try:
        publish(args.checkpoint, args.name, args.key)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
