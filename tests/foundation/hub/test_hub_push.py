"""Publishing against a real HTTP server: what is planned, what arrives, what is loaded back, being killed midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants
from safetensors.numpy import save
from typer.testing import CliRunner, Result

from foundation.weights.cards import LICENCES, About, model_card, read_report
from foundation.weights.checks import CHECKSUMS
from foundation.weights.known import Metric
from foundation.weights.push import plan
from foundation.weights.resolver import resolve
from gid.cli.main import app as gid_app
from gid.diffusion.loading import EMBEDDED
from gid.diffusion.loading import KIND as GID
from gid.model_card import LIBRARY
from tests.foundation.hub.conftest import contents, forget_session, gid_files, rahf_files, tensors, write
from tests.foundation.hub.server import READ_TOKEN, WRITE_TOKEN, Fault, LocalHub, sha256

ROOT = Path(__file__).resolve().parents[3]
REPO = "someone/motion"
WEIGHTS = "renderer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    more = {"optimizer.pt": b"\x80\x04", "log.txt": b"", "README.md": b"# mine"}
    return write(tmp_path / "weights", {**gid_files(), **more})


@pytest.fixture
def writer(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    """The Hub, with a token that may write."""
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    return hub


def push(*arguments: object) -> Result:
    return CliRunner().invoke(gid_app, ["push", *map(str, arguments)])


# The plan.


def test_nothing_is_sent_unless_it_is_said(hub: LocalHub, folder: Path) -> None:
    before = contents(folder)
    result = push(folder, REPO, "--license", "mit")
    assert result.exit_code == 0, result.output
    assert hub.seen == []
    assert contents(folder) == before
    for name, content in gid_files().items():
        assert any(name in line and f"{len(content):,}" in line for line in result.output.splitlines())
    assert "optimizer.pt" in result.output.split("Left out")[1].splitlines()[0]
    assert "license: mit" in result.output
    assert "Nothing was sent" in result.output
    assert "--license" in push(folder, REPO).output.splitlines()[-1]


@pytest.mark.parametrize("name", ["motion", "a/b/c", "a/b@v1", "https://huggingface.co/a/b", "a/..", ""])
def test_names_to_publish_under(hub: LocalHub, folder: Path, name: str) -> None:
    result = push(folder, name, "--yes", "--license", "mit")
    assert result.exit_code == 2
    assert "owner/name" in result.output
    assert hub.seen == []


def test_only_whole_weights_with_a_licence_are_published(writer: LocalHub, folder: Path, tmp_path: Path) -> None:
    assert "--license" in push(folder, REPO, "--yes").output
    assert "no folder" in push(tmp_path / "absent", REPO, "--yes", "--license", "mit").output
    other = write(tmp_path / "other", rahf_files())
    assert "weights of rahf" in push(other, REPO, "--yes", "--license", "mit").output
    (folder / WEIGHTS).write_bytes(gid_files()[WEIGHTS][:-1])
    assert "truncated" in push(folder, REPO, "--yes", "--license", "mit").output
    assert writer.repositories == {}


def test_weights_of_another_who_states_no_licence(writer: LocalHub, tmp_path: Path) -> None:
    index = json.loads(gid_files()["model_index.json"])
    index |= {"weights_source": "theirs", "weights_license": "none stated", "notice": "All rights are their author's."}
    folder = write(tmp_path / "theirs", {**gid_files(), "model_index.json": json.dumps(index).encode()})
    shown = push(folder, REPO).output
    assert "All rights are their author's." in shown
    assert "Converted from theirs" in shown
    refused = push(folder, REPO, "--yes")
    assert refused.exit_code == 2
    assert "ask their author" in refused.output
    assert writer.repositories == {}


# There and back.


def test_what_is_published_is_what_is_loaded(writer: LocalHub, folder: Path) -> None:
    result = push(folder, REPO, "--yes", "--license", "mit", "--private")
    assert result.exit_code == 0, result.output
    repository = writer.repositories[REPO]
    assert repository.private
    commit = repository.refs["main"]
    assert f"{REPO}@{commit}" in result.output
    there = repository.commits[commit]
    assert set(there) == {*gid_files(), ".gitattributes", "README.md", CHECKSUMS}
    assert there["README.md"] != b"# mine"
    found = contents(resolve(f"{REPO}@{commit}", GID))
    assert {name: found[name] for name in gid_files()} == gid_files()
    assert json.loads(found[CHECKSUMS])["files"].keys() == gid_files().keys()
    # Made on the way, it is checked on the way back.
    writer.add(REPO, {**there, WEIGHTS: tensors(8)}, private=True)
    with pytest.raises(ValueError, match=r"checksums\.json"):
        resolve(REPO, GID)


def test_the_same_again_sends_and_changes_nothing(writer: LocalHub, folder: Path) -> None:
    assert push(folder, REPO, "--yes", "--license", "mit").exit_code == 0
    commit = writer.repositories[REPO].refs["main"]
    result = push(folder, REPO, "--yes", "--license", "mit")
    assert result.exit_code == 0, result.output
    assert writer.repositories[REPO].refs["main"] == commit
    assert len(writer.requests("PUT", "/upload/")) == 1


def test_a_new_version_replaces_the_old_one_whole(writer: LocalHub, folder: Path) -> None:
    files = gid_files()
    part = "renderer/diffusion_pytorch_model-00001-of-00001.safetensors"
    index = {"weight_map": {"weight": part.removeprefix("renderer/")}}
    old = {k: v for k, v in files.items() if k != WEIGHTS} | {part: files[WEIGHTS]}
    old[WEIGHTS + ".index.json"] = json.dumps(index).encode()
    writer.add(REPO, {**old, ".gitattributes": b"", "notes.md": b"kept"})
    assert push(folder, REPO, "--yes", "--license", "mit").exit_code == 0
    there = writer.repositories[REPO].commits[writer.repositories[REPO].refs["main"]]
    assert part not in there
    assert there["notes.md"] == b"kept"
    assert len(writer.requests("POST", "/commit/")) == 1
    assert contents(resolve(REPO, GID))[WEIGHTS] == files[WEIGHTS]


def test_other_things_are_not_overwritten(writer: LocalHub, folder: Path) -> None:
    writer.add("someone/code", {"main.py": b"print()"})
    writer.add("someone/feedback", rahf_files())
    diffusion = {"model_index.json": b'{"_class_name": "StableDiffusionPipeline"}'}
    writer.add("someone/painter", diffusion)
    for repo, message in [("code", "main.py"), ("feedback", "other things"), ("painter", "StableDiffusionPipeline")]:
        before = writer.repositories[f"someone/{repo}"].refs["main"]
        result = push(folder, f"someone/{repo}", "--yes", "--license", "mit")
        assert result.exit_code == 2
        assert message in result.output
        assert writer.repositories[f"someone/{repo}"].refs["main"] == before


@pytest.mark.parametrize(
    ("token", "message"), [("", "hf auth login"), (READ_TOKEN, "write permission"), ("hf_wrong", "hf auth login")]
)
def test_who_may_not_write_is_told(
    hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, message: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    result = push(folder, REPO, "--yes", "--license", "mit")
    assert result.exit_code == 2
    assert message in result.output
    assert hub.repositories == {}


def test_offline_and_out_of_reach(writer: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_session()
    assert "HF_HUB_OFFLINE" in push(folder, REPO, "--yes", "--license", "mit").output
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    forget_session()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "was not published" in push(folder, REPO, "--yes", "--license", "mit").output
    assert writer.seen == []


def test_a_change_in_between_is_not_overwritten(
    writer: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else commits after this repository was looked at."""
    writer.add(REPO, gid_files(4))
    from huggingface_hub import HfApi

    ours = HfApi.create_commit

    def late(self: HfApi, *args: object, **kwargs: object) -> object:
        writer.add(REPO, gid_files(5))
        return ours(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(HfApi, "create_commit", late)
    result = push(folder, REPO, "--yes", "--license", "mit")
    assert result.exit_code == 2
    assert "changed by somebody else" in result.output
    assert contents(resolve(REPO, GID)) == gid_files(5)


# Killed midway.


@pytest.mark.parametrize("version", ["first", "second"])
def test_killed_while_uploading(writer: LocalHub, tmp_path: Path, version: str) -> None:
    """Whoever loads finds what was there before: nothing, or the earlier version; then it goes on."""
    files = gid_files(count=2_000_000)
    folder = write(tmp_path / "weights", files)
    earlier = gid_files(7)
    if version == "second":
        writer.add(REPO, earlier)
    writer.faults["upload"] = Fault("hang", after=3_000_000, times=1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "GID_"))}
    ours = {"HF_ENDPOINT": writer.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": WRITE_TOKEN}
    command = [sys.executable, "-m", "gid.cli", "push", str(folder), REPO, "--yes", "--license", "mit"]
    env = {**kept, **ours, "HF_HUB_DISABLE_XET": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not writer.requests("PUT", "/upload/"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the upload did not begin"
        time.sleep(0.05)
    time.sleep(0.2)  # somewhere in the middle of the file
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sha256(files[WEIGHTS]) not in writer.objects
    if version == "first":
        with pytest.raises(ValueError, match="holds no weights of gid"):
            resolve(REPO, GID)
    else:
        assert contents(resolve(REPO, GID)) == earlier
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = contents(resolve(REPO, GID))
    assert {name: found[name] for name in files} == files


# Cards.


def test_the_card_is_what_the_hub_reads() -> None:
    metrics = (Metric("correlation", "correlation of motion energy", 0.5), Metric("leakage", "leakage", 0.25))
    about = About("my-motion", "apache-2.0", "clips", "for a day", "not for water", metrics, "seven clips", 1234567)
    text = model_card(LIBRARY, about, "me/my-motion")
    card = ModelCard(text)
    assert card.data.library_name == "gid"
    assert card.data.pipeline_tag == "image-to-video"
    assert card.data.license == "apache-2.0"
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in card.data.eval_results or []] == [
        ("correlation", 0.5, "seven clips"),
        ("leakage", 0.25, "seven clips"),
    ]
    code = text.split("```python\n")[1].split("\n```")[0].splitlines()
    assert len(code) == 3
    assert 'load_pipeline("me/my-motion")' in code[1]
    for part in ("clips", "for a day", "not for water", "1,234,567", "| leakage | 0.25 |", "apache-2.0"):
        assert part in card.text
    assert "{" not in card.text
    with pytest.raises(ValueError, match="--test-data"):
        model_card(LIBRARY, About("m", metrics=metrics), "me/m")


@pytest.mark.parametrize("licence", ["mit", "CC-BY-NC-4.0", "none stated by its author", ""])
def test_licences_in_cards(licence: str) -> None:
    text = model_card(LIBRARY, About("m", licence), "me/m")
    matter = yaml.safe_load(text.split("---")[1])
    if licence.lower() in LICENCES:
        assert matter["license"] == licence.lower()
    else:
        assert matter.get("license") == ("other" if licence else None)
        assert matter.get("license_name") == (licence or None)
    assert ("non-commercial" in text) == ("NC" in licence)
    assert "How good it is\n\nNot measured." in text


def test_reports_of_both_libraries_are_read(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    rows = [{"name": "model", "scores": {"correlation": 0.4912345678, "seam": None}}, {"name": "edges", "scores": {}}]
    report.write_text(json.dumps({"rows": rows}))
    assert read_report(report) == (Metric("correlation", "correlation", 0.491235),)
    column = {"overall plcc": {"value": 0.5, "low": 0.4, "high": 0.6}, "words f1": {"value": None}}
    report.write_text(json.dumps({"weights": column, "constant": {}}))
    assert read_report(report) == (Metric("overall_plcc", "overall plcc", 0.5),)
    for wrong in ("[]", "{}", "{", '{"rows": []}', '{"a": 3}', '{"rows": [{"scores": {"a": NaN}}]}'):
        report.write_text(wrong)
        with pytest.raises(ValueError, match="neither"):
            read_report(report)
    with pytest.raises(ValueError, match="not a file"):
        read_report(tmp_path / "absent.json")


def test_the_embedded_weights_have_a_card_of_their_own(hub: LocalHub) -> None:
    result = push("embedded", "me/motion")
    assert result.exit_code == 0, result.output
    card = ModelCard(plan(EMBEDDED, GID, "me/motion", result.output.split("--- README.md ---\n")[1]).card)
    assert card.data.license == "apache-2.0"
    assert {r.metric_type for r in card.data.eval_results or []} >= {"correlation", "leakage"}
    assert "not stated" not in card.text
    assert hub.seen == []


def test_another_persons_licence_goes_along(hub: LocalHub, tmp_path: Path) -> None:
    from rahf.cli.main import app as rahf_app

    config = json.loads(rahf_files()["config.json"])
    config |= {"weights_source": "somebody's release", "weights_license": "cc-by-nc-4.0"}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": save({})}
    folder = write(tmp_path / "weights", files)
    result = CliRunner().invoke(rahf_app, ["push", str(folder), "me/feedback"])
    assert result.exit_code == 0, result.output
    assert "license: cc-by-nc-4.0" in result.output
    assert "non-commercial" in result.output
    assert "Converted from somebody's release" in result.output
    assert "library_name: rahf" in result.output
