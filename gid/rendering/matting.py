"""Where objects end, to a share of a pixel: segments of a coarse grid brought to the photo's own edges.

First hard borders: from what is surely inside each segment, regions grow over the photo and meet where its gradient is
steepest (watershed). Then soft ones: alpha is the local linear function of the photo's colours that fits the hard
mask best (guided filter: He, Sun and Tang, "Guided Image Filtering", PAMI 2013), within a narrow band only.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gid.rendering.segments import Segments

Floats = NDArray[Any]  # float32
Labels = NDArray[Any]  # int32

BAND = 0.008  # half width of the band in which borders are soft, in photo's longer sides
REGULARIZATION = 1e-3  # squared colour difference below which the guide says nothing


def hard_labels(picture: Floats, segments: Segments) -> Labels:
    """(H, W) segment of each pixel of a picture (H, W, 3) in [0, 1]."""
    height, width = picture.shape[:2]
    if segments.labels.max() == 0:
        return np.zeros((height, width), np.int32)
    markers = np.where(segments.sure, segments.labels + 1, 0)
    markers = cv2.resize(markers, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    markers = _shrunk(markers, max(1, width // segments.labels.shape[1] // 2))
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    grown = cv2.watershed((smooth * 255 + 0.5).astype(np.uint8), markers.copy())
    # Watershed leaves a line between regions, and the picture's rim: they go to the nearest region.
    return _filled(grown - 1, grown > 0)


def _shrunk(markers: Labels, radius: int) -> Labels:
    """Markers kept only where all around, within ``radius``, is of the same segment; lone ones are kept whole."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    values = markers.astype(np.float32)
    pure = cv2.dilate(values, kernel) == cv2.erode(values, kernel)
    kept = np.bincount(markers.ravel(), pure.ravel()) > 0
    return np.where(pure | ~kept[markers], markers, 0).astype(np.int32)


def _filled(labels: Labels, known: NDArray[np.bool_]) -> Labels:
    _, index = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(int(index.max()) + 1, np.int32)
    table[index[known]] = labels[known]
    return np.where(known, labels, table[index]).astype(np.int32)


def soft_mask(picture: Floats, mask: NDArray[np.bool_], radius: int | None = None) -> Floats:
    """(H, W) alpha in [0, 1] of a hard mask: 0 and 1 away from its border, as the picture's colours say along it."""
    height, width = mask.shape
    radius = max(2, round(BAND * max(height, width))) if radius is None else radius
    wanted = mask.astype(np.float32)
    alpha = _guided(picture, wanted, 2 * radius)
    alpha = np.clip((alpha - 0.08) / 0.84, 0, 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    inner = cv2.GaussianBlur(cv2.erode(wanted, kernel), (0, 0), radius / 3)
    outer = cv2.GaussianBlur(cv2.dilate(wanted, kernel), (0, 0), radius / 3)
    return np.clip(np.maximum(alpha * outer, inner), 0, 1).astype(np.float32)


def _guided(guide: Floats, values: Floats, radius: int) -> Floats:
    """The guided filter of values (H, W) by a guide (H, W, 3)."""

    def mean(x: Floats) -> Floats:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    colour, level = mean(guide), mean(values)
    covariance = mean(guide * values[..., None]) - colour * level[..., None]
    moments = [
        mean(guide[..., i] * guide[..., j]) - colour[..., i] * colour[..., j] for i in range(3) for j in range(3)
    ]
    matrix = np.stack(moments, -1).reshape(*values.shape, 3, 3) + REGULARIZATION * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(matrix, covariance[..., None])[..., 0].astype(np.float32)
    offset = level - (slope * colour).sum(-1)
    return np.asarray((mean(slope) * guide).sum(-1) + mean(offset), np.float32)
