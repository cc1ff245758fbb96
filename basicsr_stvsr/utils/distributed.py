"""Distributed processes: BasicSR's launchers, with or without GPUs."""
import datetime
import gc
import os
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

T = TypeVar('T')

# Validation distributes clips over processes, and processes without a clip wait for the others.
TIMEOUT = datetime.timedelta(hours=2)


def leave_dist() -> None:
    """Leave the process group, if there is one.

    Call this after releasing all networks. A DistributedDataParallel reducer that outlives the group destroys it later
    while holding Python's lock. A gloo thread may wait for that lock, and the process then hangs.
    """
    if dist.is_initialized():
        gc.collect()  # networks are parts of reference cycles
        dist.destroy_process_group()


def on_first_rank(action: Callable[[], T]) -> T:
    """Call `action` on rank 0 only, and return its result, or raise its error, on every rank.

    If it fails, all ranks end together instead of waiting for rank 0. With a single process, just call it.
    """
    if not dist.is_initialized():
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return cast(T, outcome[0])


def gather(value: T) -> list[T]:
    """Return the values of all ranks on every rank; they must be picklable."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank; all ranks get the same answer."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor(float(flag), device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def init_dist(launcher: str, backend: str | None = None, port: int | None = None) -> None:
    """Join the process group of the job.

    BasicSR's version supports only nccl, and divides by the number of GPUs, so it fails without a GPU.

    Args:
        launcher: 'pytorch' (torchrun) or 'slurm'.
        backend: 'nccl' or 'gloo'; None: nccl if there are GPUs.
        port: of the first node, slurm only; None: MASTER_PORT of the environment, else 29500.
    """
    if launcher == 'slurm':
        rank, num_gpus = int(os.environ['SLURM_PROCID']), max(torch.cuda.device_count(), 1)
        first_node = subprocess.run(
            ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']],
            check=True, capture_output=True, text=True).stdout.split()[0]
        os.environ.update(
            MASTER_ADDR=first_node, MASTER_PORT=str(port or os.environ.get('MASTER_PORT', 29500)),
            RANK=str(rank), WORLD_SIZE=os.environ['SLURM_NTASKS'], LOCAL_RANK=str(rank % num_gpus))
    elif launcher != 'pytorch':
        raise ValueError(f"launcher must be 'pytorch' or 'slurm', but got {launcher!r}")
    backend = backend or ('nccl' if torch.cuda.is_available() else 'gloo')
    if backend == 'nccl':
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', os.environ['RANK'])) % torch.cuda.device_count())
    store, rank, world_size = next(rendezvous('env://', timeout=TIMEOUT))
    # torchrun keeps one store for all attempts: restarted processes would find the addresses of dead ones.
    attempt = f'attempt_{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}'
    store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]  # torch has it, but does not list it
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
