"""Composed scenes with known faults: image, prompt, heatmaps, scores and word labels, all by rule.

Scores (in [0, 1], higher is better):
    plausibility = exp(-sum over planted faults of severity * (0.4 + 2 * the part of the picture it covers))
    alignment    = shown weight / whole weight of the telling words (nouns 2; colours, counts, relations, writing 1)
    aesthetics   = 0.2 + 0.8 * (1 - degradation) * sqrt(plausibility), degradation being blur, noise or loss of contrast
    overall      = 0.4 * plausibility + 0.4 * alignment + 0.2 * aesthetics
"""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rahf.data.faults import OBJECT_FAULTS, Box, burden_of, garble, is_visible, spread
from rahf.data.grammar import (
    COLOURS,
    AlignmentFault,
    Plan,
    alignment_score,
    draw_plan,
    misdraw,
    word_labels,
    write_prompt,
)
from rahf.data.samples import Sample, SceneObject
from rahf.data.sprites import Sprite, SpriteLibrary

TRAIN_GROUNDS: tuple[str, ...] = ("plain", "gradient", "clouds", "stripes")
TEST_GROUNDS: tuple[str, ...] = ("checks", "rings", "dots", "dunes")


@dataclass(frozen=True)
class SceneConfig:
    """Side of the pictures in pixels, and how often scenes are spoiled."""

    size: int = 256
    implausible: float = 0.6  # part of scenes with planted faults
    misaligned: float = 0.55  # part of scenes that depart from their prompt
    degraded: float = 0.4


@dataclass(frozen=True, eq=False)
class Instance:
    """One object in the picture: its group, box and mask (H,W) bool."""

    group: int
    box: Box
    mask: np.ndarray


class ComposedScenes:
    """`count` scenes of a split, each decided by (seed, index) alone."""

    def __init__(
        self,
        library: SpriteLibrary,
        count: int,
        split: str = "train",
        seed: int = 0,
        config: SceneConfig | None = None,
    ) -> None:
        self.sprites = library.split(split)
        self.grounds = TRAIN_GROUNDS if split == "train" else TEST_GROUNDS
        self.count, self.split, self.seed = count, split, seed
        self.config = config or SceneConfig()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        # Splits differ in their random stream too.
        generator = np.random.default_rng([self.seed, index, 0 if self.split == "train" else 1])
        return compose(self.sprites, self.grounds, self.config, generator, f"{self.split}-{self.seed}-{index}")


def compose(
    sprites: dict[str, list[Sprite]],
    grounds: tuple[str, ...],
    config: SceneConfig,
    generator: np.random.Generator,
    name: str = "scene",
) -> Sample:
    """One scene from sprites by noun, with faults planted as `config` says."""
    nouns = sorted(sprites)
    plan = draw_plan(nouns, generator)
    prompt, roles = write_prompt(plan, generator)
    wanted = int(generator.integers(1, 3)) if generator.random() < config.misaligned else 0
    drawn, departures = misdraw(plan, nouns, generator, wanted)
    image = ground(str(generator.choice(grounds)), config.size, generator)
    image, instances, sign = draw(image, drawn, sprites, generator)
    misalignment = _misalignment_map(instances, departures, plan, drawn, config.size, generator)
    image, implausibility, burden, broken = _spoil(image, instances, sign, config, generator)
    if broken and sign is not None:
        misalignment = np.maximum(misalignment, spread(_box_mask(sign, config.size), 0.8))
    image, degradation = degrade(image, generator) if generator.random() < config.degraded else (image, 0.0)
    labels = word_labels(roles, departures, broken)
    plausibility = float(np.exp(-burden))
    aesthetics = 0.2 + 0.8 * (1 - degradation) * float(np.sqrt(plausibility))
    scores = {
        "plausibility": plausibility,
        "alignment": alignment_score(roles, labels),
        "aesthetics": aesthetics,
    }
    scores["overall"] = 0.4 * plausibility + 0.4 * scores["alignment"] + 0.2 * aesthetics
    heatmaps = {"implausibility": implausibility, "misalignment": misalignment}
    objects = tuple(
        SceneObject(item.mask, drawn.groups[item.group].noun, drawn.groups[item.group].colour) for item in instances
    )
    return Sample(name, image, prompt, heatmaps, scores, labels, objects)


