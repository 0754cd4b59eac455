"""The app under load: `python benchmarks/soak.py --visitors 50 --minutes 20 --out soak.json`.

Visitors with mixed wishes ask a running `app.py` on this machine by raw HTTP, each with photos of its own: motion,
pokes, feedback, rankings, pages, and requests that must be refused. What is measured: how each wish ended and how long
it took, the server's memory and its slope, the size of its cache, and how long a page takes to load. At the end the
server is killed (SIGKILL) and started again: what it left must be gone, and the first answer must be right.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0  # seconds that a visitor waits
WISHES = {"animate": 4, "poke": 2, "feedback": 4, "rank": 1, "page": 4, "refused": 1}


@dataclass
class Record:
    """What happened, from all threads."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB
    cache: list[float] = field(default_factory=list)  # MB
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, wish: str, end: str, seconds: float, problem: str = "") -> None:
        """One wish has ended: served, told (refused or asked to come again), or lost."""
        with self.lock:
            self.ends[f"{wish}: {end}"] += 1
            if end == "served":
                self.seconds[wish].append(seconds)
            if problem:
                self.problems.append(f"{wish}: {problem[:200]}")


class Server:
    """`app.py` in a process of its own, with a home and a temporary folder that nobody else uses."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> float:
        """Start it; returns the seconds until its page answered. Raises RuntimeError if it ends before."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
        environment = {
            **kept,
            "TMPDIR": str(self.folder),
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(self.port),
            "HF_HUB_OFFLINE": "1",
        }
        begun = time.monotonic()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the app ended: {(self.folder / 'log').read_text()[-2000:]}")
            try:
                if httpx.get(self.url, timeout=10).is_success:
                    return time.monotonic() - begun
            except httpx.HTTPError:
                time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def memory(self) -> float:
        """Resident MB of the process."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def kept(self) -> float:
        """MB of all that lies in its temporary folder."""
        total = 0
        for place, _, names in os.walk(self.folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(place, name)).st_size
                except OSError:
                    continue  # it was cleared away meanwhile
        return total / 2**20


def draw(generator: np.random.Generator, side: int) -> bytes:
    """A smooth picture of some blobs as JPEG."""
    small = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


class Visitor:
    """Somebody with a wish after the other."""

    def __init__(self, server: Server, record: Record, seed: int) -> None:
        self.server, self.record = server, record
        self.choice = random.Random(seed)
        self.draw = np.random.default_rng(seed)
        self.client = httpx.Client(base_url=server.url, timeout=PATIENCE)
        self.sent: list[str] = []

    def visit(self, until: float) -> None:
        """Wishes until a time, with pauses as people make them."""
        while time.monotonic() < until:
            (wish,) = self.choice.choices(list(WISHES), list(WISHES.values()))
            begun = time.monotonic()
            try:
                end, problem = self.ask(wish)
            except httpx.HTTPError as error:
                end, problem = "lost", repr(error)
            self.record.add(wish, end, time.monotonic() - begun, problem)
            time.sleep(self.choice.uniform(0.5, 3.0))

    def ask(self, wish: str) -> tuple[str, str]:
        """How a wish ended, and what was wrong with that."""
        if wish == "page":
            pages = [self.client.get(route) for route in ("/", "/config")]
            return ("served", "") if all(page.is_success for page in pages) else ("lost", str(pages))
        if wish == "refused":
            answer = self.call("feedback", [{"path": "/etc/passwd"}, "x", 0.5, 0.5])
            return ("told", "") if answer[0] == "told" else ("lost", f"not refused: {answer}")
        if not self.sent or self.choice.random() < 0.6:
            data = draw(self.draw, self.choice.choice([256, 512, 1024]))
            upload = self.client.post("/gradio_api/upload", files={"files": (f"{secrets.token_hex(4)}.jpg", data)})
            if not upload.is_success:
                return "told", "" if upload.status_code == 503 else upload.text
            self.sent = [*self.sent[-3:], upload.json()[0]]
        file = {"path": self.choice.choice(self.sent)}
        values: dict[str, list[Any]] = {
            "animate": [file, None, 1, 1, True, self.choice.randrange(3), 4, 1, 256, True],
            "poke": [file, 60, 60, 12, 0, "drag", 0.5, 0, 0, 1, 1, 0.5, 1, 0],
            "feedback": [file, f"a red cat and {self.choice.randrange(9)} dogs", 0.25, 0.5],
            "rank": [[file, {"path": self.sent[0]}], "a red cat"],
        }
        return self.call(wish, values[wish])

    def call(self, name: str, values: list[Any]) -> tuple[str, str]:
        """Ask an endpoint and wait for its answer."""
        asked = self.client.post(f"/gradio_api/call/{name}", json={"data": values})
        if not asked.is_success:  # 503: the queue is full
            return ("told", "") if asked.status_code == 503 else ("lost", asked.text)
        text = self.client.get(f"/gradio_api/call/{name}/{asked.json()['event_id']}").text
        if "event: complete" in text:
            return "served", ""
        sentence = text.partition("event: error")[2]
        return ("told", "") if '"error": "' in sentence else ("lost", text)


def watch(server: Server, record: Record, until: float) -> None:
    """Memory, cache and a page every two seconds."""
    begun = time.monotonic()
    while time.monotonic() < until:
        asked = time.monotonic()
        try:
            end = "served" if httpx.get(server.url, timeout=PATIENCE).is_success else "lost"
        except httpx.HTTPError:
            end = "lost"
        record.add("page of the watch", end, time.monotonic() - asked)
        record.memory.append((time.monotonic() - begun, server.memory()))
        record.cache.append(server.kept())
        time.sleep(2)


def slope(points: list[tuple[float, float]]) -> float:
    """MB a minute over the second half of the time."""
    late = [point for point in points if point[0] >= points[-1][0] / 2]
    if len(late) < 3:
        return float("nan")
    times, sizes = np.array(late).T
    return float(np.polyfit(times / 60, sizes, 1)[0])


def spread(values: list[float]) -> dict[str, float]:
    """Count, median, 95th percentile and maximum."""
    ranked = sorted(values)
    return {
        "count": len(ranked),
        "median": round(statistics.median(ranked), 2),
        "p95": round(ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))], 2),
        "max": round(ranked[-1], 2),
    }


def restart(server: Server) -> dict[str, Any]:
    """Kill the server and start it again."""
    left = {path.name for path in server.folder.glob("gid-demo-*/*")}
    server.kill()
    seconds = server.start()
    visitor = Visitor(server, Record(), 1)
    end, problem = visitor.ask("feedback")
    stale = sorted(left & {path.name for path in server.folder.glob("gid-demo-*/*")})
    return {"page_after_s": round(seconds, 1), "first_answer": end, "problem": problem, "left_over": stale}


def soak(visitors: int, minutes: float, port: int) -> dict[str, Any]:
    """Run it and return the figures."""
    record = Record()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        server = Server(Path(folder), port)
        started = server.start()
        try:
            until = time.monotonic() + 60 * minutes
            threads = [threading.Thread(target=watch, args=(server, record, until))]
            threads += [
                threading.Thread(target=Visitor(server, record, seed).visit, args=(until,)) for seed in range(visitors)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            again = restart(server)
        finally:
            server.kill()
    memory = [size for _, size in record.memory]
    return {
        "visitors": visitors,
        "minutes": minutes,
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "first_page_s": round(started, 1),
        "ends": dict(sorted(record.ends.items())),
        "seconds": {wish: spread(values) for wish, values in sorted(record.seconds.items())},
        "memory_mb": {"first": round(memory[0]), "last": round(memory[-1]), "max": round(max(memory))},
        "memory_slope_mb_per_minute": round(slope(record.memory), 2),
        "cache_mb": {"first": round(record.cache[0], 1), "last": round(record.cache[-1], 1)},
        "problems": record.problems[:20],
        "killed_and_started_again": again,
    }


def main() -> None:
    """Read the options, run, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--port", type=int, default=7999)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    figures = json.dumps(soak(asked.visitors, asked.minutes, asked.port), indent=1)
    print(figures)
    if asked.out is not None:
        asked.out.write_text(figures + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
