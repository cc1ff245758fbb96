"""Bars of progress are made in one place."""
import io
import re
from contextlib import redirect_stderr

import pytest
from conftest import ROOT

from basicsr_stvsr.utils.progress import progress_bar, say


def shown(**options) -> str:
    with redirect_stderr(io.StringIO()) as terminal, progress_bar(**options) as bar:
        bar.update(3)
        say('a line')
        bar.update(0)
    return terminal.getvalue()


@pytest.mark.parametrize(('options', 'pattern'), [
    ({'unit': 'frame', 'total': 10}, r'3/10 '),
    ({'unit': 'frame', 'total': 10, 'done': 2, 'about': 'out.mp4'}, r'out\.mp4: .*5/10 '),
    ({'unit': 'frame'}, r'3frame '),
    ({'unit': 'B', 'total': 5_000_000, 'done': 2_499_997}, r'2\.50M/5\.00M'),
    ({'unit': 'frame', 'items': range(7)}, r'3/7 '),
])
def test_a_bar(options, pattern):
    text = shown(**options)
    assert re.search(pattern, text) and '\ra line\n' in re.sub(' +', '', text).replace('aline', 'a line')


def test_a_hidden_bar_leaves_the_messages():
    assert shown(unit='frame', total=10, is_shown=False).strip('\r ') == 'a line\n'


def test_only_one_module_makes_bars():
    """The line of a training fits its words into the terminal, so that it draws itself."""
    users = {path.relative_to(ROOT).as_posix() for folder in ('basicsr_stvsr', 'scripts', 'stvsr')
             for path in (ROOT / folder).rglob('*.py')
             if re.search(r'\btqdm\(|tqdm\.write', path.read_text(encoding='utf-8'))}
    assert users == {'basicsr_stvsr/utils/progress.py', 'basicsr_stvsr/training/log.py'}
