"""What was handed to a Batch API and has not come back, noted in the description store before it is sent.

An item is a result on its way, identified as results are: by digest, prompt, describer and sample. It is in at most one
batch, so nothing can be submitted twice. It is forgotten once its answer is in the store.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from gpt4image.artifacts.results import Prompt
from gpt4image.artifacts.store_file import connect_reader, connect_writer, explained, has_table, make_batch_tables
from gpt4image.artifacts.store_references import References
from gpt4image.describing.describers.base import Answer, Request

# An answer that was committed after its batch was made is this batch's, or took its place: a kill came between the
# store's commit and the ledger's.
_FORGET_STORED = """
DELETE FROM batch_items WHERE describer = ? AND EXISTS (
    SELECT 1 FROM results AS r JOIN batches AS b ON b.id = batch_items.batch
    WHERE (r.digest, r.prompt, r.describer, r.sample) =
          (batch_items.digest, batch_items.prompt, batch_items.describer, batch_items.sample)
    AND r.text IS NOT NULL AND r.created >= b.created)
"""


class Place(NamedTuple):
    """Where an item is: row of its batch, line of the input file, and which of the line's answers it is."""

    batch: int
    line: int
    choice: int


@dataclass(frozen=True)
class Submission:
    """A batch that is not closed.

    Attributes:
        token: unique name, sent to the server with the batch: finds it again where the id was not noted.
        created: when the ledger noted it, in seconds since 1970-01-01 UTC.
        input_file: the server's id of the uploaded file; None before the upload. Only with it a batch can exist.
        server_id: the server's id of the batch; None where the creation was not heard of.
    """

    row: int
    token: str
    created: float
    input_file: str | None
    server_id: str | None


def on_their_way(
    path: Path, settings: Mapping[str, Any], prompts: Sequence[Prompt]
) -> tuple[list[dict[str, frozenset[int]]], list[str]]:
    """Return the samples of each prompt that are in a batch, by digest, and the names of the open batches.

    A store that never saw a batch is left as it is.

    Raises:
        StoreError: the file is no store or cannot be written.
    """
    with explained(path), contextlib.closing(connect_reader(path)) as connection:
        if not has_table(connection, "batch_items"):
            return [{} for _ in prompts], []
    with BatchLedger(path, settings) as ledger:
        batches = [batch.server_id or batch.token for batch in ledger.open_batches()]
        return [ledger.samples(prompt) for prompt in prompts], batches


class BatchLedger(contextlib.AbstractContextManager["BatchLedger", None]):
    """Open batches of one describer. Use as a context manager, in one thread, while nobody else writes the store."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open the ledger in the store at ``path``; items whose answer is in the store already are forgotten.

        Batches of describers with other ``settings`` are not seen.

        Raises:
            StoreError: the file is no store or cannot be written.
        """
        self._path = path
        with explained(path):
            self._connection = connect_writer(path)
            try:
                make_batch_tables(self._connection)
                self._references = References(self._connection)
                with self._connection:
                    self._describer = self._references.describer(settings)
                    self._connection.execute(_FORGET_STORED, (self._describer,))
            except BaseException:
                self._connection.close()
                raise

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def open_batches(self) -> list[Submission]:
        """Return the batches that are not closed, oldest first."""
        columns = "id, token, created, input_file, server_id"
        sql = f"SELECT {columns} FROM batches WHERE describer = ? AND closed IS NULL ORDER BY id"
        return [Submission(*row) for row in self._rows(sql, self._describer)]

    def places(self, request: Request) -> dict[int, Place]:
        """Return where the samples of a request are, by sample; those that are in no batch are left out."""
        rows = self._rows(
            "SELECT sample, batch, line, choice FROM batch_items WHERE (digest, prompt, describer) = (?, ?, ?)",
            *self._key(request),
        )
        return {sample: Place(*place) for sample, *place in rows if sample in request.samples}

    def samples(self, prompt: Prompt) -> dict[str, frozenset[int]]:
        """Return the samples of a prompt that are in a batch, by digest."""
        rows = self._rows(
            "SELECT lower(hex(digest)), sample FROM batch_items WHERE prompt = ? AND describer = ?",
            self._prompt(prompt),
            self._describer,
        )
        shared: dict[frozenset[int], frozenset[int]] = {}  # equal sets once: there may be millions
        found: dict[str, frozenset[int]] = {}
        for digest, sample in rows:
            samples = found.get(digest, frozenset()) | {sample}
            found[digest] = shared.setdefault(samples, samples)
        return found

    def add(self, token: str, lines: Sequence[Request]) -> Submission:
        """Note a batch that is about to be sent; each line asks for the samples of its request.

        Raises:
            StoreError: the file cannot be written; nothing is noted then.
        """
        keys, created = [self._key(request) for request in lines], time.time()
        with explained(self._path), self._connection:
            sql = "INSERT INTO batches (describer, token, created) VALUES (?, ?, ?) RETURNING id"
            row = self._connection.execute(sql, (self._describer, token, created)).fetchone()[0]
            items = (
                (*key, sample, row, line, choice)
                for line, (key, request) in enumerate(zip(keys, lines, strict=True))
                for choice, sample in enumerate(request.samples)
            )
            self._connection.executemany("INSERT INTO batch_items VALUES (?, ?, ?, ?, ?, ?, ?)", items)
        return Submission(row, token, created, None, None)

    def note_file(self, submission: Submission, input_file: str) -> Submission:
        """Note the uploaded file of a batch: from now on the batch may exist at the server."""
        self._rows("UPDATE batches SET input_file = ? WHERE id = ?", input_file, submission.row)
        return replace(submission, input_file=input_file)

    def note_batch(self, row: int, server_id: str) -> None:
        """Note the server's id of a batch."""
        self._rows("UPDATE batches SET server_id = ? WHERE id = ?", server_id, row)

    def forget(self, answers: Iterable[Answer]) -> None:
        """Forget items whose answers are in the store."""
        items = [(*self._key(answer.request), answer.sample) for answer in answers]
        with explained(self._path), self._connection:
            sql = "DELETE FROM batch_items WHERE (digest, prompt, describer, sample) = (?, ?, ?, ?)"
            self._connection.executemany(sql, items)

    def items_left(self, row: int | None = None) -> int:
        """Return how many items are on their way: of one batch, or of all of the describer."""
        where, value = ("describer", self._describer) if row is None else ("batch", row)
        return self._rows(f"SELECT count(*) FROM batch_items WHERE {where} = ?", value)[0][0]

    def close_batch(self, row: int) -> None:
        """Close a batch: nothing more comes of it, and what is left of its items may be submitted anew."""
        with explained(self._path), self._connection:
            self._connection.execute("DELETE FROM batch_items WHERE batch = ?", (row,))
            self._connection.execute("UPDATE batches SET closed = ? WHERE id = ?", (time.time(), row))

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self._path), self._connection:
            return self._connection.execute(sql, values).fetchall()

    def _key(self, request: Request) -> tuple[bytes, int, int]:
        return bytes.fromhex(request.digest), self._prompt(request.prompt), self._describer

    def _prompt(self, prompt: Prompt) -> int:
        with explained(self._path), self._connection:  # on disk before it is used: the id is remembered
            return self._references.prompt(prompt)
