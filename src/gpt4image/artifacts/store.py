"""The description store: one SQLite file of who described which image, with which words and at what cost.

An image is known by the sha256 of its bytes, so renaming, moving or shuffling files never shifts a pairing. The
identity of a result is digest + prompt (with the class list) + describer settings + sample; asking for it again costs
nothing. Failures are rows too and give way to the next answer. There is one writer at a time and any number of readers
(SQLite's WAL).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gpt4image.artifacts.answers import (
    Answer,
    ClassOption,
    Description,
    Prompt,
    StoredAnswer,
    StoredText,
    answer_of_json,
    canonical_json,
)
from gpt4image.artifacts.box_formats import AS_ASKED, formats_of, in_thousandths, max_side_of
from gpt4image.artifacts.store_file import (
    COLUMNS,
    FIELDS,
    PROMPT,
    References,
    RowChecksums,
    beside,
    connect_reader,
    connect_writer,
    count_file,
    explained,
    marks,
    prompt_columns,
    written,
)
from gpt4image.base.checksums import SMALL
from gpt4image.base.errors import StoreError, nearest
from gpt4image.base.files import make_folder
from gpt4image.base.locks import FileLock, acquire_lock

__all__ = ["ClassOption", "Description", "DescriptionStore", "Prompt", "StoredAnswer", "StoredText", "canonical_json"]

OUTSIDE_LIST = "the class is not in the list"
"""Beginning of the error of an answer whose class is not in the list."""
_ROWS_PER_QUERY = 500
# A good description is never overwritten: it was paid for. The cost of failed tries is added to the price of the answer
# that takes their place, so that the sum over the store is what was spent.
_COST = """CASE WHEN coalesce(cost_usd, excluded.cost_usd) IS NULL THEN NULL
                ELSE coalesce(cost_usd, 0) + coalesce(excluded.cost_usd, 0) END"""
# A call that brought nothing leaves a rejected answer, which was paid for too, as it is.
_NOTHING = "excluded.text IS NULL AND excluded.status = 'failed' AND text IS NOT NULL"
_REPLACED = {
    name: _COST if name == "cost_usd" else f"CASE WHEN {_NOTHING} THEN {name} ELSE excluded.{name} END"
    for name in COLUMNS
}
_NEW = ", ".join(f"?{place}" for place in range(1, len(COLUMNS) + 1))
_ADD = f"""
INSERT INTO results ({", ".join(COLUMNS)}, checksum) VALUES ({_NEW}, row_checksum({_NEW}))
ON CONFLICT DO UPDATE SET
    {", ".join(f"{name} = {value}" for name, value in _REPLACED.items())},
    checksum = row_checksum({", ".join(_REPLACED.values())})
