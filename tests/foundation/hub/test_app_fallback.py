"""The real app, started with weights that cannot be had: it serves the page with the embedded ones and says so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.foundation.hub.conftest import gid_files
from tests.foundation.hub.server import LocalHub

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 420  # seconds; a machine under load is slow, not broken


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_app_starts_without_the_weights_it_was_told(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("someone/private", gid_files(), private=True)
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "GRADIO_"))}
    ours = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    address = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    named = {"GID_WEIGHTS": "someone/private", "GID_DEVICE": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}
    log = tmp_path / "log.txt"
    with open(log, "wb") as file:
        env = {**kept, **ours, **address, **named}
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + PATIENCE
        config = ""
        while not config:
            assert app.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=30) as answer:
                    config = answer.read().decode()
            except OSError:
                continue
    finally:
        app.kill()
        app.wait()
    assert "someone/private" in config
    assert "HF_TOKEN" in config
    assert "The embedded weights answer instead." in config
    assert str(tmp_path) not in config.replace(str(tmp_path / "log.txt"), "")
    assert hub.requests("GET", "/api/models/someone/private")


def test_the_fallback_line_is_not_there_without_need() -> None:
    from app import create_demo
    from tests.tiny import tiny_pipeline
    from ui.animate.service import AnimationService

    service = AnimationService(tiny_pipeline(), "tiny")
    ids = {block.elem_id for notes in ((), ("", "")) for block in create_demo(service, notes=notes).blocks.values()}
    assert "weights-fallback" not in ids
    shown = create_demo(service, notes=("", "because")).blocks.values()
    (line,) = [block for block in shown if block.elem_id == "weights-fallback"]
    assert getattr(line, "value", "") == "because"
