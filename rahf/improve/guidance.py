"""Guidance by a score of the feedback while a picture is being drawn (experimental).

Universal guidance (Bansal et al. 2023, algorithm 1): at each step the picture that the network expects is decoded and
judged. *Forward*: the gradient of the score, through decoder and network, bends the noise. *Backward*: a few steps of
gradient ascent on the expected latents themselves, put back into the noise. *Recurrence*: noise is added again and the
step repeated. The gradient's length means nothing across models, so each is brought to a part of the noise's length.

Whether a higher score is a better picture is another question: an optimised score overrates what it was optimised on.
`Guided.before` and `after` are therefore no proof; studies/improve.py asks another judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from foundation.limits import Checked
from rahf.feedback import Feedback
from rahf.improve.generation.base import check_text, part_of
from rahf.improve.generation.schedule import Prediction
from rahf.improve.generator import Generator, OutOfMemoryError, Progress, Setting, Step
from rahf.improve.repair import judge
from rahf.improve.scores import ScoreGradient
from rahf.limits import IMPROVE
from rahf.predictor import Predictor

# Pictures (B,3,H,W) in [0, 1] -> (B,), the higher the better; differentiable.
Objective = Callable[[Tensor], Tensor]
GRADIENT = 2  # what a gradient costs besides the look itself, in looks


@dataclass(frozen=True)
class GuidanceOptions(Checked):
    """How strongly, and when.

    Attributes:
        score: that guides: "overall", "aesthetics", "plausibility" or "alignment". The embedded model's aesthetics of
            composed scenes is flat over wide ranges, where it has no gradient.
        forward: length of the gradient's part of the noise, as part of the noise's own; 0 for none.
        backward_steps: of gradient ascent on the expected picture; 0 for none.
        backward_rate: length of each of them, as part of the expected latents' own.
        recurrence: how often each guided step is taken.
        begin, end: the guided steps, as parts of all; before, little is to be seen, and after, little to change.
        kind: what they are judged as, "composed scene" or "picture"; empty for what the unguided ones are taken for.
        setting: of the generator; its own by default.

    Raises:
        ValueError: for a value out of range, or guidance of nothing.
    """

    limits: ClassVar = {
        **{name: IMPROVE[name] for name in ("forward", "backward_steps", "backward_rate", "recurrence")},
        **dict.fromkeys(("begin", "end"), IMPROVE["share"]),
    }
    choices: ClassVar = {
        "score": ("aesthetics", "overall", "plausibility", "alignment"),
        "kind": ("", "composed scene", "picture"),
    }

    score: str = "overall"
    forward: float = 0.3
    backward_steps: int = 0
    backward_rate: float = 0.1
    recurrence: int = 1
    begin: float = 0.2
    end: float = 0.9
    kind: str = ""
    setting: Setting | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.begin >= self.end:
            raise ValueError(f"guidance begins at {self.begin:g} and ends at {self.end:g}; it must end after it begins")
        if self.forward == 0 and self.backward_steps == 0:
            raise ValueError("forward and backward_steps are both 0, which guides nothing; give one of them")


@dataclass(frozen=True, eq=False)
class Guided:
    """Pictures drawn with guidance, beside those drawn without from the same noise.

    Attributes:
        pictures, plain: (n,3,S,S) float32 in [0, 1].
        before, after: feedback on the plain ones and on these, without heatmaps.
        stopped: what was done, as a sentence.
        seconds: that the guided ones took.
        calls: how often the network looked at one picture's latents for them; a gradient through it counts as two more.
    """

    pictures: Tensor
    plain: Tensor
    before: tuple[Feedback, ...]
    after: tuple[Feedback, ...]
    stopped: str
    seconds: float
    calls: int


def guide(
    prompt: str,
    generator: Generator,
    predictor: Predictor,
    count: int = 1,
    options: GuidanceOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Guided:
    """Draw pictures led by a score, and the same without.

    Args:
        prompt: what they show.
        generator: with gradients (Stable Diffusion, SDXL, embedded).
        predictor: whose score leads.
        count: of pictures.
        options: which score, and how strongly.
        seed: of the noise.
        progress: told how far it is.

    Raises:
        ValueError: no prompt, a generator without gradients, numbers out of range, or no memory.
    """
    options = options or GuidanceOptions()
    setting = options.setting or generator.setting
    check_text(prompt)
    predictor.check_prompt(prompt)
    generator.need_gradient("guidance")
    plain = generator.generate(prompt, count, seed, setting, part_of(progress, 0.0, 0.2))
    before = tuple(judge(predictor, plain, prompt, words=True))
    score = ScoreGradient(predictor, prompt, options.score, options.kind or before[0].judged_as or None)
    started = time.monotonic()
    leader = Leader(score, options)
    try:
        made = generator.generate(prompt, count, seed, setting, part_of(progress, 0.2, 0.95), leader)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"guidance keeps a gradient, which takes several times the memory: {error}") from error
    seconds = time.monotonic() - started
    after = tuple(judge(predictor, made, prompt, words=True))
    if progress is not None:
        progress(1.0, "judged")
    stopped = f"{leader.guided} steps of {setting.steps} were led by {options.score} (experimental)"
    if leader.flat:
        stopped += f"; {leader.flat} times the score was flat and did not lead: try another score"
    return Guided(made, plain, before, after, stopped, seconds, generator.cost(count, setting) + leader.extra)


@dataclass
class Leader:
    """Takes the place of a sampler's steps (`Generator.generate(adjust=)`).

    Attributes:
        objective: that is to rise.
        options: how.
        guided: how many steps were led. extra: looks of the network beyond those of plain sampling.
        flat: how often the objective did not change with a picture, so that nothing could lead.
    """

    objective: Objective
    options: GuidanceOptions
    guided: int = 0
    extra: int = 0
    flat: int = 0
    _steps: set[int] = field(default_factory=set)

    def __call__(self, step: Step) -> Tensor:
        """Latents after a step."""
        share = step.index / step.steps
        # Where there is no signal at all the network expects nothing that could be judged.
        if not self.options.begin <= share < self.options.end or float(step.alpha) <= 0:
            return step.advance(step.latents, step.predict(step.latents))
        self._steps.add(step.index)
        self.guided = len(self._steps)
        looks = len(step.latents) * (2 if step.guidance > 1 else 1)
        latents = step.latents
        for number in range(self.options.recurrence):
            seen = self._led(step, latents)
            self.extra += looks * (bool(number) + (GRADIENT if self.options.forward > 0 else 0))
            after = step.advance(latents, seen)
            if number + 1 < self.options.recurrence:
                latents = _noisy_again(after, step, number)
        return after

    def _led(self, step: Step, latents: Tensor) -> Prediction:
        """What the network sees, bent towards the objective."""
        noise = (1 - step.alpha).sqrt().to(latents)
        if self.options.forward > 0:
            seen, slope = slope_at(step, latents, self.objective)
            self.flat += int((_norm(slope) == 0).sum())
            length = self.options.forward * noise * _norm(seen.epsilon)
            epsilon = seen.epsilon - length * slope / _norm(slope).clamp(min=1e-12)
        else:
            with torch.no_grad():
                seen = step.predict(latents)
            epsilon = seen.epsilon
        if self.options.backward_steps > 0:
            moved = ascend(step, seen.original, self.objective, self.options) - seen.original
            epsilon = epsilon - step.alpha.sqrt().to(latents) / noise.clamp(min=1e-6) * moved
        return Prediction(epsilon, (latents - noise * epsilon) / step.alpha.sqrt().to(latents))


def slope_at(step: Step, latents: Tensor, objective: Objective) -> tuple[Prediction, Tensor]:
    """What the network sees in latents, and the objective's gradient in them, through network and decoder."""
    with torch.enable_grad():
        point = latents.detach().requires_grad_()
        seen = step.predict(point)
        value = objective(step.generator.decode(seen.original)).sum()
        (slope,) = torch.autograd.grad(value, point)
    return Prediction(seen.epsilon.detach(), seen.original.detach()), slope


def ascend(step: Step, original: Tensor, objective: Objective, options: GuidanceOptions) -> Tensor:
    """Expected latents after some steps of gradient ascent, each of a length that is a part of their own."""
    found = original.detach()
    length = options.backward_rate / options.backward_steps * _norm(found)
    for _ in range(options.backward_steps):
        with torch.enable_grad():
            point = found.detach().requires_grad_()
            (slope,) = torch.autograd.grad(objective(step.generator.decode(point)).sum(), point)
        found = found + length * slope / _norm(slope).clamp(min=1e-12)
    return found.detach()


def _noisy_again(after: Tensor, step: Step, number: int) -> Tensor:
    """Latents before the step again, by fresh noise on those after it (the same in every run)."""
    random = torch.Generator().manual_seed(1_000_003 * step.index + number)
    ratio = (step.alpha / step.after).to(after)
    noise = torch.randn(1, *after.shape[1:], generator=random).to(after)  # of no other picture of the batch
    return ratio.sqrt() * after + (1 - ratio).sqrt() * noise


def _norm(values: Tensor) -> Tensor:
    """(B,1,1,1) Euclidean length of each row."""
    return values.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
