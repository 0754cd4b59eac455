"""What the Improve tab asks for: a generator with its judge, and files made of what they answer."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from foundation.weights.resolver import EMBEDDED
from rahf.predictor import Predictor
from rahf.prompts import check_prompt
from rahf.sheets import contact_sheet, report
from ui.feedback.service import FeedbackService
from ui.improve.jobs import BEST, DOODL, DRAW, GUIDE, REPAIR, SGOOL, Answer, Job, perform
from ui.improve.painter import Canvas
from ui.improve.questions import of_picture, of_video
from ui.memory import Recent
from ui.photos import SIDE, Source, open_photo
from ui.progress import Progress, silent
from ui.uploads import results_folder
from ui.weights_menu import Choice
from ui.weights_names import shown
from ui.zerogpu import AVAILABLE, gpu_seconds, on_gpu

if TYPE_CHECKING:
    from rahf.improve.checklist.scoring import ChecklistResult
    from rahf.improve.generator import Generator, Setting

logger = logging.getLogger(__name__)

REMEMBERED = 24  # answers; one takes a few megabytes on the disk
NO_PICTURE = "There is no picture yet. Upload one, or draw one from the prompt."
KNOWS = (
    "The embedded generator is a small model of this project: 128 pixels, clip art of sixteen kinds of things, eight "
    "colours, counts to four. Name a larger one in IMPROVE_WEIGHTS or the menu for anything else."
)


@dataclass(frozen=True, eq=False)
class Result:
    """An answer with its files.

    Attributes:
        answer: what was made.
        before, after: PNG files; before is None if there was nothing.
        others: files and captions of what was tried besides.
    """

    answer: Answer
    before: Path | None
    after: Path
    others: tuple[tuple[Path, str], ...]


class Memory:
    """Files of answers, shared by services with different weights; bounded and locked."""

    def __init__(self, answers: int = REMEMBERED) -> None:
        self._folder = results_folder("improve-")
        self._places: Recent[str, Path] = Recent(answers, lambda place: shutil.rmtree(place, ignore_errors=True))

    @property
    def folder(self) -> Path:
        """It disappears with the memory."""
        return Path(self._folder.name)

    def place(self) -> Path:
        """A new folder, so that two visitors never write the same file; the oldest ones go."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        self._places.put(str(place), place)
        return place

    def keep(self, answer: Answer) -> Result:
        """Write the pictures of an answer, without loss."""
        place = self.place()
        before = _write(answer.before.pixels, place / "before.png") if answer.before is not None else None
        after = _write(answer.after.pixels, place / "after.png")
        others = tuple(
            (_write(made.pixels, place / f"{number:03d}.png"), made.caption)
            for number, made in enumerate(answer.others)
        )
        return Result(answer, before, after, others)

    def canvas(self, pixels: np.ndarray, mask: np.ndarray | None) -> Canvas:
        """Write a picture to paint on, and the mask (H,W) bool of any size to begin with."""
        place = self.place()
        picture = _write(pixels, place / "picture.png")
        marked = _write(mask.astype(np.uint8) * 255, place / "mask.png") if mask is not None and mask.any() else None
        key = hashlib.sha256(picture.read_bytes() + (marked.read_bytes() if marked else b"")).hexdigest()[:16]
        return Canvas(picture, marked, key)


