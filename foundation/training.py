"""The one training loop: both libraries' stages are an objective, its parameters and the batches of each step.

What a step does depends on its number and the seed alone, so that a resumed run gives what an uninterrupted one gives.
One process or many (`accelerate launch`); state on disk that is replaced only when the new one is whole.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foundation.batches import Batches, Steps, seed_of
from foundation.files import replace_folder, set_aside, write_text
from foundation.limits import TRAINING_LIMITS as TRAINING_LIMITS
from foundation.limits import Checked, Limit

if TYPE_CHECKING:
    import numpy as np
    from diffusers.training_utils import EMAModel

logger = logging.getLogger(__name__)

STATE = "state"
NOTE = "training.json"
LOG = "log.jsonl"
AVERAGE = "average.safetensors"


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """One training run.

    Attributes:
        out: folder for state, log, sample sheets and what is trained; goes on from a state there.
        steps: optimizer steps in all.
        batch_size: rows a step, of all processes together.
        learning_rate: at its peak.
        warmup_steps: steps of the linear warm-up.
        schedule: of the learning rate after warm-up: a cosine down to zero at the last step, or the reciprocal square
            root.
        weight_decay: of AdamW.
        gradient_clip: largest gradient norm.
        ema_decay: of the exponential moving average that is saved as the model; 0 is none.
        precision: of the arithmetic; no is float32.
        save_every: steps between saves.
        log_every: steps between lines of the log, which hold means.
        workers: loader processes.
        seed: of weights, order and noise.
        max_minutes: stop early after so long, with the schedule run down to it; 0 for no limit.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar[Mapping[str, Limit]] = TRAINING_LIMITS
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "schedule": ("cosine", "reciprocal_sqrt"),
        "precision": ("no", "bf16", "fp16"),
    }
    # What may differ from the settings of the state that a run goes on from.
    may_change: ClassVar[frozenset[str]] = frozenset(
        {"out", "steps", "workers", "save_every", "log_every", "max_minutes"}
    )

    out: Path
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 3e-4
    warmup_steps: int = 50
    schedule: str = "cosine"
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.995
    precision: str = "bf16"
    save_every: int = 200
    log_every: int = 1
    workers: int = 0
    seed: int = 0
    max_minutes: float = 0.0


