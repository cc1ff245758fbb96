"""The documentation is taken at its word: its code runs, its option files build, its paths exist."""
import ast
import importlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY
from conftest import ROOT, write_texture
from video_util import moving_clip, write_video

import basicsr_stvsr
from basicsr_stvsr.archs.fisr_arch import FISRNet
from basicsr_stvsr.config.loading import OptionLoader, complete_datasets, complete_paths, load_options
from basicsr_stvsr.discovery import import_modules
from basicsr_stvsr.inference.windows import restore_clip
from basicsr_stvsr.protocols import PROTOCOLS

PAGES = [*sorted(ROOT.glob('*.md')), *sorted((ROOT / 'docs').rglob('*.md')), *sorted((ROOT / 'scripts').rglob('*.md'))]
FIGURES = runpy.run_path(str(ROOT / 'scripts' / 'draw_figures.py'))['FIGURES']
every_page = pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    """The files that a page spells out: blocks that open with their name, such as `# my_networks.py`."""
    blocks = code_blocks(page, 'python') + code_blocks(page, 'yaml')
    named = {re.match(r'# (\S+\.(?:py|yml))\n', block): block for block in blocks}
    return {match[1]: block for match, block in named.items() if match}


def write_files(page: Path, root: Path) -> None:
    for name, text in files_of(page).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def scratch_registries(monkeypatch, tmp_path):
    """Classes and modules of the pages stay for the time of one test only."""
    for registry in (ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY):
        monkeypatch.setattr(registry, '_obj_map', dict(registry._obj_map))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, '__file__', None)).startswith(str(tmp_path)):
            del sys.modules[name]


# ---------------------------------------------------------------- all pages

@every_page
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\(([^)\s]+)\)', page.read_text())
    relative = [link.split('#')[0] for link in links if not re.match(r'\w+:|#', link)]
    assert not [link for link in relative if not (page.parent / link).exists()]


@every_page
def test_named_paths_exist(page):
    """Paths of this repository; not those with placeholders, nor those of files that the page itself spells out."""
    paths = re.findall(r'(?<![\w/.<>-])(?:basicsr|basicsr_stvsr|docs|options|scripts|tests)/[\w./<>*{},-]*[\w/>*}]',
                       page.read_text())
    spelt_out = set(files_of(page))
    assert not [path for path in paths
                if not re.search('[<{]', path) and path not in spelt_out and not list(ROOT.glob(path))]


STIFF = [  # phrases that one has to read twice
    'lists what frames and clips are scored by', 'unless told otherwise', 'has no place for', 'is told by',
    'are told by', 'what would have been without', 'answers a signal', 'does not stop the others',
    'what follows a change',
    'said to be', 'found out by', 'it cannot tell', 'want what', 'at hand', 'is in the way', 'there is of both',
    'where nothing else is said', 'what option files say', 'what is given', 'stands behind', 'take the video for',
]


@every_page
def test_pages_are_plain_english(page):
    text = ' '.join(page.read_text().lower().split())
    assert not [phrase for phrase in STIFF if re.search(rf'\b{phrase}\b', text)]


@every_page
def test_code_parses(page):
    for block in code_blocks(page, 'python'):
        ast.parse(block)
    for block in code_blocks(page, 'yaml'):
        assert isinstance(yaml.load(block, Loader=OptionLoader), dict)


def test_pages_have_code():
    """If the fences were written otherwise, the tests above would see nothing."""
    assert list(files_of(ROOT / 'docs' / 'own_network.md')) == ['my_networks.py', 'my_train.py', 'my_mbnet.yml']
    assert len(files_of(ROOT / 'docs' / 'adding_a_paper.md')) == 4


@every_page
def test_figures_are_drawn_by_scripts(page):
    """The line above a figure names the script."""
    lines = page.read_text().splitlines()
    for above, line in zip(['', *lines], lines, strict=False):
        if line.startswith('!['):
            script = re.match(r'<!-- drawn by (scripts/[\w/]+\.py)', above)
            assert script and (ROOT / script[1]).is_file()


def assert_same_picture(stored: Path, encoded: np.ndarray) -> None:
    drawn, stored = cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.imread(str(stored))
    assert stored.shape == drawn.shape and np.abs(stored.astype(int) - drawn).mean() < 0.1


