"""Training: resumable, on one processor or many (`accelerate launch -m rahf.cli train ...`)."""

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from rahf.data.augment import Augmentation
from rahf.data.samples import SampleSource
from rahf.model.config import HEATMAPS
from rahf.model.rahf import RAHF
from rahf.prompts import TextTokenizer
from rahf.training.auxiliary import Auxiliary
from rahf.training.batches import Batch, LossWeights, collate, losses, weigh
from rahf.training.optimization import append_log, parameter_groups

logger = logging.getLogger(__name__)

STATE = "state"


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `batch_size` is that of all processes together; `save_every` and `log_every` count steps.

    schedule: "reciprocal_sqrt", the paper's, or "cosine", down to zero at the last step. tower_rate: the image tower's
    learning rate as a part of that of all else, for a pretrained tower.
    Raises ValueError for counts below 1 or another schedule.
    """

    steps: int = 20_000
    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup: int = 500
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    workers: int = 0
    mixed_precision: str = "no"
    schedule: str = "reciprocal_sqrt"
    tower_rate: float = 1.0
    save_every: int = 500
    log_every: int = 50
    weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation | None = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "warmup", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.schedule not in ("reciprocal_sqrt", "cosine"):
            raise ValueError(f"schedule is {self.schedule!r}; it must be 'reciprocal_sqrt' or 'cosine'")


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then the paper's reciprocal square root or a cosine."""
    warm = (step + 1) / config.warmup
    if config.schedule == "cosine":
        return config.learning_rate * min(warm, 1) * (1 + math.cos(math.pi * step / config.steps)) / 2
    return config.learning_rate * min(warm, math.sqrt(config.warmup / (step + 1)))


def batch_indices(step: int, count: int, config: TrainConfig) -> list[int]:
    """The samples of a step: passes over the whole set, each in its own order, decided by the seed and step alone."""
    first = step * config.batch_size
    chosen: list[int] = []
    for number in range(first // count, (first + config.batch_size - 1) // count + 1):
        order = np.random.default_rng([config.seed, number]).permutation(count)
        start, stop = max(first - number * count, 0), min(first + config.batch_size - number * count, count)
        chosen += order[start:stop].tolist()
    return chosen


def train(
    model: RAHF,
    source: SampleSource,
    tokenizer: TextTokenizer,
    out: str | Path,
    config: TrainConfig,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    auxiliary: Auxiliary | None = None,
) -> Path:
    """Train `model` on `source`; weights, configuration and `log.jsonl` go to the folder `out`.

    auxiliary: tasks for composed scenes, trained along and left out of the weights.

    A folder that holds a state goes on from it, giving what an uninterrupted run gives. Raises ValueError if that state
    was made with another configuration, or if there is nothing to train on.
    """
    if not len(source):
        raise ValueError("there is no sample to train on")
    out = Path(out)
    # Convolutions' faster layout, on processors most of all.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # the unused pooler
    )
    if config.batch_size % accelerator.num_processes:
        raise ValueError(f"batch_size {config.batch_size} is no multiple of {accelerator.num_processes} processes")
    learned = [*model.parameters(), *(auxiliary.parameters() if auxiliary is not None else ())]
    optimizer = torch.optim.AdamW(
        parameter_groups(model.image_tower, learned, config.tower_rate),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    if auxiliary is not None:
        auxiliary = accelerator.prepare(auxiliary)
    start = _resume(accelerator, out, config)
    loader = _loader(source, model, tokenizer, config, start, accelerator, auxiliary)
    wrapped.train()
    sums: dict[str, float] = {}
    progress = tqdm(loader, total=config.steps, initial=start, disable=not accelerator.is_main_process)
    for step, batch in enumerate(progress, start=start):
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout goes on as it would have
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config) * group["part"]
        found = _step(wrapped, auxiliary, batch.to(accelerator.device), tokenizer, optimizer, accelerator, config)
        for name, loss in found.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach())
        if (step + 1) % config.log_every == 0 and accelerator.is_main_process:
            means = {name: value / config.log_every for name, value in sums.items()}
            sums = {}
            progress.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
            append_log(out / "log.jsonl", step + 1, means)
            if on_log is not None:
                on_log(step + 1, means)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save(accelerator, model, out, step + 1, config)
    return out


