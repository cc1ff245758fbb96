"""`python basicsr/train.py -opt options/train_mbnet.yml`: BasicSR's command, with this plugin's classes registered."""
from pathlib import Path

from basicsr_stvsr.train import train_pipeline

if __name__ == '__main__':
    train_pipeline(str(Path(__file__).resolve().parent.parent))
