"""A photo as layers: a plate, completed behind whatever moves, and the objects that move over it.

A renderer that tears one picture apart leaves shreds where motion changes quickly. Here the photo is taken apart once,
where things move apart (`segments.py`), along its own edges (`matting.py`), and completed behind (`completion.py`).
What is drawn for a frame are meshes: every segment's own, carried by the motion from well inside it, nearer over
farther, over the plate, which may move by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gid.motion.spectrum import SpectralVolume
from gid.rendering.completion import complete
from gid.rendering.matting import hard_labels, soft_mask
from gid.rendering.segments import Segments, find_segments, nearest_cells

Floats = NDArray[Any]  # float32
Labels = NDArray[Any]  # int32

CELLS = 256  # meshes have about this many cells along the photo's longer side
BEYOND = 0.1  # what touches the photo's edge goes on beyond it, mirrored, for this share of its longer side
CLEAR = 2  # pixels around an object that are completed too: they hold its light


@dataclass(frozen=True)
class Following:
    """Which motion some points of the photo follow.

    Attributes:
        places: (n, 2) float32, x and y of the points at rest, pixels.
        owners: (n,) int32 segment of each.
        sources: (n, 2) float32, x and y in fractions of the photo: where the motion is that they follow.
        elsewhere: (n,) bool, whether that is another place than their own: the nearest one that is their segment's.
    """

    places: Floats
    owners: Labels
    sources: Floats
    elsewhere: NDArray[np.bool_]


@dataclass(frozen=True)
class Mesh:
    """Triangles that carry a picture.

    Attributes:
        vertices: V points.
        triangles: (T, 3) int32 vertices, far to near.
        segments: (T,) int32 segment that each triangle draws.
        cells: (n, 2) int32 column and row of each cell of the grid that is drawn.
        corners: (n, 4) int32 vertices of each cell.
        step: pixels of a cell.
    """

    vertices: Following
    triangles: Labels
    segments: Labels
    cells: Labels
    corners: Labels
    step: int


@dataclass(frozen=True)
class Layers:
    """What a photo consists of, for any number of frames. Pictures are float32 in [0, 1].

    Attributes:
        photo: (H, W, 3).
        plate: (H, W, 3) completed behind the objects; the photo itself where there is none.
        objects: (H, W, 4) colours premultiplied by alpha; over the plate they give the photo.
        labels: (H, W) int32 segment of each pixel, 0 for the ground.
        ground: what every pixel of the plate follows, (H W,) points in reading order.
        front: mesh of the objects; empty where nothing moves apart.
    """

    photo: Floats
    plate: Floats
    objects: Floats
    labels: Labels
    segments: Segments
    ground: Following
    front: Mesh

    @property
    def alpha(self) -> Floats:
        """(H, W) how much of each pixel belongs to an object."""
        return self.objects[..., 3]


def take_apart(photo: Tensor, volume: SpectralVolume, segments: Segments | None = None) -> Layers:
    """Layers of a photo (3, H, W) in [0, 1] by its motion, whose segments need not be found again if they are given.

    Raises:
        ValueError: a motion of a photo of another shape.
    """
    height, width = photo.shape[1:]
    volume.check_photo(width, height)
    picture = np.ascontiguousarray(photo.detach().cpu().float().permute(1, 2, 0).numpy())
    segments = find_segments(volume.coefficients, width, height) if segments is None else segments
    labels = hard_labels(picture, segments)
    alpha = soft_mask(picture, labels > 0) if labels.any() else np.zeros((height, width), np.float32)
    labels = _spread(labels, alpha)
    plate = _plate(picture, alpha)
    objects = _objects(picture, plate, alpha)
    step = max(2, round(max(height, width) / CELLS))
    front = object_mesh(segments, labels, objects[..., 3], step)
    return Layers(picture, plate, objects, labels, segments, _ground(segments, labels), front)


def _spread(labels: Labels, alpha: Floats) -> Labels:
    """Labels where pixels outside the hard border that an object still shares carry its label."""
    soft = (labels == 0) & (alpha > 0)
    if not soft.any():
        return labels
    known = labels > 0
    _, index = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(int(index.max()) + 1, np.int32)
    table[index[known]] = labels[known]
    return np.where(soft, table[index], labels).astype(np.int32)


def _plate(picture: Floats, alpha: Floats) -> Floats:
    if not (alpha > 0).any():
        return picture
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * CLEAR + 1, 2 * CLEAR + 1))
    near = cv2.dilate((alpha > 0).astype(np.uint8), kernel) > 0
    made = complete(picture, near)
    plate = picture.copy()
    plate[alpha > 0] = made[alpha > 0]
    return plate


def _objects(picture: Floats, plate: Floats, alpha: Floats) -> Floats:
    """Premultiplied colours that give the photo over the plate; alpha is raised where no colour in [0, 1] would."""
    darker = (plate - picture) / np.maximum(plate, 1e-3)
    lighter = (picture - plate) / np.maximum(1 - plate, 1e-3)
    needed = np.maximum(darker, lighter).max(-1)
    alpha = np.where(alpha > 0, np.clip(np.maximum(alpha, needed), 0, 1), 0)
    colour = picture - (1 - alpha)[..., None] * plate
    return np.dstack([np.clip(colour, 0, alpha[..., None]), alpha]).astype(np.float32)


def _grid(shape: tuple[int, int], step: int) -> tuple[int, int]:
    """Columns and rows of mesh cells that cover a photo (H, W)."""
    return -(-(shape[1] - 1) // step), -(-(shape[0] - 1) // step)


def _follow(places: Floats, shape: tuple[int, int], segments: Segments, owner: int) -> Following:
    """Points of a segment of a photo (H, W) follow the motion at their own place, or the nearest that is its own."""
    mask, inside = segments.labels == owner, segments.sure
    height, width = mask.shape
    own = np.stack([(places[:, 0] + 0.5) / shape[1], (places[:, 1] + 0.5) / shape[0]], 1)
    own = np.clip(own, 0, 1)
    column = np.minimum((own[:, 0] * width).astype(int), width - 1)
    row = np.minimum((own[:, 1] * height).astype(int), height - 1)
    if not mask.any():
        mask = np.ones_like(mask)
    rows, columns = nearest_cells(mask & inside if (mask & inside).any() else mask)
    distant = np.stack([(columns[row, column] + 0.5) / width, (rows[row, column] + 0.5) / height], 1)
    elsewhere = (columns[row, column] != column) | (rows[row, column] != row)
    sources = np.where(elsewhere[:, None], distant, own)
    owners = np.full(len(places), owner, np.int32)
    return Following(places.astype(np.float32), owners, sources.astype(np.float32), elsewhere)


def _ground(segments: Segments, labels: Labels) -> Following:
    height, width = labels.shape
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2).astype(np.float32)
    return _follow(places, labels.shape, segments, 0)


def object_mesh(segments: Segments, labels: Labels, alpha: Floats, step: int) -> Mesh:
    """Meshes of ``step`` pixels a cell of all objects, one a segment, far to near."""
    shape = labels.shape
    beyond = -(-round(BEYOND * max(shape)) // step)
    labels = np.pad(labels, beyond * step, mode="edge")
    alpha = np.pad(alpha, beyond * step, mode="edge")
    columns, rows = _grid(labels.shape[:2], step)
    kernel = np.ones((5, 5), np.uint8)
    followed: list[Following] = []
    parts: list[tuple[Labels, Labels, Labels]] = []
    offset = 0
    for segment in range(1, len(segments.strength)):
        shown = cv2.dilate(((labels == segment) & (alpha > 0)).astype(np.uint8), kernel)
        if not shown.any():
            continue
        cells = np.argwhere(_cells_with(shown, columns, rows, step))[:, ::-1]
        used = np.zeros((rows + 1, columns + 1), bool)
        around = ((0, 0), (1, 0), (0, 1), (1, 1))
        for dx, dy in around:
            used[cells[:, 1] + dy, cells[:, 0] + dx] = True
        numbers = np.full(used.shape, -1)
        numbers[used] = np.arange(used.sum()) + offset
        places = ((np.argwhere(used)[:, ::-1] - beyond) * step).astype(np.float32)
        corners = np.stack([numbers[cells[:, 1] + dy, cells[:, 0] + dx] for dx, dy in around], 1)
        followed.append(_follow(places, shape, segments, segment))
        parts.append((corners, cells - beyond, np.full(len(cells), segment)))
        offset += len(places)
    if not parts:
        none = np.zeros((0, 2), np.float32)
        empty = Following(none, np.zeros(0, np.int32), none, np.zeros(0, bool))
        return _mesh(empty, np.zeros((0, 4), int), np.zeros((0, 2), int), np.zeros(0, int), step)
    vertices = Following(
        np.concatenate([f.places for f in followed]),
        np.concatenate([f.owners for f in followed]),
        np.concatenate([f.sources for f in followed]),
        np.concatenate([f.elsewhere for f in followed]),
    )
    corners, cells, owners = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return _mesh(vertices, corners, cells, owners, step)


def _cells_with(shown: NDArray[Any], columns: int, rows: int, step: int) -> NDArray[np.bool_]:
    padded = np.zeros((rows * step, columns * step), np.uint8)
    height, width = min(shown.shape[0], rows * step), min(shown.shape[1], columns * step)
    padded[:height, :width] = shown[:height, :width]
    used: NDArray[np.bool_] = padded.reshape(rows, step, columns, step).max((1, 3)) > 0
    return used


def _mesh(vertices: Following, corners: Labels, cells: Labels, owners: Labels, step: int) -> Mesh:
    triangles = np.stack([corners[:, [0, 1, 2]], corners[:, [1, 3, 2]]], 1).reshape(-1, 3)
    return Mesh(
        vertices,
        np.ascontiguousarray(triangles, np.int32),
        np.repeat(owners, 2).astype(np.int32),
        np.ascontiguousarray(cells, np.int32),
        np.ascontiguousarray(corners, np.int32),
        step,
    )
