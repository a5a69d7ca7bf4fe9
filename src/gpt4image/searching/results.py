"""Search results: as a table, as JSON, and as a page of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.data import ImageSet
from gpt4image.pages.cards import Thumbnails, thumbnail
from gpt4image.pages.page import render
from gpt4image.reporting.text_table import text_table
from gpt4image.searching.queries import Queries


@dataclass(frozen=True)
class Hit:
    """One image that was found, at ``place`` in the dataset; the most similar one has rank 1.

    ``similarity`` is the cosine to the query, ``equal`` counts other images of the dataset with the same bytes.
    """

    place: int
    rank: int
    similarity: float
    key: str
    label: str | None
    equal: int

    @classmethod
    def of(cls, images: ImageSet, place: int, rank: int, similarity: float, *, equal: int) -> Hit:
        """Return the image at ``place`` as a hit."""
        label = ", ".join(images.label_names(place)) or None
        return cls(place, rank, similarity, images.keys[place], label, equal)

    def as_json(self) -> dict[str, Any]:
        """Return what a machine would read."""
        return {"rank": self.rank, "similarity": round(self.similarity, 4), "key": self.key, "label": self.label}


def in_words(names: Sequence[str], found: Sequence[Sequence[Hit]]) -> str:
    """Return one table for each query."""
    head = ("rank", "similarity", "image", "label")
    tables = [[(str(hit.rank), f"{hit.similarity:.3f}", hit.key, hit.label or "") for hit in hits] for hits in found]
    return "\n\n".join(text_table(name, [head, *rows]) for name, rows in zip(names, tables, strict=True))


def write_page(
    path: Path, images: ImageSet, queries: Queries, found: Sequence[Sequence[Hit]], facts: dict[str, Any]
) -> list[Skipped]:
    """Write a self-contained page of the hits of each query; return the images whose picture cannot be shown."""
    pictures = Thumbnails(images)
    sections = [
        {
            "name": name,
            "picture": thumbnail(queries.pictures[name], clips=images.clips) if name in queries.pictures else None,
            "cards": [{"picture": pictures.of(hit.place), "hit": hit} for hit in hits],
        }
        for name, hits in zip(queries.names, found, strict=True)
    ]
    write_text(path, render("search.html", sections=sections, facts=facts))
    return pictures.skipped
