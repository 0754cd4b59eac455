"""The gate: whatever a request carries is looked at here, before any component or function of the page sees it.

:class:`GuardedBlocks` is the page, :class:`Doorkeeper` stands before its server. A request may name only files that
were uploaded (:mod:`ui.uploads`), nothing is fetched from an address, bodies are bounded, and the routes of gradio that
this page does not use are closed.
"""

from __future__ import annotations

import inspect
import logging
import re
from typing import Any

import anyio
import gradio as gr
from gradio.components.api_component import Api
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from ui import uploads

logger = logging.getLogger(__name__)

TITLE = "The request was refused"
DEPTH = 16  # of lists and objects in each other
VALUES = 5000  # in one request
MAX_JSON = 24 * 2**20  # bytes of a request that is no upload; about 18 MB of pictures as base64 text
MAX_UPLOAD = 256 * 2**20  # bytes of one upload, however many files it has
UPLOADS_AT_ONCE = 16
SESSIONS = 256  # visits that are remembered, a call of an endpoint is one, too; each takes about half a megabyte

# Routes of gradio that nothing of this page uses: they write or read files, run programs, or tell of other visitors.
CLOSED = re.compile(
    r"/gradio_api/(deep_link|proxy=|process_recording|component_server|monitoring|vibe-|undo-vibe|dev/|runs|run-history"
    r"|profiling|stream/|custom_component)|^/monitoring"
)
ADDRESS = re.compile(r"/gradio_api/file[=/]\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)
UPLOAD = re.compile(r"/gradio_api/upload/?$")
_UPLOAD_TOO_LARGE = f"The files together exceeded the maximum allowed size of {MAX_UPLOAD // 2**20} MB."  # gradio: 413


# -- what a request says -----------------------------------------------------------------------------------------------


def checked(value: Any) -> Any:
    """The values of a request, every file in them replaced by the same file as the server knows it.

    An object with a ``path`` or a ``url`` is a file, wherever it stands: its path has to be that of an upload; without
    a path its url has to be the picture itself as base64 text. Nothing else that it says is believed.

    Raises:
        ValueError: a file that was not uploaded, an address, or values nested too deeply or too many.
    """
    return _checked(value, DEPTH, [VALUES])


def _checked(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        raise ValueError(f"the request has more than {VALUES} values, or more than {DEPTH} levels; send less at once")
    if isinstance(value, list | tuple):
        return [_checked(item, depth - 1, left) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("path") is not None or value.get("url") is not None:
        return _file(value)
    return {str(key): _checked(item, depth - 1, left) for key, item in value.items()}


def _file(value: dict[str, Any]) -> dict[str, Any]:
    path, url = value.get("path"), value.get("url")
    if path is not None:
        real = uploads.uploaded(path)
    elif isinstance(url, str) and url.startswith("data:"):
        real = uploads.stored(url)
    else:
        raise ValueError(uploads.NO_ADDRESSES)
    name = value.get("orig_name")
    return {
        "path": real,
        "url": None,
        "size": None,
        "orig_name": name[:255] if isinstance(name, str) else None,
        "mime_type": None,
        "is_stream": False,
        "meta": {"_type": "gradio.FileData"},
    }


def completed(block_fn: Any, inputs: list[Any]) -> list[Any]:
    """The values of a typed endpoint, with the defaults of its function for what was left out at the end.

    Raises:
        ValueError: there are too many or too few.
    """
    if not block_fn.inputs or not all(isinstance(block, Api) for block in block_fn.inputs):
        return inputs
    parameters = list(inspect.signature(block_fn.fn).parameters.values())[: len(block_fn.inputs)]
    missing = parameters[len(inputs) :]
    if len(inputs) > len(parameters) or any(each.default is inspect.Parameter.empty for each in missing):
        names = ", ".join(each.name for each in parameters)
        raise ValueError(f"{len(inputs)} values came; /{block_fn.api_name} takes these {len(parameters)}: {names}")
    return [*inputs, *(each.default for each in missing)]


class GuardedBlocks(gr.Blocks):
    """The page; every request to any of its events and endpoints passes :func:`checked` first.

    Queue, direct calls and assistants' tools all come through ``process_api``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.room = uploads.Room()

    async def process_api(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> dict[str, Any]:
        """As gradio's own, with what came looked at before."""
        await anyio.to_thread.run_sync(self.room.make)
        event = options.get("event_data")
        if options.get("iterator") is None:  # later steps of a generator bring nothing new
            function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
            try:
                if not isinstance(inputs, list):
                    raise ValueError("the values of a request are a list")
                inputs = completed(function, await anyio.to_thread.run_sync(checked, inputs))
                if event is not None:
                    event._data = await anyio.to_thread.run_sync(checked, event._data)
            except (ValueError, OSError) as error:
                raise refusal(error) from error
        return await super().process_api(block_fn, inputs, *args, **options)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> list[Any]:
        """As gradio's own; what its components cannot read is a visitor's mistake, not a failure of the page."""
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **options)
        except gr.Error:
            raise
        except Exception as error:
            logger.info("a request to %s could not be read: %s", block_fn.api_name, error)
            raise gr.Error(
                "The request could not be read: a value has the wrong type. See the page's API documentation",
                title=TITLE,
                print_exception=False,
            ) from error


def refusal(error: ValueError | OSError) -> gr.Error:
    """What a visitor is told."""
    if isinstance(error, OSError) and not isinstance(error, ValueError):
        logger.error("an upload could not be kept", exc_info=error)
        return gr.Error(uploads.FULL, title=TITLE, print_exception=False)
    return gr.Error(str(error), title=TITLE, print_exception=False)


# -- what comes to the server ------------------------------------------------------------------------------------------


class Doorkeeper:
    """ASGI middleware: closes routes that are not used, bounds bodies, and refuses uploads when there is no room."""

    def __init__(self, app: Any, room: uploads.Room) -> None:
        self._app = app
        self._room = room
        self._uploads = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        if CLOSED.search(path):
            await _answer(send, 404, "Not Found")
        elif ADDRESS.search(path):
            await _answer(send, 403, uploads.NO_ADDRESSES)
        elif UPLOAD.search(path) and scope["method"] == "POST":
            await self._upload(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        else:
            await self._bounded(scope, receive, send, MAX_JSON)

    async def _upload(self, scope: Any, receive: Any, send: Any) -> None:
        if self._uploads >= UPLOADS_AT_ONCE or not await anyio.to_thread.run_sync(self._room.make):
            await _answer(send, 503, uploads.FULL)
            return
        self._uploads += 1
        try:
            await self._bounded(scope, receive, send, MAX_UPLOAD)
        finally:
            self._uploads -= 1

    async def _bounded(self, scope: Any, receive: Any, send: Any, limit: int) -> None:
        """Serve a request whose body has at most ``limit`` bytes, whatever its header says."""
        told = dict(scope["headers"]).get(b"content-length", b"0")
        message = f"The request is larger than {limit // 2**20} MB, the limit. Send less at once."
        if not told.isdigit() or int(told) > limit:
            await _answer(send, 413, message)
            return
        seen = 0

        async def counted() -> Any:
            nonlocal seen
            part = await receive()
            seen += len(part.get("body", b""))
            if seen > limit:  # the reader of uploads removes what it has written for its own kind of error
                raise HTTPException(413, message) if limit == MAX_JSON else MultiPartException(_UPLOAD_TOO_LARGE)
            return part

        await self._app(scope, counted, send)


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
