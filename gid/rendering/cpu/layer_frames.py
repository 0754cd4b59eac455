"""Frames of a photo in layers, on the CPU: the plate as any photo is drawn, the objects over it as meshes."""

from __future__ import annotations

import importlib
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gid.motion.upsampling import PhotoGuide
from gid.rendering.cpu.frames import CpuFrames, GuidedFlow
from gid.rendering.layers import Following, Layers
from gid.rendering.renderer import Renderer

Array = NDArray[Any]
PAD = 4  # mirrored pixels around a layer, so that most look-ups need no care at the edges
TORN = 4  # an object's mesh parts where a cell is stretched to this many times its size


class LayerFrames:
    """Draws a photo's layers under given displacements.

    Args:
        layers: of the photo.
        renderer: draws the plate; on the CPU, float32.
        importance: (h, w) mean length of each cell's displacement over time, pixels.
        freedom: (h, w) in [0, 1], the share of its motion that each cell makes.
    """

    def __init__(self, layers: Layers, renderer: Renderer, importance: Tensor, freedom: Tensor) -> None:
        self.kernels: Any = importlib.import_module("gid.rendering.cpu.layer_kernels")
        self.layers = layers
        self.height, self.width = layers.photo.shape[:2]
        cells = freedom.shape
        plate = torch.from_numpy(layers.plate).permute(2, 0, 1)[None].contiguous()
        photo = torch.from_numpy(layers.photo).permute(2, 0, 1)[None].contiguous()
        guide = PhotoGuide(photo, *cells)
        self.moved_pixels = np.flatnonzero(_near_objects(layers, cells))
        chosen = Following(
            layers.ground.places[self.moved_pixels],
            layers.ground.owners[self.moved_pixels],
            layers.ground.sources[self.moved_pixels],
            layers.ground.elsewhere[self.moved_pixels],
        )
        own = OwnCells(layers.segments.labels, layers.segments.sure)
        self.ground = _weighted(chosen, guide, own, freedom)
        rank = guide(importance[None, None].float())
        free = guide(freedom[None, None].float())
        self._at_ground(rank, importance, guide, own, chosen)
        self.flow = GuidedFlow(guide, free)
        self.base = CpuFrames(renderer, plate[0], rank)
        self.front = _weighted(layers.front.vertices, guide, own, freedom)
        self.photo, self.plate = _opaque(layers.photo), _opaque(layers.plate)
        self.wide = _wide(layers.objects)
        self.alpha = np.ascontiguousarray(layers.alpha)

    def _at_ground(self, maps: Tensor, cells: Tensor, guide: PhotoGuide, own: OwnCells, points: Following) -> None:
        """Pixels of a map (1, 1, H, W) near objects, in place: what the ground's own cells say."""
        numbers, weights = _weighted(points, guide, own, torch.ones_like(cells))
        values = (cells.numpy().reshape(-1)[numbers] * weights).sum(1).astype(np.float32)
        maps.view(-1)[torch.from_numpy(self.moved_pixels)] = torch.from_numpy(values)

    def render(self, fields: Tensor, executor: Executor) -> Tensor:
        """(n, 2, h, w) fractions of the photo's sides -> (n, 3, H, W) float32 frames in [0, 1]."""
        given = fields.contiguous().numpy()
        flows = self.flow(fields, executor)
        list(executor.map(lambda job: self._ground_flow(*job), zip(given, flows.numpy(), strict=True)))
        frames = self.base.render(flows, executor)
        if len(self.layers.front.triangles):
            list(executor.map(lambda job: self._objects(*job), zip(given, frames.numpy(), strict=True)))
        return frames

    def _ground_flow(self, field: Array, flow: Array) -> None:
        values = np.empty((len(self.moved_pixels), 2), np.float32)
        self.kernels.displace(field, *self.ground, self.width, self.height, values)
        self.kernels.scatter(values, self.moved_pixels, flow)

    def _objects(self, field: Array, frame: Array) -> None:
        """Draw the objects over a frame of the plate (3, H, W), in place."""
        mesh, k = self.layers.front, self.kernels
        moved = np.empty_like(mesh.vertices.places)
        k.displace(field, *self.front, self.width, self.height, moved)
        composed = np.empty((self.height, self.width, 4), np.float32)
        composed[..., :3] = frame.transpose(1, 2, 0)
        touched = np.zeros((self.height, self.width), np.uint8)
        k.left_behind(mesh.cells, moved, mesh.corners, mesh.step, self.alpha, touched)
        k.draw(
            mesh.vertices.places, moved, mesh.triangles, mesh.segments, TORN * mesh.step, self.wide, PAD,
            self.layers.labels, composed, touched,
        )  # fmt: skip
        k.finish(self.photo, self.plate, self.alpha, frame.copy(), composed, touched, frame)


