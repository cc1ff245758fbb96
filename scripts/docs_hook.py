"""mkdocs hook (named in mkdocs.yml) that adds files outside docs/ to the site if the documentation links to them.

Pages link to `../options/train_fstrn.yml`, as git hosts expect. In the site, that file becomes a page in repository/,
and the link points there. The same holds for links in such pages. A folder becomes one page with all its files.
CONTRIBUTING.md and CHANGELOG.md are always in the site, because mkdocs.yml names them.
"""
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
IN_NAVIGATION = (ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md')  # as repository/... in mkdocs.yml
LINK = re.compile(r'(?<=\]\()(?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))')  # in Markdown, excluding web links
# Git hosts begin a list right below a line of text. Python's Markdown needs an empty line there.
BEFORE_LIST = re.compile(r'^((?![*| #-]).+)\n(?=\* )', re.MULTILINE)
LANGUAGES = {'.yml': 'yaml', '.yaml': 'yaml', '.py': 'python', '.json': 'json'}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file that the navigation names or pages link to, including pages added here."""
    waiting = [*IN_NAVIGATION] + [target for page in sorted(DOCS.rglob('*.md')) for target in linked_files(page)]
    while waiting:
        path = waiting.pop()
        uri = site_uri(path)
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=page_of(path), inclusion=InclusionLevel.NOT_IN_NAV))
            waiting += linked_files(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a docs/ page to their targets in the site."""
    origin = DOCS / page.file.src_uri
    return turn_links(markdown, origin) if origin.exists() else markdown


def linked_files(page: Path) -> Iterator[Path]:
    """Yield files and folders of the repository, outside docs/, that a Markdown file links to."""
    if page.suffix == '.md':
        for match in LINK.finditer(page.read_text(encoding='utf-8')):
            target = (page.parent / match['path']).resolve()
            if target.exists() and not target.is_relative_to(DOCS):
                yield target


def site_uri(path: Path) -> str:
    """Return the location in the site of a repository file, as the name of a Markdown file."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f'repository/{name}/index.md'
    return f'repository/{name}' if path.suffix == '.md' else f'repository/{name}.md'


def turn_links(markdown: str, origin: Path) -> str:
    """Rewrite the links of `origin` for the site. Broken links stay, so that mkdocs reports them."""
    home = Path(site_uri(origin)).parent

    def turn(match: re.Match[str]) -> str:
        target = (origin.parent / match['path']).resolve()
        if not target.exists():
            return match[0]
        return Path(os.path.relpath(site_uri(target), home)).as_posix() + (match['anchor'] or '')

    return LINK.sub(turn, markdown)


def page_of(path: Path) -> str:
    """Return Markdown for a repository file or folder; the search indexes only Markdown files."""
    if path.suffix == '.md':
        return BEFORE_LIST.sub(r'\1\n\n', turn_links(path.read_text(encoding='utf-8'), path))
    title = path.relative_to(ROOT).as_posix()
    head = f'---\nsearch: {{exclude: true}}\n---\n\n# {title}\n\n'
    if path.is_file():
        return head + code_block(path)
    shown = (file for file in sorted(path.iterdir()) if file.suffix in LANGUAGES)
    return head + '\n'.join(f'## {file.name}\n\n{code_block(file)}' for file in shown)


def code_block(path: Path) -> str:
    return f'````{LANGUAGES.get(path.suffix, "text")}\n{path.read_text(encoding="utf-8").rstrip()}\n````\n'
