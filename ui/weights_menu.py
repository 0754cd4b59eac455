"""Which weights a visitor uses: the owner's menu, and the embedded ones when others cannot be had.

One menu a library, built from the same code. A choice belongs to one visit. Only on one's own machine can names be
typed that are not on the menu: a visitor of a public page must not make the server fetch what he likes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import gradio as gr
from gradio.context import LocalContext

from foundation.weights.checks import WeightsKind
from foundation.weights.hub import Progress
from foundation.weights.resolver import EMBEDDED, resolve
from ui import zerogpu
from ui.errors import explained
from ui.memory import Recent
from ui.weights_names import asked_for, fallback_note, may_type, offered, shown

logger = logging.getLogger(__name__)

VISITS = 1000  # choices that are remembered
LOADED = 3  # services kept beside the one the app started with


class WeightsService(Protocol):
    """What is made of weights and serves a tab.

    Attributes:
        weights: their name as visitors see it.
    """

    weights: str

    @property
    def notice(self) -> str:
        """One sentence that has to stand beside results; empty if none."""

    @property
    def folder(self) -> Path:
        """Where results are written."""

    def beside(self, weights: str, device: str) -> Self:
        """The same service with other weights. Raises ValueError if they cannot be used."""

    def current(self) -> Self:
        """Itself."""


Service = TypeVar("Service", bound=WeightsService)
Load = Callable[[str, str], Service]  # name of weights, device
Chosen = TypeVar("Chosen", covariant=True)


class Choice(Protocol[Chosen]):
    """What the tabs are built on: a service, which is its own only choice, or a :class:`ChosenService`."""

    def current(self) -> Chosen:
        """The service of the visit that is going on."""


def usable(service: Service) -> Service:
    """The service, unless it says in an attribute ``problem`` why it is none: then ValueError is raised."""
    if problem := str(getattr(service, "problem", "")):
        raise ValueError(problem)
    return service


def started(load: Load[Service], name: str, device: str) -> tuple[Service, str]:
    """The service for the weights of a name; or for the embedded ones, and why, in a sentence for the page.

    A service may go on without any weights and say so itself (see :func:`usable`); it does where there are no embedded
    ones either. Raises ValueError if the embedded weights cannot be loaded.
    """
    service = None
    try:
        service = load(name, device)
        return usable(service), ""
    except ValueError as error:
        if name == EMBEDDED:
            if service is None:
                raise
            return service, ""
        problem = str(error)
    logger.warning("%s cannot be used: %s", name, problem)
    instead = load(EMBEDDED, device)
    if getattr(instead, "problem", ""):
        return service if service is not None else instead, ""
    return instead, fallback_note(name, problem)


def start_with_menu(load: Load[Service], kind: WeightsKind, device: str = "auto") -> tuple[ChosenService[Service], str]:
    """The service the app starts with, its menu around it, and a sentence for the page if it is not what was asked for.

    Raises ValueError if not even the embedded weights can be loaded.
    """
    name = asked_for(kind)
    first, said = started(load, name, device)
    return ChosenService(first, kind, device, EMBEDDED if said else name), said


class ChosenService(Generic[Service]):
    """Knows the service that each visit has chosen: :meth:`current`.

    Services are loaded once, when they are first chosen; the least recently used beyond ``LOADED`` are dropped. What is
    written to disk for the canvas lies in the folder of the first service, which stays.

    Args:
        first: what answers a visit that has chosen nothing.
        kind: the library whose weights these are.
        device: where others are loaded to.
        name: the name that ``first`` was loaded by; the one it shows unless given.
        load: how others are loaded; ``first.beside`` unless given.
    """

    def __init__(
        self,
        first: Service,
        kind: WeightsKind,
        device: str = "auto",
        name: str | None = None,
        load: Load[Service] | None = None,
    ) -> None:
        self.first = first
        self.kind = kind
        self.menu = offered(kind)
        self._first_name = name if name is not None else first.weights
        self._device = device
        self._load: Load[Service] = load or first.beside
        self._chosen: Recent[str, str] = Recent(VISITS)
        self._services: Recent[str, Service] = Recent(max(LOADED, len(self.menu)))
        self._loading = threading.Lock()
        self._closed = False
        if zerogpu.AVAILABLE:  # there models have to be in their place before the page is served
            for each in self.menu.values():
                try:
                    self._service(each)
                except ValueError as error:
                    logger.warning("%s in the menu cannot be used: %s", each, error)
            self._closed = True

    def current(self) -> Service:
        """The service of the visit that is going on."""
        name = self._chosen.get(_visit())
        if name is None:
            return self.first
        try:
            return self._service(name)
        except ValueError as error:  # it was there when it was chosen
            logger.warning("%s is gone: %s", name, error)
            return self.first

    def choose(self, label: str, progress: Progress | None = None) -> tuple[str, str]:
        """Take other weights for this visit, from the menu or by name.

        ``progress`` is called with (file, bytes so far, bytes in all) while they are fetched. Weights that cannot be
        used leave the visit with the embedded ones. Returns what the menu shows now and a note for the page: what has
        to be said beside results, or why the weights cannot be used. Raises ValueError if the embedded ones cannot be
        used either.
        """
        name = self.menu.get(label, label)
        try:
            service = self._service(name, progress)
        except ValueError as error:
            if name == EMBEDDED:
                raise
            self._service(EMBEDDED)
            label, name, note = EMBEDDED, EMBEDDED, fallback_note(name, str(error))
        else:
            note = service.notice
        self._chosen.put(_visit(), name)
        return label, note

    def _service(self, name: str, progress: Progress | None = None) -> Service:
        if name == self._first_name:
            return usable(self.first)
        known = self._services.get(name)
        if known is not None:
            return known
        with self._loading:  # two visitors who choose the same load it once
            known = self._services.get(name)
            if known is not None:
                return known
            if self._closed:
                raise ValueError(f"{shown(name)} was not there when this Space started; its owner can restart it")
            if progress is not None:
                resolve(name, self.kind, progress=progress)
            service = usable(self._load(name, self._device))
            service.weights = next((label for label, offer in self.menu.items() if offer == name), shown(name))
            self._services.put(name, service)
            return service


def build_weights_menu(choice: Choice[WeightsService], concurrency_id: str) -> gr.Dropdown | None:
    """The menu and its quiet line, where there is anything to choose.

    Other events of the tab share ``concurrency_id``: what is clicked after a choice waits until that is loaded.
    """
    if not isinstance(choice, ChosenService) or (len(choice.menu) == 1 and not may_type()):
        return None
    chosen: ChosenService[Any] = choice
    name = chosen.kind.variable.removesuffix("_WEIGHTS").lower()
    started_with = [label for label, offer in chosen.menu.items() if offer == chosen._first_name]
    menu = gr.Dropdown(
        list(chosen.menu),
        value=started_with[0] if started_with else EMBEDDED,
        label="Weights",
        info="a folder or owner/repo[@revision] on the Hub, too" if may_type() else None,
        allow_custom_value=may_type(),
        elem_id=f"{name}-weights-menu",
    )
    note = gr.Markdown(chosen.first.notice, elem_classes="quiet", elem_id=f"{name}-weights-note")

    def choose(label: str | None, progress: gr.Progress = gr.Progress()) -> tuple[str, str]:  # noqa: B008
        progress(0.01, desc="Loading the weights")

        def fetching(file: str, done: int, total: int) -> None:
            progress(done / max(total, 1), desc=f"{file}, {done / 1e6:.1f} of {total / 1e6:.1f} MB")

        with explained("There are no weights"):
            return chosen.choose((label or "").strip() or EMBEDDED, fetching)

    menu.input(
        choose, menu, [menu, note], api_visibility="private", show_progress_on=note, concurrency_id=concurrency_id
    )
    return menu


def _visit() -> str:
    """What stands for the visit whose event is handled; empty outside of one."""
    request = LocalContext.request.get(None)
    return str(getattr(request, "session_hash", None) or "")
