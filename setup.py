"""Installs `basicsr_stvsr`; the version is read from basicsr_stvsr/version.py, the one place that states it."""
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    namespace: dict[str, str] = {}
    exec((ROOT / 'basicsr_stvsr' / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


setup(
    name='basicsr_stvsr',
    version=read_version(),
    description='Space-time video super-resolution for BasicSR',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['basicsr_stvsr', 'basicsr_stvsr.*', 'stvsr']),
    package_data={'basicsr_stvsr': ['py.typed', 'weights/*', 'video/*.html', 'protocols/*.yml', 'protocols/*.yaml']},
    entry_points={'console_scripts': ['stvsr = stvsr.main:main']},
    python_requires='>=3.11',
    install_requires=[
        'av',
        'basicsr==1.4.2',
        'h5py',
        'lmdb',
        'matplotlib',
        'numpy>=2',
        'opencv-python',
        'pillow',
        'pydantic>=2',
        'pyyaml',
        'scikit-image',
        'scipy',
        'torch>=2.6',
        'torchvision',
        'tqdm',
    ],
    extras_require={
        'convert': ['google-crc32c'],
        'mm': ['mmengine'],
        'face': ['facexlib'],
        'lpips': ['lpips'],
        'safetensors': ['safetensors'],
        'spandrel': ['spandrel'],
        'vmaf': ['imageio-ffmpeg'],
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'docs': ['mkdocs-material', 'mkdocstrings[python]'],
        'dev': ['facexlib', 'google-crc32c', 'hypothesis', 'imageio-ffmpeg', 'jsonschema', 'lpips', 'mkdocs-material',
                'mkdocstrings[python]', 'mmengine', 'mypy', 'onnx', 'onnxruntime', 'onnxscript', 'pytest',
                'pytest-timeout', 'pytest-xdist', 'ruff', 'safetensors', 'spandrel', 'SSIM-PIL'],
    },
)
