"""Replays answers from a file as if they were written now: for tests, demos and other programs."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt4image.artifacts.answers import DESCRIPTION
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.config import DescriberOptions
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, FreeDescriber, Report, Request
from gpt4image.describing.rows import Row, read_rows

_ROWS_PER_GROUP = 256


class ReplayDescriber(FreeDescriber):
    """Answers with the rows of a file, which are held in memory.

    Its identity is the name of the file, not its content: the file may move, and only lines that are added are
    imported. To replay changed texts as something new, rename the file.
    """

    repeatable = True

    def __init__(self, name: str, _options: DescriberOptions | None = None) -> None:
        """Read the file; bad lines and rows that contradict an earlier one are skipped. Raises ConfigError."""
        self._path = Path(name)
        if not name or not self._path.is_file():
            raise ConfigError(
                f"replay:{name}: there is no such file; give JSON lines, CSV or Parquet with key or digest, and "
                "description or class."
            )
        self.settings: Mapping[str, Any] = {"kind": "replay", "file": self._path.name}
        self._skipped, self._rows = list[Skipped](), dict[str, Row]()  # by digest or key
        for row in read_rows(self._path, lines=self._path.suffix not in (".csv", ".parquet")):
            if isinstance(row, Skipped):
                self._skipped.append(row)
            elif not (whose := row.digest or row.key):
                self._skipped.append(Skipped(name=row.where, reason="neither key nor digest"))
            elif (
                first := self._rows.setdefault(whose, row)
            ).description != row.description or first.fields != row.fields:
                reason = f"another answer for {whose!r} stands in an earlier row, which was used"
                self._skipped.append(Skipped(name=row.where, reason=reason))
        if not self._rows:
            reason = f" ({self._skipped[0].name}: {self._skipped[0].reason})" if self._skipped else ""
            raise ConfigError(f"replay:{self._path}: no line has a key or digest and an answer{reason}.")

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the row of each image, or an empty answer if there is none."""
        waiting = iter(requests)
        while group := list(itertools.islice(waiting, _ROWS_PER_GROUP)):
            yield [self._answer(request) for request in group]

    def _answer(self, request: Request) -> Answer:
        row = next((self._rows[name] for name in (request.digest, *request.keys) if name in self._rows), None)
        if row is None:
            return Answer(request=request)
        if row.prompt and row.prompt.class_conditioned > request.prompt.class_conditioned:
            told = "its writer was told the class, by this row; replay it with --prompt class-conditioned"
            return Answer(request=request, error=told)
        ask = request.prompt.ask
        return Answer(request=request, text=row.description if ask == (DESCRIPTION,) else row.as_json(ask))

    def report(self, images: Dataset) -> Report:
        """Return how many rows belong to no image that is asked about, with the lines that could not be used."""
        unused = len(self._rows.keys() - {*images.keys, *images.digests})
        return Report(facts={"replay_rows": len(self._rows), "replay_rows_unused": unused}, skipped=self._skipped)

    def require_answers(self, images: Dataset, ask: Sequence[str]) -> None:
        """Refuse a file that has nothing for the dataset, or for a part that is asked for. Raises ConfigError."""
        parts = set[str]().union(*(row.ask for row in self._rows.values()))
        if lacking := [part for part in ask if part not in parts]:
            left = ",".join(part for part in ask if part in parts)
            way = f"leave it out: --ask {left}" if left else f"it has {', '.join(sorted(parts))}"
            raise ConfigError(f"replay:{self._path}: no row has {' or '.join(lacking)}; {way}.")
        if self._rows.keys().isdisjoint({*images.keys, *images.digests}):
            raise ConfigError(
                f"replay:{self._path}: none of its {len(self._rows):,} rows belongs to an image of {images.spec}. Rows "
                f"are of {first_few(itertools.islice(self._rows, 3), 3)}; the keys of the data look like "
                f"{first_few(images.keys[:3])}. Write the rows with these keys, or with the digest of each image."
            )
