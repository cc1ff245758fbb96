"""`stvsr compare`."""
import argparse
import sys

from ..utils.progress import progress_bar
from ..video.compare import write_comparison
from .browser import open_in_browser


def run(args: argparse.Namespace) -> int:
    with progress_bar(unit='frame') as bar:
        def show(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        comparison = write_comparison(args.videos, args.output, gt=args.gt, mode=args.mode,
                                      max_frames=args.max_frames, progress=show)
    for mean in comparison.means:
        psnr = 'equal' if mean.psnr is None else f'{mean.psnr:.2f} dB'
        print(f'{mean.compared}, {mean.group}: {psnr}' + (f', SSIM {mean.ssim:.4f}' if mean.ssim is not None else ''))
    for note in comparison.notes:
        print(f'note: {note}', file=sys.stderr)
    print(comparison.path)
    if args.open:
        open_in_browser(comparison.path.resolve().as_uri())
    return 0