@pytest.mark.parametrize('name', FIGURES)
def test_figures_are_those_of_the_script(name):
    """If this fails: python scripts/draw_figures.py"""
    drawn = io.BytesIO()
    FIGURES[name]().savefig(drawn, dpi=120)
    assert_same_picture(ROOT / 'docs' / name, np.frombuffer(drawn.getvalue(), np.uint8))


@pytest.mark.parametrize('name', ['example', pytest.param('failures', marks=pytest.mark.slow)])
def test_pictures_are_those_of_the_shipped_weights(monkeypatch, name):
    """If this fails: python scripts/demo/draw_example.py, or draw_failures.py"""
    monkeypatch.syspath_prepend(ROOT / 'scripts' / 'demo')
    drawn = runpy.run_path(str(ROOT / 'scripts' / 'demo' / f'draw_{name}.py'))['encoded']()
    assert_same_picture(ROOT / 'docs' / f'{name}.jpg', drawn)


@every_page
def test_images_have_a_text(page):
    """Which says what they show, for those who do not see them."""
    texts = re.findall(r'!\[(.*?)\]\(', page.read_text(), re.DOTALL)
    assert not [text for text in texts if len(text.split()) < 5]


def test_tables_of_scores_are_those_that_were_measured():
    """If this fails: python scripts/update_tables.py"""
    pages = runpy.run_path(str(ROOT / 'scripts' / 'update_tables.py'))['up_to_date']()
    assert len(pages) > 10 and not [path.name for path, text in pages.items() if path.read_text() != text]


def test_the_first_page_has_commands_of_the_readme():
    """Those of the README are run by tests/docs/test_readme.py."""
    readme, first = ({line.split('  #')[0].strip() for block in code_blocks(ROOT / page, 'bash')
                      for line in block.splitlines()} for page in ('README.md', 'docs/index.md'))
    assert len(first) > 8 and first <= readme | {'source .venv/bin/activate'}


# ---------------------------------------------------------------- docs/troubleshooting.md

def texts_of(source: Path) -> list[str]:
    """The strings of a module, with `…` for what an f-string puts in."""
    nodes = list(ast.walk(ast.parse(source.read_text())))
    return ([node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)] +
            [''.join(part.value if isinstance(part, ast.Constant) else '…' for part in node.values)
             for node in nodes if isinstance(node, ast.JoinedStr)])


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    page = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    titles = re.findall(r'^\* ((?:\*\*`.*?`\*\*(?: and )?)+)', ' '.join(page.split('\n  ')), re.MULTILINE)
    messages = [message for title in titles for message in re.findall('`(.*?)`', title)]
    texts = [text for package in ('basicsr_stvsr', 'stvsr') for source in (ROOT / package).rglob('*.py')
             for text in texts_of(source)]

    def is_printed(message: str) -> bool:
        parts = [part for part in re.split('… ?', message) if part]
        return any(re.search('.*'.join(map(re.escape, parts)), text, re.DOTALL) for text in texts
                   if max(parts, key=len) in text)

    elsewhere = {'stvsr: command not found', 'data'}
    assert len(messages) > 25 and not [message for message in messages if message not in elsewhere and
                                       not is_printed(message)]


# ---------------------------------------------------------------- docs/datasets

SETS = sorted((ROOT / 'docs' / 'datasets').glob('*.md'))
DVD_CLIPS = ['720p_240fps_1', '720p_240fps_2', 'IMG_0003', 'IMG_0021', 'IMG_0030', 'IMG_0031', 'IMG_0032', 'IMG_0033',
             'IMG_0037', 'IMG_0039', 'IMG_0049']
