"""Every benchmark of speed, one after the other, and the page about them.

    python benchmarks/all.py [-o benchmark-results] [--docs docs] [--only splatting rahf_public ...]

Each runs as a process of its own and leaves JSON and a plot in the folder; one that fails does not stop the others.
With `--docs`, `speed.md` is written from everything the folder then holds, so parts can be measured again by `--only`.
On two quiet cores all of it takes about 12 minutes; `rahf_public`, the released size, takes 3 of them and 5 GB.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from pathlib import Path

import common
import page

# Script and arguments, in the order of the page. Fewer repeats than alone: the least of several runs counts anyway.
RUNS: dict[str, list[str]] = {
    "end_to_end": ["end_to_end.py", "--frames", "150", "38", "75", "300"],
    "shares": ["shares.py", "--repeats", "2"],
    "app_start": ["app_start.py", "--repeats", "2"],
    "splatting": ["splatting.py", "--repeats", "7"],
    "rendering": ["rendering.py", "--repeats", "3"],
    "motion": ["motion.py", "--repeats", "2"],
    "poke": ["poke.py"],
    "training_step": ["training_step.py", "--batches", "1", "2", "4", "--repeats", "2"],
    "rahf_small": ["rahf_cost.py", "small"],
    "rahf_growth": ["rahf_cost.py", "growth"],
    "rahf_public": ["rahf_cost.py", "public", "--repeats", "1"],
}


def main() -> None:
    """Run what is asked for; exit status 1 if any of it failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmark-results"), help="folder for JSON and plots")
    parser.add_argument("--docs", type=Path, help="folder in which speed.md and its pictures are written")
    parser.add_argument("--only", nargs="*", choices=RUNS, help="run these alone; none: only write the page")
    parser.add_argument("--skip", nargs="+", choices=RUNS, default=[], help="leave these out")
    parser.add_argument("--threads", type=int, help="torch threads of each")
    parser.add_argument("--machine", help="what the page calls the machine (default: its processor's name)")
    parser.add_argument("--note", default="", help="a sentence about the circumstances, put into the page")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in RUNS if options.only is None else options.only:
        if name in options.skip:
            continue
        script, *arguments = RUNS[name]
        command = [sys.executable, str(common.ROOT / "benchmarks" / script), *arguments, "--out", str(options.out)]
        if options.threads is not None:
            command += ["--threads", str(options.threads)]
        begin = time.perf_counter()
        common.logger.info("== %s", name)
        done = subprocess.run(command, check=False)
        common.logger.info("== %s: %.0f s\n", name, time.perf_counter() - begin)
        if done.returncode:
            failed.append(name)
    if options.docs is not None:
        common.logger.info("written: %s", page.write(options.out, options.docs, options.machine, options.note))
    if failed:
        common.logger.error("failed: %s; what they print is above", ", ".join(failed))
        sys.exit(1)


if __name__ == "__main__":
    main()
