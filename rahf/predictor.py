"""Image and prompt -> `Feedback`; computes only what is asked for, and batches."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundation.devices import resolve_device
from foundation.folders import Failure, Item, Summary, walk
from foundation.pictures import KEPT_SIDE, SUFFIXES, PictureSource, load_photo
from foundation.trace import stage
from rahf.data.prompt_tables import assign_prompts
from rahf.feedback import Feedback, WordFeedback
from rahf.limits import LIMITS
from rahf.model.config import HEATMAPS, SCORES, WORDS
from rahf.model.loading import resolve_weights
from rahf.model.precision import resolve_precision
from rahf.model.rahf import RAHF, TextTokens
from rahf.pictures.feedback import FOLDER, PictureFeedback
from rahf.prompt_words import prompt_words
from rahf.prompts import Splitter, TextTokenizer, check_prompt, encode_prompts, label_words, load_tokenizer
from rahf.words import word_probabilities

logger = logging.getLogger(__name__)

ANY_PICTURE = "a picture"  # the prompt where only torn textures are looked for


class Predictor:
    """A model with its tokenizer, and a judge of real pictures where the weights have one: then the model answers for
    composed scenes only. Stateless between calls: safe to share between threads."""

    def __init__(
        self,
        model: RAHF,
        tokenizer: TextTokenizer | None = None,
        name: str = "",
        pictures: PictureFeedback | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer or load_tokenizer(model.config)
        self.name = name or model.config.weights_source
        self.pictures = pictures
        self.split: Splitter = prompt_words

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        device: str = "auto",
        dtype: torch.dtype | str = torch.float32,
        token: str | None = None,
    ) -> "Predictor":
        """From `embedded`, a folder or the Hub, `owner/repo[@revision][/subfolder]`; None reads RAHF_WEIGHTS.

        `device`: cpu, cuda, cuda:N or mps; "auto" takes an accelerator if there is one. `dtype` "auto" takes bfloat16
        for large models where the device is fast in it (`rahf.model.precision`).
        Raises ValueError for a device that is not there, and a folder or repository that holds no such model.
        """
        place = str(resolve_device(device))
        folder = resolve_weights(source, token=token)
        if isinstance(dtype, str):
            dtype = resolve_precision(dtype, place, folder)
        with stage("weights"):
            model = RAHF.from_pretrained(folder, map_location=place, dtype=dtype)
        name = source if source is not None else os.environ.get("RAHF_WEIGHTS") or "embedded"
        judge = Path(folder) / FOLDER
        with stage("weights of the judge"):
            pictures = PictureFeedback.load(judge, place) if judge.is_dir() else None
        return cls(model, load_tokenizer(model.config, folder), str(name), pictures)

    def check_prompt(self, prompt: str) -> None:
        """Raises ValueError for a prompt that cannot be used with any image."""
        if self.pictures is None:
            encode_prompts([prompt], self.model.config, self.tokenizer, self.split)
        else:
            check_prompt(prompt, self.split)

    def as_labelled(self) -> "Predictor":
        """This predictor with prompts split as RichHF-18K's labels count words, to be compared with them."""
        other = copy(self)
        other.split = label_words
        return other

    def predict(
        self,
        image: PictureSource,
        prompt: str,
        scores_only: bool = False,
        words: bool = True,
        heatmaps: bool = True,
        generate: bool = False,
    ) -> Feedback:
        """Feedback on one image; see `predict_batch`."""
        return self.predict_batch([image], [prompt], scores_only, words, heatmaps, generate)[0]

    @torch.inference_mode()
    def predict_batch(
        self,
        images: Sequence[PictureSource],
        prompts: Sequence[str],
        scores_only: bool = False,
        words: bool = True,
        heatmaps: bool = True,
        generate: bool = False,
    ) -> list[Feedback]:
        """Feedback on images of any sizes, each with its prompt, in one batch.

        scores_only: neither heatmaps nor words, the cheapest. words, heatmaps: whether to give these.
        generate: also the model's own, freely generated marked prompt (slow).
        Raises ValueError for an image or a prompt that cannot be used, and for lists that differ in length.
        """
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images came with {len(prompts)} prompts; give one prompt an image")
        for prompt in prompts:  # before the costly part
            self.check_prompt(prompt)
        with stage("pictures"):
            loaded = [load_photo(source, KEPT_SIDE) for source in images]
        found: dict[int, Feedback] = {}
        for place, image in enumerate(loaded if self.pictures is not None else ()):
            feedback = self._describe(image, prompts[place], words and not scores_only, heatmaps and not scores_only)
            if feedback is not None:
                found[place] = feedback
        rest = [place for place in range(len(loaded)) if place not in found]
        pixels, texts = [loaded[place] for place in rest], [prompts[place] for place in rest]
        with stage("fusing model"):
            answers = self._fused(pixels, texts, scores_only, words, heatmaps, generate)
        found.update(zip(rest, answers, strict=True))
        return [found[place] for place in range(len(loaded))]

    def _describe(self, image: Tensor, prompt: str, words: bool, heatmaps: bool) -> Feedback | None:
        """What the judge of real pictures says of an image (3,H,W); None for a composed scene."""
        assert self.pictures is not None
        with stage("look"):
            judgement = self.pictures.look(image)
        if self.pictures.is_composed(judgement):
            return None
        with stage("words and heatmaps"):
            feedback = self.pictures.describe(judgement, image, prompt, words, heatmaps, self.split)
        return replace(feedback, model=self.name)

    def _fused(
        self,
        images: Sequence[Tensor],
        prompts: Sequence[str],
        scores_only: bool,
        words: bool,
        heatmaps: bool,
        generate: bool,
    ) -> list[Feedback]:
        """Feedback by the fusing model on images (3,H,W), in one batch; see `predict_batch`."""
        if not images:
            return []
        model = self.model
        texts = encode_prompts(prompts, model.config, self.tokenizer, self.split)
        loaded, sizes = self._squash(images)
        visual = model.encode_image(loaded)
        want_words, want_heatmaps = words and not scores_only, heatmaps and not scores_only
        outputs = _Fuser(model, visual, texts)
        scores = {name: model.head(name)(outputs[name].features).float().cpu() for name in SCORES}
        maps = {name: model.head(name)(outputs[name].features) for name in HEATMAPS if want_heatmaps}
        spans = [self.split(prompt) for prompt in prompts]
        chances: list[list[float]] = [[] for _ in prompts]
        if want_words:
            chances = word_probabilities(
                model, outputs[WORDS], [[word.text for word in row] for row in spans], self.tokenizer
            )
        written: list[str | None] = [None] * len(prompts)
        if generate and not scores_only:
            written = [self.tokenizer.decode(row) for row in model.generate(outputs[WORDS]).tolist()]
        return [
            Feedback(
                prompt=prompt,
                image_size=sizes[place],
                scores={name: float(values[place]) for name, values in scores.items()},
                heatmaps={name: _at_size(values[place], sizes[place]) for name, values in maps.items()},
                words=tuple(
                    WordFeedback(prompt[word.start : word.end], word.start, word.end, chance)
                    for word, chance in zip(spans[place], chances[place], strict=False)  # no chances unless asked for
                ),
                generated=written[place],
                model=self.name,
                noncommercial=model.config.noncommercial,
                word_threshold=model.config.word_threshold,
                judged_as="composed scene" if self.pictures is not None else "",
            )
            for place, prompt in enumerate(prompts)
        ]

    def predict_folder(
        self,
        folder: str | Path,
        prompts: str | Mapping[str, str],
        batch_size: int = 8,
        summary: Summary | None = None,
        **options: bool,
    ) -> Iterator[tuple[Path, Feedback]]:
        """Feedback on every image below a folder, in order of place, `batch_size` at a time.

        prompts: one prompt for all, or a table for `assign_prompts`. summary: takes up what became of the files; what
        cannot be used is logged without it. options: those of `predict_batch`.
        Raises ValueError for what is no folder or holds no image and, before any work, for images without a prompt and
        a batch of none.
        """
        check_batch_size(batch_size)
        items, left_out = walk(Path(folder), SUFFIXES)
        if not items:
            raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
        table = {} if isinstance(prompts, str) else prompts
        texts = assign_prompts((item.file for item in items), table)
        bare = [item.file for item in items if item.file not in texts]
        if isinstance(prompts, str):
            texts = dict.fromkeys(bare, prompts)
        elif bare:
            more = f" and {len(bare) - 10} more" if len(bare) > 10 else ""
            raise ValueError(f"no prompt is given for {', '.join(bare[:10])}{more}; add a line for each")
        told = summary if summary is not None else Summary()
        told.left_out += left_out
        for start in range(0, len(items), batch_size):
            loaded = [
                one for item in items[start : start + batch_size] if (one := self._loaded(item, texts, told.failures))
            ]
            paths, images, chosen = zip(*loaded, strict=True) if loaded else ((), (), ())
            told.done += len(loaded)
            yield from zip(paths, self.predict_batch(images, chosen, **options), strict=True)
        if summary is None:
            for line in told.details():
                logger.warning("%s", line)

    def _loaded(self, item: Item, texts: Mapping[str, str], failures: list[Failure]) -> tuple[Path, Tensor, str] | None:
        """An image and its prompt, or None where they cannot be used."""
        try:
            self.check_prompt(texts[item.file])
            return item.path, load_photo(item.path, KEPT_SIDE), texts[item.file]
        except (ValueError, OSError) as error:
            failures.append(Failure(item.file, str(error)))
            return None

    def _squash(self, images: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Images (B,3,S,S) on the model's device, and each image's own (width, height)."""
        squares, sizes = [], []
        for image in images:
            sizes.append((image.shape[2], image.shape[1]))
            squares.append(self.model.squash(image[None].to(self.model.device)))
        return torch.cat(squares), sizes


class _Fuser(dict):
    """Fused tokens by output name, each distinct text fused once and only when it is needed."""

    def __init__(self, model: RAHF, visual: Tensor, texts: TextTokens | Mapping[str, TextTokens]) -> None:
        super().__init__()
        self._model, self._visual, self._texts = model, visual, texts

    def __missing__(self, name: str) -> Any:
        if isinstance(self._texts, TextTokens):
            fused = next(iter(self.values()), None) or self._model.fuse(self._visual, self._texts)
        else:
            fused = self._model.fuse(self._visual, self._texts[name])
        self[name] = fused
        return fused


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError for a batch of none."""
    LIMITS["batch_size"].check("batch_size", batch_size)


def _at_size(heatmap: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(h,w) -> float32 array of `size` = (width, height), bilinear."""
    width, height = size
    grown = F.interpolate(heatmap[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return grown[0, 0].cpu().numpy()
