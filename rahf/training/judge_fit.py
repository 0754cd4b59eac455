"""Fitting the heads of the picture judge: gradient descent for the perceptrons, ridge regression for the scores."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rahf.pictures.judge import PARTS, perceptron, radial_kernel
from rahf.training.judge_data import part_maps, token_rows

Loss = Callable[[Tensor], Tensor]  # of the rows that it is given


def descend(
    module: nn.Module,
    loss: Loss,
    rows: int,
    steps: int,
    batch: int,
    rate: float = 1e-3,
    decay: float = 0.05,
    seed: int = 0,
) -> float:
    """AdamW with warm-up and cosine over random rows; gives the mean loss of the last tenth.

    Raises ValueError when the loss is no number any more.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout draws from the global generator
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
    warm = max(steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warm) * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item()),
    )
    module.train()
    recent: list[float] = []
    for step in range(steps):
        value = loss(torch.randint(rows, (batch,), generator=generator))
        if not torch.isfinite(value):
            raise ValueError(f"the loss is {value.item()} at step {step}; lower the learning rate")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if step >= 0.9 * steps:
            recent.append(value.item())
    module.eval()
    return sum(recent) / max(len(recent), 1)


def fit_embedding(
    summary: Tensor, embedding: Tensor, mean: Tensor, weight: Tensor, hidden: int, steps: int, seed: int
) -> nn.Sequential:
    """One member that imitates the image embedding (n,E) from standardised summaries (n,W); rows drawn by `weight`."""
    torch.manual_seed(seed)  # the first weights
    net = perceptron(summary.shape[1], hidden, embedding.shape[1], dropout=0.4)
    drawn = torch.multinomial(weight, 200_000, replacement=True, generator=torch.Generator().manual_seed(seed))

    def loss(rows: Tensor) -> Tensor:
        chosen = drawn[rows]
        noisy = summary[chosen] + 0.05 * torch.randn(len(rows), summary.shape[1])
        return 1 - F.cosine_similarity(net(noisy) + mean, embedding[chosen]).mean()

    descend(net, loss, len(drawn), steps, 128, rate=1e-3, decay=0.1, seed=seed)
    return net


ROUNDS = 8  # of moving the centres
SMALLEST = 1e-4  # part of the largest that a direction of the kernel must have


def fit_radial(summary: Tensor, weight: Tensor, sizes: tuple[int, int, int], seed: int) -> dict[str, Tensor]:
    """Axes, centres and mix of the nearness, from standardised summaries (n,W); pictures count by `weight` (n,).

    The axes are principal ones, each divided by the fourth root of its variance; the centres are those of clusters of
    directions (spherical k-means); the mix makes the kernel's figures uncorrelated as the Nystroem method does. `sizes`
    are the numbers of axes, centres and figures; unused ones stay zero.
    """
    axes, centres, figures = sizes
    weight = weight / weight.sum()
    middle = weight @ summary
    variance, vectors = torch.linalg.eigh(((summary - middle) * weight[:, None]).T @ (summary - middle))
    count = min(axes, len(summary) - 1)
    variance, vectors = variance.flip(0)[:count].clamp(min=1e-8), vectors.flip(1)[:, :count]
    basis = torch.zeros(summary.shape[1], axes)
    basis[:, :count] = vectors / variance**0.25
    places = F.normalize(summary @ basis, dim=-1)
    generator = torch.Generator().manual_seed(seed)
    first = torch.multinomial(weight, min(centres, len(summary)), generator=generator)
    middles = places[first]
    for _ in range(ROUNDS):
        nearest = torch.zeros(len(places), len(middles))
        nearest[torch.arange(len(places)), (places @ middles.T).argmax(1)] = weight
        sums = nearest.T @ places
        middles = torch.where(nearest.sum(0)[:, None] > 0, F.normalize(sums, dim=-1), middles)
    values, directions = torch.linalg.eigh(radial_kernel(middles, middles))
    kept = values.flip(0)[:figures]
    kept = kept[kept > SMALLEST * kept[0]]
    padded, mixed = torch.zeros(centres, axes), torch.zeros(centres, figures)
    padded[: len(middles)] = middles
    mixed[: len(middles), : len(kept)] = directions.flip(1)[:, : len(kept)] / kept.sqrt()
    return {"axes": basis, "centres": padded, "mix": mixed}


def fit_dense(
    tokens: Tensor, dense: Tensor, mean: Tensor, scale: Tensor, hidden: int, steps: int
) -> tuple[nn.Sequential, Tensor]:
    """The map from tokens (n,T) half to the teacher's dense embedding (n,E) half, and that embedding's mean."""
    torch.manual_seed(0)  # the first weights
    net = perceptron(tokens.shape[1], hidden, dense.shape[1])
    middle = dense.float().mean(0)

    def loss(rows: Tensor) -> Tensor:
        given = (tokens[rows].float() - mean) / scale
        return 1 - F.cosine_similarity(net(given) + middle, dense[rows].float()).mean()

    descend(net, loss, len(tokens), steps, 512, rate=1.5e-3, decay=0.02)
    return net, middle


def fit_parts(
    files: Sequence[Path], rows: Sequence[dict[str, list[list[float]]]], mean: Tensor, scale: Tensor, steps: int
) -> nn.Linear:
    """A linear map from tokens to chances of the parts, from boxes found in the pictures of the files."""
    tokens, targets = [], []
    for file, row in zip(files, rows, strict=True):
        values, grid, _ = token_rows(file)
        tokens.append(values.half())
        targets.append(part_maps(row, grid).flatten(1).T)
    given, wanted = torch.cat(tokens), torch.cat(targets)
    torch.manual_seed(0)  # the first weights
    net = nn.Linear(given.shape[1], len(PARTS))

    def loss(chosen: Tensor) -> Tensor:
        logits = net((given[chosen].float() - mean) / scale)
        return F.binary_cross_entropy_with_logits(logits, wanted[chosen])

    descend(net, loss, len(given), steps, 2048, rate=2e-3, decay=0.1)
    return net


def fit_faults(
    tokens: Tensor, masks: Tensor, mean: Tensor, scale: Tensor, hidden: int, steps: int, seed: int
) -> nn.Sequential:
    """One member that finds planted faults: tokens (n,T) half, masks (n,) in [0, 1]."""
    torch.manual_seed(seed)  # the first weights
    net = perceptron(tokens.shape[1], hidden, 1)

    def loss(rows: Tensor) -> Tensor:
        given = (tokens[rows].float() - mean) / scale
        return F.binary_cross_entropy_with_logits(net(given)[:, 0], masks[rows])

    descend(net, loss, len(tokens), steps, 2048, rate=1e-3, decay=0.05, seed=seed)
    return net


def ridge(rows: Tensor, target: Tensor, weight: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression in its dual form: rows (n,D), target (n,) -> weights (D,) and bias.

    `strength` is relative to the mean squared length of a row, so that it means the same for any width.
    """
    weight = weight / weight.sum()
    middle, level = weight @ rows, weight @ target
    centred = rows - middle
    gram = centred @ centred.T
    penalty = strength * gram.diagonal().mean() * torch.diag(1 / (weight * len(weight)))
    dual = torch.linalg.solve(gram + penalty, target - level)
    solution = centred.T @ dual
    return solution, level - middle @ solution


def within_groups(rows: Tensor, groups: Sequence[str], part: float = 1.0) -> Tensor:
    """Rows (n,D) without `part` of the mean of their group."""
    result = rows.clone()
    for name in set(groups):
        chosen = torch.tensor([group == name for group in groups])
        result[chosen] -= part * rows[chosen].mean(0)
    return result
