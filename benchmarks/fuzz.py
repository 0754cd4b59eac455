"""Damaged and invented files by the thousand: `python benchmarks/fuzz.py --cases 10000 [--only tables prompts]`.

Each case is drawn from (seed, kind, number) and can be had again alone: `--only KIND --first NUMBER --cases 1`. It must
end with a value or with one sentence; anything else is a finding: a traceback, a sentence of several lines, a case over
its time, a process over its memory or dead, a file left behind. Processes of their own take the cases in parts.
Endpoints are fuzzed by `tests/ui`, over HTTP. Exit status 1 if there is any finding.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import common
import fuzz_cases

PART = 250  # cases of one process
MEMORY_MB = 1200  # of address space that a process may take beyond what it has after its start
SLOWEST_S = 10.0  # of processor time of one case; a process is ended after three times as much
SENTENCE = 500  # letters at most
MOST_FINDINGS = 20  # that are shown


@dataclass
class Outcome:
    """What came of the cases of one process."""

    ends: Counter[str]
    findings: list[dict[str, Any]]
    slowest: float
    peak: float


def judged(work: Callable[[], object]) -> tuple[str, str]:
    """How a case ended, "accepted" or "refused", and what is wrong with that, if anything."""
    try:
        work()
    except ValueError as error:
        text = str(error)
        if not text or "\n" in text or len(text) > SENTENCE:
            return "refused", f"no sentence: {type(error).__name__}: {text[:300]!r}"
        return "refused", ""
    except BaseException:
        return "failed", traceback.format_exc()[-2000:]
    return "accepted", ""


def run_part(kind: str, first: int, count: int, seed: int, progress: Path) -> None:
    """The cases of one process; the outcome is printed as JSON."""
    logging.disable(logging.CRITICAL)
    prepare, attempt = fuzz_cases.KINDS[kind]
    material = prepare()
    with tempfile.TemporaryDirectory() as first_home:  # imports and what is made once count for no case
        judged(partial(attempt, material, random.Random(0), Path(first_home)))
    before = common.peak_mb()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_MB * 2**20, resource.RLIM_INFINITY))
    ends: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as home:
        for number in range(first, first + count):
            progress.write_text(str(number))
            folder = Path(home) / "case"
            folder.mkdir()
            rng = random.Random(f"{seed} {kind} {number}")
            begin = time.process_time()
            end, problem = judged(partial(attempt, material, rng, folder))
            taken = time.process_time() - begin
            slowest = max(slowest, taken)
            ends[end] += 1
            left = sorted(path.name for path in folder.iterdir())
            if left not in ([], [fuzz_cases.name_of(kind)]):
                problem = problem or f"files are left: {left}"
            if taken > SLOWEST_S:
                problem = problem or f"it took {taken:.1f} s"
            if problem:
                findings.append({"kind": kind, "case": number, "problem": problem})
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    found = {"ends": ends, "findings": findings, "slowest": slowest, "peak": common.peak_mb() - before}
    sys.stdout.write(json.dumps(found))


def run_process(kind: str, first: int, count: int, seed: int) -> Outcome:
    """One part in a process of its own. One that dies or hangs is a finding, and its other cases are lost."""
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "progress"
        part = ["--part", kind, str(first), str(count), str(progress), "--seed", str(seed)]
        command = [sys.executable, str(Path(__file__).resolve()), *part]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=180 + 3 * SLOWEST_S + count * 0.5
            )
            if done.returncode == 0:
                return Outcome(**{**json.loads(done.stdout), "ends": Counter(json.loads(done.stdout)["ends"])})
            problem = f"the process ended with {done.returncode}: {done.stderr[-1500:]}"
        except subprocess.TimeoutExpired:
            problem = "the process did not come to an end"
        case = int(progress.read_text()) if progress.is_file() else first
        return Outcome(Counter(), [{"kind": kind, "case": case, "problem": problem}], 0.0, 0.0)


def main() -> int:
    """Run what is asked for and say what was found."""
    parser = common.parser(__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="cases of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--only", nargs="+", choices=fuzz_cases.KINDS, default=list(fuzz_cases.KINDS))
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        kind, first, count, progress = options.part
        run_part(kind, int(first), int(count), options.seed, Path(progress))
        return 0
    common.start(options)
    rows: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    for kind in options.only:
        share = -(-options.cases // len(options.only))
        begin, ends, slowest, peak = time.perf_counter(), Counter[str](), 0.0, 0.0
        before = len(findings)
        for first in range(options.first, options.first + share, PART):
            part = run_process(kind, first, min(PART, options.first + share - first), options.seed)
            ends += part.ends
            findings += part.findings
            slowest, peak = max(slowest, part.slowest), max(peak, part.peak)
        rows.append(
            {
                "kind": kind,
                "cases": sum(ends.values()),
                "accepted": ends["accepted"],
                "refused": ends["refused"],
                "findings": len(findings) - before,
                "slowest case s": slowest,
                "peak MB above start": peak,
                "minutes": (time.perf_counter() - begin) / 60,
            }
        )
        common.logger.info("%s", common.table(rows[-1:]).splitlines()[-1])
    common.logger.info("\n%s", common.table(rows))
    for finding in findings[:MOST_FINDINGS]:
        common.logger.info("\n%s case %d: %s", finding["kind"], finding["case"], finding["problem"])
    common.save(options, "fuzz", {"seed": options.seed, "rows": rows, "findings": findings})
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
