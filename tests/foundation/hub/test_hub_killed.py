"""A process killed in the middle of a download, for real, and what a later start makes of what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.foundation.hub.conftest import contents, gid_files
from tests.foundation.hub.server import READ_TOKEN, Fault, LocalHub, sha256

ROOT = Path(__file__).resolve().parents[3]
REPO = "someone/motion"
WEIGHTS = "renderer/diffusion_pytorch_model.safetensors"
CHUNK = 10 * 1024 * 1024  # huggingface_hub hands on what has arrived in pieces of this size
RESOLVE = """
import sys
from foundation.weights.resolver import resolve
from gid.diffusion.loading import KIND
try:
    print(resolve(None, KIND))
except ValueError as error:
    sys.exit(f"refused: {error}")
"""


def environment(hub: LocalHub, tmp_path: Path, **more: str) -> dict[str, str]:
    """Everything by environment variables, as a user sets them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "GID_"))}
    ours = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    ours["TQDM_POSITION"] = "-1"  # bars are shown even where there is no terminal
    return {**kept, **ours, "GID_WEIGHTS": REPO, "PYTHONDONTWRITEBYTECODE": "1", **more}


def start(env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RESOLVE]
    return subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(env: dict[str, str]) -> tuple[int, str, str]:
    process = start(env)
    out, err = process.communicate(timeout=300)
    return process.returncode, out.strip(), err


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """26 MB of weights: two and a half pieces."""
    return gid_files(count=6_500_000)


def test_killed_while_downloading(hub: LocalHub, tmp_path: Path, files: dict[str, bytes]) -> None:
    hub.add(REPO, files, private=True)
    hub.faults[WEIGHTS] = Fault("hang", after=2 * CHUNK + 12345, times=1)
    env = environment(hub, tmp_path, HF_TOKEN=READ_TOKEN)
    storage = tmp_path / "home/hub/models--someone--motion"

    process = start(env)
    deadline = time.monotonic() + 240
    while not any(partial.stat().st_size >= 2 * CHUNK for partial in storage.glob("blobs/*.incomplete")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the download did not get that far"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert not (storage / "blobs" / sha256(files[WEIGHTS])).exists()
    assert not list(storage.glob(f"snapshots/*/{WEIGHTS}"))
    assert not (storage / "refs/main").exists()

    code, _, error = finish({**env, "HF_HUB_OFFLINE": "1"})
    assert code != 0
    assert "HF_HUB_OFFLINE" in error, "what is in parts must not be taken as whole"

    code, folder, error = finish(env)
    assert code == 0, error
    assert contents(Path(folder)) == files
    assert WEIGHTS[-30:] in error, "a progress bar should name the file"

    code, again, error = finish({**env, "HF_HUB_OFFLINE": "1"})
    assert (code, again) == (0, folder), error


def test_two_processes_at_once(hub: LocalHub, tmp_path: Path, files: dict[str, bytes]) -> None:
    hub.add(REPO, files)
    hub.faults[WEIGHTS] = Fault("slow", seconds=1.0)
    env = environment(hub, tmp_path)
    both = [start(env), start(env)]
    found = {process.communicate(timeout=300)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (folder,) = found
    assert contents(Path(folder)) == files
    assert len(hub.requests("GET", "/files/")) == 1, "the second waits for the first"
