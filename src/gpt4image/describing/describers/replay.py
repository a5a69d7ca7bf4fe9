"""Replays answers from a file as if they were written now: for tests, demos and other programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.config import DescriberOptions
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, FreeDescriber, Report, Request
from gpt4image.describing.questions import DESCRIPTION
from gpt4image.describing.rows import Row, parse_line, read_rows

_ROWS_PER_GROUP = 256


class ReplayDescriber(FreeDescriber):
    """Answers with the rows of a file. Of JSON lines only their places are held in memory, of other files the rows.

    Its identity is the name of the file, not its content: the file may move, and only lines that are added are
    imported. To replay changed texts as something new, rename the file.
    """

    repeatable = True

    def __init__(self, name: str, _options: DescriberOptions | None = None) -> None:
        """Index the file; bad lines and rows that contradict an earlier one are skipped. Raises ConfigError."""
        self._path = Path(name)
        if not name or not self._path.is_file():
            raise ConfigError(
                f"replay:{name}: there is no such file; give JSON lines, CSV or Parquet with key or digest, and "
                "description or class."
            )
        self.settings: Mapping[str, Any] = {"kind": "replay", "file": self._path.name}
        is_table = self._path.suffix in (".csv", ".parquet")
        self._skipped, self._parts = list[Skipped](), set[str]()
        self._places: dict[tuple[str, str], Row | int] = {}
        with self._path.open("rb") as file:
            for row in read_rows(self._path, lines=not is_table):
                if isinstance(row, Skipped):
                    self._skipped.append(row)
                    continue
                self._parts |= {*row.ask}
                whose = ("digest", row.digest) if row.digest else ("key", row.key or "")
                first = self._row(place, file) if (place := self._places.get(whose)) is not None else None
                reason = f"another answer for {whose[1]!r} stands in an earlier row, which was used"
                if not whose[1]:
                    reason = "neither key nor digest"
                elif place is None:
                    self._places[whose] = row if is_table else row.place
                    continue
                elif first and (first.description, first.fields) == (row.description, row.fields):
                    continue
                self._skipped.append(Skipped(name=row.where, reason=reason))
        if not self._places:
            reason = f" ({self._skipped[0].name}: {self._skipped[0].reason})" if self._skipped else ""
            raise ConfigError(f"replay:{self._path}: no line has a key or digest and an answer{reason}.")

    def _row(self, place: Row | int, file: BinaryIO) -> Row | None:
        """Return the row at a place; None where the file has changed since."""
        if isinstance(place, int):
            file.seek(place)
            found = parse_line(file.readline(), self._path.name)
            return found if isinstance(found, Row) else None
        return place

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the row of each image, or an empty answer if there is none."""
        waiting = iter(requests)
        with self._path.open("rb") as file:
            while group := list(itertools.islice(waiting, _ROWS_PER_GROUP)):
                yield [self._answer(request, file) for request in group]

    def _answer(self, request: Request, file: BinaryIO) -> Answer:
        names = [("digest", request.digest), *(("key", key) for key in request.keys)]
        place = next((self._places[name] for name in names if name in self._places), None)
        if place is None:
            return Answer(request=request)
        row = self._row(place, file)
        if row is None:
            return Answer(request=request, error=f"{self._path.name} changed while it was read")
        if row.prompt and row.prompt.class_conditioned > request.prompt.class_conditioned:
            told = "its writer was told the class, by this row; replay it with --prompt class-conditioned"
            return Answer(request=request, error=told)
        ask = request.prompt.ask
        text = row.description if ask == (DESCRIPTION,) else row.as_json(ask)
        return Answer(request=request, text=text)

    def report(self, images: Dataset) -> Report:
        """Return how many rows belong to no image of the set, with the lines that could not be used."""
        facts = {
            "replay_rows": len(self._places),
            "replay_rows_unused": len(self._places) - sum(name in self._places for name in _names_of(images)),
        }
        return Report(facts=facts, skipped=self._skipped)

    def require_answers(self, images: Dataset, ask: Sequence[str]) -> None:
        """Refuse a file that has nothing for the dataset, or for a part that is asked for. Raises ConfigError."""
        if lacking := [part for part in ask if part not in self._parts]:
            left = ",".join(part for part in ask if part in self._parts)
            way = f"leave it out: --ask {left}" if left else f"it has {', '.join(sorted(self._parts))}"
            raise ConfigError(f"replay:{self._path}: no row has {' or '.join(lacking)}; {way}.")
        if any(name in self._places for name in _names_of(images)):
            return
        given = first_few((name for _, name in itertools.islice(self._places, 3)), 3)
        raise ConfigError(
            f"replay:{self._path}: none of its {len(self._places):,} rows belongs to an image of {images.spec}. Rows "
            f"are of {given}; the keys of the data look like {first_few(images.keys[:3])}. Write the rows with these "
            "keys, or with the digest of each image."
        )


def _names_of(images: Dataset) -> Iterator[tuple[str, str]]:
    yield from (("key", key) for key in images.keys)
    yield from (("digest", digest) for digest in set(images.digests))
