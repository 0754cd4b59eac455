"""ZeroGPU's rules: a forked process, pickled arguments and results, nothing shared, one borrowed GPU a click."""

from __future__ import annotations

import errno
import importlib.util
import inspect
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from urllib.request import Request, urlopen

import gradio as gr
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file

from foundation.pictures import Photo, read_photo
from gid.limits import MotionOptions, RenderOptions
from gid.poking.responses import Response
from gid.poking.simulation import Gesture
from rahf.model.config import SCORES
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.rahf.conftest import TINY
from tests.tiny import photo, tiny_pipeline
from tools.space import free_port, wait_for
from ui.animate.service import AnimationService
from ui.zerogpu import GpuCost, borrowed, gpu_seconds

ROOT = Path(__file__).resolve().parents[2]


# -- the rules, one by one ---------------------------------------------------------------------------------------------


class NamedOnlyError(Exception):
    """What is left of an exception that the platform does not know: the name of its class."""


def as_the_platform(task: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a task as ZeroGPU does: arguments pickled, in a forked process, results and ``gr.Error`` pickled back."""
    context = multiprocessing.get_context("fork")

    def work(given: bytes, connection: Any) -> None:
        def send(kind: str, value: Any) -> None:
            connection.send_bytes(pickle.dumps((kind, value)))

        args, kwargs = pickle.loads(given)
        try:
            if inspect.isgeneratorfunction(task):
                for value in task(*args, **kwargs):
                    send("value", value)
            else:
                send("value", task(*args, **kwargs))
        except gr.Error as error:
            send("error", error)
        except Exception as error:
            send("name", type(error).__name__)
        else:
            send("end", None)

    def results(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(pickle.dumps((args, kwargs)), there))
        process.start()
        try:
            while True:
                kind, value = pickle.loads(here.recv_bytes())
                if kind == "error":
                    raise value
                if kind == "name":
                    raise NamedOnlyError(value)
                if kind == "end":
                    return
                yield value
        finally:
            process.join()

    def stepwise(*args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from results(args, kwargs)

    def whole(*args: Any, **kwargs: Any) -> Any:
        return next(iter(list(results(args, kwargs))))

    return stepwise if inspect.isgeneratorfunction(task) else whole


def half(number: float) -> float:
    """A task."""
    if number < 0:
        raise ValueError(f"number is {number}; it must not be negative")
    if number == 1:
        raise OSError(errno.ENOSPC, "No space left on device")
    if number == 2:
        raise KeyError("a bug")
    return number / 2


def halves(number: float) -> Iterator[float]:
    """A task that shows what it has on the way."""
    while number > 1:
        number = half(number)
        yield number


def test_mistakes_keep_their_words_on_the_way_back() -> None:
    away = borrowed(half, as_the_platform)
    assert away(5.0) == 2.5
    with pytest.raises(ValueError, match=r"number is -1; it must not be negative"):
        away(-1)
    with pytest.raises(OSError, match="No space left") as caught:
        away(1)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(NamedOnlyError, match="KeyError"):  # a bug stays one
        away(2)
    with pytest.raises(NamedOnlyError, match="ValueError"):  # what would be shown without the wrapper
        as_the_platform(half)(-1)


def test_a_generator_stays_one() -> None:
    away = borrowed(halves, as_the_platform)
    assert inspect.isgeneratorfunction(away)
    assert list(away(12.0)) == [6.0, 3.0, 1.5, 0.75]
    steps = away(8.0)
    assert next(steps) == 4.0
    with pytest.raises(NamedOnlyError, match="KeyError"):
        list(steps)
    with pytest.raises(OSError, match="No space left"):
        list(borrowed(lambda: (yield half(1)), as_the_platform)())


def test_refusals_survive_pickling() -> None:
    from ui.zerogpu import Refused  # as it is now: another test loads the module anew

    for error in (ValueError("no"), OSError(errno.ENOSPC, "full")):
        again = pickle.loads(pickle.dumps(Refused.of(error)))
        assert isinstance(again, gr.Error)
        assert not again.print_exception
        assert type(again.original()) is type(error)
        assert str(again.original()) == str(error)


@pytest.fixture(scope="module")
def service() -> AnimationService:
    return AnimationService(tiny_pipeline(), "tiny")


def test_durations_follow_what_is_asked_for(service: AnimationService, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo(96, 64).save(path)
    volume = service.motion(str(path), MotionOptions(steps=1))
    small, large = photo_of(96, 64), photo_of(960, 640)
    asked = service.compute_seconds
    base = asked(small, None, MotionOptions(), RenderOptions(), "target", "more")
    assert base == asked(small, None, MotionOptions(), RenderOptions())
    assert asked(small, volume, MotionOptions(), RenderOptions()) <= base
    assert asked(small, None, MotionOptions(steps=250), RenderOptions()) > base
    assert asked(small, None, MotionOptions(), RenderOptions(frames=900)) > base
    assert asked(large, None, MotionOptions(), RenderOptions()) > base
    response = Response((Gesture((0.5, 0.5), (0.1, 0.0)),))
    unknown = service.respond_seconds(large, (large, MotionOptions(steps=100)), response, "target")
    assert (
        unknown > service.respond_seconds(large, volume, response) >= service.respond_seconds(small, volume, response)
    )


def photo_of(width: int, height: int) -> Photo:
    return read_photo(np.zeros((height, width, 3), np.uint8))


def test_the_margin_is_in_the_duration() -> None:
    cost = GpuCost(start=1.0, step=0.5, flops=1e9, frame=0.1, megapixel=2.0)
    # 1 + 4 (0.5 + 2) + 10 (0.1 + 0.5 * 2) = 22, times 1.4.
    assert gpu_seconds(4, 2e9, 10, 500_000, cost) == 31
    assert gpu_seconds(cost=cost) == 2


def test_no_click_of_the_page_asks_for_more_than_two_minutes(service: AnimationService) -> None:
    longest = service.compute_seconds(photo_of(1024, 1024), None, MotionOptions(steps=50), RenderOptions(600))
    assert longest <= 120


# -- all of them together: the platform's own package, with a stand-in for the machine behind it ----------------------


@dataclass
class Device:
    """The service that lends GPUs, as the platform's package talks to it."""

    borrowed: list[int] = field(default_factory=list)  # seconds asked for
    calls: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    state = Device()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlparse(self.path)
            query = parse_qs(parts.query)
            state.calls.append(parts.path + ("?failed" if query.get("fail") == ["true"] else ""))
            body = b"{}"
            if parts.path == "/schedule":
                state.borrowed.append(int(query["durationSeconds"][0]))
                grant = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
                body = json.dumps(grant).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()


@pytest.fixture(scope="module")
def space(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of the app on the platform, and where its progress is noted."""
    if importlib.util.find_spec("spaces") is None:
        pytest.skip("the platform's package is not installed; pip install -e '.[dev]' brings it")
    if sys.platform != "linux":
        pytest.skip("the platform is Linux")
    home = tmp_path_factory.mktemp("home")
    weights = tmp_path_factory.mktemp("weights")
    tiny_pipeline().save_pretrained(weights / "other")
    torch.manual_seed(0)
    RAHF(TINY).save_pretrained(weights / "small")
    (home / "cgroup").write_text("0::/space\n")
    environment = {
        **os.environ,
        "HOME": str(home),
        "GID_MENU": str(weights / "other"),
        "RAHF_MENU": f"{weights / 'small'};{weights / 'nothing'}",
        "SPACE_ID": "somebody/demo",
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": device.url,
        "ZEROGPU_OFFLOAD_DIR": str(home / "tensors"),
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(home / "cgroup"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "OMP_NUM_THREADS": "1",
    }
    port, progress = free_port(), home / "progress"
    progress.touch()
    with open(home / "log", "wb") as output:
        command = [sys.executable, "-m", "tests.ui.zerogpu_space", str(port), str(progress)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, process, home / "log", 600)
        yield url, progress
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its forked workers, too: they outlive it otherwise
        process.wait(60)


def test_each_click_borrows_one_gpu(space: tuple[str, Path], device: Device, picture: Path, tmp_path: Path) -> None:
    url, progress = space
    client = Client(url, verbose=False, download_files=str(tmp_path))
    assert device.calls == ["/startup-report"]  # decorated functions were there, and models placed, at the launch

    def click(name: str, **values: Any) -> tuple[Any, str]:
        device.borrowed.clear()
        progress.write_text("")
        answer = client.predict(photo=handle_file(picture), api_name=name, **values)
        return answer, progress.read_text()

    quick = {"seconds": 1, "steps": 2, "size": 128}
    (video, motion), told = click("/animate", **quick)
    assert Path(motion).stat().st_size > 1000
    assert Path(video["video"] if isinstance(video, dict) else video).read_bytes()[4:8] == b"ftyp"
    assert len(device.borrowed) == 1
    assert "Imagining the motion, step 2 of 2" in told
    assert "Rendering frame" in told

    # The motion came back from the worker and is remembered here: only the rendering is left.
    _, told = click("/animate", strength=0.5, **quick)
    assert len(device.borrowed) == 1
    assert "Imagining" not in told
    assert "Rendering frame" in told

    # What has been made already needs no GPU.
    click("/animate", strength=0.5, **quick)
    assert not device.borrowed

    # A pull on a photo of unknown motion: both in one call.
    _, told = click("/poke", x=40, y=30, dx=8, dy=0, seconds=1, seed=5)
    assert len(device.borrowed) == 1
    assert "Imagining the motion" in told
    assert "Rendering frame" in told
    _, told = click("/poke", x=40, y=30, dx=0, dy=8, seconds=1, seed=5)
    assert len(device.borrowed) == 1
    assert "Imagining" not in told

    # Drawing anew and judging, in one call.
    device.borrowed.clear()
    asked = {"image": handle_file(picture), "prompt": "a red cat", "candidates": 2, "rounds": 1}
    mended, told_too, _ = client.predict(**asked, api_name="/repair")
    assert len(device.borrowed) == 1
    assert Path(mended).stat().st_size > 100
    assert set(told_too["after"]) == set(SCORES)

    assert not [call for call in device.calls if call.endswith("?failed")]
    assert device.calls.count("/schedule") == device.calls.count("/release")


def choose(url: str, client: Client, menu: str, label: str) -> list[Any]:
    """Choose from a menu in the client's visit, as the page does: clients are not offered that. What comes back."""
    config = client.config
    (component,) = [part["id"] for part in config["components"] if part["props"].get("elem_id") == menu]
    (event,) = [call["id"] for call in config["dependencies"] if [component, "input"] in map(list, call["targets"])]
    body = {"data": [label], "fn_index": event, "trigger_id": component, "session_hash": client.session_hash}
    joining = Request(f"{url}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"})
    urlopen(joining, timeout=60).close()
    with urlopen(f"{url}gradio_api/queue/data?session_hash={client.session_hash}", timeout=600) as answer:
        for line in answer:
            told = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
            if told.get("msg") == "process_completed":
                assert told["success"], told
                found: list[Any] = told["output"]["data"]
                return found
    raise AssertionError("the stream ended without an answer")


def test_weights_are_chosen_without_a_gpu_and_answer_on_one(
    space: tuple[str, Path], device: Device, picture: Path, tmp_path: Path
) -> None:
    url, _ = space
    client, other = (Client(url, verbose=False, download_files=str(tmp_path / name)) for name in ("a", "b"))

    def ask(visitor: Client, prompt: str) -> dict[str, Any]:
        answer: dict[str, Any] = visitor.predict(image=handle_file(picture), prompt=prompt, api_name="/feedback")[0]
        return answer

    device.borrowed.clear()
    assert choose(url, client, "rahf-weights-menu", "small") == ["small", ""]
    assert not device.borrowed
    mine, yours = ask(client, "a red cat"), ask(other, "a red cat")
    assert (mine["model"], yours["model"]) == ("small", "embedded")
    assert len(device.borrowed) == 2
    here = Predictor.from_pretrained("embedded", "cpu").predict(picture, "a red cat")
    assert yours["scores"] == pytest.approx(here.scores, abs=1e-4)
    torch.manual_seed(0)
    small = Predictor(RAHF(TINY)).predict(picture, "a red cat")
    assert mine["scores"] == pytest.approx(small.scores, abs=1e-4)
    ask(client, "a red cat")
    assert len(device.borrowed) == 2, "what is remembered needs no GPU"
    pair = [handle_file(picture)] * 2
    rows = client.predict(images=pair, prompt="a blue cat", api_name="/rank")
    assert [row["place"] for row in rows] == [1, 2]
    assert len(device.borrowed) == 3, "one click, one GPU"

    label, note = choose(url, client, "rahf-weights-menu", "nothing")
    assert label == "embedded"
    assert "restart it" in note
    assert "The embedded weights answer instead." in note

    device.borrowed.clear()
    assert choose(url, client, "gid-weights-menu", "other") == ["other", ""]
    quick = {"photo": handle_file(picture), "seconds": 1, "steps": 1, "size": 128, "seed": 3, "api_name": "/animate"}
    for visitor in (client, other):
        assert Path(visitor.predict(**quick)[1]).stat().st_size > 1000
    assert len(device.borrowed) == 2, "each with the weights it has chosen"
    assert not [call for call in device.calls if call.endswith("?failed")]


# -- nothing touches a GPU while modules are imported -----------------------------------------------------------------


@pytest.mark.parametrize("package", ["foundation", "gid", "rahf", "ui"])
def test_importing_touches_no_gpu(package: str) -> None:
    code = f"""
import importlib, pkgutil, torch

def touched(*args, **kwargs):
    raise RuntimeError("a GPU was touched at import")

torch.cuda._lazy_init = touched
package = importlib.import_module("{package}")
for module in pkgutil.walk_packages(package.__path__, "{package}."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            if (error.name or "").split(".")[0] in ("foundation", "gid", "rahf", "ui"):
                raise
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
