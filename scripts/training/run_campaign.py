"""Train all small networks side by side within a few minutes of one GPU.

    python scripts/training/run_campaign.py --data campaign/data --output results/campaign --minutes 9

Each system trains in its own process, stage after stage; small networks leave most of a large GPU idle otherwise.
First, every training measures the time of its step while the others do the same. Its schedule then gets as many steps
as fit into its share of the time, so that the learning rate reaches its end. A training that is late is stopped, and
saves. The weights go to <output>/weights, in half precision.
"""
import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from commands import run_logged, schedule, seconds_per_iteration

from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.zoo.table import WEIGHTS, ZOO

ROOT = Path(__file__).resolve().parents[2]
SPARE = 0.8  # share of the time that steps get; start-up and slower phases need the rest


@dataclass(frozen=True)
class Stage:
    """A training file, its share of the time, and the model of the zoo that it starts from."""
    options: str
    share: float = 1.0
    start: str | None = None


SYSTEMS: dict[str, list[Stage]] = {
    'mbnet': [Stage('train_mbnet_small', 0.6, 'mbnet-small'), Stage('train_mbnet_small_vsr', 0.4)],
    'fstrn': [Stage('train_fstrn_small_stage2', start='fstrn-small')],
    'fisr': [Stage('train_fisr_small')],
    'hoffr': [Stage('train_hoffr_small_flow', 0.15), Stage('train_hoffr_small', 0.85)],
    'adaptive_gan': [Stage('train_vsrresnet_small', 0.6), Stage('train_adaptive_gan_small', 0.4)],
}


@dataclass(frozen=True)
class Campaign:
    """What all trainings share.

    Attributes:
        output: folder of experiments/, weights/ and logs/.
        changes: options of all trainings, as --force_yml takes them.
        batch: factor of the batch size.
        flow: LMDB of MBNet's teacher, if there is one.
        steps: steps of each training; None: as many as fit.
    """
    output: Path
    changes: Sequence[str]
    batch: int
    flow: Path | None
    steps: int | None

    def train(self, stage: Stage, seconds: float) -> Path:
        """Train one stage. Returns its newest checkpoint."""
        file = ROOT / 'options' / f'{stage.options}.yml'
        options = load_options(str(file))
        changes = [*self.changes_for(stage, options), *self.changes]
        steps = self.steps or self.steps_within(seconds, stage, file, changes)
        changes += schedule(steps)
        self.run(stage, 'train', file, changes, timeout=None if self.steps else seconds)
        return self.output / 'experiments' / options['name'] / 'models' / 'net_g_latest.pth'

    def changes_for(self, stage: Stage, options: dict) -> list[str]:
        train_set = options['datasets']['train']
        changes = [f'datasets:train:batch_size_per_gpu={self.batch * train_set["batch_size_per_gpu"]}']
        if train_set.get('dataroot_flow'):
            changes += ([f'datasets:train:dataroot_flow={json.dumps(str(self.flow))}'] if self.flow else
                        ['datasets:train:dataroot_flow=~', 'train:flow_sup_opt=~'])
        if stage.start:
            changes += [f'path:pretrain_network_g={WEIGHTS / ZOO[stage.start].weights}', 'path:param_key_g=params']
        return changes

    def steps_within(self, seconds: float, stage: Stage, file: Path, changes: Sequence[str]) -> int:
        start = time.monotonic()
        output = self.run(stage, 'check', file, changes, '--check')
        return max(1, int(SPARE * (seconds - (time.monotonic() - start)) / seconds_per_iteration(output)))

    def run(self, stage: Stage, kind: str, file: Path, changes: Sequence[str], *flags: str,
            timeout: float | None = None) -> str:
        """Train in the output folder, where experiments/ is. Returns what the command printed; `logs/` has it too."""
        log = self.output / 'logs' / f'{stage.options}_{kind}.log'
        command = ['-m', 'basicsr_stvsr.train', '-opt', file, *flags, '--force_yml', *changes]
        return run_logged(command, log, self.output, timeout=timeout)

    def publish(self, checkpoint: Path) -> str:
        command = [sys.executable, '-m', 'basicsr_stvsr', 'zoo', 'publish', str(checkpoint), '--half',
                   '--key', 'params_ema', '--into', str(self.output / 'weights')]
        result = subprocess.run(command, cwd=self.output, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f'{checkpoint}: {result.stderr.strip()}')
        return result.stdout.strip()

    def train_system(self, name: str, minutes: float) -> str:
        for stage in SYSTEMS[name]:
            checkpoint = self.train(stage, 60 * minutes * stage.share)
        return self.publish(checkpoint)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, required=True, help='folder of clips')
    parser.add_argument('--flow', type=Path, help='LMDB of precompute_flow.py (default: no teacher for MBNet)')
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--minutes', type=float, default=9, help='of the whole campaign (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=4, help='factor of the batch sizes (default: %(default)s)')
    parser.add_argument('--steps', type=int, help='steps of each training, for a trial (default: as many as fit)')
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=list(SYSTEMS), help='(default: all)')
    parser.add_argument('--force_yml', nargs='+', default=[], help='more options of all trainings')
    args = parser.parse_args()

    (args.output / 'weights').mkdir(parents=True, exist_ok=True)
    changes = [f'datasets:train:dataroot_gt={json.dumps(str(args.data.resolve()))}', 'datasets:val=~', 'val=~',
               'logger:use_tb_logger=false', 'datasets:train:num_worker_per_gpu=2', *args.force_yml]
    campaign = Campaign(args.output.resolve(), changes, args.batch, args.flow and args.flow.resolve(), args.steps)
    failed = 0
    with ThreadPoolExecutor(len(args.systems)) as pool:
        results = {name: pool.submit(campaign.train_system, name, args.minutes) for name in args.systems}
        for name, result in results.items():
            try:
                print(f'{name}: {result.result()}')
            except RuntimeError as error:  # the other systems go on
                failed += 1
                print(f'{name}: failed: {error}', file=sys.stderr)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
