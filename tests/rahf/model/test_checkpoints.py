"""Loading the public layout: both namings, strictness, safety, memory."""

import json
import os
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from foundation.weights import checks
from rahf.model import checkpoints
from rahf.model.checkpoints import (
    CheckpointError,
    canonical_key,
    installed_key,
    read_config,
    save_parts,
    write_weights,
)
from rahf.model.config import PUBLIC, RAHFConfig
from rahf.model.conversion import convert_checkpoint
from rahf.model.rahf import RAHF, TextTokens
from rahf.predictor import Predictor

# The released layout, written down from its description rather than from our modules.
VIT_LAYER = [
    *(f"attention.attention.{name}.{kind}" for name in ("query", "key", "value") for kind in ("weight", "bias")),
    *(
        f"{name}.{kind}"
        for name in (
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
            "layernorm_before",
            "layernorm_after",
        )
        for kind in ("weight", "bias")
    ),
]
NEW_NAMES = [
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("encoder.layer.", "layers."),
]


def pair(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def public_keys() -> set[str]:
    keys = {"vit.embeddings.cls_token", "vit.embeddings.position_embeddings"}
    keys.update(pair("vit.embeddings.patch_embeddings.projection", "vit.layernorm", "vit.pooler.dense"))
    keys.update(pair("visual_token_projection"))
    keys.update(f"vit.encoder.layer.{layer}.{part}" for layer in range(24) for part in VIT_LAYER)
    for name in ("implausibility", "misalignment"):
        head = f"heatmap_predictor.{name}"
        keys.update(pair(*(f"{head}.conv_layers.{i}" for i in (0, 3)), f"{head}.last_conv1", f"{head}.last_conv2"))
        keys.update(f"{head}.conv_layers.{i}.scale" for i in (2, 5))
        for stage in range(4):
            keys.update(pair(f"{head}.deconv_layers.{stage}.0", *(f"{head}.conv_layers2.{stage}.{i}" for i in (0, 3))))
            keys.add(f"{head}.deconv_layers.{stage}.1.scale")
            keys.update(f"{head}.conv_layers2.{stage}.{i}.scale" for i in (1, 4))
    for name in ("plausibility", "alignment", "aesthetics", "overall"):
        head = f"score_predictor.{name}"
        keys.update(pair(*(f"{head}.conv_layers.{i}" for i in range(0, 16, 3))))
        keys.update(f"{head}.conv_layers.{i}.scale" for i in range(1, 17, 3))
        keys.update(pair(*(f"{head}.linear_layers.{i}" for i in (0, 2, 4))))
    return keys


def new_naming(key: str) -> str:
    if key.startswith("vit.encoder.layer."):
        for old, new in NEW_NAMES:
            key = key.replace(old, new)
    return key


def texts() -> TextTokens:
    return TextTokens(torch.tensor([[70, 80, 90, 1]]), torch.ones(1, 4, dtype=torch.bool))


SMALLER = PUBLIC.changed(
    image_size=64, vit_width=16, vit_heads=2, vit_mlp=16, vocabulary=384, text_width=16, text_key_width=4,
    text_heads=2, text_mlp=16, heatmap_stem=(8, 8), heatmap_stages=(8, 8, 4, 4), score_channels=(8, 8, 4, 4, 4, 2),
    score_hidden=(8, 4),
)  # fmt: skip


ScaledDown = tuple[RAHF, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def scaled_down() -> ScaledDown:
    """A model with all 842 keys of the released one, in small, and its state dict in the released naming."""
    torch.manual_seed(0)
    model = RAHF(SMALLER).eval()
    return model, {canonical_key(name): tensor for name, tensor in model.state_dict().items()}


def test_keys_are_those_of_the_description() -> None:
    with torch.device("meta"):
        ours = {canonical_key(name) for name in RAHF(PUBLIC).state_dict()}
    t5 = {name for name in ours if name.startswith("t5.")}
    assert len(t5) == 260
    assert ours - t5 == public_keys()


def test_full_size_shapes_of_the_description() -> None:
    with torch.device("meta"):
        shapes = {canonical_key(name): tuple(t.shape) for name, t in RAHF(PUBLIC).state_dict().items()}
    assert shapes["vit.embeddings.position_embeddings"] == (1, 577, 1024)
    assert shapes["visual_token_projection.weight"] == (768, 1024)
    assert shapes["t5.shared.weight"] == shapes["t5.lm_head.weight"] == (32128, 768)
    assert shapes["t5.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] == (32, 12)
    head = "heatmap_predictor.misalignment"
    assert [shapes[f"{head}.deconv_layers.{i}.0.weight"][:2] for i in range(4)] == [
        (384, 768), (768, 384), (384, 384), (384, 192),
    ]  # fmt: skip
    assert [shapes[f"{head}.conv_layers2.{i}.3.weight"][0] for i in range(4)] == [768, 384, 384, 192]
    assert shapes[f"{head}.last_conv2.weight"] == (1, 192, 3, 3)


def test_key_names_translate_both_ways() -> None:
    for key in public_keys():
        assert canonical_key(new_naming(key)) == key
        assert installed_key(key, [new_naming(key) for key in public_keys()]) == new_naming(key)
        assert installed_key(new_naming(key), public_keys()) == key


@pytest.mark.parametrize("naming", ["old", "new"])
@torch.no_grad()
def test_both_namings_load_exactly(scaled_down: ScaledDown, tmp_path: Path, naming: str) -> None:
    model, state = scaled_down
    assert len(state) == 842
    renamed = {new_naming(key) if naming == "new" else key: tensor for key, tensor in state.items()}
    torch.save(renamed, tmp_path / "rahf_model.pt")
    folder = convert_checkpoint(tmp_path / "rahf_model.pt", tmp_path / "out", SMALLER)
    loaded = RAHF.from_pretrained(folder)
    image, targets = torch.rand(1, 3, 64, 64), torch.tensor([[5, 6, 1]])
    before, after = model(image, texts(), targets=targets), loaded(image, texts(), targets=targets)
    for (name, kept), found in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(kept, found), name
    # Where tensors lie in memory decides the order of sums.
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)
    close(before.heatmaps["implausibility"], after.heatmaps["implausibility"])
    close(before.scores["aesthetics"], after.scores["aesthetics"])
    close(before.word_logits, after.word_logits)
    assert loaded.config.noncommercial
    assert not model.config.noncommercial
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert all("vit.layers." not in key for key in load_file(folder / "model.safetensors"))


def test_every_problem_is_named(scaled_down: ScaledDown, tmp_path: Path) -> None:
    _, state = scaled_down
    broken = dict(state)
    del broken["vit.layernorm.weight"], broken["t5.decoder.final_layer_norm.weight"]
    broken["extra.weight"] = torch.zeros(2)
    broken["visual_token_projection.bias"] = torch.zeros(3)
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(CheckpointError) as error:
        convert_checkpoint(tmp_path / "broken.pt", tmp_path / "out", SMALLER)
    for words in (
        "missing vit.layernorm.weight",
        "missing t5.decoder.final_layer_norm.weight",
        "unexpected extra.weight",
        "visual_token_projection.bias has shape (3,), not (16,)",
        "2 keys missing, 1 unexpected, 1 misshaped",
    ):
        assert words in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pt"]


def test_copies_of_the_embedding_that_differ_are_refused(scaled_down: ScaledDown, tmp_path: Path) -> None:
    _, state = scaled_down
    torch.save({**state, "t5.lm_head.weight": state["t5.lm_head.weight"] + 1}, tmp_path / "untied.pt")
    with pytest.raises(CheckpointError, match=r"t5\.lm_head\.weight differs"):
        convert_checkpoint(tmp_path / "untied.pt", tmp_path / "out", SMALLER)


class Malicious:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, container: str) -> None:
    payload = {"weight": torch.zeros(2), "evil": Malicious(tmp_path / "executed")}
    path = tmp_path / "evil.pt"
    if container == "torch":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps({"evil": Malicious(tmp_path / "executed")}))
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        convert_checkpoint(path, tmp_path / "out", SMALLER)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut", [0, 10, 5000, -100])
def test_a_truncated_file_is_refused(scaled_down: ScaledDown, tmp_path: Path, cut: int) -> None:
    _, state = scaled_down
    path = tmp_path / "cut.pt"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        convert_checkpoint(path, tmp_path / "out", SMALLER)
    assert not (tmp_path / "out").exists()


