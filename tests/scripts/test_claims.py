"""The variants of the claims, their plan, and the statistics of their scores."""
import importlib
import json

import pytest
from conftest import ROOT

from basicsr_stvsr.config.loading import load_options


@pytest.fixture
def scripts(monkeypatch):
    """Imports a script of scripts/training."""
    monkeypatch.syspath_prepend(ROOT / 'scripts/training')
    return importlib.import_module


def test_every_file_of_the_claims_is_a_variant(scripts):
    claims = scripts('run_claims').CLAIMS
    stages = {stage.options for variants in claims.values() for variant in variants for stage in variant.stages}
    assert stages >= {f'claims/{file.stem}' for file in (ROOT / 'options/claims').glob('*.yml')}
    assert sum(len(variants) for variants in claims.values()) == 16
    for variants in claims.values():
        assert 'the paper' in variants[0].title
        assert all(sum(stage.share for stage in variant.stages) == 1 for variant in variants)


def test_columns_are_metrics_of_the_files(scripts):
    columns, claims = scripts('claims_table').COLUMNS, scripts('run_claims').CLAIMS
    for claim, variants in claims.items():
        for variant in variants:
            options = load_options(str(ROOT / 'options' / f'{variant.stages[-1].options}.yml'))
            sets = {dataset['name'] for name, dataset in options['datasets'].items() if name.startswith('val')}
            assert {column.dataset for column in columns[claim]} <= sets
            assert {column.metric for column in columns[claim]} <= {
                name for name, metric in options['val']['metrics'].items() if metric}


def test_the_same_command_goes_on(scripts, tmp_path, monkeypatch):
    """A stage that variants share is trained once per seed, and what has a score is not run again."""
    run_claims = scripts('run_claims')
    calls = []

    def train(self, stage, kind, steps, name, flag, *, seed=0, start=None):
        calls.append((kind, name, steps, start and start.parents[1].name))
        weights = self.output / 'experiments' / name / 'models' / 'net_g_latest.pth'
        if kind == 'train':
            weights.parent.mkdir(parents=True)
            weights.touch()
        return 'time        0.5 s per iteration, 0.0 s'

    monkeypatch.setattr(run_claims.Campaign, 'train', train)
    monkeypatch.setattr(run_claims.Campaign, 'test', lambda self, stage, weights: [('vid4', {})])
    campaign = run_claims.Campaign(tmp_path, minutes=10)
    campaign.run(['adaptive'], [0])
    first = 'train_vsrresnet_small_seed0'
    assert calls == [
        ('check', first, 1, None), ('check', 'claims_adaptive_adaptive_seed0', 1, None),
        ('check', 'claims_adaptive_plain_seed0', 1, None), ('train', first, 600, None),
        ('train', 'claims_adaptive_adaptive_seed0', 600, first), ('train', 'claims_adaptive_plain_seed0', 600, first)]
    campaign.run(['adaptive'], [0, 1])
    assert [name for _, name, *_ in calls[6:]] == [name.replace('seed0', 'seed1') for _, name, *_ in calls[3:6]]
    assert [row['seed'] for row in json.loads((tmp_path / 'scores.json').read_text())] == [0, 0, 1, 1]


def clips(*values: float) -> dict:
    return {f'clip{i}': {'psnr': {'all': value}} for i, value in enumerate(values)}


def test_statistics_by_hand(scripts):
    """Differences of three clips, 1, 2 and 3: mean 2, t = 2 / (1 / sqrt(3)), p = 0.0742 with two degrees of freedom."""
    score = scripts('claims_table').score
    paper = [clips(20, 30, 40), clips(22, 32, 42)]
    found = score([clips(21, 32, 43), clips(23, 34, 45)], paper, 'psnr', 'all')
    assert found.seeds == [32, 34] and found.difference == 2 and found.num_clips == 3
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert score(paper, None, 'psnr', 'all').difference is None


def test_the_table(scripts):
    claims_table = scripts('claims_table')
    rows = [{'claim': 'fstrn', 'variant': variant.title, 'seed': seed, 'steps': {'a': 1000},
             'sets': {'vid4': {f'clip{i}': {'psnr_y': {'all': 24 + i + number * (i + 1) + seed}} for i in range(3)}}}
            for number, variant in enumerate(scripts('run_claims').CLAIMS['fstrn']) for seed in (0, 1)]
    found = json.loads(json.dumps(claims_table.summary(rows)))
    begin, end = '<!-- table {}, by scripts/training/claims_table.py -->\n', '<!-- end of table -->\n'
    text = claims_table.page(f'{begin.format("fstrn")}old\n{end}{begin.format("fisr")}{end}', found)
    assert '| FRB, LRL and CRL (the paper) | 2 | 1,000 | 25.50 ± 0.71 |' in text
    assert '| 3x3x3 blocks | 2 | 1,000 | 27.50 ± 0.71 (+2.00, p 0.074) |' in text
    assert 'old' not in text and 'Not run yet.' in text
    assert len(claims_table.draw(found).axes) == 1


def test_the_page_shows_the_stored_scores(scripts):
    """If this fails: python scripts/training/claims_table.py"""
    claims_table = scripts('claims_table')
    text = claims_table.PAGE.read_text()
    assert claims_table.page(text, json.loads(claims_table.SUMMARY.read_text())) == text
    assert text.count('<!-- table') == len(claims_table.COLUMNS)
