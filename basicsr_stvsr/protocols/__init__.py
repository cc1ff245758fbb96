"""Evaluation protocols: data sets, frames, channels, borders, averaging, and the scores published with them.

The file of a protocol holds the options `scale`, `datasets` and `val`; files in `options/` build on it too. The table
below adds the scores printed in papers. `stvsr test --protocol NAME --model MODEL` runs one; see docs/evaluation.md.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of a table in a paper.

    Attributes:
        method: name in the paper.
        scores: 'data set/metric/group' -> score, with the names in the protocol's file; groups are 'all', 'vsr' (given
            frames) and 'vfi' (interpolated frames).
        note: remark on the row.
    """
    method: str
    scores: Mapping[str, float]
    note: str = ''


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation protocol.

    Attributes:
        file: its options.
        about: description in one line.
        source: of the published rows.
        published: rows printed in papers.
    """
    file: Path
    about: str
    source: str = ''
    published: tuple[Published, ...] = ()


def _table3(method: str, ucf101: str, middlebury: str, vid4: str, vimeo90k: str, apart: str = '', note: str = '') -> (
        Published):
    """Parse a row of MBNet's Table 3: PSNR/SSIM/NIQE by data set, then PSNR of Vimeo-90K's given and new frames."""
    scores = {}
    for dataset, text in (('ucf101', ucf101), ('middlebury_other', middlebury), ('vid4', vid4), ('vimeo90k', vimeo90k)):
        for metric, value in zip(('psnr', 'ssim', 'niqe'), text.split('/') if text else ()):  # noqa: B905  (Vid4: no NIQE)
            scores[f'{dataset}/{metric}/all'] = float(value)
    for group, value in zip(('vsr', 'vfi'), apart.split('/') if apart else (), strict=bool(apart)):
        scores[f'vimeo90k/psnr/{group}'] = float(value)
    return Published(method=method, scores=MappingProxyType(scores), note=note)


def _table1(method: str, vsr: str, vfi: str, both: str) -> Published:
    """Parse a row of MBNet's Table 1 or 2: PSNR[/SSIM] of given frames, of new ones, and of all."""
    scores = {f'vimeo90k_00001/{metric}/{group}': float(value)
              for group, text in (('vsr', vsr), ('vfi', vfi), ('all', both))
              for metric, value in zip(('psnr', 'ssim'), text.split('/'))}  # noqa: B905  (Table 2 has no SSIM)
    return Published(method=method, scores=MappingProxyType(scores))


def _table5(weights: str, vsr: float, vfi: float, both: float) -> Published:
    """Parse a row of MBNet's Table 5, whose mean is over triplets."""
    scores = {'vimeo90k_00001/psnr/vsr': vsr, 'vimeo90k_00001/psnr/vfi': vfi}
    return Published(method=f'loss weights {weights}', scores=MappingProxyType(scores),
                     note=f'mean by triplets {both}, which val.overlap: all gives')


def _vid4(method: str, psnr: float, ssim: float, percep_dist: float) -> Published:
    scores = {'vid4/psnr/all': psnr, 'vid4/ssim/all': ssim, 'vid4/percep_dist/all': percep_dist}
    return Published(method=method, scores=MappingProxyType(scores))


_MBNET = 'How Video Super-Resolution and Frame Interpolation Mutually Benefit (ACM MM 2021)'
_HOFFR = "HOFFR's tables were not at hand"
_ADAPTIVE = 'VSRResNet with spatially adaptive losses; how its numbers were made is not known'

