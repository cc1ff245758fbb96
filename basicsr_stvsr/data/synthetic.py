"""Clips of exactly known motion: photographs seen through a moving camera.

Every frame is rendered directly from a photograph, along the closed-form map of its instant. Errors and blur do not
accumulate over a clip, and the flow between any two instants is known up to rounding.

Points are arrays (2, ...), x then y, in pixels; whole numbers are pixel centres. Times are in frames and may be
fractional.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

SUPERSAMPLING = 2  # points per output pixel and axis; enough up to two photograph pixels per frame pixel


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (2, ...) by an affine 3x3 matrix."""
    return np.tensordot(matrix[:2, :2], points, axes=1) + matrix[:2, 2].reshape(2, *[1] * (points.ndim - 1))


def _corners(height: int, width: int) -> np.ndarray:
    """Return the outermost pixel centres (2, 4) of a frame."""
    return np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1]])


def pixel_grid(height: int, width: int, *, per_pixel: int = 1) -> np.ndarray:
    """Return points (2, height * per_pixel, width * per_pixel) spread evenly over the pixels of a frame."""
    y, x = ((np.arange(size * per_pixel) + 0.5) / per_pixel - 0.5 for size in (height, width))
    return np.stack(np.meshgrid(x, y))


@dataclass(frozen=True)
class CameraPath:
    """A camera above a flat photograph: pan, zoom and rotation as functions of time.

    At time t, the frame point at `offset` from the middle of the frame shows the photograph at

        centre + s * velocity + scale * exp(-s * zoom) * R(angle + s * rotation) @ offset,    s = t - moment

    Attributes:
        centre: photograph point in the middle of the frame at s = 0.
        velocity: photograph pixels (x, y) that the camera moves a frame; what it sees moves the opposite way.
        scale: photograph pixels per frame pixel at s = 0.
        zoom: growth of the magnification a frame, as an exponent; positive comes closer.
        rotation: radians a frame, from the x axis towards the y axis.
        angle: radians by which the camera is turned at s = 0.
        moment: the time at which s = 0.
    """

    centre: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    zoom: float = 0.0
    rotation: float = 0.0
    angle: float = 0.0
    moment: float = 0.0

    def frame_to_photo(self, t: float, height: int, width: int) -> np.ndarray:
        """Return the affine map (3, 3) from frame points at time t to photograph points."""
        t = t - self.moment
        angle = self.angle + t * self.rotation
        scale = self.scale * math.exp(-t * self.zoom)
        linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        matrix = np.eye(3)
        matrix[:2, :2] = linear
        matrix[:2, 2] = np.asarray(self.centre) + t * np.asarray(self.velocity) - linear @ middle
        return matrix

    def flow(self, source: float, target: float, height: int, width: int) -> np.ndarray:
        """Return the flow that warps the frame at time `source` onto the frame at time `target`.

        Returns:
            float32 (2, height, width), x then y, in frame pixels, on the target's grid: the target shows at pixel `p`
                what the source shows at `p + flow`.
        """
        # An affine map of the grid: the parts that depend on the row, and on the column
        matrix = self._to_other(source, target, height, width)[:2] - np.eye(2, 3)
        by_row = matrix[:, 1:2] * np.arange(height) + matrix[:, 2:]
        by_column = matrix[:, :1] * np.arange(width)
        return (by_row[:, :, None] + by_column[:, None]).astype(np.float32)

    def largest_motion(self, num_frames: int, height: int, width: int) -> float:
        """Return the largest flow, in frame pixels, between neighbours of the frames 0 .. num_frames - 1."""
        corners = _corners(height, width)  # an affine flow is largest there
        pairs = [(t, t + 1) for t in range(num_frames - 1)]
        flows = [apply_affine(self._to_other(*pair, height, width), corners) - corners
                 for forward in pairs for pair in (forward, forward[::-1])]
        return max((float(np.linalg.norm(flow, axis=0).max()) for flow in flows), default=0.0)

    def faster(self, factor: float) -> 'CameraPath':
        """Return the same path at another speed."""
        velocity = float(factor * self.velocity[0]), float(factor * self.velocity[1])
        return replace(self, velocity=velocity, zoom=float(factor * self.zoom), rotation=float(factor * self.rotation))

    def at_most(self, motion: float, num_frames: int, height: int, width: int) -> 'CameraPath':
        """Return the same path, slowed down if `largest_motion` exceeds `motion`."""
        path = self
        while (largest := path.largest_motion(num_frames, height, width)) > motion + 1e-6:
            path = path.faster(0.999 * motion / largest)  # zoom and rotation are not quite linear
        return path

    def _to_other(self, source: float, target: float, height: int, width: int) -> np.ndarray:
        """Return the affine map (3, 3) from frame points at time `target` to those at time `source`."""
        to_photo = self.frame_to_photo(target, height, width)
        return np.linalg.inv(self.frame_to_photo(source, height, width)) @ to_photo

    def footprint(self, num_frames: int, height: int, width: int) -> np.ndarray:
        """Return the smallest and the largest photograph point (2, 2) that frames 0 .. num_frames - 1 show."""
        corners = _corners(height, width)
        seen = [apply_affine(self.frame_to_photo(t, height, width), corners) for t in range(num_frames)]
        return np.stack([np.min(seen, axis=(0, 2)), np.max(seen, axis=(0, 2))])


