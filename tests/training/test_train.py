"""Training: it learns, it resumes to the same bits, and it refuses mistakes before it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gpt4image.artifacts import runs
from gpt4image.base.errors import (
    ConfigError,
    DataError,
    Gpt4ImageError,
    MissingExtraError,
    ModelError,
    RunError,
    TrainingError,
)
from gpt4image.base.files import read_json, read_json_lines
from gpt4image.cli import main
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.tasks.multilabel import MultiLabel
from gpt4image.training import train as training
from gpt4image.training.prepare import prepare
from gpt4image.training.train import check_trackers, tracked, train
from small_training import SMALL, StoppedError, options, resumed, same, stop_after


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_model_learns_three_colours_and_is_measured_once(colour_folder: Path, tmp_path: Path) -> None:
    outcome = train(options(colour_folder, tmp_path / "run", epochs=8))
    assert not outcome.skipped
    told = ("train_images", "val_images", "test_images", "classes")
    assert [outcome.facts[name] for name in told] == [36, 3, 9, 3]
    record = runs.read_run(tmp_path / "run")
    assert record["run"]["data"]["train"] + record["run"]["data"]["val"] + record["run"]["data"]["test"] == 48
    losses = [row["loss"] for row in record["metrics"]]
    assert losses[-1] < 0.8 * losses[0]
    measured = evaluate(EvaluateConfig(run_dir=tmp_path / "run"))
    assert measured.scores["top1"] >= 0.8
    wrong = sum(n for *_, n in read_json(tmp_path / "run" / "evaluation-test.json")["confused"])
    assert wrong == round(9 * (1 - measured.scores["top1"]))
    stamp = (tmp_path / "run" / "predictions-test.parquet").stat().st_mtime_ns
    assert evaluate(EvaluateConfig(run_dir=tmp_path / "run")).facts == measured.facts
    assert (tmp_path / "run" / "predictions-test.parquet").stat().st_mtime_ns == stamp, "the test split is read once"


def command(config: TrainConfig) -> list[str]:
    recipe = config.out.with_suffix(".toml")
    values = json.loads(config.model_dump_json(exclude_none=True, exclude={"model_args", "out", "resume"}))
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in config.model_args.items())
    recipe.write_text("\n".join([*lines, f"model_args = {{ {table} }}"]))
    return [sys.executable, "-m", "gpt4image", "train", str(recipe), "--out", str(config.out)]


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_exits_130(colour_folder: Path, tmp_path: Path) -> None:
    words = command(options(colour_folder, tmp_path / "run", epochs=2000, checkpoint_seconds=1e9))
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / runs.METRICS
    while not (metrics.is_file() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "kept" in errors and "Traceback" not in errors
    assert (tmp_path / "run" / runs.CHECKPOINT).is_file()


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"batch_size": 64}, DataError, r"--batch-size 64 is larger than the train split \(3\d images\)"),
        ({"batch_size": 8, "grad_accumulation": 5}, DataError, "--batch-size 8 times --grad-accumulation 5 is larger"),
        ({"auto_augment": "bad"}, ConfigError, "--auto-augment bad: timm knows no such policy"),
        ({"model": "resnet1O"}, ModelError, "resnet18"),
        ({"model_args": {"chanels": [1]}}, ModelError, "chanels"),
        ({"optimizer": "adamv"}, ConfigError, "--optimizer adamv"),
        ({"optimizer": "adahessian"}, ConfigError, "--optimizer adahessian cannot be used: it needs second"),
        ({"label_trust": 0.5}, ConfigError, "--label-trust is about .*give --targets"),
        ({"device": "cuda:9"}, ConfigError, "not available here"),
        ({"mixup": 1.0, "batch_size": 7}, ConfigError, "--batch-size 7 must be a multiple of 2"),
        ({"init": "missing.safetensors"}, ModelError, r"missing\.safetensors"),
        ({"select": "best", "val_fraction": 0.0}, ConfigError, "--select best needs labelled validation images"),
        ({"only_described": True}, Gpt4ImageError, "--only-described needs --embeddings"),
    ],
)
def test_mistakes_are_refused_before_training(
    changes: dict[str, Any],
    kind: type[Exception],
    message: str,
    colour_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpt4image.data.pixels.load_pixels", lambda *_, **__: pytest.fail("pictures were decoded"))
    with pytest.raises(kind, match=message):
        train(options(colour_folder, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_training_never_goes_on_from_a_damaged_checkpoint_and_begins_anew_without_it(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(colour_folder, tmp_path / "run", checkpoint_seconds=0.0, epochs=1)
    train(options(colour_folder, tmp_path / "whole", epochs=1))
    stop_after(monkeypatch, steps=2)
    with pytest.raises(StoppedError):
        train(config)
    monkeypatch.undo()
    checkpoint = tmp_path / "run" / runs.CHECKPOINT
    whole = checkpoint.read_bytes()
    for content in (b"", whole[:-100]):
        checkpoint.write_bytes(content)
        with pytest.raises(
            RunError, match=r"checkpoint\.safetensors .*or move it away and give the same command"
        ) as caught:
            train(config.model_copy(update={"resume": True}))
        assert str(checkpoint) in str(caught.value) and checkpoint.read_bytes() == content
    checkpoint.unlink()
    train(config.model_copy(update={"resume": True}))
    assert same(tmp_path / "whole", tmp_path / "run")


def test_a_run_folder_is_not_overwritten_nor_continued_with_other_options_or_data(
    colour_folder: Path, tmp_path: Path
) -> None:
    whole = train(options(colour_folder, tmp_path / "run", epochs=1))
    assert whole.notes is None
    with pytest.raises(RunError, match="already holds a run"):  # before the data is looked at
        train(options(tmp_path / "absent", tmp_path / "run", epochs=1))
    with pytest.raises(RunError, match="is a file"):
        train(options(tmp_path / "absent", tmp_path / "run" / runs.RUN, epochs=1))
    (colour_folder / "red" / "00.png").rename(colour_folder / "blue" / "red.png")
    again = train(options(colour_folder, tmp_path / "run", epochs=1, resume=True))
    assert again.path == tmp_path / "run" and "finished before, and nothing was trained" in again.notes
    (tmp_path / "run" / runs.RUN).unlink()
    for changes, message in (
        ({}, "the images, labels or texts that it reads have changed since"),
        ({"lr": 0.5}, r"another configuration \(lr: 0\.02 there, 0\.5 now"),
    ):
        with pytest.raises(RunError, match=message):
            train(options(colour_folder, tmp_path / "run", epochs=1, resume=True, **changes))


HOLD = """
import sys, time
from pathlib import Path
from gpt4image.artifacts import runs
with runs.writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_do_not_train_in_one_folder_and_a_killed_one_leaves_nothing(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.1)
    config = options(colour_folder, tmp_path / "some" / "run", epochs=1)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(config.out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            said = rf"run: another process \(id {other.pid}\) trains here; wait until it is done or stop it"
            with pytest.raises(RunError, match=said):
                train(config)
        finally:
            other.kill()
    assert not (config.out / runs.CONFIG).exists()
    train(config)
    assert runs.is_finished(config.out) and not list(config.out.glob(".*"))
    with pytest.raises(RunError, match="a mistake"), runs.writing(tmp_path / "new"):
        raise RunError("a mistake")
    assert not (tmp_path / "new").exists(), "nor an empty folder"


@pytest.mark.parametrize("val_fraction", [0.1, 0.0])
def test_weights_that_are_not_finite_are_no_finished_run(
    val_fraction: float, colour_folder: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"optimizer": "sgd", "lr": 1e30, "warmup_fraction": 0.0, "epochs": 1, "batch_size": 16}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{runs.CHECKPOINT}.4194305.tmp").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"not finite.*Lower --lr 1e\+30"):
        train(options(colour_folder, tmp_path / "run", val_fraction=val_fraction, **changes))
    assert not runs.is_finished(tmp_path / "run") and not (tmp_path / "run" / runs.MODEL).exists()
    assert not list((tmp_path / "run").glob("*.tmp")), "what a killed process left is removed"


def test_a_broken_picture_is_named_after_an_interruption_too_and_the_others_train(
    colour_folder: Path, tmp_path: Path
) -> None:
    for name in ("empty", "broken", "other"):
        (colour_folder / "red" / f"{name}.png").write_bytes(f"no picture: {name}".encode() * (name != "empty"))
    config = options(colour_folder, tmp_path / "run", epochs=2, memory_limit_gb=0.0, workers=1)
    outcome = resumed(config, config.out, steps=7)
    named = {item.name for item in outcome.skipped}
    assert named and named <= {f"red/{name}.png" for name in ("empty", "broken", "other")}, "those that are read"
    facts = runs.read_run(tmp_path / "run")["run"]
    assert {item["name"] for item in facts["set_aside"]} == named
    counts = facts["data"]
    assert counts["with_target"] == counts["labelled"] == counts["train"] == outcome.train_images


def test_the_last_run_trains_on_the_validation_images_too_and_on_no_test_image(
    colour_folder: Path, tmp_path: Path
) -> None:
    first, last = (prepare(options(colour_folder, tmp_path, train_on_val=own)).data for own in (False, True))
    assert last.indices("train").tolist() == sorted([*first.indices("train"), *first.indices("val")])
    assert last.indices("test").tolist() == first.indices("test").tolist() and not len(last.indices("val"))


ROW: dict[str, Any] = {"epoch": 1, "step": 4, "loss": 0.5, "align_loss": None, "val": {"top1": 0.25}}


@pytest.mark.slow
def test_every_tracker_shows_every_epoch(colour_folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store = tmp_path / "mlruns"
    environment = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": store.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio")}
    config = options(colour_folder, tmp_path / "run", epochs=2, track="tensorboard,wandb,mlflow,trackio")
    result = subprocess.run(command(config), capture_output=True, text=True, env={**os.environ, **environment})
    assert result.returncode == 0 and " stops: " not in result.stderr, result.stderr
    rows = read_json_lines(config.out / runs.METRICS)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in ("loss", "val/top1")}
    assert shown["loss"] == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    assert shown["val/top1"] == [(row["step"], pytest.approx(row["val"]["top1"])) for row in rows]
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"val/top1" in log.read_bytes()
    (losses,) = store.glob("*/*/metrics/loss")
    values = [line.split() for line in losses.read_text(encoding="utf-8").splitlines()]
    assert [(int(step), float(value)) for _, value, step in values] == [(row["step"], row["loss"]) for row in rows]
    assert list((tmp_path / "trackio").glob("gpt4image*.db"))


