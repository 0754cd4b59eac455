"""What the Rich feedback tab asks for: feedback on pictures, computed once and remembered, and files made of it."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundation.trace import traced_to_log
from rahf.feedback import Feedback, rank
from rahf.pictures.vocabulary import COLOURS, COUNTS, read_concepts
from rahf.predictor import Predictor
from rahf.prompts import check_prompt
from rahf.sheets import contact_sheet, report, save_heatmap
from ui.feedback.results import Examined, Ranked, Thresholds, behind_best, reasons_of
from ui.feedback.view import write_files
from ui.memory import Recent
from ui.photos import SIDE, Photo, Source, open_photo
from ui.progress import Progress, silent
from ui.uploads import results_folder
from ui.weights_names import shown
from ui.zerogpu import on_gpu

logger = logging.getLogger(__name__)

MOST_PICTURES = 12
BATCH = 4
REMEDY = (
    "Set RAHF_WEIGHTS to `embedded`, to a folder made by `rahf train` or `rahf convert`, or to owner/repo[@revision] "
    "on the Hub, and start the app again."
)
PEOPLE = 143  # labelled pictures of people in the judge's training, see weights.md; the weights do not hold the number
SCENES = "Composed scenes of clip art have a model of their own."
JUDGED = {
    "picture": "Judged as a real picture. {knows}",
    "composed scene": (
        "Judged as a composed scene of clip art, by a model that has seen nothing else; it judges every word and gives "
        "no intervals."
    ),
}
NONCOMMERCIAL = "These weights are for non-commercial use only"


def knowledge() -> str:
    """What the judge of real pictures knows, counted from its vocabulary."""
    concepts = read_concepts()
    words = sum(len(concept.words) for concept in concepts)
    most = max(COUNTS, key=lambda word: COUNTS[word])
    return (
        f"On real pictures the judge knows {len(concepts)} nouns ({words:,} words), {len(COLOURS)} colours, counts to "
        f"{most}, plain relations; other words are not judged. People: trained on {PEOPLE} labelled pictures; how "
        "sound animals and things are drawn it judges hardly better than chance."
    )


@dataclass(frozen=True)
class Shown:
    """One picture on the page: what its feedback is remembered by, and what it is made of if it no longer is.

    Attributes:
        title: as shown.
        key: of the feedback.
        source: the picture's file.
        prompt: what it was made from.
    """

    title: str
    key: str
    source: str
    prompt: str


class Memory:
    """Results by key and files made of them, shared by services with different weights; bounded and locked.

    results: how many to remember; one takes up to 12 MB.
    """

    def __init__(self, results: int = 32) -> None:
        self._folder = results_folder("rahf-")
        self.results: Recent[str, Examined] = Recent(results, lambda found: _forget(found.picture))
        self.documents: Recent[str, Path] = Recent(2 * results, _forget)

    @property
    def folder(self) -> Path:
        """Where files for visitors are written; it disappears with the memory."""
        return Path(self._folder.name)

    def place(self) -> Path:
        """A new folder, so that two visitors never write the same file."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def predict_seconds(pictures: Sequence[np.ndarray], *_: object) -> int:
    """How long to borrow a GPU for some pictures."""
    return 8 + 2 * len(pictures)


