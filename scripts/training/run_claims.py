"""Test the claims of the five papers: train variants of small networks for the same time, score and compare them.

    python scripts/training/run_claims.py --output claims
    python scripts/training/run_claims.py --output claims --only fstrn fisr --seeds 0 --minutes 5

Run it in the root of the checkout, where datasets/ is. The files of the variants are in options/claims. First, each
stage of a variant measures its time per iteration; the plan, claims/plan.json, gives it as many steps as fit into its
share of `--minutes`. All seeds use the same plan. Then every variant is trained and tested for the first seed, and so
on. Stop it at any time: the same command goes on where it stopped. The scores are kept in claims/scores.json.
`claims_table.py` makes the table and the figure of docs/claims.md from them.
"""
import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from commands import run_logged, schedule, seconds_per_iteration

from basicsr_stvsr.config.loading import load_options
from basicsr_stvsr.utils.atomic_files import replace_file

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ROOT / 'options'


@dataclass(frozen=True)
class Stage:
    """A training file, without folder and suffix, and its share of the variant's time."""
    options: str
    share: float = 1.0


@dataclass(frozen=True)
class Variant:
    title: str
    stages: tuple[Stage, ...]


CLAIMS: dict[str, tuple[Variant, ...]] = {  # the paper's variant is the first
    'mbnet': (
        Variant('VFI feedback (the paper)', (Stage('claims/mbnet_vfi'),)),
        Variant('no interaction', (Stage('claims/mbnet_none'),)),
        Variant('VSR feedback', (Stage('claims/mbnet_vsr'),)),
        Variant('VFI feedback, without the VSR feature', (Stage('claims/mbnet_no_feature'),)),
        Variant('three rounds', (Stage('claims/mbnet_three_rounds'),)),
        Variant('VSR, then VFI', (Stage('claims/mbnet_sequence_vsr', 0.5), Stage('claims/mbnet_sequence', 0.5))),
    ),
    'fisr': (
        Variant('temporal loss (the paper)', (Stage('claims/fisr_temporal'),)),
        Variant('loss on the frames alone', (Stage('claims/fisr_no_temporal'),)),
    ),
    'fstrn': (
        Variant('FRB, LRL and CRL (the paper)', (Stage('claims/fstrn_frb'),)),
        Variant('3x3x3 blocks', (Stage('claims/fstrn_c3d'),)),
        Variant('FRB without LRL and CRL', (Stage('claims/fstrn_no_residuals'),)),
    ),
    'hoffr': (
        Variant('recurrence and two branches (the paper)', (
            Stage('train_hoffr_small_flow', 0.2), Stage('claims/hoffr_full', 0.8))),
        Variant('no recurrence', (Stage('train_hoffr_small_flow', 0.2), Stage('claims/hoffr_no_recurrence', 0.8))),
        Variant('no deblurring branch', (Stage('train_hoffr_small_flow', 0.2), Stage('claims/hoffr_no_db', 0.8))),
    ),
    'adaptive': (
        Variant('adaptive losses (the paper)', (
            Stage('train_vsrresnet_small', 0.5), Stage('claims/adaptive_adaptive', 0.5))),
        Variant('the same losses everywhere', (
            Stage('train_vsrresnet_small', 0.5), Stage('claims/adaptive_plain', 0.5))),
    ),
}


