"""The plan of the house, read from the source: which way imports go, and how many modules stand loose.

Every import counts, lazy ones and those for annotations too, and so does a module named in a string ("gid.x:function").
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"foundation": 0, "gid": 1, "rahf": 1, "ui": 2}
LOOSE = 8  # modules at the top level of a library, at most


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package goes by its own name."""
    found = {}
    for package in FLOORS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def named_in(node: ast.AST) -> list[str]:
    """The modules that a node of the source names, as far as it can be an import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isascii() and "." in node.value:
        name = node.value.partition(":")[0]
        return [name] if all(part.isidentifier() for part in name.split(".")) else []
    return []


def imports(source: str, known: set[str]) -> set[str]:
    """The known modules that a source imports: of ``a.b.c`` the longest beginning that is a module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        for name in named_in(node):
            while name and name not in known:
                name = name.rpartition(".")[0]
            # A string that happens to be the name of a package is no import of it.
            if name and not (isinstance(node, ast.Constant) and name in FLOORS):
                found.add(name)
    return found


def graph() -> dict[str, set[str]]:
    """Module -> the modules of the house that it imports."""
    files = modules()
    return {name: imports(path.read_text(encoding="utf-8"), set(files)) - {name} for name, path in files.items()}


def room_of(module: str) -> str:
    """``gid.motion.flow`` lies in ``gid.motion``; a loose module such as ``gid.jobs`` is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else module


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    least: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        order[node] = least[node] = len(order)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in order:
                visit(other)
                least[node] = min(least[node], least[other])
            elif other in stack:
                least[node] = min(least[node], order[other])
        if least[node] == order[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return found


def test_the_reader_of_imports_sees_every_kind() -> None:
    known = {"gid", "gid.a", "gid.b", "gid.c", "gid.d"}
    source = 'import gid.a.x\nfrom gid.b import y\ndef f():\n    from gid import c\n    load("gid.d:run")\n"gid"\n'
    assert imports(source, known) == {"gid.a", "gid.b", "gid.c", "gid.d"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def test_imports_go_down_only() -> None:
    upward = [
        f"{module} -> {other}"
        for module, others in graph().items()
        for other in sorted(others)
        if (own := module.split(".")[0]) != (theirs := other.split(".")[0]) and FLOORS[own] <= FLOORS[theirs]
    ]
    assert not upward


def test_libraries_do_not_know_the_page() -> None:
    named = [
        f"{name} imports gradio"
        for name, path in modules().items()
        if not name.startswith("ui")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(found.split(".")[0] == "gradio" for found in named_in(node) if not isinstance(node, ast.Constant))
    ]
    assert not named


def test_no_modules_go_in_a_circle() -> None:
    assert not circles(graph())


@pytest.mark.parametrize("package", FLOORS)
def test_no_rooms_go_in_a_circle(package: str) -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, others in graph().items():
        for other in others:
            here, there = room_of(module), room_of(other)
            if here != there and here.startswith(f"{package}.") and there.startswith(f"{package}."):
                rooms[here].add(there)
    assert not circles(rooms)


@pytest.mark.parametrize("library", ["gid", "rahf"])
def test_few_modules_stand_loose(library: str) -> None:
    loose = [path.name for path in (ROOT / library).glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= LOOSE, loose
