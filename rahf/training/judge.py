"""Training the picture judge, head by head; a head that a run folder holds already is not fitted again.

Two runs make what is reported and what ships: one with `left_out`, whose pictures no head sees, and one with all.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from rahf.data.captions import make_examples
from rahf.data.pictures import Picture, fold_of
from rahf.pictures.judge import JUDGED_SCORES, JudgeConfig, PictureJudge, map_statistics
from rahf.pictures.words import PictureWords
from rahf.training.judge_data import Bundle, load_bundle, load_features, read_parts, sample_tokens, token_rows
from rahf.training.judge_fit import descend, fit_dense, fit_embedding, fit_faults, fit_parts
from rahf.training.judge_scores import Labelled, directions, fit_part_errors, fit_scores, labelled_sources, set_evidence
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


@dataclass(frozen=True)
class JudgeTraining:
    """Settings of a run.

    Attributes:
        steps: of each perceptron.
        tokens_each: tokens of a picture that the dense embedding is taught with.
        left_out: whether the left-out groups are left out.
        seed: of everything drawn.
    """

    steps: int = 1500
    tokens_each: int = 48
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
    judge = PictureJudge(JudgeConfig(concepts=len(words.concepts)))
    files = [feature_file(features, picture) for picture in bundle.pictures]
    _Heads(judge, bundle, files, out, settings).fit(planted, parts, composed)
    rating = load_file(next(text.glob("*.safetensors")))
    fit_all_scores(judge, bundle, files, planted, rating)
    photographs = [place for place, picture in enumerate(bundle.pictures) if "captions" in picture.labels]
    standardise(words, judge, files[:: max(len(files) // 600, 1)])
    shots = [bundle.pictures[place] for place in photographs]
    threshold = fit_words(words, list(look(words, judge, shots, features)), shots, make_examples(shots))
    judge.config = replace(judge.config, word_threshold=round(threshold, 3))
    judge.save(out, words.concepts)
    save_file(
        {name: value.detach().half().contiguous() for name, value in words.state_dict().items()}, out / WORDS_FILE
    )
    return judge, words


def ratings(embedding: Tensor, teacher: dict[str, Tensor]) -> Tensor:
    """The teacher's ratings, 1 to 10, of unit image embeddings (n,E)."""
    scaled = embedding * embedding.shape[1] ** 0.5
    return scaled @ teacher["simulacra.weight"][0] + teacher["simulacra.bias"][0]


@torch.no_grad()
def see(judge: PictureJudge, files: Sequence[Path]) -> Tensor:
    """Raw evidence (n,D) of kept features: embedding, standardised summary, figures of the maps."""
    rows: list[Tensor] = []
    for file in files:
        features = load_features(file)
        judgement = judge(features)
        summary, _ = judge.read(features)
        statistics = map_statistics(judgement.faults, judgement.parts)
        rows.append(torch.cat([judgement.embedding, summary, statistics], dim=-1)[0])
    return torch.stack(rows)


def fit_all_scores(
    judge: PictureJudge, bundle: Bundle, files: Sequence[Path], planted: Path, rating: dict[str, Tensor]
) -> None:
    """Fit the score heads on people's labels, expectations, planted faults and the teacher's ratings."""
    assert bundle.embedding is not None
    evidence = set_evidence(judge, see(judge, files))
    basis = directions(evidence)
    sources = labelled_sources(bundle.pictures, evidence)
    pairs = spoiled_pairs(judge, bundle.pictures, evidence, planted)
    if pairs is not None:
        sources.append(pairs)
    fit_scores(judge, sources, basis, (evidence, ratings(bundle.embedding, rating)))
    fit_part_errors(judge, bundle.pictures, evidence, basis)
    rows = torch.einsum("msd,bd->bms", judge.score_weight, evidence) + judge.score_bias
    spread = rows[..., : len(JUDGED_SCORES)].std(1, correction=0)
    limits = tuple(round(float(value), 3) for value in (2 * spread.detach()).quantile(0.9, dim=0))
    judge.config = replace(judge.config, spread_limits=limits)


def spoiled_pairs(
    judge: PictureJudge, pictures: Sequence[Picture], evidence: Tensor, planted: Path, most: int = 600
) -> Labelled | None:
    """Pictures without and with planted faults as a source: 0.8 and less by how much is spoiled, a group each pair."""
    rows: list[Tensor] = []
    target: list[float] = []
    groups: list[str] = []
    for place, picture in enumerate(pictures):
        file = planted / f"{picture.key}__0.npz"
        if not file.exists() or len(rows) >= 2 * most:
            continue
        spoiled = (see(judge, [file])[0] - judge.evidence_mean) / judge.evidence_scale
        burden = 0.6 + 4 * float(load_mask(file).mean())
        rows += [evidence[place], spoiled]
        target += [0.8, 0.8 * float(torch.exp(torch.tensor(-burden)))]
        groups += [picture.file] * 2
    return Labelled("planted", torch.stack(rows), torch.tensor(target), groups) if rows else None


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
        self.folder = out / "heads"
        self.folder.mkdir(exist_ok=True)

    def fit(self, planted: Path, parts: Path, composed: Path | None) -> None:
        """Fit what is not there yet, in order."""
        judge = self.judge
        self._kept("scales", self._scales)
        summary = (self.bundle.summary - judge.summary_mean) / judge.summary_scale
        for member in range(judge.config.members):
            self._kept(f"embed.{member}", lambda member=member: self._embed(summary, member))
        self._kept("dense", self._dense)
        self._kept("parts", lambda: self._parts(parts))
        self._kept("faults", lambda: self._faults(planted))
        self._kept("composed", lambda: self._composed(summary, composed))

    def _kept(self, name: str, fit: object) -> None:
        """Load what a step set before, or run it and keep the tensors that it returns by name."""
        file = self.folder / f"{name}.safetensors"
        if not file.exists():
            logger.info("fitting %s", name)
            made = fit()  # type: ignore[operator]
            save_file({key: value.detach().contiguous() for key, value in made.items()}, file)
        self.judge.load_state_dict(load_file(file), strict=False)
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

    def _embed(self, summary: Tensor, member: int) -> dict[str, Tensor]:
        bundle, judge = self.bundle, self.judge
        assert bundle.embedding is not None
        sets = [picture.set for picture in bundle.pictures]
        weight = torch.tensor([sets.count(name) ** -0.5 for name in sets])
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


def write_summary(out: Path, values: dict[str, object]) -> None:
    """Write figures of a run as JSON."""
    (out / "figures.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
