"""Run records: a folder says what it is, and refuses to become something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.artifacts import runs
from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json
from gpt4image.config import TrainConfig
from held_folders import held_by_another


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
    for changed, message in (
        (record(seed=1), r"seed: 0 there, 1 now.*another --out"),
        (record(seed=1) | other_data, r"another configuration \(seed: 0 there, 1 now\)"),
        (record() | other_data, r"of other data: the images, labels or texts .* have changed since .*Bring back"),
    ):
        with pytest.raises(RunError, match=message):
            runs.start(tmp_path / "run", changed, {}, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / runs.MODEL).write_bytes(b"precious")
    with pytest.raises(RunError, match=r"holds 'model.safetensors', which a run would write over; give another --out"):
        runs.start(tmp_path / "mine", record(), {}, resume=False)


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "some" / "folder"
    monkeypatch.setattr(runs, "PATIENCE", 0.1)
    with held_by_another(folder) as process:
        said = rf"folder: another process \(id {process}\) trains here; wait until it is done or stop it"
        with pytest.raises(RunError, match=said), runs.writing(folder):
            pass
    with runs.writing(folder):  # the other one was killed
        (folder / "made").touch()
    assert [path.name for path in folder.iterdir()] == ["made"], "nothing is left of it"
    with pytest.raises(RunError, match="a mistake"), runs.writing(tmp_path / "new"):
        raise RunError("a mistake")
    assert not (tmp_path / "new").exists(), "nor an empty folder"


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
    assert runs.command() == words == runs.environment()["command"]
