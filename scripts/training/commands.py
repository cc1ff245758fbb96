"""Run trainings and tests as processes of their own, with a log for each."""
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_logged(command: Sequence[str | Path], log: Path, cwd: Path, *, timeout: float | None = None) -> str:
    """Run `python *command`, and return what it printed. The file `log` has it too.

    Args:
        command: arguments of python.
        log: replaced.
        cwd: where to run; a training makes experiments/ there.
        timeout: seconds after which a training is stopped. It finishes its step, and saves.

    Raises:
        RuntimeError: the command failed; the message names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'w', encoding='utf-8') as output:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=cwd, stdout=output,
                                   stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    if code not in (0, os.EX_TEMPFAIL):
        raise RuntimeError(f'{log.stem} ended with code {code}; see {log}')
    return log.read_text(encoding='utf-8')


def seconds_per_iteration(output: str) -> float:
    """Return the time per iteration that `--check` printed."""
    return float(re.search(r'^time +([\d.e-]+) s per iteration', output, re.MULTILINE)[1])


def schedule(steps: int) -> list[str]:
    """Return options, as --force_yml takes them, of a training of so many steps in one period."""
    return [f'train:total_iter={steps}', f'train:scheduler:periods=[{steps}]',
            f'train:warmup_iter={min(100, steps // 10) or -1}']