# One or two clips of each data set, by the names that its page says
STAND_INS = [
    *(f'vimeo_septuplet/sequences/00001/{clip}/im{i}.png' for clip in ('0001', '0002') for i in range(1, 8)),
    *(f'vimeo_triplet/sequences/00001/0001/im{i}.png' for i in range(1, 4)),
    *(f'REDS/train_{subset}/{clip}/{i:08d}.png' for subset in ('sharp', 'sharp_bicubic/X4', 'blur_bicubic/X4')
      for clip in ('000', '001', '011', '015', '020') for i in range(100)),
    *(f'DeepVideoDeblurring_Dataset/quantitative_datasets/{clip}/{side}/0000{i}.jpg'
      for clip in DVD_CLIPS for side in ('GT', 'input') for i in range(2)),
    *(f'Vid4/{side}/{clip}/{i}.png' for side in ('GT', 'BIx4') for clip in ('calendar', 'city', 'foliage', 'walk')
      for i in range(3)),
    *(f'ucf101/1/{name}.png' for name in ('frame_00', 'frame_01_gt', 'frame_02')),
    'middlebury/other-data/Beanbags/frame10.png', 'middlebury/other-data/Beanbags/frame11.png',
    'middlebury/other-gt-interp/Beanbags/frame10i11.png',
    *(f'fisr_authors/test/LR_LFR/LR_vid_{scene}_seq_{i}.png' for scene in ('1_fr_07171', '2_fr_00031')
      for i in (1, 3, 5, 7, 9)),
    *(f'fisr_authors/test/HR_HFR/HR_vid_{scene}_seq_{i}.png' for scene in ('1_fr_07171', '2_fr_00031')
      for i in range(2, 9)),
    *(f'fisr_train/{name}' for name in (
        'LR_LFR/LR_Surfing_SlamDunk_5seq.mat', 'HR_HFR/HR_Surfing_SlamDunk_5seq.mat',
        'flow/LR_Surfing_SlamDunk_5seq_ss1.flo', 'flow/LR_Surfing_SlamDunk_5seq_ss2.flo')),
    *(f'fstrn_test/{clip}/{i:08d}.png' for clip in ('Star_Fan', 'Flag') for i in range(2)),
    'yuv25/akiyo_qcif.yuv',
    *(f'{folder}/clip/{i:08d}.png' for folder in ('val', '../my_clips') for i in range(3)),
]


def write_stand_ins(root: Path) -> None:
    """Data sets as they are distributed, in root/datasets; a picture is as good as any other."""
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    contents = {suffix: cv2.imencode(suffix, picture)[1].tobytes() for suffix in ('.png', '.jpg')}
    for name in STAND_INS:
        path = root / 'datasets' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.get(path.suffix, b''))
    septuplets = root / 'datasets' / 'vimeo_septuplet'
    (septuplets / 'sep_trainlist.txt').write_text('00001/0001\n')
    (septuplets / 'sep_testlist.txt').write_text('00001/0002\n')
    (root / 'datasets' / 'vimeo_triplet' / 'tri_trainlist.txt').write_text('00001/0001\n')
    for name in ('holiday.mp4', 'party.mkv'):
        write_video(root / name, moving_clip(4))


def run_block(block: str, root: Path) -> None:
    """Runs the commands of a page: `python` in this process, as a new one takes seconds to import torch."""
    note = 'python() { printf "%q " "$@" >> commands; echo >> commands; }\n'
    subprocess.run(['bash', '-euc', note + block], cwd=root, check=True)
    commands = root / 'commands'
    for line in commands.read_text().splitlines() if commands.exists() else ():
        script, *arguments = shlex.split(line)
        if script.startswith('basicsr/'):  # run by tests/docs/test_commands.py
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setattr(sys, 'argv', [script, *arguments])
            patch.syspath_prepend(ROOT / 'scripts' / 'data_preparation')
            with pytest.raises(SystemExit) as exit_info:
                runpy.run_path(str(ROOT / script), run_name='__main__')
        assert exit_info.value.code == 0, line
    commands.unlink(missing_ok=True)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Path:
    """A folder in which all commands of the data sets' pages were run."""
    root = tmp_path_factory.mktemp('prepared')
    write_stand_ins(root)
    own_first = sorted(SETS, key=lambda page: page.stem != 'own_videos')  # FISR's page takes clips that it makes
    for page in own_first:
        blocks = code_blocks(page, 'bash')
        assert blocks, page
        for block in blocks:
            run_block(block, root)
    return root


def test_data_sets_are_where_options_want_them(prepared):
    """The pages describe how to get all data that the option files read."""
    files = [*(ROOT / 'options').glob('*.yml'), *(ROOT / 'basicsr_stvsr' / 'protocols').glob('*.yml')]
    roots = {value for file in files for dataset in load_options(str(file))['datasets'].values() if dataset
             for key, value in dataset.items() if key.startswith('dataroot') and value}
    assert len(roots) > 20
    assert not [path for path in sorted(roots) if not (prepared / path).exists()]


