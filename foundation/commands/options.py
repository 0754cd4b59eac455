"""Commands whose options are the fields of a configuration dataclass, and groups that import them when they are used.

Help comes from the ``Attributes`` section of the dataclass, ranges from its table of limits, choices from its table of
choices: nothing is said twice. The module behind a command is imported when the command is run or its own help is read,
so that the help of the whole program stays quick.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from foundation.commands.errors import user_errors
from foundation.limits import Limit

# Names of an option on the command line, where they are not the field's.
Names = Mapping[str, tuple[str, ...]]


def limited(text: str, limit: Limit, *names: str, **settings: Any) -> Any:
    """An option whose help ends in the range of its value."""
    return typer.Option(*names, help=_with_range(text, limit), **settings)


def _with_range(text: str, limit: Limit | None, choices: tuple[str, ...] = ()) -> str:
    allowed = ", ".join(choice for choice in choices if choice) if choices else limit
    return text if allowed is None else f"{text.rstrip('.')}; {allowed}."


class LazyCommand(TyperCommand):
    """A command that stands for ``module:function`` in the help of its group, and becomes it when it is used."""

    def __init__(self, name: str, target: str, names: Names) -> None:
        super().__init__(name, callback=lambda: None, help=_first_line(target))
        self.target, self.option_names = target, names

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the function and let its command take over."""
        module, _, name = self.target.partition(":")
        command = configured_command(getattr(import_module(module), name), self.option_names)
        command.name = self.name
        return command.make_context(info_name, args, parent, **extra)


class LazyGroup(TyperGroup):
    """A group that has, beside commands of its own, functions named as ``module:function``."""

    stages: typing.ClassVar[Mapping[str, str]] = {}
    option_names: typing.ClassVar[Names] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The stages, and then all others."""
        return [*self.stages, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in for a stage, or a command of its own."""
        if cmd_name in self.stages:
            return LazyCommand(cmd_name, self.stages[cmd_name], self.option_names)
        return super().get_command(ctx, cmd_name)


def configured_command(function: Callable[..., Any], names: Names | None = None) -> Any:
    """A command for a function: its options are the fields of its one configuration, else its own parameters.

    Args:
        function: takes one dataclass, or plain parameters; each line of its result is printed.
        names: of options on the command line, where they are not the fields'.
    """
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
        options = _fields_of(config_class)
    else:
        described = described_in(function, "Args")
        options = [_Option(name, hints[name], p.default, described.get(name, "")) for name, p in parameters.items()]
    signature = inspect.Signature([p for option in options for p in option.parameters(names or {})])
    run.__doc__ = (inspect.getdoc(function) or "").partition("\n\n")[0]
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(user_errors(run))
    return typer.main.get_command(app)


@dataclass(frozen=True)
class _Option:
    """One option: name and type of its field, default or ``inspect.Parameter.empty``, and help."""

    name: str
    hint: Any
    default: Any
    text: str

    def parameters(self, names: Names) -> list[inspect.Parameter]:
        """The parameter that typer makes the option from; none for what cannot be given on the command line."""
        kind = _option_type(self.hint)
        required = self.default is inspect.Parameter.empty
        if kind is None and not required:
            return []
        option = typer.Option(
            *names.get(self.name, ()),
            help=self.text[:1].upper() + self.text[1:],
            show_default=not required and self.default not in (None, "", ()),
        )
        default = list(self.default) if typing.get_origin(kind) is list and not required else self.default
        keyword = inspect.Parameter.KEYWORD_ONLY
        return [inspect.Parameter(self.name, keyword, default=default, annotation=Annotated[kind, option])]


def _fields_of(config_class: Any) -> list[_Option]:
    hints = typing.get_type_hints(config_class)
    described = attribute_help(config_class)
    limits: Mapping[str, Limit] = getattr(config_class, "limits", {})
    choices: Mapping[str, tuple[str, ...]] = getattr(config_class, "choices", {})
    options = []
    for field in fields(config_class):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        options.append(
            _Option(
                field.name,
                hints[field.name],
                inspect.Parameter.empty if default is MISSING else default,
                _with_range(described.get(field.name, ""), limits.get(field.name), choices.get(field.name, ())),
            )
        )
    return options


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
    entries = {}
    for names, entry in re.findall(r"^    ([\w, ]+): (.+(?:\n {8,}.+)*)", text, re.MULTILINE):
        for name in names.split(", "):
            entries[name] = re.sub(r"\s+", " ", entry)
    return entries


def _first_line(target: str) -> str:
    """The first paragraph of the docstring of ``module:function``, read without importing the module."""
    module, _, name = target.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"there is no module {module}")
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n\n")[0]
    raise ImportError(f"{module} defines no function {name}")
