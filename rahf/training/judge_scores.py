"""Scores of real pictures from several weak sources, by ridge regression over what the judge's other heads see.

Each source teaches an expert of its own: the share of right anomaly checks; exp(-severity / 8) of anatomy errors;
planted faults against the same picture without; what is expected of a generator (`EXPECTED`, this project's own
ranking: by age and kind); and what a teacher's rating says that people like. The first three see rows and targets
without the mean of their group (scene, prompt, pair), so they learn what tells pictures of one prompt apart, and have
no intercept that a group could hide in. Liking and expectation compare pictures of anything and read the nearness to
centres only, which carries over to other generators better than the rest. The experts' predictions, each of unit
deviation over pictures at large, are added up; that of anatomy counts as far as people are there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rahf.data.pictures import Picture, anomaly_shares, fold_of, severity
from rahf.pictures.judge import PARTS, SCORE_ROWS, PictureJudge
from rahf.training.judge_fit import ridge, within_groups

DIRECTIONS = 384  # principal directions of the evidence that the regressions see
STRENGTH = 1.0
FEWEST = 8  # labelled pictures that an expert needs
CENTRED = ("checks", "anatomy", "planted")  # sources whose experts see no group's mean
# Shares of the experts. Good-looking pictures are more often plausible, and so are those of better generators.
SOUND = {"expected": 0.6, "liked": 0.5, "checks": 0.2, "planted": 0.2}
MATCHING = {"expected": 0.5, "liked": 0.5}  # in what is expected of alignment before any word is looked at
PEOPLE = {"anatomy": 0.8, "expected": 0.3, "liked": 0.25}
OVERALL = {"liked": 0.8, "expected": 0.3, "checks": 0.1, "planted": 0.1}
EXPECTING, LIKING = 4.0, 0.2  # strengths of the two regressions on nearness, relative to the mean variance
PER_RATING = 4 / 9  # log odds of aesthetics for one step of a rating from 1 to 10, around its middle
LEVEL, SLOPE = 0.4, 0.8  # log odds of a middling picture, and of one deviation above it
BLOCKS = {
    "embedding": 0.3,
    "summary": 1.0,
    "statistics": 0.3,
    "radial": 0.1,
}  # how much each part of the evidence may say
# What is expected of a generator's pictures, from a photograph (0.95) down; matched at the start of its name.
EXPECTED = {
    "ORG": 0.95, "dall-e3": 0.8, "Dalle3": 0.85, "stable_cascade": 0.7, "sdXL": 0.7, "SD_XL": 0.75, "midj": 0.8,
    "dallev2": 0.65, "Dalle2": 0.65, "dal2": 0.65, "DF-IF": 0.7, "OJ": 0.6, "stabilityai-stable-diffusion-2-1": 0.6,
    "SD21": 0.6, "SD_V21": 0.6, "runwayml-stable-diffusion-v1-5": 0.52, "SD_V15": 0.52, "simu": 0.3, "stab": 0.5,
    "CompVis-stable-diffusion-v1-4": 0.48, "SD14": 0.48, "SD_V14": 0.48, "stable-diffusion": 0.45, "Versatile": 0.4,
    "sd_cdm": 0.42, "ldif": 0.28, "glid3": 0.25, "glide_cdm": 0.22, "glide": 0.22, "cogview2": 0.25,
    "dallemini": 0.22, "dmin": 0.22, "disco": 0.3, "mdif": 0.25, "GALIP": 0.15, "DFGAN": 0.1, "Nano banana": 0.9,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows of one source: evidence (n,D), targets (n,) in [0, 1], and the group of each."""

    name: str
    rows: Tensor
    target: Tensor
    groups: list[str]

    def without(self, left_out: Callable[[str], bool]) -> "Labelled":
        """The rows whose group is not left out."""
        kept = [place for place, group in enumerate(self.groups) if not left_out(group)]
        return Labelled(self.name, self.rows[kept], self.target[kept], [self.groups[place] for place in kept])


def expected_of(picture: Picture) -> float | None:
    """What is expected of a generated picture by where it comes from; None where that is not known."""
    name = str(picture.labels.get("generator") or "")
    for start, value in EXPECTED.items():
        if name.startswith(start):
            return value
    return None


