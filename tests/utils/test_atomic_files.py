"""A file is complete or has its old content; nothing else renames files."""
import ast

import pytest
from conftest import ROOT

from basicsr_stvsr.utils.atomic_files import move_whole, replace_file, whole_file


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'page.html'
    replace_file(path, b'old')
    with pytest.raises(error), whole_file(path) as part:
        part.write_bytes(b'new, but not all of it')
        assert path.read_bytes() == b'old'
        raise error
    assert path.read_bytes() == b'old' and names(tmp_path) == ['page.html']


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / 'page.html'
    with whole_file(path) as part:
        part.write_bytes(b'half')
        assert not path.exists()
        part.write_bytes(b'all')
    assert path.read_bytes() == b'all' and names(tmp_path) == ['page.html']


def test_a_block_that_writes_no_file_is_an_error(tmp_path):
    replace_file(tmp_path / 'page.html', b'old')
    with pytest.raises(FileNotFoundError, match='page.html.part'), whole_file(tmp_path / 'page.html'):
        pass
    assert (tmp_path / 'page.html').read_bytes() == b'old'


@pytest.mark.parametrize('old', ['nothing', 'folder', 'file', 'link'])
def test_a_folder_takes_the_place_of_what_had_its_name(tmp_path, old):
    part, path, other = tmp_path / 'frames.part', tmp_path / 'frames', tmp_path / 'other'
    for folder in part, other:
        folder.mkdir()
        (folder / f'in_{folder.name}').touch()
    if old == 'folder':
        path.mkdir()
        (path / 'old').touch()
    elif old == 'file':
        path.touch()
    elif old == 'link':
        path.symlink_to(other)
    move_whole(part, path)
    assert names(path) == ['in_frames.part'] and not path.is_symlink() and not part.exists()
    assert names(other) == ['in_other']  # what a link pointed to stays


def is_rename(node: ast.AST) -> bool:
    """Whether a node is os.replace(a, b), os.rename(a, b), path.rename(b) or path.replace(b); a string's has two."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    of_os = isinstance(node.func.value, ast.Name) and node.func.value.id in ('os', 'shutil')
    return node.func.attr in ('rename', 'renames', 'move') or (
        node.func.attr == 'replace' and not node.keywords and (of_os or len(node.args) == 1))


# Renames that need no complete file: an old folder is moved away; images are renamed in a folder that is renamed itself
OTHER_RENAMES = 'new_folder.py', 'job.py'


def test_only_this_module_renames_files():
    found = [f'{path.relative_to(ROOT)}:{node.lineno}' for path in sorted((ROOT / 'basicsr_stvsr').rglob('*.py'))
             if path.name not in ('atomic_files.py', *OTHER_RENAMES)
             for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if is_rename(node)]
    assert not found, 'use utils.atomic_files, which also syncs and cleans up'
