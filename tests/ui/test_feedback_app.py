"""The Rich feedback tab as a program sees it: a live server and gradio_client, with a tiny real model."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from rahf.feedback import Feedback
from rahf.model.config import HEATMAPS, SCORES
from rahf.model.rahf import RAHF
from rahf.predictor import Predictor
from tests.rahf.conftest import TINY
from tests.tiny import photo, tiny_pipeline
from ui.animate.service import AnimationService
from ui.feedback.results import Thresholds, behind_best, reasons_of
from ui.feedback.service import PEOPLE, FeedbackService, Memory, Shown, predict_seconds

PATIENT = {"timeout": 300}  # seconds; a machine under load is slow, not broken
PROMPT = "a red apple, and two cats"


def tiny_predictor(**changes: Any) -> Predictor:
    torch.manual_seed(0)
    return Predictor(RAHF(TINY.changed(**changes)), name="tiny")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tiny_predictor()


@pytest.fixture(scope="module")
def client(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    from app import create_demo, launch

    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"), FeedbackService(predictor, "tiny"))
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")), httpx_kwargs=PATIENT)
    demo.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{name}.png" for name in ("first", "second", "third")]
    for seed, path in enumerate(paths):
        photo(96, 64, seed=seed).save(path)
    return paths


def ask(client: Client, path: Path, prompt: str = PROMPT, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.predict(image=handle_file(path), prompt=prompt, api_name="/feedback", **options)[0]
    return answer


def test_feedback_endpoint_says_what_the_library_says(
    client: Client, predictor: Predictor, pictures: list[Path]
) -> None:
    answer, report, *maps = client.predict(image=handle_file(pictures[0]), prompt=PROMPT, api_name="/feedback")
    truth = predictor.predict(pictures[0], PROMPT)
    assert answer["scores"] == pytest.approx(truth.scores, abs=1e-5)
    assert [word["text"] for word in answer["words"]] == ["a", "red", "apple", "and", "two", "cats"]
    assert [word["probability"] for word in answer["words"]] == pytest.approx(
        [word.probability for word in truth.words], abs=1e-5
    )
    assert all(PROMPT[word["start"] : word["end"]] == word["text"] for word in answer["words"])
    assert answer["image_size"] == answer["file_size"] == [96, 64]
    for name, path in zip(HEATMAPS, maps, strict=True):
        with Image.open(path) as grey:
            assert np.abs(np.asarray(grey) / 255 - truth.heatmaps[name]).max() < 0.6 / 255
    with Image.open(report) as sheet:
        assert sheet.width > 3 * 320


def test_thresholds_decide_what_is_listed(client: Client, predictor: Predictor, pictures: list[Path]) -> None:
    heatmap = predictor.predict(pictures[0], PROMPT).heatmaps["misalignment"]
    middle = float(np.median(heatmap))
    low = ask(client, pictures[0], threshold=0, word_threshold=0)
    some = ask(client, pictures[0], threshold=middle, word_threshold=0)
    none = ask(client, pictures[0], threshold=1, word_threshold=1)
    areas = [sum(region["area"] for region in answer["heatmaps"]["misalignment"]["regions"]) for answer in (low, some)]
    assert areas[0] == 96 * 64
    assert abs(areas[1] - (heatmap >= middle).sum()) <= 2  # pixels at the very threshold
    assert low["against"][0] == "not shown: a, red, apple, and, two, cats"
    assert none["against"] == []


def test_only_documented_endpoints_are_public(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/animate", "/poke", "/feedback", "/rank"}
    for name, wanted in {
        "/feedback": {"threshold": 0.25, "word_threshold": 0.5},
        "/rank": {**dict.fromkeys(SCORES, 1), "threshold": 0.25, "word_threshold": 0.5},
    }.items():
        parameters = {entry["parameter_name"]: entry for entry in endpoints[name]["parameters"]}
        assert {key: parameters[key]["parameter_default"] for key in wanted} == wanted
        assert set(parameters) - set(wanted) == {"prompt", "image" if name == "/feedback" else "images"}


@pytest.mark.parametrize("chosen", SCORES)
def test_rank_follows_the_weights(client: Client, predictor: Predictor, pictures: list[Path], chosen: str) -> None:
    weights = {name: float(name == chosen) for name in SCORES}
    rows = client.predict(images=[handle_file(path) for path in pictures], prompt=PROMPT, api_name="/rank", **weights)
    truth = {path.name: predictor.predict(path, PROMPT).scores[chosen] for path in pictures}
    assert [row["file"] for row in rows] == sorted(truth, key=lambda name: -truth[name])
    assert [row["value"] for row in rows] == pytest.approx(sorted(truth.values(), reverse=True), abs=1e-5)
    assert [row["place"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize(
    ("count", "weights", "says"),
    [
        (0, {}, "2 to 12 pictures"),
        (1, {}, "2 to 12 pictures"),
        (13, {}, "there are 13 pictures; at most 12"),
        (2, dict.fromkeys(SCORES, 0), "must add up to more than 0"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_explained(
    client: Client, pictures: list[Path], count: int, weights: dict[str, float], says: str
) -> None:
    files = [handle_file(pictures[place % 3]) for place in range(count)]
    with pytest.raises(AppError, match=says):
        client.predict(images=files, prompt=PROMPT, api_name="/rank", **weights)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "prompt is empty"),
        (" \n", "prompt is empty"),
        ("?! ...", "only punctuation"),
        ("word " * 5000, "5000 words"),
    ],
    ids=["empty", "blank", "punctuation", "long"],
)
def test_a_prompt_that_cannot_be_read_is_explained(
    client: Client, pictures: list[Path], prompt: str, says: str
) -> None:
    with pytest.raises(AppError, match=says):
        ask(client, pictures[0], prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "🐈‍⬛ on a 🪑",
        "قطة سوداء على كرسي",
        "שתי ציפורים",
        "a\tcat\non a\u00a0mat",
        '<b>bold</b> & "quoted"',
    ],
)
def test_prompts_of_all_kinds_keep_their_words(client: Client, pictures: list[Path], prompt: str) -> None:
    answer = ask(client, pictures[0], prompt)
    words = answer["words"]
    assert len(words) >= 2
    assert all(answer["prompt"][word["start"] : word["end"]] == word["text"] for word in words)
    assert all(0 <= word["probability"] <= 1 for word in words)


def bad_picture(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.png"
    if kind == "text":
        path.write_text("no picture")
    elif kind == "cut":
        photo(400, 300).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "huge":
        Image.new("1", (10_100, 10_000)).save(path)
    else:
        Image.new("RGB", {"small": (8, 8), "wide": (500, 100)}[kind]).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [("text", "text.png"), ("cut", "cut.png"), ("huge", "megapixels"), ("small", "at least 16"), ("wide", "4:1")],
)
def test_a_bad_picture_is_explained(client: Client, tmp_path: Path, kind: str, says: str) -> None:
    with pytest.raises(AppError, match=says) as raised:
        ask(client, bad_picture(tmp_path, kind))
    assert str(tmp_path) not in str(raised.value)


def test_no_picture_is_explained(client: Client) -> None:
    with pytest.raises(AppError, match="no picture yet"):
        client.predict(image=None, prompt=PROMPT, api_name="/feedback")


@pytest.mark.parametrize("name", ["cmyk.jpg", "deep.png", "alpha.png", "turned.jpg", "large.jpg"])
def test_uncommon_pictures_are_handled(client: Client, tmp_path: Path, name: str) -> None:
    path, picture = tmp_path / name, photo()
    sizes = ([96, 64], [96, 64])
    if name == "cmyk.jpg":
        picture.convert("CMYK").save(path)
    elif name == "deep.png":
        Image.fromarray((np.random.default_rng(0).random((64, 96)) * 65535).astype(np.uint16)).save(path)
    elif name == "alpha.png":
        picture.convert("RGBA").save(path)
    elif name == "turned.jpg":
        exif = Image.Exif()
        exif[274] = 6
        picture.save(path, exif=exif)
        sizes = ([64, 96], [64, 96])
    else:
        photo(3000, 1500).save(path)
        sizes = ([1024, 512], [3000, 1500])
    answer = ask(client, path)
    assert (answer["image_size"], answer["file_size"]) == sizes


def test_visitors_at_the_same_time_get_their_own_feedback(client: Client, predictor: Predictor, tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}" / "same-name.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        photo(80, 64, seed=10 + seed).save(path)
    prompts = [f"picture number {seed % 3}" for seed in range(6)]
    truth = [predictor.predict(path, prompt).scores for path, prompt in zip(paths, prompts, strict=True)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda pair: ask(client, *pair), zip(paths, prompts, strict=True)))
    for answer, prompt, scores in zip(answers, prompts, truth, strict=True):
        assert answer["prompt"] == prompt
        assert answer["scores"] == pytest.approx(scores, abs=1e-5)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the model really looked at, call by call; it still does."""
    calls: list[int] = []
    original = Predictor.predict_batch

    def count(self: Predictor, images: Any, *args: Any, **kwargs: Any) -> list[Feedback]:
        calls.append(len(images))
        return original(self, images, *args, **kwargs)

    monkeypatch.setattr(Predictor, "predict_batch", count)
    return calls