def labelled_sources(pictures: Sequence[Picture], rows: Tensor) -> list[Labelled]:
    """Checks, anatomy and expectations among pictures with their evidence (n,D)."""
    checked = [place for place, picture in enumerate(pictures) if "checks" in picture.labels]
    shares = anomaly_shares(pictures[place] for place in checked)
    checked = [place for place in checked if pictures[place].file in shares]
    people = [place for place, picture in enumerate(pictures) if "annotators" in picture.labels]
    expected = [(place, expected_of(picture)) for place, picture in enumerate(pictures) if place not in set(people)]
    known = [(place, value) for place, value in expected if value is not None]
    sources = [
        Labelled(
            "checks",
            rows[checked],
            torch.tensor([shares[pictures[place].file] for place in checked]),
            [pictures[place].group for place in checked],
        ),
        Labelled(
            "anatomy",
            rows[people],
            torch.tensor([severity(pictures[place]) for place in people]).div(-8).exp(),
            [pictures[place].group for place in people],
        ),
        Labelled(
            "expected",
            rows[[place for place, _ in known]],
            torch.tensor([value for _, value in known]),
            [pictures[place].set for place, _ in known],
        ),
    ]
    return [source for source in sources if len(source.rows)]


def set_evidence(judge: PictureJudge, evidence: Tensor) -> Tensor:
    """Fit the judge's standardisation of the evidence (n,D) to pictures; gives the standardised rows.

    Each block is scaled so that together its columns weigh as `BLOCKS` says. Within the nearness nothing is: what is
    small in it is meant to be.
    """
    widths = judge.config.blocks
    share = torch.cat([torch.full((width,), BLOCKS[name] / max(width, 1) ** 0.5) for name, width in widths.items()])
    deviation = evidence.std(0) + 1e-4
    near = judge.config.columns("radial")
    deviation[near] = deviation[near].square().mean().sqrt()
    judge.evidence_mean.copy_(evidence.mean(0))
    judge.evidence_scale.copy_(deviation / share)
    return (evidence - judge.evidence_mean) / judge.evidence_scale


def directions(rows: Tensor, many: int = DIRECTIONS) -> Tensor:
    """(D,k) principal directions of rows (n,D)."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return vectors[:, values.argsort(descending=True)[: min(many, len(values))]]


def fit_expert(source: Labelled, columns: slice, generator: torch.Generator | None = None) -> Tensor:
    """Weights (D,) of one source's expert, in log odds; `columns` are the nearness among the evidence.

    With a generator, rows are weighted at random, so that members of an ensemble differ.
    """
    odds = torch.logit(source.target.clamp(0.04, 0.96))
    weight = torch.ones(len(odds))
    if generator is not None:
        weight = 0.1 + 2 * torch.rand(len(odds), generator=generator)
    if source.name in CENTRED:
        rows = within_groups(source.rows, source.groups)
        target = within_groups(odds[:, None], source.groups)[:, 0]
        return ridge(rows, target / (target.std() + 1e-6), weight, STRENGTH)[0]
    balanced = weight * torch.tensor([source.groups.count(group) ** -0.5 for group in source.groups])
    solution = torch.zeros(source.rows.shape[1])
    solution[columns] = ridge_primal(source.rows[:, columns], odds, balanced, EXPECTING)[0]
    return solution


def liking(near: Tensor, rating: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (R,) and bias of aesthetics in log odds, from ratings (n,) of 1 to 10 of pictures' nearness (n,R)."""
    return ridge_primal(near, PER_RATING * (rating - 5.5), weight, LIKING)


def liking_misses(near: Tensor, rating: Tensor, groups: Sequence[str]) -> Tensor:
    """(n,) by how much aesthetics in log odds miss the ratings, a fifth of the groups left out at a time."""
    truth, part = PER_RATING * (rating - 5.5), torch.tensor([fold_of(group) for group in groups])
    misses = torch.zeros(len(near))
    for fold in part.unique():
        shown = part != fold
        if int(shown.sum()) < FEWEST:
            continue
        solution, bias = liking(near[shown], rating[shown], torch.ones(int(shown.sum())))
        misses[~shown] = truth[~shown] - near[~shown] @ solution - bias
    return misses


def soundness_misses(sources: Sequence[Labelled], evidence: Tensor, liked: Tensor, near: slice) -> dict[str, Tensor]:
    """By group of what people labelled, by how much plausibility misses their labels in log odds, that group left out.

    Empty where there are fewer than two such groups.
    """
    labelled = {source.name: PEOPLE if source.name == "anatomy" else SOUND for source in sources}
    misses = {}
    for source in sources:
        if source.name not in ("checks", "anatomy") or len(set(source.groups)) < 2:
            continue
        others = {one.name: fit_expert(one, near) for one in sources if one.name != source.name}
        for name in sorted(set(source.groups)):
            shown = source.without(lambda group, name=name: group == name)  # type: ignore[misc]
            experts = others | {"liked": liked, source.name: fit_expert(shown, near)}
            weights = SLOPE * mix(experts, labelled[source.name], evidence)
            chosen = [place for place, group in enumerate(source.groups) if group == name]
            truth = torch.logit(source.target[chosen].clamp(0.04, 0.96))
            misses[name] = truth - source.rows[chosen] @ weights - LEVEL
    return misses


