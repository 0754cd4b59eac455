"""The app as ZeroGPU runs it: `python -m tests.ui.zerogpu_space PORT LOG`, with the platform's variables set.

GID_MENU and RAHF_MENU name more weights; the page starts with a tiny pipeline and the embedded weights of rahf.

The platform's own package decorates, emulates CUDA before the launch, forks, pickles and carries progress back. Only
two of its functions are replaced, for lack of a GPU: weights go to main memory where it would move them to the GPU.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)  # a forked process must not find threads of OpenMP that are gone
if torch.version.cuda is None:  # the platform's package takes a build with CUDA for granted
    torch.version.cuda = "12.8"
    torch._C._cuda_init = lambda: None  # type: ignore[attr-defined]
    torch.cuda._is_in_bad_fork = bool  # says no, and can be pickled

from ui import zerogpu  # noqa: E402, I001 - as in app.py

import spaces.zero.torch as emulation  # noqa: E402
from gradio.queueing import Queue  # noqa: E402
from spaces.zero.torch import patching  # noqa: E402

from app import create_demo, launch  # noqa: E402
from gid.diffusion.loading import KIND as GID  # noqa: E402
from rahf.improve.generator import wrap  # noqa: E402
from rahf.model.loading import KIND as RAHF  # noqa: E402
from tests.rahf.improve.pipelines import make  # noqa: E402
from tests.tiny import tiny_pipeline  # noqa: E402
from ui.feedback.service import FeedbackService  # noqa: E402
from ui.animate.service import AnimationService  # noqa: E402
from ui.improve.service import ImproveService  # noqa: E402
from ui.weights_menu import ChosenService  # noqa: E402


def into_memory(callback: Callable[[int], Any] | None = None) -> None:
    """What the platform does when a worker starts, but for the GPU: read the packed weights from disk."""
    for pack in patching.tensor_packs:
        with open(pack.path(), "rb") as file:
            for fake, size, aligned in itertools.chain(*pack.batches, pack.big_tensors):
                data = bytearray(file.read(aligned))[:size]
                if not size:
                    continue
                whole = torch.frombuffer(data, dtype=fake.dtype).as_strided(fake.shape, fake.stride())
                for parameter in pack.fakes[fake]:
                    parameter.data = whole


def main() -> None:
    """Place the models, launch, and note the progress that arrives."""
    port, log = int(sys.argv[1]), Path(sys.argv[2])
    if not zerogpu.AVAILABLE:
        raise RuntimeError("SPACES_ZERO_GPU is not set, or the platform's package is not installed")
    emulation.init = lambda uuid: None
    emulation.move = into_memory
    arrived = Queue.set_progress

    def noted(self: Queue, event_id: str, iterables: list[Any] | None) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.writelines(f"{unit.desc}\n" for unit in iterables or [])
        arrived(self, event_id, iterables)

    Queue.set_progress = noted  # a worker replaces it by one that sends it here

    pipeline = tiny_pipeline().to("cuda")
    if pipeline.device.type != "cuda":
        raise RuntimeError("the platform's emulation of CUDA is not at work")
    motion = ChosenService(AnimationService(pipeline, "tiny"), GID, "cuda")
    feedback = ChosenService(FeedbackService.load("embedded", "cuda"), RAHF, "cuda")
    predictor = feedback.first.predictor
    if predictor is None or predictor.model.device.type != "cuda":
        raise RuntimeError(f"the feedback model is not placed: {feedback.first.problem}")
    improve = ImproveService(lambda: wrap(make("sd-inpaint").to("cuda"), "tiny"), feedback, "tiny")
    launch(create_demo(motion, feedback, improve=improve), server_name="127.0.0.1", server_port=port, quiet=True)
    while True:  # launched from a script, the server has a thread of its own
        time.sleep(60)


if __name__ == "__main__":
    main()
