"""Any network over any clip: windows and tiles, scene cuts, precision."""
from .windows import Tiling, restore_clip, restore_frames, restore_stream

__all__ = ['Tiling', 'restore_clip', 'restore_frames', 'restore_stream']
