"""What the commands of both libraries share: devices, and mistakes told in one line."""

import inspect
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers  # noqa: F401 - its log writes for ever to what stderr is when it is first imported
import typer
from typer.testing import CliRunner

from foundation.commands.errors import message, user_errors
from foundation.commands.options import LazyCommand, LazyGroup, Names
from foundation.devices import resolve_device
from foundation.limits import Checked, Limit
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
    @user_errors
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
    assert message(missing.value) == f"{file}: no such file or directory; check the name"
    file.touch()
    with pytest.raises(OSError, match="file") as taken:
        file.mkdir()
    assert message(taken.value) == f"{file}: file exists; name another place"
    with pytest.raises(OSError, match="file") as inside:
        (file / "inside").mkdir()
    assert message(inside.value).endswith("not a directory; name a place in a folder")
    assert message(OSError("made by hand")) == "made by hand"


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
    assert len(found) >= count
    for words in found:
        result = CliRunner().invoke(library, [*words, "--help"])
        assert result.exit_code == 0, words
        assert result.output.startswith("Usage: ")


def test_brackets_in_help_are_shown() -> None:
    shown = " ".join(CliRunner().invoke(rahf, ["analyze", "--help"]).output.split())
    assert "owner/repo[@revision][/subfolder] on the Hub" in shown


def test_options_of_a_configuration_keep_their_names_and_show_their_limits() -> None:
    text = " ".join(CliRunner().invoke(rahf, ["train", "--help"]).output.split())
    assert "-o, --out" in text
    assert "--warmup, --warmup-steps" in text
    assert "Steps between saves; at least 1." in text
    assert "cosine, reciprocal_sqrt." in text
    before = """out model init grow vit t5 recognition variant blind scenes count photographs photograph-share records
        images prompts steps batch-size learning-rate warmup workers seed precision schedule tower-rate save-every
        auxiliary"""
    options = set(re.findall(r"--([\w-]+)", text))
    assert not {name for name in before.split() if name not in options}


HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "gradio", "numba", "scipy")


@pytest.mark.parametrize(
    ("source", "unwanted"),
    [
        ("from typer.testing import CliRunner as R; from gid.cli.main import app; R().invoke(app, ['--help'])", HEAVY),
        ("from typer.testing import CliRunner as R; from rahf.cli.main import app; R().invoke(app, ['--help'])", HEAVY),
        ("import gid.jobs, gid.diffusion.pipeline, gid.poking.modes", ("matplotlib", "gradio")),
        ("import rahf.predictor, rahf.folders", ("matplotlib", "gradio", "diffusers")),
    ],
)
def test_only_what_is_used_is_imported(source: str, unwanted: tuple[str, ...]) -> None:
    """Help comes at once, and no command waits for what draws figures or serves the page."""
    program = f"import sys; {source}; print([name for name in {unwanted} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_of_a_group_is_that_of_its_commands_without_importing_them() -> None:
    from gid.cli.stages import TrainGroup
    from rahf.cli.main import Commands

    for group in (TrainGroup, Commands):
        for name, target in group.stages.items():
            module, _, function = target.partition(":")
            doc = inspect.getdoc(getattr(import_module(module), function)) or ""
            stand_in = LazyCommand(name, target, {})
            assert stand_in.help == doc.partition("\n\n")[0]
    program = "import sys, typer.testing, rahf.cli.main as m; typer.testing.CliRunner().invoke(m.app, ['--help']); "
    program += "print([name for name in sys.modules if name in ('rahf.training.run', 'rahf.training.feedback')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@dataclass(frozen=True)
class Settings(Checked):
    """Made up.

    Attributes:
        out: where to.
        share: part of the whole.
        kind: which kind.
        many: several.
    """

    limits: ClassVar[Mapping[str, Limit]] = {"share": Limit(0, 1, "Half is good.", above=True)}
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("a", "b")}

    out: Path
    share: float = 0.5
    kind: str = "a"
    many: tuple[int, ...] = ()
    table: dict[str, int] = field(default_factory=dict)


def work(config: Settings) -> str:
    """Do it.

    More is not shown.
    """
    return f"{config.out} {config.share:g} {config.kind} {config.many}"


def test_a_command_is_made_from_a_configuration() -> None:
    class Group(LazyGroup):
        stages: ClassVar[Mapping[str, str]] = {"work": f"{__name__}:work"}
        option_names: ClassVar[Names] = {"out": ("--out", "-o")}

    app = typer.Typer(rich_markup_mode=None)
    app.add_typer(typer.Typer(cls=Group, rich_markup_mode=None), name="group")

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["group", "work", *arguments])

    text = " ".join(call("--help").output.split())
    for part in ("Do it.", "Part of the whole; above 0, at most 1. [default: 0.5]", "Which kind; a, b. [default: a]"):
        assert part in text
    assert "More is not shown" not in text
    assert "--table" not in text
    assert call("-o", "x", "--many", "1", "--many", "2", "--kind", "b").output == "x 0.5 b (1, 2)\n"
    assert call("--out", "x", "--share", "0").output == (
        "Error: share is 0; it must be above 0, at most 1. Half is good.\n"
    )
    assert call("--out", "x", "--kind", "c").output == "Error: kind is 'c'; it must be one of a, b.\n"
    assert call().exit_code == 2
