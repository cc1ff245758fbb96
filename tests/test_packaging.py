"""What installing and importing the package promises."""
import compileall
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import basicsr_stvsr
from basicsr_stvsr import compat


def run_python(*args: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )


def registered() -> list[set[str]]:
    registries = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY)
    return [set(registry.keys()) for registry in registries]


def test_setup_reads_the_version_without_importing_the_package():
    result = run_python('-X', 'importtime', 'setup.py', '--version')
    assert result.stdout.strip() == basicsr_stvsr.__version__
    imported = {line.rpartition('|')[2].strip() for line in result.stderr.splitlines()}
    assert 'setuptools' in imported
    assert not imported & {'torch', 'basicsr', 'basicsr_stvsr'}


def test_importing_twice_is_harmless(monkeypatch):
    before = registered()
    importlib.reload(basicsr_stvsr)
    monkeypatch.delitem(sys.modules, 'basicsr_stvsr')
    importlib.import_module('basicsr_stvsr')
    assert registered() == before


def test_import_is_cheap():
    """Beside what basicsr itself takes to import, in the same process."""
    # compat needs no package around it, so that everything of basicsr can be imported without us.
    seconds = """
        import importlib.util
        import time

        spec = importlib.util.spec_from_file_location('compat', 'basicsr_stvsr/compat.py')
        compat = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compat)
        compat.apply()
        start = time.process_time()
        import basicsr.models
        middle = time.process_time()
        import basicsr_stvsr
        print((time.process_time() - middle) / (middle - start))
    """
    # pip compiles what it installs. If Python may write no bytecode, it would compile at every import.
    compileall.compile_dir(ROOT / 'basicsr_stvsr', quiet=2)
    # Processor time, as the machine may be busy and its cache shared; the first quick run counts.
    shares = []
    while not shares or (shares[-1] >= 0.3 and len(shares) < 10):
        shares.append(float(run_python('-c', textwrap.dedent(seconds)).stdout))
    assert min(shares) < 0.3


HEALTHY = {
    '__init__.py': '',
    'transforms/__init__.py': '',
    'transforms/functional.py': '',
    'transforms/functional_tensor.py': 'from_torchvision = True',
}


@pytest.fixture
def fake_torchvision(tmp_path, monkeypatch):
    """Puts a torchvision of the given files in the place of the installed one."""

    def install(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / 'torchvision' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
            monkeypatch.delitem(sys.modules, name)

    return install


def test_compat_leaves_a_healthy_torchvision_alone(fake_torchvision):
    fake_torchvision(HEALTHY)
    libraries = list(compat._libraries)
    compat.apply()
    assert compat._libraries == libraries
    assert sys.modules['torchvision.transforms.functional_tensor'].from_torchvision


def test_compat_replaces_only_the_module_that_is_gone(fake_torchvision):
    fake_torchvision({name: text for name, text in HEALTHY.items() if 'functional_tensor' not in name})
    libraries = list(compat._libraries)
    compat.apply()
    assert compat._libraries == libraries
    functional_tensor = importlib.import_module('torchvision.transforms.functional_tensor')
    assert functional_tensor is sys.modules['torchvision.transforms.functional']


def test_compat_does_not_hide_another_defect(fake_torchvision):
    fake_torchvision({'__init__.py': 'raise RuntimeError("out of luck")'})
    with pytest.raises(RuntimeError, match='out of luck'):
        compat.apply()


@pytest.mark.parametrize('on_path', [False, True])
@pytest.mark.parametrize('inside', [True, False])
def test_the_scripts_folder_does_not_shadow_basicsr(tmp_path, inside, on_path):
    assert {path.name for path in (ROOT / 'basicsr').glob('*.py')} == {'train.py', 'test.py'}
    result = run_python(
        '-c', 'import importlib.util; print(importlib.util.find_spec("basicsr").origin)',
        cwd=ROOT if inside else tmp_path, PYTHONPATH=str(ROOT) if on_path else '',
    )
    assert result.stdout.strip() == sys.modules['basicsr'].__file__


def test_constraints_pin_everything_that_is_installed():
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    pins = {canonicalize_name(line.partition('==')[0]) for line in lines if re.fullmatch(r'[\w.-]+==[\w.]+', line)}

    wanted, seen = ['basicsr_stvsr[dev]', 'setuptools', 'wheel'], set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        # torch pins the CUDA libraries of its GPU build itself.
        if (name, *requirement.extras) in seen or name.startswith(('nvidia-', 'cuda-', 'triton')):
            continue
        seen.add((name, *requirement.extras))
        for text in importlib.metadata.requires(name) or ():
            child = Requirement(text)
            extras = requirement.extras or {''}
            if child.marker is None or any(child.marker.evaluate({'extra': extra}) for extra in extras):
                wanted.append(text)
    assert {name for name, *_ in seen} - {'basicsr-stvsr'} <= pins