WHERE status = 'failed'
"""
_DESCRIBED = "r.status = 'ok' AND r.text IS NOT NULL"
# Prompts are ranked once: rows that are sorted by a class list carry it with them, 35 KB of 2,000 classes.
_JOINED = (
    f"results AS r JOIN (SELECT *, row_number() OVER (ORDER BY {', '.join(PROMPT)}) AS place FROM prompts) AS p "
    "ON p.id = r.prompt JOIN describers AS d ON d.id = r.describer"
)
_ORDER = "r.digest, p.place, d.settings, r.sample"


class DescriptionStore(contextlib.AbstractContextManager["DescriptionStore", None]):
    """Descriptions of images in one SQLite file. Use as a context manager."""

    def __init__(self, path: Path, *, write: bool = False, wait_s: float = 2.0) -> None:
        """Open the store at ``path``; with ``write`` it is made if missing, and may be added to. Raises StoreError."""
        self.path = path
        self._lock = _become_writer(path, wait_s) if write else None
        try:
            with explained(path):
                self._connection = connect_writer(path) if write else connect_reader(path)
                self._total = written(self._connection)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._references = References(self._connection)
        self._checksums, self._is_checked = RowChecksums(self._connection), False
        if write:
            self._note_written(0)

    def __exit__(self, *_error: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the file and let another writer in."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    @contextlib.contextmanager
    def _changing(self) -> Generator[References]:
        """Yield the ids, in a transaction that is on disk when the block ends. Raises StoreError."""
        try:
            with explained(self.path), self._connection:
                yield self._references
        except BaseException:
            self._references.known.clear()  # they may have been made in the transaction that is undone
            raise

    def add(self, rows: Iterable[Description]) -> int:
        """Write results in one transaction that is on disk when this returns; good ones are never overwritten.

        Returns how many were new or took the place of a failure. Raises StoreError.
        """
        fields = operator.attrgetter(*FIELDS)
        with self._changing() as ids:
            values = [
                (
                    bytes.fromhex(row.digest),
                    ids.prompt(row.prompt),
                    ids.describer(row.describer),
                    row.status,
                    None if row.answer is None else row.answer.to_json(),
                    *fields(row),
                )
                for row in rows
            ]
            self._checksums.learn({value[1] for value in values}, {value[2] for value in values})
            before = self._connection.total_changes
            self._connection.executemany(_ADD, values)
            added = self._connection.total_changes - before
            self._connection.execute("UPDATE written SET results = results + ?", (added,))
        self._note_written(added)
        return added

    def _note_written(self, added: int) -> None:
        """Write the number of results to the file beside the store."""
        self._total += added
        with contextlib.suppress(OSError):  # the results are stored already
            count_file(self.path).write_bytes(b"%020d\n" % self._total)

    def settled(self, prompt: Prompt, describer: Mapping[str, Any], *, rejected: bool = False) -> set[tuple[str, int]]:
        """Return (digest, sample) of what need not be asked for: what is described, or what was ``rejected``.

        An answer with a class outside the list is asked for once more, and then kept: a rejected one waits for that.
        """
        among = "r.status = 'ok'"
        if rejected:
            among = f"r.status = 'failed' AND r.text IS NOT NULL AND r.error NOT LIKE '{OUTSIDE_LIST}%'"
        return set(self._of("r.sample", prompt, describer, among))

    def inputs(self, prompt: Prompt, describer: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Return (digest, tokens of the request) of each answer to a prompt that tells them."""
        return list(self._of("r.tokens_in", prompt, describer, "r.tokens_in IS NOT NULL"))

    def _of(self, column: str, prompt: Prompt, describer: Mapping[str, Any], among: str) -> Iterator[Any]:
        return self._query(
            f"SELECT lower(hex(r.digest)), {column} FROM {_JOINED} WHERE {among} AND d.settings = ? "
            f"AND ({prompt_columns('p.')}) = ({marks(PROMPT)})",
            (canonical_json(describer), *prompt.row),
        )

    def spent(self, describer: Mapping[str, Any], digests: Collection[str]) -> tuple[float, float]:
        """Return what the model of a describer has cost, whatever its settings, in US dollars.

        First what results about images of ``digests`` tell; then what may have been spent besides (``cost_notes``).
        """
        rows = self._query(
            "SELECT lower(hex(r.digest)), d.settings, r.cost_usd FROM results AS r "
            "JOIN describers AS d ON d.id = r.describer WHERE r.cost_usd > 0"
        )
        payee, same, known = _payee(describer), dict[str, bool](), 0.0
        for digest, settings, cost in rows:
            if settings not in same:
                same[settings] = _payee(json.loads(settings)) == payee
            known += cost if same[settings] and digest in digests else 0.0
        return known, sum(usd for (usd,) in self._query("SELECT usd FROM uncertain_costs WHERE payee = ?", (payee,)))

    @contextlib.contextmanager
    def cost_notes(self, describer: Mapping[str, Any]) -> Generator[Callable[[float], None]]:
        """Yield what notes, from any thread, how much a model may have cost besides the results; on disk when done."""
        with explained(self.path):
            connection = connect_writer(self.path, any_thread=True)

        def note(usd: float) -> None:
            with explained(self.path), connection:
                connection.execute("INSERT OR REPLACE INTO uncertain_costs VALUES (?, ?)", (_payee(describer), usd))

        with contextlib.closing(connection):
            yield note

    def failed(self, describer: Mapping[str, Any]) -> set[str]:
        """Return the digests of images about which a call failed and nothing was answered."""
        where = "r.status = 'failed' AND r.text IS NULL AND d.settings = ?"
        rows = self._query(f"SELECT lower(hex(r.digest)) FROM {_JOINED} WHERE {where}", (canonical_json(describer),))
        return {digest for (digest,) in rows}

    def texts(self, prompt_name: str | None = None) -> Iterator[StoredText]:
        """Yield every description, ordered by digest, prompt, describer and sample, however they were added."""
        where, values = _of_prompt(prompt_name)
        self.require_whole()
        with explained(self.path):
            prompts = self._prompts()
            for digest, text, prompt, row in self._connection.execute(
                f"SELECT r.digest, r.text, r.prompt, r.id FROM {_JOINED} WHERE {_DESCRIBED}{where} ORDER BY {_ORDER}",
                values,
            ):
                yield StoredText(digest.hex(), _text(text), prompts[prompt], row)

    def texts_at(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of the rows that ``texts`` named, in the order of ``rows``."""
        found: dict[int, str] = {}
        for part in _parts(list(map(int, rows))):
            found.update(self._query(f"SELECT id, text FROM results WHERE id IN ({marks(part)})", part))
        return [found[int(row)] for row in rows]

    def descriptions(
        self,
        *,
        prompt_name: str | None = None,
        digests: Sequence[str] | None = None,
        describer: Mapping[str, Any] | None = None,
        status: Literal["ok", "failed"] = "ok",
    ) -> Iterator[Description]:
        """Yield whole results, in the order of ``texts``: all, or those about some ``digests`` or of one describer."""
        where, values = _of_prompt(prompt_name)
        return self._results(f"r.status = ?{where}", (status, *values), digests, describer)

    def answers(
        self,
        *,
        digests: Sequence[str] | None = None,
        describer: Mapping[str, Any] | None = None,
        as_written: bool = False,
    ) -> Iterator[StoredAnswer]:
        """Yield structured answers, in the order of ``texts``; ``as_written``, boxes have the numbers of the model."""
        shown = self.examples()
        for row in self._results("r.status = 'ok' AND r.answer IS NOT NULL", (), digests, describer, as_written):
            if row.answer is not None:
                prompt, own = row.prompt, shown and shown.get(canonical_json(row.describer), ())
                fields = row.digest, row.answer, prompt.class_names, prompt, row.describer, row.sample
                yield StoredAnswer(*fields, was_example=row.digest in own)

    def _results(
        self,
        where: str,
        values: tuple[Any, ...],
        digests: Sequence[str] | None,
        describer: Mapping[str, Any] | None,
        as_written: bool = False,
    ) -> Iterator[Description]:
        if describer is not None:
            where, values = f"{where} AND d.settings = ?", (*values, canonical_json(describer))
        self.require_whole()
        with explained(self.path):
            prompts, formats = self._prompts(), self.box_formats()
            describers = {number: json.loads(text) for number, text in self._query("SELECT * FROM describers")}

            def read(answer: str, settings: Mapping[str, Any]) -> Answer:
                found = answer_of_json(answer)
                if found.picture is None or as_written:
                    return found
                return in_thousandths(found, formats.get(canonical_json(settings), AS_ASKED), max_side_of(settings))

            columns = ", ".join(f"r.{name}" for name in COLUMNS)
            for part in [None] if digests is None else _parts(sorted({bytes.fromhex(digest) for digest in digests})):
                among = "" if part is None else f" AND r.digest IN ({marks(part)})"
                select = f"SELECT {columns} FROM {_JOINED} WHERE {where}{among} ORDER BY {_ORDER}"
                for digest, prompt, settings, status, answer, *rest in self._query(select, (*values, *(part or ()))):
                    fields = dict(zip(FIELDS, rest, strict=True))
                    if status == "ok" and (answer is None or fields["text"] is not None):
                        fields["text"] = _text(fields["text"])
                    yield Description(
                        digest=digest.hex(),
                        prompt=prompts[prompt],
                        describer=describers[settings],
                        answer=None if answer is None else read(answer, describers[settings]),
                        **fields,
                    )

    def box_formats(self) -> dict[str, str]:
        """Return how describers write boxes, by their settings as canonical JSON, as far as it was found or given."""
        select = "SELECT d.settings, b.format FROM box_formats AS b JOIN describers AS d ON d.id = b.describer"
        return formats_of(self._query(f"{select} ORDER BY d.settings"))

    def set_box_format(self, describer: Mapping[str, Any], name: str, evidence: Mapping[str, Any]) -> None:
        """Note how a describer writes boxes: answers are read so from now on. Raises StoreError as ``add``."""
        with self._changing() as ids:
            values = ids.describer(describer), name, canonical_json(evidence)
            self._connection.execute("INSERT OR REPLACE INTO box_formats VALUES (?, ?, ?)", values)

    def examples(self) -> dict[str, dict[str, str]]:
        """Return the class of each labelled example in questions, by digest, by settings of the describer as JSON."""
        found: dict[str, dict[str, str]] = {}
        sql = "SELECT d.settings, lower(hex(e.digest)), e.class FROM examples AS e JOIN describers AS d "
        for settings, digest, name in self._query(f"{sql} ON d.id = e.describer ORDER BY d.id, e.digest"):
            found.setdefault(settings, {})[digest] = name
        return found

    def note_examples(self, describer: Mapping[str, Any], classes: Mapping[str, str]) -> None:
        """Note the class of each example of a describer, by digest. Raises StoreError as ``add``."""
        with self._changing() as ids:
            number = ids.describer(describer)
            rows = [(number, bytes.fromhex(digest), name) for digest, name in classes.items()]
            self._connection.executemany("INSERT OR REPLACE INTO examples VALUES (?, ?, ?)", rows)

    @property
    def dataset(self) -> str | None:
        """The SPEC of the dataset that answers were last brought for; None in older stores."""
        return next((spec for (spec,) in self._query("SELECT spec FROM dataset")), None)

    def note_dataset(self, spec: str) -> None:
        """Note which dataset answers are brought for. Raises StoreError as ``add``."""
        if spec != self.dataset:
            with self._changing():
                self._connection.execute("DELETE FROM dataset")
                self._connection.execute("INSERT INTO dataset VALUES (?)", (spec,))

    def fingerprint(self) -> str:
        """Return what tells the good results of this store from others, in whatever order they came."""
        found = hashlib.sha256()
        self.require_whole()
        for row in self._query(
            f"SELECT r.digest, {prompt_columns('p.')}, d.settings, r.sample, r.text, r.answer FROM {_JOINED} "
            f"WHERE r.status = 'ok' ORDER BY {_ORDER}"
        ):
            found.update(repr(row).encode())
        if formats := self.box_formats():
            found.update(repr(formats).encode())
        return found.hexdigest()

    def require_whole(self) -> None:
        """Check a store of up to 64 MB before its content is used, once; `doctor` checks a larger one. StoreError."""
        if not self._is_checked and self.path.stat().st_size <= SMALL:
            with explained(self.path):
                self._checksums.require_whole(self.path)
        self._is_checked = True

    def prompts(self) -> list[Prompt]:
        """Return all prompts that something was asked with, in order."""
        return sorted(self._prompts().values())

    def counts(self) -> list[tuple[Prompt, Mapping[str, Any], str, int]]:
        """Return how many results there are by (prompt, describer settings, status), ordered by these."""
        select = (
            f"SELECT r.prompt, d.settings, r.status, count(*) FROM {_JOINED} GROUP BY r.prompt, r.describer, r.status"
        )
        with explained(self.path):
            prompts = self._prompts()
            ordered = sorted((prompts[prompt], *others) for prompt, *others in self._query(select))
            return [(prompt, json.loads(settings), status, count) for prompt, settings, status, count in ordered]

    def require_descriptions(self, prompt_name: str | None = None) -> None:
        """Raise StoreError if there is no description (for a prompt), naming the prompts that have some."""
        names = {name for (name,) in self._query(f"SELECT DISTINCT p.name FROM {_JOINED} WHERE {_DESCRIBED}")}
        if not names:
            raise StoreError(f"{self.path}: the store has no descriptions; make some with `gpt4image describe`.")
        if prompt_name is not None and prompt_name not in names:
            raise StoreError(f"{self.path}: no description answers this prompt: {nearest(prompt_name, names)}")

    def _prompts(self) -> dict[int, Prompt]:
        found: dict[int, Prompt] = {}
        for number, name, version, text, given, asked in self._query(f"SELECT id, {prompt_columns()} FROM prompts"):
            found[number] = Prompt(name, version, text, bool(given), **(json.loads(asked) if asked else {}))
        return found

    def _query(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        with explained(self.path):
            for row in self._connection.execute(statement, values):  # noqa: UP028  (it would close the cursor late)
                yield row


def _payee(describer: Mapping[str, Any]) -> str:
    return canonical_json({name: describer.get(name) for name in ("kind", "model", "server")})


def _text(value: Any) -> str:
    if not isinstance(value, str):  # in a damaged file
        raise TypeError(f"the text of a description is {value!r:.40}")
    return value


def _of_prompt(name: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if name is None else (" AND p.name = ?", (name,))


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _ROWS_PER_QUERY] for start in range(0, len(values), _ROWS_PER_QUERY))


def _become_writer(path: Path, wait_s: float) -> FileLock:
    advice = "is writing to this store; wait until it is done or stop it."
    try:
        make_folder(path.parent)
        return acquire_lock(beside(path, ".lock"), wait_s, lambda who: StoreError(f"{path}: {who} {advice}"))
    except OSError as error:
        raise StoreError(f"{path}: cannot write here ({error.strerror or error}); choose a writable folder.") from error
