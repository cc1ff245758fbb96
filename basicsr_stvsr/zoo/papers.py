"""The papers of the systems: what each does, in our words, and how to cite it.

BibTeX entries hold what our sources state: surnames only, and pages, DOIs and years where they are known.
"""
from typing import NamedTuple


class Paper(NamedTuple):
    """A paper.

    Attributes:
        key: its key in BibTeX.
        kind: type of the BibTeX entry.
        title: its title.
        authors: surnames.
        facts: further fields of the BibTeX entry.
        url: its page; None: unknown.
    """
    key: str
    kind: str
    title: str
    authors: tuple[str, ...]
    facts: dict[str, str]
    url: str | None = None

    def bibtex(self) -> str:
        fields = {'title': f'{{{self.title}}}', 'author': ' and '.join(self.authors), **self.facts}
        lines = [f'  {name:13} = {{{value}}},' for name, value in fields.items()]
        return '\n'.join([f'@{self.kind}{{{self.key},', *lines, '}'])


class System(NamedTuple):
    """A system of this package.

    Attributes:
        name: its name.
        page: its page, docs/<page>.md.
        task: what it is for, in OpenMMLab's words.
        abstract: what it does.
        papers: the papers to cite, the main one first.
    """
    name: str
    page: str
    task: str
    abstract: str
    papers: tuple[Paper, ...]


SPACE_TIME, SPACE = 'Space-Time Video Super-Resolution', 'Video Super-Resolution'

SYSTEMS = {
    'mbnet': System(
        'MBNet', 'mbnet', SPACE_TIME,
        'MBNet turns two low-resolution frames into three frames of four times the size: the given ones and the one '
        'halfway between them. A super-resolution network and an interpolation network take turns. Each works on the '
        "other's output, and the optical flow between the frames is refined on the way. The weights are the same in "
        'every round.',
        (Paper('mbnet', 'inproceedings', 'How Video Super-Resolution and Frame Interpolation Mutually Benefit',
               ('Zhou', 'Lu', 'Li', 'Yan', 'Xue'),
               {'booktitle': 'ACM International Conference on Multimedia', 'year': '2021',
                'doi': '10.1145/3474085.3475672'}, 'https://doi.org/10.1145/3474085.3475672'),)),
    'fisr': System(
        'FISR', 'fisr', SPACE_TIME,
        'FISR doubles size and frame rate with one network. It reads three frames, the optical flow between them and '
        'the warped frames, at three scales, and returns three frames in YUV. A loss over overlapping windows compares '
        'frames, and differences of frames, that several windows predict.',
        (Paper('fisr', 'inproceedings',
               'FISR: Deep Joint Frame Interpolation and Super-Resolution with a Multi-Scale Temporal Loss',
               ('Kim', 'Oh', 'Kim'),
               {'booktitle': 'AAAI Conference on Artificial Intelligence', 'year': '2020',
                'eprint': '1912.07213', 'archiveprefix': 'arXiv'}, 'https://arxiv.org/abs/1912.07213'),)),
    'fstrn': System(
        'FSTRN', 'fstrn', SPACE,
        'FSTRN enlarges the middle of five frames four times, on luma, without motion estimation. Its residual blocks '
        'split each 3D convolution into one in space and one in time. A second residual connection goes from the '
        'low-resolution frames to the output.',
        (Paper('fstrn', 'inproceedings', 'Fast Spatio-Temporal Residual Network for Video Super-Resolution',
               ('Li', 'He', 'Du', 'Zhang', 'Xu', 'Tao'),
               {'booktitle': 'IEEE/CVF Conference on Computer Vision and Pattern Recognition', 'year': '2019',
                'eprint': '1904.02870', 'archiveprefix': 'arXiv'}, 'https://arxiv.org/abs/1904.02870'),)),
    'hoffr': System(
        'HOFFR', 'hoffr', SPACE,
        'HOFFR sharpens and enlarges blurred frames four times, one after the other. It estimates optical flow at high '
        'resolution and warps its last output along it, as an input for the next frame. Two branches, one for '
        'deblurring and one for super-resolution, are fused by channel attention.',
        (Paper('hoffr', 'article',
               'High-resolution optical flow and frame-recurrent network for video super-resolution and deblurring',
               ('Fang', 'Zhan'),
               {'journal': 'Neurocomputing', 'volume': '489', 'pages': '128--138', 'year': '2022'}),)),
    'adaptive_gan': System(
        'AdaptiveGAN', 'adaptive_gan', SPACE,
        'VSRResNet enlarges the middle of five frames by 2, 3 or 4, on luma. Here it is trained as a GAN, with '
        'distances of pixels and of VGG features. Both are weighted by the local activity of the image, so that an '
        'error on an edge counts for more than one on a flat wall.',
        (Paper('adaptivegan', 'misc', 'Spatially Adaptive Losses for Video Super-resolution with GANs',
               ('Wang', 'Lucas', 'Lopez-Tapia', 'Wu', 'Molina', 'Katsaggelos'), {}),
         Paper('vsrresfeatgan', 'article',
               'Generative Adversarial Networks and Perceptual Losses for Video Super-Resolution',
               ('Lucas', 'Lopez-Tapia', 'Molina', 'Katsaggelos'),
               {'journal': 'IEEE Transactions on Image Processing', 'volume': '28', 'number': '7',
                'pages': '3312--3327', 'year': '2019', 'doi': '10.1109/TIP.2019.2895768'},
               'https://doi.org/10.1109/TIP.2019.2895768'))),
}


def citation(name: str) -> str:
    """Return the BibTeX of a system's papers as a block of Markdown."""
    return '\n'.join(['```bibtex', *(paper.bibtex() for paper in SYSTEMS[name].papers), '```'])
