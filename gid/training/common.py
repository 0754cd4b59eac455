"""What every training stage shares: accelerate, EMA, checkpoints that can be resumed, a log, learning-rate warm-up."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import ModelMixin
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

Part = TypeVar("Part", bound=ModelMixin)


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        out: folder for checkpoints, the log, sample sheets and, at the end, the model.
        steps: optimizer steps in all.
        batch_size: rows a step on each process.
        learning_rate: after warm-up, decaying to zero as a cosine.
        warmup_steps: linear warm-up.
        weight_decay: of AdamW.
        gradient_clip: largest gradient norm.
        ema_decay: of the exponential moving average that is saved as the model.
        precision: ``bf16`` or ``no`` (float32).
        save_every: steps between checkpoints and sample sheets.
        workers: loader processes.
        seed: of weights, order and noise.
        max_minutes: stop early after so long, with the schedule run down to it; 0 for no limit.
    """

    out: Path
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.995
    precision: str = "bf16"
    save_every: int = 200
    workers: int = 0
    seed: int = 0
    max_minutes: float = 0.0


class Run:
    """A training loop around an *objective*: a module whose forward turns a batch into (loss, numbers for the log).

    The objective holds the model, so that wrapping it for many GPUs wraps the whole computation.
    """

    def __init__(
        self,
        config: RunConfig,
        objective: nn.Module,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        dataset: Dataset[dict[str, Tensor]],
        sampler: Callable[[int], Sampler[int]] | None = None,
    ) -> None:
        """Prepare everything and resume from ``config.out`` if a checkpoint is there.

        Args:
            config: the run.
            objective: holds the model; forward(batch) -> (loss, numbers).
            parameters: what is trained and averaged, or optimizer groups of it.
            dataset: rows as dictionaries of tensors.
            sampler: makes a sampler of so many rows; by default each row once, in random order.
        """
        self.config = config
        config.out.mkdir(parents=True, exist_ok=True)
        self.accelerator = Accelerator(mixed_precision=config.precision)
        set_seed(config.seed)
        self.optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.step = 0
        self.seconds = 0.0
        scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        rows = None if sampler is None else sampler(config.batch_size * 256)
        loader: DataLoader[dict[str, Tensor]] = DataLoader(
            dataset,
            config.batch_size,
            shuffle=rows is None,
            sampler=rows,
            drop_last=True,
            num_workers=config.workers,
        )
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = EMAModel(self.parameters, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
        prepared = self.accelerator.prepare(objective, self.optimizer, loader, scheduler)
        self.objective, self.optimizer, self.loader, self.scheduler = prepared
        self.ema.to(self.accelerator.device)
        self._resume()

    def _rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero at the last step or the last minute, whichever comes first."""
        done = step / self.config.steps
        if self.config.max_minutes > 0:
            done = max(done, self.seconds / (60 * self.config.max_minutes))
        warm = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def train(
        self,
        samples: Callable[[], np.ndarray] | None = None,
        validate: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Run to the end of the schedule.

        Args:
            samples: makes an uint8 (H, W, 3) sheet with the averaged weights, kept as ``samples-STEP.png``.
            validate: numbers for the log, with the averaged weights.
        """
        start = time.monotonic() - self.seconds
        progress = tqdm(
            total=self.config.steps, initial=self.step, disable=not self.accelerator.is_main_process, desc="training"
        )
        batches = self._batches()
        while self.step < self.config.steps:
            batch = next(batches)
            with self.accelerator.autocast():
                loss, numbers = self.objective(batch)
            self.accelerator.backward(loss)
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.gradient_clip)
            if not torch.isfinite(loss):
                raise RuntimeError(f"the loss is {float(loss)} at step {self.step}; lower the learning rate")
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.ema.step(self.parameters)
            self.step += 1
            self.seconds = time.monotonic() - start
            progress.update()
            progress.set_postfix(loss=f"{float(loss.detach()):.4f}")
            last = self.step == self.config.steps or 0 < self.config.max_minutes * 60 < self.seconds
            self._log(
                {
                    "loss": float(loss.detach()),
                    "gradient_norm": float(norm),
                    **{k: float(v) for k, v in numbers.items()},
                }
            )
            if self.step % self.config.save_every == 0 or last:
                self._save()
                with self.averaged():
                    self._report(samples, validate)
            if last:
                break
        progress.close()

    def averaged(self) -> _Averaged:
        """A context in which the model holds its moving average."""
        return _Averaged(self.ema, self.parameters, self.accelerator.unwrap_model(self.objective))

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield from self.loader

    def _report(
        self, samples: Callable[[], np.ndarray] | None, validate: Callable[[], dict[str, float]] | None
    ) -> None:
        if not self.accelerator.is_main_process:
            return
        if validate is not None:
            numbers = validate()
            logger.info("step %d: %s", self.step, numbers)
            self._log(numbers)
        if samples is not None:
            Image.fromarray(samples()).save(self.config.out / f"samples-{self.step:06d}.png")

    def _log(self, numbers: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            record: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 1)}
            record |= {key: round(value, 6) for key, value in numbers.items()}
            with (self.config.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")

    def _save(self) -> None:
        """One checkpoint, the newest; written beside and renamed, so a killed run resumes from the one before."""
        if not self.accelerator.is_main_process:
            return
        beside = self.config.out / "checkpoint.part.pt"
        state = {
            "model": self.accelerator.unwrap_model(self.objective).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ema": {"step": self.ema.optimization_step, "shadow": self.ema.shadow_params},
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
        }
        torch.save(state, beside)
        beside.replace(self.config.out / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.config.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        self.accelerator.unwrap_model(self.objective).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.ema.optimization_step = state["ema"]["step"]
        self.ema.shadow_params = [p.to(self.accelerator.device) for p in state["ema"]["shadow"]]
        self.step, self.seconds = state["step"], state["seconds"]
        torch.set_rng_state(state["rng"].cpu())
        logger.info("resumed from step %d", self.step)


def load_part(kind: type[Part], folder: Path, stage: str) -> Part:
    """A network that a stage wrote, from its folder and never from the Hub.

    Raises:
        ValueError: the folder holds no network.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds no config.json; name the folder of the network that `gid train {stage}` wrote"
        )
    network: Part = kind.from_pretrained(folder)
    return network


def tile(rows: Tensor, columns: int) -> np.ndarray:
    """Strips (N, 3 or 1, h, w) in [0, 1] set in ``columns`` columns -> uint8 (H, W, 3); what does not fit is left."""
    rows = rows[: len(rows) // columns * columns].expand(-1, 3, -1, -1).clamp(0, 1)
    sheet = torch.cat([torch.cat(list(rows[i::columns]), dim=1) for i in range(columns)], dim=2)
    return (sheet * 255).byte().permute(1, 2, 0).contiguous().numpy()


class _Averaged:
    """Swap the averaged weights in, and out again."""

    def __init__(self, ema: EMAModel, parameters: list[nn.Parameter], model: nn.Module) -> None:
        self.ema, self.parameters, self.model = ema, parameters, model

    def __enter__(self) -> nn.Module:
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        # Of every module on its own: frozen parts that are held in evaluation mode must stay there.
        self.was_training = [(module, module.training) for module in self.model.modules()]
        return self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.ema.restore(self.parameters)
        for module, mode in self.was_training:
            module.training = mode
