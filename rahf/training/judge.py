"""Training the picture judge, head by head; a head that a run folder holds already is not fitted again.

Two runs make what is reported and what ships: one with `left_out`, whose pictures no head sees, and one with all.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.files import replacing
from rahf.data.captions import make_examples
from rahf.data.pictures import Picture, fold_of
from rahf.pictures.judge import JUDGED_SCORES, RADIAL, JudgeConfig, PictureJudge, map_statistics
from rahf.pictures.words import PictureWords
from rahf.training.judge_data import Bundle, load_bundle, load_features, read_parts, sample_tokens, token_rows
from rahf.training.judge_fit import descend, fit_dense, fit_embedding, fit_faults, fit_parts, fit_radial
from rahf.training.judge_scores import (
    Labelled,
    directions,
    fit_part_errors,
    fit_scores,
    labelled_sources,
    liking_misses,
    set_evidence,
    soundness_misses,
)
from rahf.training.judge_words import begin_words, fit_words, label_vectors, look, standardise
from rahf.training.picture_features import feature_file

logger = logging.getLogger(__name__)

# Left out of a reported run, fixed by name: both sets with people's labels (each scene and prompt is then left out once
# more of what is fitted on top), two fifths of the photographs, and every picture of these generators.
LEFT_OUT_SETS = ("sampler_checks", "anatomy")
LEFT_OUT_FOLDS = (0, 1)
LEFT_OUT_GENERATORS = (
    "midj",
    "dal2",
    "dallev2",
    "SD_XL",
    "Dalle3",
    "GALIP",
    "DF-IF",
    "stabilityai-stable-diffusion-2-1",
)
WORDS_FILE = "words.safetensors"
HEADS = "heads"  # folder of a run


@dataclass(frozen=True)
class JudgeTraining:
    """Settings of a run.

    Attributes:
        steps: of each perceptron.
        tokens_each: tokens of a picture that the dense embedding is taught with.
        axes: principal axes in which pictures lie near or far from a centre.
        centres: number of these.
        radial: figures made of the nearness to the centres.
        left_out: without the groups that `evaluate-pictures` reports on.
        seed: of everything drawn.
    """

    steps: int = 1500
    tokens_each: int = 48
    axes: int = 256
    centres: int = 512
    radial: int = 256
    left_out: bool = False
    seed: int = 0


def is_left_out(picture: Picture) -> bool:
    """Whether a picture belongs to what a reported run never sees."""
    if picture.set in LEFT_OUT_SETS:
        return True
    if "captions" in picture.labels:
        return fold_of(picture.file) in LEFT_OUT_FOLDS
    return str(picture.labels.get("generator") or "") in LEFT_OUT_GENERATORS


def train_judge(
    pictures: Sequence[Picture],
    features: Path,
    planted: Path,
    parts: Path,
    text: Path,
    composed: Path | None,
    out: Path,
    settings: JudgeTraining,
) -> tuple[PictureJudge, PictureWords]:
    """Fit all heads and write them to `out`.

    Args:
        pictures: of all sets.
        features, planted: folders that `keep_features` and `keep_planted` wrote.
        parts: boxes of parts, as `read_parts` takes them.
        text: folder of the teacher's text embeddings and its linear head on ratings.
        composed: features of composed scenes, for the gate; without them no picture is taken for one.
        out: folder of the run; heads that are there are kept.
        settings: of the run.

    Raises ValueError for folders that hold nothing, or features without the teacher's.
    """
    out.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle(pictures, features)
    if settings.left_out:
        bundle = bundle.rows(not is_left_out(picture) for picture in bundle.pictures)
    if bundle.embedding is None:
        raise ValueError(f"{features} holds features without the teacher's; run `rahf picture-features` with --teacher")
    words = begin_words(label_vectors(text))
    config = JudgeConfig(concepts=len(words.concepts), axes=settings.axes, centres=settings.centres)
    judge = PictureJudge(replace(config, radial=settings.radial))
    files = [feature_file(features, picture) for picture in bundle.pictures]
    _Heads(judge, bundle, files, out, settings).fit(planted, parts, composed)
    made = kept(out / HEADS / "words.safetensors", lambda: _taught(words, judge, bundle, files, features))
    threshold = float(made.pop("threshold"))
    words.load_state_dict(made)
    judge.config = replace(judge.config, word_threshold=round(threshold, 3))
    rating = load_file(next(text.glob("*.safetensors")))
    fit_all_scores(judge, bundle, files, planted, rating, out / HEADS)
    judge.save(out, words.concepts)
    with replacing(out / WORDS_FILE) as target:
        save_file({name: value.detach().half().contiguous() for name, value in words.state_dict().items()}, target)
    return judge, words


def kept(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of a file; without it they are made and written."""
    if not file.exists():
        logger.info("fitting %s", file.stem)
        made = {name: value.detach().contiguous() for name, value in make().items()}
        with replacing(file) as target:
            save_file(made, target)
    return load_file(file)


