"""Starting noise made better: by the picture that comes of it, and by its salient part (SGOOL), or by the first alone.

    best = optimise_saliency(load_generator(), Predictor.from_pretrained(), "two red apples above a cat")

SGOOL (arXiv 2410.10257): draw with an invertible sampler, find what draws the eye, and bring picture and salient crop
nearer to the prompt by the gradient with respect to the first latents, which are clipped, and scaled back to the length
that they had. DOODL (Wallace et al. 2023) is the same without the crop. What stands for CLIP's distance is said in
`rahf.improve.saliency.likeness`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.limits import Checked
from rahf.feedback import Feedback
from rahf.improve.generation.base import check_text
from rahf.improve.generator import Generator, Progress, Setting
from rahf.improve.saliency.edict import Coefficients, Noise, coefficients, differentiable_sample
from rahf.improve.saliency.likeness import AUTO, Likeness
from rahf.improve.saliency.maps import Box, saliency_map, salient_box
from rahf.improve.scores import KINDS
from rahf.limits import IMPROVE, SALIENCY
from rahf.predictor import Predictor

SGOOL, DOODL = "sgool", "doodl"
STEPS = 8  # of the sampler, unless told otherwise; each asks the network twice, for both latents
ENOUGH = 0.01  # mean distance at which every word is as good as shown, and the search ends
LEAST = 1e-4  # by which a loss has to be smaller to count as better
BACKWARD = 3  # times the cost of drawing a picture that its gradient costs: the network again, and back through it


@dataclass(frozen=True)
class SaliencyOptions(Checked):
    """How the starting noise is searched.

    Attributes:
        method: "sgool" looks at the picture and at its salient part, "doodl" at the picture alone.
        iterations: steps of the search; each draws a picture.
        starts: seeds that are drawn first; the search goes on with the best of them.
        balance: weight of the salient part against the whole picture.
        rate: length of a step, as part of the noise's own deviation.
        momentum: how much of the last step goes on in the next.
        clip: largest entry of a gradient, as a multiple of its root mean square.
        mixing: of the two coupled latents of the sampler; with few steps 0.93, which is usual with 50, lets them drift
            apart, and colours burn out.
        judged_as: which network measures; "auto" for what the first picture is taken for.
        salient: from which part of a map's range on something counts as salient.

    Raises:
        ValueError: for a value out of range.
    """

    limits: ClassVar = SALIENCY
    choices: ClassVar = {"method": (SGOOL, DOODL), "judged_as": (AUTO, *KINDS)}

    method: str = SGOOL
    iterations: int = 6
    starts: int = 1
    balance: float = 0.5
    rate: float = 0.2
    momentum: float = 0.5
    clip: float = 2.0
    mixing: float = 0.7
    salient: float = 0.5
    judged_as: str = AUTO


@dataclass(frozen=True, eq=False)
class Optimised:
    """The best picture that the search came by, and how it went.

    Attributes:
        picture: (3,S,S) in [0, 1], the one with the smallest loss. before: the one that the search began with.
        latents: (1,c,h,w) that `picture` is drawn from.
        saliency: (S,S) in [0, 1], map of `picture`.
        box: what is salient in it.
        feedback, feedback_before: of both pictures.
        losses: of each picture drawn in the search, the first one's first.
        best: index in `losses` of `picture`.
        words: of the prompt that were asked for. kind: which network answered, "composed scene" or "picture".
        method: "sgool" or "doodl".
        calls: how often the generator's network looked at one picture, its gradient counted as three more.
        seconds: that it took.
        stopped: why it ended, as a sentence.
    """

    picture: Tensor
    before: Tensor
    latents: Tensor
    saliency: Tensor
    box: Box
    feedback: Feedback
    feedback_before: Feedback
    losses: tuple[float, ...]
    best: int
    words: tuple[str, ...]
    kind: str
    method: str
    calls: int
    seconds: float
    stopped: str

    @property
    def improved(self) -> bool:
        """Whether any picture came nearer to the prompt than the first."""
        return self.best > 0


def optimise_saliency(
    generator: Generator,
    predictor: Predictor,
    prompt: str,
    seed: int = 0,
    options: SaliencyOptions | None = None,
    setting: Setting | None = None,
    progress: Progress | None = None,
) -> Optimised:
    """Search for starting noise whose picture shows more of the prompt.

    Args:
        generator: one that is differentiable.
        predictor: whose networks measure how far pictures are from the prompt.
        prompt: what is to be shown.
        seed: of the first noise.
        options: method and length of the search.
        setting: steps and guidance of the sampler; `STEPS` and the generator's own guidance by default.
        progress: told how far it is.

    Raises:
        ValueError: a generator without a gradient, a prompt without a word that is known, or a value out of range.
    """
    generator.need_gradient("searching for starting noise")
    options = options or SaliencyOptions()
    setting = setting or replace(generator.setting, steps=STEPS)
    check_text(prompt)
    IMPROVE["seed"].check("seed", seed)
    started = time.monotonic()
    search = _Search(generator, predictor, prompt, options, setting, progress)
    likeness = search.run(generator.initial(options.starts, seed, setting.side))
    picture, before = search.pictures[search.best], search.pictures[0]
    saliency = saliency_map(picture)
    feedback_before = predictor.predict(before, prompt)
    return Optimised(
        picture=picture,
        before=before,
        latents=search.latents,
        saliency=saliency,
        box=salient_box(saliency, options.salient),
        feedback=predictor.predict(picture, prompt) if search.best else feedback_before,
        feedback_before=feedback_before,
        losses=tuple(search.losses),
        best=search.best,
        words=likeness.words,
        kind=likeness.kind,
        method=options.method,
        calls=search.calls,
        seconds=time.monotonic() - started,
        stopped=search.stopped,
    )


class _Search:
    """The state of one search; `run` fills it in. Of the pictures only the first and the best are kept."""

    def __init__(
        self,
        generator: Generator,
        predictor: Predictor,
        prompt: str,
        options: SaliencyOptions,
        setting: Setting,
        progress: Progress | None,
    ) -> None:
        self.generator, self.predictor, self.prompt = generator, predictor, prompt
        self.options, self.setting, self.progress = options, setting, progress
        timesteps, alphas = generator.alphas(setting.steps)
        conditioning = generator.embed(prompt, setting.negative, setting.side)
        self.coefficients: Coefficients = coefficients(alphas)

        def noise(latents: Tensor, index: int) -> Tensor:
            return generator.noise(latents.float(), timesteps[index], conditioning, setting.guidance)

        self.noise: Noise = noise
        self.likeness: Likeness | None = None
        self.losses: list[float] = []
        self.pictures: dict[int, Tensor] = {}
        self.best = self.calls = 0
        self.stopped = ""

    def run(self, starts: Tensor) -> Likeness:
        """Search from the best of some noise (n,c,h,w); gives the measure that was used."""
        latents = self._best_of(starts) if len(starts) > 1 else starts
        self.stopped = self._descend(latents)
        assert self.likeness is not None
        return self.likeness

    def _descend(self, latents: Tensor) -> str:
        """Follow the gradient from some latents (1,c,h,w); says why it ended."""
        options = self.options
        self.latents = latents
        length = latents.norm()
        velocity = torch.zeros_like(latents)
        for index in range(options.iterations + 1):
            last = index == options.iterations
            slope = self._look(latents, index, not last)
            if self.losses[-1] <= ENOUGH:
                return f"After {index} steps every word that was asked for is shown."
            if slope is None:
                break
            if not bool(torch.isfinite(slope).all()) or not float(slope.abs().max()) > 0:
                return f"The gradient was lost after {index} steps; a lower rate or less guidance may help."
            velocity = options.momentum * velocity + bounded(slope, options.clip)
            latents = latents - options.rate * velocity
            latents = latents * (length / latents.norm())
        if self.best:
            return f"All {options.iterations} steps were taken; the best picture came after {self.best}."
        return (
            f"Nothing improved: none of {options.iterations} steps brought the picture nearer to the prompt than "
            "the first; try another seed, or more starts."
        )

    def _best_of(self, starts: Tensor) -> Tensor:
        """The row (1,c,h,w) whose picture is nearest to the prompt."""
        found: list[tuple[float, int]] = []
        for place, row in enumerate(starts.split(1)):
            with torch.no_grad():
                found.append((float(self._measure(self._draw(row))), place))
            self._tell(len(found), f"start {len(found)} of {len(starts)}")
        chosen = min(found)[1]
        return starts[chosen : chosen + 1]

    def _look(self, latents: Tensor, index: int, with_slope: bool) -> Tensor | None:
        """Draw from latents, note the loss and keep the best; gives the loss's slope in the latents."""
        entry = latents.detach().requires_grad_(with_slope)
        with torch.set_grad_enabled(with_slope):
            picture = self._draw(entry)
            loss = self._measure(picture)
        self.losses.append(float(loss.detach()))
        if index == 0 or self.losses[-1] < self.losses[self.best] - LEAST:
            self.best, self.latents = index, latents.detach()
            self.pictures = {0: self.pictures.get(0, picture.detach()[0].cpu()), index: picture.detach()[0].cpu()}
        self._tell(self.options.starts + index + 1, f"step {index} of {self.options.iterations}")
        if not with_slope:
            return None
        self.calls += BACKWARD * self._cost()
        # Of the networks in between no gradient is wanted: only that of the latents is asked for.
        return torch.autograd.grad(loss, entry)[0]

    def _draw(self, latents: Tensor) -> Tensor:
        """(1,3,S,S) in [0, 1]."""
        self.calls += self._cost()
        return self.generator.decode(differentiable_sample(latents, self.noise, self.coefficients, self.options.mixing))

    def _measure(self, picture: Tensor) -> Tensor:
        """() loss of a picture (1,3,S,S); the first one decides which network is asked."""
        if self.likeness is None:
            self.likeness = Likeness(self.predictor, self.prompt, picture[0].detach(), self.options.judged_as)
        whole = self.likeness.distance(picture)[0]
        if self.options.method == DOODL or self.options.balance == 0:
            return whole
        box = salient_box(saliency_map(picture[0].detach(), picture.device), self.options.salient)
        crop = F.interpolate(box.crop(picture), tuple(picture.shape[-2:]), mode="bilinear", antialias=True)
        part = self.likeness.distance(crop, part=True)[0]
        return torch.lerp(whole, part, self.options.balance)

    def _cost(self) -> int:
        """Looks at one picture's latents that drawing it takes."""
        return 2 * self.setting.steps * (2 if self.setting.guidance > 1 else 1)

    def _tell(self, done: int, what: str) -> None:
        if self.progress is not None:
            self.progress(min(done / (self.options.starts + self.options.iterations + 1), 1.0), what)


def bounded(slope: Tensor, clip: float) -> Tensor:
    """A gradient with a root mean square of 1, and no entry beyond `clip`."""
    return (slope / slope.square().mean().sqrt()).clamp(-clip, clip)
