"""From training to a file that says "none of these": run, formats and predictions know the same images equally well."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts import runs
from gpt4image.artifacts.answers import NONE_OF_THESE
from gpt4image.artifacts.targets import Facts
from gpt4image.base.errors import ConfigError
from gpt4image.base.files import read_json
from gpt4image.config import DescribeConfig, EvaluateConfig, ExportConfig, LabelConfig, PredictConfig, TrainConfig
from gpt4image.data import load_with_splits
from gpt4image.deploying.export import export
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.predict import predict
from gpt4image.describing.describe import describe
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.labelling.label import label
from gpt4image.training.train import train
from trained_runs import CLASSES, SHORT, TINY_RESNET, trained, write_pictures

SHARE = 0.1
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:DeprecationWarning")


@pytest.fixture(scope="module")
def rejecting(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """A folder with a run that may refuse a tenth of good images, and a picture of noise."""

    def fill(folder: Path) -> None:
        trained(write_pictures(folder / "photos"), folder / "run", **TINY_RESNET, reject_share=SHARE)
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / "noise.png")

    return once("rejecting", fill)


def test_a_run_keeps_what_tells_strangers_and_lists_it(rejecting: Path) -> None:
    run = rejecting / "run"
    reject = read_json(run / runs.RUN)[runs.DECISION]["reject"]
    assert reject["share"] == SHARE and reject["width"] == 16
    assert runs.KNOWN in read_json(run / "manifest.json")["files"]


@pytest.mark.parametrize("form", ["timm", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_says_none_of_these_as_its_run_does(rejecting: Path, tmp_path: Path, form: str) -> None:
    run, out = rejecting / "run", tmp_path / "model"
    export(ExportConfig(run_dir=run, format=form, out=out))  # pyright: ignore
    side = load_classifier(run).preprocessing.size
    images = np.random.default_rng(0).random((5, 3, side, side), np.float32)
    (own, own_known), (theirs, known) = load_classifier(run).read(images), load_classifier(out).read(images)
    np.testing.assert_allclose(theirs, own, atol=1e-5)
    np.testing.assert_allclose(known, own_known, atol=0.01)
    rows = tmp_path / "rows.jsonl"
    found = predict(PredictConfig(model=out, images=(str(rejecting / "noise.png"),), out=rows), keep=True)
    assert found.none_of_these == 1 and found.rows[0]["class"] == NONE_OF_THESE
    written = json.loads(rows.read_text())
    assert written["none_of_these"] and written["known"] < SHARE
    assert 0 < written["predictions"][0]["probability"] <= 1 and written["predictions"][0]["class"] != NONE_OF_THESE


def test_tables_of_predictions_have_a_column_for_it(rejecting: Path, tmp_path: Path) -> None:
    noise, table = str(rejecting / "noise.png"), tmp_path / "a.csv"
    predict(PredictConfig(model=rejecting / "run", images=(noise, str(rejecting / "photos" / "food")), out=table))
    first, *rows = table.read_text().splitlines()
    assert first == "image,class,probability,known"
    known = {row.split(",")[1]: float(row.split(",")[3]) for row in rows}
    assert known[NONE_OF_THESE] < SHARE and set(known) - {NONE_OF_THESE} <= set(CLASSES) and len(known) > 1


def test_evaluate_counts_good_images_that_are_refused_and_says_how_sure_the_model_is(rejecting: Path) -> None:
    found = evaluate(EvaluateConfig(run_dir=rejecting / "run", at_least=0.2))
    rows = [row for row in found.rows if row["label"] >= 0]
    assert found.scores["refused"] == pytest.approx(np.mean([row["known"] < SHARE for row in rows]))
    assert found.counts["refused"] == found.labelled == len(rows) and set(found.ci95) >= {"refused", "ece", "top1"}
    assert found.calibration is not None and 0 < found.calibration["floor"] <= found.calibration["floor95"]
    assert found.at_least is not None and f"--min-score {found.at_least['probability']:.3f}" in found.text


def test_a_class_that_is_less_probable_than_asked_for_is_unsure(rejecting: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": rejecting / "run", "images": (str(rejecting / "photos"),), "min_score": 1.0}
    found = predict(PredictConfig(**asked, out=tmp_path / "a.csv"), keep=True)
    assert {row["class"] for row in found.rows} == {"unsure"} | ({NONE_OF_THESE} if found.none_of_these else set())


def test_a_share_that_so_few_images_cannot_keep_is_not_promised(rejecting: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(TrainConfig(data=f"folder:{rejecting / 'photos'}", out=out, **SHORT, **TINY_RESNET))  # pyright: ignore
    assert read_json(out / runs.RUN)[runs.DECISION]["reject"] is None and not (out / runs.KNOWN).exists()


def test_boxes_and_tags_refuse_the_option(pictograms: Path, tmp_path: Path) -> None:
    asked = TrainConfig(data=f"coco:{pictograms / 'train.json'}", out=tmp_path / "run", reject_share=0.1)
    with pytest.raises(ConfigError, match="--reject-share"):
        train(asked)


def test_images_that_answers_call_none_of_the_classes_are_learned_from(rejecting: Path, tmp_path: Path) -> None:
    photos, rows = tmp_path / "photos", list[dict[str, str]]()
    photos.mkdir()
    for path in sorted((rejecting / "photos").rglob("*.png")):
        shutil.copy(path, photos)
        named = path.parent.name if path.parent.name != "vehicle" else NONE_OF_THESE
        rows.append({"key": path.name, "class": named, "description": "A pictogram in a few colours."})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec, store, targets = f"folder:{photos}", tmp_path / "answers.db", tmp_path / "targets.parquet"
    asked: dict[str, Any] = {"ask": "class", "classes": "animal, food", "splits": "train,val,test"}
    describe(DescribeConfig(data=spec, store=store, describer=f"replay:{tmp_path / 'rows.jsonl'}", **asked))
    found = label(LabelConfig(data=spec, answers=store, out=targets, features="none"))
    assert any('"none of these"' in note for note in found.notes or ())
    own: dict[str, Any] = {**SHORT, **TINY_RESNET, "reject_share": SHARE}
    told = train(TrainConfig(data=spec, targets=targets, out=tmp_path / "run", **own)).none_of_these
    reject = read_json(tmp_path / "run" / runs.RUN)[runs.DECISION]["reject"]
    none = set(Facts.of(targets).none_of_these)
    in_train = [d for d, split in zip(*_splits(spec), strict=True) if split == "train" and d in none]
    assert len(none) == 16 and reject["strangers"] == len(in_train) > 0
    assert told is not None and f"and {len(in_train)} that answers call so" in told


def _splits(spec: str) -> tuple[tuple[str, ...], list[str]]:
    images = load_with_splits(spec, val_fraction=0.1, test_fraction=0.2)
    return images.digests, images.splits.tolist()
