"""What label shows of boxes to people: suspected errors of human boxes, drawn over the pictures, and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import Manifest, texts_behind
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import csv_cell, visible
from gpt4image.config import LabelConfig
from gpt4image.data import ImageSet
from gpt4image.data.regions import Boxes
from gpt4image.labelling.box_errors import KINDS, Kind, Suspect
from gpt4image.labelling.boxes import TaughtBoxes
from gpt4image.pages.cards import PICTURE, Thumbnails
from gpt4image.pages.numbers import percent
from gpt4image.pages.page import render
from gpt4image.reporting.text_table import text_table

COLUMNS = ("key", "kind", "class", "left", "top", "right", "bottom", "doubt")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownBoxes:
    """What is to be shown of N images.

    Attributes:
        images: the dataset.
        human: boxes that were learned from.
        taught: what the teacher says.
        suspected: errors of human boxes, the surest first.
        table: which embeddings were read; None without texts.
    """

    images: ImageSet
    human: Boxes
    taught: TaughtBoxes
    suspected: Sequence[Suspect]
    table: Manifest | None

    def of_kind(self, kind: Kind) -> list[Suspect]:
        """Return the suspected errors of a kind."""
        return [suspect for suspect in self.suspected if suspect.kind == kind]

    def claims(self, suspect: Suspect) -> list[tuple[str, str, str]]:
        """Return what human box and teacher say, with how sure the evidence is."""
        name, doubt = self.images.classes[suspect.label], percent(suspect.doubt, digits=0)
        if suspect.kind == "missing":
            return [("human box", "none", ""), ("teacher", name, doubt)]
        said = [] if suspect.taught is None else [("teacher", self.images.classes[suspect.taught[1]], "")]
        return [("human box", name, ""), *said, ("doubt", doubt, "")]

    def drawn(self, suspect: Suspect) -> list[dict[str, Any]]:
        """Return the boxes that are drawn over the picture: the suspected one and what speaks against it."""
        corners, labels, _ = self.human.image(suspect.image)
        if suspect.kind == "missing":
            others = [self._box("human", *each) for each in zip(corners, labels, strict=True)]
            return [*others, self._box("teacher", suspect.corners, suspect.label)]
        own = self._box("human", suspect.corners, suspect.label)
        if suspect.taught is not None:
            return [own, self._box("teacher", *suspect.taught)]
        return [own, *self._likely(suspect.image)]

    def _likely(self, image: int) -> Iterator[dict[str, Any]]:
        starts = self.taught.boxes.starts
        for place in range(starts[image], starts[image + 1]):
            if self.taught.likely[place]:
                yield self._box("teacher", self.taught.boxes.corners[place], self.taught.boxes.labels[place])

    def _box(self, kind: str, corners: NDArray[np.float32], label: int) -> dict[str, Any]:
        left, top, right, bottom = (round(100 * value, 2) for value in corners.tolist())
        name = visible(self.images.classes[label])
        place = {"x": left, "y": top, "width": round(right - left, 2), "height": round(bottom - top, 2)}
        return {"kind": kind, "label": name, "title": f"{kind}: {name}", "place": place}


def write_box_page(config: LabelConfig, shown: ShownBoxes, facts: dict[str, Any]) -> tuple[Path, list[Skipped]]:
    """Write the page beside the output; return where it is and the images whose picture cannot be shown."""
    chosen = [(kind, note, shown.of_kind(kind)) for kind, note in KINDS.items()]
    digests = [shown.images.digests[suspect.image] for *_, each in chosen for suspect in each[: config.doubtful]]
    texts = texts_behind([] if shown.table is None else [shown.table], digests)
    pictures = Thumbnails(shown.images, 2 * PICTURE)

    def card(suspect: Suspect) -> dict[str, Any]:
        return {
            "key": shown.images.keys[suspect.image],
            "picture": pictures.of(suspect.image),
            "claims": shown.claims(suspect),
            "boxes": shown.drawn(suspect),
            "descriptions": texts.get(shown.images.digests[suspect.image], []),
        }

    path = config.out.with_suffix(".html")
    sections = [
        {"kind": kind, "note": note, "total": len(each), "cards": [card(one) for one in each[: config.doubtful]]}
        for kind, note, each in chosen
        if each[: config.doubtful]
    ]
    write_text(path, render("box-page.html", data=config.data, sections=sections, facts=facts))
    return path, pictures.skipped


def write_suspected(path: Path, shown: ShownBoxes) -> None:
    """Write all suspected errors as CSV, the surest first; sides of boxes are fractions of the picture."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for suspect in shown.suspected:
        names = (shown.images.keys[suspect.image], suspect.kind, shown.images.classes[suspect.label])
        numbers = (f"{value:.4f}" for value in (*suspect.corners.tolist(), suspect.doubt))
        rows.writerow([*map(csv_cell, names), *numbers])
    write_text(path, text.getvalue())


def in_words(shown: ShownBoxes, most: int) -> str:
    """Return the same for a terminal, at most ``most`` suspected errors."""
    if not shown.suspected:
        return "No suspected errors of human boxes."
    if most == 0:
        return f"{len(shown.suspected)} suspected errors of human boxes; none shown, as asked."
    rows = [("image", "human box", "class", "teacher", "doubt")]
    for suspect in shown.suspected[:most]:
        said = "" if suspect.taught is None else shown.images.classes[suspect.taught[1]]
        key, name = shown.images.keys[suspect.image], shown.images.classes[suspect.label]
        rows.append((key, suspect.kind, name, said, f"{suspect.doubt:.3f}"))
    return text_table("Suspected errors of human boxes, the surest first", rows)
