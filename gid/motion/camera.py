"""What the camera did: one similarity a frame, fitted to what stands stillest in a clip and taken out of its flow.

A hand-held camera drifts and turns by a few pixels; swaying things move as well, but not all alike. Starting from the
guess that the camera stood still, cells are weighted down by how far they are from the fit (Geman and McClure), under a
scale that shrinks from two pixels to half a one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SCALES = (2.0, 1.4, 1.0, 0.7, 0.5, 0.5)
# Flat cells have little to say, but a blurred background that stands still must outweigh a sharp leaf that sways.
FLAT = 0.05


def fit_similarity(flow: Floats, weight: Floats) -> Floats:
    """Camera motion of each frame, as a field.

    Args:
        flow: (T, 2, h, w) displacements from frame 0, any unit in which half a one is small.
        weight: (h, w) of each cell, 0 or more.

    Returns:
        (T, 2, h, w): translation, rotation and zoom about the centre that fit best.

    Raises:
        ValueError: the shapes do not go together.
    """
    if flow.ndim != 4 or flow.shape[1] != 2 or flow.shape[2:] != weight.shape:
        raise ValueError(f"flow is {flow.shape} and weight {weight.shape}; give (T, 2, h, w) and (h, w)")
    height, width = weight.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    y = y * height / width
    zero, one = np.zeros_like(x), np.ones_like(x)
    # (4, 2, cells): x and y displacement of a unit shift right, shift down, zoom and turn.
    basis = np.array([[one, zero], [zero, one], [x, y], [-y, x]]).reshape(4, 2, -1)
    measured = flow.reshape(len(flow), 2, -1).astype(np.float64)
    cells = weight.ravel().astype(np.float64) + 1e-6
    parameters = np.zeros((len(flow), 4))
    for scale in SCALES:
        residual = measured - np.einsum("tp,pac->tac", parameters, basis)
        robust = cells / np.square(1 + np.square(residual).sum(1) / scale**2)
        moment = np.einsum("tc,pac,tac->tp", robust, basis, measured, optimize=True)
        matrix = np.einsum("tc,pac,qac->tpq", robust, basis, basis, optimize=True)
        matrix += 1e-9 * np.trace(matrix, axis1=1, axis2=2)[:, None, None] * np.eye(4)
        parameters = np.linalg.solve(matrix, moment[..., None])[..., 0]
    field = np.einsum("tp,pac->tac", parameters, basis).reshape(flow.shape)
    return np.ascontiguousarray(field - field[:1], np.float32)


def remove_camera(flow: Floats, confidence: Floats) -> Floats:
    """(T, 2, h, w) flow without the camera's part; `confidence` (h, w) in [0, 1] says where flow means something."""
    return flow - fit_similarity(flow, confidence + np.float32(FLAT))
