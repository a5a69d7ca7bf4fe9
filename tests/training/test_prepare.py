"""What a run reads: broken pictures are named, whenever they are met."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpt4image
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import EvaluateConfig
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.training.train import train
from region_cases import coco, write_coco_set
from small_training import options


def test_a_single_class_is_refused_before_training(colour_folder: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    colour_folder.rename(above / "colours")
    with pytest.raises(DataError, match="has one class, 'colours': there is nothing to tell apart"):
        train(options(above, tmp_path / "run", epochs=1))
    assert not (tmp_path / "run").exists()


def test_a_set_without_a_usable_box_is_refused_with_what_was_wrong_with_its_boxes(tmp_path: Path) -> None:
    file = write_coco_set(tmp_path, coco({"image_id": 1, "category_id": 9, "bbox": [1, 1, 9, 9]}, images=4))
    with pytest.raises(
        DataError, match=r"no box at all.* Skipped were: train\.json: 1 annotation: its category is not"
    ):
        train(options(tmp_path, tmp_path / "run", data=f"coco:{file}"))


def test_pictures_and_clips_without_any_class_are_refused_before_they_are_decoded(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4image.training.prepare.load_pixels", None)  # to call it would be another error
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "1.mp4").write_bytes(b"not read")
    said = "No training image has a label or a text label"
    for data in (f"folder:{colour_folder / 'red'}", f"clips:{tmp_path / 'clips'}"):
        with pytest.raises(DataError, match=said):
            train(options(tmp_path, tmp_path / "run", data=data, model="resnet18", model_args={}))
        with pytest.raises(DataError, match=said):
            gpt4image.compare(data=data, out=tmp_path / "cmp", model="resnet18", seeds=1)
    named = [f"{path.relative_to(colour_folder)},{path.parent.name}" for path in sorted(colour_folder.glob("*/*.png"))]
    unlabelled = [f"{row.partition(',')[0]},,train" for row in named[::2]]
    manifest = colour_folder / "images.csv"
    manifest.write_text("\n".join(["path,label,split", *unlabelled, *(f"{row},test" for row in named[1::2])]))
    with pytest.raises(DataError, match=said):
        train(options(tmp_path, tmp_path / "run", data=f"manifest:{manifest}"))


def test_consistency_without_unlabelled_pictures_is_refused_before_they_are_decoded(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt4image.training.prepare.load_pixels", None)
    with pytest.raises(ConfigError, match="learns from training images without a label or text label, and all 36 have"):
        train(options(colour_folder, tmp_path / "run", consistency=1.0))


def test_broken_pictures_of_other_splits_are_not_measured_however_pixels_are_read(
    colour_folder: Path, tmp_path: Path
) -> None:
    for split, kept in (("train", 10), ("val", 12), ("test", 16)):
        for colour in ("blue", "green", "red"):
            (tmp_path / "sets" / split / colour).mkdir(parents=True)
            for picture in sorted((colour_folder / colour).iterdir()):
                if int(picture.stem) < kept:
                    picture.rename(tmp_path / "sets" / split / colour / picture.name)
        if split != "train":
            (tmp_path / "sets" / split / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    found = []
    for limit in (4.0, 0.0):
        out = tmp_path / f"limit-{limit}"
        reading = {"memory_limit_gb": limit, "workers": 1}
        train(options(tmp_path / "sets", out, epochs=1, **reading))
        facts = evaluate(EvaluateConfig(run_dir=out)).summary
        found.append((runs.read_run(out)["metrics"][-1]["val"], facts["images"], facts["top1"], facts["loss"]))
    assert found[0] == found[1] and found[0][1] == 12