def _taught(
    words: PictureWords, judge: PictureJudge, bundle: Bundle, files: Sequence[Path], features: Path
) -> dict[str, Tensor]:
    """What the words learn from captions, and the `threshold` from which one is marked."""
    standardise(words, judge, files[:: max(len(files) // 600, 1)])
    shots = [picture for picture in bundle.pictures if "captions" in picture.labels]
    threshold = fit_words(words, list(look(words, judge, shots, features)), shots, make_examples(shots))
    return dict(words.state_dict()) | {"threshold": torch.tensor(threshold)}


def ratings(embedding: Tensor, teacher: dict[str, Tensor]) -> Tensor:
    """The teacher's ratings, 1 to 10, of unit image embeddings (n,E)."""
    scaled = embedding * embedding.shape[1] ** 0.5
    return scaled @ teacher["simulacra.weight"][0] + teacher["simulacra.bias"][0]


@torch.no_grad()
def see(judge: PictureJudge, files: Sequence[Path]) -> Tensor:
    """Raw evidence (n,D) of kept features: embedding, standardised summary, figures of the maps, nearness."""
    rows: list[Tensor] = []
    for file in files:
        features = load_features(file)
        judgement = judge(features)
        summary, _ = judge.read(features)
        statistics = map_statistics(judgement.faults, judgement.parts)
        rows.append(torch.cat([judgement.embedding, summary, statistics, judge.nearness(summary)], dim=-1)[0])
    return torch.stack(rows)


def fit_all_scores(
    judge: PictureJudge, bundle: Bundle, files: Sequence[Path], planted: Path, rating: dict[str, Tensor], folder: Path
) -> None:
    """Fit the score heads on people's labels, expectations, planted faults and the teacher's ratings.

    What the judge sees is kept in `folder`.
    """
    assert bundle.embedding is not None
    raw = kept(folder / "seen.safetensors", lambda: {"evidence": see(judge, files)})["evidence"]
    evidence = set_evidence(judge, raw)
    basis = directions(evidence)
    sources = labelled_sources(bundle.pictures, evidence)
    spoiled = kept(folder / "spoiled.safetensors", lambda: see_spoiled(judge, bundle.pictures, planted))
    pairs = spoiled_pairs(judge, bundle.pictures, evidence, spoiled)
    if pairs is not None:
        sources.append(pairs)
    rated = ratings(bundle.embedding, rating)
    fit_scores(judge, sources, evidence, rated)
    fit_part_errors(judge, bundle.pictures, evidence, basis)
    rows = torch.einsum("msd,bd->bms", judge.score_weight, evidence) + judge.score_bias
    spread = rows[..., : len(JUDGED_SCORES)].std(1, correction=0)
    limits = tuple(round(float(value), 3) for value in (2 * spread.detach()).quantile(0.9, dim=0))
    judge.config = replace(
        judge.config, spread_limits=limits, residuals=measured_residuals(judge, sources, evidence, rated, bundle)
    )


def measured_residuals(
    judge: PictureJudge, sources: Sequence[Labelled], evidence: Tensor, rated: Tensor, bundle: Bundle
) -> tuple[float, ...]:
    """The configuration's `residuals`: measured where there is something to measure by, else as they were."""
    near = judge.config.columns("radial")
    found = dict(zip(JUDGED_SCORES, judge.config.residuals, strict=True))
    misses = liking_misses(evidence[:, near], rated, [picture.group for picture in bundle.pictures])
    found["aesthetics"] = float(misses.square().mean().sqrt())
    liked = judge.score_weight[:, JUDGED_SCORES.index("aesthetics")].mean(0).detach()
    labelled = soundness_misses(sources, evidence, liked, near)
    if labelled:
        found["plausibility"] = float(torch.cat(list(labelled.values())).square().mean().sqrt())
    return tuple(round(found[name], 3) for name in JUDGED_SCORES)


def see_spoiled(judge: PictureJudge, pictures: Sequence[Picture], planted: Path, most: int = 600) -> dict[str, Tensor]:
    """Raw evidence (k,D) of pictures with planted faults, the `places` of the pictures (k,), and the part of each that
    is spoiled (k,)."""
    found = [(place, planted / f"{picture.key}__0.npz") for place, picture in enumerate(pictures)]
    found = [(place, file) for place, file in found if file.exists()][:most]
    files = [file for _, file in found]
    return {
        "places": torch.tensor([place for place, _ in found], dtype=torch.long),
        "evidence": see(judge, files) if files else torch.zeros(0, judge.config.evidence),
        "spoiled": torch.tensor([float(load_mask(file).mean()) for file in files]),
    }


def spoiled_pairs(
    judge: PictureJudge, pictures: Sequence[Picture], evidence: Tensor, spoiled: dict[str, Tensor]
) -> Labelled | None:
    """Pictures (evidence (n,D)) without and with planted faults as a source: 0.8 and less by how much is spoiled, a
    group each pair. None if there are none."""
    places = spoiled["places"]
    if not len(places):
        return None
    rows = (spoiled["evidence"] - judge.evidence_mean) / judge.evidence_scale
    target = 0.8 * torch.cat([torch.ones(len(places)), torch.exp(-0.6 - 4 * spoiled["spoiled"])])
    groups = [pictures[place].file for place in places.tolist()] * 2
    return Labelled("planted", torch.cat([evidence[places], rows]), target, groups)


def load_mask(file: Path) -> Tensor:
    """How much of each token's place is spoiled: (h,w) of a planted file."""
    with np.load(file) as arrays:
        return torch.from_numpy(arrays["mask"]).float()


class _Heads:
    """Fits the heads below the scores; each is kept in `out/heads` when it is done."""

    def __init__(
        self, judge: PictureJudge, bundle: Bundle, files: Sequence[Path], out: Path, settings: JudgeTraining
    ) -> None:
        self.judge, self.bundle, self.files, self.settings = judge, bundle, files, settings
        self.folder = out / HEADS
        self.folder.mkdir(exist_ok=True)

    def fit(self, planted: Path, parts: Path, composed: Path | None) -> None:
        """Fit what is not there yet, in order."""
        judge = self.judge
        self._kept("scales", self._scales)
        summary = (self.bundle.summary - judge.summary_mean) / judge.summary_scale
        for member in range(judge.config.members):
            self._kept(f"embed.{member}", partial(self._embed, summary, member))
        self._kept("radial", lambda: self._radial(summary))
        self._kept("dense", self._dense)
        self._kept("parts", lambda: self._parts(parts))
        self._kept("faults", lambda: self._faults(planted))
        self._kept("composed", lambda: self._composed(summary, composed))

    def _kept(self, name: str, fit: Callable[[], dict[str, Tensor]]) -> None:
        """Load what a step set before, or run it and keep the tensors that it returns by name."""
        self.judge.load_state_dict(kept(self.folder / f"{name}.safetensors", fit), strict=False)
        self.judge.eval()

    def _scales(self) -> dict[str, Tensor]:
        summary = self.bundle.summary
        tokens, _ = sample_tokens(self.files[:: max(len(self.files) // 500, 1)], 32)
        assert self.bundle.embedding is not None
        return {
            "summary_mean": summary.mean(0),
            "summary_scale": summary.std(0) + 1e-4,
            "token_mean": tokens.float().mean(0),
            "token_scale": tokens.float().std(0) + 1e-4,
            "embedding_mean": self.bundle.embedding.mean(0),
        }

    def _weight(self) -> Tensor:
        """How much each picture counts, so that a set of many near twins does not outweigh the others."""
        sets = [picture.set for picture in self.bundle.pictures]
        return torch.tensor([sets.count(name) ** -0.5 for name in sets])

    def _radial(self, summary: Tensor) -> dict[str, Tensor]:
        config = self.judge.config
        sizes = (config.axes, config.centres, config.radial)
        made = fit_radial(summary, self._weight(), sizes, self.settings.seed)
        return {f"{RADIAL}{name}": values for name, values in made.items()}

    def _embed(self, summary: Tensor, member: int) -> dict[str, Tensor]:
        bundle, judge = self.bundle, self.judge
        assert bundle.embedding is not None
        weight = self._weight()
        keep = torch.rand(len(weight), generator=torch.Generator().manual_seed(member)) < 0.85
        net = fit_embedding(
            summary,
            bundle.embedding,
            judge.embedding_mean,
            weight * keep,
            judge.config.hidden,
            self.settings.steps,
            member,
        )
        return {f"embed.{member}.{key}": value for key, value in net.state_dict().items()}

    def _dense(self) -> dict[str, Tensor]:
        tokens, dense = sample_tokens(self.files, self.settings.tokens_each, self.settings.seed)
        net, mean = fit_dense(
            tokens,
            dense,
            self.judge.token_mean,
            self.judge.token_scale,
            self.judge.config.dense_hidden,
            self.settings.steps,
        )
        return {f"dense.{key}": value for key, value in net.state_dict().items()} | {"dense_mean": mean}

    def _parts(self, parts: Path) -> dict[str, Tensor]:
        rows = read_parts(parts)
        labelled = [
            (file, rows[picture.file])
            for file, picture in zip(self.files, self.bundle.pictures, strict=True)
            if picture.file in rows and (picture.set != "sampler_checks" or picture.labels["scene"] == "ballerina")
        ]
        with_people = [pair for pair in labelled if pair[1]["faces"] or pair[1]["hands"]]
        without = [pair for pair in labelled if not any(pair[1][key] for key in ("faces", "hands", "pose"))]
        chosen = with_people[:500] + without[:250]
        net = fit_parts(
            [file for file, _ in chosen], [row for _, row in chosen], self.judge.token_mean, self.judge.token_scale,
            self.settings.steps,
        )  # fmt: skip
        return {f"parts.{key}": value for key, value in net.state_dict().items()}

    def _faults(self, planted: Path) -> dict[str, Tensor]:
        allowed = {picture.key for picture in self.bundle.pictures}
        tokens, masks = [], []
        for file in sorted(planted.rglob("*.npz")):
            key = str(file.relative_to(planted)).rsplit("__", 1)[0]
            if key not in allowed and not key.startswith("photographs/"):
                continue
            rows, _, _ = token_rows(file)
            tokens.append(rows.half())
            masks.append(load_mask(file).flatten())
        for file in self.files[:: max(len(self.files) // 250, 1)]:  # pictures in which nothing was planted
            rows, _, _ = token_rows(file)
            chosen = rows[::4]
            tokens.append(chosen.half())
            masks.append(torch.zeros(len(chosen)))
        given, wanted = torch.cat(tokens), torch.cat(masks)
        made: dict[str, Tensor] = {}
        for member in range(self.judge.config.members):
            net = fit_faults(
                given, wanted, self.judge.token_mean, self.judge.token_scale, self.judge.config.fault_hidden,
                self.settings.steps, member,
            )  # fmt: skip
            made |= {f"faults.{member}.{key}": value for key, value in net.state_dict().items()}
        return made

    def _composed(self, summary: Tensor, composed: Path | None) -> dict[str, Tensor]:
        torch.manual_seed(self.settings.seed)  # the first weights
        net = torch.nn.Linear(summary.shape[1], 1)
        if composed is None:
            torch.nn.init.zeros_(net.weight)
            torch.nn.init.constant_(net.bias, -10.0)
            return {f"composed.{key}": value for key, value in net.state_dict().items()}
        scenes = []
        for file in sorted(composed.rglob("*.npz")):
            with np.load(file) as arrays:
                scenes.append(torch.from_numpy(arrays["description"]).float())
        given = (torch.stack(scenes) - self.judge.summary_mean) / self.judge.summary_scale
        rows = torch.cat([summary, given])
        target = torch.cat([torch.zeros(len(summary)), torch.ones(len(given))])
        balance = torch.where(target > 0.5, len(summary) / len(given), 1.0)

        def loss(chosen: Tensor) -> Tensor:
            logits = net(rows[chosen])[:, 0]
            return F.binary_cross_entropy_with_logits(logits, target[chosen], weight=balance[chosen])

        descend(net, loss, len(rows), 400, 256, rate=1e-3, decay=1.0)
        return {f"composed.{key}": value for key, value in net.state_dict().items()}
