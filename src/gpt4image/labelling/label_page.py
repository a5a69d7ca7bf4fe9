"""What ``label`` shows to people: doubtful labels, and images to label or to describe next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.table import Manifest, texts_behind
from gpt4image.base.files import write_text
from gpt4image.base.outcome import SetAside
from gpt4image.config import LabelConfig
from gpt4image.data import ImageSet
from gpt4image.labelling.suggest import Suggestion
from gpt4image.pages.cards import Thumbnails
from gpt4image.pages.page import render
from gpt4image.reporting.text_table import text_table


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What is to be shown of N images.

    Attributes:
        images: the set.
        probabilities: (N, K) class probabilities by the texts; rows of zeros where there is none.
        labels: (N,) given labels.
        table: what the texts were read off.
        doubtful: positions of the images whose label looks wrong, the most doubtful first.
        suggestions: images to label and to describe next.
    """

    images: ImageSet
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    table: Manifest
    doubtful: NDArray[np.int64]
    suggestions: Sequence[Suggestion]

    def guess(self, row: int) -> str:
        """Return the most probable class of an image; empty where nothing is known."""
        known = self.probabilities[row]
        return self.images.classes[int(known.argmax())] if known.any() else ""

    def given(self, row: int) -> str:
        """Return the given label of an image."""
        return self.images.classes[self.labels[row]]


def write_page(config: LabelConfig, shown: Shown, facts: dict[str, Any]) -> tuple[Path, list[SetAside]]:
    """Write the page beside the output; return where it is and the images whose picture cannot be shown."""
    doubtful = shown.doubtful[: config.doubtful].tolist()
    suggested = [item.row for item in shown.suggestions]
    texts = texts_behind([shown.table], [shown.images.digests[row] for row in (*doubtful, *suggested)])
    pictures = Thumbnails(shown.images)

    def card(row: int) -> dict[str, Any]:
        return {
            "key": shown.images.keys[row],
            "picture": pictures.of(row),
            "guess": shown.guess(row),
            "probability": float(shown.probabilities[row].max()),
            "descriptions": texts.get(shown.images.digests[row], []),
        }

    path = config.out.with_suffix(".html")
    page = render(
        "doubtful.html",
        data=config.data,
        cards=[{**card(row), "given": shown.given(row)} for row in doubtful],
        total=len(shown.doubtful),
        facts=facts,
        suggested={
            action: [{**card(item.row), "why": item.why} for item in shown.suggestions if item.action == action]
            for action in ("label", "describe")
        },
    )
    write_text(path, page)
    return path, pictures.set_aside


def in_words(shown: Shown, most: int) -> str:
    """Return the same for a terminal, at most ``most`` doubtful labels."""
    rows = [("image", "given label", "text label", "probability", "doubt")]
    for row in shown.doubtful[:most].tolist():
        known, own = shown.probabilities[row], shown.labels[row]
        numbers = f"{known.max():.2f}", f"{1.0 - known[own]:.3f}"
        rows.append((shown.images.keys[row], shown.given(row), shown.guess(row), *numbers))
    none = f"{len(shown.doubtful)} doubtful labels; none shown, as asked." if most == 0 else "No doubtful labels."
    parts = [text_table("Most doubtful labels", rows) if len(rows) > 1 else none]
    for action, title in (("label", "Worth a label next"), ("describe", "Worth a description next")):
        chosen = [item for item in shown.suggestions if item.action == action]
        if chosen:
            rows = [("image", "guess", "why")]
            rows += [(shown.images.keys[item.row], shown.guess(item.row), item.why) for item in chosen]
            parts.append(text_table(title, rows))
    return "\n\n".join(parts)
