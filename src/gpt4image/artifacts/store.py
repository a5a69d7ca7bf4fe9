"""The description store: one SQLite file of who described which image, with which words and at what cost.

An image is known by the sha256 of its bytes, so renaming, moving or shuffling files never shifts a pairing. The
identity of a result is digest + prompt (with the class list) + describer settings + sample; asking for it again costs
nothing. Failures are rows too and give way to the next answer. There is one writer at a time and any number of readers
(SQLite's WAL); a commit is on disk when it returns, and the last to close merges the log into the file.
"""

import contextlib
import hashlib
import json
import operator
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from gpt4image.artifacts.answers import (
    AS_ASKED,
    ClassOption,
    Description,
    Prompt,
    StoredAnswer,
    StoredText,
    answer_of_json,
    canonical_json,
    in_thousandths,
    max_side_of,
)
from gpt4image.base.errors import StoreError, first_line, nearest
from gpt4image.base.files import atomic_path, flush, make_folder, require_format
from gpt4image.base.locks import FileLock, acquire_lock

__all__ = ["ClassOption", "Description", "DescriptionStore", "Prompt", "StoredAnswer", "StoredText", "canonical_json"]

FORMAT = 6
APPLICATION_ID = 0x67344931
SMALL = 64 * 2**20  # bytes up to which the structure of a store is checked before its content is read
# Columns of a result that are fields of ``Description`` as they are, and all of its columns.
FIELDS = ("sample", "text", "error", "finish_reason", "tokens_in", "tokens_out", "cost_usd", "latency_s", "created")
COLUMNS = ("digest", "prompt", "describer", "status", "answer", *FIELDS)

# notes: how describers write boxes, the labelled examples in their questions, the dataset that answers were brought
# for. unbilled: what models may have cost besides the answers here. batches, batch_requests: what is at a Batch API,
# and its price at most.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE prompts (id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE describers (id INTEGER PRIMARY KEY, settings TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE results (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL CHECK (length(digest) = 32),
    prompt INTEGER NOT NULL REFERENCES prompts, describer INTEGER NOT NULL REFERENCES describers,
    sample INTEGER NOT NULL, status TEXT NOT NULL CHECK (status IN ('ok', 'failed')), text TEXT, finish_reason TEXT,
    error TEXT, tokens_in INTEGER, tokens_out INTEGER, cost_usd REAL, latency_s REAL, created REAL NOT NULL,
    answer TEXT, UNIQUE (digest, prompt, describer, sample)) STRICT;
CREATE TABLE notes (kind TEXT NOT NULL, about TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, about)) STRICT;
CREATE TABLE unbilled (
    payee TEXT PRIMARY KEY, usd REAL NOT NULL, in_flight REAL NOT NULL, calls INTEGER NOT NULL) STRICT;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY, describer INTEGER NOT NULL REFERENCES describers, token TEXT NOT NULL UNIQUE,
    created REAL NOT NULL, input_file TEXT, server_id TEXT, closed REAL) STRICT;
CREATE TABLE batch_requests (
    digest BLOB NOT NULL CHECK (length(digest) = 32), prompt INTEGER NOT NULL REFERENCES prompts,
    describer INTEGER NOT NULL REFERENCES describers, sample INTEGER NOT NULL,
    batch INTEGER NOT NULL REFERENCES batches, line INTEGER NOT NULL, usd REAL NOT NULL,
    PRIMARY KEY (digest, prompt, describer, sample)) STRICT, WITHOUT ROWID;
CREATE INDEX requests_of_batch ON batch_requests (batch);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""
MEND = (
    "Check the disk, its free space and the rights of the file; what was stored before is safe. If the file itself is "
    "damaged, restore a backup, or save what can be read: `sqlite3 FILE .recover`."
)


def placeholders(values: Sequence[Any]) -> str:
    """Return a question mark for each value, as SQL has them."""
    return ", ".join("?" * len(values))


class PromptIds:
    """Ids of prompts and describers, made where they are new, within a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.known: dict[tuple[str, str], int] = {}

    def prompt(self, prompt: Prompt) -> int:
        """Return the id of a prompt."""
        return self._find("prompts", "content", prompt.content)

    def describer(self, settings: Mapping[str, Any]) -> int:
        """Return the id of a describer, by its settings."""
        return self._find("describers", "settings", canonical_json(settings))

    def _find(self, table: str, column: str, value: str) -> int:
        if (table, value) not in self.known:
            self._connection.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (value,))
            found = self._connection.execute(f"SELECT id FROM {table} WHERE {column} = ?", (value,))
            self.known[table, value] = found.fetchone()[0]
        return self.known[table, value]


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn errors of SQLite, of the disk and of stored JSON about the file at ``path`` into StoreError."""
    try:
        yield
    except (sqlite3.DatabaseError, ValidationError, OSError) as error:
        raise StoreError(f"{path}: the store cannot be used ({first_line(error)}). {MEND}") from error


