"""Boxes and masks that predict draws: files, sizes, and models that find nothing to draw."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import drawn_masks
from gpt4image.base.errors import ConfigError, ExportError
from gpt4image.config import ExportConfig, PredictConfig
from gpt4image.deploying.drawing import Drawing
from gpt4image.deploying.export import export
from gpt4image.deploying.predict import predict


def test_every_picture_is_drawn_at_its_own_size(detector_run: Path, pictograms: Path, tmp_path: Path) -> None:
    images = (str(pictograms / "test-*.png"),)
    predict(PredictConfig(model=detector_run, images=images, out=tmp_path / "boxes.csv", draw=tmp_path / "drawn"))
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) == 32
    with Image.open(drawn[0]) as picture, Image.open(pictograms / "test-000.png") as plain:
        assert picture.size == plain.size == (128, 96)
        assert np.abs(np.asarray(picture, np.int16) - np.asarray(plain.convert("RGB"), np.int16)).max() > 50


Once = Callable[[str, Callable[[Path], Any]], Path]


@pytest.fixture(scope="module")
def root(once: Once) -> Path:
    return once("drawn-masks", drawn_masks.set_and_run)


def predicted(model: Path, root: Path, out: Path) -> list[dict[str, Any]]:
    images = (str(root / "set" / "images" / "test"),)
    predict(PredictConfig(model=model, images=images, out=out / "rows.jsonl", draw=out / "drawn", threads=1))
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def numbers_in(file: str) -> np.ndarray:
    with Image.open(file) as mask:
        return np.asarray(mask)


def test_masks_have_the_size_of_their_pictures_and_areas_are_theirs(root: Path, tmp_path: Path) -> None:
    rows = predicted(root / "run", root, tmp_path)
    assert len(rows) == 8 and len(list((tmp_path / "drawn").iterdir())) == 16
    agreeing = []
    for row in rows:
        with Image.open(row["mask"]) as mask:
            assert mask.mode == "P" and mask.size == drawn_masks.SIZE
        numbers, classes = numbers_in(row["mask"]), ("background", *drawn_masks.SHAPES)
        assert sorted(row["present"]) == sorted(classes[k] for k in np.unique(numbers))
        assert sum(each["area"] for each in row["predictions"]) == pytest.approx(1.0, abs=1e-5)
        agreeing.append((numbers == numbers_in(row["image"].replace("images", "masks"))).mean())
        with Image.open(Path(row["mask"]).with_suffix(".jpg")) as over:
            assert over.size == drawn_masks.SIZE
    assert np.mean(agreeing) > 0.8


def test_an_onnx_file_gives_the_masks_of_its_run_and_timm_has_no_such_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(ExportConfig(run_dir=root / "run", format="onnx", out=tmp_path / "model.onnx"))
    first, second = (
        predicted(root / "run", root, tmp_path / "a"),
        predicted(tmp_path / "model.onnx", root, tmp_path / "b"),
    )
    differing = [numbers_in(a["mask"]) != numbers_in(b["mask"]) for a, b in zip(first, second, strict=True)]
    assert np.mean(differing) < 1e-3
    card = (tmp_path / "model.onnx.md").read_text(encoding="utf-8")
    assert "A model for semantic segmentation" in card and "The output `mask` is (N, 32, 32)" in card
    monkeypatch.chdir(tmp_path)
    shutil.copy(root / "set" / "images" / "test" / "000.png", "picture.jpg")
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert ast.literal_eval(capsys.readouterr().out) == set(first[0]["present"])
    with pytest.raises(ExportError, match="timm has no models for segmentation; use --format onnx"):
        export(ExportConfig(run_dir=root / "run", format="timm", out=tmp_path / "timm"))


def test_a_classifier_has_nothing_to_draw(small_run: Path, colour_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--draw .*the model is for classification"):
        predict(PredictConfig(model=small_run, images=(str(colour_folder),), draw=tmp_path / "drawn", threads=1))
    with pytest.raises(ConfigError, match=r"--format coco: .* predicts probabilities, and no boxes"):
        predict(PredictConfig(model=small_run, images=(str(colour_folder / "red"),), format="coco", threads=1))


def test_a_picture_that_cannot_be_drawn_costs_no_other_and_a_folder_that_cannot_be_written_does(
    detector_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, rows = tmp_path / "photos", tmp_path / "rows.jsonl"
    photos.mkdir()
    Image.new("RGB", (70_000, 20)).save(photos / "a.png")
    for name in ("b.png", "c.png"):
        Image.new("RGB", (64, 64)).save(photos / name)
    own = Drawing.drawn

    def removed_before(drawing: Drawing, prediction: Any, found: Any) -> Any:
        if prediction.image.endswith("b.png"):
            (photos / "b.png").unlink()
        return own(drawing, prediction, found)

    monkeypatch.setattr(Drawing, "drawn", removed_before)
    given = {"model": detector_run, "images": (str(photos),), "threads": 1, "out": rows, "draw": tmp_path / "drawn"}
    outcome = predict(PredictConfig(**given))
    assert [json.loads(line)["image"][-5:] for line in rows.read_text().splitlines()] == ["a.png", "b.png", "c.png"]
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["000003-c.jpg"]
    assert {Path(item.name).name: item.reason for item in outcome.skipped} == {
        "a.png": "predicted, but not drawn: a side of 70,000 pixels; JPEG files have at most 65,500",
        "b.png": "predicted, but not drawn: No such file or directory",
    }
    shutil.rmtree(tmp_path / "drawn")
    of = Drawing.of

    def gone(folder: Path, classifier: Any) -> Drawing:
        drawing = of(folder, classifier)
        folder.rmdir()
        folder.write_text("a file in its place")
        return drawing

    monkeypatch.setattr(Drawing, "of", gone)
    with pytest.raises(OSError, match="drawn"):
        predict(PredictConfig(**given))


def test_drawings_are_no_images_to_predict_and_long_names_cost_nothing(detector_run: Path, tmp_path: Path) -> None:
    photos, rows = tmp_path / "photos", tmp_path / "rows.csv"
    photos.mkdir()
    name = photos / ("\u00fc" * 120 + ".png")
    Image.new("RGB", (64, 64)).save(name)
    wanted = {"model": detector_run, "images": (str(photos),), "threads": 1, "out": rows}
    for images in (str(photos), f"{photos}/**", f"{photos}/*"):
        outcome = predict(PredictConfig(**wanted | {"images": (images,), "draw": photos / "drawn"}))
        assert outcome.summary["predicted"] == 1, "drawings of this run and of earlier ones are passed over"
    shutil.rmtree(photos / "drawn")
    outcome = predict(PredictConfig(**wanted, draw=tmp_path / "drawn"))
    assert not outcome.skipped and len(list((tmp_path / "drawn").iterdir())) == 1 and rows.exists()
