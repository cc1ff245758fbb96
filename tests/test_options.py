import pytest

from basicsr_stvsr.options import load_options, merge_options, parse_options, set_option


def write(path, text):
    path.write_text(text)
    return str(path)


def test_numbers_without_a_point_are_numbers(tmp_path):
    """PyYAML alone reads 2e-4 as text, which BasicSR then hands to Adam."""
    opt = load_options(write(tmp_path / 'a.yml', 'a: 2e-4\nb: 2.0e-4\nc: -1E5\nd: e4\ne: 12\nf: 1e\n'))
    assert opt == {'a': 2e-4, 'b': 2e-4, 'c': -1e5, 'd': 'e4', 'e': 12, 'f': '1e'}


def test_code_in_a_file_is_not_run(tmp_path):
    target = tmp_path / 'made'
    path = write(tmp_path / 'a.yml', f'a: !!python/object/apply:os.mkdir ["{target}"]\n')
    with pytest.raises(ValueError, match='a.yml cannot be read as an option file'):
        load_options(path)
    assert not target.exists()


def test_a_file_that_is_no_mapping(tmp_path):
    with pytest.raises(ValueError, match='must hold option blocks .* but holds list'):
        load_options(write(tmp_path / 'a.yml', '- 1\n- 2\n'))


def test_base(tmp_path):
    write(tmp_path / 'base.yml', 'name: one\nnet: {type: A, width: 3, parts: [1, 2]}\nloss: {type: L1}\n')
    (tmp_path / 'sub').mkdir()
    path = write(tmp_path / 'sub' / 'b.yml', 'base: ../base.yml\nname: two\nnet: {parts: [5]}\nloss: ~\n')
    assert load_options(path) == {'name': 'two', 'net': {'type': 'A', 'width': 3, 'parts': [5]}, 'loss': None}


def test_a_block_of_another_type_inherits_nothing():
    base = {'net': {'type': 'A', 'width': 3}}
    assert merge_options(base, {'net': {'type': 'B', 'depth': 1}}) == {'net': {'type': 'B', 'depth': 1}}
    assert merge_options(base, {'net': {'type': 'A', 'depth': 1}}) == {'net': {'type': 'A', 'width': 3, 'depth': 1}}
    assert base == {'net': {'type': 'A', 'width': 3}}


def test_set_option():
    opt = {'train': {'optim': {'lr': 1.0}}, 'name': 'a'}
    for assignment in ('train:optim:lr=1e-4', 'name=b', 'train:periods=[10, -1]', 'train:new=~'):
        set_option(opt, assignment)
    assert opt == {'train': {'optim': {'lr': 1e-4}, 'periods': [10, -1], 'new': None}, 'name': 'b'}


@pytest.mark.parametrize('assignment, message', [
    ('lr', "takes block:name=value, but got 'lr'"),
    ('train:optm:lr=1', 'have no block train:optm'),
    ('name:x=1', 'have no block name'),
])
def test_set_option_refuses(assignment, message):
    with pytest.raises(ValueError, match=message):
        set_option({'train': {'optim': {}}, 'name': 'a'}, assignment)


def test_parse_options_fills_in_what_basicsr_expects(tmp_path):
    path = write(tmp_path / 'a.yml', '''
name: x
scale: 4
num_gpu: 0
datasets: {train: {name: t, dataroot_gt: ~/gt}, val: ~, val_2: {name: v}}
logger: {print_freq: 9, save_checkpoint_freq: 9}
path: {experiments_root: ~}
''')
    opt, _ = parse_options(str(tmp_path), True, ['-opt', path, '--force_yml', 'logger:print_freq=3'])
    assert (opt['dist'], opt['rank'], opt['world_size'], opt['is_train']) == (False, 0, 1, True)
    assert list(opt['datasets']) == ['train', 'val_2']
    assert opt['datasets']['val_2']['phase'] == 'val' and opt['datasets']['train']['scale'] == 4
    assert not opt['datasets']['train']['dataroot_gt'].startswith('~')
    assert opt['logger']['print_freq'] == 3
    assert opt['path']['models'] == str(tmp_path / 'experiments' / 'x' / 'models')
    assert isinstance(opt['manual_seed'], int)

    opt, _ = parse_options(str(tmp_path), True, ['-opt', path, '--debug', '--force_yml', 'path:experiments_root=/e'])
    assert opt['name'] == 'debug_x' and opt['logger']['print_freq'] == 1 and opt['path']['models'] == '/e/models'
