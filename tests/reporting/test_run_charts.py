from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from gpt4image.artifacts.run_records import FEW_IMAGES, Epoch, load_run
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.reporting.run_charts import (
    CLASSES_SHOWN,
    class_gains,
    confusion_matrix,
    confusions,
    losses_of,
    plot_classes,
    plot_comparison,
    plot_run,
    score_curves,
)
from gpt4image.verbs import _drawing
from synthetic_records import CLASSES, MEANS, comparison_record, write_comparison, write_run


def test_confusions_are_summed_and_sorted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    facts = read_json(folder / "evaluation-test.json") | {"classes": ["a", "b"], "support": [10, 10]}
    facts |= {"per_class": [0.7, 0.9], "confused": [[0, 1, 3], [1, 0, 1]]}
    write_json(folder / "evaluation-test.json", facts)
    (first, second) = confusions({"x": [load_run(folder)] * 2})["x"]
    assert (first.truth, first.taken, first.count, first.share) == ("a", "b", 6, pytest.approx(0.3))
    assert (second.truth, second.taken, second.count, second.share) == ("b", "a", 2, pytest.approx(0.1))


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


def test_the_confusion_matrix_counts_every_picture_and_shows_the_most_confused_of_many_classes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    facts = read_json(folder / "evaluation-test.json") | {"classes": ["a", "b\x1b"], "support": [10, 12]}
    write_json(folder / "evaluation-test.json", facts | {"per_class": [0.7, 0.9], "confused": [[0, 1, 3], [1, 0, 1]]})
    drawn = confusion_matrix("x", load_run(folder).evaluation)
    wide = drawn.chart.partition('class="narrow"')[0]
    assert re.findall(r">(\d+)<", wide) == ["7", "3", "1", "11"] and drawn.left_out == ""
    assert "18 of 22 pictures on the diagonal" in drawn.chart and r"b\x1b" in drawn.chart
    k = 50
    names = [f"class-{i:02}" for i in range(k)]
    sizes = {"support": [9] * k, "per_class": [0.5] * k, "confused": [[49, 48, 5], [2, 49, 1]]}
    write_json(folder / "evaluation-test.json", facts | {"classes": names} | sizes)
    drawn = confusion_matrix("x", load_run(folder).evaluation)
    assert drawn.left_out == "20 of 50 classes: those that are confused most often. "
    assert {"class-49", "class-48", "class-02"} <= set(re.findall(r">(class-\d\d)<", drawn.chart))
    assert not confusion_matrix("x", None).chart


def test_known_losses_that_are_not_zero_are_drawn_in_words() -> None:
    row = {"epoch": 1, "loss": 3.0, "task_loss": 0.0, "align_loss": None, "simclr_loss": 3.0, "<b>_loss": 1.0}
    epoch = Epoch.model_validate(row)
    assert epoch.losses == {"task": 0.0, "simclr": 3.0, "<b>": 1.0}
    aligned = Epoch.model_validate({"epoch": 2, "align_loss": 1.0})
    assert losses_of([epoch, aligned]) == {"align": "alignment", "simclr": "SimCLR"}


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
