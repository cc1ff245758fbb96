"""Installs `basicsr_stvsr`; the version is read from basicsr_stvsr/version.py, the one place that states it."""
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def read_version() -> str:
    namespace: dict[str, str] = {}
    exec((ROOT / 'basicsr_stvsr' / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


class BuildWithOptions(build_py):
    """Put the option files into the package, where `-opt train_mbnet` finds them by name."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / 'basicsr_stvsr' / 'options'
            shutil.rmtree(folder, ignore_errors=True)  # an earlier build may have left a removed file
            shutil.copytree(ROOT / 'options', folder, ignore=shutil.ignore_patterns('__pycache__'))


setup(
    name='basicsr_stvsr',
    version=read_version(),
    description='Space-time video super-resolution for BasicSR',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3 :: Only',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(11, 15)),
        'Topic :: Multimedia :: Video',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Typing :: Typed',
    ],
    cmdclass={'build_py': BuildWithOptions},
    packages=find_packages(include=['basicsr_stvsr', 'basicsr_stvsr.*', 'stvsr']),
    package_data={'basicsr_stvsr': ['py.typed', 'weights/*', 'app/page.*', 'training/*.html', 'video/*.html',
                                    'protocols/*.yml', 'protocols/*.yaml']},
    entry_points={'console_scripts': ['stvsr = stvsr.main:main']},
    python_requires='>=3.11, <3.15',
    install_requires=[
        'av',
        'basicsr==1.4.2',
        'h5py',
        'lmdb',
        'matplotlib',
        'mmengine',
        'numpy>=2',
        'opencv-python',
        'pillow>=11.3',  # the first that writes AVIF
        'pydantic>=2',
        'pyyaml',
        'scikit-image',
        'scipy',
        'setuptools',  # for the module distutils, which basicsr imports and Python 3.12 dropped
        'torch>=2.6',
        'torchvision',
        'tqdm',
    ],
    extras_require={
        'app': ['starlette', 'uvicorn'],
        'convert': ['google-crc32c'],
        'face': ['facexlib'],
        'lpips': ['lpips'],
        'safetensors': ['safetensors'],
        'spandrel': ['spandrel'],
        'vmaf': ['imageio-ffmpeg'],
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'docs': ['mkdocs-material', 'mkdocstrings[python]'],
        'dev': ['facexlib', 'google-crc32c', 'hypothesis', 'imageio-ffmpeg', 'jsonschema', 'lpips', 'mkdocs-material',
                'mkdocstrings[python]', 'mypy', 'onnx', 'onnxruntime', 'onnxscript', 'pytest', 'pytest-timeout',
                'pytest-xdist', 'ruff', 'safetensors', 'spandrel', 'SSIM-PIL', 'starlette', 'uvicorn'],
    },
)
