"""What the commands of both libraries share: devices, and mistakes told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from foundation.commands.errors import explained, one_sentence
from foundation.devices import resolve_device
from gid.cli.main import app as gid
from rahf.cli.main import app as rahf


def test_auto_is_the_processor_where_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device() == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "xpu", "meta", "CPU"])
def test_an_unknown_device_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"device '{name}' is unknown; use auto, cpu, cuda or mps"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device '{name}' is not available here"):
        resolve_device(name)


def test_a_gpu_beyond_the_last_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="'cuda:2' is not available here; there are 2"):
        resolve_device("cuda:2")


def run(error: Exception) -> tuple[int, str]:
    app = typer.Typer()

    @app.command()
    @one_sentence
    def fail() -> None:
        raise error

    result = CliRunner().invoke(app)
    return result.exit_code, result.stderr


def test_a_mistake_is_one_line_and_exit_code_2() -> None:
    assert run(ValueError("size is 9; use 64")) == (2, "Error: size is 9; use 64\n")


def test_what_is_no_mistake_of_the_user_keeps_its_traceback() -> None:
    assert run(KeyError("x")) == (1, "")


def test_errors_of_the_system_name_the_path_and_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(OSError, match="file") as missing:
        file.read_text()
    assert explained(missing.value) == f"{file}: no such file or directory; check the name"
    file.touch()
    with pytest.raises(OSError, match="file") as taken:
        file.mkdir()
    assert explained(taken.value) == f"{file}: file exists; name another place"
    with pytest.raises(OSError, match="file") as inside:
        (file / "inside").mkdir()
    assert explained(inside.value).endswith("not a directory; name a place in a folder")
    assert explained(OSError("made by hand")) == "made by hand"


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words that name each command and group below one."""
    if not hasattr(group, "list_commands"):
        return [path]
    context = typer.Context(group)
    below = [commands(group.get_command(context, name), (*path, name)) for name in group.list_commands(context)]
    return [path, *(words for part in below for words in part)]


@pytest.mark.parametrize(("library", "count"), [(gid, 23), (rahf, 11)])
def test_every_command_has_help(library: typer.Typer, count: int) -> None:
    found = commands(typer.main.get_command(library))
    assert len(found) == count
    for words in found:
        result = CliRunner().invoke(library, [*words, "--help"])
        assert result.exit_code == 0, words
        assert result.output.startswith("Usage: ")


def test_brackets_in_help_are_shown() -> None:
    shown = " ".join(CliRunner().invoke(rahf, ["analyze", "--help"]).output.split())
    assert "owner/repo[@revision][/subfolder] on the Hub" in shown
