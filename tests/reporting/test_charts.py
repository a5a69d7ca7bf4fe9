from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from gpt4image.artifacts.runs import FEW_IMAGES, Arm, load_run
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.reporting import charts
from synthetic_records import CLASSES, MEANS, comparison_record, write_comparison, write_run
from trained_runs import rewrite_config

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}{2}$\"\n\x00\x1b\ud800 日本語 🙂"


def intervals(name: str = "baseline", identifier: str = "a") -> Markup:
    arms = {
        name: Arm(seeds=(0, 1, 2), test=(0.3, 0.35, 0.4), mean=0.35, ci95=(0.25, 0.45)),
        "text-labels": Arm(seeds=(0,), test=(0.5,), mean=0.5),
    }
    return charts.interval_chart(identifier, "test accuracy", arms, name, {})


def curves(name: str = "baseline", identifier: str = "a") -> Markup:
    def curve(label: str, seeds: int, **style: object) -> charts.Curve:
        values = np.linspace(0.1, 0.5, 6) + np.arange(seeds)[:, None] / 100
        return charts.Curve(name=label, epochs=np.arange(1, 7), values=values, **style)  # pyright: ignore[reportArgumentType]

    behind = curve("behind", 3, colour=charts.REFERENCE)
    panels = {name: [behind], "aligned": [curve("task", 3), curve("alignment", 1, dashed=True)]}
    return charts.inline(identifier, "Curves", "0.5", charts.curve_figure(panels, fractions=True, behind=behind))


def classes(name: str = "cat", identifier: str = "a") -> Markup:
    gains = [
        charts.Gain(name=name, before=0.2, after=0.6, pictures=100),
        charts.Gain(name="dog", before=0.6, after=0.55, pictures=7),
        charts.Gain(name="single", before=None, after=0.4, pictures=30),
    ]
    return charts.inline(identifier, "Classes", "0.6", charts.class_figure(gains, "accuracy"))


ALL = pytest.mark.parametrize("draw", [intervals, curves, classes])
Draw = Callable[..., Markup]


@ALL
def test_the_page_chooses_colours_and_fonts_and_hostile_names_stay_text(draw: Draw) -> None:
    chart = draw(HOSTILE)
    assert not re.findall(r"(?<!, )#[0-9a-f]{6}\b", chart)
    assert "var(--ink, #1d2126)" in chart and "<text" in chart
    assert not any(word in chart for word in ("DejaVu", "<style", "<?xml", "<metadata", "<script"))
    names = [element.text for element in ElementTree.fromstring(chart).iter(f"{{{charts.SVG}}}text")]
    assert any((name or "").startswith("<script>alert") for name in names)


@pytest.mark.parametrize(("low", "broken"), [(0.03, False), (0.9, True)])
def test_an_axis_begins_at_0_or_is_marked(low: float, broken: bool) -> None:
    arms = {"one": Arm(seeds=(0, 1), test=(low, low + 0.05), mean=low + 0.02)}
    chart = charts.interval_chart("a", "accuracy", arms, "", {})
    assert (f">{charts.BROKEN}<" in chart) == broken and (bool(re.search(r">0(\.0)? %<", chart)) != broken)
    curve = charts.Curve(name="x", epochs=np.arange(1, 4), values=np.array([[low, low + 0.02, low + 0.05]]))
    chart = charts.inline("a", "Curves", "", charts.curve_figure({"x": [curve]}, fractions=True))
    assert (f">{charts.BROKEN}<" in chart) == broken and (bool(re.search(r">0(\.0)? %<", chart)) != broken)


def test_confusions_are_summed_and_sorted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    facts = read_json(folder / "evaluation-test.json") | {"classes": ["a", "b"], "support": [10, 10]}
    facts |= {"per_class": [0.7, 0.9], "confused": [[0, 1, 3], [1, 0, 1]]}
    write_json(folder / "evaluation-test.json", facts)
    (first, second) = charts.confusions({"x": [load_run(folder)] * 2})["x"]
    assert (first.truth, first.taken, first.pictures, first.share) == ("a", "b", 6, pytest.approx(0.3))
    assert (second.truth, second.taken, second.pictures, second.share) == ("b", "a", 2, pytest.approx(0.1))


@pytest.mark.parametrize(("images", "drawn"), [(FEW_IMAGES, True), (FEW_IMAGES - 1, False)])
def test_no_curve_is_drawn_of_few_validation_images(tmp_path: Path, images: int, drawn: bool) -> None:
    folder = write_run(tmp_path / "run")
    rewrite_config(folder, read_json(folder / "config.json"), data={"val_labelled": images})
    chart = charts.score_curves("x", {"train": [load_run(folder)]}, reference=None)
    assert ("<svg" in chart) == drawn
    assert ("Not drawn: only 19 validation images." in chart) != drawn


def test_of_many_classes_the_most_and_least_changed_are_shown(tmp_path: Path) -> None:
    folder, k = write_run(tmp_path / "run"), 100
    sizes = {"support": [1] * k, "confused": [], "per_class": [i / k for i in range(k)]}
    evaluation = read_json(folder / "evaluation-test.json") | {"classes": [f"class-{i:02}" for i in range(k)]}
    write_json(folder / "evaluation-test.json", evaluation | sizes)
    chart, left_out = charts.class_gains("x", None, [load_run(folder)])
    assert left_out == "30 of 100 classes: those with the largest and the smallest accuracy. "
    names = re.findall(r">(class-\d\d) \(n = 1\)<", chart)
    assert len(set(names)) == charts.CLASSES_SHOWN
    assert {"class-99", "class-85", "class-14", "class-00"} <= set(names)
    assert "class-50" not in names


def test_plots_show_a_run_a_comparison_and_an_evaluation_and_can_be_sent(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=7)
    plot = charts.plot_run(run)
    loss, score = plot.figure.axes
    assert [len(line.get_xdata()) for line in (*loss.lines, *score.lines)] == [7, 7]
    assert (loss.get_ylabel(), score.get_xlabel()) == ("training loss", "epoch")
    assert plot._repr_svg_().startswith("<?xml")
    plot.save(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 1000
    (axes,) = charts.plot_comparison(write_comparison(tmp_path / "one", comparison_record())).figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == list(MEANS)
    write_json(tmp_path / "comparison.json", {"comparisons": {"a": comparison_record(), "b": comparison_record(1)}})
    assert [each.get_title("left") for each in charts.plot_comparison(tmp_path).figure.axes] == ["a", "b"]
    (axes,) = charts.plot_classes(run / "evaluation-test.json").figure.axes
    assert len(axes.get_yticklabels()) == len(CLASSES) - 1, "one class has no test picture"
    outcome = pickle.loads(pickle.dumps(Outcome(path=run, drawing=partial(charts.plot_run, run))))  # noqa: S301
    assert len(outcome.plot().figure.axes) == 2
    with pytest.raises(AttributeError, match="nothing to plot"):
        Outcome().plot()
