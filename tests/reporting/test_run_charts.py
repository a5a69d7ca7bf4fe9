from __future__ import annotations

import pickle
import re
from functools import partial
from pathlib import Path

import pytest

from gpt4image.artifacts.run_records import FEW_IMAGES, Epoch, load_run
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.reporting.run_charts import (
    CLASSES_SHOWN,
    class_gains,
    confusions,
    loss_curves,
    plot_classes,
    plot_comparison,
    plot_run,
    score_curves,
)
from synthetic_records import CLASSES, MEANS, comparison_record, write_comparison, write_run


def test_confusions_are_summed_and_sorted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    facts = read_json(folder / "evaluation-test.json") | {"classes": ["a", "b"], "support": [10, 10]}
    facts |= {"per_class": [0.7, 0.9], "confused": [[0, 1, 3], [1, 0, 1]]}
    write_json(folder / "evaluation-test.json", facts)
    (first, second) = confusions({"x": [load_run(folder)] * 2})["x"]
    assert (first.truth, first.taken, first.pictures, first.share) == ("a", "b", 6, pytest.approx(0.3))
    assert (second.truth, second.taken, second.pictures, second.share) == ("b", "a", 2, pytest.approx(0.1))


@pytest.mark.parametrize(("images", "drawn"), [(FEW_IMAGES, True), (FEW_IMAGES - 1, False)])
def test_no_curve_is_drawn_of_few_validation_images(tmp_path: Path, images: int, drawn: bool) -> None:
    folder = write_run(tmp_path / "run")
    facts = read_json(folder / "run.json")
    facts["data"]["val_labelled"] = images
    write_json(folder / "run.json", facts)
    chart = score_curves("x", {"train": [load_run(folder)]}, reference=None)
    assert ("<svg" in chart) == drawn
    assert ("Not drawn: only 19 validation images." in chart) != drawn


def test_of_many_classes_the_most_and_least_changed_are_shown(tmp_path: Path) -> None:
    folder, k = write_run(tmp_path / "run"), 100
    sizes = {"support": [1] * k, "confused": [], "per_class": [i / k for i in range(k)]}
    evaluation = read_json(folder / "evaluation-test.json") | {"classes": [f"class-{i:02}" for i in range(k)]}
    write_json(folder / "evaluation-test.json", evaluation | sizes)
    gains = class_gains("x", None, [load_run(folder)])
    assert gains.left_out == "30 of 100 classes: those with the largest and the smallest accuracy. "
    names = re.findall(r">(class-\d\d) \(n = 1\)<", gains.chart)
    assert len(set(names)) == CLASSES_SHOWN
    assert {"class-99", "class-85", "class-14", "class-00"} <= set(names)
    assert "class-50" not in names


def test_a_class_name_with_hidden_characters_is_drawn_as_it_can_be_seen(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    evaluation = read_json(folder / "evaluation-test.json")
    names = ["a\x1b[2J", "b\u202ec", *evaluation["classes"][2:]]
    write_json(folder / "evaluation-test.json", evaluation | {"classes": names})
    chart = class_gains("x", None, [load_run(folder)]).chart
    assert r"a\x1b[2J" in chart and r"b\u202ec" in chart and "\x1b" not in chart and "\u202e" not in chart


def test_known_losses_that_are_not_zero_are_drawn_in_words(tmp_path: Path) -> None:
    row = {"loss": 3.0, "task_loss": 0.0, "align_loss": 1.0, "simclr_loss": 3.0, "<b>_loss": 1.0, "other_loss": None}
    epochs = tuple(Epoch.model_validate({"epoch": number, **row}) for number in (1, 2))
    assert epochs[0].losses == {"task": 0.0, "align": 1.0, "simclr": 3.0, "<b>": 1.0}
    chart = loss_curves("x", {"run": [load_run(write_run(tmp_path / "run")).model_copy(update={"metrics": epochs})]})
    assert ">alignment<" in chart and ">SimCLR<" in chart and ">task<" not in chart and "&lt;b" not in chart


def test_a_run_shows_its_losses_and_its_validation_score(tmp_path: Path) -> None:
    plot = plot_run(write_run(tmp_path / "run", epochs=7))
    loss, score = plot.figure.axes
    assert [len(line.get_xdata()) for line in (*loss.lines, *score.lines)] == [7, 7]
    assert (loss.get_ylabel(), score.get_xlabel()) == ("training loss", "epoch")
    assert plot._repr_svg_().startswith("<?xml")
    plot.save(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 1000


def test_a_comparison_has_a_row_per_arm_and_a_panel_per_comparison(tmp_path: Path) -> None:
    (axes,) = plot_comparison(write_comparison(tmp_path / "one", comparison_record())).figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == list(MEANS)
    write_json(tmp_path / "comparison.json", {"comparisons": {"a": comparison_record(), "b": comparison_record(1)}})
    assert [each.get_title("left") for each in plot_comparison(tmp_path).figure.axes] == ["a", "b"]


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "evaluation-test.json"
    names = ["$5 to $10", "a$\\b$", "one $", r"c\$d", *CLASSES[4:]]
    write_json(path, read_json(path) | {"classes": names})
    plot = plot_classes(path)
    plot.save(tmp_path / "classes.svg")
    drawn = (tmp_path / "classes.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name}" in drawn for name in names[:4])


def test_an_evaluation_has_a_bar_per_class_and_outcomes_with_drawings_can_be_sent(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (axes,) = plot_classes(run / "evaluation-test.json").figure.axes
    assert len(axes.get_yticklabels()) == len(CLASSES) - 1, "one class has no test picture"
    outcome = pickle.loads(pickle.dumps(Outcome(path=run, drawing=partial(plot_run, run))))  # noqa: S301
    assert len(outcome.plot().figure.axes) == 2
    with pytest.raises(AttributeError, match="nothing to plot"):
        Outcome().plot()