def connect_writer(path: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """Open the store for writing, or make it; every commit is on disk when it returns. Raises StoreError, OSError."""
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        if _has_log(path):  # SQLite would delete it, and the answers in it
            raise StoreError(f"{path} is missing or empty, but its log is there: put {path.name} back beside it.")
        _make_store(path)
    return _connect(path, "mode=rw", "PRAGMA synchronous = FULL", check_same_thread=not any_thread)


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the store for reading, in a read-only folder too. Raises StoreError where there is none."""
    if not path.is_file():
        raise StoreError(
            f"{path}: there is no description store; make one with `gpt4image describe` or `descriptions import`."
        )
    reading = "PRAGMA temp_store = MEMORY; PRAGMA query_only = ON"
    try:
        # Opened for writing, where that is allowed, only so that the last reader tidies SQLite's side files away.
        return _connect(path, "mode=rw", reading)
    except sqlite3.OperationalError:
        # In a read-only folder SQLite cannot make the files that WAL needs. Without a log that is not merged yet the
        # file is complete and can be read as it is.
        if _has_log(path):
            raise
        return _connect(path, "immutable=1", reading)


def _connect(path: Path, how: str, pragmas: str, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """Open a file that is a store of this format. Raises StoreError, FormatError, sqlite3.Error."""
    if not is_store(path):
        raise StoreError(f"{path}: this is not a description store; give a file that `gpt4image describe` wrote.")
    address = f"{path.absolute().as_uri()}?{how}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=check_same_thread)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        require_format(path, version, FORMAT)
        connection.executescript(pragmas)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_store(path: Path) -> None:
    """Write an empty store in one step: a process that is killed leaves a whole one or none."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        content = bytearray(connection.serialize())
    content[18:20] = b"\2\2"  # WAL, as the file format has it
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    flush(path.parent)


def sidecar(path: Path, suffix: str) -> Path:
    """Return the file of this suffix beside a store; a link and the file that it leads to are one store."""
    file = path.resolve()
    return file.with_name(file.name + suffix)


def _has_log(path: Path) -> bool:
    log = sidecar(path, "-wal")
    return log.is_file() and log.stat().st_size > 0


def is_store(path: Path) -> bool:
    """Return whether a file is, or by its name was, a description store."""
    with path.open("rb") as file:
        header = file.read(72)
    if not header.startswith(b"SQLite format 3\0"):
        return path.suffix == ".db"
    return header[68:] == APPLICATION_ID.to_bytes(4, "big")


def require_sound(connection: sqlite3.Connection, path: Path) -> None:
    """Check the structure of a store, and the types of its values. Raises StoreError, sqlite3.DatabaseError."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StoreError(f"{path} is damaged ({found.splitlines()[0]}). {MEND}")


OUTSIDE_LIST = "the class is not in the list"  # beginning of the error of an answer whose class is not in the list
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
_ADD = f"""
INSERT INTO results ({", ".join(COLUMNS)}) VALUES ({placeholders(COLUMNS)})
ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {value}" for name, value in _REPLACED.items())}
WHERE status = 'failed'
"""
_DESCRIBED = "r.status = 'ok' AND r.text IS NOT NULL"
# Prompts are ranked once: rows that are sorted by a class list carry it with them, 35 KB of 2,000 classes.
_JOINED = (
    "results AS r JOIN (SELECT *, row_number() OVER (ORDER BY content) AS place FROM prompts) AS p "
    "ON p.id = r.prompt JOIN describers AS d ON d.id = r.describer"
)
_ORDER = "r.digest, p.place, d.settings, r.sample"
_SETTINGS, _PROMPT = TypeAdapter(dict[str, Any]), TypeAdapter(Prompt)
_BILL = ""  # in place of a payee: what a bill says beyond the answers


class Spent(NamedTuple):
    """What a store says that its answers have cost, in US dollars, when a describer begins.

    ``known`` is what answers tell, ``own`` of it those of the describer's model, ``dearest`` the most for one of its
    own. Besides there are upper bounds: what ``others`` may have cost, what its own ``lost`` answers have, and its
    ``calls`` that were ``in_flight`` at a kill, and what is ``pending`` in batches, of all describers.
    """

    known: float = 0.0
    own: float = 0.0
    dearest: float = 0.0
    others: float = 0.0
    lost: float = 0.0
    in_flight: float = 0.0
    calls: int = 0
    pending: float = 0.0


NoteCosts = Callable[[float, float, int], None]
"""Notes ``lost``, ``in_flight`` and ``calls`` of ``Spent``."""


class DescriptionStore(contextlib.AbstractContextManager["DescriptionStore", None]):
    """Descriptions of images in one SQLite file. Use as a context manager; each method may raise StoreError."""

    def __init__(self, path: str | Path, *, write: bool = False, wait_s: float = 2.0) -> None:
        """Open the store at ``path``; with ``write`` it is made if missing, and may be added to."""
        self.path = path = Path(path)
        self._lock = _become_writer(path, wait_s) if write else None
        try:
            with explained(path):
                self._connection = connect_writer(path) if write else connect_reader(path)
                self._file = _identity(path)
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._ids = PromptIds(self._connection)
        self._is_checked = False

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another writer in."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def in_place(self) -> bool:
        """Return whether the file is where it was opened: what is written to one that is gone, nobody finds."""
        return _identity(self.path) == self._file

    def require_in_place(self) -> None:
        """Raise StoreError unless the file is where it was opened."""
        if not self.in_place():
            raise StoreError(
                f"{self.path} was deleted, moved or replaced during the run, so nothing more is asked. If it was "
                "moved, it has all answers: put it back, with any -wal and -shm beside it, and run the same command."
            )

    def require_whole(self) -> None:
        """Check the structure of a store of up to 64 MB once, before its content is used; `doctor` checks any store."""
        if not self._is_checked and self.path.stat().st_size <= SMALL:
            with explained(self.path):
                require_sound(self._connection, self.path)
        self._is_checked = True

    @contextlib.contextmanager
    def _changing(self) -> Generator[PromptIds]:
        """Yield the ids, in a transaction that is on disk when the block ends."""
        try:
            with explained(self.path), self._connection:
                yield self._ids
        except BaseException:
            self._ids.known.clear()  # they may have been made in the transaction that is undone
            raise

    def _query(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        with explained(self.path):
            for row in self._connection.execute(statement, values):  # noqa: UP028  (it would close the cursor late)
                yield row

    def add(self, rows: Iterable[Description]) -> int:
        """Write results in one transaction that is on disk when this returns; good ones are never overwritten.

        Returns how many were new or took the place of a failure.
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
            before = self._connection.total_changes
            self._connection.executemany(_ADD, values)
            return self._connection.total_changes - before

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
        return list(self._of("r.tokens_in", prompt, describer, "r.tokens_in > 0"))

    def failed(self, describer: Mapping[str, Any]) -> set[str]:
        """Return the digests of images about which a call failed and nothing was answered."""
        where = "r.status = 'failed' AND r.text IS NULL AND d.settings = ?"
        rows = self._query(f"SELECT lower(hex(r.digest)) FROM {_JOINED} WHERE {where}", (canonical_json(describer),))
        return {digest for (digest,) in rows}

    def _of(self, column: str, prompt: Prompt, describer: Mapping[str, Any], among: str) -> Iterator[Any]:
        return self._query(
            f"SELECT lower(hex(r.digest)), {column} FROM {_JOINED} WHERE {among} AND d.settings = ? AND p.content = ?",
            (canonical_json(describer), prompt.content),
        )

    def texts(self, prompt_name: str | None = None) -> Iterator[StoredText]:
        """Yield every description, ordered by digest, prompt, describer and sample, however they were added."""
        self.require_whole()
        prompts, where = self._prompts(), self._of_prompt(prompt_name)
        select = f"SELECT r.digest, r.text, r.prompt, r.id FROM {_JOINED} WHERE {_DESCRIBED}{where} ORDER BY {_ORDER}"
        for digest, text, prompt, row in self._query(select):
            yield StoredText(digest.hex(), text, prompts[prompt], row)

    def texts_at(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of the rows that ``texts`` named, in the order of ``rows``."""
        found: dict[int, str] = {}
        for part in _parts(list(map(int, rows))):
            found.update(self._query(f"SELECT id, text FROM results WHERE id IN ({placeholders(part)})", part))
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
        return self._results(f"r.status = ?{self._of_prompt(prompt_name)}", (status,), digests, describer)

    def answers(
        self,
        *,
        digests: Sequence[str] | None = None,
        describer: Mapping[str, Any] | None = None,
        as_written: bool = False,
    ) -> Iterator[StoredAnswer]:
        """Yield structured answers, in the order of ``texts``; ``as_written``, boxes have the numbers of the model."""
        examples = self.examples()
        for row in self._results("r.status = 'ok' AND r.answer IS NOT NULL", (), digests, describer, as_written):
            if row.answer is not None:
                is_example = bool(examples) and row.digest in examples.get(canonical_json(row.describer), ())
                fields = row.digest, row.answer, row.prompt.class_names, row.prompt, row.describer, row.sample
                yield StoredAnswer(*fields, was_example=is_example)

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
        prompts, formats = self._prompts(), self.box_formats()
        describers = {number: self._settings(text) for number, text in self._query("SELECT * FROM describers")}
        columns = ", ".join(f"r.{name}" for name in COLUMNS)
        for part in [None] if digests is None else _parts(sorted({bytes.fromhex(digest) for digest in digests})):
            among = "" if part is None else f" AND r.digest IN ({placeholders(part)})"
            select = f"SELECT {columns} FROM {_JOINED} WHERE {where}{among} ORDER BY {_ORDER}"
            for digest, prompt, number, _, text, *rest in self._query(select, (*values, *(part or ()))):
                settings, answer = describers[number], None
                if text is not None:
                    with explained(self.path):
                        answer = answer_of_json(text)
                    if answer.picture is not None and not as_written:
                        box_format = formats.get(canonical_json(settings), AS_ASKED)
                        answer = in_thousandths(answer, box_format, max_side_of(settings))
                fields = dict(zip(FIELDS, rest, strict=True))
                yield Description(
                    digest=digest.hex(), prompt=prompts[prompt], describer=settings, answer=answer, **fields
                )

    def fingerprint(self) -> str:
        """Return what tells the good results of this store from others, in whatever order they came."""
        found = hashlib.sha256()
        self.require_whole()
        for row in self._query(
            f"SELECT r.digest, p.content, d.settings, r.sample, r.text, r.answer FROM {_JOINED} "
            f"WHERE r.status = 'ok' ORDER BY {_ORDER}"
        ):
            found.update(repr(row).encode())
        if formats := self.box_formats():
            found.update(repr(formats).encode())
        return found.hexdigest()

    def prompts(self) -> list[Prompt]:
        """Return all prompts that something was asked with, in order."""
        return sorted(self._prompts().values())

    def describers(self) -> list[dict[str, Any]]:
        """Return the settings of all describers that something was asked of."""
        return [self._settings(text) for (text,) in self._query("SELECT settings FROM describers ORDER BY id")]

    def counts(self) -> list[tuple[Prompt, Mapping[str, Any], str, int]]:
        """Return how many results there are by (prompt, describer settings, status), ordered by these."""
        groups = f"count(*) FROM {_JOINED} GROUP BY r.prompt, r.describer, r.status"
        prompts, found = self._prompts(), self._query(f"SELECT r.prompt, d.settings, r.status, {groups}")
        ordered = sorted((prompts[prompt], *others) for prompt, *others in found)
        return [(prompt, self._settings(text), status, count) for prompt, text, status, count in ordered]

    def require_descriptions(self, prompt_name: str | None = None) -> None:
        """Raise StoreError if there is no description (for a prompt), naming the prompts that have some."""
        prompts = self._prompts()
        names = {prompts[n].name for (n,) in self._query(f"SELECT DISTINCT r.prompt FROM {_JOINED} WHERE {_DESCRIBED}")}
        if not names:
            raise StoreError(f"{self.path}: the store has no descriptions; make some with `gpt4image describe`.")
        if prompt_name is not None and prompt_name not in names:
            raise StoreError(f"{self.path}: no description answers this prompt: {nearest(prompt_name, names)}")

    def _prompts(self) -> dict[int, Prompt]:
        with explained(self.path):
            rows = self._connection.execute("SELECT id, content FROM prompts").fetchall()
            return {number: _PROMPT.validate_json(content) for number, content in rows}

    def _of_prompt(self, name: str | None) -> str:
        """Return the condition that a result answers a prompt of a name, as SQL has it."""
        if name is None:
            return ""
        return f" AND r.prompt IN ({', '.join(str(n) for n, prompt in self._prompts().items() if prompt.name == name)})"

    def _settings(self, text: str) -> dict[str, Any]:
        with explained(self.path):
            return _SETTINGS.validate_json(text)

    def spent(self, describer: Mapping[str, Any]) -> Spent:
        """Return what all answers have cost, whoever gave them: one bill for all describers of a store."""
        payee, known, own, dearest, others = _payee(describer), 0.0, 0.0, 0.0, 0.0
        mine: tuple[float, float, int] = (0.0, 0.0, 0)
        select = "SELECT d.settings, sum(r.cost_usd), max(r.cost_usd) FROM results AS r JOIN describers AS d"
        for settings, usd, most in self._query(f"{select} ON d.id = r.describer WHERE r.cost_usd > 0 GROUP BY d.id"):
            known += usd
            own += usd if _payee(self._settings(settings)) == payee else 0.0
            dearest = most if settings == canonical_json(describer) else dearest
        for name, *noted in self._query("SELECT * FROM unbilled"):
            if name == _BILL:
                known += noted[0]
            elif name == payee:
                mine = noted[0], noted[1], noted[2]
            else:
                others += noted[0] + noted[1]
        pending = sum(usd for (usd,) in self._query("SELECT usd FROM batch_requests"))
        return Spent(known, own, dearest, others, *mine, pending)

    @contextlib.contextmanager
    def cost_notes(self, describer: Mapping[str, Any]) -> Generator[NoteCosts]:
        """Yield what notes, from any thread, how much a model may have cost besides the results; on disk when done."""
        with explained(self.path):
            connection = connect_writer(self.path, any_thread=True)

        def note(usd: float, in_flight: float, calls: int) -> None:
            with explained(self.path), connection:
                values = _payee(describer), usd, in_flight, calls
                connection.execute("INSERT OR REPLACE INTO unbilled VALUES (?, ?, ?, ?)", values)

        with contextlib.closing(connection):
            yield note

    def note_bill(self, usd: float) -> None:
        """Note what all answers have cost by the bill, in place of what is uncertain."""
        with self._changing():
            self._connection.execute("DELETE FROM unbilled")
            if usd < (known := self.spent({}).known):
                raise StoreError(f"--billed {usd:g}: by their tokens, the answers in {self.path} cost ${known:,.4f}.")
            self._connection.execute("INSERT INTO unbilled VALUES (?, ?, 0, 0)", (_BILL, usd - known))

    def notes(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the notes of a kind, by the settings of the describer that they are about, as canonical JSON."""
        rows = self._query("SELECT about, value FROM notes WHERE kind = ? ORDER BY about", (kind,))
        return {about: self._settings(value) for about, value in rows}

    def note(self, kind: str, value: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        """Write a note in place of the one that is there."""
        with self._changing():
            values = kind, canonical_json(about or {}), json.dumps(dict(value), ensure_ascii=False)
            self._connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", values)

    def box_formats(self) -> dict[str, str]:
        """Return how describers write boxes, by their settings as canonical JSON, as far as it was found or given."""
        return {who: note["format"] for who, note in self.notes("box format").items()}

    def set_box_format(self, describer: Mapping[str, Any], name: str, evidence: Mapping[str, Any]) -> None:
        """Note how a describer writes boxes: answers are read so from now on."""
        self.note("box format", {"format": name, "evidence": dict(evidence)}, describer)

    def examples(self) -> dict[str, dict[str, str]]:
        """Return the class of each labelled example in questions, by digest, by settings of the describer as JSON."""
        return self.notes("examples")

    def note_examples(self, describer: Mapping[str, Any], classes: Mapping[str, str]) -> None:
        """Note the class of each example of a describer, by digest."""
        self.note("examples", self.examples().get(canonical_json(describer), {}) | dict(classes), describer)

    @property
    def dataset(self) -> str | None:
        """The SPEC of the dataset that answers were last brought for; None before any."""
        return next((note["spec"] for note in self.notes("dataset").values()), None)

    def note_dataset(self, spec: str) -> None:
        """Note which dataset answers are brought for."""
        if spec != self.dataset:
            self.note("dataset", {"spec": spec})


def add_lost(connection: sqlite3.Connection, describer: Mapping[str, Any], usd: float) -> None:
    """Count what a model may have cost besides the results, within a transaction of the caller."""
    if usd:
        added = "INSERT INTO unbilled VALUES (?, ?, 0, 0) ON CONFLICT DO UPDATE SET usd = usd + excluded.usd"
        connection.execute(added, (_payee(describer), usd))


def _payee(describer: Mapping[str, Any]) -> str:
    return canonical_json({name: describer.get(name) for name in ("kind", "model", "server")})


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        return (found := path.stat()).st_dev, found.st_ino
    return None


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _ROWS_PER_QUERY] for start in range(0, len(values), _ROWS_PER_QUERY))


def _become_writer(path: Path, wait_s: float) -> FileLock:
    advice = "is writing to this store; wait until it is done or stop it."
    with explained(path):
        if path.exists() and not path.is_file():
            raise StoreError(f"{path}: this is not a file; give another --store.")
        make_folder(path.parent)
        return acquire_lock(sidecar(path, ".lock"), wait_s, lambda who: StoreError(f"{path}: {who} {advice}"))
