"""A shortened training of the picture judge, from tables to feedback, with the real encoder seen at few tokens."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import data
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from foundation.features import load_encoder
from rahf.data.pictures import read_pictures
from rahf.evaluation.pictures import evaluate_judge, figures_table
from rahf.pictures.feedback import PictureFeedback
from rahf.pictures.vocabulary import read_concepts
from rahf.training.judge import JudgeTraining, is_left_out, train_judge
from rahf.training.judge_data import part_boxes, part_maps, read_parts
from rahf.training.judge_fit import descend, fit_radial, ridge, within_groups
from rahf.training.judge_scores import Labelled, liking_misses, mix, ridge_primal, soundness_misses
from rahf.training.picture_features import Teacher, feature_file, keep_features
from rahf.training.picture_runs import FeaturesConfig
from rahf.training.planting import keep_planted, spoil

TOKENS = 36
CAPTIONS = {
    "astronaut": ("a woman in an orange suit", "two flags behind a woman"),
    "chelsea": ("a brown cat on a blanket", "one cat"),
    "coffee": ("a white cup of coffee on a table", "a cup and a spoon"),
    "rocket": ("a white tower at night", "three lights beside a tower"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of four photographs as five sets: photographs, checks, anatomy, and two generators."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    tables: dict[str, list[dict[str, object]]] = {name: [] for name in ("photographs", "checks", "anatomy", "made")}
    for name, captions in CAPTIONS.items():
        image = cv2.resize(getattr(data, name)(), (160, 160), interpolation=cv2.INTER_AREA)
        for number in range(8):
            x, y = generator.integers(0, 60, 2)
            crop = image[y : y + 100, x : x + 100]
            if number % 2:
                crop = cv2.GaussianBlur(crop, (0, 0), 2.5)
            file = f"{name}-{number}.png"
            cv2.imwrite(str(folder / file), crop[..., ::-1])
            ok = 1 - number % 2
            check = {"category": "Anomalies", "element": "cat", "check": "whiskers", "ok": ok}
            shown = {"category": "Prompt adherence", "element": "cat", "check": "amount: exactly 2", "ok": ok}
            error = {"part": "Hands", "persons": number, "severity": 0.5}
            tables["photographs"].append({"file": file, "prompt": captions[0], "captions": list(captions)})
            tables["checks"].append({"file": f"c-{file}", "prompt": name, "scene": name, "checks": [check, shown]})
            tables["anatomy"].append(
                {"file": f"a-{file}", "prompt": name, "annotators": [[error] if number % 2 else []]}
            )
            tables["made"].append({"file": f"m-{file}", "prompt": name, "generator": "midj" if ok else "glide"})
            for other in ("c", "a", "m"):
                cv2.imwrite(str(folder / f"{other}-{file}"), crop[..., ::-1])
    for name, rows in tables.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random text embeddings by the names that the vocabulary begins with, and a random head on ratings."""
    folder = tmp_path_factory.mktemp("text")
    labels = sorted({label for concept in read_concepts() for label in concept.labels})
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            "ade20k": torch.nn.functional.normalize(torch.randn(len(labels), 512, generator=generator), dim=1),
            "simulacra.weight": torch.randn(1, 512, generator=generator) * 0.1,
            "simulacra.bias": torch.tensor([5.0]),
        },
        folder / "text.safetensors",
    )
    (folder / "names.json").write_text(json.dumps({"ade20k": labels}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def features(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=512,
    )  # fmt: skip
    out = tmp_path_factory.mktemp("features")
    pictures = read_pictures(corpus)
    teacher = Teacher(CLIPVisionModelWithProjection(config))
    assert keep_features(pictures, out, load_encoder(), teacher, TOKENS) == len(pictures)
    assert keep_features(pictures, out, load_encoder(), teacher, TOKENS) == 0  # all are there
    return out


@pytest.fixture(scope="module")
def planted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted")
    assert keep_planted(read_pictures(corpus), out, load_encoder(), {}, tokens=TOKENS) > 50
    return out


@pytest.fixture(scope="module")
def parts(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("parts") / "parts.jsonl"
    rows = []
    for picture in read_pictures(corpus):
        woman = "astronaut" in picture.file
        faces = [[0.3, 0.1, 0.3, 0.3]] if woman else []
        rows.append(json.dumps({"file": picture.file, "faces": faces, "hands": [], "pose": []}))
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def test_pictures_or_scenes_are_asked_for() -> None:
    with pytest.raises(ValueError, match="either --pictures"):
        FeaturesConfig(Path("out"))
    with pytest.raises(ValueError, match="seen without it"):
        FeaturesConfig(Path("out"), scenes=Path("sprites"), teacher=Path("clip"))


def train(corpus: Path, features: Path, planted: Path, parts: Path, text: Path, out: Path, left_out: bool) -> None:
    settings = JudgeTraining(steps=12, tokens_each=8, left_out=left_out)
    train_judge(read_pictures(corpus), features, planted, parts, text, None, out, settings)


@pytest.mark.slow
def test_trained_it_gives_feedback(
    corpus: Path, features: Path, planted: Path, parts: Path, text: Path, tmp_path: Path
) -> None:
    train(corpus, features, planted, parts, text, tmp_path, left_out=False)
    judge = PictureFeedback.load(tmp_path)
    image = torch.from_numpy(data.chelsea()[:200, :260].copy()).permute(2, 0, 1).float() / 255
    judgement = judge.look(image)
    assert not judge.is_composed(judgement)  # no scene was shown, so nothing is taken for one
    found = judge.describe(judgement, image, "two brown cats and a gizmo")
    assert set(found.scores) == {"plausibility", "alignment", "aesthetics", "overall"}
    for name, (low, high) in found.intervals.items():
        assert 0 <= low <= found.scores[name] <= high <= 1
    assert {name: values.shape for name, values in found.heatmaps.items()} == {
        "implausibility": (200, 260),
        "misalignment": (200, 260),
    }
    assert [(word.text, word.judged) for word in found.words] == [
        ("two", True),
        ("brown", True),
        ("cats", True),
        ("and", True),
        ("a", True),
        ("gizmo", False),
    ]
    assert [word.text for word in found.not_judged()] == ["gizmo"]


@pytest.mark.slow
def test_an_interrupted_training_goes_on(
    corpus: Path, features: Path, planted: Path, parts: Path, text: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(corpus, features, planted, parts, text, whole, left_out=False)
    train(corpus, features, planted, parts, text, broken, left_out=False)
    kept = (broken / "heads" / "dense.safetensors").stat().st_mtime_ns
    for name in ("faults", "composed"):
        (broken / "heads" / f"{name}.safetensors").unlink()
    (broken / "model.safetensors").unlink()
    train(corpus, features, planted, parts, text, broken, left_out=False)
    assert (broken / "heads" / "dense.safetensors").stat().st_mtime_ns == kept
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_reported_run_never_sees_what_it_is_measured_on(
    corpus: Path, features: Path, planted: Path, parts: Path, text: Path, tmp_path: Path
) -> None:
    """With the features of what is left out gone, the same heads come out."""
    pictures = read_pictures(corpus)
    first, second = tmp_path / "first", tmp_path / "second"
    train(corpus, features, planted, parts, text, first, left_out=True)
    fewer = tmp_path / "features"
    for picture in pictures:
        if not is_left_out(picture):
            target = feature_file(fewer, picture)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(feature_file(features, picture).read_bytes())
    train(corpus, fewer, planted, parts, text, second, left_out=True)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    judge = PictureFeedback.load(first)
    figures = {one.name: one for one in evaluate_judge(judge.judge, judge.words, pictures, features, planted, text)}
    assert "words: swapped noun, AUC" in figures
    assert all(-1 <= one.value <= 1 for one in figures.values() if np.isfinite(one.value))
    assert figures_table(list(figures.values())).count("\n") == len(figures) + 1


def test_left_out_groups_are_fixed_by_name(corpus: Path) -> None:
    for picture in read_pictures(corpus, ["made"]):
        assert is_left_out(picture) == (picture.labels["generator"] == "midj")


def test_ridge_is_that_of_the_normal_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 4, generator=generator).double()
    target = torch.randn(30, generator=generator).double()
    weight = torch.rand(30, generator=generator).double() + 0.1
    solution, bias = ridge(rows, target, weight, 1e-6)
    scale = weight.sqrt()[:, None]
    padded = torch.cat([rows, torch.ones(30, 1).double()], dim=1) * scale
    expected = torch.linalg.lstsq(padded, target[:, None] * scale).solution[:, 0]
    torch.testing.assert_close(torch.cat([solution, bias[None]]), expected, rtol=1e-3, atol=1e-3)
    shrunk, _ = ridge(rows, target, weight, 100.0)
    assert shrunk.norm() < 0.1 * solution.norm()


def test_both_ridges_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, target = torch.randn(40, 6, generator=generator).double(), torch.randn(40, generator=generator).double()
    weight = torch.rand(40, generator=generator).double() + 0.1
    centred = rows - (weight / weight.sum()) @ rows
    variance = float((weight / weight.sum()) @ centred.square().mean(1))
    solution, bias = ridge_primal(rows, target, weight, 0.3)
    # The same in closed form, with a column of ones that is not shrunk.
    padded = torch.cat([rows, torch.ones(40, 1).double()], dim=1)
    penalty = torch.diag(torch.tensor([0.3 * variance] * 6 + [0.0])).double()
    share = (weight / weight.sum())[:, None]
    expected = torch.linalg.solve(padded.T @ (share * padded) + penalty, padded.T @ (share[:, 0] * target))
    torch.testing.assert_close(torch.cat([solution, bias[None]]), expected, rtol=1e-6, atol=1e-6)


def test_nearness_has_the_products_of_the_kernel() -> None:
    """With every picture a centre and every direction kept, the figures' products are the kernel itself."""
    summary = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    made = fit_radial(summary, torch.ones(12), (9, 12, 12), seed=0)
    places = torch.nn.functional.normalize(summary @ made["axes"], dim=-1)
    kernel = torch.exp(places @ made["centres"].T - 1)
    figures = kernel @ made["mix"]
    torch.testing.assert_close(figures @ figures.T, torch.exp(places @ places.T - 1), rtol=1e-3, atol=2e-3)


def test_experts_weigh_by_their_shares() -> None:
    evidence = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    found = mix(
        {"a": torch.tensor([9.0, 0.0]), "b": torch.tensor([0.0, 0.1]), "c": torch.ones(2)}, {"a": 3, "b": 4}, evidence
    )
    deviation = evidence.std(0)
    assert float((evidence @ found).std()) == pytest.approx(1, abs=1e-4)
    assert float(found[0] * deviation[0] / (found[1] * deviation[1])) == pytest.approx(0.75, rel=1e-4)


def test_residuals_are_those_of_what_was_left_out() -> None:
    """Ratings that nearness says exactly are missed by nothing; noise is missed by its own deviation."""
    near = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    groups = [f"group {number}" for number in range(400)]
    told = liking_misses(near, 5.5 + near @ torch.tensor([1.0, -1.0, 0.5]), groups)
    noise = liking_misses(near, 5.5 + 2.25 * torch.randn(400, generator=torch.Generator().manual_seed(1)), groups)
    assert float(noise.std()) == pytest.approx(1.0, rel=0.15)
    assert float(told.std()) < 0.3 * float(noise.std())
    labels = torch.rand(400, generator=torch.Generator().manual_seed(2))
    checks = Labelled("checks", near, labels, ["scene one"] * 200 + ["scene two"] * 200)
    misses = soundness_misses([checks], near, torch.tensor([1.0, 0.0, 0.0]), slice(0, 3))
    assert sorted(misses) == ["scene one", "scene two"]
    assert all(float(missed.std()) > 0.8 for missed in misses.values())


def test_groups_lose_their_means() -> None:
    rows = torch.tensor([[1.0], [3.0], [10.0]])
    assert within_groups(rows, ["a", "a", "b"])[:, 0].tolist() == [-1, 1, 0]
    assert within_groups(rows, ["a", "a", "b"], 0.5)[:, 0].tolist() == [0, 2, 5]


def test_a_loss_that_is_no_number_is_told() -> None:
    module = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        descend(module, lambda rows: module.weight.sum() * float("nan"), 4, 3, 2)


def test_faults_strike_parts_where_they_are_known() -> None:
    image = np.asarray(data.astronaut())
    box = ("face", (150, 50, 140, 170))
    struck = 0
    for seed in range(40):
        _, mask, kinds = spoil(image, np.random.default_rng(seed), [box])
        assert kinds
        struck += any(kind.endswith("on face") for kind in kinds)
        assert mask.any()
    assert struck > 20
    assert not any("on face" in kind for kind in spoil(image, np.random.default_rng(0))[2])


def test_parts_lie_where_their_boxes_are(parts: Path) -> None:
    row = read_parts(parts)["astronaut-0.png"]
    assert part_boxes(row, 100, 200)[0] == ("face", (27, 14, 36, 72))
    maps = part_maps(row, (10, 10))
    assert maps.shape == (3, 10, 10)
    assert maps[0, 2, 4] == 1
    assert maps[0, 8, 8] == 0
    assert float(maps[1:].sum()) == 0


def test_limbs_lie_between_their_joints() -> None:
    points = [[0.0, 0.0, 0.0]] * 33
    points[13], points[15] = [0.2, 0.2, 0.9], [0.6, 0.2, 0.9]  # a level forearm
    maps = part_maps({"faces": [], "hands": [], "pose": points}, (10, 10))
    assert maps[2, 2, 4] > 0.5
    assert maps[2, 8, 4] == 0
