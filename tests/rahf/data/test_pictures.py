"""Tables of real pictures: reading, groups, labels; and captions with swapped words."""

import json
import math
from pathlib import Path

import pytest

from rahf.data.captions import make_examples, nouns_shown
from rahf.data.pictures import (
    Picture,
    adherence_checks,
    anomaly_shares,
    fold_of,
    read_pictures,
    severity,
)

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "pictures"


def checked(name: str, scene: str, *answers: tuple[str, str, int]) -> Picture:
    checks = [{"category": kind, "element": "Cat", "check": check, "ok": ok} for kind, check, ok in answers]
    return Picture("checks", name, Path(name), "a cat", {"scene": scene, "checks": checks})


def photograph(name: str, *captions: str, boxes: list[list[object]] | None = None) -> Picture:
    labels = {"captions": list(captions), "boxes_xywh_orig": boxes or [], "orig_size": [100, 100]}
    return Picture("photographs", name, Path(name), captions[0], labels)


def test_tables_are_read_once_a_file(tmp_path: Path) -> None:
    rows = [{"file": "a/1.jpg", "prompt": "a cat"}, {"file": "a/2.jpg"}, {"file": "a/1.jpg", "prompt": "again"}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text('{"real": "a/1.jpg", "generated": "a/2.jpg"}\n', encoding="utf-8")
    found = read_pictures(tmp_path)
    assert [(one.file, one.prompt, one.key) for one in found] == [("a/1.jpg", "a cat", "a/1"), ("a/2.jpg", "", "a/2")]
    assert found[0].path == tmp_path / "a/1.jpg"


@pytest.mark.parametrize(
    ("line", "message"), [("{", "is not JSON"), ("[1]", "not a JSON object"), ('{"file": 3}', "`file` is 3")]
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"a.jsonl, line 1.*{message}"):
        read_pictures(tmp_path)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no anatomy\.jsonl"):
        read_pictures(tmp_path, ["anatomy"])
    with pytest.raises(ValueError, match=r"no \.jsonl table"):
        read_pictures(tmp_path)


def test_checks_that_never_vary_are_dropped() -> None:
    pictures = [
        checked("1", "s", ("Anomalies", "paws", 1), ("Anomalies", "ears", 0), ("Prompt adherence", "blue", 1)),
        checked("2", "s", ("Anomalies", "paws", 0), ("Anomalies", "ears", 0), ("Prompt adherence", "blue", 0)),
        checked("3", "other", ("Anomalies", "ears", 1), ("Prompt adherence", "blue", 1)),  # alone in its scene
    ]
    assert anomaly_shares(pictures) == {"1": 1.0, "2": 0.0}
    assert [(one.file, check, shown) for one, _, check, shown in adherence_checks(pictures)] == [
        ("1", "blue", True),
        ("2", "blue", False),
    ]


def test_severity_is_the_mean_of_the_annotators() -> None:
    labels = {"annotators": [[{"persons": 2, "severity": 0.5}, {"persons": 1, "severity": 1.0}], []]}
    assert severity(Picture("anatomy", "1", Path("1"), "runner", labels)) == pytest.approx(1.0)


def test_groups_keep_twins_together() -> None:
    assert checked("1", "s").group == checked("2", "s").group != checked("3", "t").group
    assert Picture("x", "1", Path("1"), "p", {"generator": "g"}).group == "generator g"
    assert photograph("a/000000000139.jpg", "a cat").group == f"fifth {fold_of('elsewhere/000000000139.png')}"


def test_what_captions_or_boxes_name_is_never_wrong() -> None:
    pictures = [
        photograph("1", "a black cat and two dogs", "a white cat", boxes=[["bicycle", 1, 1, 5, 5]]),
        photograph("2", "a red bus near a bicycle", "five zebras"),
    ]
    assert nouns_shown(pictures[0]) == {"cat", "dog", "bicycle"}
    for seed in range(20):
        for one in make_examples(pictures, seed):
            if one.term.kind == "noun" and not one.shown:
                assert one.term.value not in nouns_shown(pictures[one.place])
            if one.term.kind == "colour" and not one.shown and one.place == 0:
                assert one.term.value not in ("black", "white")


def test_swapped_nouns_are_as_frequent_as_those_of_captions() -> None:
    pictures = [photograph(str(n), "a cat" if n % 4 else "a giraffe") for n in range(400)]
    wrong = [one.term.value for one in make_examples(pictures) if not one.shown]
    assert set(wrong) == {"cat", "giraffe"}
    assert len(wrong) == 400  # every caption has a swapped one


def test_relations_come_from_boxes_that_lie_apart() -> None:
    apart = photograph("1", "a cat", boxes=[["cat", 0, 40, 10, 10], ["dog", 80, 45, 10, 10]])
    close = photograph("2", "a cat", boxes=[["cat", 40, 40, 10, 10], ["dog", 42, 45, 10, 10]])
    found = [one for one in make_examples([apart, close]) if one.term.kind == "relation"]
    told = {(one.place, one.term.nouns[0], one.term.value, one.shown) for one in found}
    assert told in (
        {(0, "cat", "left", True), (0, "cat", "right", False)},
        {(0, "dog", "right", True), (0, "dog", "left", False)},
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled pictures are not beside the repository")
def test_the_shared_tables_are_as_documented() -> None:
    pictures = read_pictures(SHARED)
    scenes = [one for one in pictures if "checks" in one.labels]
    assert len({one.group for one in scenes}) == 4
    assert len(anomaly_shares(scenes)) == len(scenes) == 969
    people = [one for one in pictures if "annotators" in one.labels]
    assert len(people) == 143
    assert len({one.group for one in people}) == 6
    assert all(math.isfinite(severity(one)) and severity(one) >= 0 for one in people)
    folds = {one.group for one in pictures if "captions" in one.labels}
    assert folds == {f"fifth {n}" for n in range(5)}