@dataclass(frozen=True)
class Cutout:
    """A round, slightly wavy region of a photograph, with a soft edge.

    Attributes:
        centre, radius: in photograph pixels.
        waviness: how far the outline deviates from the circle, relative to the radius.
        lobes: waves of the outline.
        aspect: width relative to the height.
    """

    centre: tuple[float, float]
    radius: float
    waviness: float = 0.06
    lobes: int = 3
    aspect: float = 1.0

    def alpha(self, points: np.ndarray) -> np.ndarray:
        """Return the opacity (...), 0-1, at photograph points (2, ...)."""
        x, y = (points[0] - self.centre[0]) / self.aspect, points[1] - self.centre[1]
        outline = self.radius * (1 + self.waviness * np.sin(self.lobes * np.arctan2(y, x) + self.radius))
        edge = 0.03 * self.radius
        return np.clip((outline - np.hypot(x, y)) / edge + 0.5, 0, 1)

    def bounds(self) -> np.ndarray:
        """Return the smallest and the largest photograph point (2, 2) that the region may reach."""
        reach = self.radius * (1.03 + self.waviness) * np.array([self.aspect, 1.0])
        return np.stack([self.centre - reach, self.centre + reach])


# Contribution of pan, zoom and rotation to each kind of camera motion.
MOTIONS = {'pan': (1.0, 0.0, 0.0), 'zoom': (0.3, 1.0, 0.0), 'rotation': (0.3, 0.0, 1.0), 'combined': (0.7, 0.7, 0.7)}


def random_motion(
    rng: np.random.Generator, motion: str, speed: float, height: int, width: int, *, scale: float = 1.0
) -> CameraPath:
    """Draw a path around the photograph's origin, of a kind in MOTIONS; its mean speed is `speed` pixels per frame."""
    pan, zoom, rotation = MOTIONS[motion]
    heading = rng.uniform(0, 2 * math.pi)
    zoom_sign, rotation_sign = rng.choice([-1, 1], size=2)
    # The distance from a corner to the middle converts radians, and growth, to pixels at the corners. Half of it is
    # about the mean.
    mean_distance = math.hypot(height, width) / 4
    path = CameraPath(
        centre=(0.0, 0.0),
        velocity=(scale * pan * math.cos(heading), scale * pan * math.sin(heading)),
        scale=scale,
        zoom=float(zoom_sign * zoom / mean_distance),
        rotation=float(rotation_sign * rotation / mean_distance),
    )
    return path.faster(speed / np.linalg.norm(path.flow(0, 1, height, width), axis=0).mean())


def largest_scale(
    path: CameraPath, photo_size: tuple[int, int], num_frames: int, height: int, width: int
) -> float:
    """Return the largest scale at which a path of scale 1 stays inside the photograph (h, w)."""
    lowest, highest = path.footprint(num_frames, height, width)
    return float(((np.array(photo_size[::-1]) - 1) / (highest - lowest)).min())


