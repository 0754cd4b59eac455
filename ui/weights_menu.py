"""Which weights a visitor uses: the owner's menu, and the embedded ones when others cannot be had.

GID_WEIGHTS names the weights the app starts with, GID_MENU more to choose from, separated by semicolons. The choice
belongs to one visit. Only on one's own machine can other names be typed: a visitor of a public page must not make the
server fetch what he likes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import gradio as gr
from gradio.context import LocalContext

from commons.hub_download import Progress
from gid.loading import resolve_weights
from ui import zerogpu
from ui.service import AnimationService, Recent

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
LOCAL_NAMES = {"", "127.0.0.1", "localhost", "::1"}
VISITS = 1000  # choices that are remembered
LOADED = 3  # services kept beside the one the app started with
Service = TypeVar("Service")


def started(load: Callable[[str, str], Service], name: str, device: str) -> tuple[Service, str]:
    """The service for the weights of a name; or for the embedded ones, and why, in a sentence for the page.

    A service may also say what is wrong in an attribute ``problem`` of its own. Raises ValueError if the embedded
    weights cannot be loaded either.
    """
    service = None
    try:
        service = load(name, device)
        problem = str(getattr(service, "problem", ""))
    except ValueError as error:
        if name == EMBEDDED:
            raise
        problem = str(error)
    else:
        if not problem or name == EMBEDDED:
            return service, ""
    logger.warning("%s cannot be used: %s", name, problem)
    instead = load(EMBEDDED, device)
    if getattr(instead, "problem", ""):
        return service if service is not None else instead, ""  # it says so itself, in its own place
    return instead, fallback_note(name, problem)


def fallback_note(name: str, problem: str) -> str:
    """What the page says when weights cannot be used; without paths of this machine."""
    said = problem.replace(str(Path(name).expanduser()), shown(name)).replace(str(Path.home()), "~")
    named = f"`{shown(name)}`"
    said = named + said.removeprefix(shown(name)) if said.startswith(shown(name)) else f"{named} cannot be used: {said}"
    return f"{said}. The embedded weights answer instead."


def shown(name: str) -> str:
    """How a name of weights is shown: visitors need no path of this machine."""
    return Path(name).name if Path(name).expanduser().is_dir() else name


def choices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The menu: what the app started with, the embedded weights, and GID_MENU."""
    named = [environment.get("GID_WEIGHTS", ""), EMBEDDED, *environment.get("GID_MENU", "").split(";")]
    return list(dict.fromkeys(name.strip() for name in named if name.strip()))


def may_type(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether other names may be typed: not on a Space, and only where nobody else can reach the page."""
    return not environment.get("SPACE_ID") and environment.get("GRADIO_SERVER_NAME", "").lower() in LOCAL_NAMES


class ChosenService:
    """Stands for the service that the visit going on has chosen, and is used like it.

    Services are loaded once, when they are first chosen; the least recently used beyond ``LOADED`` are dropped. What is
    written to disk for the canvas lies in the folder of the first service, which stays.
    """

    def __init__(
        self, first: AnimationService, device: str = "auto", load: Callable[[str, str], Any] = AnimationService.load
    ) -> None:
        self.first = first
        self._device = device
        self._load: Callable[[str, str], AnimationService] = load
        self._chosen: Recent[str, str] = Recent(VISITS)
        self._services: Recent[str, AnimationService] = Recent(max(LOADED, len(choices())))
        self._loading = threading.Lock()
        if zerogpu.AVAILABLE:  # there models have to be in their place before the page is served
            for name in choices():
                self._try(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current(), name)

    @property
    def folder(self) -> Path:
        """Where results are written."""
        return self.first.folder

    def current(self) -> AnimationService:
        """The service of the visit that is going on."""
        name = self._chosen.get(_visit())
        if name is None:
            return self.first
        try:
            return self._service(name)
        except ValueError as error:  # it was there when it was chosen
            logger.warning("%s is gone: %s", name, error)
            return self.first

    def _try(self, name: str) -> None:
        try:
            self._service(name)
        except ValueError as error:
            logger.warning("%s in the menu cannot be used: %s", name, error)

    def choose(self, name: str, progress: Progress | None = None) -> tuple[str, str]:
        """Take other weights for this visit. Returns what is in use now and a note for the page.

        ``progress`` is called with (file, bytes so far, bytes in all) while they are fetched. Weights that cannot be
        used leave the visit with the embedded ones, and the note says why.
        """
        try:
            service = self._service(name, progress)
        except ValueError as error:
            if name == EMBEDDED:
                raise
            used, note = EMBEDDED, fallback_note(name, str(error))
            self._service(EMBEDDED)
        else:
            used, note = name, service.notice
        self._chosen.put(_visit(), used)
        return used, note

    def _service(self, name: str, progress: Progress | None = None) -> AnimationService:
        with self._loading:  # two visitors who choose the same load it once
            if shown(name) == self.first.weights or name == self.first.weights:
                return self.first
            service = self._services.get(name)
            if service is None:
                if progress is not None:
                    resolve_weights(name, progress=progress)
                service = self._load(name, self._device)
                service.weights = shown(name)
                self._services.put(name, service)
            return service


def chosen_service(first: AnimationService, device: str = "auto") -> AnimationService:
    """The first service with a menu around it, for the tabs: to them it is an ``AnimationService``."""
    return cast(AnimationService, ChosenService(first, device))


def build_weights_menu(service: AnimationService) -> gr.Dropdown | None:
    """The menu and its quiet line, where there is anything to choose."""
    chosen: Any = service
    names = choices()
    if not isinstance(chosen, ChosenService) or (len(names) == 1 and not may_type()):
        return None
    menu = gr.Dropdown(
        [(shown(name), name) for name in names],
        value=chosen.first.weights if chosen.first.weights in names else EMBEDDED,
        label="Weights",
        info="a folder or owner/repo[@revision] on the Hub, too" if may_type() else None,
        allow_custom_value=may_type(),
        elem_id="weights-menu",
    )
    note = gr.Markdown(elem_classes="quiet", elem_id="weights-note")

    def choose(name: str | None, progress: gr.Progress = gr.Progress()) -> tuple[str, str]:  # noqa: B008
        progress(0.01, desc="Loading the weights")

        def fetching(file: str, done: int, total: int) -> None:
            progress(done / max(total, 1), desc=f"{file}, {done / 1e6:.1f} of {total / 1e6:.1f} MB")

        return chosen.choose((name or "").strip() or EMBEDDED, fetching)

    menu.input(choose, menu, [menu, note], api_visibility="private", show_progress_on=note, concurrency_id="animate")
    return menu


def _visit() -> str:
    """What stands for the visit whose event is handled; empty outside of one."""
    request = LocalContext.request.get(None)
    return str(getattr(request, "session_hash", None) or "")
