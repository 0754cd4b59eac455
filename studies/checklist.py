#!/usr/bin/env python3
"""Thresholds and weights of the built-in checklist, from a teacher's ratings, with scores on folders left out.

usage: python studies/checklist.py --pictures DATA/pictures --features FEATURES --text DATA/clip --cache FILE [--write]

FEATURES is what `rahf picture-features --teacher` wrote; the rating is the linear head `simulacra` (people's ratings of
generated pictures) on the teacher's embedding. --cache keeps the measures of each picture, and the run goes on from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.optimize import nnls
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from foundation.features import Features
from foundation.files import write_text
from foundation.pictures import load_photo
from rahf.improve.checklist.measures import Seen, at_side, measure, saliency_of
from rahf.improve.checklist.questions import CONFIG, Question, bare_questions
from rahf.pictures.feedback import FOLDER, load_words
from rahf.pictures.judge import PictureJudge, load_judge
from rahf.pictures.words import PictureWords

LAYERS = (3, 7, 11)
RIDGE = 0.02  # per picture: keeps neighbouring rungs of a ladder from sharing their weight at random
FEW = 40  # pictures that a folder needs for a rank correlation of its own
# Four prompts, each drawn 240 times on the same seeds: what ranks these is the prompt.
LEFT_OUT = ("sampler_checks",)
RULED = {"appeal": 0.2}  # weight of a rung by rule: this head has learned from the same teacher on the same pictures
Rows = dict[str, dict[str, float]]


@torch.no_grad()
def measure_pictures(pictures: Path, features: Path, text: Path, cache: Path) -> Rows:
    """Measures and rating of every picture that has kept features, by its path."""
    rows: Rows = json.loads(cache.read_text(encoding="utf-8")) if cache.is_file() else {}
    judge, words = load_judge(CONFIG.parents[1] / FOLDER), load_words(CONFIG.parents[1] / FOLDER)
    teacher = load_file(text / "clip_b16_text_and_heads.safetensors")
    left = [
        path
        for path in sorted(features.glob("*/*.npz"))
        if path.parent.name not in LEFT_OUT and f"{path.parent.name}/{path.stem}" not in rows
    ]
    for number, path in enumerate(tqdm(left, desc="measuring")):
        found = next((one for one in (pictures / path.parent.name).iterdir() if one.stem == path.stem), None)
        if found is not None:
            rows[f"{path.parent.name}/{path.stem}"] = measure_one(path, found, judge, words, teacher)
        if number % 200 == 199:
            write_text(cache, json.dumps(rows))
    write_text(cache, json.dumps(rows))
    return rows


def measure_one(
    path: Path, picture: Path, judge: PictureJudge, words: PictureWords, teacher: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Measures and rating of one picture from its kept features."""
    kept = np.load(path)
    rows, columns = (int(size) for size in kept["grid"])
    tokens = torch.from_numpy(kept["tokens"].astype(np.float32)).transpose(1, 2).unflatten(2, (rows, columns))
    maps = {layer: tokens[place][None] for place, layer in enumerate(LAYERS)}
    features = Features("", maps, torch.from_numpy(kept["summary"])[None])
    found = measure(Seen(at_side(load_photo(picture, 1024)), saliency_of(features), judge(features), words))
    embedding = torch.from_numpy(kept["embedding"])
    scaled = embedding / embedding.norm() * len(embedding) ** 0.5
    found["rating"] = float(scaled @ teacher["simulacra.weight"][0] + teacher["simulacra.bias"][0])
    return found


def thresholds_of(rows: Rows, questions: list[Question]) -> dict[str, float]:
    """By question, the quantile of its measure that its rung stands for."""
    values = {name: [row[name] for row in rows.values()] for name in {one.measure for one in questions}}
    return {one.name: float(np.quantile(values[one.measure], one.level)) for one in questions}


