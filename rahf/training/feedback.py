"""Training: resumable, on one processor or many (`accelerate launch -m rahf.cli train ...`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from foundation.batches import InPasses
from foundation.limits import Limit
from foundation.training import TrainingConfig, TrainingRun
from rahf.data.augment import Augmentation
from rahf.data.samples import SampleSource
from rahf.limits import TRAINING
from rahf.model.config import HEATMAPS, RAHFConfig
from rahf.model.rahf import RAHF
from rahf.prompts import TextTokenizer
from rahf.training.auxiliary import Auxiliary
from rahf.training.batches import Batch, LossWeights, collate, losses, weigh
from rahf.training.optimization import parameter_groups


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """How to train rich feedback; the schedule is the paper's unless a cosine is asked for.

    Attributes:
        tower_rate: learning rate of the image tower, as a part of the rest's, for a pretrained tower.
        weights: of the losses.
        augmentation: of the samples.
    """

    limits: ClassVar[Mapping[str, Limit]] = TRAINING

    steps: int = 20_000
    batch_size: int = 32
    warmup_steps: int = 500
    schedule: str = "reciprocal_sqrt"
    ema_decay: float = 0.0
    precision: str = "no"
    save_every: int = 500
    log_every: int = 50
    tower_rate: float = 1.0
    weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation | None = field(default_factory=Augmentation)


def train(
    model: RAHF,
    source: SampleSource,
    tokenizer: TextTokenizer,
    config: TrainConfig,
    auxiliary: Auxiliary | None = None,
) -> Path:
    """Train `model` on `source`; weights, configuration and `log.jsonl` go to the folder `config.out`.

    auxiliary: tasks for composed scenes, trained along and left out of the weights.

    A folder that holds a state goes on from it, giving what an uninterrupted run gives. Raises ValueError if that state
    was made with another configuration, or if there is nothing to train on.
    """
    batches = FeedbackBatches(source, tokenizer, model.config, config, auxiliary)
    # Convolutions' faster layout, on processors most of all.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learned = [*model.parameters(), *(auxiliary.parameters() if auxiliary is not None else ())]
    groups = parameter_groups(model.image_tower, learned, config.learning_rate, config.tower_rate)
    objective = FeedbackObjective(model, tokenizer, config.weights, auxiliary).train()
    TrainingRun(config, objective, groups, batches).train(save=lambda: model.save_pretrained(config.out))
    return config.out


class FeedbackObjective(nn.Module):
    """The weighted sum of the losses of a batch, and of those of the auxiliary tasks."""

    def __init__(
        self, model: RAHF, tokenizer: TextTokenizer, weights: LossWeights, auxiliary: Auxiliary | None
    ) -> None:
        super().__init__()
        self.model, self.auxiliary = model, auxiliary
        self.tokenizer, self.weights = tokenizer, weights

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.model(batch.images, batch.texts, targets=batch.targets.ids)
        found = losses(output, batch, self.tokenizer)
        if self.auxiliary is not None:
            if batch.places is None or batch.ends is None:
                raise ValueError("auxiliary tasks need samples whose objects are known; train on composed scenes")
            found |= self.auxiliary(self.model, output, batch.places, batch.ends, batch.heatmaps[HEATMAPS[0]])
        return weigh(found, self.weights), {name: loss.detach() for name, loss in found.items()}


class FeedbackBatches:
    """The batch of each step: passes over all samples, augmented by step and sample."""

    def __init__(
        self,
        source: SampleSource,
        tokenizer: TextTokenizer,
        model: RAHFConfig,
        config: TrainConfig,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        """Raises ValueError if there is no sample."""
        if not len(source):
            raise ValueError("there is no sample to train on")
        self.source, self.tokenizer, self.model, self.config = source, tokenizer, model, config
        self.rows = InPasses(len(source), config.batch_size, config.seed)
        self.words: tuple[Sequence[str], Sequence[str]] | None = None
        if auxiliary is not None:
            self.words = (auxiliary.nouns, auxiliary.colours)

    def __call__(self, step: int, process: int, processes: int) -> Batch:
        """One process's part of the batch of a step."""
        samples = []
        for index in self.rows(step)[process::processes]:
            sample = self.source[index]
            if self.config.augmentation is not None:
                sample = self.config.augmentation(sample, np.random.default_rng([self.config.seed, step, index]))
            samples.append(sample)
        return collate(samples, self.model, self.tokenizer, self.words)
