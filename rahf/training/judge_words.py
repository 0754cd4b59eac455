"""Teaching the words of the picture judge: vectors from label embeddings, regressions from captions and their swaps."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from foundation.pictures import load_photo
from rahf.data.captions import Example, nouns_shown
from rahf.data.pictures import Picture
from rahf.pictures.judge import PictureJudge
from rahf.pictures.vocabulary import read_concepts
from rahf.pictures.words import KINDS, PictureWords, Seen, colour_maps
from rahf.training.judge_data import load_features
from rahf.training.picture_features import feature_file

MARKED = 0.08  # part of the shown words of the training captions that may be marked


def label_vectors(folder: Path) -> dict[str, Tensor]:
    """Unit text embeddings by label name, those of both label sets averaged, from the teacher's folder.

    Raises ValueError if the folder does not hold them.
    """
    try:
        names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        file = next(folder.glob("*.safetensors"))
    except (OSError, StopIteration) as error:
        raise ValueError(
            f"{folder} holds no names.json beside .safetensors; give the folder of text embeddings"
        ) from error
    tensors = load_file(file)
    found: dict[str, list[Tensor]] = {}
    for kind, labels in names.items():
        for name, vector in zip(labels, tensors[kind], strict=True):
            found.setdefault(name.strip(), []).append(vector)
    return {name: F.normalize(torch.stack(vectors).mean(0), dim=0) for name, vectors in found.items()}


def begin_words(vectors: dict[str, Tensor]) -> PictureWords:
    """Words whose vectors are the means of their labels' embeddings."""
    concepts = read_concepts()
    means = torch.stack([torch.stack([vectors[label] for label in concept.labels]).mean(0) for concept in concepts])
    words = PictureWords([concept.name for concept in concepts], means.shape[1])
    with torch.no_grad():
        words.whole.copy_(F.normalize(means, dim=1))
        words.local.copy_(F.normalize(means, dim=1))
    return words


@torch.no_grad()
def standardise(words: PictureWords, judge: PictureJudge, files: Sequence[Path]) -> None:
    """Set what each noun scores on pictures at large, from kept features."""
    whole, best, moments = [], [], []
    for file in tqdm(files, desc="words"):
        judgement = judge(load_features(file))
        first, second, maps = (values[0] for values in words.similarities(judgement))
        whole.append(first)
        best.append(second)
        moments.append(torch.stack([maps.mean((1, 2)), (maps**2).mean((1, 2))]))
    mean, square = torch.stack(moments).mean(0)
    for name, values in (("whole", torch.stack(whole)), ("local", torch.stack(best))):
        getattr(words, f"{name}_mean").copy_(values.mean(0))
        getattr(words, f"{name}_scale").copy_(values.std(0) + 1e-4)
    words.token_mean.copy_(mean)
    words.token_scale.copy_((square - mean**2).clamp(min=1e-8).sqrt())


@torch.no_grad()
def look(words: PictureWords, judge: PictureJudge, pictures: Sequence[Picture], folder: Path) -> Iterator[Seen]:
    """What the words see in each picture, from kept features."""
    for picture in tqdm(pictures, desc="looking"):
        judgement = judge(load_features(feature_file(folder, picture)))
        whole, best, maps = (values[0] for values in words.similarities(judgement))
        yield Seen(
            whole, best, maps, judgement.parts[0], colour_maps(load_photo(picture.path), maps.shape[-2:]), words.index
        )


