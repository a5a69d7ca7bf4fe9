"""What was found: as a table, as JSON, and as a page of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4image.base.errors import DecodeError
from gpt4image.base.files import write_text
from gpt4image.base.outcome import SetAside
from gpt4image.data import ImageSet
from gpt4image.reporting.examples import picture
from gpt4image.reporting.page import render
from gpt4image.reporting.text_table import text_table
from gpt4image.searching.queries import Queries

PICTURE = 192  # pixels a side


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One image that was found.

    Attributes:
        place: its position in the set.
        rank: 1 for the most similar one.
        similarity: cosine to the query, -1..1.
        key: its key.
        label: its class, None where it has none.
        equal: images of the set with the same bytes.
    """

    place: int
    rank: int
    similarity: float
    key: str
    label: str | None
    equal: int

    def as_json(self) -> dict[str, Any]:
        """Return what a machine would read."""
        return {"rank": self.rank, "similarity": round(self.similarity, 4), "key": self.key, "label": self.label}


def in_words(names: Sequence[str], found: Sequence[Sequence[Hit]]) -> str:
    """Return one table for each query."""
    return "\n\n".join(
        text_table(
            name,
            [
                ("rank", "similarity", "image", "label"),
                *((str(hit.rank), f"{hit.similarity:.3f}", hit.key, hit.label or "") for hit in hits),
            ],
        )
        for name, hits in zip(names, found, strict=True)
    )


def write_page(
    path: Path, images: ImageSet, queries: Queries, found: Sequence[Sequence[Hit]], facts: dict[str, Any]
) -> list[SetAside]:
    """Write a self-contained page of what was found; return the images whose picture cannot be shown.

    Args:
        path: file to write.
        images: the set; only the pictures that were found are read.
        queries: what was asked.
        found: hits of each query.
        facts: data, run, encoder and number of images.
    """
    set_aside: list[SetAside] = []

    def card(hit: Hit) -> dict[str, Any]:
        shown = None
        try:
            shown = picture(images.read(hit.place), PICTURE)
        except (DecodeError, OSError) as error:
            set_aside.append(SetAside(name=hit.key, reason=str(error)))
        return {"picture": shown, "hit": hit}

    sections = [
        {
            "name": name,
            "picture": picture(queries.pictures[name], PICTURE) if name in queries.pictures else None,
            "cards": [card(hit) for hit in hits],
        }
        for name, hits in zip(queries.names, found, strict=True)
    ]
    write_text(path, render("search.html", sections=sections, facts=facts))
    return list(dict.fromkeys(set_aside))
