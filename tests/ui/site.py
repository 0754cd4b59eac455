"""The app as anybody can reach it: raw HTTP, without a client that means well."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PATIENT = 300.0  # seconds; a machine under load is slow, not broken


@dataclass(frozen=True)
class Answer:
    """How a request ended: whether with a result, its values, or the sentence of the refusal."""

    success: bool
    values: Any
    error: str | None


@dataclass(frozen=True)
class Site:
    """A running app by its address, which ends in a slash."""

    url: str

    @property
    def api(self) -> str:
        """Where gradio's routes are."""
        return f"{self.url}gradio_api"

    def upload(self, path: Path) -> str:
        """Send a file; returns the path by which the server knows it."""
        with path.open("rb") as file:
            answer = httpx.post(f"{self.api}/upload", files={"files": (path.name, file)}, timeout=PATIENT)
        answer.raise_for_status()
        return str(answer.json()[0])

    def call(self, name: str, values: list[Any]) -> Answer:
        """A documented endpoint by its simple route; NaN and infinity are sent as Python writes them."""
        asked = self._post(f"/call/{name}", {"data": values})
        if not asked.is_success:
            return Answer(False, None, asked.text)
        event = asked.json()["event_id"]
        text = httpx.get(f"{self.api}/call/{name}/{event}", timeout=PATIENT).text
        kind, _, data = text.strip().rpartition("event: ")[2].partition("\ndata: ")
        found = json.loads(data.splitlines()[0])
        return Answer(kind == "complete", found, found.get("error") if isinstance(found, dict) else None)

    def direct(self, fn_index: int, values: list[Any], **more: Any) -> Answer:
        """Any event of the page by its number, without the queue."""
        body = {"data": values, "fn_index": fn_index, "session_hash": secrets.token_hex(6), **more}
        asked = self._post("/run/predict", body)
        found = asked.json()
        return Answer(asked.is_success, found.get("data"), found.get("error"))

    def join(self, fn_index: int, values: list[Any], **more: Any) -> Answer:
        """Any event of the page by its number, as the browser sends it."""
        session = secrets.token_hex(6)
        asked = self._post("/queue/join", {"data": values, "fn_index": fn_index, "session_hash": session, **more})
        if not asked.is_success:
            return Answer(False, None, asked.text)
        with httpx.stream("GET", f"{self.api}/queue/data?session_hash={session}", timeout=PATIENT) as stream:
            for line in stream.iter_lines():
                told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if told.get("msg") == "process_completed":
                    output = told["output"]
                    return Answer(told["success"], output.get("data"), output.get("error"))
        raise AssertionError("the stream ended without an answer")

    def _post(self, route: str, body: dict[str, Any]) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return httpx.post(f"{self.api}{route}", content=json.dumps(body), headers=headers, timeout=PATIENT)
