"""Files of descriptions and answers: rows join by key and digest only, import is idempotent, export is its inverse."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import gpt4image.describing.descriptions
from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, DataError, StoreError
from gpt4image.base.outcome import Skipped
from gpt4image.config import DescribeConfig, ExportDescriptionsConfig, ImportDescriptionsConfig
from gpt4image.data import load_dataset
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describe import describe
from gpt4image.describing.descriptions import export_descriptions, import_descriptions
from gpt4image.describing.rows import Row, describer_settings, parse_line, parse_row, to_fields, write_rows
from openai_cases import answers_of, rows_of
from tables import write_lines
from worlds import in_memory

KINDS = ("d.jsonl", "d.csv", "d.parquet")


def bring(folder: Path, rows: list[Any] | Path, data: str | None = "memory", **options: Any) -> Any:
    file = rows if isinstance(rows, Path) else write_lines(folder / "in.jsonl", rows)
    return import_descriptions(ImportDescriptionsConfig(store=folder / "a.db", file=file, data=data, **options))


def export(folder: Path, name: str, **options: Any) -> Any:
    return export_descriptions(ExportDescriptionsConfig(store=folder / "a.db", file=folder / name, **options))


def pairs(folder: Path) -> dict[str, list[str]]:
    with DescriptionStore(folder / "a.db") as store:
        texts = list(store.texts())
    return {row.digest: [text.text for text in texts if text.digest == row.digest] for row in texts}


# One row


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "a row is an object"),
        ({"digest": "abc", "description": "x"}, "digest: .*64.*, got 'abc'"),
        ({"key": "a", "description": " \n"}, "the description is empty or missing"),
        ({"key": True, "description": "x"}, "key: .*string, got True"),
        ({"key": "a", "description": "x", "sample": -1}, "sample: .*greater than or equal to 0, got -1"),
        ({"key": "a", "description": "x", "cost_usd": float("nan")}, "cost_usd: .*finite"),
        ({"key": "a", "class": "cat", "tags": 3}, "tags: must be a list of texts"),
        ({"key": "a", "boxes": [{"label": "cat"}]}, "boxes: must be a list of objects with label and box_2d"),
        ({"key": "a", "boxes": "[[["}, "boxes: "),
        ({"key": "a", "class": None}, "description is empty"),
        ({"key": "a", "class": "cat", "asked": "no json"}, "asked: Invalid JSON"),
        ({"key": "a", "class": "cat", "asked": '{"ask": ["description"], "classes": []}'}, "description is empty"),
    ],
)
def test_what_is_no_row_is_named_with_its_reason(value: Any, reason: str) -> None:
    found = parse_row(value, "row 7")
    assert isinstance(found, Skipped) and found.name == "row 7" and re.search(reason, found.reason)


def test_a_describer_is_a_name_or_settings_as_json() -> None:
    assert parse_line(b" \n", "line 1") is None
    row = parse_line(b'\xef\xbb\xbf{"key": 7, "description": "x"}', "line 2")
    assert isinstance(row, Row) and row.key == "7", "numbers are keys, and a byte order mark is no text"
    assert describer_settings('{"kind": "x"}') == {"kind": "x"}
    for text in ("gpt-5", "[1]", "true", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000):
        assert describer_settings(text) == {"name": text}


@pytest.mark.parametrize("name", KINDS)
def test_a_write_that_fails_leaves_the_old_file_alone(name: str, tmp_path: Path) -> None:
    prompt = Prompt("paper", 1, "Describe it.", False)
    description = Description(digest="0" * 64, prompt=prompt, describer={"n": 1}, created=0.0, text="ü, \U0001f408\n")
    row = to_fields(description, "a.png")
    write_rows(tmp_path / name, [row])
    before = (tmp_path / name).read_bytes()

    def failing() -> Iterator[dict[str, Any]]:
        yield row
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        write_rows(tmp_path / name, failing())
    assert (tmp_path / name).read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(ConfigError, match=r"unknown kind of file '\.txt'"):
        write_rows(tmp_path / "a.txt", [])


# Descriptions


def dataset(count: int, twins: bool = False) -> Dataset:
    contents = [f"image {number}".encode() for number in range(count)]
    return in_memory([*contents[: count - twins], *contents[:twins]], classes=("cat", "big_dog"))


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Five images, known as SPEC memory."""
    return known(monkeypatch, dataset(5))


