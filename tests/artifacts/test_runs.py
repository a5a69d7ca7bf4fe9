"""Run records: a folder says what it is, and refuses to become something else."""

import re
from pathlib import Path

import pytest

from distilling_cases import made
from gpt4image.artifacts import runs
from gpt4image.artifacts.comparisons import Comparison, load_arm_runs
from gpt4image.artifacts.environment import command, environment
from gpt4image.artifacts.runs import load_run
from gpt4image.artifacts.stage_records import StageRecords, changed
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Skipped
from gpt4image.config import TrainConfig
from gpt4image.config.results import LabelResult
from synthetic_records import comparison_record, write_comparison, write_run


def record(**changes: object) -> dict[str, object]:
    config = TrainConfig(data="openmoji", out=Path("run"), **changes)  # type: ignore[arg-type]
    return config.model_dump(mode="json") | {"arm": "baseline", "chosen": {}, "data_fingerprint": "x"}


def test_a_folder_is_started_once_and_resumed_only_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    runs.start(tmp_path / "run", record(), {"device": "cpu"}, resume=False)
    made = read_json(tmp_path / "run" / runs.ENVIRONMENT)
    assert made["device"] == "cpu" and made["torch"] and made["cores"] >= 1
    runs.start(tmp_path / "run", record(workers=3), {}, resume=True)
    with pytest.raises(RunError, match="already holds a run"):
        runs.start(tmp_path / "run", record(), {}, resume=False)
    other_data = {"data_fingerprint": "y"}
    for other, message in (
        (record(seed=1), r"seed: 0 there, 1 now.*another --out"),
        (record(seed=1) | other_data, r"another configuration \(seed: 0 there, 1 now\)"),
        (record() | other_data, r"of other data: the images, labels or texts .* have changed since .*Bring back"),
    ):
        with pytest.raises(RunError, match=message):
            runs.start(tmp_path / "run", other, {}, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / runs.MODEL).write_bytes(b"precious")
    with pytest.raises(RunError, match=r"holds 'model.safetensors', which a run would write over; give another --out"):
        runs.start(tmp_path / "mine", record(), {}, resume=False)


def test_a_set_of_other_classes_than_the_run_is_refused_by_the_first_that_differs(small_run: Path):
    runs.require_classes(small_run, ("animal", "food", "vehicle"))
    with pytest.raises(RunError, match="class 0 is 'animal' there and 'vehicle' here; it has 3, the dataset 3"):
        runs.require_classes(small_run, ("vehicle", "food", "animal"))
    with pytest.raises(RunError, match="classes than the dataset has: it has 3, the dataset 2"):
        runs.require_classes(small_run, ("animal", "food"))


@pytest.mark.parametrize(
    ("program", "words"), [("/usr/bin/gpt4image", "gpt4image train --out 'a run'"), ("/home/me/notebook.py", "")]
)
def test_a_command_is_recorded_where_there_was_one(monkeypatch: pytest.MonkeyPatch, program: str, words: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "train", "--out", "a run"])
    assert command() == words == environment()["command"]


def test_a_run_is_read_whole_by_the_test_split_or_else_by_validation(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "aligned", top1=0.44)
    run = load_run(folder)
    assert run.evaluation is not None and (run.evaluation.metric, run.evaluation.score) == ("top1", 0.44)
    assert set(run.evaluation.scores) == {"top1", "top5", "ece", "mean_class_accuracy"}, "the loss is no metric"
    assert len(run.metrics) == 24 and run.metrics[0].losses.keys() == {"task", "align"}
    evaluation = read_json(folder / "evaluation-test.json")
    (folder / "evaluation-test.json").unlink()
    assert load_run(folder).evaluation is None
    write_json(folder / "evaluation-val.json", evaluation | {"split": "val", "metric": "ece", "titles": {"ece": "x"}})
    found = load_run(folder).evaluation
    assert found is not None and (found.split, found.metric, found.scores) == ("val", "ece", {"ece": 0.041})


def test_a_file_is_no_run_and_the_run_in_a_folder_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "made" / "run")
    (tmp_path / "t.parquet").touch()
    for name, words in {"t.parquet": "is a file, no run", "made": f"give {tmp_path / 'made' / 'run'}"}.items():
        with pytest.raises(RunError, match=re.escape(words)):
            load_run(tmp_path / name)


def test_runs_that_are_missing_unfinished_or_outside_are_skipped(tmp_path: Path) -> None:
    write_run(tmp_path / "outside")
    record = comparison_record(means={"baseline": 0.4, "aligned": 0.5})
    folder = write_comparison(tmp_path / "cmp", record)
    record["arms"]["baseline"]["runs"][:2] = ["../outside", "runs/missing"]
    (folder / "runs/aligned-seed2/run.json").unlink()
    runs, skipped = load_arm_runs(folder, Comparison.model_validate(record))
    assert [len(runs["baseline"]), len(runs["aligned"])] == [1, 2]
    reasons = {item.name: item.reason for item in skipped}
    assert list(reasons) == ["../outside", "runs/missing", "runs/aligned-seed2"]
    for reason, words in zip(
        reasons.values(), ("outside the comparison", "does not exist", "no finished run"), strict=True
    ):
        assert words in reason


def test_what_came_of_a_stage_is_found_by_what_it_was_made_of_where_both_name_it(tmp_path: Path) -> None:
    records = StageRecords(tmp_path)
    assert records.begun("label") is None and records.finished("label", {"k": 1}) is None
    records.write_options({"epochs": 3})
    records.begin("label", {"a": (1,)})
    done = made(
        LabelResult,
        path=tmp_path / "x",
        coverage=0.5,
        page=tmp_path / "x.html",
        notes=["n"],
        text="t",
        skipped=(Skipped(name="1", reason="r"),),
    )
    records.finish("label", {"k": 1, "more": 2}, done)
    again = StageRecords(tmp_path)
    assert (
        again.options == {"epochs": 3} and not changed(again.begun("label"), {"a": [1]}) and again.is_finished("label")
    )
    assert again.finished("label", {"k": 1}) == done
    assert again.finished("label", {"k": 2}) is None and again.finished("label", {"k": 1, "new": 3}) is None
    again.begin("label", {"b": 1})
    assert StageRecords(tmp_path).finished("label", {"k": 1}) is None
    assert not StageRecords(tmp_path).is_finished("label")
