"""Draw the structural figures of the documentation.

    python scripts/draw_figures.py            # writes docs/package.png, docs/mbnet_rounds.png, ...

Figures of networks are narrow and run from top to bottom, so that a phone shows their text large enough.

docs/hoffr_frames.png shows scores, and is drawn by scripts/plot_frame_scores.py.
"""
import argparse
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

DOCS = Path(__file__).resolve().parents[1] / 'docs'
# Pictures have a background, so that they are legible on white and dark pages.
GROUND, INK, ARROW = '#ffffff', '#20242c', '#5a6472'
DATA, NETWORK, RESULT, TRUTH = '#dbe7f5', '#fde6c8', '#d9efdc', '#eeeeee'
TITLE, DETAILS = 11, 9  # points
Point = tuple[float, float]


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches; one unit is one inch, and y points up."""
    figure = Figure(figsize=(width, height), facecolor=GROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis('off')
    return figure, axes


def box(axes: Axes, center: Point, text: str, color: str, width: float = 1.7, height: float = 0.62) -> None:
    """Draw a rounded box; the first line of its text is larger."""
    x, y = center
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height,
                                  boxstyle='round,pad=0,rounding_size=0.09', facecolor=color, edgecolor=ARROW))
    title, _, details = text.partition('\n')
    lines = details.count('\n') + 1 if details else 0
    axes.text(x, y + 0.09 * lines, title, ha='center', va='center', fontsize=TITLE, color=INK)
    if details:
        axes.text(x, y - 0.1, details, ha='center', va='center', fontsize=DETAILS, color=INK, linespacing=1.25)


def arrow(axes: Axes, start: Point, end: Point, text: str = '', style: str = '-') -> None:
    """Draw an arrow, with a text on its middle."""
    axes.annotate('', end, start, arrowprops={
        'arrowstyle': '-|>', 'color': ARROW, 'linewidth': 1.2, 'linestyle': style, 'shrinkA': 0, 'shrinkB': 0})
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x, y, text, ha='center', va='center', fontsize=DETAILS, color=INK, linespacing=1.2,
                  bbox={'facecolor': GROUND, 'edgecolor': 'none', 'pad': 1.5})


def draw_package() -> Figure:
    """Draw the parts that an option file combines, from files on disk to scores."""
    figure, axes = canvas(5.2, 6.0)
    left, right = 1.35, 3.85
    box(axes, (2.6, 5.55), 'option file\noptions/*.yml names data, network, losses, metrics', TRUTH, 4.2)
    for y, text, color in (
        (4.5, 'files\nfolder, LMDB, video, .yuv', DATA),
        (3.5, 'data set\ndata/', DATA),
        (2.5, 'model\nmodels/: the loop', NETWORK),
        (1.5, 'losses\nlosses/', NETWORK),
        (0.5, 'checkpoints and logs\nexperiments/', RESULT),
    ):
        box(axes, (left, y), text, color, 2.0)
    for y, text, color in (
        (4.5, 'a film\nin.mp4, out.mp4', DATA),
        (3.5, 'video\nvideo/', DATA),
        (2.5, 'network\narchs/', NETWORK),
        (1.5, 'metrics\nmetrics/', NETWORK),
        (0.5, 'scores\nresults/', RESULT),
    ):
        box(axes, (right, y), text, color, 2.0)
    arrow(axes, (left, 5.24), (left, 4.81), style=':')
    for y in (4.5, 3.5, 2.5, 1.5):
        arrow(axes, (left, y - 0.31), (left, y - 0.69))
    for y in (4.5, 3.5):
        arrow(axes, (right - 0.1, y - 0.31), (right - 0.1, y - 0.69))
        arrow(axes, (right + 0.1, y - 0.69), (right + 0.1, y - 0.31))
    arrow(axes, (left + 1.0, 2.6), (right - 1.0, 2.6))
    arrow(axes, (right - 1.0, 2.4), (left + 1.0, 2.4))
    arrow(axes, (left + 1.0, 2.25), (right - 1.0, 1.7))
    arrow(axes, (right, 1.19), (right, 0.81))
    return figure


def group(axes: Axes, corner: Point, width: float, height: float, title: str, place: Point) -> None:
    """Draw a dashed frame around boxes, from its lower left corner, with a title that is centred at `place`."""
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle='round,pad=0,rounding_size=0.12', facecolor='none',
                                  edgecolor='#b9c0ca', linewidth=1, linestyle='--'))
    note(axes, place, title)


def line(axes: Axes, *points: Point) -> None:
    """Draw an arrow with corners; it ends at the last point."""
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=ARROW, linewidth=1.2, solid_capstyle='butt')
    arrow(axes, points[-2], points[-1])


def note(axes: Axes, center: Point, text: str) -> None:
    axes.text(*center, text, ha='center', va='center', fontsize=DETAILS, color=INK, linespacing=1.2,
              bbox={'facecolor': GROUND, 'edgecolor': 'none', 'pad': 1.5})


def draw_mbnet_rounds() -> Figure:
    """Draw MBNet's rounds: each interpolates between the frames it has upscaled, and passes all of them on."""
    figure, axes = canvas(5.2, 6.2)
    left, right = 1.55, 3.75
    box(axes, (left, 5.8), 'two LR frames', DATA, 1.7, 0.5)
    box(axes, (right, 5.8), 'flow net\nOFRNet', NETWORK, 1.5)
    arrow(axes, (2.4, 5.8), (3.0, 5.8))
    group(axes, (0.3, 1.0), 4.65, 4.2, 'two rounds, same weights', (2.6, 5.2))
    box(axes, (left, 4.35), 'VSR net\nRDN', NETWORK)
    box(axes, (left, 3.3), 'two SR frames', RESULT, 1.6, 0.45)
    box(axes, (right, 3.3), 'flow refinement\nPAC: flows to HR', NETWORK, 1.8)
    box(axes, (left, 2.25), 'VFI net\nGridNet', NETWORK)
    box(axes, (left, 1.4), 'middle frame', RESULT, 1.6, 0.45)
    arrow(axes, (left, 5.55), (left, 4.66))
    arrow(axes, (right, 5.49), (right, 3.61))
    arrow(axes, (right, 4.55), (left + 0.85, 4.55), 'LR flows')
    arrow(axes, (left, 4.04), (left, 3.53))
    arrow(axes, (left + 0.8, 3.3), (right - 0.9, 3.3))
    arrow(axes, (left, 3.07), (left, 2.56))
    line(axes, (right, 2.99), (right, 2.25), (left + 0.85, 2.25))
    note(axes, (3.2, 2.25), 'warp by HR flows')
    arrow(axes, (left, 1.94), (left, 1.63))
    line(axes, (left - 0.85, 4.2), (0.55, 4.2), (0.55, 2.25), (left - 0.85, 2.25))
    axes.text(0.66, 3.0, 'feature', rotation=90, ha='center', va='center', fontsize=DETAILS, color=INK,
              bbox={'facecolor': GROUND, 'edgecolor': 'none', 'pad': 1})
    line(axes, (left + 0.8, 1.4), (4.75, 1.4), (4.75, 4.15), (left + 0.85, 4.15))
    note(axes, (3.1, 4.15), 'next round')
    box(axes, (left, 0.4), 'three HR frames', RESULT, 1.8, 0.5)
    arrow(axes, (left, 1.17), (left, 0.65))
    return figure


