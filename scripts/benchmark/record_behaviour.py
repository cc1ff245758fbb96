"""Record the behaviour of this checkout; compare_behaviour.py runs this script in two checkouts.

    python scripts/benchmark/record_behaviour.py FOLDER [networks training restoring messages]

The script uses only what users see: option files, registered names, commands, `basicsr_stvsr.restore`. It therefore
works on revisions with another module layout. Everything runs on one thread, so that results do not depend on the
order of sums.
`networks`: for each network of an option file, its number of parameters, and its output for three frames.
`training`: ten steps of each system and a validation: all loss terms, scores, and the final weights.
`restoring`: frames, times and sound from `stvsr restore` with FFV1, for videos made by this script.
`messages`: error messages for a training file with an error in it.
"""
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ |= {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}

import basicsr_stvsr  # isort: skip  (before torch)
import av
import cv2
import numpy as np
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from benchmark_util import resolve

Records = Iterator[tuple[str, Any]]  # names, and values that fit into JSON

SMALL = {'datasets': {'train': {'dataroot_gt': 'clips', 'gt_size': 64, 'cache': False, 'num_worker_per_gpu': 0,
                                'batch_size_per_gpu': 1, 'dataset_enlarge_ratio': 1},
                      'val': {'dataroot_gt': 'clips', 'clips': 'first'}},
         'path': {'pretrain_network_g': None, 'param_key_g': None}, 'num_gpu': 0,
         'train': {'total_iter': 10, 'warmup_iter': -1}, 'val': {'val_freq': 10},
         'logger': {'print_freq': 1, 'save_checkpoint_freq': 10, 'use_tb_logger': False}}
TRAININGS: dict[str, dict] = {
    'mbnet_small': {'datasets': {'train': {'dataroot_flow': None}}, 'train': {'flow_sup_opt': None}},
    'fstrn_small': {}, 'vsrresnet_small': {}, 'fisr_small': {}, 'hoffr_small': {},
    'adaptive_gan_small': {}}

# Changes to `train_mbnet_small.yml`, each a typical user error
ERRORS = [
    'scale=3', 'model_type=MBNetModle', 'num_gpu=many', 'manual_seed=x', 'network_g=null', 'network_g:type=MBnet',
    'network_g:num_iter=2', 'network_g:num_iters=0', 'network_g:vsr_net:type=RDM', 'network_g:vsr_net:num_blocks=x',
    'network_g:flow_net:num_feats=8', 'network_g:feedback=both', 'datasets=null', 'datasets:train:type=STVSRClipDatset',
    'datasets:train:dataroot_gt=nowhere', 'datasets:train:gt_size=63', 'datasets:train:gt_size=4096',
    'datasets:train:num_frame=2', 'datasets:train:num_frame=9', 'datasets:train:interval_list=[]',
    'datasets:train:use_flip=true', 'datasets:train:batch_size_per_gpu=0', 'datasets:train:clips=third',
    'datasets:train:degradation:type=cubic', 'datasets:train:degradation:sigma=1', 'datasets:train:color=rbg',
    'datasets:train:dataroot_flow=nowhere', 'datasets:val:dataroot_gt=nowhere', 'datasets:val:num_frames=3',
    'train:optim_g:lr=high', 'train:optim_g:type=Adamm', 'train:optim_g:betas=[0.9]', 'train:scheduler:type=Cosine',
    'train:scheduler:periods=[5,5]', 'train:total_iter=0', 'train:warmup_iter=many', 'train:grad_clip=-1',
    'train:amp=int8', 'train:ema_decay=2', 'train:lr_mul:flow_nett=0.5', 'train:pixel_opt=null',
    'train:pixel_opt:type=L1Los', 'train:pixel_opt:reduction=none', 'train:hr_flow_opt:mode=both',
    'train:accumulate=3', 'train:iter_weights=[1,2,3]', 'val:metrics:psnr:type=calculate_pnsr',
    'val:metrics:psnr:crop_borders=4', 'val:overlap=second', 'logger:print_freq=0', 'path:pretrain_network_g=gone.pth']


def digest(values: Any) -> str:
    """Return a bit-exact hash of an array, and its mean for human readers."""
    array = np.ascontiguousarray(values.detach().numpy() if isinstance(values, torch.Tensor) else values)
    return f'{array.dtype} {array.shape} mean {array.mean():.6g} {hashlib.sha256(array).hexdigest()[:16]}'


