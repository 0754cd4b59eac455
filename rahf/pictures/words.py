"""How likely each word of a prompt is not shown in a real picture, and where.

A noun is compared with the picture's embedding and with its tokens'; both similarities are standardised by what it
scores on other pictures, and a logistic regression reads them. A colour is looked for where its noun is, a count is
compared with the number of separate places, a relation with where the two nouns are. What is not in the vocabulary gets
no probability at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from rahf.pictures.judge import PARTS, Judgement
from rahf.pictures.vocabulary import COLOURS, Term

TOP_TOKENS = 5
FINE = 4  # pixels a side that a token's colours are read from
COLOUR_WIDTH = 22.0  # distance in CIE Lab at which a colour is hardly called by its name any more
_ANCHORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((200, 30, 30), (140, 20, 25), (230, 70, 60)),
    "orange": ((240, 140, 30), (220, 110, 40)),
    "yellow": ((245, 215, 50), (205, 185, 70), (250, 235, 130)),
    "green": ((50, 150, 60), (40, 80, 40), (130, 170, 90), (90, 110, 50)),
    "blue": ((40, 80, 190), (90, 150, 220), (30, 40, 90), (60, 100, 130)),
    "purple": ((120, 50, 150), (170, 120, 200), (70, 40, 90)),
    "pink": ((240, 150, 190), (220, 80, 140), (240, 190, 200)),
    "brown": ((110, 70, 40), (150, 110, 70), (70, 45, 30)),
    "black": ((18, 18, 18), (40, 38, 38)),
    "white": ((245, 245, 245), (222, 222, 218)),
    "grey": ((128, 128, 128), (175, 175, 175), (88, 88, 88)),
    "gold": ((200, 160, 60), (170, 130, 50)),
}
NOUN_FEATURES, COLOUR_FEATURES, COUNT_FEATURES, RELATION_FEATURES = 4, 4, 6, 2
KINDS = {"noun": NOUN_FEATURES, "colour": COLOUR_FEATURES, "count": 3, "relation": RELATION_FEATURES}


@dataclass(frozen=True)
class TermJudgement:
    """A term with the chance in [0, 1] that it is not shown, and (h,w) in [0, 1] where the nouns that it names are."""

    term: Term
    probability: float
    where: np.ndarray


class PictureWords(nn.Module):
    """Vectors and regressions of the vocabulary.

    Args:
        concepts: names of the nouns, in the order of the vectors.
        embedding: width of the image-text space.
    """

    whole_mean: Tensor
    whole_scale: Tensor
    local_mean: Tensor
    local_scale: Tensor
    token_mean: Tensor
    token_scale: Tensor

    def __init__(self, concepts: list[str], embedding: int = 512) -> None:
        super().__init__()
        self.concepts = concepts
        self.index = {name: place for place, name in enumerate(concepts)}
        count = len(concepts)
        self.whole = nn.Parameter(torch.zeros(count, embedding))
        self.local = nn.Parameter(torch.zeros(count, embedding))
        for name in ("whole", "local", "token"):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_scale", torch.ones(count))
        self.noun_bias = nn.Parameter(torch.zeros(count))
        self.weights = nn.ParameterDict({kind: nn.Parameter(torch.zeros(size + 1)) for kind, size in KINDS.items()})
        self.count_map = nn.Parameter(torch.zeros(COUNT_FEATURES + 1))

    def similarities(self, judgement: Judgement) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised similarity of every concept with whole pictures (B,C), with their best tokens (B,C), and with
        each token (B,C,h,w)."""
        whole = judgement.embedding @ self.whole.T
        tokens = torch.einsum("behw,ce->bchw", judgement.dense, self.local)
        best = tokens.flatten(2).topk(min(TOP_TOKENS, tokens[0, 0].numel()), dim=2).values.mean(2)
        return (
            (whole - self.whole_mean) / self.whole_scale,
            (best - self.local_mean) / self.local_scale,
            (tokens - self.token_mean[:, None, None]) / self.token_scale[:, None, None],
        )

    @torch.no_grad()
    def judge(self, terms: list[Term], judgement: Judgement, picture: Tensor) -> list[TermJudgement]:
        """Chances for the terms of one prompt; `judgement` of one picture, `picture` (3,H,W) in [0, 1]."""
        known = [term for term in terms if self.knows(term)]
        if not known:
            return []
        whole, best, maps = (values[0] for values in self.similarities(judgement))
        seen = Seen(whole, best, maps, judgement.parts[0], colour_maps(picture, maps.shape[-2:]), self.index)
        found = []
        for term in known:
            chance = torch.sigmoid(-self.logit(term, self.features(term, seen)))
            found.append(TermJudgement(term, float(chance), seen.where(term).numpy()))
        return found

    def knows(self, term: Term) -> bool:
        """Whether every noun of a term has a vector here."""
        nouns = (term.value,) if term.kind == "noun" else term.nouns
        return all(noun in self.index for noun in nouns)

    def features(self, term: Term, seen: "Seen") -> Tensor:
        """What speaks for a term being shown, as (n,) numbers by its kind."""
        if term.kind == "noun":
            place = self.index[term.value]
            pair = torch.stack([seen.whole[place], seen.best[place]])
            return torch.cat([pair, pair.clamp(max=0) ** 2 * -1])
        if term.kind == "colour":
            return seen.colour(term)
        if term.kind == "count":
            expected = self.count_map[:-1] @ seen.places(term) + self.count_map[-1]
            distance = torch.log(torch.tensor(float(term.value))) - expected
            return torch.stack([-distance.abs(), -(distance**2), distance.clamp(max=0)])
        return seen.relation(term)

    def logit(self, term: Term, features: Tensor) -> Tensor:
        """Log odds that a term is shown."""
        weights = self.weights[term.kind]
        logit = weights[:-1] @ features + weights[-1]
        return logit + self.noun_bias[self.index[term.value]] if term.kind == "noun" else logit