def learning_rate(step: int, config: TrainingConfig, seconds: float = 0.0) -> float:
    """The rate of a step: linear warm-up times the schedule; a limit in minutes shortens a cosine."""
    warm = (step + 1) / max(1, config.warmup_steps)
    if config.schedule == "reciprocal_sqrt":
        return config.learning_rate * min(warm, math.sqrt(max(1, config.warmup_steps) / (step + 1)))
    done = step / config.steps
    if config.max_minutes > 0:
        done = max(done, seconds / (60 * config.max_minutes))
    return config.learning_rate * min(1.0, warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class TrainingRun:
    """A training loop around an *objective*: a module whose forward turns a batch into (loss, numbers for the log).

    The objective holds the model, so that wrapping it for many GPUs wraps the whole computation.
    """

    def __init__(
        self,
        config: TrainingConfig,
        objective: nn.Module,
        parameters: list[nn.Parameter] | list[dict[str, Any]],
        batches: Batches,
    ) -> None:
        """Prepare everything and resume from ``config.out`` if a state is there.

        Args:
            config: the run.
            objective: forward(batch) -> (loss (), numbers by name). Its training or evaluation mode is left as it is.
            parameters: what is trained and averaged, or optimizer groups of it; ``lr`` of a group is its own rate at
                the peak of the schedule.
            batches: what each step is shown.

        Raises:
            ValueError: if ``config.out`` holds a state of other settings, or processes do not share a batch evenly.
        """
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        self.config = config
        config.out.mkdir(parents=True, exist_ok=True)
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(mixed_precision=config.precision, kwargs_handlers=[unused])
        processes = self.accelerator.num_processes
        if config.batch_size % processes:
            raise ValueError(f"batch_size is {config.batch_size}, which is no multiple of {processes} processes")
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        for group in optimizer.param_groups:
            group["part"] = group["lr"] / config.learning_rate
        self.parameters: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
        self.batches = batches
        self.step = 0
        self.seconds = 0.0
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.ema = self._average() if config.ema_decay > 0 else None
        self._resume()

    def train(
        self,
        samples: Callable[[], np.ndarray] | None = None,
        validate: Callable[[], Mapping[str, float]] | None = None,
        save: Callable[[], object] | None = None,
    ) -> None:
        """Run to the end of the schedule. The three are called at each save, on one process, with averaged weights.

        Args:
            samples: makes an uint8 (H, W, 3) sheet, kept as ``samples-STEP.png``.
            validate: numbers for the log.
            save: writes the model.

        Raises:
            ValueError: if the loss or its gradient is not finite.
        """
        from tqdm.auto import tqdm

        start = time.monotonic() - self.seconds
        sums: dict[str, float] = {}
        count = 0
        with tqdm(
            total=self.config.steps, initial=self.step, disable=not self.accelerator.is_main_process, desc="training"
        ) as progress:
            for batch in self._loader():
                for name, value in self._optimize(batch).items():
                    sums[name] = sums.get(name, 0.0) + value
                count += 1
                self.step += 1
                self.seconds = self._agreed(time.monotonic() - start)
                progress.update()
                last = self.step == self.config.steps or 0 < self.config.max_minutes * 60 < self.seconds
                if self.step % self.config.log_every == 0 or last:
                    means = {name: value / count for name, value in sums.items()}
                    self.log(means)
                    progress.set_postfix({"loss": f"{means['loss']:.4f}"})
                    sums, count = {}, 0
                if self.step % self.config.save_every == 0 or last:
                    self._save()
                    with self.averaged():
                        self._report(samples, validate, save)
                if last:
                    break

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """A context in which the model holds its moving average, in evaluation mode."""
        model = self.accelerator.unwrap_model(self.objective)
        # Of every module on its own: frozen parts that are held in evaluation mode must stay there.
        modes = [(module, module.training) for module in model.modules()]
        if self.ema is not None:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        try:
            yield model.eval()
        finally:
            if self.ema is not None:
                self.ema.restore(self.parameters)
            for module, mode in modes:
                module.training = mode

    def keep_average(self) -> None:
        """Leave the moving average in the model for good, after training."""
        if self.ema is not None:
            self.ema.copy_to(self.parameters)

    def log(self, numbers: Mapping[str, float]) -> None:
        """Add a line of JSON to the log: step, seconds and numbers."""
        if self.accelerator.is_main_process:
            record: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 1)}
            record |= {key: round(float(value), 6) for key, value in numbers.items()}
            with (self.config.out / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def _optimize(self, batch: Any) -> dict[str, float]:
        """One step on one batch; the numbers of the log."""
        torch.manual_seed(seed_of(self.config.seed, self.step, self.accelerator.process_index))
        rate = learning_rate(self.step, self.config, self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["part"]
        with self.accelerator.autocast():
            loss, numbers = self.objective(batch)
        values = {"loss": float(loss.detach()), **{name: float(value) for name, value in numbers.items()}}
        if not math.isfinite(values["loss"]):
            self._refuse("the loss", values)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        values["gradient_norm"] = float(norm)
        # In fp16 the scaler skips steps whose gradient is out of range.
        if self.config.precision != "fp16" and not math.isfinite(values["gradient_norm"]):
            self._refuse("the gradient", values)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.step(self.parameters)
        return values

    def _refuse(self, what: str, values: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        precise = "" if self.config.precision == "no" else ", or train in float32 (precision no)"
        raise ValueError(
            f"{what} is not finite at step {self.step + 1} ({shown}); lower the learning rate{precise}, and start "
            "again: the run goes on from its last save"
        )

    def _loader(self) -> Iterator[Any]:
        from accelerate.utils import send_to_device

        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        steps = Steps(self.batches, self.config.steps, self.config.seed, process, processes)
        remaining = range(self.step, self.config.steps)
        for batch in DataLoader(steps, batch_size=None, sampler=remaining, num_workers=self.config.workers):
            yield send_to_device(batch, self.accelerator.device)

    def _agreed(self, seconds: float) -> float:
        """The first process's clock, by which all stop at the same step."""
        if self.accelerator.num_processes == 1 or self.config.max_minutes <= 0:
            return seconds
        from accelerate.utils import broadcast

        clock: Tensor = broadcast(torch.tensor(seconds, device=self.accelerator.device))
        return float(clock)

    def _report(
        self,
        samples: Callable[[], np.ndarray] | None,
        validate: Callable[[], Mapping[str, float]] | None,
        save: Callable[[], object] | None,
    ) -> None:
        if not self.accelerator.is_main_process:
            return
        if validate is not None:
            numbers = validate()
            logger.info("step %d: %s", self.step, dict(numbers))
            self.log(numbers)
        if samples is not None:
            from PIL import Image

            Image.fromarray(samples()).save(self.config.out / f"samples-{self.step:06d}.png")
        if save is not None:
            save()

    def _average(self) -> EMAModel:
        from diffusers.training_utils import EMAModel

        ema = EMAModel(self.parameters, decay=self.config.ema_decay, use_ema_warmup=True, power=0.75)
        ema.to(self.accelerator.device)
        return ema

    # -- state on disk --------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """State for going on; it replaces the one before only when it is whole."""
        from safetensors.torch import save_file

        partial = self.config.out / f"{STATE}.part"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        note: dict[str, Any] = {"step": self.step, "seconds": self.seconds, "config": settings(self.config)}
        if self.ema is not None:
            note["average_step"] = self.ema.optimization_step
            shadow = {f"{index:05d}": value.contiguous() for index, value in enumerate(self.ema.shadow_params)}
            save_file(shadow, partial / AVERAGE)
        write_text(partial / NOTE, json.dumps(note, indent=1))
        replace_folder(partial, self.config.out / STATE)

    def _resume(self) -> None:
        folder = self.config.out / STATE
        if not folder.is_dir() and set_aside(folder).is_dir():  # stopped between the two renamings of a save
            folder = set_aside(folder)
        if not folder.is_dir():
            return
        note = read_note(folder)
        now = settings(self.config)
        changed = sorted(
            name
            for name in now
            if name not in self.config.may_change and note["config"].get(name, now[name]) != now[name]
        )
        if changed:
            raise ValueError(
                f"{folder} was trained with other {', '.join(changed)}; name another folder or the same settings"
            )
        self.accelerator.load_state(str(folder))
        if self.ema is not None:
            from safetensors.torch import load_file

            shadow = load_file(folder / AVERAGE, device=str(self.accelerator.device))
            self.ema.shadow_params = [shadow[name] for name in sorted(shadow)]
            self.ema.optimization_step = note["average_step"]
        self.step, self.seconds = int(note["step"]), float(note["seconds"])
        if self.accelerator.is_main_process:
            _forget_after(self.config.out / LOG, self.step)
        logger.info("going on from step %d", self.step)


def settings(config: TrainingConfig) -> dict[str, Any]:
    """The fields of a configuration as JSON keeps them, without paths: data may have moved."""

    def plain(value: Any) -> bool:
        parts = value if isinstance(value, tuple | list) else (value,)
        return not any(isinstance(part, Path) for part in parts)

    kept = {field.name: getattr(config, field.name) for field in fields(config) if plain(getattr(config, field.name))}
    result: dict[str, Any] = json.loads(json.dumps(kept, default=vars))
    return result


def read_note(folder: Path) -> dict[str, Any]:
    """Step, seconds and settings of a state. Raises ValueError if the folder holds none."""
    try:
        note: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no whole state of a training run ({error}); remove it to start anew"
        ) from error
    return note


def _forget_after(log: Path, step: int) -> None:
    """Remove the lines of steps that are run again."""
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(log, "".join(line for line in lines if json.loads(line)["step"] <= step))
