"""Draw the structural figures of the documentation.

    python scripts/draw_figures.py            # writes docs/package.png and docs/mbnet_rounds.png

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
    axes.text(x, y + 0.082 * lines, title, ha='center', va='center', fontsize=10.5, color=INK)
    if details:
        axes.text(x, y - 0.09, details, ha='center', va='center', fontsize=8, color=INK, linespacing=1.25)


def arrow(axes: Axes, start: Point, end: Point, text: str = '', style: str = '-') -> None:
    """Draw an arrow, with a text on its middle."""
    axes.annotate('', end, start, arrowprops={
        'arrowstyle': '-|>', 'color': ARROW, 'linewidth': 1.2, 'linestyle': style, 'shrinkA': 0, 'shrinkB': 0})
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.text(x, y, text, ha='center', va='center', fontsize=8, color=INK, linespacing=1.2,
                  bbox={'facecolor': GROUND, 'edgecolor': 'none', 'pad': 1.5})


def draw_package() -> Figure:
    """Draw the parts that an option file combines, from files on disk to scores."""
    figure, axes = canvas(10, 4.3)
    top, bottom = 2.75, 0.75
    box(axes, (5, 3.9), 'option file\noptions/*.yml names all of them', TRUTH, 3.2)
    for x, text, color in (
        (1.0, 'files\nLMDB, folder,\nvideo, .yuv', DATA),
        (3.0, 'data set\ndata/', DATA),
        (5.0, 'model\nmodels/: the loop', NETWORK),
        (7.0, 'losses\nlosses/', NETWORK),
        (9.0, 'checkpoints\nand logs\nexperiments/', RESULT),
    ):
        box(axes, (x, top), text, color, 1.45, 0.8)
    box(axes, (5, bottom), 'network\narchs/', NETWORK, 1.45, 0.8)
    box(axes, (3, bottom), 'video\nvideo/', DATA, 1.45, 0.8)
    box(axes, (7, bottom), 'metrics\nmetrics/', NETWORK, 1.45, 0.8)
    box(axes, (9, bottom), 'scores\nresults/', RESULT, 1.45, 0.8)
    box(axes, (1, bottom), 'a film\nin.mp4, out.mp4', DATA, 1.45, 0.8)
    for x in (3, 5, 7):
        arrow(axes, (5 + (x - 5) * 0.6, 3.59), (x, top + 0.4), style=':')
    arrow(axes, (1.73, top), (2.27, top))
    arrow(axes, (3.73, top), (4.27, top))
    axes.text(4, top + 0.22, 'lq, gt', ha='center', fontsize=8, color=INK)
    arrow(axes, (5.73, top), (6.27, top))
    arrow(axes, (7.73, top), (8.27, top))
    arrow(axes, (4.85, top - 0.4), (4.85, bottom + 0.4))
    arrow(axes, (5.15, bottom + 0.4), (5.15, top - 0.4))
    axes.text(4.78, 1.75, '(B, T, C, H, W)', ha='right', va='center', fontsize=8, color=INK)
    axes.text(5.22, 1.75, '(B, U, C, sH, sW)', ha='left', va='center', fontsize=8, color=INK)
    arrow(axes, (5.73, top - 0.25), (6.9, bottom + 0.4))
    arrow(axes, (7.73, bottom), (8.27, bottom))
    arrow(axes, (2.27, bottom + 0.12), (1.73, bottom + 0.12))
    arrow(axes, (1.73, bottom - 0.12), (2.27, bottom - 0.12))
    arrow(axes, (3.73, bottom - 0.12), (4.27, bottom - 0.12))
    arrow(axes, (4.27, bottom + 0.12), (3.73, bottom + 0.12))
    return figure


def draw_mbnet_rounds() -> Figure:
    """Draw MBNet's two rounds: each interpolates between the frames it has upscaled, and passes all of them on."""
    figure, axes = canvas(10, 4.2)
    box(axes, (0.95, 3.2), 'a, b\ntwo LR frames', DATA, 1.5)
    box(axes, (0.95, 0.9), 'flow net\nOFRNet, once', NETWORK, 1.5)
    arrow(axes, (0.95, 2.89), (0.95, 1.21))
    for left, name in ((2.3, 'round 1'), (6.45, 'round 2, same weights')):
        axes.add_patch(FancyBboxPatch((left, 0.3), 3.3, 3.4, boxstyle='round,pad=0,rounding_size=0.12',
                                      facecolor='none', edgecolor='#b9c0ca', linewidth=1, linestyle='--'))
        axes.text(left + 1.65, 3.9, name, ha='center', va='center', fontsize=10.5, color=INK)
        near, far = left + 0.95, left + 2.55
        box(axes, (near, 3.2), 'VSR net\nRDN', NETWORK, 1.4)
        box(axes, (near, 2.05), 'SR$_a$, SR$_b$', RESULT, 1.1, 0.42)
        box(axes, (near, 0.9), 'refinement\nPAC: flows to HR', NETWORK, 1.4)
        box(axes, (far, 2.05), 'VFI net\nGridNet', NETWORK, 1.1)
        box(axes, (far, 0.9), 'SR$_t$', RESULT, 0.8, 0.42)
        arrow(axes, (near, 2.89), (near, 2.26))
        arrow(axes, (near, 1.84), (near, 1.21))
        arrow(axes, (near + 0.55, 2.05), (far - 0.55, 2.05), 'warp')
        arrow(axes, (near + 0.7, 1.1), (far - 0.8, 1.92), style=':')
        arrow(axes, (near + 0.7, 3.2), (far, 2.36), 'feature')
        arrow(axes, (far, 1.74), (far, 1.11))
    arrow(axes, (1.7, 3.2), (2.55, 3.2))
    arrow(axes, (1.7, 0.9), (2.55, 0.9))
    arrow(axes, (1.4, 1.21), (2.55, 3.0))
    arrow(axes, (5.25, 0.9), (6.7, 3.0), 'SR frames;\nSR$_t$ warped\nto both ends')
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {'package.png': draw_package, 'mbnet_rounds.png': draw_mbnet_rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--into', type=Path, default=DOCS, metavar='FOLDER', help='(default: docs)')
    folder = parser.parse_args().into
    for name, draw in FIGURES.items():
        draw().savefig(folder / name, dpi=120, metadata={'Software': None})
        print(folder / name)


if __name__ == '__main__':
    main()