def test_other_contents_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}, "epoch": 3}, tmp_path / "nested.pt")
    with pytest.raises(CheckpointError, match="plain state dict"):
        convert_checkpoint(tmp_path / "nested.pt", tmp_path / "out", SMALLER)
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"unexpected layer\.weight"):
        convert_checkpoint(tmp_path / "other.pt", tmp_path / "out", SMALLER)
    with pytest.raises(FileNotFoundError, match="absent"):
        convert_checkpoint(tmp_path / "absent.pt", tmp_path / "out", SMALLER)


def test_an_existing_folder_is_left_alone(scaled_down: ScaledDown, tmp_path: Path) -> None:
    _, state = scaled_down
    torch.save(state, tmp_path / "rahf_model.pt")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists"):
        convert_checkpoint(tmp_path / "rahf_model.pt", tmp_path / "out", SMALLER)


def test_bfloat16_halves_the_file_and_loads(scaled_down: ScaledDown, tmp_path: Path) -> None:
    _, state = scaled_down
    torch.save(state, tmp_path / "rahf_model.pt")
    folder = convert_checkpoint(tmp_path / "rahf_model.pt", tmp_path / "half", SMALLER, dtype=torch.bfloat16)
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert torch.equal(stored["t5.shared.weight"], state["t5.shared.weight"].bfloat16())
    assert RAHF.from_pretrained(folder).dtype == torch.float32
    assert RAHF.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_come_back_as_they_were_in_parts_of_a_size(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(300, 500), "b": torch.arange(7), "scalar": torch.tensor(2.5), "none": torch.zeros(0, 4),
        "turned": torch.randn(400, 600).T, "half": torch.randn(3).bfloat16(), "flag": torch.tensor([True, False]),
    }  # fmt: skip
    for most, count in ((1_700_000, 1), (1_100_000, 2)):
        folder = tmp_path / str(most)
        folder.mkdir()
        parts = write_weights(folder, tensors, metadata={"license": "mit"}, most=most)
        assert len(parts) == count
        assert max(part.stat().st_size for part in parts) <= most
        found = {name: tensor for part in parts for name, tensor in load_file(part).items()}
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
        with safe_open(parts[0], framework="pt") as file:
            assert file.metadata() == {"format": "pt", "license": "mit"}
        assert len(list(folder.iterdir())) == count + (count > 1)  # the index
    halves = load_file(write_weights(tmp_path, tensors, torch.float16)[0])
    assert torch.equal(halves["turned"], tensors["turned"].half())
    assert halves["b"].dtype == torch.int64
    with pytest.raises(ValueError, match="turned takes 960000 bytes, more than a part of 700000 holds"):
        write_weights(tmp_path, tensors, most=700_000)


