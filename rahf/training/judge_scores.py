"""Scores of real pictures from several weak sources, by ridge regression over what the judge's other heads see.

Each source teaches an expert of its own: the share of right anomaly checks; exp(-severity / 8) of anatomy errors; what
is expected of a generator (`EXPECTED`, this project's own ranking: photographs first, then by age and kind); planted
faults against the same picture without. An expert sees rows and targets without the mean of their group (scene, prompt,
set, pair), so it learns what tells pictures of one prompt apart, and has no intercept that a group could hide in. The
experts' predictions, each of unit deviation, are added up; that of anatomy replaces them as far as people are there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rahf.data.pictures import Picture, anomaly_shares, severity
from rahf.pictures.judge import PARTS, SCORE_ROWS, STATISTICS, PictureJudge
from rahf.training.judge_fit import ridge, within_groups

DIRECTIONS = 384  # principal directions of the evidence that the regressions see
STRENGTH = 1.0
FEWEST = 8  # labelled pictures that an expert needs
SOUND = {"checks": 0.4, "expected": 0.6, "planted": 0.3}  # shares of the experts in plausibility
MATCHING = {"checks": 0.2, "expected": 0.6}  # in what is expected of alignment before any word is looked at
PEOPLE = {"anatomy": 1.0}
LEVEL, SLOPE = 0.4, 0.8  # log odds of a middling picture, and of one deviation above it
BLOCKS = {"embedding": 0.3, "summary": 1.0, "statistics": 0.3}  # how much each part of the evidence may say
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
    """What is expected of a picture by where it comes from; None where that is not known."""
    if "captions" in picture.labels:
        return EXPECTED["ORG"]
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

    Each block (embedding, summary, statistics) is scaled so that together its columns weigh as `BLOCKS` says.
    """
    config = judge.config
    widths = {"embedding": config.embedding, "summary": config.summary, "statistics": len(STATISTICS)}
    share = torch.cat([torch.full((widths[name],), BLOCKS[name] / widths[name] ** 0.5) for name in widths])
    judge.evidence_mean.copy_(evidence.mean(0))
    judge.evidence_scale.copy_((evidence.std(0) + 1e-4) / share)
    return (evidence - judge.evidence_mean) / judge.evidence_scale


def directions(rows: Tensor, many: int = DIRECTIONS) -> Tensor:
    """(D,k) principal directions of rows (n,D)."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return vectors[:, values.argsort(descending=True)[: min(many, len(values))]]


def fit_expert(source: Labelled, generator: torch.Generator | None = None, strength: float = STRENGTH) -> Tensor:
    """Weights (D,) of one source's expert; its predictions for the source's own rows have unit deviation.

    With a generator, rows are weighted at random, so that members of an ensemble differ.
    """
    odds = torch.logit(source.target.clamp(0.04, 0.96))
    rows = within_groups(source.rows, source.groups)
    target = within_groups(odds[:, None], source.groups)[:, 0]
    weight = torch.ones(len(rows))
    if generator is not None:
        weight = 0.1 + 2 * torch.rand(len(rows), generator=generator)
    solution, _ = ridge(rows, target / (target.std() + 1e-6), weight, strength)
    return solution / ((source.rows @ solution).std() + 1e-6)


def fit_experts(
    sources: Sequence[Labelled], shares: dict[str, float], generator: torch.Generator | None = None
) -> Tensor:
    """Weights (D,) of the experts of some sources, added up by their shares to about unit deviation."""
    chosen = [source for source in sources if source.name in shares and len(source.rows) >= FEWEST]
    if not chosen:
        raise ValueError(f"none of {', '.join(shares)} has {FEWEST} labelled pictures; add a table that has")
    total = sum(shares[source.name] ** 2 for source in chosen) ** 0.5
    return torch.stack([shares[source.name] / total * fit_expert(source, generator) for source in chosen]).sum(0)


def ridge_primal(rows: Tensor, target: Tensor, weight: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """`judge_fit.ridge` for more rows than columns: the penalty is relative to the number of rows that count."""
    weight = weight / weight.sum()
    middle, level = weight @ rows, weight @ target
    centred = rows - middle
    gram = (centred * weight[:, None]).T @ centred
    penalty = strength * gram.trace() * weight.pow(2).sum() * torch.eye(len(gram))
    solution = torch.linalg.solve(gram + penalty, (centred * weight[:, None]).T @ (target - level))
    return solution, level - middle @ solution


def fit_scores(
    judge: PictureJudge, sources: Sequence[Labelled], basis: Tensor, aesthetics: tuple[Tensor, Tensor]
) -> None:
    """Set all score heads: `aesthetics` are evidence rows (n,D) and the teacher's ratings (n,) from 1 to 10."""
    rows, rating = aesthetics
    odds = torch.logit(((rating - 1) / 9).clamp(0.03, 0.97))
    generator = torch.Generator().manual_seed(0)
    for member in range(judge.config.members):
        weight = 0.2 + torch.rand(len(rows), generator=generator)
        liked, liked_bias = ridge_primal(rows @ basis, odds, weight, 0.3)
        liked = basis @ liked
        sound = SLOPE * fit_experts(sources, SOUND, generator)
        solved = {
            "plausibility": (sound, torch.tensor(LEVEL)),
            "alignment": (SLOPE * fit_experts(sources, MATCHING, generator), torch.tensor(LEVEL)),
            "aesthetics": (liked, liked_bias),
            "overall": (0.5 * (sound + liked), 0.5 * (LEVEL + liked_bias)),
            "people": (sound, torch.tensor(LEVEL)),
        }
        if any(source.name in PEOPLE and len(source.rows) >= FEWEST for source in sources):
            solved["people"] = (SLOPE * fit_experts(sources, PEOPLE, generator), torch.tensor(LEVEL))
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
