"""The resolver against a real HTTP server on this machine: names, cache, checks, and every way it can go wrong."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from huggingface_hub import constants, scan_cache_dir, snapshot_download

from commons.hub import HubName, resolve
from commons.hub_checks import CHECKSUMS, WeightsKind, checksums
from commons.known_weights import KnownWeights
from gid.loading import KIND as GID
from rahf.loading import KIND as RAHF
from tests.hub.conftest import contents, forget_session, gid_files, rahf_files, tensors, write
from tests.hub.server import READ_TOKEN, WRITE_TOKEN, Fault, LocalHub, sha256

REPO = "someone/motion"
WEIGHTS = "renderer/diffusion_pytorch_model.safetensors"


def says(name: str | Path, kind: WeightsKind, token: str | None = None) -> str:
    """The one sentence with which a name is refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers look at the text
        resolve(name, kind, token=token)
    text = str(caught.value)
    assert "\n" not in text
    assert not re.search(r"\. [A-Z]", text), f"more than one sentence: {text}"
    return text


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


# What arrives.


@pytest.mark.parametrize("times", [1, 3])
def test_a_line_that_breaks_is_taken_up_again(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    files = gid_files(count=300_000)
    hub.add(REPO, files)
    hub.faults[WEIGHTS] = Fault("cut", after=4 * (1 << 16), times=times)
    assert contents(resolve(REPO, GID)) == files
    ranges = [seen.headers.get("range") for seen in hub.requests("GET", "/files/")]
    assert ranges == [None, *(f"bytes={(1 + n) * (4 << 16)}-" for n in range(times))]


def test_a_server_that_ignores_the_range_does_no_harm(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    files = gid_files(count=100_000)
    commit = hub.add(REPO, files)
    partial = blob(hub, files[WEIGHTS]).with_suffix(".incomplete")
    write(partial.parent, {partial.name: files[WEIGHTS][:100_000]})
    hub.faults[WEIGHTS] = Fault("whole", times=1)
    assert contents(resolve(f"{REPO}@{commit}", GID)) == files


def blob(hub: LocalHub, content: bytes, repo: str = REPO) -> Path:
    """Where the cache keeps a large file."""
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs" / sha256(content)


def test_a_damaged_beginning_is_thrown_away(hub: LocalHub) -> None:
    files = gid_files(count=100_000)
    hub.add(REPO, files)
    partial = blob(hub, files[WEIGHTS]).with_suffix(".incomplete")
    for left in (b"\0" * 100_000, b"\0" * len(files[WEIGHTS]), b"\0" * (len(files[WEIGHTS]) + 5)):
        write(partial.parent, {partial.name: left})
        assert contents(resolve(REPO, GID)) == files
        assert not partial.exists()
        blob(hub, files[WEIGHTS]).unlink()


def test_a_corrupt_file_never_enters_the_cache(hub: LocalHub) -> None:
    hub.add(REPO, gid_files())
    hub.faults[WEIGHTS] = Fault("corrupt")
    assert "damaged twice" in says(REPO, GID)
    assert not blob(hub, gid_files()[WEIGHTS]).exists()
    assert "damaged twice" in says(REPO, GID)
    hub.faults[WEIGHTS] = Fault("corrupt", times=1)
    assert contents(resolve(REPO, GID)) == gid_files()


def test_small_files_are_checked_too(hub: LocalHub) -> None:
    hub.add(REPO, gid_files())
    hub.faults["renderer/config.json"] = Fault("corrupt")
    assert "renderer/config.json" in says(REPO, GID)


def test_a_body_that_ends_early_is_gone_on_with(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commons.hub_download.PAUSE", 0)
    files = gid_files(count=100_000)
    hub.add(REPO, files)
    hub.faults[WEIGHTS] = Fault("short", after=0)
    assert "what has arrived is kept" in says(REPO, GID)
    assert not blob(hub, files[WEIGHTS]).exists()
    hub.faults[WEIGHTS] = Fault("short", after=150_000)
    assert contents(resolve(REPO, GID)) == files
    ranges = [seen.headers.get("range") for seen in hub.requests("GET", "/files/")]
    assert ranges == [None, None, "bytes=150000-", "bytes=300000-"]


def test_a_slow_server_is_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, gid_files())
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    monkeypatch.setattr("commons.hub_download.PAUSE", 0)
    hub.faults["api"] = Fault("slow", seconds=1.0, times=3)
    assert "cannot be reached" in says(REPO, GID)
    assert len(hub.requests("GET", "/api/")) == 3
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 10)
    hub.faults["api"] = Fault("status", status=503, times=2)
    assert contents(resolve(REPO, GID)) == gid_files()


@pytest.mark.parametrize(("status", "message"), [(503, "fault 503"), (429, "asks to wait"), (500, "fault 500")])
def test_faults_of_the_hub_are_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    monkeypatch.setattr("commons.hub_download.PAUSE", 0)
    hub.add(REPO, gid_files())
    hub.faults["api"] = Fault("status", status=status)
    assert message in says(REPO, GID)
    hub.faults["api"] = Fault("status", status=403)
    assert "permission" in says(REPO, GID)


def test_what_is_no_hub_is_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commons.hub_download.PAUSE", 0)
    with pytest.raises(ValueError, match="cannot be reached"):
        resolve(REPO, GID, endpoint="http://127.0.0.1:9")
    hub.add(REPO, gid_files())
    monkeypatch.setattr("tests.hub.server._Handler.reply_json", lambda self, value, status=200: self.reply(200, b"<p>"))
    assert "does not answer like a Hub" in says(REPO, GID)


# Without a network.


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_session()


def test_offline_takes_the_cache_or_says_what_to_do(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, gid_files())
    folder = resolve(REPO, GID)
    before = len(hub.seen)
    offline(monkeypatch)
    assert resolve(REPO, GID) == folder
    text = says("someone/else", GID)
    assert "HF_HUB_OFFLINE" in text
    assert "hf download someone/else" in text
    assert "HF_HUB_OFFLINE" in says(f"{REPO}@v2", GID)
    assert len(hub.seen) == before


def test_a_hub_out_of_order_takes_the_cache(hub: LocalHub) -> None:
    hub.add(REPO, gid_files())
    folder = resolve(REPO, GID)
    for fault in (Fault("status", status=503), Fault("status", status=401)):
        hub.faults["api"] = fault
        assert resolve(REPO, GID) == folder
    assert len(hub.requests("GET", "/api/")) == 3


def test_offline_never_takes_a_snapshot_in_parts(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(REPO, gid_files(1))
    folder = resolve(REPO, GID)
    newer = hub.add(REPO, gid_files(2))
    hub.faults[WEIGHTS] = Fault("corrupt")
    assert "damaged" in says(REPO, GID)
    assert (folder.parent / newer / "model_index.json").is_file(), "the newer commit should be there in parts"
    offline(monkeypatch)
    assert resolve(REPO, GID) == folder == folder.parent / commit
    assert "HF_HUB_OFFLINE" in says(f"{REPO}@{newer}", GID)
    assert resolve(f"{REPO}@{commit}", GID) == folder


@pytest.mark.parametrize("damage", ["truncate", "turn", "remove"])
def test_a_damaged_cache_is_not_trusted_and_mended(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    hub.add(REPO, gid_files())
    folder = resolve(REPO, GID)
    victim = (folder / WEIGHTS).resolve()
    content = victim.read_bytes()
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(content[:-1] + (b"" if damage == "truncate" else bytes([content[-1] ^ 1])))
    with monkeypatch.context() as context:
        offline(context)
        assert "HF_HUB_OFFLINE" in says(REPO, GID)
    forget_session()
    assert contents(resolve(REPO, GID)) == gid_files()


def test_a_cache_without_links_is_checked_too(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.are_symlinks_supported", lambda *args: False)
    files = {**gid_files()}
    hub.add(REPO, files)
    folder = resolve(REPO, GID)
    assert not (folder / WEIGHTS).is_symlink()
    (folder / WEIGHTS).write_bytes(tensors(77))
    assert contents(resolve(REPO, GID)) == files


def test_a_cache_that_cannot_be_written_is_told(hub: LocalHub, tmp_path: Path) -> None:
    hub.add(REPO, gid_files())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"someone/motion"):
        resolve(REPO, GID, cache=tmp_path / "file")


# Checksums.


def test_published_checksums_are_compared(hub: LocalHub, tmp_path: Path) -> None:
    folder = write(tmp_path / "weights", gid_files())
    listed = checksums((name, folder / name) for name in gid_files())
    assert listed["files"][WEIGHTS] == {"sha256": sha256(gid_files()[WEIGHTS]), "bytes": len(gid_files()[WEIGHTS])}
    write(folder, {CHECKSUMS: json.dumps(listed).encode()})
    assert resolve(folder, GID) == folder
    hub.add(REPO, contents(folder))
    assert contents(resolve(REPO, GID)) == contents(folder)
    write(folder, {WEIGHTS: tensors(9)})
    assert "checksums.json" in says(folder, GID)
    hub.add(REPO, contents(folder))
    assert "checksums.json" in says(REPO, GID)
    (folder / WEIGHTS).unlink()
    assert WEIGHTS in says(folder, GID)
    write(folder, {CHECKSUMS: b'{"files": {"../../etc/passwd": {"sha256": ""}}}', WEIGHTS: tensors(0)})
    assert "outside its folder" in says(folder, GID)


def test_known_weights_are_pinned_and_compared(hub: LocalHub) -> None:
    first = hub.add(REPO, gid_files(1))
    hub.add(REPO, gid_files(2))

    def known(digest: str) -> list[KnownWeights]:
        return [KnownWeights("m", "gid", "w", "here", repo=REPO, revision=first, files={WEIGHTS: digest})]

    right = known(sha256(gid_files(1)[WEIGHTS]))
    assert contents(resolve(REPO, GID, known=right)) == gid_files(1)
    assert contents(resolve(f"{REPO}@main", GID, known=right)) == gid_files(2)
    with pytest.raises(ValueError, match=r"weights\.md"):
        resolve(REPO, GID, known=known("0" * 64))
    with pytest.raises(ValueError, match="its sha256 differs"):
        resolve(f"{REPO}@{first}", GID, known=known("0" * 64))


# Folders.


def test_damaged_folders_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "weights", gid_files())
    assert resolve(folder, GID) == folder
    for path, content, message in [
        (WEIGHTS, gid_files()[WEIGHTS][:100], "truncated"),
        (WEIGHTS, gid_files()[WEIGHTS] + b"more", "truncated"),
        (WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "no safetensors file"),
        (WEIGHTS, b"", "no safetensors file"),
        (WEIGHTS, b"\x08\0\0\0\0\0\0\0[[[[[[[[", "no safetensors file"),
        ("renderer/config.json", b"{", "no JSON object"),
    ]:
        write(folder, {path: content})
        text = says(folder, GID)
        assert message in text
        assert path in text.replace(os.sep, "/")
        write(folder, gid_files())
    (folder / "scheduler/scheduler_config.json").unlink()
    assert "scheduler/scheduler_config.json is missing" in says(folder, GID)
    assert "neither a folder nor a Hub repository" in says(tmp_path / "absent", GID)


def test_a_package_without_embedded_weights_says_so(tmp_path: Path) -> None:
    bare = WeightsKind("rahf", "RAHF_WEIGHTS", tmp_path, "config.json", RAHF.made_by, RAHF.layout)
    assert "no embedded weights" in says("embedded", bare)
