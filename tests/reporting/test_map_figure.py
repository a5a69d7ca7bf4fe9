from __future__ import annotations

from collections import Counter

from gpt4image.reporting.extras import SpaceMap
from gpt4image.reporting.map_figure import COLOURED, JOINED, SIDE, map_figure
from synthetic_records import CLASSES, space_map


def test_frequent_classes_have_a_colour_and_the_others_share_one() -> None:
    record = space_map(120)
    for point in record["points"][:5]:
        point["label"] = None
    figure = map_figure(SpaceMap.model_validate(record))
    counts = Counter(point["label"] for point in record["points"] if point["label"])
    assert len(figure.legend) == COLOURED + 1 and figure.legend[COLOURED] == "others"
    assert set(figure.legend.values()) - {"others"} <= set(CLASSES)
    after = figure.panels[1]
    drawn = {marks.colour: len(marks.dots) for marks in after.marks}
    assert sum(drawn.values()) == 120
    for colour, name in figure.legend.items():
        assert name == "others" or drawn[colour] == counts[name]
        assert all(
            words.endswith(f": {name}") for m in after.marks if m.colour == colour < COLOURED for *_, words in m.dots
        )


def test_both_sides_show_the_same_texts_and_lines_join_partners() -> None:
    space = SpaceMap.model_validate(space_map(50))
    before, after = map_figure(space).panels
    assert [marks.crosses for marks in before.marks] == [marks.crosses for marks in after.marks]
    assert [marks.dots for marks in before.marks] != [marks.dots for marks in after.marks]
    assert [line[2:] for line in before.lines] == [line[2:] for line in after.lines]
    assert 0 < len(after.lines) <= JOINED
    for panel in (before, after):
        assert all(0 < value < SIDE for marks in panel.marks for x, y, _ in marks.dots for value in (x, y))


def test_a_map_without_a_side_before_has_one_panel() -> None:
    record = space_map(6) | {"before": None}
    for point in record["points"]:
        del point["before"]
    figure = map_figure(SpaceMap.model_validate(record))
    assert [panel.is_after for panel in figure.panels] == [True]
    assert figure.chance == 1.0