def test_scenes_of_fisr(prepared):
    scenes = prepared / 'datasets' / 'fisr_test'
    for side, numbers in (('LR_LFR', [1, 3, 5, 7, 9]), ('HR_HFR', range(2, 9))):
        assert sorted(path.name for path in (scenes / side).iterdir()) == ['vid_1_fr_07171', 'vid_2_fr_00031']
        names = sorted(path.name for path in (scenes / side / 'vid_2_fr_00031').iterdir())
        assert names == [f'{side[:2]}_vid_2_fr_00031_seq_{i}.png' for i in numbers]


@pytest.mark.parametrize('page', SETS, ids=lambda page: page.stem)
def test_data_sets_tell_the_same_things(page):
    headings = re.findall(r'^## (.*)$', page.read_text(), re.MULTILINE)
    wanted = ['Where it comes from', 'Layout', 'To LMDB', 'Size', 'Used by']
    assert [heading for heading in headings if heading in wanted] == wanted
    assert f'(datasets/{page.name})' in (ROOT / 'docs' / 'datasets.md').read_text()


# ---------------------------------------------------------------- the five systems

SYSTEMS = {  # page -> protocols by which its published numbers were measured
    'mbnet': ('mbnet-table3', 'mbnet-ablation'),
    'fisr': ('fisr-4k',),
    'fstrn': ('fstrn-5clips',),
    'hoffr': ('reds4', 'dvd10'),
    'adaptive_gan': ('vsrresnet-vid4-x2', 'vsrresnet-vid4-x3', 'vsrresnet-vid4'),
}
every_system = pytest.mark.parametrize('system', SYSTEMS)


def rows_of(system: str, heading: str) -> list[str]:
    """The rows of the tables below a heading of a system's page."""
    text = (ROOT / 'docs' / f'{system}.md').read_text()
    section = re.search(rf'^### {heading}\n(.*?)(?=^##|\Z)', text, re.MULTILINE | re.DOTALL)[1]
    return [row for row in re.findall(r'^\|.*\|$', section, re.MULTILINE) if re.search(r'\d\.\d', row)]


def numbers_of(text: str) -> list[float]:
    return [float(number) for number in re.findall(r'\d+\.\d+', text)]


@every_system
def test_systems_tell_the_same_things(system):
    headings = re.findall(r'^##+ (.*)$', (ROOT / 'docs' / f'{system}.md').read_text(), re.MULTILINE)
    wanted = ['The paper', 'The network', "What is the paper's, and what is ours", 'Training', 'Test protocol',
              'Numbers', 'Published', 'Measured']
    assert [heading for heading in headings if heading in wanted] == wanted


@every_system
def test_systems_begin_with_the_idea(system):
    """Three sentences and a figure of ours."""
    text = (ROOT / 'docs' / f'{system}.md').read_text()
    _, idea, picture, _ = text.split('\n\n', 3)
    assert len(re.findall(r'\.(?=\s|$)', idea)) == 3
    assert re.search(r'\]\((.*?)\)', picture)[1] in FIGURES


@every_system
def test_systems_have_a_table_of_measured_numbers(system):
    """Which scripts/update_tables.py writes."""
    text = (ROOT / 'docs' / f'{system}.md').read_text()
    assert f'<!-- table {system.replace("_", "-")}, by scripts/update_tables.py -->' in text
    assert len(rows_of(system, 'Measured')) > 1


@every_system
def test_published_numbers_are_those_of_the_protocols(system):
    """Each method has a row with its scores in the protocol's order."""
    rows = [(row.split('|')[1].strip(), numbers_of(row)) for row in rows_of(system, 'Published')]
    protocols = [PROTOCOLS[name] for name in SYSTEMS[system]]
    for published in (published for protocol in protocols for published in protocol.published):
        scores = list(published.scores.values())
        assert any(method == published.method and scores == numbers[i:i + len(scores)]
                   for method, numbers in rows for i in range(len(numbers))), published.method
    if system == 'fstrn':  # of which there is a sentence
        known = dict(rows)
        stated = re.findall(r'(\w+) (\d+\.\d+) / (\d+\.\d+)', protocols[0].source)
        assert len(stated) == 4 and all(known[name] == [float(psnr), float(ssim)] for name, psnr, ssim in stated)


