"""Compare the behaviour of two revisions: networks, trainings, restored videos, messages. They must agree bit for bit.

    python scripts/benchmark/compare_behaviour.py HEAD~1 .
    python scripts/benchmark/compare_behaviour.py v1 . --parts networks messages

record_behaviour.py records both on this machine, each in a separate worktree, so that rounding of another CPU does not
matter. Prints the differences; the exit code is 1 if there are any. The revision `.` is the current checkout, including
uncommitted changes.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from compare_revisions import worktree

PARTS = 'networks', 'training', 'restoring', 'messages'
RECORDER = Path(__file__).resolve().parent / 'record_behaviour.py'


def record(checkout: Path, folder: Path, parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the behaviour of a checkout, by part and name."""
    path = os.pathsep.join(filter(None, (str(checkout), os.environ.get('PYTHONPATH'))))
    subprocess.run([sys.executable, str(RECORDER), str(folder), *parts], cwd=checkout, check=True,
                   env=os.environ | {'PYTHONPATH': path})
    return {part: json.loads((folder / f'{part}.json').read_text()) for part in parts}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a line for each name whose values differ, or that one side lacks."""
    lines = []
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new or name not in old:
            lines.append(f'{name}: only in the {"old" if name in old else "new"} revision')
        elif old[name] != new[name]:
            lines.append(f'{name}:\n    old {json.dumps(old[name])}\n    new {json.dumps(new[name])}')
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old', help='revision')
    parser.add_argument('new', help='revision')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='(default: all)')
    args = parser.parse_args(arguments)
    with ExitStack() as stack:
        records = []
        for revision in (args.old, args.new):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            records.append(record(stack.enter_context(worktree(revision)), folder, args.parts))
    old, new = records
    num_different = 0
    for part in args.parts:
        found = differences(old[part], new[part])
        num_different += len(found)
        print(f'{part}: {len(new[part])} records, {len(found)} differ')
        print('\n'.join(f'  {line}' for line in found))
    return int(num_different > 0)


if __name__ == '__main__':
    sys.exit(main())