def moving_frames(number: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    """Return frames of a smooth texture that moves by two pixels per frame, uint8, RGB."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (height, width + 2 * number, 3)), (0, 0), 2) * 3 - 255
    texture = texture.clip(0, 255).astype(np.uint8)
    return [np.ascontiguousarray(texture[:, 2 * i:2 * i + width]) for i in range(number)]


def networks() -> Records:
    load_options = resolve('basicsr_stvsr.config.loading:load_options', 'basicsr_stvsr.options:load_options')
    frames = [torch.from_numpy(frame).permute(2, 0, 1).float() / 255 for frame in moving_frames(3, 24, 32)]
    seen = set()
    for path in sorted(Path('options').rglob('*.yml')):
        network = load_options(str(path)).get('network_g')
        if not network or (text := json.dumps(network, sort_keys=True)) in seen:
            continue
        seen.add(text)
        torch.manual_seed(0)
        arguments = deepcopy(network)
        net = ARCH_REGISTRY.get(arguments.pop('type'))(**arguments).eval()
        yield f'{path}: parameters', sum(parameter.numel() for parameter in net.parameters())
        yield f'{path}: names', digest(np.frombuffer(' '.join(net.state_dict()).encode(), np.uint8))
        for parameter in net.parameters():  # last layers are initialised to zero
            parameter.data += 0.01 * torch.randn_like(parameter)
        given = frames * (1 if getattr(net, 'spec', net).num_frames in (None, 1, 2, 3) else 3)
        with torch.no_grad():
            for number, frame in enumerate(basicsr_stvsr.restore(given, net)):
                yield f'{path}: frame {number}', digest(frame)


def write_clips(root: Path) -> None:
    for seed, clip in enumerate(('first', 'second')):
        (root / clip).mkdir(parents=True)
        for i, frame in enumerate(moving_frames(11, 96, 112, seed)):
            cv2.imwrite(str(root / clip / f'{i:08d}.png'), frame[..., ::-1])


def merged(first: dict, second: dict) -> dict:
    result = dict(first)
    for key, value in second.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


def train(options: Path) -> tuple[int, str]:
    """Run `stvsr train` in the folder of the option file; return its exit code and output."""
    process = subprocess.run([sys.executable, '-m', 'basicsr_stvsr', 'train', '-opt', str(options)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=options.parent)
    return process.returncode, process.stdout


def training() -> Records:
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder) / 'clips')
        for name, changes in TRAININGS.items():
            options = Path(folder) / f'{name}.yml'
            base = {'base': str(root / 'options' / f'train_{name}.yml'), 'name': f'behaviour_{name}'}
            options.write_text(yaml.safe_dump(merged(base | SMALL, changes)))
            code, printed = train(options)
            yield f'{name}: exit code', code
            run = Path(folder) / 'experiments' / f'behaviour_{name}'
            log = next((path.read_text() for path in run.glob('train_*.log')), printed)
            for number, line in enumerate(re.findall(r'iter: .*?\] (l_.*)', log)):
                yield f'{name}: losses, step {number + 1}', line.strip()
            yield f'{name}: scores', re.findall(r'# (\w+: .*)', log)
            if (run / 'models' / 'net_g_latest.pth').is_file():
                for key, state in torch.load(run / 'models' / 'net_g_latest.pth', weights_only=True).items():
                    yield f'{name}: {key}', digest(torch.cat([each.double().flatten() for each in state.values()]))
            else:
                yield f'{name}: printed', printed[-2000:]


def messages() -> Records:
    """Yield all messages, each from a fork of one process with the slow imports done."""
    resolve('basicsr_stvsr.train:train_pipeline', 'basicsr_stvsr.training:train_pipeline', 'basicsr_stvsr.train:main')
    context, root = multiprocessing.get_context('fork'), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder) / 'clips')
        options = Path(folder) / 'broken.yml'
        options.write_text(yaml.safe_dump(merged(
            {'base': str(root / 'options' / 'train_mbnet_small.yml')}, merged(SMALL, TRAININGS['mbnet_small']))))
        os.chdir(folder)
        for error in ERRORS:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=check, args=(root, options, error, sender))
            process.start()
            code, printed = receiver.recv() if receiver.poll(120) else ('hangs', '')
            process.kill()
            process.join()
            lines = [line for line in printed.splitlines() if line.strip()]
            yield error, [code, [line.replace(str(folder), '').replace(str(root), '') for line in lines[-4:]]]
        os.chdir(root)


def check(root: Path, options: Path, error: str, sender: Any) -> None:
    printed, code = io.StringIO(), 0
    sys.argv = [str(root / 'basicsr' / 'train.py'), '-opt', str(options), '--check', '--force_yml', error]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            runpy.run_path(sys.argv[0], run_name='__main__')
        except SystemExit as end:
            code = end.code
        except BaseException as failure:
            code = type(failure).__name__
            printed.write(f'\n{failure}\n')
    sender.send((code if isinstance(code, (int, str)) else 0, re.sub(r'[\d-]+ [\d:,]+ ', '', printed.getvalue())))


def write_video(path: Path, frames: list[np.ndarray], times: list[int], codec: str = 'ffv1', pixels: str = 'yuv420p',
                sound: bool = False, rotation: int = 0, **options: str) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if rotation:
            stream.set_display_rotation(rotation)
        unit = Fraction(1, 25 if codec == 'mpeg2video' else 1000)
        stream.codec_context.time_base = unit
        audio = container.add_stream('flac' if path.suffix == '.mkv' else 'aac', rate=48000) if sound else None
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(format=pixels)
            picture.pts, picture.time_base = int(Fraction(time, 1000) / unit), unit
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if audio:
            wave = (8000 * np.sin(np.arange(48000) / 20)).astype(np.int16)[None]
            tone = av.AudioFrame.from_ndarray(wave, format='s16', layout='mono')
            tone.sample_rate, tone.pts = 48000, 0
            container.mux(audio.encode(tone))
            container.mux(audio.encode())


def restoring() -> Records:
    regular, frames = [40 * i for i in range(8)], moving_frames(8, 48, 64)
    cut = [*moving_frames(4, 48, 64), *moving_frames(4, 48, 64, seed=5)]
    videos: dict[str, Callable[[Path], None]] = {
        'plain.mkv': lambda path: write_video(path, frames, regular),
        'vfr.mkv': lambda path: write_video(path, frames, [0, 40, 90, 200, 210, 300, 340, 500]),
        'ten_bits.mkv': lambda path: write_video(path, frames, regular, pixels='yuv420p10le'),
        'cuts.mkv': lambda path: write_video(path, cut, regular),
        'sound.mkv': lambda path: write_video(path, frames, regular, sound=True),
        'interlaced.mkv': lambda path: write_video(path, frames, regular, 'mpeg2video', flags='+ilme+ildct'),
        'odd.mkv': lambda path: write_video(path, moving_frames(5, 46, 62), regular[:5], pixels='yuv444p'),
        'rotated.mp4': lambda path: write_video(path, frames, regular, 'libx264', rotation=90, qp='10'),
        'mp4.mp4': lambda path: write_video(path, frames, regular, 'libx264', qp='10')}
    command = [sys.executable, '-m', 'basicsr_stvsr', 'restore']
    takes = subprocess.run([*command, '--help'], capture_output=True, text=True).stdout
    precision = ['--precision', 'fp32'] if 'fp32' in takes else []
    with tempfile.TemporaryDirectory() as folder:
        for name, write in videos.items():
            write(Path(folder) / name)
        for name in videos:
            for model in ('mbnet-small', 'fisr-small', 'fstrn-small') if name == 'cuts.mkv' else ('fisr-small',):
                output = Path(folder) / f'{model}_{name}.mkv'
                process = subprocess.run(
                    [*command, str(Path(folder) / name), str(output), '--model', model, '--codec', 'ffv1', *precision,
                     *(['--deinterlace'] if name == 'interlaced.mkv' else [])],
                    capture_output=True, text=True)
                yield f'{name}, {model}: exit code', process.returncode
                yield f'{name}, {model}', (decoded(output) if process.returncode == 0 else
                                           process.stderr.replace(folder, '')[-1000:])


def decoded(path: Path) -> list[str]:
    found = []
    with av.open(str(path)) as container:
        for stream in container.streams:
            found.append(f'{stream.type} {stream.codec_context.name}')
        for frame in container.decode():
            is_video = isinstance(frame, av.VideoFrame)
            values = frame.to_ndarray(format='rgb48le') if is_video else frame.to_ndarray()
            found.append(f'{type(frame).__name__} {float(frame.time or 0):.6f} {digest(values)}')
    return found


PARTS = {'networks': networks, 'training': training, 'restoring': restoring, 'messages': messages}


def main() -> int:
    folder, *parts = sys.argv[1:]
    torch.set_num_threads(1)
    for part in parts or PARTS:
        records = {}
        for name, value in PARTS[part]():
            records[name] = value
            print(f'{part}: {name}', file=sys.stderr)
        (Path(folder) / f'{part}.json').write_text(json.dumps(records, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
