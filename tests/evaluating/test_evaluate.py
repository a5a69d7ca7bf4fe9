"""Measuring a finished run: accuracy needs no texts, and what could not be measured is tried again."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trained_runs
from gpt4image import cli
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import EvaluateConfig, PredictConfig, TrainConfig
from gpt4image.config.results import PredictResult
from gpt4image.data import load_with_splits
from gpt4image.deploying.predict import predict
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.training import prepare
from gpt4image.training.train import train
from tables import make_table

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def write_table(folder: Path, table: Path, splits: tuple[str, ...]) -> None:
    """Describe the images of some splits."""
    default = {name: TrainConfig.model_fields[name].default for name in ("val_fraction", "test_fraction")}
    rng, images = np.random.default_rng(0), load_with_splits(f"folder:{folder}", **default)
    chosen = [digest for digest, split in zip(images.digests, images.splits, strict=True) if split in splits]
    shutil.rmtree(table, ignore_errors=True)
    make_table(table, {digest: list(rng.normal(size=(1, 12))) for digest in chosen})


def trained(spec: str, out: Path, **options: Any) -> Path:
    short = {**trained_runs.SHORT, **trained_runs.TINY_RESNET, "image_size": 16, "memory_format": "contiguous"}
    train(TrainConfig(**{**short, "data": spec, "out": out, **options}))
    return out


@pytest.fixture
def run(colour_folder: Path, tmp_path: Path) -> Path:
    """A run aligned to descriptions of training and validation images."""
    write_table(colour_folder, tmp_path / "table", ("train", "val"))
    return trained(f"folder:{colour_folder}", tmp_path / "run", embeddings=tmp_path / "table")


@pytest.fixture
def measured(small_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that was measured on its test split."""
    return Path(shutil.copytree(small_run, tmp_path / "measured"))


def test_what_could_not_be_measured_is_measured_when_it_can_be_and_accuracy_without_a_table(
    run: Path, colour_folder: Path, tmp_path: Path
) -> None:
    by_validation = evaluate(EvaluateConfig(run_dir=run))  # no test image is described
    assert "retrieval" not in by_validation.not_measured
    assert 0 <= by_validation.scores["text_to_image_recall:1"] <= 1
    (run / "evaluation-test.json").unlink()
    write_table(colour_folder, tmp_path / "table", ("train",))
    assert "no two images of test or val" in evaluate(EvaluateConfig(run_dir=run)).not_measured["retrieval"]
    write_table(colour_folder, tmp_path / "table", ("train", "test"))
    outcome = evaluate(EvaluateConfig(run_dir=run))
    assert "text_to_image_recall:1" in outcome.scores and "retrieval" not in outcome.not_measured
    (run / "evaluation-test.json").unlink()
    shutil.rmtree(tmp_path / "table")
    outcome = evaluate(EvaluateConfig(run_dir=run))
    assert 0 <= outcome.scores["top1"] <= 1 and outcome.note is None
    assert outcome.not_measured["retrieval"]


