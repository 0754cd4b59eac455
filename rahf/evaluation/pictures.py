"""How far the picture judge agrees with people, on groups that nothing was fitted to.

Expects a judge that was trained with `left_out` (`rahf.training.judge`): what is fitted on top of it here, the scores,
leaves out one scene of the checks or one prompt of the anatomy set at a time.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor

from rahf.data.captions import Example, make_examples
from rahf.data.pictures import Picture, adherence_checks, anomaly_shares, severity
from rahf.pictures.feedback import NINETY
from rahf.pictures.judge import JUDGED_SCORES, STATISTICS, PictureJudge, presence_of
from rahf.pictures.vocabulary import read_terms
from rahf.pictures.words import PictureWords, Seen
from rahf.training.judge import LEFT_OUT_SETS, is_left_out, load_mask, ratings, see, see_spoiled, spoiled_pairs
from rahf.training.judge_data import load_bundle, load_features
from rahf.training.judge_scores import (
    PEOPLE,
    PER_RATING,
    SOUND,
    Labelled,
    expected_of,
    fit_expert,
    labelled_sources,
    mix,
    soundness_misses,
)
from rahf.training.judge_words import area_under_curve, areas_under_curve, look
from rahf.training.picture_features import feature_file

logger = logging.getLogger(__name__)

FEWEST = 5  # of each answer that a check needs to be counted


@dataclass(frozen=True)
class Figure:
    """A measured value beside what was aimed at, and what simple models reach."""

    name: str
    value: float
    aim: float | None = None
    count: int = 0
    beside: str = ""


def evaluate_judge(
    judge: PictureJudge,
    words: PictureWords,
    pictures: Sequence[Picture],
    features: Path,
    planted: Path,
    text: Path,
) -> list[Figure]:
    """All figures of a judge that was trained with `left_out`. Raises ValueError for folders that hold nothing."""
    bundle = load_bundle(pictures, features)
    teacher = load_file(next(text.glob("*.safetensors")))
    files = [feature_file(features, picture) for picture in bundle.pictures]
    evidence = (see(judge, files) - judge.evidence_mean) / judge.evidence_scale
    out = [is_left_out(picture) for picture in bundle.pictures]
    figures = []
    if bundle.embedding is not None:
        figures += _aesthetics(judge, bundle.pictures, evidence, out, ratings(bundle.embedding, teacher))
    figures += plausibility_figures(judge, bundle.pictures, evidence, planted)
    photographs = [p for p in bundle.pictures if "captions" in p.labels]
    unseen = [picture for picture in photographs if is_left_out(picture)]
    if unseen:
        shown = make_examples([picture for picture in photographs if not is_left_out(picture)])
        figures += word_figures(judge, words, unseen, features, shown)
    figures += adherence_figures(judge, words, bundle.pictures, evidence, features)
    return figures + planted_figures(judge, bundle.pictures, planted)


def _score(judge: PictureJudge, evidence: Tensor, name: str) -> Tensor:
    place = JUDGED_SCORES.index(name)
    weight, bias = judge.score_weight[:, place].mean(0), judge.score_bias[:, place].mean()
    return (evidence @ weight + bias).detach()


def _aesthetics(
    judge: PictureJudge, pictures: Sequence[Picture], evidence: Tensor, out: Sequence[bool], rating: Tensor
) -> list[Figure]:
    score = _score(judge, evidence, "aesthetics").numpy()
    chosen, truth = np.array(out), rating.numpy()
    figures = [
        Figure(
            "aesthetics: Pearson with the teacher, left out",
            _pearson(score[chosen], truth[chosen]),
            0.85,
            int(chosen.sum()),
        )
    ]
    sets = np.array([picture.set for picture in pictures])
    mixed = chosen & ~np.isin(sets, LEFT_OUT_SETS)
    figures.append(
        Figure("aesthetics: the same without near twins", _pearson(score[mixed], truth[mixed]), None, int(mixed.sum()))
    )
    misses = PER_RATING * (truth[mixed] - 5.5) - score[mixed]
    residual = judge.config.residuals[JUDGED_SCORES.index("aesthetics")]
    inside = float((np.abs(misses) <= NINETY * residual).mean())
    figures.append(Figure("aesthetics: ratings inside the 90% interval", inside, 0.90, int(mixed.sum())))
    for name in sorted(set(sets[chosen])):
        rows = chosen & (sets == name)
        if rows.sum() >= 10:
            value = _pearson(score[rows], truth[rows])
            figures.append(Figure(f"aesthetics: within {name}", value, None, int(rows.sum())))
    return figures


def plausibility_figures(
    judge: PictureJudge, pictures: Sequence[Picture], evidence: Tensor, planted: Path
) -> list[Figure]:
    """Spearman with the share of right checks, each scene left out, and with the severity, each prompt left out."""
    near = judge.config.columns("radial")
    kept = [place for place, one in enumerate(pictures) if not is_left_out(one)]
    sources = labelled_sources(pictures, evidence)
    own = [pictures[place] for place in kept]
    pairs = spoiled_pairs(judge, own, evidence[kept], see_spoiled(judge, own, planted))
    if pairs is not None:
        sources.append(pairs)
    groups = [picture.group for picture in pictures]
    raw = evidence * judge.evidence_scale + judge.evidence_mean
    first = judge.config.columns("statistics").start
    areas = raw[:, [first + place for place, name in enumerate(STATISTICS) if name.endswith(" area")]].amax(1)
    present = presence_of(areas)
    taste = judge.score_weight[:, JUDGED_SCORES.index("aesthetics")].mean(0).detach()
    known: dict[tuple[str, str], Tensor] = {}

    def expert(source: Labelled, left_out: str) -> Tensor:
        key = (source.name, left_out if left_out in source.groups else "")
        if key not in known:
            known[key] = fit_expert(source.without(lambda group: group == left_out), near)
        return known[key]

    def predict(left_out: str) -> Tensor:
        experts = {source.name: expert(source, left_out) for source in sources} | {"liked": taste}
        sound = evidence @ mix(experts, SOUND, evidence[kept])
        bodies = evidence @ mix(experts, PEOPLE, evidence[kept]) if "anatomy" in experts else sound
        predicted: Tensor = sound + present * (bodies - sound)
        return predicted

    liking = _score(judge, evidence, "aesthetics").numpy()
    figures = _expected_figures(sources, pictures, evidence, near, liking)
    figures += _coverage_figures(soundness_misses(sources, evidence, taste, near))
    shares = anomaly_shares(picture for picture in pictures if "checks" in picture.labels)
    by_scene, beside = [], []
    for scene in sorted({group for group in groups if group.startswith("scene ")}):
        chosen = [place for place, p in enumerate(pictures) if p.group == scene and p.file in shares]
        truth = np.array([shares[pictures[place].file] for place in chosen])
        by_scene.append(_spearman(predict(scene).numpy()[chosen], truth))
        beside.append(_spearman(liking[chosen], truth))
        figures.append(Figure(f"plausibility: {scene} left out", by_scene[-1], None, len(chosen)))
    if by_scene:
        figures.append(
            Figure(
                "plausibility: mean of scenes left out",
                float(np.mean(by_scene)),
                0.35,
                len(shares),
                f"aesthetics {np.mean(beside):.2f}",
            )
        )
    people = [place for place, picture in enumerate(pictures) if "annotators" in picture.labels]
    if people:
        truth = -np.array([severity(pictures[place]) for place in people])
        found = np.zeros(len(people))
        prompts = np.array([groups[place] for place in people])
        for prompt in sorted(set(prompts)):
            found[prompts == prompt] = predict(prompt).numpy()[people][prompts == prompt]
        within = [_spearman(found[prompts == prompt], truth[prompts == prompt]) for prompt in sorted(set(prompts))]
        liked = liking[people]
        inner = [_spearman(liked[prompts == prompt], truth[prompts == prompt]) for prompt in sorted(set(prompts))]
        figures.append(
            Figure(
                "plausibility: anatomy, prompts left out",
                _spearman(found, truth),
                0.45,
                len(people),
                f"aesthetics {_spearman(liked, truth):.2f}",
            )
        )
        figures.append(
            Figure(
                "plausibility: anatomy, within a prompt",
                float(np.mean(within)),
                0.30,
                len(people),
                f"aesthetics {np.mean(inner):.2f}",
            )
        )
    return figures


def _expected_figures(
    sources: Sequence[Labelled], pictures: Sequence[Picture], evidence: Tensor, near: slice, liking: np.ndarray
) -> list[Figure]:
    """Spearman of what is expected of a picture with the ranking of its generator, a set left out at a time."""
    figures = []
    for source in sources:
        if source.name != "expected" or len(set(source.groups)) < 2:
            continue
        known = np.array([expected_of(picture) for picture in pictures], dtype=float)
        sets = np.array([picture.set for picture in pictures])
        for name in sorted(set(source.groups)):
            rows = (sets == name) & ~np.isnan(known) & np.array(["annotators" not in p.labels for p in pictures])
            if len(set(known[rows])) < 2:
                continue
            weights = fit_expert(source.without(lambda group, name=name: group == name), near)  # type: ignore[misc]
            value = _spearman((evidence @ weights).numpy()[rows], known[rows])
            beside = f"aesthetics {_spearman(liking[rows], known[rows]):.2f}"
            figures.append(
                Figure(f"plausibility: generators of {name}, left out", value, None, int(rows.sum()), beside)
            )
    return figures


def _coverage_figures(misses: dict[str, Tensor]) -> list[Figure]:
    """Part of people's labels inside intervals whose width comes from the other groups, a group left out at a time."""
    inside: list[Tensor] = []
    for name, missed in misses.items():
        others = torch.cat([other for key, other in misses.items() if key != name])
        inside.append(missed.abs() <= NINETY * others.square().mean().sqrt())
    if not inside:
        return []
    found = torch.cat(inside).float()
    return [Figure("plausibility: labels inside the 90% interval", float(found.mean()), 0.90, len(found))]