@dataclass(frozen=True)
class OwnCells:
    """labels (h, w): segment of each cell; sure (h, w): whether its motion is nobody else's."""

    labels: Array
    sure: Array


def _near_objects(layers: Layers, cells: torch.Size) -> Array:
    """(H W,) pixels of which one of the four cells about them is not surely the ground's."""
    height, width = layers.labels.shape
    other = (~((layers.segments.labels == 0) & layers.segments.sure)).astype(np.uint8)
    if not (layers.segments.labels > 0).any():
        return np.zeros(height * width, bool)
    near = cv2.dilate((layers.segments.labels > 0).astype(np.uint8), np.ones((7, 7), np.uint8))
    wide = cv2.dilate(other * near, np.ones((3, 3), np.uint8))
    return (cv2.resize(wide, (width, height), interpolation=cv2.INTER_NEAREST) > 0).reshape(-1)


def _weighted(points: Following, guide: PhotoGuide, own: OwnCells, freedom: Tensor) -> tuple[Array, Array]:
    """The four cells (n, 4) whose motion each point follows, and their weights, times the freedom there.

    A point follows those of the four cells about it that are its segment's own, along the photo's edges (`PhotoGuide`);
    where there is none, the nearest such cell.
    """
    height, width = guide.weights[0].shape[2:]
    rows, columns = own.labels.shape
    x = np.clip(np.rint(points.places[:, 0]).astype(int), 0, width - 1)
    y = np.clip(np.rint(points.places[:, 1]).astype(int), 0, height - 1)
    top = [part.numpy()[y] for part in guide.rows]
    left = [part.numpy()[x] for part in guide.columns]
    numbers = np.stack([top[down] * columns + left[right] for down in (0, 1) for right in (0, 1)], 1)
    weights = np.stack([weight.numpy()[0, 0][y, x] for weight in guide.weights], 1)
    fits = own.sure.reshape(-1)[numbers] & (own.labels.reshape(-1)[numbers] == points.owners[:, None])
    weights = weights * fits
    total = weights.sum(1)
    far = total < 1e-3
    weights /= np.maximum(total, 1e-3)[:, None]
    column = np.minimum((points.sources[:, 0] * columns).astype(int), columns - 1)
    row = np.minimum((points.sources[:, 1] * rows).astype(int), rows - 1)
    numbers[far] = (row * columns + column)[far][:, None]
    weights[far] = np.array([1, 0, 0, 0], np.float32)
    free = (freedom.numpy().reshape(-1)[numbers] * weights).sum(1, keepdims=True)
    return np.ascontiguousarray(numbers, np.int32), np.ascontiguousarray(weights * free, np.float32)


def _opaque(picture: Array) -> Array:
    return np.ascontiguousarray(np.dstack([picture, np.ones(picture.shape[:2], np.float32)]), np.float32)


def _wide(picture: Array) -> Array:
    border = cv2.BORDER_REFLECT_101 if min(picture.shape[:2]) > PAD else cv2.BORDER_REPLICATE
    return np.ascontiguousarray(cv2.copyMakeBorder(picture, PAD, PAD, PAD, PAD, border))