def draw(
    image: np.ndarray, plan: Plan, sprites: dict[str, list[Sprite]], generator: np.random.Generator
) -> tuple[np.ndarray, list[Instance], Box | None]:
    """Draw a plan; gives the picture, every object with its mask, and the box of the sign's writing."""
    size = image.shape[0]
    band = size // 5 if plan.sign else 0
    instances: list[Instance] = []
    regions = _regions(plan, size, size - band, generator)
    for place, (group, region) in enumerate(zip(plan.groups, regions, strict=True)):
        if not group.count:
            continue
        choices = sprites[group.noun]
        sprite = choices[int(generator.integers(len(choices)))]
        for box in _cells(region, group.count, generator):
            image, instance = paste(image, sprite.pixels, box, group.colour, place, generator)
            instances.append(instance)
    if plan.sign is None:
        return image, instances, None
    image, box = _write_sign(image, plan.sign, size - band, generator)
    return image, instances, box


def ground(kind: str, size: int, generator: np.random.Generator) -> np.ndarray:
    """A background (size,size,3) uint8 of a kind. Raises ValueError for an unknown one."""
    y, x = np.mgrid[0:size, 0:size] / size
    angle = generator.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind == "plain":
        level = np.zeros((size, size))
    elif kind == "gradient":
        level = along
    elif kind == "clouds":
        level = _noise(size, generator, 6)
    elif kind == "stripes":
        level = (np.sin(along * generator.uniform(15, 50)) > 0).astype(float)
    elif kind == "checks":
        count = int(generator.integers(4, 12))
        level = ((x * count).astype(int) + (y * count).astype(int)) % 2.0
    elif kind == "rings":
        centre = generator.uniform(0, 1, 2)
        level = np.sin(np.hypot(x - centre[0], y - centre[1]) * generator.uniform(20, 60)) / 2 + 0.5
    elif kind == "dots":
        pitch = generator.uniform(5, 14)
        level = (np.hypot((x * pitch) % 1 - 0.5, (y * pitch) % 1 - 0.5) < 0.3).astype(float)
    elif kind == "dunes":
        level = np.sin(12 * along + 4 * _noise(size, generator, 4)) / 2 + 0.5
    else:
        raise ValueError(f"no background is called {kind!r}; there are {', '.join(TRAIN_GROUNDS + TEST_GROUNDS)}")
    low = generator.uniform(60, 250, 3)
    high = np.clip(low + generator.uniform(-60, 60, 3), 30, 255)
    return (low + (high - low) * level[..., None]).round().astype(np.uint8)