def test_a_tracker_that_fails_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def log(self, values: dict[str, float], step: int) -> None:
            raise OSError("no space left")

    seen: list[tuple[dict[str, float], int]] = []

    class Working:
        def log(self, values: dict[str, float], step: int) -> None:
            seen.append((values, step))

        def finish(self) -> None:
            seen.append(({}, 0))
            raise OSError("the server is gone")

    def offline() -> None:
        raise RuntimeError("no API key")

    kinds: dict[str, Any] = {"trackio": offline, "wandb": Broken, "mlflow": Working}
    monkeypatch.setattr(training, "_started", lambda name, out, record: kinds[name]())
    with tracked(("trackio", "wandb", "mlflow"), tmp_path, {}) as on_epoch:
        on_epoch(ROW)
        on_epoch(ROW)
    errors = capsys.readouterr().err
    assert errors.count("--track trackio stops: no API key") == errors.count("--track wandb stops: no space left") == 1
    assert "--track mlflow stops: the server is gone" in errors
    numbers = {"epoch": 1, "step": 4, "loss": 0.5, "val/top1": 0.25}
    assert seen == [(numbers, 4), (numbers, 4), ({}, 0)]


def test_mistakes_are_named_before_the_run(
    monkeypatch: pytest.MonkeyPatch, colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        TrainConfig(data="openmoji", out=Path("run"), track="tensorboard,wandbd")
    assert TrainConfig(data="openmoji", out=Path("run"), track=" wandb, wandb").trackers == ("wandb",)
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[trackio\]"):
        check_trackers(["trackio"])
    assert main(f"compare --data folder:{colour_folder} --out run --track mlflow".split()) == 2
    assert "[mlflow]'" in capsys.readouterr().err


@pytest.fixture
def rare(tmp_path: Path) -> dict[str, Any]:
    """Options of a run on bright and dark pictures: one third of the bright ones has the class ``spark``, no dark one.

    So nothing can be learned by which ``spark`` is more probable than one half. ``day`` is plain to see.
    """
    rng = np.random.default_rng(0)
    rows = ["path,split,label:day,label:spark"]
    for split, count in (("train", 120), ("val", 60), ("test", 60)):
        for number in range(count):
            bright, name = number % 4 == 0, f"{split}{number}.png"
            pixels = rng.integers(150, 250, (16, 16, 3)) if bright else rng.integers(0, 100, (16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
            rows.append(f"{name},{split},{int(bright)},{int(number % 12 == 0)}")
    (tmp_path / "rare.csv").write_text("\n".join(rows))
    return {"data": f"manifest:{tmp_path / 'rare.csv'}", "out": tmp_path / "run", **SMALL, "epochs": 6, "lr": 0.02}


def test_thresholds_of_the_validation_images_raise_f1_on_the_test_images(rare: dict[str, Any]) -> None:
    outcome = train(TrainConfig(**rare))
    assert outcome.thresholds == "one per class, chosen on the validation images"
    thresholds = read_json(rare["out"] / runs.RUN)["decision"]["thresholds"]
    evaluate(EvaluateConfig(run_dir=rare["out"]))
    facts = read_json(rare["out"] / "evaluation-test.json")
    assert facts["thresholds"] == thresholds and facts["classes"] == ["day", "spark"] and thresholds[1] < 0.4
    rows = pq.read_table(rare["out"] / "predictions-test.parquet").to_pylist()
    scores = np.array([row["probabilities"] for row in rows], np.float32)
    labels = np.array([row["label"] for row in rows], np.int8)
    usual = MultiLabel().measure(scores, labels, facts["classes"])
    assert usual["mAP"] == pytest.approx(facts["mAP"])
    assert facts["f1_macro"] > usual["f1_macro"] + 0.15 and facts["f1_micro"] > usual["f1_micro"] - 0.1
    assert [row["prediction"] for row in rows] == [np.flatnonzero(each >= thresholds).tolist() for each in scores]


def test_without_validation_labels_the_probabilities_of_the_model_choose_thresholds(rare: dict[str, Any]) -> None:
    table = Path(str(rare["data"]).removeprefix("manifest:"))
    rows = table.read_text().splitlines()
    table.write_text("\n".join(row.rsplit(",", 2)[0] + ",," if ",val," in row else row for row in rows))
    outcome = train(TrainConfig(**rare))
    assert outcome.thresholds == (
        "one per class, chosen on the validation images by the model's own probabilities, because none has a label"
    )
    assert all(row["val"] is None for row in read_json_lines(rare["out"] / runs.METRICS))
    evaluate(EvaluateConfig(run_dir=rare["out"]))
    facts = read_json(rare["out"] / "evaluation-test.json")
    assert facts["thresholds"] == read_json(rare["out"] / runs.RUN)["decision"]["thresholds"]
    assert facts["thresholds"][1] < 0.4 and facts["f1_macro"] > 0.65  # at one half no picture has the rare class