def word_figures(
    judge: PictureJudge,
    words: PictureWords,
    photographs: Sequence[Picture],
    features: Path,
    training: Sequence[Example],
) -> list[Figure]:
    """AUC of swapped words on photographs, marked ones among the unswapped; beside it words alone, by how often the
    captions of `training` say them."""
    seen = list(look(words, judge, photographs, features))
    examples = make_examples(photographs, seed=1)
    aims = {"noun": 0.85, "colour": 0.75, "count": 0.65}
    alone = _words_alone(examples, training)
    figures = []
    for kind, (value, count) in areas_under_curve(words, seen, examples).items():
        figures.append(
            Figure(f"words: swapped {kind}, AUC", value, aims.get(kind), count, f"text only {alone[kind]:.2f}")
        )
    shown = [e for e in examples if e.shown and words.knows(e.term)]
    with torch.no_grad():
        chances = [float(torch.sigmoid(-words.logit(e.term, words.features(e.term, seen[e.place])))) for e in shown]
        swapped = [e for e in examples if not e.shown and words.knows(e.term)]
        found = [float(torch.sigmoid(-words.logit(e.term, words.features(e.term, seen[e.place])))) for e in swapped]
    threshold = judge.config.word_threshold
    figures.append(
        Figure(
            "words: unswapped that are marked (at most)",
            float((np.array(chances) >= threshold).mean()),
            0.10,
            len(shown),
        )
    )
    figures.append(
        Figure("words: swapped that are marked", float((np.array(found) >= threshold).mean()), None, len(swapped))
    )
    return figures