def table_of(rows: Rows, questions: list[Question], thresholds: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Answers (N,Q) as 1 and -1, and ratings (N,)."""
    answers = [[1.0 if row[q.measure] >= thresholds[q.name] else -1.0 for q in questions] for row in rows.values()]
    return np.array(answers), np.array([row["rating"] for row in rows.values()])


def fit(rows: Rows, questions: list[Question], thresholds: dict[str, float]) -> tuple[np.ndarray, float]:
    """Weights (Q,), none below 0, and the intercept, by ridge least squares within folders: what sets one source of
    pictures apart from another, such as their size, is no quality."""
    answers, ratings = table_of(rows, questions, thresholds)
    folders = np.array([key.partition("/")[0] for key in rows])
    inner, wanted = answers.copy(), ratings.copy()
    for folder in set(folders.tolist()):
        inner[folders == folder] -= answers[folders == folder].mean(0)
        wanted[folders == folder] -= ratings[folders == folder].mean()
    ridge = np.sqrt(RIDGE * len(answers)) * np.eye(answers.shape[1])
    weights, _ = nnls(np.vstack([inner, ridge]), np.concatenate([wanted, np.zeros(len(ridge))]))
    return weights, float(ratings.mean() - answers.mean(0) @ weights)


def left_out(rows: Rows, questions: list[Question]) -> list[str]:
    """Lines of a table: rank correlation with the rating in each folder, thresholds and weights from all others."""
    folders = sorted({key.partition("/")[0] for key in rows})
    lines, predicted, true = [], [], []
    for folder in folders:
        others = {key: row for key, row in rows.items() if not key.startswith(f"{folder}/")}
        own = {key: row for key, row in rows.items() if key.startswith(f"{folder}/")}
        thresholds = thresholds_of(others, questions)
        weights, intercept = fit(others, questions, thresholds)
        answers, ratings = table_of(own, questions, thresholds)
        score = answers @ weights + intercept
        predicted.append(score)
        true.append(ratings)
        value = f"{spearmanr(score, ratings).statistic:.3f}" if len(own) >= FEW else "too few"
        lines.append(f"| {folder} | {len(own)} | {value} |")
    pooled = spearmanr(np.concatenate(predicted), np.concatenate(true)).statistic
    return [*lines, f"| all, each left out | {len(rows)} | {pooled:.3f} |"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("pictures", "features", "text", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="write thresholds and weights into the package")
    options = parser.parse_args()
    rows = measure_pictures(options.pictures, options.features, options.text, options.cache)
    ladders = [one for one in bare_questions() if one.level == one.level]
    thresholds = thresholds_of(rows, ladders)
    questions = [one for one in ladders if one.ladder not in RULED]
    answers, ratings = table_of(rows, questions, thresholds)
    weights, intercept = fit(rows, questions, thresholds)
    print("| folder left out | pictures | Spearman with the rating |\n|---|---:|---:|")
    print("\n".join(left_out(rows, questions)))
    print(f"\nfitted on all: {spearmanr(answers @ weights, ratings).statistic:.3f}; weights above 0:")
    for question, weight in sorted(zip(questions, weights, strict=True), key=lambda pair: -pair[1]):
        if weight > 1e-3:
            limit = f"{question.measure} >= {thresholds[question.name]:.3g}"
            print(f"{weight:.3f} {question.name:14} {question.text} ({limit})")
    if options.write:
        chosen = {one.name: round(float(weight), 4) for one, weight in zip(questions, weights, strict=True)}
        chosen |= {one.name: RULED[one.ladder] for one in ladders if one.ladder in RULED}
        config = {
            "pictures": len(rows),
            # Agreement with the prompt counts as much as the answers can at most move the score to one side.
            "alignment_weight": round(sum(chosen.values()), 4),
            "intercept": round(intercept, 4),
            "thresholds": {name: float(f"{value:.4g}") for name, value in thresholds.items()},
            "weights": chosen,
        }
        CONFIG.parent.mkdir(parents=True, exist_ok=True)
        write_text(CONFIG, json.dumps(config, indent=1) + "\n")
        print(f"wrote {CONFIG}")


if __name__ == "__main__":
    main()
