"""descriptions: rows join by key and digest only, import is idempotent, export and import are inverse."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt4image.describing.descriptions
import gpt4image.describing.missing
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, DataError, StoreError
from gpt4image.base.outcome import Skipped
from gpt4image.config import CheckConfig, ExportDescriptionsConfig, ImportDescriptionsConfig
from gpt4image.data.dataset import Dataset
from gpt4image.describing.descriptions import check, export_descriptions, import_descriptions
from loaded_sets import in_memory

KINDS = ("d.jsonl", "d.csv", "d.parquet")


def image_set(count: int, twins: bool = False) -> Dataset:
    contents = [f"image {number}".encode() for number in range(count)]
    if twins:
        contents[-1] = contents[0]
    return in_memory(contents, classes=("cat", "big_dog"))


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Five images, known as SPEC memory."""
    five = image_set(5)
    known_as_any_spec(monkeypatch, five)
    return five


def known_as_any_spec(patch: pytest.MonkeyPatch, images: Dataset) -> None:
    patch.setattr(gpt4image.describing.descriptions, "load_dataset", lambda _spec: images)
    patch.setattr(gpt4image.describing.missing, "load_with_splits", lambda _spec, **_fractions: images)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def bring(tmp_path: Path, rows: list[Any], **options: Any) -> Any:
    file = write_lines(tmp_path / "in.jsonl", rows)
    return import_descriptions(
        ImportDescriptionsConfig(store=tmp_path / "a.db", file=file, **{"data": "memory", **options})
    )


