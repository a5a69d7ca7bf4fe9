"""The map of images among texts, made ready for the template: panels of dots, crosses and lines, coloured by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gpt4image.reporting.extras import Place, Point, Side, SpaceMap

SIDE, MARGIN = 400, 10
"""Width of a panel and of its border, in SVG units."""
COLOURED = 8
"""Classes with a colour of their own, the most frequent ones; the others share the last one."""
JOINED = 12
"""Images that a line joins to their own text."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What is drawn in one colour: ``(x, y, words)`` of each image, and ``(x, y)`` of each text."""

    colour: int
    dots: list[tuple[float, float, str]]
    crosses: list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One side of the map; ``lines`` are ``(x, y, x, y)`` from an image to its text."""

    side: Side
    is_after: bool
    marks: list[Marks]
    lines: list[tuple[float, float, float, float]]


@dataclass(frozen=True, kw_only=True)
class MapFigure:
    """The whole map; ``legend`` has a name for each colour that is used."""

    panels: list[Panel]
    legend: dict[int, str]
    images: int
    chance: float
    map: SpaceMap


def map_figure(space: SpaceMap) -> MapFigure:
    """Return a map as the template draws it."""
    counts = Counter(point.label for point in space.points if point.label is not None)
    frequent = {label: colour for colour, (label, _) in enumerate(sorted(counts.most_common(COLOURED)))}
    colours = [COLOURED if point.label is None else frequent.get(point.label, COLOURED) for point in space.points]
    legend = {colour: label for label, colour in frequent.items()}
    if COLOURED in colours:
        legend[COLOURED] = "others"
    sides = [(space.before, False), (space.after, True)]
    return MapFigure(
        panels=[_panel(space.points, colours, side, is_after) for side, is_after in sides if side is not None],
        legend=legend,
        images=len(space.points),
        chance=min(1.0, space.among / len(space.points)),
        map=space,
    )


def _panel(points: Sequence[Point], colours: Sequence[int], side: Side, is_after: bool) -> Panel:
    images = [_units(point.after if is_after or point.before is None else point.before) for point in points]
    texts = [_units(point.text) for point in points]
    marks = [
        Marks(
            colour=colour,
            dots=[
                (*place, f"{point.key}: {point.label or 'no label'}")
                for place, point, own in zip(images, points, colours, strict=True)
                if own == colour
            ],
            crosses=[place for place, own in zip(texts, colours, strict=True) if own == colour],
        )
        for colour in sorted(set(colours), reverse=True)
    ]
    joined = range(0, len(points), max(1, -(-len(points) // JOINED)))
    return Panel(side=side, is_after=is_after, marks=marks, lines=[(*images[i], *texts[i]) for i in joined])


def _units(place: Place) -> Place:
    x, y = (round(MARGIN + value * (SIDE - 2 * MARGIN), 1) for value in place)
    return x, y
