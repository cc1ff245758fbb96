"""The documentation site: it builds without a warning, is whole, holds every class, and fetches nothing."""
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from conftest import ROOT

import basicsr_stvsr
from basicsr_stvsr.flow import FLOW_REGISTRY

pytest.importorskip('mkdocs', reason="the site needs pip install 'basicsr_stvsr[docs]'")
pytest.importorskip('mkdocstrings', reason="the site needs pip install 'basicsr_stvsr[docs]'")

REGISTRIES = (ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY, METRIC_REGISTRY, FLOW_REGISTRY)
OURS = {f'{entry.__module__}.{entry.__qualname__}': entry for registry in REGISTRIES for _, entry in registry
        if entry.__module__.startswith('basicsr_stvsr.')}


class Page(HTMLParser):
    """What the tests ask of a page.

    Attributes:
        ids: its anchors.
        links: where it leads to.
        fetched: what a browser gets with it.
        text: its words, a line a block, without code.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.text = ''
        self.code = 0  # how many elements of code are open
        self.in_article = False
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get('id'):
            self.ids.add(values['id'])
        if tag == 'a' and values.get('href'):
            self.links.append(values['href'])
        elif tag == 'link' and values.get('rel') not in ('prev', 'next'):
            self.fetched.append(values['href'])
        elif tag in ('script', 'img', 'iframe', 'source', 'video') and values.get('src'):
            self.fetched.append(values['src'])
        self.code += tag in ('code', 'pre', 'script', 'style')
        self.in_article |= tag == 'article'

    def handle_endtag(self, tag: str) -> None:
        self.code -= tag in ('code', 'pre', 'script', 'style')
        self.in_article &= tag != 'article'

    def handle_data(self, data: str) -> None:
        if self.in_article and not self.code:
            self.text += data


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp('site')
    result = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder], cwd=ROOT, capture_output=True,
        text=True, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope='module')
def pages(site) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path) for path in sorted(site.rglob('*.html'))}


def named_pages(entries: list) -> Iterator[str]:
    """The Markdown files of a navigation."""
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else named_pages(value)


def test_the_navigation_is_whole(pages):
    """Every page of docs/ is in it once, and in the site; so are two files of the root."""
    entries = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']
    named = sorted(named_pages(entries))
    expected = [str(path.relative_to(ROOT / 'docs')) for path in (ROOT / 'docs').rglob('*.md')]
    assert named == sorted([*expected, 'repository/CHANGELOG.md', 'repository/CONTRIBUTING.md'])
    assert {name.removesuffix('.md') + '.html' for name in named} <= set(pages)


def test_nothing_comes_from_other_hosts(site, pages):
    fetched = {link for page in pages.values() for link in page.fetched}
    assert len(fetched) > 5
    assert not [link for link in fetched if re.match(r'(\w+:)?//', link)]
    sheets = [path.read_text(encoding='utf-8') for path in site.rglob('*.css')]
    assert sheets and not [sheet for sheet in sheets if re.search(r'(url\(|@import)\s*["\']?(https?:)?//', sheet)]


def test_links_lead_to_pages_and_anchors(site, pages):
    """Those of all pages, of files from outside of docs/ and of the reference too."""
    anchors = {str(path.relative_to(site)): set() for path in site.rglob('*') if path.is_file()}
    anchors |= {name: page.ids for name, page in pages.items()}
    broken = []
    for name, page in pages.items():
        for link in set(page.links) if name != '404.html' else ():
            path, anchor = (unquote(part) for part in urldefrag(link))
            target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
            if not re.match(r'\w+:', link) and (target not in anchors or anchor and anchor not in anchors[target]):
                broken.append(f'{name}: {link}')
    assert not broken


@pytest.mark.parametrize('name', sorted(OURS))
def test_the_reference_has_every_registered_class(pages, name):
    """With its docstring, of which the reference is made."""
    assert OURS[name].__doc__ and any(name in page.ids for file, page in pages.items() if file.startswith('reference/'))


@pytest.mark.parametrize('name', [name for name in basicsr_stvsr.__all__ if name != '__version__'])
def test_the_reference_has_what_the_package_offers(pages, name):
    assert getattr(basicsr_stvsr, name).__doc__
    assert any(place.endswith(f'.{name}') for file, page in pages.items() if file.startswith('reference/')
               for place in page.ids)


def test_the_reference_tells_shapes_and_errors(pages):
    """Sections of docstrings are read as such, not as paragraphs."""
    text = pages['reference/archs.html'].text
    assert 'Raises:' in text and 'Returns:' in text and '(B, 2, 3, H, W)' in text


def test_files_outside_of_docs_are_pages(site, pages):
    assert 'repository/options/train_mbnet.yml.html' in pages['mbnet.html'].links
    assert '../repository/options/train_mbnet.yml.html' in pages['datasets/vimeo90k.html'].links
    page = (site / 'repository' / 'options' / 'train_mbnet.yml.html').read_text(encoding='utf-8')
    assert 'MBNet_x4' in page and 'flow_unit' in page
    assert 'fstrn_small_clips_x4-c56e3bb9pth' in pages['repository/basicsr_stvsr/weights/index.html'].ids
    ablations = pages['repository/options/ablations/index.html'].ids
    assert len([name for name in ablations if name.startswith('mbnet_table')]) == 22


def test_markdown_is_understood(pages):
    """Python's Markdown and that of git hosts differ, above all in what stands in lists; nothing is left as written."""
    left = {name: found for name, page in pages.items() if (found := re.findall(
        r'^\s*(?:[*-] .*|\|.*\||#+ .*|```.*)$|\]\([^)]*\)', page.text, re.MULTILINE))}
    assert not left


def test_search_works_from_the_disk(site, browser):
    """Without a server, in a browser whose system is dark."""
    browser.open(site / 'index.html', dark=True, ready='document.querySelector(".md-search__input") !== null')
    browser.run('{const field = document.querySelector(".md-search__input"); field.focus();'
                'field.value = "deinterlace"; field.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));}')
    browser.wait_for('document.querySelector(".md-search-result__link") !== null')
    assert browser.run('document.querySelector(".md-search-result__link").href').partition('#')[0] == (
        site / 'videos.html').as_uri()
    assert browser.run('document.body.getAttribute("data-md-color-scheme")') == 'slate'


# ---------------------------------------------------------------- scripts/docs_hook.py

@pytest.mark.parametrize('page, link, expected', [
    ('docs/fisr.md', '../options/train_fisr.yml', 'repository/options/train_fisr.yml.md'),
    ('docs/fisr.md', '../README.md#systems', 'repository/README.md#systems'),
    ('docs/fisr.md', 'datasets.md#optical-flow', 'datasets.md#optical-flow'),
    ('docs/datasets/reds.md', '../hoffr.md', '../hoffr.md'),
    ('docs/datasets/reds.md', '../../options', '../repository/options/index.md'),
    ('README.md', 'docs/fisr.md#colour', '../fisr.md#colour'),
    ('README.md', 'options/ablations', 'options/ablations/index.md'),
    ('docs/fisr.md', '../options/missing.yml', '../options/missing.yml'),
    ('docs/fisr.md', 'https://arxiv.org/abs/1912.07213', 'https://arxiv.org/abs/1912.07213'),
])
def test_links_are_turned(page, link, expected):
    hook = runpy.run_path(str(ROOT / 'scripts' / 'docs_hook.py'))
    assert hook['turn_links'](f'see [a page]({link}).', ROOT / page) == f'see [a page]({expected}).'