def mix(experts: dict[str, Tensor], shares: dict[str, float], evidence: Tensor) -> Tensor:
    """Weights (D,) of experts added up by their shares, each and the sum of unit deviation over evidence (n,D).

    Raises ValueError if none of them is there.
    """
    chosen = {name: weights for name, weights in experts.items() if name in shares}
    if not chosen:
        raise ValueError(f"there is no expert of {', '.join(shares)}; add a table that has labels for one")
    total = torch.stack([shares[name] * unit(weights, evidence) for name, weights in chosen.items()]).sum(0)
    return unit(total, evidence)


def unit(weights: Tensor, evidence: Tensor) -> Tensor:
    """Weights (D,) whose predictions for evidence (n,D) have unit deviation."""
    return weights / ((evidence @ weights).std() + 1e-6)


def ridge_primal(rows: Tensor, target: Tensor, weight: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """`judge_fit.ridge` for more rows than columns; `strength` is relative to the mean variance of a column."""
    weight = weight / weight.sum()
    middle, level = weight @ rows, weight @ target
    centred = rows - middle
    gram = (centred * weight[:, None]).T @ centred
    penalty = strength * gram.diagonal().mean() * torch.eye(len(gram))
    solution = torch.linalg.solve(gram + penalty, (centred * weight[:, None]).T @ (target - level))
    return solution, level - middle @ solution


def fit_scores(judge: PictureJudge, sources: Sequence[Labelled], evidence: Tensor, rating: Tensor) -> None:
    """Set all score heads: `evidence` rows (n,D) of pictures at large with the teacher's ratings (n,) of 1 to 10."""
    generator = torch.Generator().manual_seed(0)
    near = judge.config.columns("radial")
    known = [source for source in sources if len(source.rows) >= FEWEST]
    for member in range(judge.config.members):
        weight = 0.1 + 2 * torch.rand(len(evidence), generator=generator)
        liked = torch.zeros(evidence.shape[1])
        liked[near], liked_bias = liking(evidence[:, near], rating, weight)
        experts = {source.name: fit_expert(source, near, generator) for source in known} | {"liked": liked}
        sound = SLOPE * mix(experts, SOUND, evidence)
        solved = {
            "plausibility": (sound, torch.tensor(LEVEL)),
            "alignment": (SLOPE * mix(experts, MATCHING, evidence), torch.tensor(LEVEL)),
            "aesthetics": (liked, liked_bias),
            "overall": (SLOPE * mix(experts, OVERALL, evidence), torch.tensor(LEVEL)),
            "people": (SLOPE * mix(experts, PEOPLE, evidence) if "anatomy" in experts else sound, torch.tensor(LEVEL)),
        }
        with torch.no_grad():
            for place, name in enumerate(SCORE_ROWS):
                judge.score_weight[member, place] = solved[name][0]
                judge.score_bias[member, place] = solved[name][1]


PART_OF = {"Hands": "hand", "Face": "face", "Limbs": "limb", "Feet": "limb", "Torso": "limb"}


def part_targets(pictures: Sequence[Picture]) -> tuple[list[int], Tensor]:
    """Places of the pictures with labels of anatomy, and for each (n,P) whether an annotator found a part wrong."""
    places, rows = [], []
    for place, picture in enumerate(pictures):
        if "annotators" not in picture.labels:
            continue
        total = dict.fromkeys(PARTS, 0.0)
        for errors in picture.labels["annotators"]:
            for error in errors:
                part = PART_OF.get(error["part"])
                if part is not None:
                    total[part] += error["persons"] * error["severity"] / len(picture.labels["annotators"])
        places.append(place)
        rows.append([1 - 2.718281828 ** -total[part] for part in PARTS])
    return places, torch.tensor(rows)


def fit_part_errors(judge: PictureJudge, pictures: Sequence[Picture], evidence: Tensor, basis: Tensor) -> None:
    """How likely each part is wrong, from the labels of anatomy; nothing is set where there are fewer than 20."""
    places, target = part_targets(pictures)
    if len(places) < 20:
        return
    rows = evidence[places] @ basis
    weight = torch.ones(len(places))
    with torch.no_grad():
        for part in range(len(PARTS)):
            odds = torch.logit(target[:, part].clamp(0.05, 0.95))
            solution, bias = ridge(rows, odds, weight, STRENGTH)
            judge.part_weight[part] = basis @ solution
            judge.part_bias[part] = bias
