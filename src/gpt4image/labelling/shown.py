"""What ``label`` shows to people: suspected errors and suggestions as a page and in a terminal, and tables as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.store import ClassOption
from gpt4image.artifacts.table import Manifest, texts_behind
from gpt4image.artifacts.targets import Targets
from gpt4image.artifacts.top_k_probs import Probabilities, two_best
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import csv_cell, csv_line, in_one_line
from gpt4image.config import LabelConfig
from gpt4image.data import Dataset
from gpt4image.data.regions import Boxes
from gpt4image.describing.class_lists import class_list
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.boxes import KINDS, Suspect, TaughtBoxes
from gpt4image.labelling.confusions import Confused
from gpt4image.labelling.suggest import Suggestion
from gpt4image.pages.cards import PICTURE, Thumbnails, mark
from gpt4image.pages.numbers import percent, text_table
from gpt4image.pages.page import render

LIKELY = 0.5  # probability from which a class counts as present, where images have several
SUGGESTED = (
    (
        "label",
        "Worth a label next",
        "Images whose class is uncertain. They differ from each other, and many others are like them.",
    ),
    ("describe", "Worth a description next", "Training images without a description."),
)
_TO_DEFINE = "# Write after each colon what tells this class from the others; that may also stay empty.\n"


class Card(NamedTuple):
    """One image that is shown: what each source claims, (source, class, how sure), and how it reads in a terminal.

    ``line`` is the row of the CSV file that a person ticks; ``boxes`` are drawn over the picture.
    """

    row: int
    cells: Sequence[str]
    claims: Sequence[tuple[str, str, str]]
    line: str = ""
    notes: Sequence[str] = ()
    boxes: Sequence[Mapping[str, Any]] = ()


class Section(NamedTuple):
    """Cards under a heading, of ``total`` that there are."""

    heading: str
    note: str
    total: int
    cards: Sequence[Card]


def write_page(
    config: LabelConfig,
    images: Dataset,
    table: Manifest | None,
    sections: Sequence[Section],
    facts: Mapping[str, Any],
    agreement: float | None = None,
) -> tuple[Path, list[Skipped]]:
    """Write the page beside the output; return where it is and the images whose picture cannot be shown."""
    sections = [section for section in sections if section.cards]
    digests = [images.digests[card.row] for section in sections for card in section.cards]
    texts = texts_behind([] if table is None else [table], digests)
    pictures = Thumbnails(images, 2 * PICTURE if any(c.boxes for s in sections for c in s.cards) else PICTURE)

    def shown(card: Card) -> dict[str, Any]:
        known = {"key": images.keys[card.row], "picture": pictures.of(card.row)}
        return {**known, **card._asdict(), "descriptions": texts.get(images.digests[card.row], [])}

    page = render(
        "label-page.html",
        data=config.data,
        sections=[{**section._asdict(), "cards": list(map(shown, section.cards))} for section in sections],
        ticks=sum(bool(card.line) for section in sections for card in section.cards),
        head=_line("key", "given_label", "text_label", "probability"),
        facts=facts,
        agreement=agreement,
    )
    path = config.out.with_suffix(".html")
    write_text(path, page)
    return path, pictures.skipped


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownClasses:
    """What is to be shown of N images with classes.

    Attributes:
        images: the dataset, with the labels that were learned from.
        probabilities: (N, K) class probabilities by all sources; rows of zeros, or NaN, where there is none.
        suspected: (m, 2) image and class of the labels that look wrong, the most certain ones first.
        suggestions: images to label and to describe next.
        answers: about the images; None where none were read.
        most: number of suspected errors to show.
    """

    images: Dataset
    probabilities: Probabilities
    suspected: NDArray[np.int64]
    suggestions: Sequence[Suggestion]
    answers: Answers | None
    most: int

    def guess(self, row: int) -> str:
        """Return the most probable class of an image; empty where nothing is known."""
        known = self.probabilities[row]
        return self.images.classes[int(known.argmax())] if known.any() else ""

    def sections(self) -> list[Section]:
        """Return the suspected label errors, then the suggestions."""
        suspected = [self._suspected(row, label) for row, label in self.suspected[: self.most].tolist()]
        first = Section("", "", len(self.suspected), suspected)
        cards = {
            action: [self._suggested(item) for item in self.suggestions if item.action == action]
            for action, *_ in SUGGESTED
        }
        return [first, *(Section(title, note, len(cards[what]), cards[what]) for what, title, note in SUGGESTED)]

    def in_words(self, sections: Sequence[Section]) -> str:
        """Return the same for a terminal."""
        says = () if self.answers is None else ("answer says",)
        head = ("image", "given label", "predicted", "probability", "doubt", *says)
        title = "Suspected label errors, the most certain ones first"
        none = f"{len(self.suspected)} suspected label errors; none shown, as asked."
        rows = [card.cells for card in sections[0].cards]
        parts = [text_table(title, [head, *rows]) if rows else none if self.most == 0 else "No suspected label errors."]
        for section in sections[1:]:
            if section.cards:
                head = ("image", "guess", "why")
                parts.append(text_table(section.heading, [head, *(card.cells for card in section.cards)]))
        return "\n\n".join(parts)

    def _suspected(self, row: int, label: int) -> Card:
        name, known, key = self.images.classes[label], self.probabilities[row], self.images.keys[row]
        given, guess, likely, doubt = name, self.guess(row), float(known.max()), 1.0 - float(known[label])
        if self.images.labels.ndim > 1:
            present = self.images.labels[row, label] == 1
            given, guess = (f"{name}: {'present' if there else 'absent'}" for there in (present, not present))
            likely = doubt = doubt if present else float(known[label])
        said = self._answer(row)
        cells = (key, given, guess, f"{likely:.2f}", f"{doubt:.3f}", *([] if self.answers is None else [said]))
        claims = [("given label", given, ""), *self._claims(guess, likely, said)]
        return Card(row, cells, claims, line=_line(key, given, guess, f"{likely:.4f}"))

    def _suggested(self, item: Suggestion) -> Card:
        guess, likely = self.guess(item.row), float(self.probabilities[item.row].max())
        cells = (self.images.keys[item.row], guess, item.why)
        return Card(item.row, cells, self._claims(guess, likely, self._answer(item.row)), notes=[item.why])

    def _claims(self, guess: str, likely: float, said: str) -> list[tuple[str, str, str]]:
        found = [("predicted", guess, percent(likely, digits=0))] if guess else []
        return [*found, *([("answer says", said, "")] if said else [])]

    def _answer(self, row: int) -> str:
        if self.answers is None or self.answers.first[row] < 0:
            return ""
        return f"{self.images.classes[int(self.answers.first[row])]} ({self.answers.confidence[row]:.2f})"


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownBoxes:
    """What is to be shown of N images with boxes: ``human`` ones that were learned from, what the teacher says, and
    suspected errors, the surest first, of which at most ``most`` of each kind."""

    images: Dataset
    human: Boxes
    taught: TaughtBoxes
    suspected: Sequence[Suspect]
    most: int

    def sections(self) -> list[Section]:
        """Return the suspected errors by their kind."""
        of_kind = {kind: [one for one in self.suspected if one.kind == kind] for kind in KINDS}
        return [
            Section(kind, note, len(of_kind[kind]), [self._card(one) for one in of_kind[kind][: self.most]])
            for kind, note in KINDS.items()
        ]

    def in_words(self) -> str:
        """Return the same for a terminal."""
        if not self.suspected:
            return "No suspected errors of human boxes."
        if self.most == 0:
            return f"{len(self.suspected)} suspected errors of human boxes; none shown, as asked."
        rows = [("image", "human box", "class", "teacher", "doubt")]
        rows += [tuple(self._card(one).cells) for one in self.suspected[: self.most]]
        return text_table("Suspected errors of human boxes, the surest first", rows)

    def write(self, path: Path) -> None:
        """Write all suspected errors as CSV; sides of boxes are fractions of the picture."""
        rows: list[Sequence[str]] = [("key", "kind", "class", "left", "top", "right", "bottom", "doubt")]
        for one in self.suspected:
            numbers = (f"{value:.4f}" for value in (*one.corners.tolist(), one.doubt))
            rows.append((self.images.keys[one.image], one.kind, self.images.classes[one.label], *numbers))
        _write_csv(path, rows)

    def _card(self, one: Suspect) -> Card:
        names, doubt = self.images.classes, percent(one.doubt, digits=0)
        name, said = names[one.label], "" if one.taught is None else names[one.taught[1]]
        cells = (self.images.keys[one.image], one.kind, name, said, f"{one.doubt:.3f}")
        own = mark("teacher" if one.kind == "missing" else "human", one.corners.tolist(), name)
        if one.kind == "missing":
            corners, labels, _ = self.human.image(one.image)
            others = [mark("human", box, names[k]) for box, k in zip(corners, labels, strict=True)]
            return Card(one.image, cells, [("human box", "none", ""), ("teacher", name, doubt)], boxes=[*others, own])
        if one.taught is not None:
            against = [mark("teacher", one.taught[0].tolist(), said)]
        else:
            boxes = self.taught.boxes
            places = range(boxes.starts[one.image], boxes.starts[one.image + 1])
            likely = [place for place in places if self.taught.likely[place]]
            against = [mark("teacher", boxes.corners[place].tolist(), names[boxes.labels[place]]) for place in likely]
        claims = [("human box", name, ""), *([("teacher", said, "")] if said else []), ("doubt", doubt, "")]
        return Card(one.image, cells, claims, boxes=[own, *against])


def write_table(path: Path, labels: Targets) -> None:
    """Write key, split, given class, predicted class and its probability, and the second class with its own.

    Of several classes per image, those that are likely are listed with bars between them.
    """
    names, head = labels.classes, ("key", "split", "given", "predicted", "probability")

    def several() -> Iterator[Sequence[str]]:
        yield head
        for row, key in enumerate(labels.keys):
            shares, given = labels.probabilities[row], labels.labels[row]
            likely = np.flatnonzero(shares >= LIKELY)
            said = ("|".join(names[k] for k in some) for some in (np.flatnonzero(given == 1), likely))
            yield key, labels.splits[row], *said, "|".join(f"{shares[k]:.4f}" for k in likely)

    def single() -> Iterator[Sequence[str]]:
        yield *head, "second", "its_probability"
        columns = zip(labels.keys, labels.splits, labels.labels.tolist(), *two_best(labels.probabilities), strict=True)
        for key, split, own, (k, second), (p, its) in columns:
            yield key, split, names[own] if own >= 0 else "", names[k], f"{p:.4f}", names[second], f"{its:.4f}"

    _write_csv(path, several() if labels.labels.ndim == 2 else single())


def write_suggestions(path: Path, shown: ShownClasses) -> None:
    """Write suggestions in their order: rank, action, key, guess (empty where nothing is known), doubt, why."""
    rows, ranks = [("rank", "action", "key", "guess", "doubt", "why")], Counter[str]()
    for item in shown.suggestions:
        ranks[item.action] += 1
        key, guess = (in_one_line(text) for text in (shown.images.keys[item.row], shown.guess(item.row)))
        doubt = "" if item.doubt is None else f"{item.doubt:.4f}"
        rows.append((str(ranks[item.action]), item.action, key, guess, doubt, item.why))
    _write_csv(path, rows)


def confused_table(pairs: Sequence[Confused], classes: Sequence[str]) -> str:
    """Return pairs of classes as a table for a terminal."""
    rows = [("classes", "compared with", "confused", "ask again")]
    for pair in pairs:
        names = " / ".join(classes[number] for number in pair.classes)
        rows.append((names, pair.by, f"{pair.wrong:,} of {pair.checked:,}", f"{len(pair.images):,} images"))
    return text_table("Classes that the answers confuse more often than chance", rows)


def write_to_ask_again(path: Path, pairs: Sequence[Confused], images: Dataset, probabilities: Probabilities) -> None:
    """Write the images to ask again as CSV: key, digest, and their first and second class."""
    rows = np.sort(np.concatenate([pair.images for pair in pairs])).tolist()
    best = (np.argsort(probabilities[row])[-2:][::-1].tolist() for row in rows)
    names = ((images.classes[first], images.classes[second]) for first, second in best)
    cells = ((images.keys[row], images.digests[row], *two) for row, two in zip(rows, names, strict=True))
    _write_csv(path, [("key", "digest", "first", "second"), *cells])


def write_classes(
    path: Path, pairs: Iterable[Confused], classes: Sequence[str], definitions: Mapping[int, str]
) -> None:
    """Write the classes of the pairs as a class list with a place for definitions.

    What a person wrote into an earlier list is kept, then ``definitions`` that answers were given with, by class.

    Raises:
        ConfigError: the earlier list cannot be read.
    """
    written = {name: definition for name, definition in class_list(str(path)) if definition} if path.exists() else {}
    numbers = dict.fromkeys(number for pair in pairs for number in pair.classes)
    options = [ClassOption(classes[i], written.get(classes[i], definitions.get(i, ""))) for i in numbers]
    lines = (f"{name}: {definition}".strip() + "\n" for name, definition in options)
    write_text(path, _TO_DEFINE + "".join(lines))


def _write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    write_text(path, "".join(map(csv_line, rows)))


def _line(*cells: str) -> str:
    """Return cells as one line of a CSV file, in which no spreadsheet finds a formula."""
    line = io.StringIO()
    csv.writer(line).writerow(map(csv_cell, cells))
    return line.getvalue()
