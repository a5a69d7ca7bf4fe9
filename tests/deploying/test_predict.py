"""Every image that is named gets its row, in order, in every format; what is broken costs nothing else."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from gpt4image import cli
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, ModelError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.visible import from_csv_cell
from gpt4image.config import PredictConfig
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.predict import predict
from trained_runs import rewrite_config

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
    assert outcome.summary["predicted"] == len(expected) > 5
    assert outcome.path == tmp_path / "found.csv" and not outcome.skipped
    rows = csv_rows(tmp_path / "found.csv")
    assert [row["image"] for row in rows] == list(expected)
    for row in rows:
        probabilities = expected[row["image"]]
        assert row["class"] == CLASSES[probabilities.index(max(probabilities))]
        assert float(row["probability"]) == pytest.approx(max(probabilities), abs=2e-6)


def test_rows_go_to_standard_output_and_nothing_else_does(
    small_run: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = sorted(map(str, (pictures / "food").iterdir()))
    assert cli.main(["predict", str(small_run), str(pictures / "food"), "--top", "9"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == images
    assert all(set(line.split()) >= set(CLASSES) for line in lines), (
        "as many classes as there are, where more are asked"
    )
    assert cli.main(["predict", str(small_run), *images, "--format", "csv", "--top", "2"]) == 0
    header, *rows = capfd.readouterr().out.splitlines()
    assert header == "image,class,probability,class_2,probability_2"
    assert [row.split(",")[0] for row in rows] == images
    assert [row.split(",")[1::2] for row in rows] == [line.split()[1:4:2] for line in lines]


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
    outcome = predict(
        PredictConfig(model=small_run, images=(str(tmp_path / "pipe.png"), image), out=tmp_path / "a.csv")
    )
    assert outcome.summary["predicted"] == 1 and outcome.skipped[0].name.endswith("pipe.png")
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx is no regular file"):
        predict(PredictConfig(model=tmp_path / "model.onnx", images=(image,), out=tmp_path / "b.csv"))


def test_the_format_follows_the_ending_of_the_file() -> None:
    def asked(**options: Any) -> str:
        return PredictConfig(model=Path("run"), images=("a.png",), **options).row_format

    assert asked() == asked(out=Path("a.txt")) == "table"
    assert asked(out=Path("a")) == "table"
    assert asked(out=Path("a.csv")) == asked(out=Path("A.CSV")) == "csv" and asked(out=Path("a.jsonl")) == "jsonl"
    assert asked(out=Path("a.csv"), format="jsonl") == "jsonl"
    assert asked(out=Path("a.json")) == "coco"
    assert asked(out=Path("a.json"), format="jsonl") == "jsonl"
    for name in ("a.xml", "a.xlsx"):
        with pytest.raises(ConfigError, match=f"--out {name}: .*--format"):
            asked(out=Path(name))


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
    with pytest.raises(ConfigError, match="IMAGES are missing"):
        PredictConfig(model=tmp_path, images=())
    with pytest.raises(ConfigError, match="--format jsonl"):
        PredictConfig(model=tmp_path, images=("a.png",), as_json=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty': holds no image; .*'\*\.png': there is no such file"):
        predict(PredictConfig(model=tmp_path / "no-model", images=(str(tmp_path / "empty"), "*.png")))


def test_pixels_are_not_kept(small_run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")

    def peak(count: int) -> int:
        tracemalloc.start()
        images = (str(tmp_path / "one.png"),) * count
        predict(PredictConfig(model=small_run, images=images, out=tmp_path / "a.csv", batch_size=8, threads=1))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(8)
    # the pixels of an image are 3 KB, as an input 12 KB
    assert peak(1040) - peak(40) < 1000 * 1000


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "not finite"), (float("inf"), "not finite"), (-1.0, "no probabilities"), (7.0, "no probabilities")],
)
def test_an_image_for_which_the_model_gives_nonsense_is_skipped_by_name(
    small_run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, reason: str
) -> None:
    model, images = load_classifier(small_run), sorted(map(str, (pictures / "food").iterdir()))[:3]

    def spoilt(pixels: Any) -> Any:
        found = model.probabilities(pixels)
        found[1, 0] = value
        return found

    monkeypatch.setattr(
        "gpt4image.deploying.loading.load_classifier", lambda *_, **__: replace(model, probabilities=spoilt)
    )
    outcome = predict(PredictConfig(model=small_run, images=tuple(images), out=tmp_path / "a.csv"))
    assert [(item.name, reason in item.reason) for item in outcome.skipped] == [(images[1], True)]
    assert [row["image"] for row in csv_rows(tmp_path / "a.csv")] == [images[0], images[2]]


def test_predictions_name_the_classes_present(small_run: Path, tmp_path: Path) -> None:
    run, classes, thresholds = (
        Path(shutil.copytree(small_run, tmp_path / "run")),
        ("hat", "shoe", "=bag"),
        (0.0, 0.25, 1.0),
    )
    rewrite_config(run, {**read_json(run / runs.CONFIG), "task": "multilabel"})
    write_json(run / runs.RUN, {**read_json(run / runs.RUN), "classes": list(classes), "thresholds": thresholds})
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
