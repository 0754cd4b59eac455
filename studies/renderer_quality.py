"""How close rendered frames come to true later frames of left-out procedural scenes, beside simpler ways to warp.

    python studies/renderer_quality.py --weights gid/weights/renderer --scenes 40

Every way gets the same photo, the scene's exact motion and the same splatting weights. "Defects" are the pixels near
holes and seams between layers (where the renderer's gate is open): disocclusions and edges of moving things. Sharpness
is the mean gradient there, as a share of the true frame's: 1 is as sharp, below is blurrier.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gid.rendering.projection import look_up, project, splatting_metric
from gid.rendering.renderer import Draft, Renderer, compose
from gid.rendering.splatting import splat
from gid.training.renderer_data import Pair, read_pairs, write_pairs

logger = logging.getLogger("benchmarks.renderer_quality")
FIRST_SEED = 900_000  # far from the training seeds


def ways(trained: Renderer | None) -> dict[str, Callable[[Tensor, Draft, Tensor, Tensor], Tensor]]:
    """photo, draft, flow, importance -> picture."""

    def splatted(photo: Tensor, draft: Draft, flow: Tensor, importance: Tensor) -> Tensor:
        return splat(photo, flow, splatting_metric(importance, 3.0), "softmax")

    def backward(photo: Tensor, draft: Draft, flow: Tensor, importance: Tensor) -> Tensor:
        return look_up(photo, flow)

    def untrained(photo: Tensor, draft: Draft, flow: Tensor, importance: Tensor) -> Tensor:
        return draft.picture

    chosen: dict[str, Callable[[Tensor, Draft, Tensor, Tensor], Tensor]] = {
        "photo, not moved": lambda photo, draft, flow, importance: photo,
        "softmax splatting of the pixels": splatted,
        "backward warp by the forward motion": backward,
        "renderer, untrained": untrained,
    }
    if trained is not None:
        model = trained

        def mended(photo: Tensor, draft: Draft, flow: Tensor, importance: Tensor) -> Tensor:
            return model.mend(draft, model.encode(photo), flow, importance)

        chosen["renderer, trained"] = mended
    return chosen


class Score:
    """Sums over frames of what the table shows."""

    def __init__(self) -> None:
        self.psnr: list[float] = []
        self.defect_error = self.defect_weight = self.gradient = self.true_gradient = 0.0

    def add(self, picture: Tensor, target: Tensor, gate: Tensor) -> None:
        error = (picture - target).square().mean(1, keepdim=True)
        self.psnr.append(float(-10 * torch.log10(error.mean().clamp(min=1e-10))))
        self.defect_error += float((error * gate).sum())
        self.defect_weight += float(gate.sum())
        self.gradient += _gradient(picture, gate)
        self.true_gradient += _gradient(target, gate)

    def row(self, name: str) -> str:
        defects = -10 * torch.log10(torch.tensor(self.defect_error / max(self.defect_weight, 1e-9)))
        psnr = sum(self.psnr) / len(self.psnr)
        return f"| {name} | {psnr:.2f} | {float(defects):.2f} | {self.gradient / max(self.true_gradient, 1e-9):.2f} |"


def _gradient(picture: Tensor, gate: Tensor) -> float:
    across = (picture.diff(dim=-1).abs() * gate[..., 1:]).sum()
    down = (picture.diff(dim=-2).abs() * gate[..., 1:, :]).sum()
    return float(across + down)


@torch.no_grad()
def table(pairs: list[Pair], trained: Renderer | None) -> tuple[list[str], float]:
    """Markdown rows, and the share of pixels that are defects."""
    chosen = ways(trained)
    scores = {name: Score() for name in chosen}
    share = 0.0
    for pair in pairs:
        photo, target = pair.photo[None], pair.target[None]
        flow, importance = pair.flow[None], pair.importance[None]
        draft = compose(photo, project(flow, importance))
        share += float(draft.gate.mean()) / len(pairs)
        for name, way in chosen.items():
            scores[name].add(way(photo, draft, flow, importance), target, draft.gate)
    return [score.row(name) for name, score in scores.items()], share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, help="folder of a trained renderer")
    parser.add_argument("--data", type=Path, default=Path("runs/renderer-held"), help="where scenes are kept")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("studies/renderer_quality.md"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_pairs(arguments.data, range(FIRST_SEED, FIRST_SEED + arguments.scenes))
    paths = sorted(arguments.data.glob("*.npz"))[: arguments.scenes]
    pairs = [pair for path in paths for pair in read_pairs(path)]
    trained = Renderer.from_pretrained(arguments.weights).eval() if arguments.weights else None
    rows, share = table(pairs, trained)
    text = [
        "# Renderer against true later frames",
        "",
        f"{len(pairs)} frames of {len(paths)} left-out procedural scenes (seeds from {FIRST_SEED}), exact motion. PSNR",
        f"in dB; defects (holes, seams between layers) are {100 * share:.1f} % of the pixels. Made by",
        "`python studies/renderer_quality.py --weights gid/weights/renderer`.",
        "",
        "| way | PSNR, mean over frames | PSNR in defects | gradient in defects over the true frame's |",
        "|---|---|---|---|",
        *rows,
    ]
    arguments.out.write_text("\n".join(text) + "\n")
    logger.info("\n".join(text))


if __name__ == "__main__":
    main()