def draw_fisr_levels() -> Figure:
    """Draw FISR's three levels: each takes the frames at its size, and the output of the smaller one."""
    figure, axes = canvas(5.2, 5.6)
    box(axes, (2.6, 5.15), 'frames, flows, warped frames\nthree LR frames, four flows between neighbours', DATA, 4.4)
    heights = (3.9, 2.55, 1.2)
    for y, size, frames in zip(heights, ('quarter size', 'half size', 'full size'),
                               ('at half LR size', 'at LR size', 'at HR'), strict=True):
        box(axes, (2.0, y), f'encoder, decoder\n{size}', NETWORK, 1.8, 0.7)
        box(axes, (4.2, y), f'three frames\n{frames}', RESULT, 1.5, 0.7)
        arrow(axes, (2.9, y), (3.45, y))
        line(axes, (0.6, 4.84), (0.6, y), (1.1, y))
    for above, below in ((3.9, 2.55), (2.55, 1.2)):
        middle = (above + below) / 2
        line(axes, (4.2, above - 0.35), (4.2, middle), (2.0, middle), (2.0, below + 0.35))
        note(axes, (3.1, middle), 'to the next level')
    note(axes, (2.6, 0.4), 'Out: the middle frame, and the two frames\nhalfway to its neighbours, at twice the size')
    return figure


