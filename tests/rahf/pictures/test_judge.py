"""The heads of the judge: shapes, standardisation, saving, errors, gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.features import Features
from rahf.pictures.judge import (
    JUDGED_SCORES,
    PARTS,
    STATISTICS,
    JudgeConfig,
    PictureJudge,
    add_people,
    load_judge,
    map_statistics,
    presence,
    read_config,
    summarise,
)

TINY = JudgeConfig(
    channels=6, layers=(0, 2), tokens=16, embedding=5, hidden=4, dense_hidden=4, fault_hidden=3, members=2, concepts=3,
    axes=4, centres=7, radial=3,
)  # fmt: skip

# Of the shipped weights, see the last test.
GOLDEN_SCORES = [-0.6163, -1.4407, -0.8873, -1.1271]
GOLDEN_EMBEDDING = [0.0288, -0.0362, 0.0033, 0.0272]
GOLDEN_FAULTS = [-0.2891, -0.35, -0.4304]


def features_of(seed: int = 0, batch: int = 2, grid: tuple[int, int] = (3, 4)) -> Features:
    generator = torch.Generator().manual_seed(seed)
    maps = {layer: torch.randn(batch, 6, *grid, generator=generator) for layer in (0, 2)}
    return Features("", maps, torch.randn(batch, 6, generator=generator))


@pytest.fixture
def judge() -> PictureJudge:
    torch.manual_seed(0)
    made = PictureJudge(TINY).eval()
    with torch.no_grad():
        made.score_weight.normal_()
        made.radial_axes.normal_()
        made.radial_centres.copy_(torch.nn.functional.normalize(torch.randn(7, 4), dim=-1))
        made.radial_mix.normal_()
    return made


def test_shapes(judge: PictureJudge) -> None:
    found = judge(features_of())
    assert found.embedding.shape == (2, 5)
    assert found.dense.shape == (2, 5, 3, 4)
    assert found.faults.shape == (2, 2, 3, 4)
    assert found.parts.shape == (2, len(PARTS), 3, 4)
    assert found.scores.shape == (2, 2, len(JUDGED_SCORES))
    assert found.part_errors.shape == (2, len(PARTS))
    assert found.composed.shape == (2,)
    torch.testing.assert_close(found.embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(found.dense.norm(dim=1), torch.ones(2, 3, 4))


def test_pictures_of_a_batch_do_not_see_each_other(judge: PictureJudge) -> None:
    both = features_of()
    alone = Features("", {layer: maps[1:] for layer, maps in both.tokens.items()}, both.summary[1:])
    torch.testing.assert_close(judge(both).scores[1:], judge(alone).scores)


def test_spread_is_that_of_numpy(judge: PictureJudge) -> None:
    found = judge(features_of())
    np.testing.assert_allclose(found.spread().detach().numpy(), found.scores.detach().numpy().std(axis=1), rtol=1e-5)


def test_a_description_is_mean_and_deviation() -> None:
    features = features_of(batch=1)
    maps = [features.tokens[layer].flatten(2).transpose(1, 2) for layer in (0, 2)]
    found = summarise(features.summary, maps)[0].numpy()
    parts = [features.summary[0].numpy()]
    for layer in (0, 2):
        tokens = features.tokens[layer][0].numpy().reshape(6, -1)
        parts += [tokens.mean(1), tokens.std(1)]
    np.testing.assert_allclose(found, np.concatenate(parts), rtol=1e-5, atol=1e-6)
    assert len(found) == TINY.summary


def test_figures_of_maps() -> None:
    faults = torch.zeros(1, 2, 5, 4)
    faults[0, :, 0, 0] = torch.tensor([2.0, 4.0])
    parts = torch.zeros(1, 3, 5, 4)
    parts[0, 1, 0, 0] = 1.0
    figures = dict(zip(STATISTICS, map_statistics(faults, parts)[0].tolist(), strict=True))
    assert figures["fault mean"] == pytest.approx(3 / 20)
    assert figures["fault top"] == pytest.approx(3)  # a twentieth of 20 tokens is one
    assert figures["hand area"] == pytest.approx(1 / 20)
    assert figures["hand fault"] == pytest.approx(3 / 2)
    assert figures["face fault"] == 0


def test_saved_and_loaded_it_says_the_same(judge: PictureJudge, tmp_path: Path) -> None:
    judge.save(tmp_path, ["cat", "dog", "table"])
    loaded = load_judge(tmp_path)
    torch.testing.assert_close(loaded(features_of()).scores, judge(features_of()).scores, rtol=0.02, atol=0.02)
    config, concepts = read_config(tmp_path)
    assert config == TINY
    assert concepts == ["cat", "dog", "table"]
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_bodies_count_where_people_are() -> None:
    rows = torch.zeros(2, 1, 5)
    rows[..., 0], rows[..., 4] = 1.0, -2.0
    parts = torch.zeros(2, 3, 10, 10)
    parts[1, 0] = 0.97  # a face over all of the second picture
    found = add_people(rows, presence(parts))[:, 0]
    share = 0.97 / 0.98
    assert found[0].tolist() == [1, 0, 0, 0]
    assert found[1].tolist() == pytest.approx([1 - 3 * share, 0, 0, -0.6 * share], abs=1e-5)


def test_gradients_reach_the_features(judge: PictureJudge) -> None:
    features = features_of()
    for tokens in features.tokens.values():
        tokens.requires_grad_()
    judge(features).scores.mean(1)[:, JUDGED_SCORES.index("aesthetics")].sum().backward()
    for tokens in features.tokens.values():
        assert tokens.grad is not None
        assert float(tokens.grad.abs().sum()) > 0


def test_features_of_other_layers_are_refused(judge: PictureJudge) -> None:
    features = features_of()
    with pytest.raises(ValueError, match=r"blocks \[0\]"):
        judge(Features("", {0: features.tokens[0]}, features.summary))
    with pytest.raises(ValueError, match="of width 7"):
        judge(Features("", features.tokens, torch.zeros(2, 7)))


def test_a_folder_without_a_judge_is_refused(judge: PictureJudge, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no judge"):
        load_judge(tmp_path)
    judge.save(tmp_path, ["cat", "dog", "table"])
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        load_judge(tmp_path)


def test_nearness_is_a_gaussian_of_the_distance_between_directions(judge: PictureJudge) -> None:
    summary = torch.randn(5, TINY.summary, generator=torch.Generator().manual_seed(1))
    places = (summary @ judge.radial_axes).numpy()
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    squared = ((places[:, None] - judge.radial_centres.numpy()[None]) ** 2).sum(-1)
    expected = np.exp(-squared / 2) @ judge.radial_mix.numpy()
    np.testing.assert_allclose(judge.nearness(summary).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_blocks_of_the_evidence_lie_side_by_side() -> None:
    ends = [TINY.columns(name) for name in TINY.blocks]
    assert [one.start for one in ends] == [0, *(one.stop for one in ends[:-1])]
    assert ends[-1].stop == TINY.evidence


def test_the_shipped_judge_says_what_it_said() -> None:
    """A golden slice: numbers of the weights in the repository, on features made by a formula."""
    shipped = load_judge(Path(__file__).parents[3] / "rahf" / "weights" / "pictures")
    steps = torch.arange(384 * 20, dtype=torch.float32).view(1, 384, 4, 5)
    maps = {layer: torch.sin(steps * (0.1 + 0.01 * layer)) for layer in shipped.config.layers}
    found = shipped(Features("", maps, torch.cos(torch.arange(384.0) * 0.3)[None]))
    np.testing.assert_allclose(found.scores.mean(1)[0].numpy(), GOLDEN_SCORES, atol=2e-3)
    np.testing.assert_allclose(found.embedding[0, :4].numpy(), GOLDEN_EMBEDDING, atol=2e-3)
    np.testing.assert_allclose(found.faults.mean(1)[0, 1, :3].numpy(), GOLDEN_FAULTS, atol=5e-3)
