"""The correction of basicsr's setup.py, on the text of the release."""
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

# The parts of setup.py of basicsr 1.4.2 that the correction is about, as they are in the release
GET_VERSION = '''\
def get_version():
    with open(version_file, 'r') as f:
        exec(compile(f.read(), version_file, 'exec'))
    return locals()['__version__']
'''
SETUP = '''\
        license='Apache License 2.0',
        setup_requires=['cython', 'numpy', 'torch'],
        install_requires=get_requirements(),
'''


@pytest.fixture(scope='module')
def script() -> ModuleType:
    spec = spec_from_file_location('install_basicsr', ROOT / 'scripts' / 'install_basicsr.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_is_read_without_locals(script, tmp_path):
    """From Python 3.13 on, `locals()` does not show what `exec` defines."""
    (tmp_path / 'version.py').write_text("__version__ = '9.8.7'\n")
    text = script.correct(f'{GET_VERSION}    {SETUP}')
    namespace = {'version_file': str(tmp_path / 'version.py'), 'locals': dict}
    exec(text.partition('    ' + SETUP.splitlines()[0])[0], namespace)
    assert namespace['get_version']() == '9.8.7'
    assert 'setup_requires' not in text and SETUP.splitlines()[0] in text and SETUP.splitlines()[2] in text


@pytest.mark.parametrize('text', [SETUP, GET_VERSION, GET_VERSION + SETUP + SETUP])
def test_another_text_is_refused(script, text):
    with pytest.raises(ValueError, match=r'setup\.py is not that of basicsr 1\.4\.2: expected '):
        script.correct(text)


@pytest.mark.parametrize(('version', 'ends'), [((3, 10, 13), True), ((3, 15, 0), True), ((3, 14, 9), False)])
def test_versions_of_python(script, monkeypatch, version, ends):
    monkeypatch.setattr(script.sys, 'version_info', version)
    monkeypatch.setattr(script.sys, 'argv', ['install_basicsr.py', '--help'])
    if ends:
        with pytest.raises(SystemExit, match=r'^Python 3\.11 to 3\.14 is needed'):
            script.main()
    else:
        script.main()


@pytest.mark.slow
def test_the_release_is_built(script, tmp_path):
    """From the index of packages that pip is configured for."""
    try:
        archive = script.download(tmp_path)
    except subprocess.CalledProcessError:
        reached = subprocess.run([sys.executable, '-m', 'pip', 'index', 'versions', 'basicsr'], capture_output=True)
        if reached.returncode:
            pytest.skip('pip reaches no index')
        raise
    script.build(archive, tmp_path)
    wheel: Path = tmp_path / 'basicsr-1.4.2-py3-none-any.whl'
    with zipfile.ZipFile(wheel) as content:
        assert "__version__ = '1.4.2'" in content.read('basicsr/version.py').decode()
        assert 'basicsr/archs/edvr_arch.py' in content.namelist()