def degrade(image: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Blur, noise or loss of contrast by a random amount in (0, 1]."""
    amount = float(generator.uniform(0.15, 1.0))
    kind = int(generator.integers(3))
    if kind == 0:
        return cv2.GaussianBlur(image, (0, 0), 0.3 + 2.2 * amount * image.shape[0] / 256), amount
    if kind == 1:
        noisy = image + generator.normal(0, 45 * amount, image.shape)
        return np.clip(noisy, 0, 255).round().astype(np.uint8), amount
    mean = image.mean(axis=(0, 1))
    return (mean + (image - mean) * (1 - 0.75 * amount)).round().astype(np.uint8), amount


def tint(pixels: np.ndarray, colour: str) -> np.ndarray:
    """A sprite (H,W,4) in shades of a named colour, its light and dark kept."""
    light = pixels[..., :3].astype(np.float32).mean(axis=-1, keepdims=True) / 255
    spread_light = 0.3 + 0.85 * light
    shade = np.array(COLOURS[colour], dtype=np.float32) * np.minimum(spread_light, 1)
    shade = shade + (255 - shade) * np.clip(spread_light - 1, 0, 1) * 2
    return np.concatenate([np.clip(shade, 0, 255).astype(np.uint8), pixels[..., 3:]], axis=-1)


def _spoil(
    image: np.ndarray, instances: list[Instance], sign: Box | None, config: SceneConfig, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Plant faults; gives the picture, the implausibility map, the faults' burden, and whether writing was garbled."""
    heatmap = np.zeros(image.shape[:2], np.float32)
    burden, broken = 0.0, False
    if generator.random() >= config.implausible:
        return image, heatmap, burden, broken
    number = int(generator.integers(1, 4))
    for place in generator.permutation(len(instances))[:number]:
        severity = float(generator.uniform(0.4, 1.0))
        kind = str(generator.choice(list(OBJECT_FAULTS)))
        box = part_of(instances[place].box, generator)
        spoiled, mask = OBJECT_FAULTS[kind](image, box, severity, generator)
        if not is_visible(image, spoiled, mask):
            continue
        image = spoiled
        heatmap = np.maximum(heatmap, spread(mask, 0.4 + 0.6 * severity))
        burden += burden_of(mask, severity)
    if sign is not None and generator.random() < 0.6:
        severity, broken = float(generator.uniform(0.5, 1.0)), True
        image, mask = garble(image, sign, severity, generator)
        heatmap = np.maximum(heatmap, spread(mask, 0.4 + 0.6 * severity))
        burden += burden_of(mask, severity)
    return image, heatmap, burden, broken


def _misalignment_map(
    instances: list[Instance],
    faults: list[AlignmentFault],
    asked: Plan,
    drawn: Plan,
    size: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Where the picture departs from its prompt; what is missing has no place."""
    heatmap = np.zeros((size, size), np.float32)
    for fault in faults:
        concerned = [item for item in instances if fault.group in (-1, item.group)]
        if fault.kind == "wrong count":
            extra = drawn.groups[fault.group].count - asked.groups[fault.group].count
            concerned = concerned[-extra:] if extra > 0 else concerned
        for item in concerned:
            heatmap = np.maximum(heatmap, spread(item.mask, 0.8))
    return heatmap


def _regions(plan: Plan, width: int, height: int, generator: np.random.Generator) -> list[Box]:
    """A box for each group, so that the relation holds."""
    number = len(plan.groups)
    upright = plan.relation in ("above", "below") if plan.relation else bool(generator.random() < 0.4)
    if upright:
        boxes = [(0, height * place // number, width, height // number) for place in range(number)]
    else:
        boxes = [(width * place // number, 0, width // number, height) for place in range(number)]
    if plan.relation in ("below", "right"):
        return boxes[::-1]
    return boxes if plan.relation else [boxes[place] for place in generator.permutation(number)]


def _cells(region: Box, count: int, generator: np.random.Generator) -> list[Box]:
    """Boxes for `count` objects side by side within a region, jittered."""
    x, y, width, height = region
    columns = min(range(1, count + 1), key=lambda n: abs(width / n - height / -(-count // n)))
    rows = -(-count // columns)
    cells = []
    for place in range(count):
        cell_x, cell_y = x + width * (place % columns) // columns, y + height * (place // columns) // rows
        room = min(width // columns, height // rows)
        side = int(room * generator.uniform(0.72, 0.95))
        free_x, free_y = width // columns - side, height // rows - side
        cells.append(
            (cell_x + int(generator.integers(free_x + 1)), cell_y + int(generator.integers(free_y + 1)), side, side)
        )
    return cells


def paste(
    image: np.ndarray, pixels: np.ndarray, box: Box, colour: str | None, group: int, generator: np.random.Generator
) -> tuple[np.ndarray, Instance]:
    """A sprite (H,W,4) drawn into a box, tinted if a colour is named, perhaps mirrored; gives picture and instance."""
    x, y, width, height = box
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    shape = (max(int(pixels.shape[1] * scale), 2), max(int(pixels.shape[0] * scale), 2))
    sprite = tint(pixels, colour) if colour else pixels
    premultiplied = sprite.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    sprite = cv2.resize(premultiplied, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if generator.random() < 0.5:
        sprite = sprite[:, ::-1]
    x, y = x + (width - shape[0]) // 2, y + (height - shape[1]) // 2
    image = image.copy()
    under = image[y : y + shape[1], x : x + shape[0]]
    alpha = sprite[..., 3:] / 255
    image[y : y + shape[1], x : x + shape[0]] = np.clip(under * (1 - alpha) + sprite[..., :3], 0, 255).round()
    mask = np.zeros(image.shape[:2], bool)
    mask[y : y + shape[1], x : x + shape[0]] = alpha[..., 0] > 0.3
    return image, Instance(group, (x, y, *shape), mask)


def _write_sign(image: np.ndarray, text: str, top: int, generator: np.random.Generator) -> tuple[np.ndarray, Box]:
    """A white board with dark writing in the strip below `top`; gives the box of the writing."""
    size = image.shape[0]
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=int((size - top) * 0.6))
    left, upper, right, lower = (int(edge) for edge in pen.textbbox((0, 0), text, font=font))
    margin = size // 60
    x = int(generator.integers(margin, max(size - (right - left) - 2 * margin, margin + 1)))
    y = top + (size - top - (lower - upper)) // 2
    pen.rectangle((x - margin, y - margin, x + right - left + margin, y + lower - upper + margin), "white", "black")
    pen.text((x - left, y - upper), text, fill=tuple(int(v) for v in generator.integers(0, 90, 3)), font=font)
    return np.array(canvas), (x, y, right - left, lower - upper)


def part_of(box: Box, generator: np.random.Generator) -> Box:
    """A part of a box, at least half as wide and high."""
    x, y, width, height = box
    inner_width, inner_height = int(width * generator.uniform(0.5, 0.85)), int(height * generator.uniform(0.5, 0.85))
    return (
        x + int(generator.integers(width - inner_width + 1)),
        y + int(generator.integers(height - inner_height + 1)),
        inner_width,
        inner_height,
    )


def _box_mask(box: Box, size: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = True
    return mask


def _noise(size: int, generator: np.random.Generator, cells: int) -> np.ndarray:
    coarse = generator.random((cells, cells)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