def _step(
    model: torch.nn.Module,
    auxiliary: Auxiliary | None,
    batch: Batch,
    tokenizer: TextTokenizer,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    config: TrainConfig,
) -> dict[str, Tensor]:
    with accelerator.autocast():
        output = model(batch.images, batch.texts, targets=batch.targets.ids)
        found = losses(output, batch, tokenizer)
        if auxiliary is not None:
            found |= auxiliary(
                accelerator.unwrap_model(model), output, batch.places, batch.ends, batch.heatmaps[HEATMAPS[0]]
            )
        total = weigh(found, config.weights)
    if not torch.isfinite(total):
        values = {name: float(loss) for name, loss in found.items()}
        raise ValueError(f"the loss is not finite ({values}); lower the learning rate or train in float32")
    optimizer.zero_grad()
    accelerator.backward(total)
    accelerator.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], config.clip)
    optimizer.step()
    return {**found, "total": total}


class _Steps(Dataset):
    """Item n is the batch of step n, or this process's part of it."""

    def __init__(
        self,
        source: SampleSource,
        model: RAHF,
        tokenizer: TextTokenizer,
        config: TrainConfig,
        rank: int,
        ranks: int,
        words: tuple[Sequence[str], Sequence[str]] | None,
    ) -> None:
        self.source, self.tokenizer, self.config, self.words = source, tokenizer, config, words
        self.model_config, self.rank, self.ranks = model.config, rank, ranks

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        indices = batch_indices(step, len(self.source), self.config)[self.rank :: self.ranks]
        samples = []
        for index in indices:
            sample = self.source[index]
            if self.config.augmentation is not None:
                sample = self.config.augmentation(sample, np.random.default_rng([self.config.seed, step, index]))
            samples.append(sample)
        return collate(samples, self.model_config, self.tokenizer, self.words)


def _loader(
    source: SampleSource,
    model: RAHF,
    tokenizer: TextTokenizer,
    config: TrainConfig,
    start: int,
    accelerator: Accelerator,
    auxiliary: Auxiliary | None,
) -> Iterator[Batch]:
    plain = None if auxiliary is None else accelerator.unwrap_model(auxiliary)
    words = None if plain is None else (plain.nouns, plain.colours)
    steps = _Steps(source, model, tokenizer, config, accelerator.process_index, accelerator.num_processes, words)
    return iter(DataLoader(steps, batch_size=None, sampler=range(start, config.steps), num_workers=config.workers))


def _resume(accelerator: Accelerator, out: Path, config: TrainConfig) -> int:
    folder, old = out / STATE, out / f"{STATE}.old"
    if not folder.is_dir() and old.is_dir():  # stopped between the two renamings of a save
        folder = old
    if not folder.is_dir():
        return 0
    note = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    kept, now = note["config"], json.loads(json.dumps(asdict(config)))
    changed = sorted(name for name in now if kept.get(name) != now[name] and name not in _MAY_CHANGE)
    if changed:
        raise ValueError(
            f"{folder} was trained with other {', '.join(changed)}; name another folder or the same settings"
        )
    accelerator.load_state(str(folder))
    logger.info("going on from step %d", note["step"])
    return int(note["step"])


_MAY_CHANGE = {"steps", "workers", "save_every", "log_every"}


def _save(accelerator: Accelerator, model: RAHF, out: Path, step: int, config: TrainConfig) -> None:
    """State for going on, and weights for use; each replaces the one before only when it is whole."""
    beside, folder = out / f"{STATE}.part", out / STATE
    if accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(beside))
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        return
    (beside / "train.json").write_text(json.dumps({"step": step, "config": asdict(config)}, indent=1), encoding="utf-8")
    old = out / f"{STATE}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        os.rename(folder, old)
    os.rename(beside, folder)
    shutil.rmtree(old, ignore_errors=True)
    accelerator.unwrap_model(model).save_pretrained(out)