def known(patch: pytest.MonkeyPatch, images: Dataset) -> Dataset:
    patch.setattr(gpt4image.describing.descriptions, "load_dataset", lambda _spec: images)
    return images


def test_shuffled_dropped_and_doubled_rows_never_shift_a_pairing(tmp_path: Path, images: Dataset) -> None:
    names: list[Any] = [{"key": f"k{n}"} if n % 2 else {"digest": images.digests[n]} for n in range(5)]
    rows = [{**names[n], "description": f"text {n}"} for n in (4, 0, 3, 0, 1, 4)]
    outcome = bring(tmp_path, rows)
    assert outcome.skipped == () and (outcome.counted["added"], outcome.counted["unchanged"]) == (4, 2)
    assert pairs(tmp_path) == {images.digests[n]: [f"text {n}"] for n in (0, 1, 3, 4)}


def test_every_bad_row_is_named_and_costs_no_good_one(tmp_path: Path, images: Dataset) -> None:
    rows = [
        {"key": "k0", "description": "a cat"},
        {"key": "nobody", "description": "a ghost"},
        {"key": "k1", "description": ""},
        {"key": "k0", "description": "a cat"},
        {"key": "k0", "description": "not a cat"},
        {"description": "whose?"},
        {"digest": "xyz", "description": "short"},
        {"key": "k4", "description": "a dog", "class_conditioned": True},
    ]
    outcome = bring(tmp_path, rows)
    counts = {"rows": 8, "added": 2, "unchanged": 1, "descriptions": 3}
    assert outcome.counted == {**counts, "unknown_keys": 1, "conflicting_texts": 1, "bad_rows": 3}
    reasons = {int(item.name.removeprefix("in.jsonl, line ")): item.reason for item in outcome.skipped}
    assert [*reasons] == [2, 3, 6, 7, 5] and "nobody" in reasons[2] and "another answer" in reasons[5]
    assert pairs(tmp_path) == {images.digests[0]: ["a cat"], images.digests[4]: ["a dog"]}
    assert {row.prompt.name for row in rows_of(tmp_path / "a.db")} == {"class-conditioned", "imported"}
    again = bring(tmp_path, rows)
    assert (again.counted["added"], again.counted["unchanged"]) == (0, 3)


def test_equal_files_have_one_text_and_an_export_a_row_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins = known(monkeypatch, dataset(3, twins=True))
    rows = [{"key": f"k{number}", "description": f"text {number}"} for number in range(3)]
    outcome = bring(tmp_path, rows, prompt="paper")
    assert outcome.counted["conflicting_texts"] == 1
    assert pairs(tmp_path) == {twins.digests[0]: ["text 0"], twins.digests[1]: ["text 1"]}
    bring(tmp_path, [{"key": "k0", "description": "other"}])
    outcome = export(tmp_path, "out.jsonl", data="memory", prompt="paper")
    assert outcome.counted == {"descriptions": 2, "rows": 3}
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {(row["key"], row["description"]) for row in rows} == {("k0", "text 0"), ("k2", "text 0"), ("k1", "text 1")}
    with pytest.raises(StoreError, match="Did you mean 'paper'"):
        export(tmp_path, "out.jsonl", prompt="papr")


def test_a_csv_file_says_what_an_exported_row_says(tmp_path: Path, images: Dataset) -> None:
    (tmp_path / "d.csv").write_text(
        "key,description,prompt,prompt_text,class_conditioned,sample,cost_usd\n"
        'k0,"A cat, asleep.",mine,Tell of it.,TRUE,0,0.5\nk0,Some cat.,mine,Tell of it.,true,1,\n'
        "k1,A dog.,mine,It is a {class_name}.,false,,\nk2,A fox.,mine,,perhaps,,\nk2,A fox.,mine,,,-1,\n"
        "k2,A fox, awake.,mine,,,,\n",
        "utf-8-sig",
    )
    outcome = bring(tmp_path, tmp_path / "d.csv")
    assert [(item.name, item.reason.partition(":")[0]) for item in outcome.skipped] == [
        ("d.csv, row 4", "class_conditioned"),
        ("d.csv, row 5", "sample"),
        ("d.csv, row 6", "more cells than columns; quote texts that hold a comma"),
    ]
    rows, expected = (
        rows_of(tmp_path / "a.db"),
        {("A cat, asleep.", 0, 0.5), ("Some cat.", 1, None), ("A dog.", 0, None)},
    )
    assert {(row.text, row.sample, row.cost_usd) for row in rows} == expected
    assert all(row.prompt.class_conditioned for row in rows), "a prompt with a place for the class tells it"


