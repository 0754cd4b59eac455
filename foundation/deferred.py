"""Packages whose own code runs only when something of it is asked for, so that importing one module stays cheap.

``diffusers.models.unets.unet_2d`` takes 0.1 seconds; the packages above it import every other network of diffusers
beside it, with peft, transformers and torch's compiler: 3 seconds more. Inside :func:`deferring` such a package is a
stand-in that knows where its modules lie. Whoever asks it for a name gets the real package, by an ordinary import.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands for a package until a name is asked of it that it was not given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked in passing, by Python's imports and by tools that go through all modules
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} yet")
        return getattr(_real(self), name)


def _real(stand_in: ModuleType) -> ModuleType:
    """Import the package in place of its stand-in; modules of it that are there already are kept."""
    name = stand_in.__name__
    if sys.modules.get(name) is stand_in:
        del sys.modules[name]
    package = importlib.import_module(name)
    _attach(package)
    for module, value in list(sys.modules.items()):
        if module.rpartition(".")[0] == name and not hasattr(package, module.rpartition(".")[2]):
            setattr(package, module.rpartition(".")[2], value)
    return package


def _attach(module: ModuleType) -> None:
    """Make a module an attribute of the package above it, as an import does."""
    above, _, leaf = module.__name__.rpartition(".")
    if above in sys.modules:
        setattr(sys.modules[above], leaf, module)


@contextmanager
def deferring(packages: Collection[str], instead: Mapping[str, Mapping[str, Any]] | None = None) -> Iterator[None]:
    """While this is open, imports below some packages do not run the packages' own code.

    Args:
        packages: by dotted names, inside an installed distribution. They stay deferred afterwards. Nothing happens to
            those that are imported already.
        instead: modules that are not imported while this is open, with what answers for them meanwhile; other names of
            them are answered by the real module, modules below them cannot be imported (ImportError; in other threads
            too, so open this early). They are gone afterwards, as if nobody had imported them.
    """
    for name in packages:
        if name not in sys.modules and (folder := _folder(name)) is not None:
            stand_in = _Deferred(name)
            stand_in.__path__ = [str(folder)]
            stand_in.__spec__ = ModuleSpec(name, None, is_package=True)
            sys.modules[name] = stand_in
    for name, answers in (instead or {}).items():
        if name not in sys.modules:
            sys.modules[name] = _Deferred(name)
            vars(sys.modules[name]).update(answers)
    try:
        yield
    finally:
        for name in packages:
            if isinstance(module := sys.modules.get(name), _Deferred):
                _attach(module)
        for name in instead or {}:
            if isinstance(sys.modules.get(name), _Deferred):
                del sys.modules[name]


def _folder(package: str) -> Path | None:
    """Where a package lies, found without importing what is above it; None where there is none."""
    root, *inner = package.split(".")
    spec = find_spec(root)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]).joinpath(*inner)
    return folder if folder.is_dir() else None
