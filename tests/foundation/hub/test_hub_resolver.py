"""The resolver against a real HTTP server on this machine: names, the cache, who may read, and other kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir, snapshot_download

from foundation.weights.resolver import HubName, resolve
from gid.diffusion.loading import KIND as GID
from rahf.model.loading import KIND as RAHF
from tests.foundation.hub.conftest import REPO, WEIGHTS, contents, gid_files, rahf_files, says, tensors, write
from tests.foundation.hub.server import READ_TOKEN, WRITE_TOKEN, LocalHub

# Names.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/b", ("a/b", None, "")),
        ("a/b@v1.0", ("a/b", "v1.0", "")),
        ("a/b/sub/folder", ("a/b", None, "sub/folder")),
        ("a/b@v1/sub", ("a/b", "v1", "sub")),
        ("a/b@feature%2Fx/sub", ("a/b", "feature/x", "sub")),
        ("a/b@refs/pr/3", ("a/b", "refs/pr/3", "")),
        ("a/b@refs/pr/3/sub", ("a/b", "refs/pr/3", "sub")),
        ("a/b@refs/convert/x/sub/two", ("a/b", "refs/convert/x", "sub/two")),
        ("a-1/b_2.c/", ("a-1/b_2.c", None, "")),
    ],
)
def test_names_have_one_reading(text: str, parts: tuple[str, str | None, str]) -> None:
    name = HubName.parse(text)
    assert name is not None
    assert (name.repo, name.revision, name.subfolder) == parts
    assert HubName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a b/c", "/a/b", "~/a/b", "../a", "a/..", "a/b/../c", "a/b@", "a/b@..", "a/b@%2e%2e"),
        *("a/b@x%2F..%2Fy", "a/b@x%2F%2Fy", "a/b/c@v1", "a/b@v1@v2", "a\\b/c", "a//b", "a/b//c"),
        "https://huggingface.co/a/b",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    assert HubName.parse(text) is None


def test_no_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="weights '' are unknown"):
        resolve("", GID)


def test_a_folder_wins_over_a_repository(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, gid_files(1))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / REPO, gid_files(2))
    assert contents(resolve(REPO, GID)) == gid_files(2)
    assert hub.seen == []


def test_the_environment_names_the_default(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(None, GID) == GID.embedded
    for kind, files in ((GID, gid_files()), (RAHF, rahf_files())):
        folder = write(tmp_path / kind.library, files)
        monkeypatch.setenv(kind.variable, str(folder))
        assert resolve(None, kind) == folder
        monkeypatch.setenv(kind.variable, "")
    assert resolve(None, GID) == GID.embedded
    assert hub.seen == []


# The way through.


def test_only_what_belongs_to_the_weights_is_fetched(hub: LocalHub, tmp_path: Path) -> None:
    more = {
        "renderer/diffusion_pytorch_model.bin": b"\x80\x04a pickle",
        "training_state.pt": b"\x80\x04a pickle",
        "README.md": b"# Card",
        "script.py": b"raise SystemExit",
        "elsewhere/config.json": b"{}",
        "elsewhere/big.safetensors": tensors(9),
    }
    hub.add(REPO, {**gid_files(), **more})
    folder = resolve(REPO, GID)
    assert contents(folder) == gid_files()
    for path in more:
        assert not hub.requests("GET", path)


def test_the_cache_is_huggingface_hubs_own(hub: LocalHub) -> None:
    commit = hub.add(REPO, gid_files())
    folder = resolve(REPO, GID)
    (repo,) = scan_cache_dir(constants.HF_HUB_CACHE).repos
    (revision,) = repo.revisions
    assert (repo.repo_id, revision.commit_hash, revision.refs) == (REPO, commit, {"main"})
    before = len(hub.requests("GET", "/files/"))
    assert Path(snapshot_download(REPO, endpoint=hub.address, cache_dir=constants.HF_HUB_CACHE)) == folder
    assert len(hub.requests("GET", "/files/")) == before
    # And the other way round: what others have fetched is not fetched again.
    hub.add("someone/else", gid_files(5))
    snapshot_download("someone/else", endpoint=hub.address, cache_dir=constants.HF_HUB_CACHE)
    before = len(hub.seen)
    assert contents(resolve("someone/else", GID)) == gid_files(5)
    assert [seen.path for seen in hub.seen[before:]] == ["/api/models/someone/else"]


def test_revisions_and_subfolders(hub: LocalHub) -> None:
    first = hub.add(REPO, gid_files(1))
    hub.add(REPO, {f"small/{name}": content for name, content in gid_files(2).items()}, branch="feature/x")
    hub.add(REPO, gid_files(3))
    assert contents(resolve(f"{REPO}@{first}", GID)) == gid_files(1)
    assert contents(resolve(f"{REPO}@{first[:10]}", GID)) == gid_files(1)
    assert contents(resolve(f"{REPO}@feature%2Fx/small", GID)) == gid_files(2)
    assert contents(resolve(REPO, GID)) == gid_files(3)
    assert "no revision 'v9'" in says(f"{REPO}@v9", GID)
    assert "holds no weights of gid" in says(f"{REPO}/tiny", GID)


def test_a_whole_commit_in_the_cache_asks_nobody(hub: LocalHub) -> None:
    commit = hub.add(REPO, gid_files())
    folder = resolve(f"{REPO}@{commit}", GID)
    before = len(hub.seen)
    assert resolve(f"{REPO}@{commit}", GID) == folder
    assert len(hub.seen) == before


def test_a_branch_that_moved_brings_only_what_changed(hub: LocalHub) -> None:
    hub.add(REPO, gid_files(1))
    resolve(REPO, GID)
    before = len(hub.seen)
    hub.add(REPO, {**gid_files(1), "renderer/config.json": b'{"new": 1}'})
    assert json.loads((resolve(REPO, GID) / "renderer/config.json").read_bytes()) == {"new": 1}
    assert not [seen for seen in hub.seen[before:] if seen.where == "storage"]


def test_weights_in_several_files(hub: LocalHub) -> None:
    files = gid_files()
    whole = files.pop(WEIGHTS)
    parts = {
        "renderer/diffusion_pytorch_model-00001-of-00002.safetensors": whole,
        "renderer/diffusion_pytorch_model-00002-of-00002.safetensors": tensors(4),
    }
    index = {"weight_map": {str(n): name.removeprefix("renderer/") for n, name in enumerate(parts)}}
    files[WEIGHTS + ".index.json"] = json.dumps(index).encode()
    hub.add(REPO, {**files, **parts})
    assert contents(resolve(REPO, GID)) == {**files, **parts}
    second = list(parts)[1]
    hub.add(REPO, {name: content for name, content in {**files, **parts}.items() if name != second})
    assert f"lacks {second}" in says(REPO, GID)
    index["weight_map"]["9"] = "../../outside.safetensors"
    hub.add(REPO, {**files, **parts, WEIGHTS + ".index.json": json.dumps(index).encode()})
    assert "outside its folder" in says(REPO, GID)


def test_progress_counts_every_byte(hub: LocalHub) -> None:
    hub.add(REPO, gid_files())
    told: dict[str, list[tuple[int, int]]] = {}
    resolve(REPO, GID, progress=lambda file, done, total: told.setdefault(file, []).append((done, total)))
    assert {name: calls[-1] for name, calls in told.items()} == {
        name: (len(content), len(content)) for name, content in gid_files().items()
    }


# Who may read.


def test_private_repositories_need_a_token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, gid_files(), private=True)
    text = says(REPO, GID)
    assert REPO in text
    assert "private" in text
    assert "HF_TOKEN" in text
    assert contents(resolve(REPO, GID, token=READ_TOKEN)) == gid_files()
    # The token goes to the Hub and never to the storage it redirects to.
    assert all("authorization" not in seen.headers for seen in hub.seen if seen.where == "storage")
    hub.add("someone/other", gid_files(3), private=True)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert contents(resolve("someone/other", GID)) == gid_files(3)


def test_gated_repositories_say_how_to_get_in(hub: LocalHub) -> None:
    hub.add(REPO, gid_files(), gated=True)
    for token in (None, READ_TOKEN):
        text = says(REPO, GID, token)
        assert "gated" in text
        assert f"{hub.address}/{REPO}" in text
        assert "hf auth login" in text
    assert contents(resolve(REPO, GID, token=WRITE_TOKEN)) == gid_files()


def test_unknown_repositories_and_bad_tokens(hub: LocalHub) -> None:
    assert "check the name" in says("nobody/nothing", GID)
    assert "check the name" in says("nobody/nothing", GID, READ_TOKEN)
    hub.add(REPO, gid_files())
    assert "HF_TOKEN" in says(REPO, GID, "hf_expired")
    assert "no name of a Hub repository" in says("a--b/c..d", GID)


# Another kind.


def test_other_kinds_are_named(hub: LocalHub, tmp_path: Path) -> None:
    pipeline = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    diffusion = {"model_index.json": json.dumps(pipeline).encode(), "unet/model.safetensors": tensors(1)}
    transformer = {"config.json": b'{"architectures": ["ViTModel"]}', "model.safetensors": tensors(2)}
    cases = [
        (GID, diffusion, "a StableDiffusionPipeline, not weights of gid"),
        (RAHF, diffusion, "a StableDiffusionPipeline, not weights of rahf"),
        (GID, rahf_files(), "weights of rahf, not weights of gid"),
        (RAHF, gid_files(), "a GIDPipeline, not weights of rahf"),
        (RAHF, transformer, "a ViTModel of transformers, not weights of rahf"),
        (GID, {"README.md": b"#"}, "holds no weights of gid"),
        (GID, {"model_index.json": b"[1]"}, "no JSON object"),
        (RAHF, {"config.json": b"\xff\xfe"}, "no JSON object"),
        (GID, {"model_index.json": b'{"_class_name": "GIDPipeline", "..": ["gid", "X"]}'}, "no name of a folder"),
    ]
    for number, (kind, files, message) in enumerate(cases):
        hub.add(f"someone/case-{number}", files)
        assert message in says(f"someone/case-{number}", kind)
        assert message in says(write(tmp_path / str(number), files), kind)
    assert not hub.requests("GET", "/files/"), "megabytes were fetched before the kind was known"
