"""Tables of prompts: the right prompt, or a sentence with the line; never another one in silence."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rahf.data.prompt_tables import MAX_FIELD, assign_prompts, missing_prompt, normal_name, read_prompts

CASES = Path(__file__).resolve().parents[4] / "shared" / "data" / "cases"
HEAD = "filename,prompt\n"


def table(folder: Path, text: str | bytes, suffix: str = ".csv") -> Path:
    path = folder / f"prompts{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("suffix", "text", "says"),
    [
        (
            ".csv",
            HEAD + "a.png,two bears, a red balloon\n",
            "line 2 of .* has 3 fields and the first line 2; put a text",
        ),
        (".csv", HEAD + '\n\na.png,x\n"b.png","y"\nc.png,"one\ntwo"\nd.png,e,f\n', "line 8 of .* has 3 fields"),
        (".csv", HEAD + "a.png\n", "line 2 of .* has no prompt"),
        (".csv", HEAD + "a.png,\n", "line 2 of .* has no prompt"),
        (".csv", HEAD + ",two bears\n", "line 2 of .* has no filename"),
        (".csv", HEAD + 'a.png,"two bears\nb.png,one\n', "line 2 of .* is no row of a CSV table"),
        (".csv", HEAD + 'a.png,"two" bears\n', "line 2 of .* is no row of a CSV table"),
        (".csv", "filename;prompt\na.png;two bears\n", "line 1 of .* separates its columns by semicolons; save it"),
        (".csv", "filename\tprompt\na.png\ttwo bears\n", "line 1 of .* separates its columns by tabs"),
        (".csv", '"filename";"prompt"\n"a.png";"x"\n', "line 1 of .* separates its columns by semicolons"),
        (".csv", "filename,prompt,prompt\na.png,x,y\n", "has two columns 'prompt'"),
        (".csv", "", "has no column 'filename'"),
        (".csv", HEAD + "a.png,two\nb.png,x\na.png,three\n", "line 4 of .* gives a.png another prompt than line 2 of"),
        (
            ".csv",
            HEAD + "./sub\\a.png,two\nsub/a.png,three\n",
            "line 3 of .* gives sub/a.png another prompt than line 2",
        ),
        (
            ".csv",
            HEAD + f"a.png,{'x' * (MAX_FIELD + 1)}\n",
            "line 2 of .* has a prompt of 20001 letters; the limit is 20000",
        ),
        (".csv", HEAD + f"a.png,{'x' * 200_000}\n", "line 2 of .* is no row of a CSV table"),
        (".csv", HEAD + "a.png,two\0bears\n", "line 2 of .* holds a NUL"),
        (".csv", b"filename,prompt\na.png,x\nB\xe4r.png,y\n", "line 3 of .* is not UTF-8"),
        (".json", '{"a.png": "x",\n "b.png": null}', "line 2 of .* has no prompt"),
        (".json", '{"a.png":\n ["two bears"]}', r'line 1 of .* has \["two bears"\] as its prompt, which is no text'),
        (".json", '{"a.png": 7}', "line 1 of .* has 7 as its prompt"),
        (".json", '{"a.png": "x",\n\n "a.png": "y"}', "line 3 of .* gives a.png another prompt than line 1"),
        (".json", '{"a.png": "x",}', "line 1 of .* is not JSON"),
        (".json", "[" * 100_000, "too deep"),
        (".json", '{"a.png": ' + "9" * 5000 + "}", "a number too long"),
        (".json", "[1]", "must hold one JSON object"),
        (".json", '{"a.png": "\\ud800"}', "half of a surrogate pair"),
        (
            ".jsonl",
            '{"filename": "a.png", "prompt": "x"}\n{"filename": "b.png", "prompt": null}',
            "line 2 of .* has no prompt",
        ),
        (".jsonl", '\n{"filename": "a.png", "prompt": "x"', "line 2 of .* is not JSON"),
        (".jsonl", '{"filename": "a.png", "prompt": "x", "prompt": "y"}', "line 1 of .* has two columns 'prompt'"),
        (".jsonl", '["filename", "prompt"]', "line 1 of .* has no column 'filename'"),
        (".jsonl", '{"filename": "a.png", "prompt": 3}', "line 1 of .* has 3 as its prompt"),
    ],
)
def test_what_could_be_mistaken_is_told_with_its_line(
    tmp_path: Path, suffix: str, text: str | bytes, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_prompts(table(tmp_path, text, suffix))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("suffix", "text", "prompts"),
    [
        (".csv", HEAD + 'a.png,"two bears, a red balloon"\n', {"a.png": "two bears, a red balloon"}),
        (".csv", 'filename, prompt\na.png, "two bears, one"\n', {"a.png": "two bears, one"}),
        (".csv", "seed,prompt,filename\r\n7,two bears,a.png\r\n\r\n", {"a.png": "two bears"}),
        (".csv", HEAD + 'a.png,"one ""red""\nballoon"\n', {"a.png": 'one "red"\nballoon'}),
        (".csv", HEAD + "a.png,two bears\na.png,two bears\n", {"a.png": "two bears"}),
        (".csv", HEAD + "a.png,one\u2028two\u0085\n", {"a.png": "one\u2028two\u0085"}),
        (".csv", (HEAD + "a.png,ein Bär\n").encode("utf-8-sig"), {"a.png": "ein Bär"}),
        (".csv", (HEAD + "a.png,ein Bär\n").encode("utf-16"), {"a.png": "ein Bär"}),
        (".CSV", HEAD + "sub\\a.png,x\n", {"sub/a.png": "x"}),
        (".json", '{"cafe\u0301.png": "a cup"}', {"café.png": "a cup"}),
        (".jsonl", '{"filename": "a.png", "prompt": "one\u2028two"}\r\n\n', {"a.png": "one\u2028two"}),
    ],
)
def test_what_spreadsheets_and_programs_write_is_read(
    tmp_path: Path, suffix: str, text: str | bytes, prompts: dict[str, str]
) -> None:
    assert read_prompts(table(tmp_path, text, suffix)) == prompts


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside this checkout")
def test_reported_tables() -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_prompts(CASES / "csv-comma" / "prompts.csv")
    with pytest.raises(ValueError, match=r"line 1 of .* has no prompt"):
        read_prompts(CASES / "json-null" / "prompts.json")
    (prompt,) = read_prompts(CASES / "jsonl-u2028" / "prompts.jsonl").values()
    assert prompt.startswith("two bears")


def test_names_are_compared_composed_and_with_either_slash() -> None:
    stored = [unicodedata.normalize("NFD", "café.png"), "sub/a.png", "sub/b.png"]
    table = {"café.png": "a cup", "sub\\a.png": "a bear", "./sub/b.png": "a bus"}
    assert assign_prompts(stored, table) == dict(zip(stored, table.values(), strict=True))
    assert normal_name(stored[0]) == "café.png"


def test_a_shortened_name_never_stands_for_another_picture() -> None:
    files = ["a.png", "deep/a.png", "deep/b.png", "c.png", "c.jpg", "other/d.png"]
    found = assign_prompts(files, {"a.png": "A", "b.png": "B", "c": "C", "d": "D"})
    assert found == {"a.png": "A", "deep/b.png": "B", "other/d.png": "D"}
    assert missing_prompt("deep/a.png", {"a.png": "A"}) == (
        "there is no prompt for deep/a.png: a.png fits several pictures; write it with its folder and ending"
    )
    assert missing_prompt("x.png", {"a.png": "A"}) == "there is no prompt for x.png"
    assert assign_prompts(["one/a.png", "two/a.png"], {"a.png": "A", "two/a": "B"}) == {"two/a.png": "B"}
    with pytest.raises(ValueError, match=r"sub/a\.png has two prompts"):
        assign_prompts(files, {"sub/a.png": "A", "sub\\a.png": "B"})


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\/"), min_size=1, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=4), suffix=st.sampled_from([".csv", ".json", ".jsonl"]))
def test_what_is_written_properly_is_read_as_it_was(tmp_path: Path, rows: dict[str, str], suffix: str) -> None:
    rows = {name: text for name, text in rows.items() if name == name.strip() and normal_name(name) == name}
    if suffix == ".csv":
        written = io.StringIO(newline="")
        csv.writer(written, quoting=csv.QUOTE_ALL).writerows([("filename", "prompt"), *rows.items()])
        text = written.getvalue()
    elif suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False)
    else:
        text = "\n".join(json.dumps({"filename": name, "prompt": prompt}) for name, prompt in rows.items())
    assert read_prompts(table(tmp_path, text, suffix)) == rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from(
        [b"", HEAD.encode(), b"\xff\xfe", b"\xef\xbb\xbf", b'{"a.png":', b'{"filename": "a", "prompt":']
    ),
    body=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))),
    suffix=st.sampled_from([".csv", ".json", ".jsonl"]),
)
def test_any_bytes_give_prompts_or_a_sentence(tmp_path: Path, head: bytes, body: bytes, suffix: str) -> None:
    path = table(tmp_path, head + body, suffix)
    try:
        prompts = read_prompts(path)
    except ValueError as error:
        prompts = {"prompts": str(error)}
    assert all(isinstance(text, str) and text for text in prompts.values())
