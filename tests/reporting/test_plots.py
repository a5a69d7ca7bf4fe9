"""What a notebook shows of a run, a comparison and an evaluation."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.reporting.plots import plot_classes, plot_comparison, plot_run
from gpt4image.verbs import _drawing
from synthetic_records import CLASSES, MEANS, comparison_record, write_comparison, write_run


def test_a_run_shows_its_losses_and_its_validation_score(tmp_path: Path) -> None:
    plot = plot_run(write_run(tmp_path / "run", epochs=7))
    loss, score = plot.figure.axes
    assert [len(line.get_xdata()) for line in (*loss.lines, *score.lines)] == [7, 7]
    assert (loss.get_ylabel(), score.get_xlabel()) == ("training loss", "epoch")
    assert plot._repr_svg_().startswith("<?xml")
    plot.save(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 1000


def test_a_comparison_has_a_bar_per_arm_from_zero(tmp_path: Path) -> None:
    (axes,) = plot_comparison(write_comparison(tmp_path, comparison_record())).figure.axes
    assert {text.get_text() for text in axes.get_yticklabels()} == set(MEANS)
    assert axes.get_xlim()[0] == 0.0 and len(axes.patches) == len(MEANS)


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "evaluation-test.json"
    names = ["$5 to $10", "a$\\b$", "one $", r"c\$d", *CLASSES[4:]]
    write_json(path, read_json(path) | {"classes": names})
    plot = plot_classes(path)
    plot.save(tmp_path / "classes.svg")
    drawn = (tmp_path / "classes.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in drawn for name in names[:4])


def test_an_evaluation_has_a_bar_per_class_and_outcomes_with_drawings_can_be_sent(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (axes,) = plot_classes(run / "evaluation-test.json").figure.axes
    assert len(axes.patches) == len(CLASSES) - 1, "one class has no test picture"
    outcome = pickle.loads(pickle.dumps(Outcome(path=run, drawing=_drawing("train", run))))  # noqa: S301
    assert len(outcome.plot().figure.axes) == 2
    with pytest.raises(AttributeError, match="nothing to plot"):
        Outcome().plot()
