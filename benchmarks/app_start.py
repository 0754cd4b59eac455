"""How long the app takes to be there, part by part, each in a fresh process: `python benchmarks/app_start.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "python alone": "pass",
    "import gid": "import gid",
    "gid --help": "from gid.cli import app; app(['--help'], standalone_mode=False)",
    "import torch": "import torch",
    "import gradio": "import gradio",
    "import app": "import app",
    "weights loaded": "import app; app.AnimationService.load()",
    "page served": (
        "import app; demo = app.create_demo(app.AnimationService.load()); "
        "app.launch(demo, server_name='127.0.0.1', prevent_thread_lock=True, quiet=True); demo.close()"
    ),
}


def main() -> None:
    """Print the best of three for every part; torch and gradio alone are the floor to compare with."""
    print("| part | seconds |\n|---|---:|")
    for name, code in PARTS.items():
        print(f"| {name} | {min(measured(code) for _ in range(3)):.2f} |", flush=True)


def measured(code: str) -> float:
    """Seconds until a fresh interpreter has run the code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