@dataclass
class Campaign:
    """All runs of one output folder.

    Attributes:
        output: folder of experiments/, logs/, plan.json and scores.json.
        minutes: of training, for each variant and seed.
        changes: options of all trainings, as --force_yml takes them.
        steps: steps of every stage, for a trial; None: by the plan.
    """
    output: Path
    minutes: float
    changes: list[str] = field(default_factory=list)
    steps: int | None = None

    def run(self, claims: list[str], seeds: list[int]) -> None:
        variants = [(claim, variant) for claim in claims for variant in CLAIMS[claim]]
        plan = self.plan([stage for _, variant in variants for stage in variant.stages])
        for seed in seeds:
            for claim, variant in variants:
                if not any(row['claim'] == claim and row['variant'] == variant.title and row['seed'] == seed
                           for row in self.scores()):
                    print(f'{claim}, seed {seed}: {variant.title}', flush=True)
                    self.run_variant(claim, variant, seed, plan)

    def plan(self, stages: list[Stage]) -> dict[str, int]:
        """Return the steps of each stage, by its options; those of an earlier call stay."""
        file = self.output / 'plan.json'
        plan: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        for stage in stages:
            if stage.options not in plan:
                printed = '' if self.steps else self.train(stage, 'check', 1, self.name(stage, 0), '--check')
                plan[stage.options] = self.steps or max(
                    1, int(60 * self.minutes * stage.share / seconds_per_iteration(printed)))
                write(file, plan)
        return plan

    def run_variant(self, claim: str, variant: Variant, seed: int, plan: dict[str, int]) -> None:
        weights = None
        for stage in variant.stages:
            name = self.name(stage, seed)
            before, weights = weights, self.output / 'experiments' / name / 'models' / 'net_g_latest.pth'
            if not weights.exists():  # variants share stages
                self.train(stage, 'train', plan[stage.options], name, '--auto_resume', seed=seed, start=before)
        assert weights is not None
        steps = {stage.options: plan[stage.options] for stage in variant.stages}
        write(self.output / 'scores.json', [*self.scores(), {
            'claim': claim, 'variant': variant.title, 'seed': seed, 'steps': steps,
            'sets': dict(self.test(variant.stages[-1], weights))}])

    def train(self, stage: Stage, kind: str, steps: int, name: str, flag: str, *, seed: int = 0,
              start: Path | None = None) -> str:
        changes = [*schedule(steps), f'name={name}', f'manual_seed={seed}', 'val=~', *(
            f'datasets:{other}=~' for other in self.validation_sets(stage)), 'logger:use_tb_logger=false']
        if start:
            changes += [f'path:pretrain_network_g={start}', 'path:param_key_g=params_ema']
        elif str(self.options(stage)['path']['pretrain_network_g']).startswith('experiments/'):
            changes.append('path:pretrain_network_g=~')  # of the stage before, which does not exist yet
        command = ['-m', 'basicsr_stvsr.train', '-opt', self.file(stage), flag, '--force_yml', *changes, *self.changes]
        return run_logged(command, self.output / 'logs' / f'{name}_{kind}.log', self.output)

    def test(self, stage: Stage, weights: Path) -> Iterator[tuple[str, Any]]:
        """Score weights on the validation sets of the training file; yield the scores of each clip of a set."""
        options = self.options(stage)
        name = f'test_{weights.parents[1].name}'
        sets = {f'test_{i}': options['datasets'][key] for i, key in enumerate(self.validation_sets(stage))}
        file = self.output / 'tests' / f'{name}.yml'
        write(file, {
            'name': name, 'datasets': sets, 'path': {'pretrain_network_g': str(weights), 'param_key_g': 'params_ema'},
            'val': {'metrics': options['val']['metrics'], 'overlap': options['val'].get('overlap', 'last')},
            **{key: options[key] for key in ('model_type', 'scale', 'num_gpu', 'manual_seed', 'network_g')}})
        run_logged(['-m', 'basicsr_stvsr.test', '-opt', file], self.output / 'logs' / f'{name}.log', self.output)
        for dataset in sets.values():
            result = self.output / 'results' / name / f'{dataset["name"]}.json'
            yield dataset['name'], json.loads(result.read_text())['clips']

    def validation_sets(self, stage: Stage) -> list[str]:
        return [key for key, value in self.options(stage)['datasets'].items() if key.startswith('val') and value]

    @staticmethod
    def file(stage: Stage) -> Path:
        return OPTIONS / f'{stage.options}.yml'

    def options(self, stage: Stage) -> dict[str, Any]:
        return load_options(str(self.file(stage)))

    @staticmethod
    def name(stage: Stage, seed: int) -> str:
        return f'{stage.options.replace("/", "_")}_seed{seed}'

    def scores(self) -> list[dict[str, Any]]:
        file = self.output / 'scores.json'
        return json.loads(file.read_text()) if file.exists() else []


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1) if file.suffix == '.json' else yaml.safe_dump(content, sort_keys=False)
    replace_file(file, text.encode())


def link(name: Path, target: Path) -> None:
    """Make the folders that option files name available where the trainings run."""
    if not name.is_symlink():
        name.symlink_to(target.resolve())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--datasets', type=Path, default=ROOT / 'datasets',
                        help='folder of train/, vid4_GT.lmdb, middlebury.lmdb and ucf101.lmdb (default: datasets)')
    parser.add_argument('--minutes', type=float, default=20, help='of each training (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--only', nargs='+', choices=CLAIMS, default=list(CLAIMS), help='claims (default: all)')
    parser.add_argument('--steps', type=int, help='steps of every stage, for a trial (default: by --minutes)')
    parser.add_argument('--force_yml', nargs='+', default=[], help='more options of all trainings')
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    link(args.output / 'datasets', args.datasets)
    link(args.output / 'basicsr_stvsr', ROOT / 'basicsr_stvsr')
    try:
        Campaign(args.output.resolve(), args.minutes, args.force_yml, args.steps).run(args.only, args.seeds)
    except RuntimeError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