def draw_fstrn_blocks() -> Figure:
    """Draw FSTRN: five frames, blocks with a convolution in space and one in time, and the bilinear frame added."""
    figure, axes = canvas(5.2, 6.4)
    x = 2.0
    box(axes, (x, 6.0), 'five LR frames\nluma', DATA, 1.9)
    box(axes, (x, 5.05), 'Conv3d', NETWORK, 1.6, 0.45)
    group(axes, (0.75, 2.5), 3.4, 2.15, '5 fast\nresidual\nblocks', (3.5, 3.4))
    box(axes, (x, 3.85), 'Conv in space\n1 x 3 x 3', NETWORK, 1.6)
    box(axes, (x, 2.95), 'Conv in time\n3 x 1 x 1', NETWORK, 1.6)
    box(axes, (x, 1.85), 'Conv3d, upscaling', NETWORK, 2.0, 0.45)
    box(axes, (x, 0.45), 'the centre frame\n4 times as large', RESULT, 1.9)
    arrow(axes, (x, 5.69), (x, 5.28))
    arrow(axes, (x, 4.82), (x, 4.16))
    arrow(axes, (x, 3.54), (x, 3.26))
    arrow(axes, (x, 2.64), (x, 2.08))
    arrow(axes, (x, 1.62), (x, 0.76))
    line(axes, (x, 4.4), (0.95, 4.4), (0.95, 2.58), (x, 2.58))
    line(axes, (x, 4.75), (0.45, 4.75), (0.45, 2.3), (x, 2.3))
    note(axes, (0.45, 3.4), '+ first\nfeatures')
    line(axes, (x + 0.95, 6.0), (4.6, 6.0), (4.6, 1.2), (x, 1.2))
    note(axes, (4.6, 1.9), '+ bilinear\nupscaling')
    return figure