def fit_words(
    words: PictureWords, seen: Sequence[Seen], pictures: Sequence[Picture], examples: Sequence[Example]
) -> float:
    """Fit vectors, counts and the regressions of all kinds; gives the threshold from which a word is marked.

    `seen` goes with `pictures`; examples name their place in both.
    """
    _fit_counts(words, seen, examples)
    _fit_biases(words, seen, pictures)
    shown_chances = []
    for kind in KINDS:
        of_kind = [example for example in examples if example.term.kind == kind and words.knows(example.term)]
        if not of_kind:
            continue
        with torch.no_grad():
            rows = torch.stack([words.features(example.term, seen[example.place]) for example in of_kind])
            offset = torch.zeros(len(rows))
            if kind == "noun":
                offset = words.noun_bias[[words.index[example.term.value] for example in of_kind]]
        target = torch.tensor([float(example.shown) for example in of_kind])
        weights = logistic(rows, target, offset)
        with torch.no_grad():
            words.weights[kind].copy_(weights)
            chances = torch.sigmoid(-(rows @ weights[:-1] + weights[-1] + offset))
        shown_chances.append(chances[target > 0.5])
    return float(torch.cat(shown_chances).quantile(1 - MARKED))


def logistic(rows: Tensor, target: Tensor, offset: Tensor, penalty: float = 1e-2, balanced: bool = True) -> Tensor:
    """Logistic regression with the bias last; both classes weigh the same if `balanced`."""
    scale = rows.std(0) + 1e-6
    middle = rows.mean(0)
    given = (rows - middle) / scale
    weights = torch.zeros(rows.shape[1] + 1, requires_grad=True)
    positive = target.mean().clamp(0.02, 0.98)
    balance = torch.where(target > 0.5, 0.5 / positive, 0.5 / (1 - positive)) if balanced else torch.ones_like(target)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = given @ weights[:-1] + weights[-1] + offset
        loss = F.binary_cross_entropy_with_logits(logits, target, weight=balance) + penalty * weights[:-1].pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    solved = weights.detach()
    real = solved[:-1] / scale
    return torch.cat([real, (solved[-1] - (real * middle).sum())[None]])


def _fit_counts(words: PictureWords, seen: Sequence[Seen], examples: Sequence[Example]) -> None:
    """Expected log count by least squares on the counts that captions and boxes name."""
    counted = [e for e in examples if e.term.kind == "count" and e.shown and words.knows(e.term)]
    if len(counted) < 10:
        return
    rows = torch.stack([seen[example.place].places(example.term) for example in counted])
    target = torch.log(torch.tensor([float(example.term.value) for example in counted]))
    padded = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    penalty = 3.0 * torch.eye(padded.shape[1])
    penalty[-1, -1] = 1e-3
    with torch.no_grad():
        words.count_map.copy_(torch.linalg.solve(padded.T @ padded + penalty, padded.T @ target))


def _fit_biases(words: PictureWords, seen: Sequence[Seen], pictures: Sequence[Picture]) -> None:
    """What is in captions more often than its similarity says: the bias of each noun, shrunk towards none."""
    shown = [nouns_shown(picture) for picture in pictures]
    with torch.no_grad():
        for name, place in words.index.items():
            mine = [float(name in names) for names in shown]
            count = sum(mine)
            strength = torch.tensor([float(one.whole[place] + one.best[place]) for one in seen])
            if count == 0:
                continue
            inside = strength[torch.tensor(mine) > 0.5].mean()
            words.noun_bias[place] = -0.5 * (inside - 2.0) * count / (count + 8)


def areas_under_curve(
    words: PictureWords, seen: Sequence[Seen], examples: Sequence[Example]
) -> dict[str, tuple[float, int]]:
    """By kind, how often a shown term is thought likelier than one that is not (AUC), and the number of examples."""
    found = {}
    for kind in KINDS:
        of_kind = [example for example in examples if example.term.kind == kind and words.knows(example.term)]
        if not of_kind:
            continue
        with torch.no_grad():
            odds = [float(words.logit(e.term, words.features(e.term, seen[e.place]))) for e in of_kind]
        right = np.array([e.shown for e in of_kind])
        found[kind] = (area_under_curve(np.array(odds), right), len(of_kind))
    return found


def area_under_curve(values: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive has the higher value, ties counted half; nan without both."""
    from scipy.stats import rankdata

    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(values)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))