def test_a_csv_export_is_harmless_in_a_spreadsheet_and_comes_back_the_same(tmp_path: Path) -> None:
    cells = ["=1+1", "'=1+1", "''+x", "-a", "@a", "\ta", "\ra", "\na", "＝1", "'", "'twas", "x" * 200_000]
    prompt, given = Prompt("=mine()", 1, "", False), {"describer": {"a": 1}, "created": 1.0, "finish_reason": ""}
    rows = [Description(digest=f"{n:064x}", prompt=prompt, text=text, **given) for n, text in enumerate(cells)]
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(rows)
    export(tmp_path, "all.csv")
    csv.field_size_limit(2**31 - 1)
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        assert not [cell for line in csv.reader(file) for cell in line if cell.startswith(tuple("=+-@\t\r\n＝"))]
    (tmp_path / "a.db").unlink()
    assert bring(tmp_path, tmp_path / "all.csv", data=None).skipped == () and rows_of(tmp_path / "a.db") == rows


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"key": ["k0"], "caption": ["t"]}), path)


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        ("none.jsonl", lambda path: None, ConfigError, "no such file"),
        ("d.xlsx", lambda path: path.touch(), ConfigError, "unknown kind"),
        ("d.csv", lambda path: path.write_text("key,said\nk0,t\n"), DataError, "no column 'description', only key"),
        ("d.parquet", parquet, DataError, "only key, caption"),
        ("d.csv", lambda path: path.write_bytes(b"key,description\nk0,\xff\n"), DataError, "not a CSV file in UTF-8"),
        ("d.parquet", lambda path: path.write_bytes(b"PAR1 not really"), DataError, "cannot be read as Parquet"),
        (
            "d.jsonl",
            lambda path: write_lines(path, [{"key": "x/1", "description": "t"}]),
            DataError,
            "no row belongs to memory.*'k0'",
        ),
    ],
)
def test_files_that_cannot_be_imported_are_named(
    tmp_path: Path, images: Dataset, name: str, make: Any, error: type[Exception], message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(error, match=message):
        bring(tmp_path, tmp_path / name)


# Structured answers

BOX = {"label": "cat", "box_2d": [10, 20, 500, 900.5], "truncated": True, "confidence": 0.5}
DOG = {"label": "dog", "box_2d": [0, 0, 1, 1]}
CSV_TEXT = "A cat, =1+1 “große”."
ROWS: list[dict[str, Any]] = [
    {"key": "cat/0.png", "class": "cat", "second": None, "confidence": 0.98},
    {"key": "cat/1.png", "class": "Big Dogs", "second": "cat", "confidence": 1e-5, "description": CSV_TEXT},
    {"key": "big_dog/0.png", "class": None, "confidence": 0.3, "tags": ["fur", "a, b", "|"]},
    {"key": "big_dog/1.png", "class": "wolf", "tags": [], "boxes": [BOX, DOG]},
    {"key": "owl/0.png", "description": "An owl."},
]
EXPECTED = {
    "cat/0.png": Answer(class_name="cat", confidence=0.98),
    "cat/1.png": Answer(class_name="big_dog", said="Big Dogs", second="cat", confidence=1e-5),
    "big_dog/0.png": Answer(confidence=0.3, tags=("fur", "a, b", "|")),
    "big_dog/1.png": Answer(said="wolf", tags=(), boxes=(BOX, DOG)),
}
ALL = "train,val,test"


@pytest.fixture
def pets(tmp_path: Path) -> str:
    for number, row in enumerate(ROWS):
        path = tmp_path / "pets" / row["key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), (number, 0, 0)).save(path)
    return f"folder:{tmp_path / 'pets'}"


def by_key(folder: Path, data: str) -> dict[str, Answer]:
    images = load_dataset(data)
    keys = dict(zip(images.digests, images.keys, strict=True))
    return {keys[one.digest]: one.answer for one in answers_of(folder / "a.db")}


def test_answers_are_imported_and_a_class_outside_the_list_is_counted(tmp_path: Path, pets: str) -> None:
    outcome = bring(tmp_path, ROWS, pets)
    facts = {"added": 5, "boxes": 2, "boxes_outside_list": 1, "class_in_list": 2, "class_none": 1}
    facts["class_outside_list"] = 1
    assert outcome.skipped == () and {name: outcome.counted[name] for name in facts} == facts
    assert by_key(tmp_path, pets) == EXPECTED
    one = answers_of(tmp_path / "a.db")[0]
    assert one.classes == ("big_dog", "cat", "owl") and one.describer == {"name": "imported"}
    assert bring(tmp_path, [{**ROWS[0], "class": "owl"}], pets).counted["conflicting_texts"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_comes_back_the_same(tmp_path: Path, pets: str, kind: str) -> None:
    bring(tmp_path, ROWS, pets)
    told = Prompt("my-own", 3, "It is a {class_name}.", True)
    paid: dict[str, Any] = {"finish_reason": "stop", "tokens_in": 10**9, "tokens_out": 0, "cost_usd": 0.1}
    given: dict[str, Any] = {"digest": "0" * 64, "describer": {"model": "x", "t": 1, "new": True}}
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(
            Description(**given, prompt=told, created=1e9 + 0.1, sample=n, text=text, **(paid if n else {}))
            for n, text in enumerate((" a\n\tb ", 'ü, "1" \U0001f408\u2028', "=1|[]"))
        )
    before, found = rows_of(tmp_path / "a.db"), answers_of(tmp_path / "a.db")
    export(tmp_path, kind)
    (tmp_path / "a.db").unlink()
    for added in (len(before), 0):
        outcome = bring(tmp_path, tmp_path / kind, None)
        assert outcome.skipped == () and outcome.counted["added"] == added
        assert rows_of(tmp_path / "a.db") == before and answers_of(tmp_path / "a.db") == found


def test_boxes_in_pixels_need_their_picture_and_keys_their_dataset(tmp_path: Path, pets: str) -> None:
    in_pixels = {"label": "cat", "box_2d": [10, 10, 20, 5]}
    rows = [{"digest": "a" * 64, "boxes": [BOX]}, {"key": "cat/0.png", "boxes": [in_pixels]}]
    outcome = bring(tmp_path, rows, pets, box_format="xywh-original")
    assert by_key(tmp_path, pets)["cat/0.png"].boxes == ({"label": "cat", "box_2d": [250, 500, 750, 750]},)
    assert outcome.counted["added"] == 1 and "picture cannot be read" in outcome.skipped[0].reason
    for data, options, message in (
        (None, {"box_format": "xyxy-original"}, "needs --data"),
        (None, {}, "need --data"),
        (pets, {"box_format": "xyxy-sent"}, "is not one of: xywh-1,"),
    ):
        with pytest.raises(ConfigError, match=message):
            bring(tmp_path, rows, data, **options)


def test_replay_brings_what_is_asked_for(tmp_path: Path, pets: str) -> None:
    file = write_lines(tmp_path / "in.jsonl", [*ROWS[:4], {**ROWS[4], "class": "owl", "confidence": 0.5}])

    def replay(ask: str, store: str = "a.db") -> Any:
        config: Any = {"data": pets, "store": tmp_path / store, "describer": f"replay:{file}", "splits": ALL}
        return describe(DescribeConfig(**config, ask=ask))

    summary = replay("class")
    assert (summary.described, summary.details["class_outside_list"]) == (5, 1)
    assert by_key(tmp_path, pets)["cat/1.png"] == EXPECTED["cat/1.png"]
    assert replay("class").already_described == 5
    both = replay("description,class", "b.db")
    assert (both.described, both.without_description) == (2, 3)
    assert replay("boxes", "c.db").described == 1
    assert answers_of(tmp_path / "c.db")[0].answer.boxes == EXPECTED["big_dog/1.png"].boxes
    assert replay("description", "d.db").described == 2
    with pytest.raises(ConfigError, match=r"no row has .*; leave it out: --ask description"):
        file.write_text('{"key": "cat/0.png", "description": "A cat."}\n')
        replay("description,tags", "e.db")
