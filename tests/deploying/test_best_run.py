"""Which run of a comparison is exported: chosen by validation, never by test, and never a control."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image.base.errors import RunError
from gpt4image.base.files import read_json_lines, write_json_lines
from gpt4image.deploying.best_run import best_run
from synthetic_records import comparison_record, write_comparison


def change_val(folder: Path, score: float | None) -> None:
    rows = read_json_lines(folder / "metrics.jsonl")
    rows[-1]["val"] = None if score is None else {"top1": score, "loss": 1.0}
    if score is None:
        rows = [{**row, "val": None} for row in rows]
    write_json_lines(folder / "metrics.jsonl", rows)


def test_the_best_arm_by_the_mean_and_its_best_seed_are_chosen_by_validation(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path / "cmp", comparison_record(seeds=2, means={"baseline": 0.9, "aligned": 0.1, "oracle": 0.99})
    )
    for arm, scores in {"baseline": (0.2, 0.9), "aligned": (0.6, 0.7), "oracle": (1.0, 1.0)}.items():
        for seed, score in enumerate(scores):
            change_val(folder / f"runs/{arm}-seed{seed}", score)
    chosen, why = best_run(folder)
    assert chosen == folder / "runs/aligned-seed1"
    assert (
        why
        == "arm aligned, seed 1: val top1 0.7000 on 112 images; by the mean over seeds the best of baseline, aligned"
    )


def test_without_validation_scores_nothing_is_chosen_and_a_run_is_itself(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "cmp", comparison_record(seeds=1, means={"baseline": 0.9}))
    change_val(folder / "runs/baseline-seed0", None)
    with pytest.raises(RunError, match="name one of the runs below"):
        best_run(folder)
    assert best_run(folder / "runs/baseline-seed0") == (folder / "runs/baseline-seed0", "")
