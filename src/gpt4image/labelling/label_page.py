"""What ``label`` shows to people: suspected label errors, and images to label or to describe next."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.class_shares import Probabilities
from gpt4image.artifacts.table import Manifest, texts_behind
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import csv_cell
from gpt4image.config import LabelConfig
from gpt4image.data import ImageSet
from gpt4image.labelling.answers import Answers
from gpt4image.labelling.suggest import Suggestion
from gpt4image.pages.cards import Thumbnails
from gpt4image.pages.numbers import percent
from gpt4image.pages.page import render
from gpt4image.reporting.text_table import text_table


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What is to be shown of N images.

    Attributes:
        images: the dataset, with the labels that were learned from.
        probabilities: (N, K) class probabilities by the texts; rows of zeros, or NaN, where there is none.
        table: which embeddings they are predicted from; None without texts.
        suspected: (m, 2) image and class of the labels that look wrong, the most certain ones first.
        suggestions: images to label and to describe next.
        answers: about the images; None where none were read.
    """

    images: ImageSet
    probabilities: Probabilities
    table: Manifest | None
    suspected: NDArray[np.int64]
    suggestions: Sequence[Suggestion]
    answers: Answers | None = None

    def guess(self, row: int) -> str:
        """Return the most probable class of an image; empty where nothing is known."""
        known = self.probabilities[row]
        return self.images.classes[int(known.argmax())] if known.any() else ""

    def answer(self, row: int) -> str:
        """Return what the describer answered about an image, with its confidence; empty without an answer."""
        if self.answers is None or self.answers.first[row] < 0:
            return ""
        return f"{self.images.classes[int(self.answers.first[row])]} ({self.answers.confidence[row]:.2f})"

    def suspect(self, row: int, label: int) -> dict[str, Any]:
        """Return a suspected label error in words: given label, label by the text and its probability, and doubt."""
        name, known = self.images.classes[label], self.probabilities[row]
        if self.images.labels.ndim == 1:
            likely, doubt = float(known.max()), 1.0 - float(known[label])
            return {"given": name, "guess": self.guess(row), "probability": likely, "doubt": doubt}
        present = self.images.labels[row, label] == 1
        given, guess = (f"{name}: {'present' if there else 'absent'}" for there in (present, not present))
        doubt = float(1 - known[label] if present else known[label])
        return {"given": given, "guess": guess, "probability": doubt, "doubt": doubt}


def write_page(
    config: LabelConfig, shown: Shown, facts: dict[str, Any], agreement: float | None
) -> tuple[Path, list[Skipped]]:
    """Write the page beside the output; return where it is and the images whose picture cannot be shown."""
    suspected = shown.suspected[: config.doubtful].tolist()
    asked = [*(row for row, _ in suspected), *(item.row for item in shown.suggestions)]
    tables = [] if shown.table is None else [shown.table]
    texts = texts_behind(tables, [shown.images.digests[row] for row in asked])
    pictures = Thumbnails(shown.images)

    def card(row: int, claims: Sequence[tuple[str, str, str]], **more: Any) -> dict[str, Any]:
        return {
            "key": shown.images.keys[row],
            "picture": pictures.of(row),
            "claims": claims,
            "descriptions": texts.get(shown.images.digests[row], []),
            **more,
        }

    def evidence(row: int, guess: str, likely: float) -> list[tuple[str, str, str]]:
        said = shown.answer(row)
        found = [("predicted", guess, percent(likely, digits=0))] if guess else []
        return [*found, *([("answer says", said, "")] if said else [])]

    def suspected_card(row: int, label: int) -> dict[str, Any]:
        found = shown.suspect(row, label)
        given, guess, likely = found["given"], found["guess"], found["probability"]
        claims = [("given label", given, ""), *evidence(row, guess, likely)]
        return card(row, claims, line=csv_line(shown.images.keys[row], given, guess, f"{likely:.4f}"))

    def suggested_card(item: Suggestion) -> dict[str, Any]:
        likely = float(shown.probabilities[item.row].max())
        return card(item.row, evidence(item.row, shown.guess(item.row), likely), why=item.why)

    path = config.out.with_suffix(".html")
    page = render(
        "label-page.html",
        data=config.data,
        cards=[suspected_card(row, label) for row, label in suspected],
        head=csv_line("key", "given_label", "text_label", "probability"),
        total=len(shown.suspected),
        facts=facts,
        agreement=agreement,
        suggested={
            action: [suggested_card(item) for item in shown.suggestions if item.action == action]
            for action in ("label", "describe")
        },
    )
    write_text(path, page)
    return path, pictures.skipped


def csv_line(*cells: str) -> str:
    """Return cells as one line of a CSV file, in which no spreadsheet finds a formula."""
    line = io.StringIO()
    csv.writer(line).writerow(map(csv_cell, cells))
    return line.getvalue()


def in_words(shown: Shown, most: int) -> str:
    """Return the same for a terminal, at most ``most`` suspected label errors."""
    says = () if shown.answers is None else ("answer says",)
    keys, rows = shown.images.keys, [("image", "given label", "predicted", "probability", "doubt", *says)]
    for row, label in shown.suspected[:most].tolist():
        found = shown.suspect(row, label)
        cells = (keys[row], found["given"], found["guess"], f"{found['probability']:.2f}", f"{found['doubt']:.3f}")
        rows.append((*cells, *(shown.answer(row) for _ in says)))
    none = "No suspected label errors."
    if most == 0:
        none = f"{len(shown.suspected)} suspected label errors; none shown, as asked."
    parts = [text_table("Suspected label errors, the most certain ones first", rows) if len(rows) > 1 else none]
    for action, title in (("label", "Worth a label next"), ("describe", "Worth a description next")):
        chosen = [item for item in shown.suggestions if item.action == action]
        if chosen:
            rows = [("image", "guess", "why"), *((keys[item.row], shown.guess(item.row), item.why) for item in chosen)]
            parts.append(text_table(title, rows))
    return "\n\n".join(parts)
