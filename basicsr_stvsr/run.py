"""Run any BasicSR script with the plugin registered: `python -m basicsr_stvsr.run PATH/TO/basicsr/train.py -opt …`.

BasicSR does not discover plugins. This command wraps a script in the same way as `coverage run`.
"""
import runpy
import sys
from pathlib import Path

import basicsr_stvsr  # noqa: F401  (registers the classes)


def main() -> None:
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        seen = f'no such file: {sys.argv[1]}' if len(sys.argv) > 1 else 'no script given'
        sys.exit(f'usage: python -m basicsr_stvsr.run SCRIPT [its arguments] ({seen})')
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as if the script had been started directly
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    main()
