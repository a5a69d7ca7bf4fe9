"""Charts show what the records say, whatever names are in them, and notebooks and pages the same ones."""

import base64
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from distilling_cases import made
from gpt4image.artifacts.comparisons import Arm
from gpt4image.artifacts.runs import FEW_IMAGES, load_run
from gpt4image.base.files import read_json, write_json
from gpt4image.config.results import TrainResult
from gpt4image.reporting import charts, findings
from synthetic_records import CLASSES, MEANS, comparison_record, write_comparison, write_run
from trained_runs import rewrite_config

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}{2}$\"\n\x00\x1b\ud800 日本語 🙂"


def texts(plot: charts.Plot | None) -> list[str]:
    """Return the texts of a chart as its SVG has them."""
    assert plot is not None
    return ["".join(each.itertext()) for each in ElementTree.fromstring(plot._repr_svg_()).iter() if "text" in each.tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", epochs=7)


def test_hostile_names_stay_text_and_the_page_gets_a_picture_with_words(run: Path) -> None:
    arms = {HOSTILE: Arm(seeds=(0, 1), test=(0.3, 0.4), mean=0.35, ci95=(0.25, 0.45))}
    for plot in (charts.intervals({HOSTILE: arms}, "", HOSTILE), charts.training({HOSTILE: [load_run(run)]})):
        assert any(text.startswith("<script>alert") for text in texts(plot))
        assert plot is not None
        html = plot.__html__()
        assert re.fullmatch(r'<img class="chart" alt="[^<>"]+" src="data:image/svg\+xml;base64,[\w+/=]+">', html)
        assert b"&lt;script&gt;alert" in base64.b64decode(html.split("base64,")[1][:-2])


@pytest.mark.parametrize(("low", "broken"), [(0.03, False), (0.9, True)])
def test_an_axis_begins_at_0_or_is_marked(low: float, broken: bool) -> None:
    arms = {"one": Arm(seeds=(0, 1), test=(low, low + 0.05), mean=low + 0.02)}
    found = texts(charts.intervals({"": arms}, "", "accuracy"))
    assert ("//" in found) == broken and any(re.fullmatch(r"0(\.0)? %", text) for text in found) != broken


def test_confusions_are_summed_and_sorted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    facts = read_json(folder / "evaluation-test.json") | {"classes": ["a", "b"], "support": [10, 10]}
    facts |= {"per_class": [0.7, 0.9], "confused": [[0, 1, 3], [1, 0, 1]]}
    write_json(folder / "evaluation-test.json", facts)
    (first, second) = findings.confusions({"x": [load_run(folder)] * 2})["x"]
    assert (first.truth, first.taken, first.pictures, first.share) == ("a", "b", 6, pytest.approx(0.3))
    assert (second.truth, second.taken, second.pictures, second.share) == ("b", "a", 2, pytest.approx(0.1))


@pytest.mark.parametrize(("images", "drawn"), [(FEW_IMAGES, True), (FEW_IMAGES - 1, False)])
def test_no_score_is_drawn_of_few_validation_images(tmp_path: Path, images: int, drawn: bool) -> None:
    folder = write_run(tmp_path / "run")
    rewrite_config(folder, read_json(folder / "config.json"), data={"val_labelled": images})
    plot = charts.plot_run(folder)
    assert plot is not None and ("validation accuracy 0." in plot.words) == drawn
    assert ("not drawn: only 19 validation images" in texts(plot)) != drawn


def test_of_many_classes_the_most_and_least_changed_are_shown(tmp_path: Path) -> None:
    folder, k = write_run(tmp_path / "run"), 100
    sizes = {"support": [1] * k, "confused": [], "per_class": [i / k for i in range(k)]}
    evaluation = read_json(folder / "evaluation-test.json") | {"classes": [f"class-{i:02}" for i in range(k)]}
    write_json(folder / "evaluation-test.json", evaluation | sizes)
    plot, left_out = charts.classes(None, [load_run(folder).evaluation])
    assert left_out == "30 of 100 classes: those with the largest and the smallest accuracy. "
    names = {text.removesuffix(" (n = 1)") for text in texts(plot) if text.startswith("class-")}
    assert len(names) == charts.CLASSES_SHOWN
    assert {"class-99", "class-85", "class-14", "class-00"} <= names and "class-50" not in names


def test_classes_are_sorted_by_gain_and_few_pictures_are_named(tmp_path: Path) -> None:
    def evaluation(name: str, **scores: Any) -> Any:
        folder = write_run(tmp_path / name)
        sizes = {"classes": [*scores], "per_class": [*scores.values()], "support": [100, 7], "confused": []}
        write_json(folder / "evaluation-test.json", read_json(folder / "evaluation-test.json") | sizes)
        return load_run(folder).evaluation

    plot, _ = charts.classes([evaluation("before", dog=0.6, cat=0.2)], [evaluation("after", cat=0.6, dog=0.55)])
    assert plot is not None and plot.words.endswith("cat: 20 to 60 % of 100 pictures; dog: 60 to 55 % of 7 pictures")
    assert {"+40", "−5", "dog (n = 7)"} <= set(texts(plot))


def test_a_reliability_curve_shows_what_is_stated_and_what_is_right(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert charts.reliability(load_run(folder).evaluation) is None, "its record is of a task without it"
    groups = {"calibration": {"bins": [[0.4, 0.5, 20], [0.9, 0.75, 40]]}}
    write_json(folder / "evaluation-test.json", read_json(folder / "evaluation-test.json") | groups)
    plot = charts.reliability(load_run(folder).evaluation)
    assert plot is not None and "stated 90.0 %, right 75.0 % of 40 pictures" in plot.words
    assert "stated probability" in texts(plot)


def test_notebooks_show_runs_comparisons_and_evaluations(run: Path, tmp_path: Path) -> None:
    plot = charts.plot_run(run)
    assert plot is not None
    loss, score = plot.figure.axes
    assert [len(line.get_xdata()) for line in (*loss.lines, *score.lines)] == [7, 7]
    plot.save(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 1000
    (axes,) = charts.plot_comparison(write_comparison(tmp_path / "one", comparison_record())).figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == list(MEANS)
    write_json(tmp_path / "comparison.json", {"comparisons": {"a": comparison_record(), "b": comparison_record(1)}})
    assert [each.get_title("left") for each in charts.plot_comparison(tmp_path).figure.axes] == ["a", "b"]
    (axes,) = charts.plot_classes(run / "evaluation-test.json").figure.axes
    assert len(axes.get_yticklabels()) == len(CLASSES) - 1, "one class has no test picture"
    assert len(made(TrainResult, path=run).plot().figure.axes) == 2
