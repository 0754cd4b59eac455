"""What a request may name: only files that were uploaded, on every event, endpoint and component of the page."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import stat
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.tiny import photo
from tests.ui.site import PATIENT, Site
from ui import uploads
from ui.errors import explained
from ui.gate import MAX_JSON, Doorkeeper, checked

META = {"_type": "gradio.FileData"}
FILES = {"image", "file", "gallery", "video", "audio", "imageeditor", "uploadbutton", "photoinput"}
REST = {
    "animate": [None, 1, 1, True, 0, 1, 1, 128, True],
    "poke": [10, 10, 5, 5, "drag", 0.5, 0, 0, 1, 1, 0.5, 1, 0],
    "feedback": ["a red cat", 0.5, 0.5],
    "rank": ["a red cat", 1, 1, 1, 1, 0.5, 0.5],
    "repair": ["a red cat", None, "faults", 1, 1, 0],
    "checklist": ["a red cat"],
}


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture on the server that nobody sent."""
    path = tmp_path_factory.mktemp("private") / "secret.png"
    photo(seed=77).save(path)
    return path


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """A file in the cache, as an upload leaves it."""
    path = tmp_path / "own.png"
    Image.new("RGB", (64, 64), "teal").save(path)
    return uploads.stored("data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())


def forms(path: Any) -> list[Any]:
    """All the ways to name a file."""
    bare = {"path": path}
    file = {"path": path, "meta": META}
    return [
        bare,
        file,
        {**bare, "meta": {"_type": "something"}},
        {**bare, "meta": "text"},
        {**file, "is_stream": True},
        {**file, "url": "data:image/png;base64,AAAA"},
        {**bare, "url": None, "size": 3, "orig_name": "a.png", "mime_type": "image/png"},
        [bare],
        {"image": bare, "caption": None},
        [{"image": file, "caption": "x"}],
        {"video": file},
        {"background": bare, "layers": [bare], "composite": None},
        {"value": {"deeper": [[bare]]}},
    ]


def targets(secret: Path, folder: Path, kept: str) -> list[Any]:
    """Files of the server, things that are no files, and ways around."""
    pipe, cache = folder / "pipe", Path(kept).parent
    if not pipe.exists():
        os.mkfifo(pipe)
        os.mkfifo(cache / "pipe")
        os.symlink(secret, cache / "link.png")
        os.symlink("/dev/zero", cache / "endless")
    return [
        *(str(secret), "/no/such/file.png", "/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ"),
        *("/", str(folder), str(cache), str(cache.parent), str(pipe), str(cache / "pipe")),
        *(str(cache / "link.png"), str(cache / "endless"), str(cache / "gone.png")),
        *(f"{kept}/../../../{secret}", f"{cache.parent}/../../..{secret}", f"file://{secret}", "app.py", "", "\0"),
        *("a" * 5000, 7, ["x"], {"path": str(secret)}, True),
    ]


def test_only_uploads_can_be_named(secret: Path, tmp_path: Path, kept: str) -> None:
    """Same words for all, whether it exists or not; nothing is opened, or the pipes would hold this up."""
    found = 0
    for target in targets(secret, tmp_path, kept):
        for form in forms(target):
            with pytest.raises(ValueError, match=r"Send the photo again$") as refused:
                checked([1, form])
            assert str(refused.value) == uploads.NOT_SENT
            found += 1
    assert found > 300
    for form in forms(kept):
        checked([form])


def test_an_upload_is_told_as_the_server_knows_it(kept: str) -> None:
    said = {"path": kept, "url": "http://10.0.0.1/", "size": -1, "orig_name": "b" * 999, "is_stream": True}
    (file,) = checked([said])
    assert file == {
        "path": os.path.realpath(kept),
        "url": None,
        "size": None,
        "orig_name": "b" * 255,
        "mime_type": None,
        "is_stream": False,
        "meta": META,
    }


def test_large_files_are_not_opened(kept: str) -> None:
    path = Path(kept).parent / "large.png"
    with path.open("wb") as file:
        file.truncate(uploads.MAX_FILE + 2**20)
    with pytest.raises(ValueError, match="51 MB; the limit is 50"):
        checked([{"path": str(path)}])


@pytest.mark.parametrize(
    "value",
    [
        {"path": "http://127.0.0.1:1/x.png"},
        {"path": "https://example.org/x.png", "meta": META},
        {"path": None, "url": "http://169.254.169.254/latest"},
        {"url": "file:///etc/passwd"},
        {"url": 7},
    ],
)
def test_no_address_is_fetched(value: Any) -> None:
    with pytest.raises(ValueError, match="not fetched from addresses"):
        checked([value])


def test_a_picture_may_come_as_text(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (file,) = checked([{"path": None, "url": "data:image/png;base64," + base64.b64encode(data).decode()}])
    assert Path(file["path"]).read_bytes() == data
    for text, says in {
        "data:text/html;base64,AAAA": "no picture as base64",
        "data:image/svg+xml;base64,AAAA": "no picture as base64",
        "data:application/postscript;base64,AAAA": "no picture as base64",
        "data:image/../../x;base64,AAAA": "no picture as base64",
        "data:image/png,AAAA": "no picture as base64",
        "data:image/png;base64,A A?": "damaged",
    }.items():
        with pytest.raises(ValueError, match=says):
            checked([{"url": text}])


def test_requests_are_bounded() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    for value in ([deep], [[0] * 6000], [{str(key): 0 for key in range(6000)}]):
        with pytest.raises(ValueError, match="send less at once"):
            checked(value)


# -- on the live page --------------------------------------------------------------------------------------------------


def events_with_files(site: Site) -> list[tuple[int, list[dict[str, Any]]]]:
    """Every event of the page that takes a file, with the components it takes."""
    config = httpx.get(f"{site.url}config", timeout=PATIENT).json()
    parts = {part["id"]: part for part in config["components"]}
    events = [(each["id"], [parts[number] for number in each["inputs"]]) for each in config["dependencies"]]
    return [each for each in events if any(part["type"] in FILES for part in each[1])]


def test_every_event_of_the_page_refuses(site: Site, secret: Path) -> None:
    found, kinds = events_with_files(site), set()
    for number, parts in found:
        for target in (str(secret), "/no/such/file.png"):
            values = [
                {"path": target} if part["type"] in FILES - {"gallery"} else part["props"].get("value")
                for part in parts
            ]
            kinds |= {part["type"] for part in parts} & FILES
            for position, part in enumerate(parts):
                if part["type"] == "gallery":
                    values[position] = [{"image": {"path": target}, "caption": None}]
            answer = site.join(number, values) if target == str(secret) else site.direct(number, values)
            assert (answer.success, answer.error) == (False, uploads.NOT_SENT), (number, answer)
    assert len(found) >= 15
    assert {"image", "gallery", "video"} <= kinds


@pytest.mark.parametrize("name", REST)
def test_every_endpoint_refuses(site: Site, secret: Path, name: str) -> None:
    for target in (str(secret), "/no/such/file.png", "/dev/zero"):
        file = {"path": target}
        answer = site.call(name, [[file, file] if name == "rank" else file, *REST[name]])
        assert (answer.success, answer.error) == (False, uploads.NOT_SENT)
    for text in (str(secret), [str(secret), str(secret)], "text"):
        answer = site.call(name, [text, *REST[name]])
        assert not answer.success
        assert str(secret) not in str(answer)
    address = {"path": "http://127.0.0.1:1/a.png", "meta": META}
    answer = site.call(name, [[address, address] if name == "rank" else address, *REST[name]])
    assert answer.error == uploads.NO_ADDRESSES


def test_what_an_event_reports_is_looked_at_too(site: Site, whole_demo: Any, secret: Path) -> None:
    (number,) = [number for number, event in whole_demo.fns.items() if event.name == "remember"]
    (canvas,) = [block._id for block in whole_demo.blocks.values() if block.elem_id == "poke-canvas"]
    reported = {"key": "k", "photo": {"path": str(secret)}}
    answer = site.join(number, [], event_data=reported, trigger_id=canvas)
    assert answer.error == uploads.NOT_SENT


def test_an_upload_serves_until_it_is_cleared_away(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    photo(seed=5).save(path)
    sent = site.upload(path)
    assert site.call("feedback", [{"path": sent}, *REST["feedback"]]).success
    os.remove(sent)
    for name in ("feedback", "animate", "poke"):
        answer = site.call(name, [{"path": sent, "meta": META}, *REST[name]])
        assert "end the photo again" in str(answer.error)
        assert "disk" not in str(answer.error)


def test_defaults_are_filled_in_and_what_is_too_much_is_told(site: Site) -> None:
    answer = site.call("poke", [None, 10, 10])
    assert "no photo yet" in str(answer.error)
    answer = site.call("animate", [None] * 11)
    assert "11 values came; /animate takes these 10: photo, strength" in str(answer.error)
    answer = site.call("feedback", [])
    assert "0 values came; /feedback takes these 4: image, prompt" in str(answer.error)


@pytest.mark.parametrize(
    "route",
    [
        *("file=/etc/passwd", "file=app.py", "file=.git/config", "file=pyproject.toml", "file=ui/gate.py"),
        *("file=../../etc/passwd", "file=/dev/zero", "file=/proc/self/environ", "file=/tmp", "file=."),
        *("file/etc/passwd", "file=%2Fetc%2Fpasswd", "file=gid/poking/canvas/../page.py"),
        *("file=http://127.0.0.1:1/", "file=https://example.org/a.png", "file=file:///etc/passwd", "file/http://x.org"),
    ],
)
def test_no_file_of_the_server_is_served(site: Site, route: str) -> None:
    answer = httpx.get(f"{site.api}/{route}", timeout=PATIENT)
    assert answer.status_code in (403, 404)
    assert len(answer.content) < 500


def test_only_assets_are_published(site: Site) -> None:
    """The folders of the canvas and of the feedback view hold what a browser fetches, and nothing else."""
    from gid.poking.page import canvas_assets
    from ui.feedback.view import ASSETS

    known = {".js", ".css", ".html", ".vert", ".frag", ".json"}
    for folder in (canvas_assets(), ASSETS):
        found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert found
        assert {path.suffix for path in found} <= known
        assert httpx.get(f"{site.api}/file={found[0]}", timeout=PATIENT).status_code == 200
        assert httpx.get(f"{site.api}/file={folder}", timeout=PATIENT).status_code == 403


def test_the_cache_cannot_be_listed(site: Site, kept: str) -> None:
    for path in (Path(kept).parent, uploads.uploads_folder(), uploads.app_folder()):
        assert httpx.get(f"{site.api}/file={path}", timeout=PATIENT).status_code == 403
    assert stat.S_IMODE(uploads.app_folder().stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "gradio_api/deep_link?session_hash=x"),
        ("GET", "gradio_api/proxy=http://127.0.0.1:1/"),
        ("GET", "monitoring"),
        ("GET", "monitoring/summary"),
        ("POST", "gradio_api/component_server"),
        ("POST", "gradio_api/process_recording"),
        ("POST", "gradio_api/vibe-edit"),
        ("GET", "gradio_api/vibe-code"),
        ("GET", "gradio_api/runs"),
        ("GET", "gradio_api/custom_component/x/client/component/index.js"),
    ],
)
def test_routes_that_the_page_does_not_use_are_closed(site: Site, method: str, route: str) -> None:
    assert httpx.request(method, f"{site.url}{route}", timeout=PATIENT).status_code == 404


def test_large_bodies_are_refused(site: Site) -> None:
    answer = httpx.post(f"{site.api}/call/feedback", json={"data": ["x" * (MAX_JSON + 10)]}, timeout=PATIENT)
    assert answer.status_code == 413
    assert "24 MB" in answer.text


def test_uploads_are_bounded_whatever_the_header_says() -> None:
    """Against a small server behind the same door: lengths told, not told and told wrongly."""

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    async def chunks(count: int) -> Any:
        for _ in range(count):
            yield b"x" * 2**20

    async def ask() -> list[int]:
        room = uploads.Room(limit=2**40)
        routes = [Route("/gradio_api/{rest:path}", read, methods=["POST"])]
        app = Starlette(routes=routes, middleware=[Middleware(Doorkeeper, room=room)])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            small = await client.post("/gradio_api/call/x", content=chunks(20))
            large = await client.post("/gradio_api/call/x", content=chunks(26))
            told = await client.post("/gradio_api/upload", headers={"content-length": str(2**40)}, content=chunks(1))
            wrong = await client.post("/gradio_api/upload", headers={"content-length": "x"}, content=chunks(1))
            room.limit, room._looked = 1, -1e9
            full = await client.post("/gradio_api/upload", content=b"x")
        return [each.status_code for each in (small, large, told, wrong, full)]

    uploads.stored("data:image/png;base64,AAAA")  # something is in the cache
    assert asyncio.run(ask()) == [200, 413, 413, 413, 503]


# -- messages ----------------------------------------------------------------------------------------------------------


def test_only_a_full_disk_is_called_one() -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file", str(uploads.uploads_folder() / "x" / "a.png"))
    cases = {
        OSError(errno.ENOSPC, "No space left on device"): "Free some disk space",
        OSError(errno.EDQUOT, "Disk quota exceeded"): "Free some disk space",
        gone: "Send the photo again",
        OSError(errno.EIO, "Input/output error", "/srv/private"): "Try again",
        PermissionError(errno.EACCES, "Permission denied", "/srv/private"): "Try again",
    }
    for error, says in cases.items():
        with pytest.raises(gr.Error, match=says) as told, explained("It failed"):
            raise error
        assert ("disk space" in told.value.message) == ("disk space" in says)
        assert "/srv" not in told.value.message