def draw_hoffr_recurrence() -> Figure:
    """Draw one step of HOFFR: flow to HR, the last output warped along it, two branches, attention."""
    figure, axes = canvas(5.2, 6.6)
    left, right = 1.4, 3.7
    box(axes, (left, 6.15), 'last HR frame', RESULT, 1.7, 0.5)
    box(axes, (right, 6.15), 'LR frame\nblurred, and the last one', DATA, 2.1)
    box(axes, (right, 5.1), 'flow network\ncoarse to fine, up to HR', NETWORK, 2.2)
    box(axes, (left, 5.1), 'warp', NETWORK, 1.2, 0.5)
    arrow(axes, (left, 5.9), (left, 5.35))
    arrow(axes, (right, 5.84), (right, 5.41))
    arrow(axes, (right - 1.1, 5.1), (left + 0.6, 5.1))
    note(axes, (2.3, 5.27), 'flow')
    box(axes, (left, 3.6), 'SR branch\n10 residual blocks', NETWORK, 1.8)
    box(axes, (right, 3.6), 'deblurring branch\n10 residual blocks', NETWORK, 2.0)
    box(axes, (2.55, 4.4), 'warped frame and LR frame', DATA, 2.6, 0.42)
    arrow(axes, (left, 4.85), (left, 4.61))
    line(axes, (right + 1.05, 6.15), (4.95, 6.15), (4.95, 4.4), (3.85, 4.4))
    arrow(axes, (left, 4.19), (left, 3.91))
    arrow(axes, (right, 4.19), (right, 3.91))
    box(axes, (right, 2.35), 'sharp LR frame\nfor the loss', RESULT, 1.7)
    arrow(axes, (right, 3.29), (right, 2.66))
    box(axes, (left, 2.35), 'attention\nweights both branches', NETWORK, 2.1)
    arrow(axes, (left, 3.29), (left, 2.66))
    line(axes, (right - 0.6, 3.29), (right - 0.6, 2.95), (left + 0.4, 2.95), (left + 0.4, 2.66))
    box(axes, (left, 1.4), 'upscaling', NETWORK, 1.4, 0.45)
    arrow(axes, (left, 2.04), (left, 1.63))
    box(axes, (left, 0.45), 'sharp HR frame', RESULT, 1.8, 0.5)
    arrow(axes, (left, 1.17), (left, 0.7))
    line(axes, (left - 0.9, 0.45), (0.2, 0.45), (0.2, 6.15), (left - 0.85, 6.15))
    axes.text(0.2, 3.4, 'to the next step', rotation=90, ha='center', va='center', fontsize=DETAILS, color=INK,
              bbox={'facecolor': GROUND, 'edgecolor': 'none', 'pad': 1})
    return figure


def draw_adaptive_gan() -> Figure:
    """Draw the losses of the adaptive GAN: activity of the true frame weights pixels and features."""
    figure, axes = canvas(5.2, 5.9)
    left, right = 1.35, 3.85
    box(axes, (left, 5.45), 'five LR frames\nbicubic, full size', DATA, 2.0)
    box(axes, (left, 4.4), 'VSRResNet\n15 residual blocks', NETWORK, 2.0)
    box(axes, (left, 3.35), 'middle frame', RESULT, 1.6, 0.5)
    box(axes, (right, 5.45), 'true frame', TRUTH, 1.6, 0.5)
    box(axes, (right, 4.4), 'local activity W\nhigh on edges, low on walls', TRUTH, 2.4)
    arrow(axes, (left, 5.14), (left, 4.71))
    arrow(axes, (left, 4.09), (left, 3.6))
    arrow(axes, (right, 5.2), (right, 4.71))
    group(axes, (0.15, 0.25), 4.95, 2.45, 'losses', (0.7, 2.7))
    box(axes, (1.05, 1.8), 'discriminator\ntrue or made?', NETWORK, 1.5, 0.7)
    box(axes, (3.6, 1.9), 'distance of pixels\nweighted by W', NETWORK, 2.2)
    box(axes, (3.6, 0.75), 'distance of features\nof VGG, weighted by W', NETWORK, 2.2)
    arrow(axes, (left - 0.3, 3.1), (left - 0.3, 2.15))
    line(axes, (left + 0.3, 3.1), (left + 0.3, 2.45), (2.1, 2.45), (2.1, 1.9), (2.5, 1.9))
    line(axes, (2.1, 2.45), (2.1, 0.75), (2.5, 0.75))
    arrow(axes, (right, 4.09), (right, 2.21))
    line(axes, (4.9, 4.09), (4.9, 0.75), (4.7, 0.75))
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    'package.png': draw_package,
    'mbnet_rounds.png': draw_mbnet_rounds,
    'fisr_levels.png': draw_fisr_levels,
    'fstrn_blocks.png': draw_fstrn_blocks,
    'hoffr_recurrence.png': draw_hoffr_recurrence,
    'adaptive_gan_losses.png': draw_adaptive_gan,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--into', type=Path, default=DOCS, metavar='FOLDER', help='(default: docs)')
    folder = parser.parse_args().into
    for name, draw in FIGURES.items():
        draw().savefig(folder / name, dpi=120, metadata={'Software': None})
        print(folder / name)


if __name__ == '__main__':
    main()
