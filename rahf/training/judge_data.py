"""What the heads of the picture judge are fitted to: features from disk, with what people and rules say of them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from foundation.features import Features
from rahf.data.pictures import Picture
from rahf.pictures.judge import PARTS
from rahf.training.picture_features import feature_file


@dataclass(frozen=True, eq=False)
class Bundle:
    """Pictures with their summaries (n,W) float32 and, where the teacher saw them, embeddings (n,E)."""

    pictures: list[Picture]
    summary: Tensor
    embedding: Tensor | None

    def __len__(self) -> int:
        return len(self.pictures)

    def rows(self, wanted: Iterable[bool]) -> "Bundle":
        """The pictures for which `wanted` is true."""
        chosen = [place for place, keep in enumerate(wanted) if keep]
        embedding = None if self.embedding is None else self.embedding[chosen]
        return Bundle([self.pictures[place] for place in chosen], self.summary[chosen], embedding)


def load_bundle(pictures: Sequence[Picture], folder: Path) -> Bundle:
    """Summaries and embeddings of the pictures whose features are kept in a folder; the others are left out.

    Raises ValueError if none has any.
    """
    found, summaries, embeddings = [], [], []
    for picture in tqdm(pictures, desc="reading"):
        file = feature_file(folder, picture)
        if not file.exists():
            continue
        with np.load(file) as arrays:
            summaries.append(torch.from_numpy(arrays["description"]).float())
            embeddings.append(torch.from_numpy(arrays["embedding"]) if "embedding" in arrays else None)
        found.append(picture)
    if not found:
        raise ValueError(f"{folder} holds the features of none of the pictures; run `rahf picture-features` first")
    whole = all(embedding is not None for embedding in embeddings)
    return Bundle(found, torch.stack(summaries), torch.stack(embeddings) if whole else None)  # type: ignore[arg-type]


def load_features(file: Path, layers: Sequence[int] = (3, 7, 11)) -> Features:
    """Kept features as the encoder gives them, a batch of one."""
    with np.load(file) as arrays:
        rows, columns = (int(side) for side in arrays["grid"])
        stack = torch.from_numpy(arrays["tokens"]).float()
        maps = {
            layer: tokens.T.unflatten(1, (rows, columns))[None] for layer, tokens in zip(layers, stack, strict=True)
        }
        return Features(str(file), maps, torch.from_numpy(arrays["summary"]).float()[None])


def token_rows(file: Path) -> tuple[Tensor, tuple[int, int], Tensor | None]:
    """Tokens (N,layers*C) float32, their grid (rows, columns), and the teacher's dense embeddings (N,E) on it."""
    with np.load(file) as arrays:
        rows, columns = (int(side) for side in arrays["grid"])
        tokens = torch.from_numpy(arrays["tokens"]).float().permute(1, 0, 2).flatten(1)
        if "dense" not in arrays:
            return tokens, (rows, columns), None
        dense = torch.from_numpy(arrays["dense"]).float()
    side = round(len(dense) ** 0.5)
    grown = F.interpolate(dense.T.unflatten(1, (side, side))[None], (rows, columns), mode="bilinear")[0]
    return tokens, (rows, columns), F.normalize(grown.flatten(1).T, dim=-1)


def read_parts(file: Path) -> dict[str, dict[str, list[list[float]]]]:
    """Boxes of parts by picture from a .jsonl of `file`, `faces`, `hands` (x, y, width, height) and `pose` points (x,
    y, visibility) in parts of the picture, as a landmark detector gives them."""
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return {row["file"]: row for row in rows}


LIMBS = ((13, 15), (14, 16), (25, 27), (26, 28), (27, 31), (28, 32))  # forearms, shins and feet among the pose points


def part_boxes(
    row: dict[str, list[list[float]]], width: int, height: int
) -> list[tuple[str, tuple[int, int, int, int]]]:
    """(part, box in pixels) for everything that was found in a picture of `width` x `height`, a tenth wider."""
    boxes = []
    for part, name in (("face", "faces"), ("hand", "hands")):
        for x, y, w, h, *_ in row[name]:
            x, y, w, h = x * width, y * height, w * width, h * height
            boxes.append((part, (int(x - 0.1 * w), int(y - 0.1 * h), int(1.2 * w), int(1.2 * h))))
    points = row["pose"]
    for start, end in LIMBS if points else ():
        if min(points[start][2], points[end][2]) > 0.5:
            xs, ys = (
                sorted((points[start][axis] * side, points[end][axis] * side))
                for axis, side in ((0, width), (1, height))
            )
            margin = 0.25 * max(xs[1] - xs[0], ys[1] - ys[0]) + 4
            box = (xs[0] - margin, ys[0] - margin, xs[1] - xs[0] + 2 * margin, ys[1] - ys[0] + 2 * margin)
            boxes.append(("limb", (int(box[0]), int(box[1]), int(box[2]), int(box[3]))))
    return boxes


def part_maps(row: dict[str, list[list[float]]], grid: tuple[int, int]) -> Tensor:
    """(P,h,w) in [0, 1]: how much of each token's place the boxes of each part cover."""
    fine = 8
    maps = np.zeros((len(PARTS), grid[0] * fine, grid[1] * fine), np.float32)
    for part, (x, y, w, h) in part_boxes(row, grid[1] * fine, grid[0] * fine):
        inset = 0.1 if part != "limb" else 0.2
        top, left = max(int(y + inset * h), 0), max(int(x + inset * w), 0)
        bottom, right = int(y + (1 - inset) * h) + 1, int(x + (1 - inset) * w) + 1
        maps[PARTS.index(part), top:bottom, left:right] = 1
    return F.avg_pool2d(torch.from_numpy(maps), fine)


def sample_tokens(files: Sequence[Path], many: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`many` random tokens of each file (n,layers*C) half precision, with the teacher's dense embeddings (n,E)."""
    generator = torch.Generator().manual_seed(seed)
    tokens, dense = [], []
    for file in tqdm(files, desc="tokens"):
        rows, _, taught = token_rows(file)
        if taught is None:
            continue
        chosen = torch.randperm(len(rows), generator=generator)[:many]
        tokens.append(rows[chosen].half())
        dense.append(taught[chosen].half())
    return torch.cat(tokens), torch.cat(dense)