class ImproveService:
    """A generator with the judge of the Rich feedback tab, or the reason why there is none.

    One instance serves every visitor. The generator is loaded when it is first asked for, except on ZeroGPU, where
    models have to be in their place before the page is served.

    Args:
        load: loads the generator.
        feedback: whose predictor judges.
        weights: the name shown to visitors.
        problem: why there is no generator.
        device: where it is loaded to.
    """

    def __init__(
        self,
        load: Callable[[], Generator],
        feedback: Choice[FeedbackService],
        weights: str,
        problem: str = "",
        memory: Memory | None = None,
    ) -> None:
        self.weights = weights
        self.problem = problem
        self._feedback = feedback
        self._load = load
        self._generator: Generator | None = None
        self._loading = threading.Lock()
        self._memory = memory or Memory()
        self._work = on_gpu(self._seconds)(self._perform)
        if AVAILABLE and not problem:
            self.generator()

    @classmethod
    def load(
        cls,
        feedback: Choice[FeedbackService],
        weights: str = EMBEDDED,
        device: str = "auto",
        memory: Memory | None = None,
    ) -> ImproveService:
        """Find the weights; whoever asks first waits for the models. Without usable ones the service says so."""
        from rahf.improve.generator import load_generator, resolve_generator

        name, problem = shown(weights), ""
        try:
            resolve_generator(weights)
        except (OSError, ValueError) as error:
            logger.warning("the generator has no weights", exc_info=True)
            problem = (str(error).strip() or type(error).__name__).splitlines()[0].replace(weights, name)
        return cls(lambda: load_generator(weights, device), feedback, name, problem, memory)

    def beside(self, weights: str, device: str) -> ImproveService:
        """The same service with another generator."""
        return self.load(self._feedback, weights, device, self._memory)

    def current(self) -> ImproveService:
        """Itself."""
        return self

    @property
    def folder(self) -> Path:
        """Where files for visitors are written; it disappears with the service."""
        return self._memory.folder

    @property
    def notice(self) -> str:
        """On what terms the weights may be used, where their licence is known and not this project's."""
        license = self._generator.license if self._generator is not None else None
        return "" if license in (None, "apache-2.0") else f"The generator's weights: {license}."

    @property
    def note(self) -> str:
        """Which weights draw and which judge, and what they know."""
        judge = self._feedback.current().weights
        said = [f"Drawn by the {self.weights} generator, judged by the {judge} feedback weights."]
        said += [KNOWS] if self.weights == EMBEDDED else []
        return " ".join([*said, self.notice]).strip()

    @property
    def missing(self) -> str:
        """Why there is no generator, and the remedy."""
        return (
            f"There is no generator here: {self.problem}. Set IMPROVE_WEIGHTS to `embedded`, a folder that diffusers "
            "opens, or owner/repo on the Hub, and start the app again."
        )

    @property
    def usual(self) -> Setting:
        """What pictures are drawn with unless something else is asked; before the generator is there, a good guess."""
        from rahf.improve.generator import SETTING, Setting

        if self._generator is not None:
            return self._generator.setting
        return SETTING if self.weights == EMBEDDED else Setting()

    def setting(self, steps: int, guidance: float) -> Setting:
        """The same with other steps and guidance. Raises ValueError for numbers out of range."""
        return replace(self.generator().setting, steps=steps, guidance=guidance)

    def generator(self) -> Generator:
        """The generator, loaded now if it is not there yet. Raises ValueError if it cannot be."""
        if self.problem:
            raise ValueError(self.missing)
        with self._loading:  # two visitors who come first load it once
            if self._generator is None:
                self._generator = self._load()
            return self._generator

    def answer(
        self, job: Job, source: Source | None = None, mask: Source | None = None, progress: Progress = silent
    ) -> Result:
        """Do a job. ``mask`` is a picture whose light parts are to be drawn anew, of the picture's shape.

        Raises:
            ValueError: a prompt, picture or mask that cannot be used, or no generator.
        """
        if not job.prompt.strip():
            raise ValueError("there is no prompt: say in a few words what the picture is to show")
        check_prompt(job.prompt)
        self._predictor()
        picture = open_photo(source).array() if source is not None else None
        painted = read_mask(mask, picture.shape[:2]) if mask is not None and picture is not None else None
        progress(0.02, "Starting")
        return self._memory.keep(self._work(job, picture, painted, progress))

    def canvas(self, source: Source, prompt: str = "", progress: Progress = silent) -> Canvas:
        """The picture to paint on; with a prompt what the feedback marks in it is painted already."""
        photo = open_photo(source)
        mask = None
        if prompt.strip():
            from rahf.improve.masks import mask_from_heatmap
            from rahf.improve.repair import RepairOptions

            found = self._feedback.current().examine(photo, prompt, progress).feedback
            options = RepairOptions()
            heatmap = found.heatmaps["implausibility"]
            mask = mask_from_heatmap(heatmap, options.threshold, options.floor, options.dilation).numpy()
        return self._memory.canvas(photo.array(SIDE), mask)

    def questions(
        self, source: Source | None, prompt: str = "", video: str | Path | None = None, progress: Progress = silent
    ) -> ChecklistResult:
        """The checklist, of a picture or of a video. Raises ValueError for what cannot be judged."""
        predictor = self._predictor()
        if video is not None:
            return of_video(video, predictor, progress)
        if source is None:
            raise ValueError(NO_PICTURE)
        progress(0.1, "Asking")
        return of_picture(source, prompt, predictor)

    def report_file(self, result: Result) -> Path:
        """Before and after, each with its feedback, as one picture."""
        shown = [made for made in (result.answer.before, result.answer.after) if made is not None]
        sheets = [report(made.pixels, made.feedback) for made in shown]
        path = self._memory.place() / "improved.png"
        (sheets[0] if len(sheets) == 1 else contact_sheet(sheets)).save(path)
        return path

    def _predictor(self) -> Predictor:
        feedback = self._feedback.current()
        if feedback.predictor is None:
            raise ValueError(feedback.missing)
        return feedback.predictor

    def _seconds(self, job: Job, picture: np.ndarray | None, *_: Any) -> int:
        """How long to borrow a GPU: looks of the network at one picture's latents, and feedback."""
        generator = self.generator()
        setting = job.setting or generator.setting
        return gpu_seconds(steps=looks(job, generator), flops_a_step=flops_a_look(generator, setting))

    def _perform(
        self, job: Job, picture: np.ndarray | None, mask: np.ndarray | None, progress: Progress = silent
    ) -> Answer:
        """The one part that wants a GPU; arguments and results can be pickled and live on the CPU."""
        return perform(job, self.generator(), self._predictor(), picture, mask, progress)