def test_each_header_is_read_once_a_load(tiny_model: RAHF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parts(tiny_model, tiny_model.config, tmp_path / "parts", torch.float32, 160_000)
    opened: list[str] = []

    def counting(path: Path, *args: object, **kwargs: object) -> object:
        opened.append(Path(path).name)
        return safe_open(path, *args, **kwargs)

    for module in (checkpoints, checks):
        monkeypatch.setattr(module, "safe_open", counting)
    seen: list[str] = []
    sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event == "open" else None)
    predictor = Predictor.from_pretrained(tmp_path / "parts", "cpu")
    parts = sorted(path.name for path in (tmp_path / "parts").glob("*.safetensors"))
    assert len(parts) > 1
    assert sorted(opened) == parts
    assert not [path for path in seen if path.endswith(".safetensors")]
    assert predictor.model.config == tiny_model.config


def test_damaged_folders_say_so(tiny_model: RAHF, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path / "w")
    weights = tmp_path / "w" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        RAHF.from_pretrained(tmp_path / "w")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        RAHF.from_pretrained(tmp_path / "w")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ValueError, match="not a configuration"):
        read_config(tmp_path)


def test_configuration_survives_json(tiny_config: RAHFConfig, tmp_path: Path) -> None:
    from rahf.model.checkpoints import write_config

    write_config(tmp_path / "config.json", tiny_config)
    assert read_config(tmp_path) == tiny_config
    assert re.search(r'"heatmap_stages": \[', json.dumps(json.loads((tmp_path / "config.json").read_text())))


MEMORY = """
import sys
from pathlib import Path
import torch
from foundation.weights.state_dicts import read_state_dict
from rahf.model.checkpoints import write_weights

def private() -> int:
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) // 1024

tensors = read_state_dict(Path(sys.argv[1]))
write_weights(Path(sys.argv[2]), {"warm": torch.zeros(1)}, torch.bfloat16)  # imports what writing needs
peak = [private()]
to = torch.Tensor.to

def watched(self, *args, **kwargs):
    done = to(self, *args, **kwargs)
    peak.append(private())
    return done

torch.Tensor.to = watched
write_weights(Path(sys.argv[2]), tensors, torch.bfloat16, most=10_000_000)
print(max(peak) - peak[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's memory from /proc")
def test_conversion_holds_one_part_at_a_time(tmp_path: Path) -> None:
    """A 256 MB checkpoint of 64 tensors is mapped, not read; only the cast copies of one part are ever held."""
    torch.save({f"t{i}": torch.zeros(1 << 20) for i in range(64)}, tmp_path / "big.pt")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "big.pt"), str(tmp_path / "out")]
    grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")) > 64 * (2 << 20)
    assert int(grown) < 70  # all at once would be 128
