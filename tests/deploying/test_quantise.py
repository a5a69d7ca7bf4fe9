"""Fewer bits: smaller files that say nearly the same, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, ExportError
from gpt4image.base.files import read_json
from gpt4image.config import BenchmarkConfig, ExportConfig
from gpt4image.data import load_with_splits
from gpt4image.deploying import quantise as stage
from gpt4image.deploying.benchmark import benchmark
from gpt4image.deploying.export import export

pytest.importorskip("onnxscript", reason="pip install 'gpt4image[onnx]'")
pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def spec_of(run: Path) -> str:
    return f"folder:{run.parent / 'pictures'}"


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "most"), [("int8", 0.9), ("fp16", 0.75)])
def test_a_quantised_export_is_smaller_and_says_the_same(
    bits: Any, most: float, small_run: Path, tmp_path: Path
) -> None:
    """Of so small a model the graph is most of the file, so it is no quarter; --force lets it pass."""
    options: Any = {"run_dir": small_run, "format": "onnx", "quantise": bits, "force": True}
    found = export(ExportConfig(**options, out=tmp_path / "small"))
    export(ExportConfig(run_dir=small_run, format="onnx", out=tmp_path / "float"))
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("small", "float")]
    assert sizes[0] < most * sizes[1] and found.quantised["judged on"].endswith("validation images")
    rows = benchmark(BenchmarkConfig(models=(small_run, tmp_path / "float", tmp_path / "small"))).rows
    assert [row["same"] for row in rows[:2]] == [1.0, 1.0] and rows[2]["same"] >= 0.8
    recorded = read_json(small_run / "evaluation-test.json")["top1"]
    assert rows[0]["score"] == rows[1]["score"] == pytest.approx(recorded, abs=1e-4)
    assert rows[2]["mb"] < rows[1]["mb"] and all(row["ms_1"] > 0 and row["ms_32"] > 0 for row in rows)
    card = (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
    assert f"After that the model was put into {bits}." in card and "Size and speed" in card


@pytest.mark.slow
def test_a_goal_that_is_missed_is_named_and_nothing_is_left(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"size 0\.\d+ of the float file \(wanted: 0\.3 or less\).*--force"):
        export(ExportConfig(run_dir=small_run, format="onnx", quantise="int8", out=tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("world", ["detector_run", "masks"])
def test_detectors_and_masks_keep_their_last_steps_in_float(
    world: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue("detector_run") if world == "detector_run" else (
        request.getfixturevalue("drawn_run") / "run"
    )  # fmt: skip
    out = export(ExportConfig(run_dir=run, format="onnx", quantise="int8", force=True, out=tmp_path / "model"))
    assert float(out.quantised["the same answer"].rstrip("%")) > 80
    import onnx

    graph = onnx.load(str(tmp_path / "model" / "model.onnx")).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    assert made_by[graph.output[0].name] != "DequantizeLinear" and "QuantizeLinear" in made_by.values()


def test_int8_without_training_images_is_refused(small_run: Path, tmp_path: Path) -> None:
    images = load_with_splits(spec_of(small_run), val_fraction=0.1, test_fraction=0.2)
    images = images.select(images.indices("test"))
    with pytest.raises(ConfigError, match="needs training images"):
        stage.quantise(tmp_path / "model.onnx", "int8", images)


@pytest.mark.parametrize("form", ["timm", "torch-export"])
def test_bits_are_of_onnx(form: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is for --format onnx"):
        ExportConfig(run_dir=tmp_path, format=form, quantise="int8", out=tmp_path / "model")


def test_layers_are_tried_from_both_ends_until_time_is_over() -> None:
    tried: list[str] = []
    stage._hurts(list("abcde"), lambda name: tried.append(name) or 0.0, stage.time.monotonic() + 60)  # pyright: ignore
    assert tried[:4] in (["a", "e", "b", "d"], ["a", "e", "d", "b"]) and len(tried) == 5
    assert stage._hurts(["a"], lambda _: 1.0, stage.time.monotonic() - 1) == {}  # pyright: ignore


def test_models_of_other_classes_have_no_score_and_are_not_compared(
    run_of: Callable[[str], Path], small_run: Path, tmp_path: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(small_run, other)
    record = read_json(other / runs.RUN) | {"classes": ["a", "b", "c"]}
    (other / runs.RUN).write_text(json.dumps(record), encoding="utf-8")
    rows = benchmark(BenchmarkConfig(models=(small_run, run_of("vit-small-stem"), other))).rows
    assert rows[1]["same"] is not None and rows[1]["score"] is not None
    assert rows[2]["same"] is None and rows[2]["score"] is None


def test_a_benchmark_of_files_alone_needs_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is needed: .* is no run folder"):
        benchmark(BenchmarkConfig(models=(tmp_path,)))
