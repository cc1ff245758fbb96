"""Write the meta info file of BasicSR's video data sets: `<clip> <number of frames> (h,w,c)` on each line.

    python scripts/data_preparation/generate_meta_info.py --input datasets/reds_train_sharp.lmdb \
        --output datasets/meta_info_reds.txt

This is the `meta_info_file` of the options, not the `meta_info.txt` inside an LMDB.
"""
import argparse
from pathlib import Path

from script_util import run

from basicsr_stvsr.io.opening import open_reader


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, help='folder of clips, LMDB or video: the ground truth')
    parser.add_argument('--output', type=Path, required=True, help='text file')
    parser.add_argument('--force', action='store_true', help='replace the output if it exists')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.output.exists() and not args.force:
        raise FileExistsError(f'{args.output} exists already; --force replaces it')
    with open_reader(args.input) as reader:
        lines = []
        for clip in reader.clips:
            if len(clip.split()) != 1:
                raise ValueError(f'{args.input}: BasicSR cannot read clip names with white space, such as {clip!r}')
            height, width = reader.frame_size(clip)
            lines.append(f'{clip} {reader.num_frames(clip)} ({height},{width},3)\n')
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(''.join(lines), encoding='ascii')
    print(f'Wrote {len(lines)} clips to {args.output}.')
    return 0


if __name__ == '__main__':
    run(main)
