"""Planted warps: what is planted, what counts as found, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import mannwhitneyu
from typer.testing import CliRunner

from foundation.folders import Item
from rahf.cli.main import app
from rahf.evaluation import warps
from rahf.evaluation.warps import CENTRE, EDGES, GAIN, MODEL, PROMPT, UNWARPED, judge, plant, summarise_warps
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor


def noise(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two generated pictures, one photograph, and a plain one in which nothing can be seen to be warped."""
    for seed, name in enumerate(["generated/a", "generated/b", "photographs/a"]):
        path = tmp_path / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed=seed).save(path)
    Image.new("RGB", (64, 64), "skyblue").save(tmp_path / "pictures" / "photographs" / "sky.png")
    return tmp_path / "pictures"


def item(folder: Path, file: str) -> Item:
    return Item(folder / file, file, file)


def test_a_warp_stays_in_its_mask_and_depends_on_the_file_alone(pictures: Path) -> None:
    planted, again = (plant(item(pictures, "generated/a.png")) for _ in range(2))
    assert planted is not None
    assert again is not None
    np.testing.assert_array_equal(planted.warped, again.warped)
    changed = (planted.warped != planted.picture).any(axis=2)
    rows, columns = np.nonzero(planted.mask)
    box = np.zeros_like(planted.mask)
    box[rows.min() - 4 : rows.max() + 5, columns.min() - 4 : columns.max() + 5] = True
    assert changed[planted.mask].mean() > 0.9
    assert not changed[~box].any()
    assert planted.group == "generated"
    other = plant(item(pictures, "generated/a.png"), seed=1)
    assert other is not None
    assert (other.mask != planted.mask).any()
    assert plant(item(pictures, "photographs/sky.png")) is None, "twisted sky is sky"


def test_large_pictures_are_shrunk(pictures: Path) -> None:
    noise(400, 300).save(pictures / "large.png")
    planted = plant(item(pictures, "large.png"), side=128)
    assert planted is not None
    assert planted.picture.shape == (96, 128, 3)
    assert planted.group == ""


def area_under_roc(predicted: np.ndarray, mask: np.ndarray) -> float:
    """From the rank-sum statistic."""
    inside, outside = predicted[mask], predicted[~mask]
    return float(mannwhitneyu(inside, outside).statistic / (inside.size * outside.size))


def test_what_is_found_and_what_is_not(pictures: Path) -> None:
    planted = [plant(item(pictures, name)) for name in ("generated/a.png", "generated/b.png", "photographs/a.png")]
    found = [judge(one, one.mask.astype(np.float32), np.zeros(one.mask.shape)) for one in planted if one is not None]
    assert len(found) == 3
    for one in found:
        assert one.auc[MODEL] == pytest.approx(1, abs=0.01)
        assert one.auc[UNWARPED] == pytest.approx(0.5, abs=0.01), "a constant map knows nothing"
        assert one.auc[GAIN] == pytest.approx(one.auc[MODEL] - one.auc[UNWARPED])
        mask = one.planted.mask
        assert one.auc[CENTRE] == pytest.approx(area_under_roc(warps.centre_prior(*mask.shape), mask), abs=0.01)
        assert one.auc[EDGES] == pytest.approx(area_under_roc(warps.edge_energy(one.planted.warped), mask), abs=0.01)
    summary = summarise_warps(found, resamples=50)
    assert {name: column[MODEL].count for name, column in summary.items()} == {
        "all": 3,
        "generated": 2,
        "photographs": 1,
    }
    assert summary["all"][EDGES].value == pytest.approx(np.mean([one.auc[EDGES] for one in found]))
    assert "| all (3) | generated (2) | photographs (1) |" in warps.warp_table(summary)


def test_baselines() -> None:
    prior = warps.centre_prior(31, 61)
    assert np.unravel_index(prior.argmax(), prior.shape) == (15, 30)
    np.testing.assert_allclose(prior, prior[::-1, ::-1])
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[:, 30:] = 255
    energy = warps.edge_energy(picture)
    assert set(energy.argmax(axis=1)) <= {29, 30}
    assert energy[:, :20].max() < 0.01 * energy.max()


def test_command(tiny_model: RAHF, pictures: Path, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "weights")
    out = tmp_path / "out"
    (tmp_path / "prompts.json").write_text(json.dumps({"generated/a.png": "a red cat"}))
    arguments = ["evaluate-warps", pictures, "-w", tmp_path / "weights", "-o", out, "--device", "cpu"]
    arguments += ["--prompts", tmp_path / "prompts.json"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "| all (3) |" in result.stdout
    found = json.loads((out / "warps.json").read_text())
    assert {row["file"] for row in found["pictures"]} == {"generated/a.png", "generated/b.png", "photographs/a.png"}
    assert [row["prompt"] for row in found["pictures"]] == ["a red cat", PROMPT, PROMPT]
    assert found["summary"]["generated"][MODEL]["count"] == 2
    planted = plant(item(pictures, "generated/b.png"))
    assert planted is not None
    heatmap = Predictor.from_pretrained(tmp_path / "weights", "cpu").predict(planted.warped, PROMPT)
    expected = area_under_roc(heatmap.heatmaps["implausibility"], planted.mask)
    row = next(row for row in found["pictures"] if row["file"] == "generated/b.png")
    assert row[MODEL] == pytest.approx(expected, abs=0.01)
    assert Image.open(out / "warps.png").width > 2 * 3 * warps.PANEL
    failed = CliRunner().invoke(app, [*(str(argument) for argument in arguments), "--severity", "0"])
    assert failed.exit_code == 2
    assert "severity is 0" in failed.stderr
