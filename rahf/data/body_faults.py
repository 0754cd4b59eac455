"""Faults of bodies planted into pictures of people and animals: what generated pictures really get wrong.

Each takes a picture (H,W,3) uint8, a box (x, y, width, height) around a hand, a limb or a face, a severity in (0, 1]
and a generator, and gives the spoiled picture and the mask (H,W) bool of what was changed, as `rahf.data.faults` does.
"""

import cv2
import numpy as np

from rahf.data.faults import Box, Fault

CODES = 12  # numbers that the linear autoencoder keeps of a patch of 8x8 pixels


def extra_part(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Show the part a second time beside itself, turned and opaque: a third hand, a second pair of legs."""
    x, y, width, height = _inside(image, box)
    angle = float(generator.uniform(0, 2 * np.pi))
    reach = (0.6 + 0.5 * severity) * max(width, height)
    turn = float(generator.uniform(-40, 40))
    centre = (x + width / 2, y + height / 2)
    matrix = cv2.getRotationMatrix2D(centre, turn, float(generator.uniform(0.85, 1.1)))
    matrix[:, 2] += (reach * np.cos(angle), reach * np.sin(angle))
    size = (image.shape[1], image.shape[0])
    alpha = cv2.warpAffine(_ellipse(image, (x, y, width, height)), matrix, size)
    copied = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT)
    return _blend(image, copied, alpha), alpha > 0.4


def missing_part(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fill the part from what surrounds it: a stump where a hand was."""
    x, y, width, height = _inside(image, box)
    share = 0.6 + 0.4 * severity
    jitter = generator.uniform(-0.15, 0.15, 2)
    small = (
        int(x + width * ((1 - share) / 2 + jitter[0] * (1 - share))),
        int(y + height * ((1 - share) / 2 + jitter[1] * (1 - share))),
        max(int(width * share), 2),
        max(int(height * share), 2),
    )
    mask = _ellipse(image, small) > 0.3
    filled = cv2.inpaint(image, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return filled, mask


def moved_features(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Slide one half of the part along the other: one eye lower than the other, a nose beside the mouth."""
    x, y, width, height = _inside(image, box)
    grid_y, grid_x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    side = 0.5 + 0.5 * np.tanh((grid_x - (x + width / 2)) / max(0.06 * width, 2))
    depth = _ellipse(image, (x, y, width, height))
    shift = severity * 0.3 * height * float(generator.choice([-1, 1])) * depth * side
    stretch = severity * 0.25 * width * float(generator.choice([-1, 1])) * depth * (1 - side)
    moved = cv2.remap(
        image,
        (grid_x + stretch).astype(np.float32),
        (grid_y + shift).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return moved, depth > 0.25


def merged_fingers(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Smear the part along one direction and bend what is left: fingers that run into one another."""
    x, y, width, height = _inside(image, box)
    length = max(int((0.12 + 0.2 * severity) * max(width, height)), 3)
    kernel = np.zeros((length, length), np.float32)
    angle = float(generator.uniform(0, np.pi))
    middle = (length - 1) / 2
    along = np.array([np.cos(angle), np.sin(angle)]) * middle
    cv2.line(
        kernel,
        (round(middle - along[0]), round(middle - along[1])),
        (round(middle + along[0]), round(middle + along[1])),
        1.0,
    )
    smeared = cv2.filter2D(cv2.medianBlur(image, 5), -1, kernel / max(float(kernel.sum()), 1))
    grid_y, grid_x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    alpha = _ellipse(image, (x, y, width, height))
    phase = generator.uniform(0, 2 * np.pi, 2)
    swing = severity * 0.1 * min(width, height) * alpha
    bent = cv2.remap(
        smeared,
        (grid_x + swing * np.sin(grid_y / max(height, 1) * 9 + phase[0])).astype(np.float32),
        (grid_y + swing * np.sin(grid_x / max(width, 1) * 9 + phase[1])).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return _blend(image, bent, alpha), alpha > 0.25


def regenerated(
    image: np.ndarray, box: Box, severity: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the part anew from few numbers a patch: a linear autoencoder fitted to the picture, its codes disturbed."""
    x, y, width, height = _inside(image, box)
    side = 8
    rows, columns = image.shape[0] // side, image.shape[1] // side
    cut = image[: rows * side, : columns * side].astype(np.float32)
    patches = cut.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    mean = patches.mean(0)
    vectors = np.linalg.eigh((patches - mean).T @ (patches - mean))[1][:, ::-1][:, :CODES]
    codes = (patches - mean) @ vectors
    noise = generator.normal(size=codes.shape) * codes.std(0) * 0.6 * severity
    noise[:, 0] *= 0.3  # mean brightness stays nearly what it was
    drawn = (codes + noise) @ vectors.T + mean
    drawn = drawn.reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(cut.shape)
    whole = image.astype(np.float32)
    whole[: cut.shape[0], : cut.shape[1]] = cv2.bilateralFilter(drawn.astype(np.float32), 5, 40, 3)
    alpha = np.clip(1.6 * _ellipse(image, (x, y, width, height)), 0, 1)
    return _blend(image, whole.clip(0, 255), alpha), alpha > 0.4


BODY_FAULTS: dict[str, Fault] = {
    "extra part": extra_part,
    "missing part": missing_part,
    "moved features": moved_features,
    "merged fingers": merged_fingers,
    "regenerated": regenerated,
}


def _inside(image: np.ndarray, box: Box) -> Box:
    """The box cut to the picture, at least 4 pixels a side."""
    x = int(np.clip(box[0], 0, image.shape[1] - 4))
    y = int(np.clip(box[1], 0, image.shape[0] - 4))
    return x, y, int(np.clip(box[2], 4, image.shape[1] - x)), int(np.clip(box[3], 4, image.shape[0] - y))


def _ellipse(image: np.ndarray, box: Box) -> np.ndarray:
    """(H,W) float32: 1 inside the ellipse of the box, 0 outside, with a soft rim of a fifth of its radius."""
    grid_y, grid_x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    x, y, width, height = box
    across = ((grid_x - x - width / 2) / (width / 2 + 1e-6)) ** 2
    down = ((grid_y - y - height / 2) / (height / 2 + 1e-6)) ** 2
    return np.clip((1 - np.sqrt(across + down)) * 5, 0, 1).astype(np.float32)


def _blend(image: np.ndarray, other: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    mixed = image * (1 - alpha[..., None]) + other * alpha[..., None]
    return mixed.round().clip(0, 255).astype(np.uint8)
