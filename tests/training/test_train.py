"""Training: it learns, it resumes to the same bits, and it refuses mistakes before it starts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, DataError, Gpt4ImageError, ModelError, RunError, TrainingError
from gpt4image.base.files import read_json, write_json
from gpt4image.config import EvaluateConfig, TrainConfig
from gpt4image.evaluating.evaluate import evaluate
from gpt4image.training.train import train
from held_folders import held_by_another
from small_training import StoppedError, options, resumed, same, stop_after, weights


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_model_learns_three_colours_and_is_measured_once(colour_folder: Path, tmp_path: Path) -> None:
    outcome = train(options(colour_folder, tmp_path / "run", epochs=8))
    assert not outcome.skipped
    told = ("train_images", "val_images", "test_images", "classes")
    assert [outcome.summary[name] for name in told] == [36, 3, 9, 3]
    record = runs.read_run(tmp_path / "run")
    assert record["run"]["data"]["train"] + record["run"]["data"]["val"] + record["run"]["data"]["test"] == 48
    losses = [row["loss"] for row in record["metrics"]]
    assert losses[-1] < 0.8 * losses[0]
    measured = evaluate(EvaluateConfig(run_dir=tmp_path / "run"))
    assert measured.summary["top1"] >= 0.8
    wrong = sum(n for *_, n in read_json(tmp_path / "run" / "evaluation-test.json")["confused"])
    assert wrong == round(9 * (1 - measured.summary["top1"]))
    stamp = (tmp_path / "run" / "predictions-test.parquet").stat().st_mtime_ns
    assert evaluate(EvaluateConfig(run_dir=tmp_path / "run")).summary == measured.summary
    assert (tmp_path / "run" / "predictions-test.parquet").stat().st_mtime_ns == stamp, "the test split is read once"


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.8, "cutmix": 1.0, "ema": 0.9, "optimizer": "sgd", "lr": 0.05, "clip_grad": 1.0},
        {"grad_accumulation": 2, "min_scale": 0.5, "colour": 0.3, "erase": 0.3, "select": "best"},
        {
            "model": "vit_tiny_patch16_224",
            "model_args": {"depth": 2, "embed_dim": 32, "num_heads": 2},
            "drop_path": 0.1,
        },
        {
            "auto_augment": "rand-m9-mstd0.5-inc1",
            "repeated_augmentation": 3,
            "erase": 0.5,
            "erase_with": "noise",
            "memory_limit_gb": 0.0,
            "workers": 1,
        },
    ],
    ids=["mixing", "accumulation", "vit", "policy"],
)
def test_options_train_and_resume_mid_epoch_to_the_same_bits(
    changes: dict[str, Any], colour_folder: Path, tmp_path: Path
) -> None:
    config = options(colour_folder, tmp_path / "whole", **changes)
    train(config)
    resumed(config, tmp_path / "broken", steps=5)
    assert same(tmp_path / "whole", tmp_path / "broken")
    rows = [{**row, "seconds": 0} for row in runs.read_run(tmp_path / "whole")["metrics"]]
    again = [{**row, "seconds": 0} for row in runs.read_run(tmp_path / "broken")["metrics"]]
    assert rows == again


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
        ({"fsdp": True}, ConfigError, "--fsdp spreads weights over several processes"),
        ({"model": "resnet1O"}, ModelError, "resnet18"),
        ({"model_args": {"chanels": [1]}}, ModelError, "chanels"),
        ({"optimizer": "adamv"}, ConfigError, "--optimizer adamv"),
        ({"optimizer": "adahessian"}, ConfigError, "--optimizer adahessian cannot be used: it needs second"),
        pytest.param(
            {"optimizer": "kron"},
            ConfigError,
            "--optimizer kron cannot be used",
            marks=pytest.mark.filterwarnings("ignore:.*opt_einsum"),
        ),
        ({"label_trust": 0.5}, ConfigError, "--label-trust: .*give --text-labels"),
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


def test_to_resume_where_nothing_has_begun_is_to_begin(colour_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / runs.MODEL).write_bytes(b"precious")
    with pytest.raises(RunError, match=r"holds 'model\.safetensors', which a run would write over"):
        train(options(colour_folder, tmp_path / "mine", resume=True))
    write_json(tmp_path / "exported" / runs.CONFIG, {"architecture": "resnet18"})
    with pytest.raises(RunError, match="of something else"):
        train(options(colour_folder, tmp_path / "exported", resume=True))
    train(options(colour_folder, tmp_path / "run", epochs=1, resume=True))
    assert runs.is_finished(tmp_path / "run")


def test_training_never_goes_on_from_a_damaged_checkpoint_and_begins_anew_without_it(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = options(colour_folder, tmp_path / "run", checkpoint_seconds=0.0)
    train(options(colour_folder, tmp_path / "whole"))
    stop_after(monkeypatch, steps=5)
    with pytest.raises(StoppedError):
        train(config)
    monkeypatch.undo()
    checkpoint = tmp_path / "run" / runs.CHECKPOINT
    whole = checkpoint.read_bytes()
    for content in (b"", whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1]), whole.replace(b'"step', b'"stop', 1)):
        checkpoint.write_bytes(content)
        with pytest.raises(
            RunError, match=r"checkpoint\.safetensors .*or remove it and give the same command"
        ) as caught:
            train(config.model_copy(update={"resume": True}))
        assert str(checkpoint) in str(caught.value) and checkpoint.read_bytes() == content
    checkpoint.unlink()
    train(config.model_copy(update={"resume": True}))
    assert same(tmp_path / "whole", tmp_path / "run")


def test_a_run_folder_is_not_overwritten_nor_continued_with_other_options(colour_folder: Path, tmp_path: Path) -> None:
    train(options(colour_folder, tmp_path / "run", epochs=1))
    with pytest.raises(RunError, match="already holds a run"):  # before the data is looked at
        train(options(tmp_path / "absent", tmp_path / "run", epochs=1))
    with pytest.raises(RunError, match="is a file"):
        train(options(tmp_path / "absent", tmp_path / "run" / runs.RUN, epochs=1))
    assert train(options(colour_folder, tmp_path / "run", epochs=1, resume=True)).path == tmp_path / "run"
    (tmp_path / "run" / runs.RUN).unlink()
    with pytest.raises(RunError, match=r"another configuration \(lr: 0\.02 there, 0\.5 now\)"):
        train(options(colour_folder, tmp_path / "run", epochs=1, lr=0.5, resume=True))


def test_what_has_changed_since_a_run_is_said_in_words(colour_folder: Path, tmp_path: Path) -> None:
    whole = train(options(colour_folder, tmp_path / "run", epochs=1))
    assert "notes" not in whole.summary
    (colour_folder / "red" / "00.png").rename(colour_folder / "blue" / "red.png")
    again = train(options(colour_folder, tmp_path / "run", epochs=1, resume=True))
    assert "finished before, and nothing was trained" in again.summary["notes"]
    assert "were not read again" in again.summary["notes"]
    (tmp_path / "run" / runs.RUN).unlink()
    with pytest.raises(RunError, match="the images, labels or texts that it reads have changed since"):
        train(options(colour_folder, tmp_path / "run", epochs=1, resume=True))


def test_two_processes_do_not_train_in_one_folder(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "PATIENCE", 0.1)
    config = options(colour_folder, tmp_path / "run", epochs=1)
    with held_by_another(config.out) as process, pytest.raises(RunError, match=rf"id {process}\) trains here"):
        train(config)
    assert not (config.out / runs.CONFIG).exists()
    train(config)
    assert runs.is_finished(config.out) and not list(config.out.glob(".*"))


def test_what_comes_next_is_what_the_splits_allow(colour_folder: Path, tmp_path: Path) -> None:
    from gpt4image import verbs

    train = verbs.verb("train")
    without_test = train(options(colour_folder, tmp_path / "a", epochs=1, test_fraction=0.0))
    assert (without_test.test_images, "split='val'" in without_test.next) == (0, True)
    with pytest.raises(DataError, match=r"no image is in test \(train \d+, val \d, test 0\); give another --split"):
        evaluate(EvaluateConfig(run_dir=tmp_path / "a"))
    nothing = train(options(colour_folder, tmp_path / "b", epochs=1, test_fraction=0.0, val_fraction=0.0))
    assert nothing.next.startswith("gpt4image.export(")


@pytest.mark.parametrize("val_fraction", [0.1, 0.0])
def test_weights_that_are_not_finite_are_no_finished_run(
    val_fraction: float, colour_folder: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"optimizer": "sgd", "lr": 1e30, "warmup_fraction": 0.0, "epochs": 1, "batch_size": 16}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{runs.CHECKPOINT}.0123abcd-1-0123abcd.tmp").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"not finite.*Lower --lr 1e\+30"):
        train(options(colour_folder, tmp_path / "run", val_fraction=val_fraction, **changes))
    assert not runs.is_finished(tmp_path / "run") and not (tmp_path / "run" / runs.MODEL).exists()
    assert not list((tmp_path / "run").glob("*.tmp")), "what a killed process left is removed"


def test_a_broken_picture_that_was_met_before_an_interruption_is_named(colour_folder: Path, tmp_path: Path) -> None:
    for name in ("broken", "other", "third"):
        (colour_folder / "red" / f"{name}.png").write_bytes(f"no picture: {name}".encode())
    config = options(colour_folder, tmp_path / "whole", epochs=2, memory_limit_gb=0.0, workers=1)
    whole = train(config)
    again = resumed(config, tmp_path / "run", steps=7)
    assert {item.name for item in again.skipped} == {item.name for item in whole.skipped} != set()


@pytest.mark.parametrize("memory_limit_gb", [4.0, 0.0], ids=["in-memory", "by-workers"])
def test_a_broken_picture_is_named_and_the_others_train(
    memory_limit_gb: float, colour_folder: Path, tmp_path: Path
) -> None:
    (colour_folder / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (colour_folder / "red" / "empty.png").write_bytes(b"")
    changes = {"memory_limit_gb": memory_limit_gb, "workers": 1}
    outcome = train(options(colour_folder, tmp_path / "run", epochs=3, **changes))
    named = {item.name for item in outcome.skipped}
    assert named <= {"red/broken.png", "red/empty.png"} and named, "both are in train or test; those read are named"
    facts = runs.read_run(tmp_path / "run")["run"]
    assert {item["name"] for item in facts["set_aside"]} == named
    assert (
        facts["data"]["with_target"]
        == facts["data"]["labelled"]
        == facts["data"]["train"]
        == outcome.summary["train_images"]
    )


def test_weights_of_another_run_start_a_new_one(colour_folder: Path, tmp_path: Path) -> None:
    train(options(colour_folder, tmp_path / "first", epochs=1))
    start = str(tmp_path / "first" / runs.MODEL)
    train(options(colour_folder, tmp_path / "second", epochs=1, lr=1e-12, weight_decay=0.0, min_lr=0.0, init=start))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(
        torch.allclose(first[name], second[name], atol=1e-6)
        for name in first
        if "running" not in name and "num_" not in name
    )
