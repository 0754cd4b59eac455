"""Weights by the names that visitors meet: what is offered, who may type others, what is said where they fail.

GID_WEIGHTS, RAHF_WEIGHTS and IMPROVE_WEIGHTS name the weights the app starts with, GID_MENU, RAHF_MENU and IMPROVE_MENU
more to choose from, separated by semicolons.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from foundation.weights.checks import WeightsKind
from foundation.weights.resolver import EMBEDDED

LOCAL_NAMES = {"", "127.0.0.1", "localhost", "::1"}


def asked_for(kind: WeightsKind, environment: Mapping[str, str] = os.environ) -> str:
    """The name of the weights the app starts with."""
    return environment.get(kind.variable, "").strip() or EMBEDDED


def offered(kind: WeightsKind, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The menu, from what is shown to what is loaded: what the app started with, the embedded weights, and the rest."""
    more = environment.get(kind.variable.replace("_WEIGHTS", "_MENU"), "").split(";")
    names = dict.fromkeys(name.strip() for name in (asked_for(kind, environment), EMBEDDED, *more) if name.strip())
    labels: dict[str, str] = {}
    for name in names:
        label, count = shown(name), 1
        while label in labels:  # folders of one name in different places
            count += 1
            label = f"{shown(name)} ({count})"
        labels[label] = name
    return labels


def may_type(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether other names may be typed: not on a Space, and only where nobody else can reach the page."""
    return not environment.get("SPACE_ID") and environment.get("GRADIO_SERVER_NAME", "").lower() in LOCAL_NAMES


def shown(name: str) -> str:
    """How a name of weights is shown: visitors need no path of this machine."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.is_dir() else name


def fallback_note(name: str, problem: str) -> str:
    """What the page says when weights cannot be used; without paths of this machine."""
    said = problem.replace(str(Path(name).expanduser()), shown(name)).replace(str(Path.home()), "~")
    named = f"`{shown(name)}`"
    said = named + said.removeprefix(shown(name)) if said.startswith(shown(name)) else f"{named} cannot be used: {said}"
    return f"{said}. The embedded weights answer instead."
