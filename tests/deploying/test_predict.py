"""Every image that is named gets its row and drawing, in order, in every format; what is broken costs nothing else."""

import ast
import contextlib
import csv
import io
import json
import os
import runpy
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gpt4image import cli
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, ExportError, ModelError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.visible import from_csv_cell
from gpt4image.config import ExportConfig, PredictConfig
from gpt4image.data.regions import palette
from gpt4image.deploying import loading
from gpt4image.deploying.export import export
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.predict import Prediction, decode_ahead, find_images, name_classes, predict
from gpt4image.deploying.preprocessing import Preprocessing
from trained_runs import of_several_labels

CLASSES = ("animal", "food", "vehicle")


@pytest.fixture(scope="module")
def pictures(small_run: Path) -> Path:
    return small_run.parent / "pictures"


def recorded(run: Path) -> dict[str, list[float]]:
    """Return the probabilities that the run's own evaluation gave the pictures of its test split, by path."""
    table = pq.read_table(run / "predictions-test.parquet").to_pydict()
    paths = [str(run.parent / "pictures" / key) for key in table["key"]]
    return dict(zip(paths, table["probabilities"], strict=True))


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_predictions_are_those_of_the_runs_own_evaluation(small_run: Path, pictures: Path, tmp_path: Path) -> None:
    expected = recorded(small_run)
    outcome = predict(PredictConfig(model=small_run, images=tuple(expected), out=tmp_path / "found.csv", batch_size=4))
    assert outcome.predicted == len(expected) > 5
    assert outcome.path == tmp_path / "found.csv" and not outcome.skipped
    rows = csv_rows(tmp_path / "found.csv")
    assert [row["image"] for row in rows] == list(expected)
    for row in rows:
        probabilities = expected[row["image"]]
        assert row["class"] == CLASSES[probabilities.index(max(probabilities))]
        assert float(row["probability"]) == pytest.approx(max(probabilities), abs=2e-6)


