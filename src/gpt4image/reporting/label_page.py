"""The page that ``label`` writes beside targets: suspected errors of human labels, and targets to look at."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.probabilities import Probabilities, two_best
from gpt4image.artifacts.table import EmbeddingTable, texts_behind
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.data.dataset import Dataset
from gpt4image.pages.cards import PICTURE, Thumbnails
from gpt4image.pages.numbers import percent
from gpt4image.pages.page import render

MOST_SHOWN = 50  # suspected errors of a section
TARGETS_SHOWN = 24  # cards of targets in a section
SOURCES = {
    "answers": "answer",
    "taught": "description",
    "names": "class name",
    "texts": "labels",
    "pictures": "picture",
    "pictures of labels": "labels",
}
"""Sources of a class as the page calls them; ``labels`` are those of similar images."""


class Card(NamedTuple):
    """One image: its row, its cells in a terminal, the claims (source, class, how sure), and boxes over the picture."""

    row: int
    cells: Sequence[str]
    claims: Sequence[tuple[str, str, str]]
    boxes: Sequence[Mapping[str, Any]] = ()


class Section(NamedTuple):
    """Cards under a heading, made where they are shown."""

    heading: str
    note: str
    cards: Sequence[Callable[[], Card]]


def suspected_label(
    images: Dataset, labels: NDArray[Any], found: Probabilities, answers: Any | None, row: int, label: int
) -> Card:
    """Return the card of a label that looks wrong; ``answers`` have (N,) ``first`` classes and their ``confidence``."""
    known: NDArray[Any] = found[row]
    name = images.classes[label]
    given, guess = name, images.classes[int(known.argmax())]
    likely, doubt = float(known.max()), 1.0 - float(known[label])
    if labels.ndim > 1:
        present = labels[row, label] == 1
        given, guess = (f"{name}: {'present' if there else 'absent'}" for there in (present, not present))
        likely = doubt = doubt if present else float(known[label])
    answer = ""
    if answers is not None and answers.first[row] >= 0:
        answer = f"{images.classes[int(answers.first[row])]} ({answers.confidence[row]:.2f})"
    cells = (images.keys[row], given, guess, f"{likely:.2f}", f"{doubt:.3f}", *([] if answers is None else [answer]))
    claims = [("given label", given, ""), ("predicted", guess, percent(likely, digits=0))]
    return Card(row, cells, [*claims, *([("answer says", answer, "")] if answer else [])])


def target_sections(
    images: Dataset, rows: NDArray[np.int64], found: Probabilities, by_source: Mapping[str, NDArray[np.int64]]
) -> list[Section]:
    """Return the targets to look at: those at ``rows``, the least sure first, and those whose sources disagree.

    ``by_source`` has the (N,) class that each source names, -1 for none.
    """
    if not len(rows):
        return []
    classes = np.array([np.full(len(rows), -1), *(own[rows] for own in by_source.values())])
    disagree = ((classes >= 0) & (classes != classes.max(axis=0))).any(axis=0)

    def card(row: int) -> Card:
        first, second = (each[0].tolist() for each in two_best(found[row : row + 1]))
        claims = [("target", images.classes[first[0]], percent(second[0], digits=0))]
        claims += [("or", images.classes[first[1]], percent(second[1], digits=0))] * (second[1] >= 0.005)
        named = ((SOURCES.get(name, name), own[row]) for name, own in by_source.items())
        return Card(row, (), [*claims, *((name, images.classes[k], "") for name, k in named if k >= 0)])

    def section(heading: str, some: NDArray[np.int64]) -> Section:
        shown = [partial(card, row) for row in some[:TARGETS_SHOWN].tolist()]
        return Section(heading, f"{len(shown)} of {len(some):,} images without a label, the least sure first.", shown)

    return [section("The least sure targets", rows), section("Sources disagree", rows[disagree])]


def target_classes(classes: Sequence[str], found: Probabilities, *, exclusive: bool) -> list[tuple[str, int, float]]:
    """Return of how many images each class is the target, and its mean probability in them."""
    known = np.nan_to_num(found)
    own = known.argmax(axis=1)[:, None] == np.arange(len(classes)) if exclusive else known >= 0.5
    count = own.sum(axis=0)
    mean = np.where(own, known, 0.0).sum(axis=0) / np.maximum(count, 1)
    return list(zip(classes, count.tolist(), mean.tolist(), strict=True))


def write_page(
    path: Path,
    images: Dataset,
    suspected: Sequence[Section],
    targets: Sequence[Section],
    *,
    table: EmbeddingTable | None,
    boxes: bool,
    **facts: Any,
) -> list[Skipped]:
    """Write the page; return the images whose picture cannot be shown. ``facts`` are what its template names."""
    made = [[card() for card in section.cards[:MOST_SHOWN]] for section in (*suspected, *targets)]
    digests = [images.digests[card.row] for cards in made for card in cards]
    texts = texts_behind([] if table is None else [table.manifest], digests)
    pictures = Thumbnails(images, 2 * PICTURE if boxes else PICTURE)

    def shown(card: Card) -> dict[str, Any]:
        known = {"key": images.keys[card.row], "picture": pictures.of(card.row)}
        return {**known, **card._asdict(), "descriptions": texts.get(images.digests[card.row], [])}

    every = [
        {"heading": section.heading, "note": section.note, "total": len(section.cards), "cards": [*map(shown, cards)]}
        for section, cards in zip((*suspected, *targets), made, strict=True)
    ]
    lists = {"sections": every[: len(suspected)], "more": every[len(suspected) :]}
    write_text(path, render("label-page.html", **{k: [s for s in v if s["cards"]] for k, v in lists.items()}, **facts))
    return pictures.skipped
