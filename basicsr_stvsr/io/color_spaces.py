"""Colour spaces of clips: RGB, YUV, and its Y plane alone, one channel, for networks that restore luma.

YUV follows MATLAB's rgb2ycbcr and most video files (BT.601, studio swing): of 0-255, Y uses 16-235, and U and V use
16-240. Tensors hold these numbers divided by 255.
"""
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

Color = Literal['rgb', 'yuv', 'y']
StoredColor = Literal['rgb', 'yuv']  # of files
NUM_CHANNELS: dict[Color, int] = {'rgb': 3, 'yuv': 3, 'y': 1}

# Rows: Y, U, V; columns: R, G, B in 0-255. The numbers of BasicSR's rgb2ycbcr, which are MATLAB's.
TO_YUV = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
YUV_OFFSET = np.array([16.0, 128.0, 128.0])
TO_RGB = np.linalg.inv(TO_YUV)

# For OpenCV arrays, with channels in reverse order: V, U, Y from B, G, R
_BGR_TO_VUY = np.column_stack((TO_YUV, YUV_OFFSET))[::-1][:, [2, 1, 0, 3]]
_VUY_TO_BGR = np.column_stack((TO_RGB, -TO_RGB @ YUV_OFFSET))[::-1][:, [2, 1, 0, 3]]

_NO_CHROMA = 128  # U and V of grey
_OUT_OF_GAMUT = 24  # levels; rounding moves no colour that far out of gamut
_LARGEST_SHARE = 0.1  # of the pixels


def convert_clip(clip: Tensor, source: Color, target: Color) -> Tensor:
    """Convert a clip from one colour space to another, without clipping or rounding.

    A clip of Y alone becomes grey.

    Args:
        clip: (..., 3, H, W), or (..., 1, H, W) for 'y'; float, 0-1.
        source, target: 'rgb', 'yuv' or 'y'.

    Raises:
        ValueError: the number of channels does not match `source`.
    """
    if clip.ndim < 3 or clip.shape[-3] != NUM_CHANNELS[source]:
        raise ValueError(f'expected a clip in {source}, (..., {NUM_CHANNELS[source]}, H, W), got {tuple(clip.shape)}')
    if source == target:
        return clip
    if source == 'y':
        chroma = clip.new_full((*clip.shape[:-3], 2, *clip.shape[-2:]), _NO_CHROMA / 255)
        return convert_clip(torch.cat([clip, chroma], dim=-3), 'yuv', target)
    if target == 'y':
        return convert_clip(clip, source, 'yuv')[..., :1, :, :]
    offset = torch.tensor(YUV_OFFSET / 255, dtype=clip.dtype, device=clip.device).view(3, 1, 1)
    matrix = torch.tensor(TO_YUV if target == 'yuv' else TO_RGB, dtype=clip.dtype, device=clip.device)
    if target == 'yuv':
        return torch.einsum('ij,...jhw->...ihw', matrix, clip) + offset
    return torch.einsum('ij,...jhw->...ihw', matrix, clip - offset)


def convert_frame(frame: np.ndarray, source: Color, target: Color) -> np.ndarray:
    """Convert a frame in OpenCV's layout to another colour space; round it, and clip it to 0-255.

    Channels are B, G, R or V, U, Y: OpenCV reads an image file that holds Y, U, V in place of R, G, B in that order. A
    frame of Y alone becomes grey.

    Args:
        frame: uint8 (h, w, 3), or (h, w, 1) for 'y'.
        source, target: 'rgb', 'yuv' or 'y'.

    Raises:
        ValueError: the number of channels does not match `source`.
    """
    if frame.ndim != 3 or frame.shape[2] != NUM_CHANNELS[source]:
        raise ValueError(f'expected a frame in {source}, (h, w, {NUM_CHANNELS[source]}), got {frame.shape}')
    if source == target:
        return frame
    if source == 'y':
        chroma = np.full((*frame.shape[:2], 2), _NO_CHROMA, np.uint8)
        return convert_frame(np.concatenate([chroma, frame], axis=2), 'yuv', target)
    if target == 'y':
        # Convert all three planes, as OpenCV rounds some halves differently for a single plane. Copy, so that the
        # result does not keep the other two planes in memory.
        return convert_frame(frame, source, 'yuv')[..., 2:].copy()
    matrix = _BGR_TO_VUY if target == 'yuv' else _VUY_TO_BGR
    # In float, as OpenCV's byte arithmetic is off by up to 0.6 levels; adding 0 rounds and clips
    converted = cv2.transform(frame.astype(np.float32), matrix)
    return cv2.add(converted, 0, dtype=cv2.CV_8U)  # type: ignore[call-overload]  # the stubs lack numbers


def levels_of(frame: Tensor) -> np.ndarray:
    """Round a frame to 8 bits. Values equal those of BasicSR's `tensor2img`, in a fifth of the time.

    Args:
        frame: (C, H, W), float, 0-1; values outside are clipped.

    Returns:
        uint8 (C, H, W), contiguous.
    """
    if frame.device.type != 'cpu':  # fewer bytes to copy back
        return frame.mul(255).clamp_(0, 255).round_().to(torch.uint8).cpu().numpy()
    planes = frame.detach().float().contiguous().numpy()
    levels = np.empty(planes.shape, np.uint8)
    for plane, out in zip(planes, levels, strict=True):
        cv2.addWeighted(plane, 255, plane, 0, 0, out, cv2.CV_8U)  # convertScaleAbs would turn -1 into 255
    return levels


def to_image(frame: Tensor) -> np.ndarray:
    """Convert an RGB frame (3, H, W), float, 0-1, to uint8 (H, W, 3), BGR, for OpenCV and BasicSR's metrics."""
    red, green, blue = levels_of(frame)
    return cv2.merge((blue, green, red))


def check_yuv(frames: Sequence[np.ndarray]) -> None:
    """Raise ValueError if frames cannot be YUV, because too many of their colours do not exist in RGB.

    Frames converted from RGB stay within RGB's cube, except for a few per cent of their pixels where half-size chroma
    meets saturated edges. RGB frames read as YUV do not: their black is far below the black of YUV, and their saturated
    colours do not exist. Grey frames, with three equal planes, are detected separately.

    Args:
        frames: uint8 (h, w, 3), V, U, Y. Pass frames of several clips, as the colours of one may not suffice.
    """
    if all(frame.min() < frame.max() and (frame == frame[..., :1]).all() for frame in frames):
        raise ValueError('is grey: its three channels are equal, but in YUV, grey has 128 in two channels; convert it, '
                         'or read it as RGB')
    shares = []
    for frame in frames:
        bgr = cv2.transform(frame.astype(np.float32), _VUY_TO_BGR)
        shares.append(((bgr < -_OUT_OF_GAMUT) | (bgr > 255 + _OUT_OF_GAMUT)).any(axis=2).mean())
    if np.mean(shares) > _LARGEST_SHARE:
        raise ValueError(f'does not look like YUV: {np.mean(shares):.0%} of its pixels are colours outside RGB, as '
                         'when RGB is read as YUV')
