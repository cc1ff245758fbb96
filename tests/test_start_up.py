"""Help and usage errors come at once."""
import json

import pytest
from run_util import run_fresh
from video_util import moving_clip, write_video

import basicsr_stvsr
from basicsr_stvsr.io.pipes import PIPE_FORMATS
from basicsr_stvsr.video import restorer
from basicsr_stvsr.zoo.table import ZOO
from stvsr import parser

# Prints exit code, output, and the modules that were imported
RUN = '''
import contextlib, io, json, sys
from stvsr.main import main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
    try:
        code = main(sys.argv[1:])
    except SystemExit as error:
        code = error.code
print(json.dumps([code, out.getvalue(), sorted(sys.modules)]))
'''


@pytest.mark.parametrize(('command', 'code', 'text'), [
    ('--help', 0, 'restore a video, or a folder of frames'),
    ('--version', 0, f'stvsr {basicsr_stvsr.__version__}\n'),
    ('', 2, 'the following arguments are required: COMMAND'),
    ('restore --help', 0, '--tile-overlap PIXELS'),
    ('restore in.mp4 out.mp4 --titel 3', 2, 'unrecognized arguments: --titel 3; did you mean --tile?'),
    ('restore in.mp4 out.mp4 --presicion=fp32', 2, 'usage: stvsr restore [options] (INPUT OUTPUT |'),
    ('zoo publish net.pth --nane X', 2, 'unrecognized arguments: --nane X; did you mean --name?'),
    ('export net.onnx', 2, 'one of the arguments --model --opt is required'),
    ('train -opt a.yml --autoresume', 2, 'did you mean --auto_resume?'),
    ('restore in.mp4 out.mp4 --model mbnet-small --precision int8', 2, "invalid choice: 'int8'"),
    ('zoo publish --help', 0, '--safetensors'),
    ('app --help', 0, '--max-upload'),
    ('train --help', 0, '--force_yml'),
    ('train', 2, 'the following arguments are required: -opt'),
    ('test --help', 0, '--protocol NAME'),
    ('init --help', 0, '--from WEIGHTS'),
    ('init rbpn --data clips', 2, "invalid choice: 'rbpn'"),
    ('options flatten --help', 0, '--force_yml'),
    ('test -opt a.yml --check', 2, 'unrecognized arguments: --check'),
])
def test_help_and_usage_errors_import_nothing_heavy(command, code, text):
    result = json.loads(run_fresh('-c', RUN, *command.split()).stdout)
    assert result[0] == code and text in result[1]
    assert not {'torch', 'numpy', 'cv2', 'basicsr', 'basicsr_stvsr'} & set(result[2])


# Each takes as long to import as torch, or nearly so
SLOW_IMPORTS = {'torchvision', 'torch._dynamo', 'scipy.stats', 'skimage', 'mmengine'}


@pytest.mark.parametrize(('command', 'code', 'text'), [
    ('info', 0, 'mbnet-small'),
    ('restore nowhere.mp4 out.mp4 --model hoffr-small', 2, 'nowhere.mp4'),
])
def test_commands_that_restore_import_what_they_use(command, code, text):
    result = json.loads(run_fresh('-c', RUN, *command.split()).stdout)
    assert result[0] == code and text in result[1]
    assert not SLOW_IMPORTS & set(result[2])


def test_restoring_needs_no_compiler(tmp_path):
    """All models in one process, as they import nearly the same."""
    write_video(tmp_path / 'in.mkv', moving_clip(2, height=32, width=32))
    result = run_fresh('-c', """
import json, sys
from stvsr.main import main
folder, *models = sys.argv[1:]
codes = [main(['restore', f'{folder}/in.mkv', f'{folder}/{model}.mkv', '--model', model, '--device', 'cpu'])
         for model in models]
print(json.dumps([codes, sorted(sys.modules)]))
""", tmp_path, *ZOO)
    codes, modules = json.loads(result.stdout.splitlines()[-1])
    assert codes == [0] * len(ZOO), result.stderr
    assert not SLOW_IMPORTS & set(modules)


def test_what_is_not_registered_yet_is_found():
    """BasicSR's networks, and our own classes for training, in a process that began with networks alone."""
    result = run_fresh('-c', """
import sys
from stvsr import mode
mode.needs_networks_only = True
from basicsr_stvsr.zoo.table import build
from basicsr.utils.registry import DATASET_REGISTRY
assert type(build({'type': 'FSTRN'})).__name__ == 'FSTRN'
assert 'torchvision' not in sys.modules and 'STVSRClipDataset' not in DATASET_REGISTRY
assert type(build({'type': 'MSRResNet', 'num_block': 1})).__name__ == 'MSRResNet'
assert 'STVSRClipDataset' in DATASET_REGISTRY and 'PairedImageDataset' in DATASET_REGISTRY
from basicsr import __version__
from basicsr.models import build_model
from basicsr.data import build_dataset
print(__version__)
""")
    assert (result.returncode, result.stdout) == (0, '1.4.2\n'), result.stderr


def test_python_m_is_the_command():
    for module in ('stvsr', 'basicsr_stvsr'):
        assert run_fresh('-m', module, '--version').stdout == f'stvsr {basicsr_stvsr.__version__}\n'


def test_the_parser_offers_what_the_restorer_takes():
    assert tuple(restorer.PRECISIONS) == parser.PRECISIONS and parser.AT_CUT == restorer.AT_CUT
    assert parser.PIPE_FORMATS == PIPE_FORMATS