def _words_alone(examples: Sequence[Example], training: Sequence[Example]) -> dict[str, float]:
    counts: dict[tuple[str, str], int] = {}
    for example in training:
        if example.shown:
            key = (example.term.kind, example.term.value)
            counts[key] = counts.get(key, 0) + 1
    found: dict[str, float] = {}
    for kind in {example.term.kind for example in examples}:
        chosen = [e for e in examples if e.term.kind == kind]
        values = np.array([counts.get((kind, e.term.value), 0) for e in chosen], float)
        found[kind] = area_under_curve(values, np.array([e.shown for e in chosen]))
    return found


def adherence_figures(
    judge: PictureJudge, words: PictureWords, pictures: Sequence[Picture], evidence: Tensor, features: Path
) -> list[Figure]:
    """AUC of adherence checks that vary, mean over checks: by the words that they name, else by the alignment score."""
    checked = [place for place, picture in enumerate(pictures) if "checks" in picture.labels]
    if not checked:
        return []
    prior = _score(judge, evidence, "alignment")
    seen: dict[str, Seen] = dict(
        zip(
            [pictures[place].file for place in checked],
            look(words, judge, [pictures[place] for place in checked], features),
            strict=True,
        )
    )
    where = {picture.file: place for place, picture in enumerate(pictures)}
    rows: dict[tuple[str, str, str], list[tuple[float, float, bool]]] = {}
    for picture, element, check, shown in adherence_checks(pictures[place] for place in checked):
        value = float(prior[where[picture.file]])
        terms = [t for t in read_terms(f"{check.split(':')[-1].replace('exactly', '')} {element}") if words.knows(t)]
        with torch.no_grad():
            odds = [float(words.logit(t, words.features(t, seen[picture.file]))) for t in terms]
        rows.setdefault((picture.labels["scene"], element, check), []).append(
            (value + sum(odds) / max(len(odds), 1), value, shown)
        )
    areas, without = [], []
    for found in rows.values():
        answers = np.array([row[2] for row in found])
        if min(answers.sum(), (~answers).sum()) >= FEWEST:
            areas.append(area_under_curve(np.array([row[0] for row in found]), answers))
            without.append(area_under_curve(np.array([row[1] for row in found]), answers))
    beside = f"image only {np.mean(without):.2f}" if without else ""
    return [Figure("adherence: AUC, mean over checks that vary", float(np.mean(areas)), 0.65, len(areas), beside)]


