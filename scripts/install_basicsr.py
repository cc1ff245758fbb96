"""Install basicsr 1.4.2 on Python 3.11 to 3.14, from its source distribution with a corrected setup.py.

    python scripts/install_basicsr.py                       # with its dependencies
    python scripts/install_basicsr.py -c constraints.txt    # options of `pip install` may follow

Run it before `pip install basicsr_stvsr`, which then finds basicsr installed. It needs nothing but pip, and this file
works alone. pip downloads the release from the index that you have configured; its sha256 is checked.

`pip install basicsr` fails in two places:

* setup.py reads the version from `locals()` after `exec`. That is a KeyError since Python 3.13.
* It asks for torch and Cython while it is built, which it does not use. pip would download a second torch.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

VERSION = '1.4.2'
SHA256 = 'b89b595a87ef964cda9913b4d99380ddb6554c965577c0c10cb7b78e31301e87'
PYTHONS = (3, 11), (3, 14)

CORRECTIONS = {
    """\
        exec(compile(f.read(), version_file, 'exec'))
    return locals()['__version__']
""": """\
        namespace = {}
        exec(compile(f.read(), version_file, 'exec'), namespace)
    return namespace['__version__']
""",
    """\
        setup_requires=['cython', 'numpy', 'torch'],
""": ''}

# `pip download` asks a package for its metadata, which would run setup.py. This module answers in setuptools' place.
ANSWER = f"""\
import pathlib


class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        info = pathlib.Path(folder, 'basicsr-{VERSION}.dist-info')
        info.mkdir()
        (info / 'METADATA').write_text('Metadata-Version: 2.1\\nName: basicsr\\nVersion: {VERSION}\\n')
        return info.name
"""


def correct(text: str) -> str:
    """Return the corrected text of setup.py.

    Raises:
        ValueError: it is not that of the release.
    """
    for old, new in CORRECTIONS.items():
        if text.count(old) != 1:
            raise ValueError(f'setup.py is not that of basicsr {VERSION}: expected {old.strip()!r} once')
        text = text.replace(old, new)
    return text


def download(folder: Path) -> Path:
    """Download the source distribution into a folder without running its setup.py, and return its path."""
    answer = folder / 'answer' / 'setuptools'
    answer.mkdir(parents=True)
    (answer / '__init__.py').touch()
    (answer / 'build_meta.py').write_text(ANSWER)
    requirements = folder / 'requirements.txt'
    requirements.write_text(f'basicsr=={VERSION} --hash=sha256:{SHA256}\n')
    run_pip('download', '--no-deps', '--no-binary', 'basicsr', '--use-pep517', '--no-build-isolation',
            '--dest', folder, '-r', requirements, PYTHONPATH=str(answer.parent))
    return folder / f'basicsr-{VERSION}.tar.gz'


def build(archive: Path, folder: Path) -> None:
    """Build a wheel of the source distribution, with its setup.py corrected, in a folder."""
    shutil.unpack_archive(archive, folder)
    source = folder / f'basicsr-{VERSION}'
    setup = source / 'setup.py'
    setup.write_text(correct(setup.read_text(encoding='utf-8')), encoding='utf-8')
    run_pip('wheel', '--no-deps', '--wheel-dir', folder, source)


def run_pip(*arguments: str | Path, **env: str) -> None:
    subprocess.run([sys.executable, '-m', 'pip', *arguments], env={**os.environ, **env}, check=True)


def main() -> None:
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        sys.exit(f'Python 3.11 to 3.14 is needed, and {sys.executable} is {sys.version.split()[0]}')
    if {'-h', '--help'} & set(sys.argv[1:]):
        print(__doc__)
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            build(download(folder), folder)
            run_pip('install', '--only-binary', 'basicsr', '--find-links', folder, f'basicsr=={VERSION}', *sys.argv[1:])
        except subprocess.CalledProcessError as error:
            sys.exit(f'basicsr {VERSION} was not installed: `pip {error.cmd[3]}` failed, as printed above')


if __name__ == '__main__':
    main()
