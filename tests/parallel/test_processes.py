"""Several processes train what one trains: the same losses, gradients, weights and metrics."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import worlds
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError
from gpt4image.base.files import read_json_lines
from gpt4image.config import TrainConfig
from gpt4image.models.weights import load_tensors
from gpt4image.parallel import processes
from gpt4image.training.train import train
from parallel.several_processes import COUNTS, OTHERS, RESNET, RUNS, SHARED, everything, gradient_cases, on_each_count
from tables import make_table
from worlds import write_boxes

Once = Callable[[str, Callable[[Path], Any]], Path]


@pytest.fixture(scope="module")
def described(once: Once) -> dict[str, Any]:
    """Options of an image set: three classes and images without a label, with no, one, two or three descriptions."""
    root = once("described", describe)
    return {"data": f"folder:{root / 'images'}", "embeddings": root / "table"}


def describe(root: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = {}
    for label, name in enumerate(("blue", "green", "red", "unlabelled")):
        (root / "images" / name).mkdir(parents=True)
        for number in range(16):
            path = root / "images" / name / f"{number:02}.png"
            pixels = rng.integers(0, 128, (16, 16, 3)) + 40 * label
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            texts = rng.normal(size=(number % 4, 12))
            if len(texts):
                unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
                vectors[hashlib.sha256(path.read_bytes()).hexdigest()] = list(unit)
    make_table(root / "table", vectors)
    worlds.write_shapes(root / "masks", tagged=8)
    write_boxes(root / "boxes")


@given(share=st.integers(1, 9), count=st.integers(1, 9))
def test_each_row_belongs_to_one_process_and_pairs_stay_together(share: int, count: int) -> None:
    total = share * count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "count", lambda: count)
        parts = []
        for rank in range(count):
            patch.setattr(processes, "rank", lambda rank=rank: rank)
            parts.append(processes.rows(total))
    assert sorted(np.concatenate(parts)) == list(range(total))
    assert all(len(part) == share and sorted(part) == part.tolist() for part in parts)
    if share % 2 == 0:
        assert all((total - 1 - part[::-1] == part).all() for part in parts)


@pytest.fixture(scope="module")
def finished_runs(described: dict[str, Any], once: Once) -> Path:
    return once("runs", lambda out: on_each_count(everything, described["embeddings"].parent, described, out))


@pytest.fixture(scope="module")
def found_gradients(finished_runs: Path) -> dict[int, Any]:
    return {count: torch.load(finished_runs / f"{count}.pt") for count in COUNTS}


@pytest.mark.slow
@pytest.mark.parametrize("case", [*(name for name, _ in gradient_cases()), *OTHERS])
def test_the_gradient_of_the_whole_loss_does_not_depend_on_the_number_of_processes(
    case: str, found_gradients: dict[int, Any]
) -> None:
    alone = found_gradients[1][case]
    assert any(value.abs().max() > 1e-3 for name, value in alone.items() if not name.startswith(("loss", "buffer")))
    for count in COUNTS[1:]:
        shared = found_gradients[count][case]
        assert shared.keys() == alone.keys()
        worst = {name: float((shared[name] - alone[name]).abs().max()) for name in alone}
        assert max(worst.values()) < 1e-9, max(worst.items(), key=lambda item: item[1])


@pytest.mark.slow
def test_what_a_model_says_does_not_depend_on_the_number_of_processes_and_the_official_gradient_does(
    finished_runs: Path, found_gradients: dict[int, Any]
) -> None:
    alone, shared = (found_gradients[count]["said"] for count in COUNTS)
    assert [len(rows) for rows in alone.values()] == [3, 13, 37]
    assert all(torch.equal(shared[name], rows) for name, rows in alone.items())
    alone, shared = (found_gradients[count]["paper"]["head.weight"] for count in COUNTS)
    assert torch.allclose(shared, alone / 2)
    assert (finished_runs / "agreed").read_text() == "".join(f"{count} processes" for count in COUNTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_weights_and_metrics_are_those_of_one_process_and_a_run_goes_on_with_any_number(
    name: str, described: dict[str, Any], finished_runs: Path
) -> None:
    alone = finished_runs / f"{name}-1"
    for count in COUNTS[1:]:
        shared = finished_runs / f"{name}-{count}"
        for file in (runs.MODEL, runs.HEAD):
            if (alone / file).exists():
                assert_close(shared / file, alone / file)
        rows, expected = (read_json_lines(folder / runs.METRICS) for folder in (shared, alone))
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-4)
        assert [row["val"]["loss"] for row in rows] == pytest.approx([row["val"]["loss"] for row in expected], rel=1e-4)
    handed_on = finished_runs / f"{name}-handed-on"
    assert load_tensors(handed_on / runs.CHECKPOINT)[1]["state"]["step"] == len(COUNTS)
    train(TrainConfig(**described | SHARED | RUNS[name], out=handed_on, resume=True))
    assert_close(handed_on / runs.MODEL, alone / runs.MODEL)


def assert_close(path: Path, expected: Path) -> None:
    ours, theirs = load_tensors(path)[0], load_tensors(expected)[0]
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4, msg=name)


def command(data: str, out: Path, *words: str) -> list[str]:
    small = {"model": RESNET["model"], "model-args": json.dumps(RESNET["model_args"]), "optimizer": "sgd", "lr": "0.05"}
    options = {"data": data, "out": out, "image-size": 16, "batch-size": 8, "threads": 1, "memory-format": "contiguous"}
    pairs = {**small, **options, "precision": "fp32", "device": "cpu"}.items()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    given = [str(word) for key, value in pairs for word in (f"--{key}", value)]
    return [*launcher, "-m", "gpt4image", "train", *given, *words]


@pytest.mark.slow
def test_ctrl_c_in_one_process_keeps_a_checkpoint_of_all(described: dict[str, Any], tmp_path: Path) -> None:
    words = command(described["data"], tmp_path / "run", "--epochs", "2000", "--checkpoint-seconds", "1e9")
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / runs.METRICS
    while not (metrics.is_file() and metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = next(pid for pid in children if "RANK=1" in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    os.kill(int(second), signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count("Interrupted; what was finished is kept.") == 1
    assert "exitcode  : 130 " in errors  # torchrun ends the other one, where it is still ending itself
    step = load_tensors(tmp_path / "run" / runs.CHECKPOINT)[1]["state"]["step"]
    assert step >= len(read_json_lines(metrics)) > 0


@pytest.mark.parametrize(
    ("device", "error", "left"),
    [
        ("cuda", RuntimeError("out of memory"), False),
        ("cuda", ConfigError("refused in all"), True),
        ("cuda", KeyboardInterrupt(), True),
        ("cpu", RuntimeError("out of memory"), True),
    ],
)
def test_a_process_that_fails_alone_does_not_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch, device: str, error: BaseException, left: bool
) -> None:
    """NCCL's teardown waits for processes that wait for this one. No GPU here: the calls are counted."""
    calls: list[str] = []
    monkeypatch.setattr(processes.launch, "count", lambda: 2)
    monkeypatch.setattr(processes.launch, "local_count", lambda: 2)
    monkeypatch.setattr(processes.launch, "local_rank", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _number: None)
    monkeypatch.setattr(processes.dist, "init_process_group", lambda *_, **__: calls.append("joined"))
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: calls.append("left"))
    with pytest.raises(type(error)), processes.joined(torch.device(device)):
        raise error
    assert calls == ["joined", *["left"] * left]
