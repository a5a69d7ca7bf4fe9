from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from gpt4image.artifacts.run_records import Arm
from gpt4image.reporting import charts, run_charts

HOSTILE = "<script>alert('x')</script> & \"$\\frac{1}{2}$\"\n\x00\x1b\ud800 日本語 🙂"


def intervals(name: str = "baseline", identifier: str = "a") -> Markup:
    arms = {
        name: Arm(seeds=(0, 1, 2), test=(0.3, 0.35, 0.4), mean=0.35, ci95=(0.25, 0.45)),
        "text-labels": Arm(seeds=(0,), test=(0.5,), mean=0.5),
    }
    return run_charts.interval_chart(identifier, "test accuracy", arms, name, {})


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
def test_a_chart_is_as_wide_as_the_page_and_has_a_title_for_screen_readers(draw: Draw) -> None:
    (svg,) = ElementTree.fromstring(draw())
    assert "width" not in svg.attrib and svg.get("role") == "img"
    title, description = svg[0], svg[1]
    assert (title.tag, description.tag) == (f"{{{charts.SVG}}}title", f"{{{charts.SVG}}}desc")
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text and re.search(r"\d", description.text or "")


@ALL
def test_ids_are_unique_over_the_charts_of_a_page(draw: Draw) -> None:
    page = f"<body>{draw(identifier='a')}{draw(identifier='b')}</body>"
    ids = [element.get("id") for element in ElementTree.fromstring(page).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert references
    assert references <= set(ids)


@ALL
def test_the_page_chooses_colours_and_fonts_and_hostile_names_stay_text(draw: Draw) -> None:
    chart = draw(HOSTILE)
    assert not re.findall(r"(?<!, )#[0-9a-f]{6}\b", chart)
    assert "var(--ink, #1d2126)" in chart and "<text" in chart
    assert not any(word in chart for word in ("DejaVu", "<style", "<?xml", "<metadata", "<script"))
    names = [element.text for element in ElementTree.fromstring(chart).iter(f"{{{charts.SVG}}}text")]
    assert any((name or "").startswith("<script>alert") for name in names)


@pytest.mark.parametrize("spread", [0.002, 0.02, 0.2])
def test_ticks_of_an_axis_are_told_apart(spread: float) -> None:
    arms = {"one": Arm(seeds=(0, 1), test=(0.65, 0.65 + spread), mean=0.65)}
    root = ElementTree.fromstring(run_charts.interval_chart("a", "test accuracy", arms, "", {}))
    wide = next(iter(root.iter(f"{{{charts.SVG}}}svg")))
    ticks = [text for element in wide.iter(f"{{{charts.SVG}}}text") if (text := element.text or "").endswith(" %")]
    assert len(ticks) > 3 and len(set(ticks)) >= len(ticks) - 1, "the mean is written too"


def test_bounds_are_lines_and_bands_in_grey_and_no_results() -> None:
    found = Arm(seeds=(0, 1, 2), test=(0.61, 0.62, 0.63), mean=0.62, ci95=(0.6, 0.64))
    arms = {"text-labels": Arm(seeds=(0,), test=(0.5,), mean=0.5), "oracle": found}

    def drawn(bounds: dict[str, str]) -> str:
        return run_charts.interval_chart("a", "accuracy", arms, "", bounds)

    as_arm, as_bound = drawn({}), drawn({"oracle": "reference"})
    accent, grey = (f"var(--{name}, {charts.COLOURS[name]})" for name in ("accent", "reference"))
    assert as_bound.count(accent) < as_arm.count(accent) and grey in as_bound and grey not in as_arm
    assert "oracle (reference): mean 62.0 %, interval 60.0 to 64.0 %" in as_bound and ">62.0 %<" in as_bound


@pytest.mark.parametrize(("low", "broken"), [(0.03, False), (0.9, True)])
def test_an_axis_begins_at_0_or_is_marked(low: float, broken: bool) -> None:
    arms = {"one": Arm(seeds=(0, 1), test=(low, low + 0.05), mean=low + 0.02)}
    chart = run_charts.interval_chart("a", "accuracy", arms, "", {})
    assert (f">{charts.BROKEN}<" in chart) == broken and (bool(re.search(r">0(\.0)? %<", chart)) != broken)
    curve = charts.Curve(name="x", epochs=np.arange(1, 4), values=np.array([[low, low + 0.02, low + 0.05]]))
    chart = charts.inline("a", "Curves", "", charts.curve_figure({"x": [curve]}, fractions=True))
    assert (f">{charts.BROKEN}<" in chart) == broken and (bool(re.search(r">0(\.0)? %<", chart)) != broken)