def test_ablations_of_mbnet_are_those_of_their_files():
    """Every number beside a file stands in the comment with which the file opens."""
    rows = [row for row in rows_of('mbnet', 'Published') if '.yml' in row]
    assert len(rows) == 8 + 6 + 3 + 5
    for row in rows:
        file = ROOT / 'options' / 'ablations' / re.search(r'`(\w+\.yml)`', row)[1]
        cells = row.split('.yml`', 1)[1]
        comment = ''.join(line for line in file.read_text().splitlines(keepends=True) if line.startswith('#'))
        assert set(numbers_of(cells)) <= set(numbers_of(comment)), row


def test_mbnet_in_python():
    code, = code_blocks(ROOT / 'docs' / 'mbnet.md', 'python')
    names: dict = {}
    exec(code, names)
    assert names['frames'].shape == (1, 7, 3, 120, 168)


# ---------------------------------------------------------------- docs/own_network.md

@pytest.fixture
def own_files(tmp_path, monkeypatch, scratch_registries) -> Path:
    """A folder as the root of a checkout would look with the page's three files in it."""
    write_files(ROOT / 'docs' / 'own_network.md', tmp_path)
    (tmp_path / 'options').symlink_to(ROOT / 'options')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_net(own_files) -> torch.nn.Module:
    importlib.import_module('my_networks')
    return build_network(load_options('my_mbnet.yml')['network_g'])


