"""Photographs with planted faults: what composed scenes lack, textures and light of the real world.

Only where a fault was planted is known of them: the implausibility heatmap and the plausibility score, by the rules of
`rahf.data.scenes`. Their prompts are drawn at random and say nothing of the picture, so neither words nor alignment are
labelled.
"""

from pathlib import Path

import cv2
import numpy as np

from foundation.folders import files_in
from foundation.pictures import SUFFIXES, load_photo
from rahf.data.faults import OBJECT_FAULTS, Box, burden_of, is_visible, spread
from rahf.data.grammar import draw_plan, write_prompt
from rahf.data.samples import Sample, SampleSource
from rahf.data.sprites import NOUNS

LONGEST = 1024  # pixels of a photograph's longer side that are kept in memory
SPOILED = 0.6  # part of the pictures that get faults, as in composed scenes


class SpoiledPhotographs:
    """`count` crops of the photographs in a folder, each decided by (seed, index) alone."""

    def __init__(self, folder: str | Path, count: int, seed: int = 0, size: int = 256) -> None:
        """Raises ValueError if the folder holds no image."""
        paths = files_in(Path(folder), SUFFIXES)
        if not paths:
            raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
        self.photographs = [_shrunk(path) for path in paths]
        self.names = [path.stem for path in paths]
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"photograph {index} of {self.count}")
        generator = np.random.default_rng([self.seed, index, 2])
        place = int(generator.integers(len(self.photographs)))
        image = _crop(self.photographs[place], self.size, generator)
        image, heatmap, burden = plant_faults(image, generator)
        prompt, _ = write_prompt(draw_plan(sorted(NOUNS), generator), generator)
        return Sample(
            name=f"{self.names[place]}-{self.seed}-{index}",
            image=image,
            prompt=prompt,
            heatmaps={"implausibility": heatmap},
            scores={"plausibility": float(np.exp(-burden))},
        )


class Mixture:
    """`count` samples, each from one of several sources with the given shares, decided by (seed, index) alone."""

    def __init__(self, sources: list[SampleSource], shares: list[float], count: int, seed: int = 0) -> None:
        """Raises ValueError for shares that are not positive or not one a source."""
        if len(sources) != len(shares) or min(shares) <= 0:
            raise ValueError(f"shares are {shares} for {len(sources)} sources; give each a positive one")
        self.sources, self.count, self.seed = sources, count, seed
        self.chances = np.array(shares) / sum(shares)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        generator = np.random.default_rng([self.seed, index, 3])
        source = self.sources[int(generator.choice(len(self.chances), p=self.chances))]
        return source[index % len(source)]


def plant_faults(
    image: np.ndarray, generator: np.random.Generator, chance: float = SPOILED
) -> tuple[np.ndarray, np.ndarray, float]:
    """Up to three faults anywhere in a picture (H,W,3) uint8; gives it with its heatmap (H,W) and their burden."""
    size = min(image.shape[:2])
    heatmap, burden = np.zeros(image.shape[:2], np.float32), 0.0
    if generator.random() >= chance:
        return image, heatmap, burden
    for _ in range(int(generator.integers(1, 4))):
        width, height = (int(size * generator.uniform(0.14, 0.45)) for _ in range(2))
        box: Box = (
            int(generator.integers(image.shape[1] - width + 1)),
            int(generator.integers(image.shape[0] - height + 1)),
            width,
            height,
        )
        severity = float(generator.uniform(0.4, 1.0))
        kind = str(generator.choice(list(OBJECT_FAULTS)))
        spoiled, mask = OBJECT_FAULTS[kind](image, box, severity, generator)
        if not is_visible(image, spoiled, mask):
            continue
        image = spoiled
        heatmap = np.maximum(heatmap, spread(mask, 0.4 + 0.6 * severity))
        burden += burden_of(mask, severity)
    return image, heatmap, burden


def _shrunk(path: Path) -> np.ndarray:
    image = (load_photo(path) * 255).round().byte().permute(1, 2, 0).numpy()
    scale = LONGEST / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _crop(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A square of a quarter of the shorter side or more, perhaps mirrored, at `size`."""
    height, width = image.shape[:2]
    side = int(generator.uniform(min(1.0, max(0.25, 0.7 * size / min(height, width))), 1.0) * min(height, width))
    y, x = int(generator.integers(height - side + 1)), int(generator.integers(width - side + 1))
    part = image[y : y + side, x : x + side]
    if generator.random() < 0.5:
        part = part[:, ::-1]
    smoothing = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(part), (size, size), interpolation=smoothing)
