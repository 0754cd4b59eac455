"""What the benchmarks share: time, memory, and results as a table, JSON and a plot.

Times are given twice. Wall-clock time is what a visitor waits; processor time (of all threads) hardly changes with what
else the machine does, so ratios of it are the steadier ones on a busy machine. Peak memory is measured in a process of
its own, since a process never shrinks.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run as a script, from anywhere
    sys.path.insert(0, str(ROOT))

logger = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Timing:
    """Least wall-clock and processor milliseconds of some runs."""

    wall_ms: float
    processor_ms: float

    def over(self, other: Timing) -> float:
        """How many times as long as another, in wall-clock time."""
        return self.wall_ms / other.wall_ms


def measure(work: Callable[[], object], repeats: int = 7, warm: bool = True) -> Timing:
    """Run something several times (once more before, to warm up) and keep the least times."""
    if warm:
        work()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return Timing(1000 * min(walls), 1000 * min(processors))


def peak_mb() -> float:
    """The most memory this process ever held, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux ru_maxrss begins with what the starting process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _report_peak(connection: Any, work: Callable[..., object], arguments: tuple[Any, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    before = peak_mb()
    work(*arguments)
    connection.send((before, peak_mb()))


def peak_of(work: Callable[..., object], *arguments: Any) -> tuple[float, float]:
    """Peak memory in MB of a fresh process before and after ``work(*arguments)``, a function of a module."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report_peak, args=(theirs, work, arguments, torch.get_num_threads()))
    process.start()
    theirs.close()
    try:
        before, after = ours.recv()
    except EOFError as error:
        raise SystemExit(f"{work.__name__}{arguments} failed in its process; see the error above") from error
    finally:
        process.join()
    return before, after


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options of every benchmark: where JSON and plot go, and how many threads."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--out", type=Path, default=Path("benchmark-results"), help="folder for the JSON and the plot")
    result.add_argument("--threads", type=int, help="torch threads (default: what torch chooses)")
    return result


def start(options: argparse.Namespace) -> None:
    """Set logging and threads, and make the folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for name in ("httpx", "matplotlib", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    found: dict[str, Any] = {"processor": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if hasattr(torch.cpu, "_is_avx512_bf16_supported"):
        found["bfloat16"] = bool(torch.cpu._is_avx512_bf16_supported())
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    if not rows:
        return ""
    names = list(rows[0])
    texts = [[_text(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(text[i]) for text in texts)) for i, name in enumerate(names)]
    lines = [[name.ljust(width) for name, width in zip(names, widths, strict=True)]]
    lines += [["-" * width for width in widths]]
    lines += [[cell.rjust(width) for cell, width in zip(text, widths, strict=True)] for text in texts]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


def save(options: argparse.Namespace, name: str, record: dict[str, Any]) -> Path:
    """Write ``name.json`` with the machine's description added."""
    from foundation.files import write_text

    path: Path = options.out / f"{name}.json"
    write_text(path, json.dumps({"machine": machine(), **record}, indent=1) + "\n")
    logger.info("\nwritten: %s", path)
    return path


@dataclass(frozen=True)
class Panel:
    """One plot: curves by name as (x, y) points; ``log`` for both axes; ``line`` draws y ~ x through the last point."""

    title: str
    x: str
    y: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    log: bool = False
    line: bool = False


def plot(options: argparse.Namespace, name: str, panels: Sequence[Panel]) -> Path:
    """Draw panels side by side into ``name.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.2 * len(panels), 4), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for label, points in panel.curves.items():
            xs, ys = zip(*sorted(points), strict=True)
            (drawn,) = axis.plot(xs, ys, "o-", label=label)
            if panel.line:
                ends = [xs[0], xs[-1]]
                axis.plot(ends, [x * ys[-1] / xs[-1] for x in ends], ":", color=drawn.get_color(), alpha=0.6)
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        if panel.log:
            axis.set(xscale="log", yscale="log")
        else:
            axis.set_ylim(bottom=0)
            axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    path: Path = options.out / f"{name}.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    logger.info("written: %s", path)
    return path
