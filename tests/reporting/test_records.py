from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.reporting.extras import Doubt, Example
from gpt4image.reporting.records import (
    Comparison,
    load_arm_runs,
    load_comparisons,
    load_items,
    load_run,
)
from synthetic_records import comparison_record, data_url, write_comparison, write_run


def example(picture: str) -> dict[str, object]:
    return {"key": "a", "split": "test", "picture": picture}


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_bitmaps_are_let_through(kind: str) -> None:
    assert Example.model_validate(example(data_url(kind=kind))).picture.startswith(f"data:image/{kind};base64,")


@pytest.mark.parametrize(
    "picture",
    [
        "https://example.org/x.png",
        "javascript:alert(1)",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:text/html;base64,AAAA",
        'data:image/png;base64,AAAA" onerror="alert(1)',
        "data:image/png;base64,AAAA\n",
        " data:image/png;base64,AAAA",
        "data:image/png;base64,",
    ],
)
def test_everything_else_is_no_picture(picture: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Example.model_validate(example(picture))


@given(st.text())
def test_no_text_that_could_leave_an_attribute_is_a_picture(tail: str) -> None:
    try:
        picture = Example.model_validate(example("data:image/png;base64," + tail)).picture
    except ValidationError:
        return
    assert not set(picture) & set("\"'<>& \n\t")


def test_a_pair_without_n_counts_the_seeds_its_arms_share() -> None:
    record = comparison_record(seeds=4)
    record["arms"]["aligned"]["seeds"] = [2, 3, 8, 9]
    for pair in record["pairs"]:
        del pair["n"]
    comparison = Comparison.model_validate(record)
    assert {pair.arm: pair.n for pair in comparison.pairs if pair.against == "baseline"} == {
        "aligned": 2,
        "text-labels": 4,
        "zero-shot": 4,
        "oracle": 4,
    }


def test_the_reference_is_the_baseline_or_else_the_first_arm() -> None:
    assert Comparison.model_validate(comparison_record()).reference == "baseline"
    record = comparison_record(means={"baseline": 0.3, "mine": 0.4})
    record["arms"] = {"theirs": record["arms"]["baseline"], "mine": record["arms"]["mine"]}
    record["pairs"] = []
    assert Comparison.model_validate(record).reference == "theirs"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": {}}, "arms"),
        ({"arms": {"baseline": {"seeds": [0, 1], "test": [0.5], "mean": 0.5}}}, "2 seeds but 1 test"),
        ({"arms": {"baseline": {"seeds": [0], "test": [float("nan")], "mean": 0.5}}}, "finite"),
        ({"pairs": [{"arm": "alined", "against": "baseline", "difference": 0.1}]}, "Did you mean 'aligned'"),
        ({"pairs": 3}, "pairs"),
        ({"pairs": ["x"]}, "pairs.0"),
        ({"metric": None}, "metric"),
        ({"arms": []}, "arms"),
        ({"arms": [], "pairs": [{"arm": "x", "against": "y", "difference": 0.1}]}, "not what it should hold"),
        ({"pairs": [{"arm": ["aligned"], "against": "baseline", "difference": 0.1}]}, "not what it should hold"),
        ({"comparisons": [1]}, "not what it should hold"),
    ],
)
def test_a_malformed_comparison_is_refused_by_name(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps({**comparison_record(), **change}))  # NaN, as a careless writer leaves it
    with pytest.raises(RunError, match=words) as error:
        load_comparisons(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"metric": "top1"', "\ufeff"])
def test_a_file_that_is_no_comparison_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(RunError, match=r"comparison\.json cannot be read"):
        load_comparisons(tmp_path)


def test_several_comparisons_keep_their_names_and_order(tmp_path: Path) -> None:
    record = comparison_record()
    write_json(tmp_path / "comparison.json", {**record, "comparisons": {"few": record, "all": record}})
    assert list(load_comparisons(tmp_path)) == ["few", "all"]


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", "aligned", top1=0.44))
    assert run.evaluation is not None
    assert run.evaluation.top1 == 0.44
    assert len(run.metrics) == 24
    assert run.metrics[0].align_loss is not None


def test_without_a_test_evaluation_the_validation_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    evaluation = read_json(folder / "evaluation-test.json") | {"split": "val"}
    (folder / "evaluation-test.json").unlink()
    assert load_run(folder).evaluation is None
    write_json(folder / "evaluation-val.json", evaluation)
    found = load_run(folder).evaluation
    assert found is not None
    assert found.split == "val"


@pytest.mark.parametrize("name", ["config.json", "environment.json", "metrics.jsonl", "run.json"])
def test_a_run_without_one_of_its_records_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).unlink()
    with pytest.raises(RunError, match=name):
        load_run(folder)


def test_a_malformed_evaluation_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_json(folder / "evaluation-test.json", read_json(folder / "evaluation-test.json") | {"support": [1]})
    with pytest.raises(RunError, match="other sizes"):
        load_run(folder)


def test_runs_that_are_missing_unfinished_or_outside_are_set_aside(tmp_path: Path) -> None:
    write_run(tmp_path / "outside")
    record = comparison_record(means={"baseline": 0.4, "aligned": 0.5})
    record["arms"]["baseline"]["runs"][0] = "../outside"
    record["arms"]["baseline"]["runs"][1] = "runs/missing"
    folder = tmp_path / "cmp"
    write_comparison(folder, comparison_record(means={"baseline": 0.4, "aligned": 0.5}))
    (folder / "runs/aligned-seed2/run.json").unlink()
    runs, set_aside = load_arm_runs(folder, Comparison.model_validate(record))
    assert [len(runs["baseline"]), len(runs["aligned"])] == [1, 2]
    reasons = {item.name: item.reason for item in set_aside}
    assert list(reasons) == ["../outside", "runs/missing", "runs/aligned-seed2"]
    assert "outside the comparison" in reasons["../outside"]
    assert "does not exist" in reasons["runs/missing"]
    assert "no finished run" in reasons["runs/aligned-seed2"]


def test_a_bad_item_costs_no_good_item(tmp_path: Path) -> None:
    path = tmp_path / "doubtful.json"
    good = {"key": "a", "picture": data_url(), "given": "cat", "text": "dog", "probability": 0.9}
    write_json(path, [good, {**good, "picture": "http://x"}, 5, good])
    items, set_aside = load_items(path, Doubt)
    assert len(items) == 2
    assert [item.name for item in set_aside] == ["doubtful.json[1]", "doubtful.json[2]"]
    assert load_items(tmp_path / "absent.json", Doubt) == ([], [])


def test_items_that_are_no_list_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "examples.json", {"a": 1})
    with pytest.raises(RunError, match="must hold a JSON list"):
        load_items(tmp_path / "examples.json", Example)
