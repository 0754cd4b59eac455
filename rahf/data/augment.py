"""Augmentations that leave labels true: crops that move the heatmaps along, and changes of colour and coding.

Nothing is mirrored: "to the left of" would become false.
"""

import io
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from rahf.data.samples import Sample


@dataclass(frozen=True)
class Augmentation:
    """Chances and strengths. `crop` is the smallest part of each side that a crop keeps (the paper's is 0.8)."""

    crop_chance: float = 0.5
    crop: float = 0.8
    colour_chance: float = 0.5
    colour: float = 0.15
    jpeg_chance: float = 0.2
    grey_chance: float = 0.05

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """A changed copy; the random numbers come from `generator` alone."""
        if generator.random() < self.crop_chance:
            sample = crop(sample, self.crop, generator)
        image = sample.image
        if generator.random() < self.colour_chance:
            image = shift_colours(image, self.colour, generator)
        if generator.random() < self.jpeg_chance:
            image = recode(image, int(generator.integers(40, 95)))
        if generator.random() < self.grey_chance:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            image = np.repeat(grey[..., None], 3, axis=-1)
        return replace(sample, image=image)


def crop(sample: Sample, smallest: float, generator: np.random.Generator) -> Sample:
    """Keep a random window of at least `smallest` of each side, of the image and of every heatmap alike."""
    part = generator.uniform(smallest, 1, 2)
    start = generator.uniform(0, 1 - part)
    window = (start[0], start[0] + part[0], start[1], start[1] + part[1])
    heatmaps = {name: _window(heatmap, window).copy() for name, heatmap in sample.heatmaps.items()}
    objects = tuple(replace(item, mask=_window(item.mask, window).copy()) for item in sample.objects)
    return replace(sample, image=_window(sample.image, window).copy(), heatmaps=heatmaps, objects=objects)


def shift_colours(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and, by a tenth as much, hue."""
    brightness, contrast, saturation = generator.uniform(1 - strength, 1 + strength, 3)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + 18 * strength * generator.uniform(-1, 1)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    rgb = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32) * brightness
    mean = rgb.mean()
    return np.clip(mean + (rgb - mean) * contrast, 0, 255).round().astype(np.uint8)


def recode(image: np.ndarray, quality: int) -> np.ndarray:
    """Through JPEG and back."""
    coded = io.BytesIO()
    Image.fromarray(image).save(coded, "jpeg", quality=quality)
    with Image.open(coded) as decoded:
        return np.array(decoded.convert("RGB"))


def _window(array: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    height, width = array.shape[:2]
    top, bottom, left, right = window
    return array[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
