"""`python -m basicsr_stvsr`: the command `stvsr`."""
import sys

from stvsr.main import main

if __name__ == '__main__':
    sys.exit(main())