def test_broken_files_are_named_and_cost_nothing_else(
    small_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted((pictures / "food").iterdir())[:3]
    for number, file in enumerate(good):
        shutil.copy(file, tmp_path / f"{number}.png")
    (tmp_path / "0b.png").write_bytes(good[0].read_bytes()[:60])
    (tmp_path / "1b.jpg").write_bytes(b"")
    command = ["predict", str(small_run), str(tmp_path), str(tmp_path / "none.png"), "--out", str(tmp_path / "a.csv")]
    assert cli.main(command) == 1
    assert [Path(row["image"]).name for row in csv_rows(tmp_path / "a.csv")] == ["0.png", "1.png", "2.png"]
    shown = capsys.readouterr()
    assert "predicted: 3" in shown.out and "images per second" in shown.out
    assert "3 skipped" in shown.err and "0b.png" in shown.err
    assert "1b.jpg': the file is empty" in shown.err and "none.png': there is no such file" in shown.err
    assert cli.main([*command, "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["predicted"] == 3 and len(record["skipped"]) == 3
    assert cli.main(["predict", str(small_run), str(tmp_path / "0b.png")]) == 1, "nothing but broken files"


def test_names_do_nothing_to_a_terminal_and_stay_exact_in_json(
    small_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    classes = ["an\x1b[31mimal", "fo\nod", "véhicule, \u202egrand"]
    write_json(run / runs.RUN, read_json(run / runs.RUN) | {"classes": classes})
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ["a\nb.png", "c\x1b[2J\u202e.png", 'd,"e".png', "été.png"]
    for name in names:
        shutil.copy(next((pictures / "food").iterdir()), folder / name)
    Path(str(folder).encode().decode() + "/\udcff.png").write_bytes(next((pictures / "food").iterdir()).read_bytes())
    for form in ("table", "csv"):
        assert cli.main(["predict", str(run), str(folder), "--format", form, "--top", "3"]) == 0
        out = capsys.readouterr().out
        assert out.replace("\n", "").isprintable() and len(out.splitlines()) == 5 + (form == "csv")
        assert r"a\nb.png" in out and r"an\x1b[31mimal" in out and r"fo\nod" in out and "été.png" in out
    rows = list(csv.reader(out.splitlines()))
    assert {len(row) for row in rows} == {7} and rows[3][0].endswith('d,"e".png')
    assert cli.main(["predict", str(run), str(folder), "--format", "jsonl", "--top", "3"]) == 0
    out = capsys.readouterr().out
    found = [json.loads(line) for line in out.splitlines()]
    assert out.isascii() and [Path(row["image"]).name for row in found] == [*names, "\udcff.png"]
    assert {item["class"] for item in found[0]["predictions"]} == set(classes)


def test_a_spreadsheet_runs_no_name_of_a_file_or_class(
    small_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    classes = ["=1+1", "'quoted", "@SUM(A1)"]
    write_json(run / runs.RUN, read_json(run / runs.RUN) | {"classes": classes})
    monkeypatch.chdir(tmp_path)
    names = ["=cmd.png", "+a.png", "-b.png", "@c.png", "\td.png", "plain.png"]
    for name in names:
        shutil.copy(next((pictures / "food").iterdir()), name)
    predict(PredictConfig(model=run, images=tuple(names), out=tmp_path / "found.csv", top=3))
    rows = csv_rows(tmp_path / "found.csv")
    assert [row["image"] for row in rows] == ["'=cmd.png", "'+a.png", "'-b.png", "'@c.png", r"\td.png", "plain.png"]
    cells = {rows[0][column] for column in ("class", "class_2", "class_3")}
    assert set(map(from_csv_cell, cells)) == set(classes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_set_aside_and_not_waited_for(small_run: Path, pictures: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    image = str(next((pictures / "food").iterdir()))
    images = (str(tmp_path / "pipe.png"), image)
    outcome = predict(PredictConfig(model=small_run, images=images, out=tmp_path / "a.csv"))
    assert outcome.predicted == 1 and outcome.skipped[0].name.endswith("pipe.png")
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx is no regular file"):
        predict(PredictConfig(model=tmp_path / "model.onnx", images=(image,), out=tmp_path / "b.csv"))


def test_predictions_replace_neither_the_model_nor_an_image(small_run: Path, pictures: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(next((pictures / "food").iterdir()), tmp_path / "a.png"))
    link = tmp_path / "link.png"
    link.symlink_to(image)
    model = Path(shutil.copytree(small_run, tmp_path / "run"))
    known = {path: path.read_bytes() for path in (image, model / runs.MODEL)}
    for images in ((str(image),), (str(tmp_path),), (str(link),)):
        with pytest.raises(ConfigError, match="is an image that is named"):
            predict(PredictConfig(model=model, images=images, out=image, format="csv"))
    with pytest.raises(ConfigError, match="is the model, or a file of it"):
        predict(PredictConfig(model=model, images=(str(image),), out=model / runs.MODEL, format="csv"))
    (tmp_path / "m.onnx").write_bytes(b"a model")
    with pytest.raises(ConfigError, match="is the model"):
        predict(PredictConfig(model=tmp_path / "m.onnx", images=(str(image),), out=tmp_path / "m.onnx", format="csv"))
    assert {path: path.read_bytes() for path in known} == known


def test_mistakes_are_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images are missing"):
        PredictConfig(model=tmp_path, images=())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty': holds no image; .*'\*\.png': there is no such file"):
        predict(PredictConfig(model=tmp_path / "no-model", images=(str(tmp_path / "empty"), "*.png")))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (-1.0, "no probabilities"), (7.0, "no probabilities")],
)
def test_an_image_for_which_the_model_gives_nonsense_is_skipped_by_name(
    small_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, reason: str
) -> None:
    model, images = load_classifier(small_run), sorted(map(str, (pictures / "food").iterdir()))[:3]

    def spoilt(pixels: Any) -> Any:
        found, *known = model.read(pixels)
        found[1, 0] = value
        return (found, *known)

    monkeypatch.setattr(loading, "load_classifier", lambda *_, **__: replace(model, read=spoilt))
    outcome = predict(PredictConfig(model=small_run, images=tuple(images), out=tmp_path / "a.csv"))
    assert [(item.name, reason in item.reason) for item in outcome.skipped] == [(images[1], True)]
    assert [row["image"] for row in csv_rows(tmp_path / "a.csv")] == [images[0], images[2]]


def test_predictions_name_the_classes_present(small_run: Path, tmp_path: Path) -> None:
    classes, thresholds = ("hat", "shoe", "=bag"), (0.0, 0.25, 1.0)
    run = of_several_labels(small_run, tmp_path / "run", classes, thresholds)
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "picture.png")

    def predicted(name: str, **options: Any) -> str:
        images = (str(tmp_path / "picture.png"),)
        predict(PredictConfig(model=run, images=images, out=tmp_path / name, **options))
        return (tmp_path / name).read_text(encoding="utf-8")

    found = json.loads(predicted("out.jsonl", top=3))
    least = dict(zip(classes, thresholds, strict=True))
    likely = [each["class"] for each in found["predictions"] if each["probability"] >= least[each["class"]]]
    assert "hat" in likely and "=bag" not in likely
    assert found["present"] == likely and len(found["predictions"]) == 3
    row = next(csv.DictReader(predicted("out.csv", top=1).splitlines()))
    assert row["present"].removeprefix("'") == "|".join(likely)
    assert "class_2" not in row


HOW = Preprocessing(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `photos` in the current one: 12 pictures, number n of grey value n, among files that are none."""
    for number in range(12):
        path = tmp_path / "photos" / ("b" if number < 6 else "a/deep") / f"{number:02}.{'PNG' if number % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, number, number)).save(path)
    for name in ("photos/notes.txt", "photos/.hidden.png", "photos/.thumbnails/01.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "photos/b/01.PNG").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_patterns_are_expanded_and_names_with_their_letters_are_names(folder: Path) -> None:
    assert list(find_images(["photos/b/0[12].*"])) == ["photos/b/01.PNG", "photos/b/02.png"]
    assert len(list(find_images(["photos/**/*.PNG"]))) == 6
    assert len(list(find_images(["photos/[ab]"]))) == 12, "folders may match too"
    for pattern in ("photos/**", "./photos/**", ".//photos//**", "./**"):
        found = [os.path.realpath(path) for path in find_images([pattern])]
        assert found == [os.path.realpath(path) for path in find_images(["photos"])], f"each image once: {pattern}"
    (folder / "[1].png").write_bytes((folder / "b/01.PNG").read_bytes())
    assert list(find_images(["photos/[1].png"])) == ["photos/[1].png"]


def test_no_more_than_a_few_batches_are_ever_held(folder: Path) -> None:
    asked = 0

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield "photos/b/01.PNG"

    batches = decode_ahead(endless(), HOW, batch_size=10, threads=2)
    for taken in range(1, 30):
        assert len(next(batches).paths) == 10
        time.sleep(0.002)  # time enough for threads to run ahead, if they could
        assert asked <= 10 * (taken + 2 * 2), "two batches for each thread, and those that were taken"
    batches.close()


def predicted(model: Path, drawn_run: Path, out: Path) -> list[dict[str, Any]]:
    images = (str(drawn_run / "set" / "images" / "test"),)
    predict(PredictConfig(model=model, images=images, out=out / "rows.jsonl", draw=out / "drawn", threads=1))
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def numbers_in(file: str) -> np.ndarray:
    with Image.open(file) as mask:
        return np.asarray(mask)


def test_an_onnx_file_gives_the_masks_of_its_run_and_timm_has_no_such_model(
    drawn_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(ExportConfig(run_dir=drawn_run / "run", format="onnx", out=tmp_path / "model"))
    first = predicted(drawn_run / "run", drawn_run, tmp_path / "a")
    second = predicted(tmp_path / "model", drawn_run, tmp_path / "b")
    differing = [numbers_in(a["mask"]) != numbers_in(b["mask"]) for a, b in zip(first, second, strict=True)]
    assert np.mean(differing) < 1e-3
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "A model for semantic segmentation" in card and "The output `mask` is (N, 32, 32)" in card
    monkeypatch.setattr(sys, "argv", ["example.py", str(drawn_run / "set" / "images" / "test" / "000.png")])
    capsys.readouterr()  # an early torch says what it rewrote
    runpy.run_path(str(tmp_path / "model" / "example.py"))
    assert ast.literal_eval(capsys.readouterr().out) == set(first[0]["present"])
    with pytest.raises(ExportError, match="timm has no models for segmentation; use --format onnx"):
        export(ExportConfig(run_dir=drawn_run / "run", format="timm", out=tmp_path / "timm"))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["orange", "apple"]),
        ({"most_overlap": 1.0}, ["orange", "banana", "apple"]),
        ({"most_overlap": 1.0, "min_score": 0.5}, ["orange", "banana"]),
        ({"format": "coco"}, ["orange", "banana", "apple"]),
    ],
)
def test_of_boxes_of_one_object_the_best_is_given_and_coco_gets_all(options: dict[str, Any], names: list[str]) -> None:
    boxes = [[0.1, 0.1, 0.6, 0.6], [0.11, 0.1, 0.6, 0.62], [0.5, 0.5, 0.9, 0.9]]
    found = Prediction("x.jpg", ["orange", "banana", "apple"], [0.8, 0.6, 0.4], boxes=boxes)
    own = found.in_pixels((1300, 900), PredictConfig(model=Path("run"), images=("x.jpg",), **options))
    assert own.classes == names and own.boxes is not None and own.boxes[0] == [130, 90, 780, 540]


def test_drawings_name_classes_in_words_that_grow_with_the_picture() -> None:
    high = list[int]()
    for width in (325, 1300):
        mask, picture = np.full((8, 8), 1, np.uint8), Image.new("RGB", (width, width), "white")
        name_classes(picture, mask, ["background", "Größe", "shoes"], 0)
        marked = np.argwhere((np.asarray(picture) == palette()[1]).all(axis=2))
        high.append(int(np.ptp(marked[:, 0])))
    assert 10 <= high[0] < high[1] / 2, "the ground of the one name, in the colour of its class"


def test_a_classifier_has_nothing_to_draw(small_run: Path, colour_folder: Path, tmp_path: Path) -> None:
    given = {"model": small_run, "images": (str(colour_folder / "red"),), "threads": 1}
    with pytest.raises(ConfigError, match=r"--draw .* predicts probabilities; leave it out"):
        predict(PredictConfig(**given, draw=tmp_path / "drawn"))
    with pytest.raises(ConfigError, match=r"--format coco: no COCO file lists .*; name images by coco:FILE"):
        predict(PredictConfig(**given, format="coco"))


def test_a_large_picture_is_drawn_smaller_and_one_that_is_gone_costs_no_other(
    detector_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, rows = tmp_path / "photos", tmp_path / "rows.jsonl"
    photos.mkdir()
    Image.new("RGB", (70_000, 20)).save(photos / "a.png")
    for name in ("b.png", "c.png"):
        Image.new("RGB", (64, 64)).save(photos / name)
    own = loading.load_classifier

    def then_removed(*given: Any, **more: Any) -> Any:
        model = own(*given, **more)

        def read(pixels: Any) -> Any:
            (photos / "b.png").unlink(missing_ok=True)
            return model.read(pixels)

        return replace(model, read=read)

    monkeypatch.setattr(loading, "load_classifier", then_removed)
    given = {"model": detector_run, "images": (str(photos),), "threads": 1, "out": rows, "draw": tmp_path / "drawn"}
    outcome = predict(PredictConfig(**given))
    assert [json.loads(line)["image"][-5:] for line in rows.read_text().splitlines()] == ["a.png", "b.png", "c.png"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["000001-a.jpg", "000003-c.jpg"]
    (skipped,) = outcome.skipped
    assert skipped.name.endswith("b.png") and skipped.reason.startswith("predicted, but not drawn:")
    shutil.rmtree(tmp_path / "drawn")
    (tmp_path / "drawn").write_text("a file in its place")
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
        assert outcome.predicted == 1, "drawings of this run and of earlier ones are passed over"
    shutil.rmtree(photos / "drawn")
    outcome = predict(PredictConfig(**wanted, draw=tmp_path / "drawn"))
    assert not outcome.skipped and len(list((tmp_path / "drawn").iterdir())) == 1 and rows.exists()


def test_boxes_are_in_pixels_in_every_format_and_drawn(detector_run: Path, pictograms: Path, tmp_path: Path) -> None:
    given = {"model": detector_run, "images": (f"coco:{pictograms}/test.json",), "min_score": 0.5, "most_overlap": 1.0}
    found = {}
    for form, draw in (("jsonl", tmp_path / "drawn"), ("csv", None), ("txt", None), ("json", None)):
        predict(PredictConfig(**given, out=tmp_path / f"boxes.{form}", draw=draw))
        found[form] = (tmp_path / f"boxes.{form}").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in found["jsonl"].splitlines()]
    boxes = [box for row in rows for box in row["predictions"]]
    assert len(rows) == 32 and 40 < len(boxes) < 90
    assert min(box["probability"] for box in boxes) >= 0.5
    results = json.loads(found["json"])
    assert len(results) == len(boxes) == len(found["csv"].splitlines()) - 1 == len(found["txt"].splitlines())
    left, top, width, height = results[0]["bbox"]
    assert boxes[0]["box"] == pytest.approx([left, top, left + width, top + height], abs=0.02)
    assert max(box["box"][2] for box in boxes) > 100  # pictures are 128 wide and 96 high
    assert max(box["box"][3] for box in boxes) <= 96
    truth = json.loads((pictograms / "test.json").read_text(encoding="utf-8"))
    own = [box["bbox"] for box in truth["annotations"] if box["image_id"] == results[0]["image_id"]]
    assert min(np.abs(np.array(box) - results[0]["bbox"]).max() for box in own) < 8
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) == 32
    with Image.open(drawn[0]) as picture, Image.open(pictograms / "test-000.png") as plain:
        assert picture.size == plain.size == (128, 96)
        assert np.abs(np.asarray(picture, np.int16) - np.asarray(plain.convert("RGB"), np.int16)).max() > 50


def measured(file: Path, results: Path) -> float:
    """Return mAP as pycocotools measures it."""
    pytest.importorskip("pycocotools", reason="the extra test")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def renumbered(source: Path, file: Path) -> None:
    """Write a COCO file with other ids of images and categories."""
    content = json.loads(source.read_text(encoding="utf-8"))
    for image in content["images"]:
        image["id"] = 1000 + 7 * image["id"]
    for category in content["categories"]:
        category["id"] = 90 - 3 * category["id"]
    for box in content["annotations"]:
        box |= {"image_id": 1000 + 7 * box["image_id"], "category_id": 90 - 3 * box["category_id"]}
    file.write_text(json.dumps(content), encoding="utf-8")


def test_results_of_coco_have_the_ids_of_the_dataset(detector_run: Path, pictograms: Path, tmp_path: Path) -> None:
    expected = json.loads((detector_run / "evaluation-test.json").read_text(encoding="utf-8"))
    other = tmp_path / "set"
    shutil.copytree(pictograms, other)
    renumbered(pictograms / "test.json", other / "test.json")
    given = {"model": detector_run, "min_score": 0.0}
    predict(PredictConfig(**given, images=(f"coco:{other}/test.json",), out=tmp_path / "results.json"))
    assert measured(other / "test.json", tmp_path / "results.json") == pytest.approx(expected["mAP"], abs=0.02)
    predict(PredictConfig(**given | {"min_score": 1.0}, images=(f"coco:{other}/test.json",), out=tmp_path / "n.json"))
    assert json.loads((tmp_path / "n.json").read_text(encoding="utf-8")) == []
    shutil.move(other, tmp_path / "moved")
    with pytest.raises(DataError, match=r"there is no such file"):
        predict(PredictConfig(**given, images=(f"coco:{other}/test.json",), out=tmp_path / "results.json"))
