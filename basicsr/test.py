"""`python basicsr/test.py -opt options/test_mbnet.yml`: BasicSR's command, with this plugin's classes registered."""
from pathlib import Path

from basicsr_stvsr.test import test_pipeline

if __name__ == '__main__':
    test_pipeline(str(Path(__file__).resolve().parent.parent))
