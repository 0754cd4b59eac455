"""The resolver when things go wrong: broken lines, damaged files, no network, wrong checksums."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from foundation.weights.checks import CHECKSUMS, WeightsKind, checksums
from foundation.weights.known import KnownWeights
from foundation.weights.resolver import resolve
from gid.diffusion.loading import KIND as GID
from rahf.model.loading import KIND as RAHF
from tests.foundation.hub.conftest import REPO, WEIGHTS, contents, forget_session, gid_files, says, tensors, write
from tests.foundation.hub.server import Fault, LocalHub, sha256

# What arrives.


def test_a_line_that_breaks_is_taken_up_again(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    files = gid_files(count=300_000)
    hub.add(REPO, files)
    hub.faults[WEIGHTS] = Fault("cut", after=4 * (1 << 16), times=3)
    assert contents(resolve(REPO, GID)) == files


def blob(hub: LocalHub, content: bytes, repo: str = REPO) -> Path:
    """Where the cache keeps a large file."""
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs" / sha256(content)


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


def test_a_body_that_ends_early_is_told(hub: LocalHub) -> None:
    files = gid_files(count=100_000)
    hub.add(REPO, files)
    hub.faults[WEIGHTS] = Fault("short", after=150_000, times=1)
    assert "start again" in says(REPO, GID)
    assert not blob(hub, files[WEIGHTS]).exists()
    assert contents(resolve(REPO, GID)) == files


def test_a_slow_server_is_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, gid_files())
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
    hub.faults["api"] = Fault("slow", seconds=1.0, times=1)
    assert "cannot be reached" in says(REPO, GID)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 10)
    assert contents(resolve(REPO, GID)) == gid_files()


@pytest.mark.parametrize(("status", "message"), [(503, "fault 503"), (429, "asks to wait"), (500, "fault 500")])
def test_faults_of_the_hub_are_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, status: int, message: str) -> None:
    hub.add(REPO, gid_files())
    hub.faults["api"] = Fault("status", status=status)
    assert message in says(REPO, GID)
    hub.faults["api"] = Fault("status", status=403)
    assert "permission" in says(REPO, GID)


def test_what_is_no_hub_is_told(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="cannot be reached"):
        resolve(REPO, GID, endpoint="http://127.0.0.1:9")
    hub.add(REPO, gid_files())
    monkeypatch.setattr(
        "tests.foundation.hub.server._Handler.reply_json", lambda self, value, status=200: self.reply(200, b"<p>")
    )
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