@dataclass
class Seen:
    """Similarities of one picture: `whole`, `best` (C,), `maps` (C,h,w); chances of parts (P,h,w), colours (12,h,w)."""

    whole: Tensor
    best: Tensor
    maps: Tensor
    parts: Tensor
    colours: Tensor
    index: dict[str, int]

    def mask(self, noun: str) -> Tensor:
        """(h,w) in [0, 1]: where a noun is most likely, relative to its best place."""
        values = self.maps[self.index[noun]]
        values = F.avg_pool2d(F.pad(values[None, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0]
        peak = values.max()
        return torch.sigmoid((values - (peak - 1.2)) * 4)

    def where(self, term: Term) -> Tensor:
        """(h,w): where the nouns of a term are."""
        nouns = (term.value,) if term.kind == "noun" else term.nouns
        return torch.stack([self.mask(noun) for noun in nouns]).amax(0)

    def colour(self, term: Term) -> Tensor:
        """How much of the noun's place, at most and on average, has the colour, and how much of the picture."""
        likeness, mask = self.colours[COLOURS.index(term.value)], self.mask(term.nouns[0])
        inside = (likeness * mask).sum() / (mask.sum() + 1e-6)
        flat = (likeness * mask).flatten()
        many = max(int(0.03 * flat.numel()), 1)
        picture = likeness.flatten().topk(max(flat.numel() // 10, 1)).values.mean()
        rivals = (self.colours * mask).sum((1, 2)) / (mask.sum() + 1e-6)
        return torch.stack([inside, flat.topk(many).values.mean(), picture, inside / (rivals.max() + 0.05)])

    def places(self, term: Term) -> Tensor:
        """What speaks of a number: separate places of the noun at two levels, how much it covers, faces of people."""
        values = self.maps[self.index[term.nouns[0]]].numpy()
        counts = [np.log1p(ndimage.label(values > level)[1]) for level in (1.5, 2.2)]
        high = values.max()
        counts.append(np.log1p(ndimage.label(values > 0.6 * high)[1]))
        person = float(term.nouns[0] == "person")
        faces = ndimage.label(self.parts[PARTS.index("face")].numpy() > 0.5)[1]
        figures = [*counts, float((values > 1.5).mean()), person * np.log1p(faces), person]
        return torch.tensor(figures, dtype=torch.float32)

    def relation(self, term: Term) -> Tensor:
        """How far the first noun lies to the side of the second that is claimed, in parts of the picture."""
        first, second = (_centre(self.mask(noun)) for noun in term.nouns)
        across, down = first[0] - second[0], first[1] - second[1]
        along = {"left": -across, "right": across, "above": -down, "below": down}[term.value]
        return torch.stack(
            [
                along,
                along.abs() * along.sign() * torch.minimum(*(self.best[self.index[n]] for n in term.nouns)).clamp(0, 3),
            ]
        )


def colour_maps(picture: Tensor, grid: Sequence[int]) -> Tensor:
    """(12,h,w) in [0, 1]: how much of each token's place (of a picture (3,H,W)) one would call by each colour."""
    size = (grid[0] * FINE, grid[1] * FINE)
    pixels = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    lab = to_lab(pixels.flatten(1).T)
    anchors = to_lab(torch.tensor([anchor for name in COLOURS for anchor in _ANCHORS[name]]) / 255)
    closeness = (-(torch.cdist(lab, anchors) ** 2) / (2 * COLOUR_WIDTH**2)).softmax(dim=1)
    counts = [len(_ANCHORS[name]) for name in COLOURS]
    named = torch.stack([part.sum(1) for part in closeness.split(counts, dim=1)])
    return F.avg_pool2d(named.unflatten(1, size)[None], FINE)[0]


def to_lab(colours: Tensor) -> Tensor:
    """sRGB (N,3) in [0, 1] -> CIE Lab (N,3) at D65."""
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    matrix = colours.new_tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    relative = linear @ matrix.T / colours.new_tensor([0.95047, 1.0, 1.08883])
    curved = torch.where(relative > 216 / 24389, relative.clamp(min=1e-9) ** (1 / 3), relative * 841 / 108 + 4 / 29)
    x, y, z = curved.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _centre(mask: Tensor) -> Tensor:
    """(x, y) centre of mass of a mask (h,w), in parts of the picture."""
    rows, columns = mask.shape
    weight = mask / (mask.sum() + 1e-6)
    x = (weight.sum(0) * (torch.arange(columns) + 0.5)).sum() / columns
    y = (weight.sum(1) * (torch.arange(rows) + 0.5)).sum() / rows
    return torch.stack([x, y])
