"""`gid train STAGE` and `gid data STEP`: commands whose options are the fields of a configuration dataclass.

The module behind a stage is imported when the stage is asked for, so that `gid --help` stays quick.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foundation.commands.errors import one_sentence


class StageGroup(TyperGroup):
    """A group whose commands are functions of one configuration, named as ``module:function``."""

    stages: typing.ClassVar[dict[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The stages, in the order they are run."""
        return list(self.stages)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the stage and build its command."""
        if cmd_name not in self.stages:
            return None
        module, _, name = self.stages[cmd_name].partition(":")
        command = stage_command(getattr(import_module(module), name))
        command.name = cmd_name
        return command


class TrainGroup(StageGroup):
    """The stages of training."""

    stages: typing.ClassVar[dict[str, str]] = {
        "autoencoder": "gid.training.autoencoder:train_autoencoder",
        "envelope": "gid.training.envelope:train_envelope",
        "stillness": "gid.training.stillness:train_stillness",
        "latents": "gid.training.latents:encode_latents",
        "denoiser": "gid.training.denoiser:train_denoiser",
        "attention": "gid.training.denoiser:train_frequency_attention",
        "renderer": "gid.training.renderer:train_renderer",
        "assemble": "gid.training.assemble:assemble",
    }


class DataGroup(StageGroup):
    """What training needs before it starts."""

    stages: typing.ClassVar[dict[str, str]] = {
        "scenes": "gid.data.shards:write_shards",
        "clips": "gid.data.videos:prepare_clips",
        "prepare": "gid.training.sources:prepare_sources",
    }


def stage_command(function: Callable[..., Any]) -> Any:
    """A command for a function: its options are the fields of its one configuration, else its own parameters."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    config_class = hints[next(iter(parameters))]
    configured = len(parameters) == 1 and is_dataclass(config_class)

    def run(**options: Any) -> None:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        result = function(config_class(**values)) if configured else function(**values)
        for line in result if isinstance(result, list) else [result]:
            typer.echo(str(line))

    if configured:
        signature = _signature(_fields_of(config_class), attribute_help(config_class))
    else:
        own = [(name, hints[name], parameter.default) for name, parameter in parameters.items()]
        signature = _signature(own, described_in(function, "Args"))
    run.__doc__ = (inspect.getdoc(function) or "").partition("\n\n")[0]
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(one_sentence(run))
    return typer.main.get_command(app)


def _fields_of(config_class: type) -> list[tuple[str, Any, Any]]:
    hints = typing.get_type_hints(config_class)
    return [
        (
            field.name,
            hints[field.name],
            inspect.Parameter.empty
            if field.default is MISSING and field.default_factory is MISSING
            else field.default
            if field.default_factory is MISSING
            else field.default_factory(),
        )
        for field in fields(config_class)
    ]


def _signature(options: list[tuple[str, Any, Any]], described: dict[str, str]) -> inspect.Signature:
    parameters = []
    for name, hint, default in options:
        kind = _option_type(hint)
        if kind is None and default is not inspect.Parameter.empty:
            continue
        option = typer.Option(help=described.get(name, ""), show_default=default is not inspect.Parameter.empty)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=list(default) if typing.get_origin(kind) is list else default,
                annotation=Annotated[kind, option],
            )
        )
    return inspect.Signature(parameters)


def _option_type(hint: Any) -> Any:
    """The type of an option, or None for what cannot be given on the command line.

    A tuple of any length becomes an option that may be repeated; ``str | Path`` is a path.
    """
    plain = (str, int, float, bool, Path)
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if parts[0] not in plain:
            return None
        return list[parts[0]] if parts[1] is Ellipsis else hint  # type: ignore[valid-type]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = set(typing.get_args(hint))
        if choices == {str, Path}:
            return Path
        kinds = [_option_type(part) for part in choices - {types.NoneType}]
        return kinds[0] | None if len(kinds) == 1 and kinds[0] in plain else None
    return hint if hint in plain or typing.get_origin(hint) is typing.Literal else None


def attribute_help(config_class: type) -> dict[str, str]:
    """What the ``Attributes`` sections of a dataclass and its bases say of each field."""
    described: dict[str, str] = {}
    for owner in reversed(config_class.__mro__):
        described |= described_in(owner, "Attributes")
    return described


def described_in(owner: Any, section: str) -> dict[str, str]:
    """The entries of one section of a docstring, by name; ``width, height: ...`` describes both."""
    text = inspect.cleandoc(owner.__doc__ or "").partition(f"{section}:\n")[2]
    found = {}
    for names, entry in re.findall(r"^    ([\w, ]+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE):
        for name in names.split(", "):
            found[name] = re.sub(r"\s+", " ", entry)
    return found