def test_copies_of_test_images_in_train_are_told_by_the_run_and_by_its_score(
    colour_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("blue", "green", "red"):
        for split, number in (("train", "00"), ("train", "01"), ("test", "00"), ("test", "02")):
            (tmp_path / "split" / split / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(colour_folder / kind / f"{number}.png", tmp_path / "split" / split / kind)
    said = "3 of 6 test images are byte for byte in train"
    run = trained(f"folder:{tmp_path / 'split'}", tmp_path / "run", val_fraction=0.0, batch_size=3, epochs=1)
    assert said in capsys.readouterr().err.split("train on")[0], "before training"
    assert said in " ".join(runs.read_config(run)["notes"])
    for _ in range(2):  # measured, and read from its record
        outcome = evaluate(EvaluateConfig(run_dir=run))
        assert said in outcome.note
        assert outcome.behind("top1").startswith(" on 6 images (95 % interval 0.") and outcome.behind("labelled") == ""
    shutil.copytree(tmp_path / "split", tmp_path / "other")
    outcome = evaluate(EvaluateConfig(run_dir=run, data=f"folder:{tmp_path / 'other'}"))
    assert outcome.note is None, "the run has not seen the train split of that dataset"


def test_a_set_without_splits_is_measured_whole_unless_it_is_the_one_of_the_run(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colour_folder.parent)
    out = trained(colour_folder.name, tmp_path / "run", epochs=1)
    monkeypatch.chdir(tmp_path)

    def images(*splits: str, data: Path | None = None) -> list[tuple[int, bool]]:
        given = [evaluate(EvaluateConfig(run_dir=out, split=split, data=data and str(data))) for split in splits]
        return [(one.labelled, "would raise" in (one.note or "") or "raises" in (one.note or "")) for one in given]

    every, (own, _) = (
        len(load_with_splits(f"folder:{colour_folder}", val_fraction=0, test_fraction=0)),
        *images("test", data=colour_folder),
    )
    assert images("all", data=colour_folder) == [(every, True)]
    moved = Path(shutil.copytree(colour_folder, tmp_path / "moved"))
    assert images("test", "all", data=moved) == [(own, False), (every, True)]
    for number, kind in enumerate(("blue", "green", "red")):  # another one
        (moved / kind / "00.png").write_bytes((colour_folder / kind / f"{number + 1:02}.png").read_bytes() + b" ")
    assert images("test", "all", data=moved) == [(every, True), (every, False)]
    (tmp_path / "parts").mkdir()
    moved.rename(tmp_path / "parts" / "test")
    assert images("test", "all", data=tmp_path / "parts") == [(every, False)] * 2
    with pytest.raises(DataError, match="give another --split"):
        images("val", data=tmp_path / "parts")


def test_a_set_that_has_changed_is_not_measured_as_the_one_of_the_run(colour_folder: Path, tmp_path: Path) -> None:
    spec = f"folder:{colour_folder}"
    out = trained(spec, tmp_path / "run")
    assert evaluate(EvaluateConfig(run_dir=out, split="val")).note is None
    for name in ("red", "green", "blue"):
        for file in sorted((colour_folder / name).iterdir())[:4]:
            file.unlink()
    with pytest.raises(RunError, match=r"is not what .*run was trained on.*or give --data folder:"):
        evaluate(EvaluateConfig(run_dir=out))
    assert not (out / "evaluation-test.json").exists()
    outcome = evaluate(EvaluateConfig(run_dir=out, data=spec))
    assert "may be among its training images" in outcome.note
    assert outcome.path is not None and read_json(outcome.path)["note"] == outcome.note
    assert evaluate(EvaluateConfig(run_dir=out, split="val")).note is None, "measured while it was the same"


def test_a_set_that_is_not_here_is_said_to_be_looked_for_from_where_the_run_was_trained(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(colour_folder.parent)
    out = trained(f"folder:{colour_folder.name}", tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"recorded its dataset as folder:colours.*--data SPEC"):
        evaluate(EvaluateConfig(run_dir=out))
    assert evaluate(EvaluateConfig(run_dir=out, data=f"folder:{colour_folder}")).images > 0


def test_a_run_of_bf16_is_measured_as_it_is_deployed(colour_folder: Path, tmp_path: Path) -> None:
    run = trained(f"folder:{colour_folder}", tmp_path / "run", precision="bf16", lr=0.01)
    rows = evaluate(EvaluateConfig(run_dir=run)).rows
    images = tuple(str(colour_folder / row["key"]) for row in rows)
    deployed = predict(PredictConfig(model=run, images=images), keep=True)
    assert isinstance(deployed, PredictResult)
    theirs = [row["probability"] for row in deployed.rows]
    np.testing.assert_allclose([row["confidence"] for row in rows], theirs, atol=1e-5)


def test_class_names_do_nothing_to_a_terminal_and_of_many_classes_the_worst_are_shown(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = measured / "evaluation-test.json"
    names = ["an\x1b[31mimal", "fo\nod", *(f"class-{number}" for number in range(2, 30))]
    accuracies = [0.0, 0.01, None, *(number / 30 for number in range(3, 30))]
    facts = {**read_json(path), "absent": {}, "classes": names, "per_class": accuracies, "support": [1] * 30}
    write_json(path, facts)
    assert cli.main(["evaluate", str(measured)]) == 0
    shown = capsys.readouterr().out
    assert r"an\x1b[31mimal" in shown and r"fo\nod" in shown and shown.replace("\n", "").isprintable()
    assert f"the lowest 20 of 29 (all of them: per_class in {path})" in shown
    assert "class-20 " in shown and "class-21 " not in shown and "class-2 " not in shown


@pytest.mark.parametrize("content", ["{", "[]"])
@pytest.mark.parametrize("name", [runs.CONFIG, runs.RUN, "evaluation-test.json"])
def test_a_damaged_record_is_named(measured: Path, name: str, content: str) -> None:
    (measured / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match="damaged") as caught:
        evaluate(EvaluateConfig(run_dir=measured))
    assert str(measured / name) in str(caught.value)


def test_a_dataset_may_lack_a_class_of_the_run_and_have_no_other(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = read_json(measured / "run.json")["classes"]
    own = Path(read_json(measured / "config.json")["data"].removeprefix("folder:"))
    for name in classes[1:]:
        shutil.copytree(own / name, tmp_path / "fewer" / name)
    found = evaluate(EvaluateConfig(run_dir=measured, data=str(tmp_path / "fewer"), split="train"))
    record = read_json(found.path or Path())
    assert record["classes"] == classes and record["support"][0] == 0 and record["per_class"][0] is None
    whole = evaluate(EvaluateConfig(run_dir=measured, data=str(own), split="train"))
    assert sum(record["support"]) < whole.labelled
    other = Path(shutil.copytree(own, tmp_path / "other"))
    shutil.copytree(own / "food", other / "zoo")
    monkeypatch.setattr(prepare, "load_pixels", lambda *_args, **_more: pytest.fail("images are decoded"))
    with pytest.raises(RunError, match="trained on other classes"):
        evaluate(EvaluateConfig(run_dir=measured, data=f"folder:{other}", split="train"))


def test_looks_estimate_the_accuracy_where_no_test_image_has_a_label(colour_folder: Path, tmp_path: Path) -> None:
    images = load_with_splits(f"folder:{colour_folder}", val_fraction=0.1, test_fraction=0.25)
    rows = list(zip(images.keys, images.splits, images.digests, images.labels.tolist(), strict=True))
    names = images.classes
    table = "".join(f"{key},{'' if split == 'test' else names[k]},{split}\n" for key, split, _, k in rows)
    (colour_folder / "set.csv").write_text(f"path,label,split\n{table}", encoding="utf-8")
    out = trained(f"manifest:{colour_folder / 'set.csv'}", tmp_path / "run")
    looks = tmp_path / "audit.csv"
    with pytest.raises(DataError, match="label"):
        evaluate(EvaluateConfig(run_dir=out))
    with pytest.raises(ConfigError, match="no such file"):
        evaluate(EvaluateConfig(run_dir=out, audit=looks))
    test = "".join(f"{key},{names[k]},test,checked,{digest}\n" for key, split, digest, k in rows if split == "test")
    looks.write_text(f"path,label,split,review,digest\n{test}", encoding="utf-8")
    found = evaluate(EvaluateConfig(run_dir=out, audit=looks))
    assert (found.labelled, found.looks) == (0, test.count("\n")) and found.scores == {}
    measured = evaluate(EvaluateConfig(run_dir=out, data=f"folder:{colour_folder}"))
    assert found.right_ci95 == [found.right] * 2, "all were looked at"
    assert found.right is not None and 0 <= found.right <= 1 and measured.accuracy is not None
