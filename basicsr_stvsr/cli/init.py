"""`stvsr init`."""
import argparse

from ..zoo.new_training import write_training


def run(args: argparse.Namespace) -> int:
    clips = write_training(args.system, args.data, args.output, args.start, overwrite=args.overwrite)
    print(f'{args.output}: {len(clips.training)} clips for training, {len(clips.validation)} for validation, '
          f'windows of {clips.num_frame} frames, patches of {clips.gt_size} pixels')
    if not clips.validation:
        print('There is only one clip, so validation uses it, too. scripts/data_preparation/extract_frames.py splits '
              'videos into scenes.')
    for name, reason in clips.left_out.items():
        print(f'left out {name}: {reason}')
    print(f'next: stvsr train -opt {args.output} --check')
    return 0