def random_view(
    rng: np.random.Generator, path: CameraPath, scale: float, photo_size: tuple[int, int], num_frames: int, height: int,
    width: int,
) -> CameraPath:
    """Scale a path around the origin, of scale 1, and move it to a random place over a photograph (h, w).

    Its frames stay inside the photograph. They are centred along a side that is too short for that.
    """
    # The whole footprint grows with the scale when the velocity does.
    footprint = scale * path.footprint(num_frames, height, width)
    lowest, highest = -footprint[0], np.array(photo_size[::-1]) - 1 - footprint[1]
    centre = rng.uniform(lowest, np.maximum(lowest, highest))
    centre = np.where(lowest <= highest, centre, (lowest + highest) / 2)
    velocity = (scale * path.velocity[0], scale * path.velocity[1])
    return replace(path, centre=_point(centre), velocity=velocity, scale=float(scale))


def random_passage(
    rng: np.random.Generator, path: CameraPath, cutout: Cutout, num_frames: int, height: int, width: int, *,
    places: tuple[float, float],
) -> CameraPath:
    """Move a path around the origin so that the cutout passes through the frame.

    Args:
        places: range of positions of the cutout halfway through the clip, as shares of the frame's height and width.
    """
    half_time = (num_frames - 1) / 2
    place = np.array([width, height]) * rng.uniform(*places, size=2)
    centre = np.asarray(cutout.centre) - apply_affine(path.frame_to_photo(half_time, height, width), place)
    return replace(path, centre=_point(centre))


def random_cutout(rng: np.random.Generator, photo_size: tuple[int, int], radius: float) -> Cutout:
    """Place a cutout of random shape anywhere in a photograph (h, w): from round to thin, from smooth to star-like.

    Args:
        radius: in photograph pixels; reduced where the photograph is too small.
    """
    waviness = rng.uniform(0, 0.4)
    radius = min(radius, 0.45 * min(photo_size) / (1.03 + waviness))
    cutout = Cutout((0.0, 0.0), float(radius), float(waviness), int(rng.integers(2, 7)), float(rng.uniform(0.2, 1)))
    lowest, highest = cutout.bounds()
    centre = rng.uniform(-lowest, np.array(photo_size[::-1]) - 1 - highest)
    return replace(cutout, centre=_point(centre))


def _point(array: np.ndarray) -> tuple[float, float]:
    x, y = map(float, array)
    return x, y


# ---------------------------------------------------------------- fast frames, for training

@dataclass(frozen=True)
class Sheet:
    """The part of a photograph that a clip shows, prepared for fast drawing; see `cut_sheet`.

    Attributes:
        path: its motion.
        image: uint8 (h, w, 3), BGR, or (h, w, 4) with opacity, at SUPERSAMPLING times the resolution of the frames.
        to_image: affine map (3, 3) from photograph points to points of the image.
    """

    path: CameraPath
    image: np.ndarray
    to_image: np.ndarray


def cut_sheet(
    photo: np.ndarray, path: CameraPath, num_frames: int, height: int, width: int, cutout: Cutout | None = None
) -> Sheet:
    """Cut out the part of a photograph that frames 0 .. num_frames - 1 of a path show, or the region of `cutout`.

    The part is resized to SUPERSAMPLING times the resolution of the frame halfway through the clip. Shrinking uses the
    area mean, to prevent aliasing; enlarging uses cubic interpolation.

    Args:
        photo: uint8 (H, W, 3), BGR.
    """
    size = np.array(photo.shape[1::-1])
    lowest, highest = path.footprint(num_frames, height, width) if cutout is None else cutout.bounds()
    margin = 3  # of the cubic filter and of the mean
    first = np.clip(np.floor(lowest) - margin, 0, size - 1).astype(int)
    last = np.clip(np.ceil(highest) + margin + 1, first + 1, size).astype(int)
    part = photo[first[1]:last[1], first[0]:last[0]]

    to_photo = path.frame_to_photo((num_frames - 1) / 2, height, width)
    density = SUPERSAMPLING / math.hypot(to_photo[0, 0], to_photo[1, 0])
    image_size = np.maximum(1, np.round(density * (last - first))).astype(int)
    factor = image_size / (last - first)
    image = cv2.resize(part, image_size.tolist(), interpolation=cv2.INTER_AREA if density < 1 else cv2.INTER_CUBIC)
    # Pixel centres are whole numbers; borders are half a pixel outside
    to_image = np.array([[factor[0], 0, (0.5 - first[0]) * factor[0] - 0.5],
                         [0, factor[1], (0.5 - first[1]) * factor[1] - 0.5], [0, 0, 1]])
    if cutout is not None:
        points = apply_affine(np.linalg.inv(to_image), pixel_grid(*image.shape[:2])).astype(np.float32)
        opacity = np.round(255 * cutout.alpha(points)).astype(np.uint8)
        image = np.dstack([image, opacity])
    return Sheet(path, image, to_image)