class FeedbackService:
    """A predictor with its memory, or the reason why there is none.

    One instance serves every visitor. All it changes is the bounded cache, which is locked; results go by the content
    of the file and the prompt, so that nobody's picture stands in for another's.

    Args:
        predictor: the loaded model, or None.
        weights: the name shown to visitors.
        problem: why there is no predictor.
        memory: where results are kept; one of its own unless given.
    """

    def __init__(
        self, predictor: Predictor | None, weights: str, problem: str = "", memory: Memory | None = None
    ) -> None:
        self.predictor = predictor
        self.weights = weights
        self.problem = problem
        self._memory = memory or Memory()
        self._identity = secrets.token_hex(8)  # two folders of weights may be shown by one name
        self._predict = on_gpu(predict_seconds)(self._predict_here)

    @classmethod
    def load(cls, weights: str = "embedded", device: str = "auto", memory: Memory | None = None) -> FeedbackService:
        """Load the model once. Without usable weights the service says so, and the rest of the app works."""
        name = shown(weights)
        try:
            predictor = Predictor.from_pretrained(weights, device, dtype="auto")
        except Exception as error:  # damaged files raise whatever their reader raises
            logger.warning("rich feedback has no weights", exc_info=True)
            said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":")  # every key is in the log
            return cls(None, name, said.replace(weights, name), memory)
        predictor.name = name
        return cls(predictor, name, memory=memory)

    def beside(self, weights: str, device: str) -> FeedbackService:
        """The same service with other weights; what this one has found is remembered by both."""
        return self.load(weights, device, self._memory)

    @property
    def folder(self) -> Path:
        """Where files for visitors are written; it disappears with the service."""
        return self._memory.folder

    @property
    def word_threshold(self) -> float:
        """From which probability on these weights take a word for not shown."""
        return self.predictor.model.config.word_threshold if self.predictor is not None else 0.5

    @property
    def note(self) -> str:
        """Which weights answer, what they have seen, and on what terms they may be used."""
        if self.predictor is None:
            return ""
        config = self.predictor.model.config
        origin = f" ({config.weights_source})" if config.weights_source and self.weights != "embedded" else ""
        said = [f"Feedback by the {self.weights} weights{origin}."]
        if self.weights == "embedded":
            said += [knowledge(), SCENES]
        return " ".join([*said, self.notice]).strip()

    def note_on(self, found: Sequence[Examined]) -> str:
        """The note under a result: by which judge its pictures were judged, and what that one knows."""
        kinds = [kind for kind in JUDGED if any(one.feedback.judged_as == kind for one in found)]
        if not kinds:  # weights without a judge of real pictures
            return self.note
        said = [f"Feedback by the {self.weights} weights."]
        if len(kinds) > 1:
            said.append("The pictures were judged by two judges, whose scores are not of one scale.")
        count = {kind: sum(one.feedback.judged_as == kind for one in found) for kind in kinds}
        for kind in kinds:
            before = f"{count[kind]} of {len(found)}: " if len(kinds) > 1 else ""
            said.append(before + JUDGED[kind].format(knows=knowledge()))
        return " ".join([*said, self.notice]).strip()

    @property
    def notice(self) -> str:
        """One sentence that has to stand beside what these weights say; empty unless their licence asks for one."""
        config = self.predictor.model.config if self.predictor is not None else None
        return f"{NONCOMMERCIAL} ({config.weights_license})." if config is not None and config.noncommercial else ""

    @property
    def missing(self) -> str:
        """Why there are no weights, and the remedy."""
        return f"There are no rich-feedback weights here: {self.problem}. {REMEDY}"

    def current(self) -> FeedbackService:
        """Itself: a service is its own only choice, see :class:`ui.weights_menu.ChosenService`."""
        return self

    def examine(self, source: Source, prompt: str, progress: Progress = silent) -> Examined:
        """Feedback on one picture. Raises ValueError for a picture or a prompt that cannot be used."""
        return self.examine_all([source], prompt, progress)[0]

    def examine_all(self, sources: Sequence[Source], prompt: str, progress: Progress = silent) -> list[Examined]:
        """Feedback on several pictures of one prompt, in their order; only what is not remembered is computed.

        Raises ValueError for a picture or a prompt that cannot be used, for too many pictures, and without weights.
        """
        self._ready()
        prompt = prompt.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs can be sent, not shown
        if len(sources) > MOST_PICTURES:
            raise ValueError(f"there are {len(sources)} pictures; at most {MOST_PICTURES} are compared at once")
        check_prompt(prompt)
        photos = [open_photo(source) for source in sources]
        names = [self._key(photo, prompt) for photo in photos]
        known = {name: found for name in names if (found := self._memory.results.get(name)) is not None}
        missing = {name: photo for name, photo in zip(names, photos, strict=True) if name not in known}
        if missing:
            progress(0.05, "Reading the picture")
            pictures = [photo.array(SIDE) for photo in missing.values()]
            answers = self._predict(pictures, prompt, progress)
            for (name, photo), pixels, feedback in zip(missing.items(), pictures, answers, strict=True):
                known[name] = self._remember(name, photo, pixels, feedback)
        return [known[name] for name in names]

    def recall(self, items: Sequence[Shown], progress: Progress = silent) -> list[Examined]:
        """What is on the page, by whichever weights it was found.

        If some of it is no longer remembered all of it is looked at again, so that one model speaks of all.
        Raises ValueError as :meth:`examine_all`.
        """
        found = [self._memory.results.get(item.key) for item in items]
        kept = [item for item in found if item is not None]
        if len(kept) == len(items):
            return kept
        return self.examine_all([item.source for item in items], items[0].prompt, progress)

    def rank(
        self,
        found: Sequence[Examined],
        titles: Sequence[str],
        weights: dict[str, float],
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
    ) -> list[Ranked]:
        """Best first. Raises ValueError for weights that are negative or add up to nothing."""
        order = rank([item.feedback for item in found], weights)
        best = found[order[0][0]].feedback
        ranked = []
        for place, (index, value) in enumerate(order, start=1):
            feedback = found[index].feedback
            behind = behind_best(best, feedback, weights) if place > 1 else None
            reasons = ((behind,) if behind else ()) + reasons_of(feedback, thresholds)
            ranked.append(Ranked(titles[index], place, value, reasons, found[index], thresholds))
        return ranked

    def json_file(self, values: Any, name: str) -> Path:
        """Plain values as the file `name`.json."""
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        return self._document(text, f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))

    def report_file(self, found: Sequence[Examined], name: str) -> Path:
        """The report of a picture, or of several on one sheet, as the file `name`.png."""

        def draw(path: Path) -> None:
            sheets = [report(item.pixels, item.feedback) for item in found]
            (sheets[0] if len(sheets) == 1 else contact_sheet(sheets)).save(path)

        return self._document(" ".join(item.key for item in found), f"{name}.png", draw)

    def map_file(self, found: Examined, name: str) -> Path:
        """A heatmap as an 8-bit grey PNG of the size that was looked at."""
        heatmap = found.feedback.heatmaps[name]
        return self._document(found.key, f"{name}.png", lambda path: save_heatmap(path, heatmap))

    def _document(self, content: str, name: str, write: Callable[[Path], object]) -> Path:
        """The file for `content`, written once and remembered."""
        key = hashlib.sha256(f"{name} {content}".encode()).hexdigest()
        known = self._memory.documents.get(key)
        if known is None:
            known = self._memory.place() / name
            write(known)
            self._memory.documents.put(key, known)
        return known

    def _key(self, photo: Photo, prompt: str) -> str:
        """Stands for a picture's content with a prompt, under these weights."""
        return hashlib.sha256("\0".join((photo.digest, self._identity, prompt)).encode()).hexdigest()[:24]

    def _ready(self) -> Predictor:
        if self.predictor is None:
            raise ValueError(self.missing)
        return self.predictor

    def _remember(self, name: str, photo: Photo, pixels: np.ndarray, feedback: Feedback) -> Examined:
        picture, maps = write_files(pixels, feedback, self._memory.place())
        found = Examined(name, pixels, photo.size, feedback, picture, maps)
        self._memory.results.put(name, found)
        return found

    @traced_to_log("feedback")
    def _predict_here(self, pictures: Sequence[np.ndarray], prompt: str, progress: Progress = silent) -> list[Feedback]:
        """The one part that wants a GPU; arguments and results can be pickled and live on the CPU."""
        predictor = self._ready()
        found: list[Feedback] = []
        for start in range(0, len(pictures), BATCH):
            progress(0.1 + 0.85 * start / len(pictures), f"Looking at picture {start + 1} of {len(pictures)}")
            part = list(pictures[start : start + BATCH])
            found += predictor.predict_batch(part, [prompt] * len(part))
        return found


def _forget(path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
