"""The app as an assistant's tools: a live server and the protocol's own client."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import re
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch

from app import create_demo, launch
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.rahf.conftest import TINY
from tests.tiny import photo, tiny_pipeline
from ui import mcp_tools
from ui.animate.service import AnimationService
from ui.feedback.service import FeedbackService


def test_tools_are_offered_where_they_can_be() -> None:
    assert mcp_tools.wanted({"GRADIO_MCP_SERVER": "True"})
    assert not mcp_tools.wanted({"GRADIO_MCP_SERVER": "False"})
    try:
        able = version("mcp").startswith("1.")
    except PackageNotFoundError:
        able = False
    assert mcp_tools.wanted({}) is able


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if not mcp_tools.wanted({}):
        pytest.skip('needs pip install "gradio[mcp]"')
    torch.manual_seed(0)
    feedback = FeedbackService(Predictor(RAHF(TINY), name="tiny"), "tiny")
    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"), feedback)
    _, address, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield f"{address}gradio_api/mcp/"
    demo.close()


def in_session(url: str, work: Any) -> Any:
    """What ``work(session)`` returns in a session with the server."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def run() -> Any:
        async with streamablehttp_client(url) as (reads, writes, _), ClientSession(reads, writes) as session:
            await session.initialize()
            return await work(session)

    return asyncio.run(run())


def test_every_task_is_a_tool_with_every_parameter_explained(url: str) -> None:
    async def tools(session: Any) -> Any:
        return (await session.list_tools()).tools

    found = {tool.name: tool for tool in in_session(url, tools)}
    assert {name.split("_")[-1] for name in found} == {"animate", "poke", "feedback", "rank"}
    for tool in found.values():
        assert len(tool.description.split()) >= 5
        unexplained = [name for name, schema in tool.inputSchema["properties"].items() if not schema.get("description")]
        assert not unexplained, f"{tool.name}: {unexplained}"


def call(url: str, task: str, values: dict[str, Any]) -> Any:
    """What a tool answers."""

    async def ask(session: Any) -> Any:
        name = next(tool.name for tool in (await session.list_tools()).tools if tool.name.endswith(task))
        return await session.call_tool(name, values)

    return in_session(url, ask)


def as_data(path: Path) -> str:
    """A picture as assistants send it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def told(answer: Any) -> str:
    """All that an answer says, as text."""
    assert not answer.isError, answer.content
    return json.dumps([part.model_dump(mode="json") for part in answer.content])


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("animate", {"seconds": 1, "steps": 1, "size": 128}),
        ("poke", {"x": 40, "y": 30, "dx": 8, "dy": 0, "seconds": 1}),
    ],
)
def test_a_tool_answers_with_a_video(url: str, picture: Path, task: str, values: dict[str, Any]) -> None:
    said = told(call(url, task, {"photo": as_data(picture), **values}))
    start = said.index("http://127.0.0.1")
    address = said[start : said.index(".mp4", start) + 4]
    with urllib.request.urlopen(address) as video:
        assert video.read(12)[4:8] == b"ftyp"


def first(answer: Any) -> Any:
    """The first value that a tool gave; gradio puts several into one list and writes them as Python does."""
    assert not answer.isError, answer.content
    value = ast.literal_eval(answer.content[0].text)
    return value[0] if isinstance(value, list) else value


def test_feedback_and_a_ranking(url: str, picture: Path, tmp_path: Path) -> None:
    answer = call(url, "feedback", {"image": as_data(picture), "prompt": "a red cat"})
    found = first(answer)
    torch.manual_seed(0)
    truth = Predictor(RAHF(TINY)).predict(picture, "a red cat")
    assert found["scores"] == pytest.approx(truth.scores, abs=1e-5)
    assert [word["text"] for word in found["words"]] == ["a", "red", "cat"]
    pictures = set(re.findall(r"http://127\.0\.0\.1[^'\"\\ ]+\.(?:png|webp)", told(answer)))
    assert len(pictures) == 3, "the report and two heatmaps"
    for address in pictures:
        with urllib.request.urlopen(address) as fetched:
            assert fetched.headers["Content-Type"].startswith("image/")
    photo(80, 64, seed=3).save(tmp_path / "other.png")
    several = [as_data(picture), as_data(tmp_path / "other.png")]
    rows = ast.literal_eval(call(url, "rank", {"images": several, "prompt": "a red cat"}).content[0].text)
    rows = rows[0] if isinstance(rows[0], list) else rows
    assert [row["place"] for row in rows] == [1, 2]
    assert rows[0]["value"] >= rows[1]["value"]


def test_a_mistake_is_told(url: str, picture: Path) -> None:
    answer = call(url, "animate", {"photo": as_data(picture), "strength": 50})
    assert answer.isError
    assert "50" in str(answer.content)
    answer = call(url, "feedback", {"image": as_data(picture), "prompt": ""})
    assert answer.isError
    assert "prompt is empty" in str(answer.content)
