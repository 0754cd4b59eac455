"""The app as an assistant's tools: a live server and the protocol's own client."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from app import create_demo, launch
from tests.tiny import tiny_pipeline
from ui import mcp_tools
from ui.service import AnimationService


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
    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"))
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
    assert {name.split("_")[-1] for name in found} >= {"animate", "poke"}
    for tool in found.values():
        assert len(tool.description.split()) >= 5
        unexplained = [name for name, schema in tool.inputSchema["properties"].items() if not schema.get("description")]
        assert not unexplained, f"{tool.name}: {unexplained}"


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("animate", {"seconds": 1, "steps": 1, "size": 128}),
        ("poke", {"x": 40, "y": 30, "dx": 8, "dy": 0, "seconds": 1}),
    ],
)
def test_a_tool_answers_with_a_video(url: str, picture: Path, task: str, values: dict[str, Any]) -> None:
    photo = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()

    async def call(session: Any) -> Any:
        name = next(tool.name for tool in (await session.list_tools()).tools if tool.name.endswith(task))
        return await session.call_tool(name, {"photo": photo, **values})

    answer = in_session(url, call)
    assert not answer.isError, answer.content
    told = json.dumps([part.model_dump(mode="json") for part in answer.content])
    start = told.index("http://127.0.0.1")
    address = told[start : told.index(".mp4", start) + 4]
    with urllib.request.urlopen(address) as video:
        assert video.read(12)[4:8] == b"ftyp"


def test_a_mistake_is_told(url: str, picture: Path) -> None:
    photo = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()

    async def call(session: Any) -> Any:
        name = next(tool.name for tool in (await session.list_tools()).tools if tool.name.endswith("animate"))
        return await session.call_tool(name, {"photo": photo, "strength": 50})

    answer = in_session(url, call)
    assert answer.isError
    assert "50" in str(answer.content)