def draw(sheets: Sequence[Sheet], t: float, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene at time t, as `render` does with layers.

    Positions are interpolated linearly on a grid of SUPERSAMPLING points per pixel and axis. A pixel is the mean of its
    points. Outside its photograph, the background is mirrored.

    Args:
        sheets: from back to front; the first one has no cutout.
        t: time in frames.
        height, width: size of the frame in pixels.

    Returns:
        frame: uint8 (height, width, 3), BGR.
        front: uint8 (height, width): the number of the sheet that covers most of the pixel.
    """
    s = SUPERSAMPLING
    canvas = _warp(sheets[0], t, (0, 0, height, width), height, width, border=cv2.BORDER_REFLECT_101)
    front = np.zeros((height, width), np.uint8)
    for number, sheet in enumerate(sheets[1:], 1):
        top, left, bottom, right = box = _box_of(sheet, t, height, width)
        if top >= bottom or left >= right:
            continue
        *colour, opacity = cv2.split(_warp(sheet, t, box, height, width, border=cv2.BORDER_CONSTANT))
        behind = canvas[s * top:s * bottom, s * left:s * right]
        weight = opacity.astype(np.float32) / 255
        behind[:] = cv2.blendLinear(cv2.merge(colour), np.ascontiguousarray(behind), weight, 1 - weight)
        covered = cv2.resize(opacity, (right - left, bottom - top), interpolation=cv2.INTER_AREA) > 127
        front[top:bottom, left:right][covered] = number
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), front


def flow_of_scene(sheets: Sequence[Sheet], front: np.ndarray, source: float, target: float) -> np.ndarray:
    """Return the flow that warps the frame at time `source` onto the frame at time `target`; see `CameraPath.flow`.

    It is the motion of the surface that the pixel shows at `target`, even if that surface is hidden or outside the
    frame at `source`. In that case the warped frame shows something else, although the flow is exact.

    Args:
        sheets: the scene, as for `draw`.
        front: (height, width), the sheet that each pixel shows at `target`, from `draw`.

    Returns:
        float32 (2, height, width), x then y, in frame pixels, on the target's grid.
    """
    flow = sheets[0].path.flow(source, target, *front.shape)
    for number, sheet in enumerate(sheets[1:], 1):
        np.copyto(flow, sheet.path.flow(source, target, *front.shape), where=front == number)
    return flow


def _warp(
    sheet: Sheet, t: float, box: tuple[int, int, int, int], height: int, width: int, *, border: int
) -> np.ndarray:
    """Draw a sheet in a box of the frame (top, left, bottom, right), SUPERSAMPLING points per pixel."""
    top, left, bottom, right = box
    inset = 0.5 / SUPERSAMPLING - 0.5  # offset of the first point in its pixel
    to_frame = np.array([[1 / SUPERSAMPLING, 0, left + inset], [0, 1 / SUPERSAMPLING, top + inset], [0, 0, 1]])
    matrix = sheet.to_image @ sheet.path.frame_to_photo(t, height, width) @ to_frame
    size = SUPERSAMPLING * (right - left), SUPERSAMPLING * (bottom - top)
    return cv2.warpAffine(sheet.image, matrix[:2], size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=border)


def _box_of(sheet: Sheet, t: float, height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of the frame area that a sheet may cover; empty if it is outside."""
    from_image = np.linalg.inv(sheet.to_image @ sheet.path.frame_to_photo(t, height, width))
    corners = apply_affine(from_image, _corners(*sheet.image.shape[:2]))
    left, top = np.clip(np.floor(corners.min(axis=1)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=1)) + 1, 0, (width, height)).astype(int)
    return int(top), int(left), int(bottom), int(right)