def planted_figures(judge: PictureJudge, pictures: Sequence[Picture], planted: Path) -> list[Figure]:
    """AUC of the fault heatmap against planted faults in left-out pictures: all, and by kind where there is one."""
    areas: dict[str, list[float]] = {}
    for picture in pictures:
        file = planted / f"{picture.key}__0.npz"
        if not is_left_out(picture) or not file.exists():
            continue
        mask = load_mask(file)
        faults = judge(load_features(file)).faults.mean(1)[0].detach()
        faults = F.avg_pool2d(F.pad(faults[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
        value = area_under_curve(faults.flatten().numpy(), mask.flatten().numpy() > 0.5)
        if np.isnan(value):
            continue
        with np.load(file) as arrays:
            kinds = [str(kind).split(" on ")[0].split("/")[0] for kind in arrays["kinds"]]
        areas.setdefault("all", []).append(value)
        if len(kinds) == 1:
            areas.setdefault(kinds[0], []).append(value)
    return [
        Figure(
            f"planted: AUC of the heatmap, {kind}",
            float(np.mean(values)),
            0.90 if kind == "warp" else None,
            len(values),
        )
        for kind, values in sorted(areas.items())
    ]


def figures_table(figures: Sequence[Figure]) -> str:
    """A Markdown table of measured beside wanted."""
    lines = ["| | measured | wanted | n | beside |", "|---|---|---|---|---|"]
    for one in figures:
        aim = "" if one.aim is None else f"{one.aim:.2f}"
        lines.append(f"| {one.name} | {one.value:.3f} | {aim} | {one.count} | {one.beside} |")
    return "\n".join(lines)


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(spearmanr(first, second).statistic)
