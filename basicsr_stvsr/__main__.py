"""`python -m basicsr_stvsr`: the command `stvsr`."""
import sys

from .cli import main

if __name__ == '__main__':
    sys.exit(main())