PROTOCOLS = {
    'mbnet-table3': Protocol(
        file=FOLDER / 'mbnet-table3.yml',
        about='x4 in space, x2 in time: Vid4, Middlebury-other, UCF101, Vimeo-90K; RGB',
        source=f'{_MBNET}, Table 3',
        published=(
            _table3('DBPN + ToFlow', '28.112/0.902/8.630', '26.012/0.808/5.901', '', '29.867/0.915/7.120'),
            _table3('DBPN + DAIN', '28.175/0.902/8.755', '26.268/0.809/5.869', '', '30.021/0.918/7.223'),
            _table3('DAIN + RBPN', '27.631/0.909/8.932', '25.744/0.811/5.814', '', '29.422/0.916/7.253'),
            _table3('RBPN + DAIN', '28.729/0.919/8.769', '26.766/0.821/5.522', '', '30.455/0.926/7.081'),
            _table3('RBPN + DAIN, joint', '28.856/0.920/8.799', '26.923/0.823/5.444', '', '30.623/0.927/7.183'),
            _table3('TDAN + AdaCoF', '30.515/0.895/8.572', '28.859/0.852/5.361', '24.593/0.788', '32.582/0.923/7.132',
                    '33.866/30.869'),
            _table3('STARnet', '29.111/0.924/8.787', '27.115/0.827/5.423', '', '30.830/0.929/7.154', '32.349/30.704'),
            _table3('Zooming Slow-Mo', '30.733/0.911/8.805', '28.396/0.855/5.375', '24.418/0.775', '32.919/0.926/7.165',
                    '34.213/31.194'),
            _table3('MBNet', '30.852/0.937/8.739', '29.045/0.857/5.359', '24.505/0.883', '33.048/0.928/7.077',
                    '34.361/31.297', 'the SSIM of Vid4 is out of line with those of the others'))),
    'mbnet-ablation': Protocol(
        file=FOLDER / 'mbnet-ablation.yml',
        about='x4 in space, x2 in time: the 58 clips of folder 00001 of the test list of Vimeo-90K; RGB',
        source=f'{_MBNET}, Tables 1, 2 and 5',
        published=(
            _table1('MBNet', '33.48/.922', '30.98/.906', '32.41/.915'),
            _table1('with ResNet features', '33.24/.919', '30.72/.902', '32.16/.912'),
            _table1('without features', '33.04/.919', '30.56/.901', '31.98/.911'),
            _table1('without feedback of VFI', '33.18/.918', '30.88/.904', '32.20/.912'),
            _table1('with PWC-Net', '33.23/.919', '30.83/.903', '32.20/.912'),
            _table1('with RBPN, without feedback of VFI', '32.64/.911', '30.15/.894', '31.57/.904'),
            _table1('with RBPN', '33.13/.918', '30.27/.897', '31.91/.909'),
            _table1('with U-Net', '33.46/.922', '24.16/.775', '29.53/.859'),
            _table1('D = 8, C = 4, one round', '32.29', '29.88', '31.26'),
            _table1('D = 8, C = 4, two rounds', '32.78', '30.26', '31.70'),
            _table1('D = 8, C = 8, one round', '32.53', '30.06', '31.47'),
            _table1('D = 8, C = 8, two rounds', '33.25', '30.74', '32.17'),
            _table1('D = 16, C = 8, one round', '33.02', '30.31', '31.85'),
            _table1('D = 16, C = 8, two rounds', '33.87', '31.17', '32.72'),
            _table5('1, 0.5, 0.01, 0.01', 33.73, 30.94, 32.80), _table5('1, 1, 0.01, 0.01', 33.8, 30.76, 32.79),
            _table5('1, 0.5, 0.001, 0.001', 33.79, 30.66, 32.75), _table5('1, 0.5, 0.1, 0.1', 33.76, 30.72, 32.75),
            _table5('1, 0.5, 1, 1', 32.79, 30.74, 32.11))),
    'fisr-4k': Protocol(
        file=FOLDER / 'fisr-4k.yml',
        about='x2 in space, x2 in time: ten scenes of 4K video; unquantised YUV',
        source='FISR: Deep Joint Frame Interpolation and Super-Resolution (AAAI 2020), with the released weights',
        published=(Published(method='FISR', scores=MappingProxyType({
            'fisr_test/psnr_yuv/vfi': 37.86, 'fisr_test/psnr_yuv/vsr': 48.07, 'fisr_test/ssim_yuv/vfi': 0.9743,
            'fisr_test/ssim_yuv/vsr': 0.9921})),)),
    'fstrn-5clips': Protocol(
        file=FOLDER / 'fstrn-5clips.yml',
        about='x4: five clips, of which an area is cut out; blur and bicubic; Y, not rounded',
        source='Fast Spatio-Temporal Residual Network for Video Super-Resolution (CVPR 2019); a figure has Dancing, '
               'perhaps one frame of it: FSTRN 28.59 / 0.88, bicubic 26.62 / 0.82, BRCN 28.05 / 0.86, VESPCN 27.55 / '
               '0.84'),
    'vsrresnet-vid4': Protocol(
        file=FOLDER / 'vsrresnet-vid4-x4.yml', about='x4: Vid4; Y', source=_ADAPTIVE,
        published=(_vid4('VSRResFeatGAN', 24.50, 0.7023, 0.1043), _vid4('adaptive losses', 24.72, 0.7233, 0.1010))),
    'vsrresnet-vid4-x3': Protocol(
        file=FOLDER / 'vsrresnet-vid4-x3.yml', about='x3: Vid4; Y', source=_ADAPTIVE,
        published=(_vid4('VSRResFeatGAN', 26.53, 0.8148, 0.0668), _vid4('adaptive losses', 26.80, 0.8256, 0.0641))),
    'vsrresnet-vid4-x2': Protocol(
        file=FOLDER / 'vsrresnet-vid4-x2.yml', about='x2: Vid4; Y', source=_ADAPTIVE,
        published=(_vid4('VSRResFeatGAN', 30.90, 0.9241, 0.0283), _vid4('adaptive losses', 31.64, 0.9327, 0.0257))),
    'reds4': Protocol(
        file=FOLDER / 'reds4.yml', about='x4: blurred frames of the four clips of REDS4; RGB',
        source=_HOFFR),
    'dvd10': Protocol(
        file=FOLDER / 'dvd10.yml',
        about='x4: blurred frames of the ten test clips of DVD, all of them, not aligned; RGB',
        source=_HOFFR),
}


def protocol_of(name: str) -> Protocol:
    """Return the protocol of a name; raise ValueError if it is unknown."""
    if name not in PROTOCOLS:
        raise ValueError(f'no protocol {name!r}, expected one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]