def pairs(store_path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with DescriptionStore(store_path) as store:
        for digest, text, _, _ in store.texts():
            found.setdefault(digest, []).append(text)
    return found


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(8)), dropped=st.sets(st.integers(0, 7)), doubled=st.lists(st.integers(0, 7)))
def test_shuffled_dropped_and_doubled_rows_never_shift_a_pairing(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], dropped: set[int], doubled: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("join")
    images = image_set(8)
    rows: list[Any] = [
        {"key": f"k{n}", "description": f"text {n}"}
        if n % 2
        else {"digest": images.digests[n], "description": f"text {n}"}
        for n in [*order, *doubled]
        if n not in dropped
    ]
    random.Random(0).shuffle(rows)
    file = write_lines(folder / "in.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        known_as_any_spec(patch, images)
        outcome = import_descriptions(ImportDescriptionsConfig(store=folder / "a.db", file=file, data="memory"))
    assert outcome.skipped == ()
    assert outcome.summary["added"] == 8 - len(dropped)
    assert outcome.summary["unchanged"] == len(rows) - outcome.summary["added"]
    assert pairs(folder / "a.db") == {images.digests[n]: [f"text {n}"] for n in range(8) if n not in dropped}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
results = st.builds(
    Description,
    digest=st.sampled_from(image_set(4).digests),
    prompt=st.builds(
        Prompt, st.sampled_from(["paper", "mine", "my-attributes"]), st.integers(1, 3), st.text("ab{}"), st.booleans()
    ),
    describer=st.dictionaries(st.sampled_from(["model", "t"]), st.one_of(st.text("xy"), st.integers(), st.booleans())),
    created=st.floats(0, 1e10),
    sample=st.integers(0, 2),
    text=texts,
    finish_reason=st.none() | st.just("stop"),
    tokens_in=st.none() | st.integers(0, 10**9),
    tokens_out=st.none() | st.integers(0, 10**9),
    cost_usd=st.none() | st.floats(0, 10),
    latency_s=st.none() | st.floats(0, 100),
)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(KINDS), st.lists(results, min_size=1, max_size=12))
def test_export_and_import_are_inverse(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rows: list[Description]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    with DescriptionStore(folder / "a.db", write=True) as store:
        store.add(rows)
        before = list(store.descriptions())
    export_descriptions(ExportDescriptionsConfig(store=folder / "a.db", file=folder / kind, data="memory"))
    for attempt in range(2):
        outcome = import_descriptions(ImportDescriptionsConfig(store=folder / "b.db", file=folder / kind))
        assert outcome.skipped == ()
        assert outcome.summary["added"] == (0 if attempt else len(before))
        with DescriptionStore(folder / "b.db") as store:
            assert list(store.descriptions()) == before


def test_every_bad_row_is_named_and_costs_no_good_one(tmp_path: Path, images: Dataset) -> None:
    rows = [
        {"key": "k0", "description": "a cat"},
        {"key": "nobody", "description": "a ghost"},
        {"key": "k1", "description": ""},
        {"key": "k2"},
        {"key": "k0", "description": "a cat"},
        {"key": "k0", "description": "not a cat"},
        {"description": "whose?"},
        {"digest": "xyz", "description": "short"},
        {"key": "k3", "description": "a dog", "tokens_in": 2**70},
        {"key": "k3", "description": "a dog", "created": float("nan")},
        {"key": "k4", "description": "a dog", "class_conditioned": True},
    ]
    outcome = bring(tmp_path, rows)
    assert outcome.summary == {
        "rows": 11,
        "added": 2,
        "unchanged": 1,
        "descriptions": 3,
        "unknown_keys": 1,
        "conflicting_texts": 1,
        "bad_rows": 6,
    }
    assert [item.name for item in outcome.skipped] == [f"in.jsonl, line {n}" for n in (2, 3, 4, 7, 8, 9, 10, 6)]
    reasons = {item.name: item.reason for item in outcome.skipped}
    assert "nobody" in reasons["in.jsonl, line 2"] and "another answer" in reasons["in.jsonl, line 6"]
    assert pairs(tmp_path / "a.db") == {images.digests[0]: ["a cat"], images.digests[4]: ["a dog"]}
    with DescriptionStore(tmp_path / "a.db") as store:
        assert [prompt.name for prompt, *_ in store.counts()] == ["class-conditioned", "imported"]
    again = bring(tmp_path, rows)
    assert again.summary["added"] == 0 and again.summary["unchanged"] == 3


def test_equal_files_under_several_keys_keep_the_text_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = image_set(3, twins=True)
    known_as_any_spec(monkeypatch, twins)
    rows = [{"key": f"k{number}", "description": f"text {number}"} for number in range(3)]
    for _ in range(2):
        assert bring(tmp_path, rows).skipped == ()
    assert pairs(tmp_path / "a.db") == {twins.digests[0]: ["text 0", "text 2"], twins.digests[1]: ["text 1"]}
    assert bring(tmp_path, [{"key": "k0", "description": "one too many"}]).summary["conflicting_texts"] == 1


def test_a_csv_file_says_what_an_exported_row_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_set(3)
    known_as_any_spec(monkeypatch, images)
    file = tmp_path / "d.csv"
    file.write_text(
        "key,description,prompt,prompt_text,class_conditioned,sample,cost_usd\n"
        'k0,"A cat, asleep.",mine,Tell of it.,TRUE,0,0.5\nk0,Some cat.,mine,Tell of it.,true,1,\n'
        "k1,A dog.,mine,It is a {class_name}.,false,,\nk2,A fox.,mine,,perhaps,,\nk2,A fox.,mine,,,-1,\n"
        "k2,A fox, awake.,mine,,,,\n",
        "utf-8-sig",
    )
    outcome = import_descriptions(ImportDescriptionsConfig(store=tmp_path / "a.db", file=file, data="memory"))
    assert [(item.name, item.reason) for item in outcome.skipped] == [
        ("d.csv, row 4", "class_conditioned must be of type bool, got 'perhaps'"),
        ("d.csv, row 5", "sample is out of range: -1"),
        ("d.csv, row 6", "more cells than columns; quote texts that hold a comma"),
    ]
    with DescriptionStore(tmp_path / "a.db") as store:
        rows = list(store.descriptions())
    assert {(row.text, row.sample, row.cost_usd) for row in rows} == {
        ("A cat, asleep.", 0, 0.5),
        ("Some cat.", 1, None),
        ("A dog.", 0, None),
    }
    assert all(row.prompt.class_conditioned for row in rows), "a prompt with a place for the class tells it"


def test_export_adds_every_key_and_filters_by_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = image_set(3, twins=True)
    known_as_any_spec(monkeypatch, twins)
    bring(tmp_path, [{"key": "k0", "description": "t0"}, {"key": "k1", "description": "t1"}], prompt="paper")
    bring(tmp_path, [{"key": "k0", "description": "other"}])
    outcome = export_descriptions(
        ExportDescriptionsConfig(store=tmp_path / "a.db", file=tmp_path / "out.jsonl", data="memory", prompt="paper")
    )
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {(row["key"], row["description"]) for row in rows} == {("k0", "t0"), ("k2", "t0"), ("k1", "t1")}
    assert outcome.summary == {"descriptions": 2, "rows": 3}
    with pytest.raises(StoreError, match="Did you mean 'paper'"):
        export_descriptions(
            ExportDescriptionsConfig(store=tmp_path / "a.db", file=tmp_path / "out.jsonl", prompt="papr")
        )


@pytest.mark.parametrize(
    "text", ["=1+1", "'=1+1", "''+x", "-a", "@a", "\ta", "\ra", "\na", "＝1", "'", "'twas", "x" * 200_000]
)
def test_a_csv_export_is_harmless_in_a_spreadsheet_and_comes_back_the_same(tmp_path: Path, text: str) -> None:
    prompt = Prompt("=mine()", 1, "", False)
    row = Description(digest="0" * 64, prompt=prompt, describer={"a": 1}, text=text, created=1.0, finish_reason="")
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([row])
    export_descriptions(ExportDescriptionsConfig(store=tmp_path / "a.db", file=tmp_path / "all.csv"))
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        csv.field_size_limit(2**31 - 1)
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n＝"))]
    outcome = import_descriptions(ImportDescriptionsConfig(store=tmp_path / "b.db", file=tmp_path / "all.csv"))
    assert outcome.skipped == ()
    with DescriptionStore(tmp_path / "b.db") as store:
        assert list(store.descriptions()) == [row]


def test_check_names_what_is_missing_extra_double_and_contradicting(
    tmp_path: Path, images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = Skipped(name="gone.jpg", reason="cannot be found: No such file or directory")
    partial = dataclasses.replace(images, skipped=(skipped,))
    known_as_any_spec(monkeypatch, partial)
    bring(tmp_path, [{"digest": "ab" * 32, "description": "orphan"}], data=None)
    with pytest.raises(StoreError, match="belongs to other images"):
        check(CheckConfig(store=tmp_path / "a.db", data="memory"))
    bring(tmp_path, [{"key": f"k{number}", "description": "the same"} for number in range(2)])
    bring(tmp_path, [{"key": "k2", "description": "one"}])
    bring(tmp_path, [{"key": "k2", "description": "another", "describer": "b"}])
    outcome = check(CheckConfig(store=tmp_path / "a.db", data="memory"))
    assert outcome.summary == {
        "images": 5,
        "images_described": 3,
        "images_without_description": 2,
        "images_skipped": 1,
        "descriptions_without_image": 1,
        "texts_of_several_images": 1,
        "images_with_conflicting_texts": 1,
    }
    assert [item.name for item in outcome.skipped] == ["gone.jpg", "k3", "k4"]
    for name in ("ab" * 32, "'the same'", "'k2'"):
        assert name in outcome.text


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"key": ["k0"], "caption": ["t"]}), path)


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        ("none.jsonl", lambda path: None, ConfigError, "no such file"),
        ("d.xlsx", lambda path: path.touch(), ConfigError, "unknown kind"),
        ("d.csv", lambda path: path.write_text("key,said\nk0,t\n"), DataError, "no column 'description', only key"),
        ("d.parquet", parquet, DataError, "only key, caption"),
        ("d.parquet", lambda path: path.write_bytes(b"PAR1 not really"), DataError, "cannot be read as Parquet"),
        ("folder", lambda path: path.mkdir(), ConfigError, "no such file"),
    ],
)
def test_files_that_cannot_be_imported_are_named(
    tmp_path: Path, name: str, make: Any, error: type[Exception], message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(error, match=message):
        import_descriptions(ImportDescriptionsConfig(store=tmp_path / "a.db", file=tmp_path / name, data="memory"))


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need --data"):
        bring(tmp_path, [{"key": "k0", "description": "t"}], data=None)
    with pytest.raises(DataError, match=r"no row belongs to memory.*'k0'"):
        bring(tmp_path, [{"key": "x/1", "description": "t"}, {"key": "x/2", "description": "t"}])