def looks(job: Job, generator: Generator) -> int:
    """How often the network looks at one picture's latents for a job, at most; a gradient counts as two looks more."""
    from rahf.improve.saliency.optimise import SaliencyOptions

    one, several = generator.cost(1, job.setting), generator.cost(job.count, job.setting)
    search = 4 * one * (SaliencyOptions().iterations + 1)
    repair = several * (job.repair.rounds if job.repair is not None else 3)
    of = {DRAW: one, BEST: several, REPAIR: repair, GUIDE: 4 * one, SGOOL: search, DOODL: search}
    return of.get(job.tool, one + several + 2 * repair + 4 * one + search)


def flops_a_look(generator: Generator, setting: Setting) -> float:
    """Floating-point operations of one look at one picture's latents, reckoned from the network's size.

    A U-Net of Stable Diffusion works on its latents at several sizes: on the average weight a ninth of the pixels
    count (0.8e12 for the 860 million of SD 1 at 64 x 64), of a transformer, on patches of two by two, a quarter.
    """
    pipeline = generator.pipeline
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    weights = sum(parameter.numel() for parameter in network.parameters()) if network is not None else 0
    latents = ((setting.side or generator.side) / 8) ** 2
    return float(2 * weights * latents / (9 if getattr(pipeline, "unet", None) is not None else 4))


def read_mask(source: Source, size: tuple[int, int]) -> np.ndarray:
    """A mask (H,W) bool for a picture of size (height, width), from a picture of its shape whose light parts count.

    Raises:
        ValueError: another shape, or nothing in it is light.
    """
    photo = open_photo(source)
    width, height = photo.size
    if abs(width * size[0] - height * size[1]) > 0.02 * width * size[0]:
        raise ValueError(
            f"the mask is {width}x{height}, the picture {size[1]}x{size[0]}; give a mask of the picture's shape"
        )
    light = (photo.array().max(2) > 127).astype(np.uint8)
    mask = cv2.resize(light, (size[1], size[0]), interpolation=cv2.INTER_NEAREST) > 0
    if not mask.any():
        raise ValueError("the mask is empty: paint over what is to be drawn anew, or send none")
    return np.asarray(mask)


def _write(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path, compress_level=3)
    return path