def test_only_what_is_new_is_computed(
    predictor: Predictor, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    service = FeedbackService(predictor, "tiny")
    first = service.examine(str(pictures[0]), PROMPT)
    assert service.examine(str(pictures[0]), PROMPT) is first
    found = service.examine_all([str(path) for path in pictures], PROMPT)
    assert found[0] is first
    assert service.examine(str(pictures[0]), PROMPT + " and a dog").key != first.key
    service.rank(found, ["a", "b", "c"], dict.fromkeys(SCORES, 1.0))
    assert calls == [1, 2, 1]


def test_the_same_picture_twice_is_looked_at_once(
    predictor: Predictor, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    found = FeedbackService(predictor, "tiny").examine_all([str(pictures[0])] * 3, PROMPT)
    assert len(found) == 3
    assert calls == [1]


def test_memory_is_bounded_and_files_go_with_it(predictor: Predictor, pictures: list[Path]) -> None:
    service = FeedbackService(predictor, "tiny", memory=Memory(2))
    for number in range(5):
        found = service.examine(str(pictures[0]), f"prompt {number}")
        service.report_file([found], "feedback")
        service.json_file(found.to_dict(), "feedback")
    assert len(list(service.folder.rglob("picture.jpg"))) == 2
    assert len(list(service.folder.rglob("feedback.*"))) == 4
    assert len([path for path in service.folder.iterdir() if path.is_dir()]) == 6


def test_what_goes_to_a_gpu_worker_can_be_pickled(predictor: Predictor) -> None:
    pixels = np.asarray(photo())
    arguments = pickle.loads(pickle.dumps(([pixels, pixels], PROMPT)))
    answer = pickle.loads(pickle.dumps(predictor.predict_batch(arguments[0], [arguments[1]] * 2)))
    assert answer[0].scores == pytest.approx(answer[1].scores, abs=1e-6)
    assert all(isinstance(heatmap, np.ndarray) for heatmap in answer[0].heatmaps.values())
    assert predict_seconds(*arguments, "more") > predict_seconds(arguments[0][:1], PROMPT) > 0


def test_why_a_picture_is_not_the_best() -> None:
    best = Feedback("p", (8, 8), {"plausibility": 0.9, "alignment": 0.8})
    other = Feedback("p", (8, 8), {"plausibility": 0.5, "alignment": 0.2})
    assert behind_best(best, other, {"plausibility": 1, "alignment": 1}) == "alignment 0.20 against 0.80 of the best"
    assert behind_best(best, other, {"plausibility": 2, "alignment": 1}) == "plausibility 0.50 against 0.90 of the best"
    assert behind_best(best, best, {"plausibility": 1}) is None
    assert reasons_of(best)[0].startswith("nothing stands out")


def test_reasons_are_given_for_the_thresholds_asked_for(predictor: Predictor, pictures: list[Path]) -> None:
    service = FeedbackService(predictor, "tiny")
    found = service.examine_all([str(path) for path in pictures[:2]], PROMPT)
    names, even = ["a", "b"], dict.fromkeys(SCORES, 1.0)
    for thresholds in (Thresholds(0.0, 0.0), Thresholds(0.45, 0.5), Thresholds(1.0, 1.0), Thresholds()):
        for ranked in service.rank(found, names, even, thresholds):
            feedback = ranked.examined.feedback
            words = feedback.word_threshold if thresholds.words is None else thresholds.words
            told = [reason for reason in ranked.reasons if not reason.endswith("of the best")]
            truth = feedback.reasons(thresholds.regions, words)
            if truth:
                assert told == truth
            else:
                assert told == [f"nothing stands out: no word from {words:.2f}, no region from 1.00 on"]
            item, row = ranked.item(), ranked.to_dict()
            assert item.told == (row["threshold"], row["word_threshold"]) == (thresholds.regions, words)
            assert row["against"] == truth
    everything = found[0].item(Thresholds(0.0, 0.0)).reasons
    assert everything[0] == "not shown: a, red, apple, and, two, cats"
    assert "(96x64 px)" in everything[1]


@pytest.mark.parametrize(
    "payload",
    [None, {}, {"threshold": 0.5}, {"threshold": "x", "words": 0.5}, {"threshold": [], "words": 0.5}],
)
def test_what_a_browser_sends_is_not_trusted(payload: Any) -> None:
    with pytest.raises(ValueError, match="move a slider again"):
        Thresholds.read(payload)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_thresholds_have_limits(value: float) -> None:
    for payload in ({"threshold": value, "words": 0.5}, {"threshold": 0.5, "words": value}):
        with pytest.raises(ValueError, match="from 0 to 1"):
            Thresholds.read(payload)


def test_what_is_on_the_page_is_recalled_whichever_weights_found_it(
    predictor: Predictor, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_predictor(word_threshold=0.3).model.save_pretrained(tmp_path / "tiny")
    first = FeedbackService(predictor, "tiny", memory=Memory(4))
    other = first.beside(str(tmp_path / "tiny"), "cpu")
    assert (other.weights, other.folder) == ("tiny", first.folder)  # one name, and yet not the same weights
    shown = [Shown(path.name, first.examine(str(path), PROMPT).key, str(path), PROMPT) for path in pictures[:2]]
    calls = counted(monkeypatch)
    found = other.recall(shown)
    assert [one.key for one in found] == [one.key for one in shown]
    assert not calls
    assert other.examine(str(pictures[0]), PROMPT).feedback.word_threshold == 0.3
    for number in range(3):  # so many that one of the two is forgotten
        first.examine(str(pictures[2]), f"prompt {number}")
    calls.clear()
    again = other.recall(shown)
    assert sum(calls) == 1  # the other one is known to these weights
    assert [one.feedback.word_threshold for one in again] == [0.3, 0.3]


def test_the_note_says_what_the_weights_have_seen_and_on_what_terms() -> None:
    embedded = FeedbackService(tiny_predictor(), "embedded").note
    assert "other words are not judged" in embedded
    assert "knows 199 nouns (1,185 words), 12 colours, counts to six, plain relations" in embedded
    assert "People: trained on 143 labelled pictures" in embedded
    assert "non-commercial" not in embedded
    terms = {"weights_license": "CC BY-NC 4.0", "weights_source": "a release"}
    public = FeedbackService(tiny_predictor(**terms), "converted").note
    assert public.startswith("Feedback by the converted weights (a release).")
    assert "non-commercial use only (CC BY-NC 4.0)" in public
    assert "composed" not in public


def test_the_note_under_a_result_says_who_judged(predictor: Predictor, pictures: list[Path]) -> None:
    service = FeedbackService(predictor, "embedded")
    plain = [service.examine(str(path), PROMPT) for path in pictures]
    assert service.note_on(plain) == service.note  # these weights have one judge only
    real = [replace(one, feedback=replace(one.feedback, judged_as="picture")) for one in plain]
    scene = replace(plain[0], feedback=replace(plain[0].feedback, judged_as="composed scene"))
    assert "Judged as a real picture. On real pictures the judge knows 199 nouns" in service.note_on(real)
    assert "Judged as a composed scene" not in service.note_on(real)
    assert "199 nouns" not in service.note_on([scene])
    mixed = service.note_on([scene, *real[1:]])
    assert "judged by two judges" in mixed
    assert "2 of 3: Judged as a real picture." in mixed
    assert "1 of 3: Judged as a composed scene" in mixed


def test_the_number_of_pictures_of_people_is_that_of_the_weights_card() -> None:
    card = Path(__file__).resolve().parents[2] / "weights.md"
    assert f"{PEOPLE} anatomy-labelled generated pictures" in card.read_text(encoding="utf-8")


def test_half_a_surrogate_pair_in_a_prompt_harms_nobody(predictor: Predictor, pictures: list[Path]) -> None:
    service = FeedbackService(predictor, "tiny")
    found = service.examine(str(pictures[0]), "half \ud83d pair")  # browsers can send it, gradio_client cannot
    assert [word.text for word in found.feedback.words] == ["half", "pair"]
    assert json.loads(service.json_file(found.to_dict(), "feedback").read_text(encoding="utf-8"))["prompt"]
    assert service.report_file([found], "feedback").is_file()


def test_weights_from_a_folder_are_named_without_their_path(predictor: Predictor, tmp_path: Path) -> None:
    predictor.model.save_pretrained(tmp_path / "mine")
    service = FeedbackService.load(str(tmp_path / "mine"), "cpu")
    photo().save(tmp_path / "photo.png")
    found = service.examine(str(tmp_path / "photo.png"), PROMPT)
    said = json.dumps(found.to_dict()) + service.note
    assert "mine" in said
    assert str(tmp_path) not in said
    assert found.feedback.scores == pytest.approx(predictor.predict(tmp_path / "photo.png", PROMPT).scores, abs=1e-5)


@pytest.mark.parametrize("damage", ["nothing there", "no config", "cut weights", "another model"])
def test_without_usable_weights_the_rest_of_the_app_works(predictor: Predictor, tmp_path: Path, damage: str) -> None:
    from app import create_demo, launch

    # Nobody else's: an app that closes deletes its uploads from the folder that all apps of a machine share.
    picture = tmp_path / "own.png"
    photo(96, 64, seed=4711).save(picture)
    folder = tmp_path / "weights"
    if damage != "nothing there":
        predictor.model.save_pretrained(folder)
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "cut weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "another model":
        (folder / "config.json").write_text('{"architectures": ["Other"]}')
    service = FeedbackService.load(str(folder), "cpu")
    assert service.predictor is None
    if damage != "nothing there":
        with pytest.raises(ValueError, match="RAHF_WEIGHTS"):
            service.examine(str(picture), PROMPT)
        return
    demo = create_demo(AnimationService(tiny_pipeline(), "tiny"), service)
    _, url, _ = launch(demo, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        client = Client(url, verbose=False, download_files=str(tmp_path), httpx_kwargs=PATIENT)
        with pytest.raises(AppError, match="RAHF_WEIGHTS"):
            ask(client, picture)
        video, _ = client.predict(photo=handle_file(picture), seconds=1, steps=1, size=128, api_name="/animate")
        assert video
    finally:
        demo.close()
