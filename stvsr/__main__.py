"""`python -m stvsr`: the command `stvsr`."""
import sys

from .main import main

if __name__ == '__main__':
    sys.exit(main())
