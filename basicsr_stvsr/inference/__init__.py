"""Run any network on any clip: windows, tiles, scene cuts and precision."""
from .tiles import Tiling
from .windows import restore_clip, restore_frames, restore_stream

__all__ = ['Tiling', 'restore_clip', 'restore_frames', 'restore_stream']