def test_own_networks_take_part(own_net):
    """Every part learns, yours and the flow nets around them."""
    assert type(own_net.vsr_net).__name__ == 'MyEDSR' and type(own_net.vfi_net).__name__ == 'ThreeConvVFI'
    frames = own_net(torch.rand(2, 2, 3, 12, 16))
    assert frames.shape == (2, 3, 3, 48, 64)
    frames.square().mean().backward()
    assert not [name for name, p in own_net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert all(p.grad.any() for part in (own_net.vsr_net, own_net.vfi_net) for p in part.parameters())


@torch.no_grad()
def test_own_networks_feed_each_other(own_net):
    """Another VFI net changes the super-resolved frames of the second round, and of the second round only."""
    lq = torch.rand(1, 2, 3, 12, 16)
    _, before = own_net(lq, return_aux=True)
    for parameter in own_net.vfi_net.parameters():
        parameter.mul_(2)
    _, after = own_net(lq, return_aux=True)
    given = slice(None, None, 2)
    changes = [(new[:, given] - old[:, given]).abs().max() for old, new in
               zip(before.rounds, after.rounds, strict=True)]
    assert changes[0] == 0 and changes[1] > 1e-5


def test_own_vfi_network_does_without_a_feature(own_files):
    importlib.import_module('my_networks')
    opt = load_options('my_mbnet.yml')['network_g']
    net = build_network({**opt, 'vfi_feature': 'none'})
    assert net.vfi_net.body[0].in_channels == 6
    assert net(torch.rand(1, 2, 3, 8, 8)).shape == (1, 3, 3, 32, 32)


def test_own_script_trains(own_files, clips, monkeypatch):
    """`python my_train.py -opt my_mbnet.yml`, made small."""
    small = ['num_gpu=0', 'train:total_iter=1', 'logger:use_tb_logger=false',
             *(f'datasets:{name}:dataroot_gt={clips}' for name in ('train', 'val')),
             *(f'datasets:train:{change}' for change in (
                 'dataroot_lq=~', 'gt_size=48', 'num_worker_per_gpu=0', 'batch_size_per_gpu=1'))]
    monkeypatch.setattr(sys, 'argv', ['my_train.py', '-opt', 'my_mbnet.yml', '--force_yml', *small])
    runpy.run_path('my_train.py', run_name='__main__')
    saved = torch.load(own_files / 'experiments' / 'MBNet_my_parts' / 'models' / 'net_g_latest.pth', weights_only=True)
    assert 'vsr_net.body.3.conv2.weight' in saved['params'] and 'vfi_net.body.4.bias' in saved['params']


# ---------------------------------------------------------------- docs/fisr.md

def test_fisr_in_python(tmp_path, monkeypatch):
    """Five frames become the seven from the first half step to the last but one."""
    monkeypatch.chdir(tmp_path)
    write_texture(tmp_path / 'frames', num_frames=5, size=(48, 80), width=64)
    torch.save({'params_ema': FISRNet(num_feat=[6, 8, 16], residual=True).state_dict()}, 'net_g_latest.pth')
    code, = code_blocks(ROOT / 'docs' / 'fisr.md', 'python')
    names: dict = {}
    exec(code, names)
    rgb = names['rgb']
    assert rgb.shape == (1, 7, 3, 96, 128)
    # A residual network that has learned nothing enlarges what it is given: frame number 3 of the seven is frame 2.
    frame = cv2.resize(cv2.imread('frames/00000002.png'), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    result = rgb[0, 3].permute(1, 2, 0).numpy()[..., ::-1] * 255
    assert np.abs(result - frame)[4:-4, 4:-4].max() < 3


# ---------------------------------------------------------------- docs/adding_a_paper.md

PAPER = ROOT / 'docs' / 'adding_a_paper.md'


@pytest.fixture
def toy_files(tmp_path, monkeypatch, scratch_registries) -> Path:
    """The page's files, found by their names in folders that are added to those of the package."""
    write_files(PAPER, tmp_path)
    for room, suffix in ((basicsr_stvsr.archs, '_arch'), (basicsr_stvsr.losses, '_loss'),
                         (basicsr_stvsr.models, '_model')):
        folder = tmp_path / 'basicsr_stvsr' / room.__name__.split('.')[-1]
        monkeypatch.setattr(room, '__path__', [*room.__path__, str(folder)])
        import_modules(room.__name__, room.__path__, suffix)
    return tmp_path


def test_a_new_paper_takes_a_step(toy_files, clips):
    opt = load_options(str(toy_files / 'options' / 'train_toy.yml'))
    opt.update(num_gpu=0, dist=False, rank=0, world_size=1, is_train=True)
    opt['network_g'].update(num_feat=4, num_block=1)
    for dataset_opt in opt['datasets'].values():
        dataset_opt['dataroot_gt'] = str(clips)
    opt['datasets']['train']['gt_size'] = 48
    complete_datasets(opt)
    complete_paths(opt, str(toy_files))

    model = build_model(opt)
    dataset = build_dataset(opt['datasets']['train'])
    model.feed_data(torch.utils.data.default_collate([dataset[0], dataset[1]]))
    assert model.lq.shape == (2, 4, 3, 12, 12) and model.gt.shape == (2, 7, 3, 48, 48)
    losses = model.compute_losses()
    before = {name: p.detach().clone() for name, p in model.net_g.named_parameters()}
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert list(losses) == ['l_pix', 'l_temporal']
    assert all(log[name] == pytest.approx(losses[name].item(), rel=1e-4) for name in losses)
    assert not [name for name, p in model.net_g.named_parameters() if torch.equal(p, before[name])]

    val_set = build_dataset(opt['datasets']['val'])
    model.validation(torch.utils.data.DataLoader(val_set), 1, None)
    assert set(model.best_metric_results) == {'vid4'}


def test_the_row_of_a_new_paper_fits(toy_files):
    table = next(block for block in code_blocks(PAPER, 'python') if block.startswith('CASES = '))
    values: dict = {}
    exec(table, values)
    (name, (arguments, (input_shape,), (output_shape,))), = values['CASES'].items()
    net = ARCH_REGISTRY.get(name)(**arguments)
    assert net(torch.rand(input_shape)).shape == output_shape
    assert restore_clip(net, torch.rand(1, 4, 3, 9, 11)).shape == (1, 7, 3, 36, 44)


def test_the_loss_of_a_new_paper_by_hand(toy_files):
    """From 1 to 4 is a change of 3, from 1 to 2 one of 1: they differ by 2, and half of that is asked for."""
    loss = LOSS_REGISTRY.get('TemporalDifferenceLoss')(loss_weight=0.5)
    pred, target = (torch.tensor(values).view(1, 2, 1, 1, 1) for values in ([1., 4.], [1., 2.]))
    assert float(loss(pred, target)) == 1.0
