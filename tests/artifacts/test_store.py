"""The description store: durable, one writer, readable anywhere."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import OUTSIDE_LIST, Description, DescriptionStore, Prompt
from gpt4image.base.errors import StoreError
from tables import PAPER, digest

TOLD = Prompt("class-conditioned", 1, "A {class_name}.", True)
ME = {"kind": "test", "temperature": 0.5}


def description(number: int, text: str | None = "a cat", **others: object) -> Description:
    values: dict[str, object] = {"prompt": PAPER, "describer": ME, "created": 1.5, **others}
    return Description(digest=digest(number), text=text, **values)  # type: ignore[arg-type]


def test_a_result_comes_back_whole(tmp_path: Path) -> None:
    row = description(
        1, "ein Käuzchen 🦉\n", finish_reason="stop", tokens_in=3, tokens_out=4, cost_usd=0.25, latency_s=1.5, sample=2
    )
    failure = description(2, None, error="refused", finish_reason="content_filter")
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        assert store.add([row, failure]) == 2
    with DescriptionStore(tmp_path / "a.db") as store:
        assert list(store.descriptions()) == [row]
        assert list(store.descriptions(status="failed")) == [failure]
        assert store.failed(ME) == {digest(2)} and store.failed({"kind": "other"}) == set()
        assert list(store.descriptions(digests=[digest(9), digest(1)])) == [row]
        assert store.counts() == [(PAPER, ME, "failed", 1), (PAPER, ME, "ok", 1)]


def test_a_description_is_never_overwritten_and_a_failure_gives_way(tmp_path: Path) -> None:
    loop = description(1, "cat cat cat", error="loop", cost_usd=0.25)
    lynx = description(2, "a lynx", error=f"{OUTSIDE_LIST}: lynx", cost_usd=0.25)
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([loop, lynx, description(3, None, error="timeout"), description(4, "first")])
        store.add([description(n, None, error="timeout", cost_usd=0.5) for n in (1, 2)])
        assert store.settled(PAPER, ME) == {(digest(4), 0)}
        assert store.add([description(3, "now"), description(4, "second"), description(4, None, error="late")]) == 1
        assert {row.text for row in store.texts()} == {"now", "first"}
        kept = {row.digest: (row.text, row.error, row.cost_usd) for row in store.descriptions(status="failed")}
        assert kept == {row.digest: (row.text, row.error, 0.75) for row in (loop, lynx)}, "what was paid for stays"
        assert store.settled(PAPER, ME, rejected=True) == {(digest(1), 0)}, "the other waits for its second try"
        store.add([description(2, "a cat", cost_usd=0.5)])
        assert [row.cost_usd for row in store.descriptions() if row.text == "a cat"] == [1.25]
    with DescriptionStore(tmp_path / "b.db", write=True) as store:
        with pytest.raises(StoreError):
            store.add([description(1), description(2, text=object())])  # type: ignore[arg-type]
        assert store.counts() == []
        assert store.add([description(1)]) == store.add([description(2)]) == 1, "what was undone is made again"


def test_identity_is_digest_prompt_describer_and_sample(tmp_path: Path) -> None:
    rows = [
        description(1),
        description(1, prompt=TOLD),
        description(1, prompt=Prompt("paper", 2, "Describe.", False)),
        description(1, describer={"kind": "test", "temperature": 0.6}),
        description(1, sample=1),
    ]
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        assert store.add(rows) == 5
        assert store.add(rows) == 0
        assert store.add([description(1, describer=dict(reversed(ME.items())))]) == 0
        assert store.settled(TOLD, ME) == {(digest(1), 0)}
        assert store.settled(TOLD, {"kind": "other"}) == set()
        store.add(
            [description(2, None, error="loop", tokens_in=7, sample=1), description(3, describer={}, tokens_in=8)]
        )
        assert store.inputs(PAPER, ME) == [(digest(2), 7)] and store.inputs(TOLD, ME) == []
        assert [row.prompt for row in store.texts("class-conditioned")] == [TOLD]


def test_order_of_texts_does_not_depend_on_insertion(tmp_path: Path) -> None:
    rows = [
        description(number // 4, f"text {number}", prompt=(PAPER, TOLD)[number % 2], sample=number // 2 % 2)
        for number in range(12)
    ]
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        for start in (4, 2, 0, 3, 1):
            store.add(rows[start::5][::-1])
        found = list(store.texts())
        expected = sorted(rows, key=lambda row: (row.digest, row.prompt.content, row.sample))
        assert [(row.digest, row.text, row.prompt) for row in found] == [
            (row.digest, row.text, row.prompt) for row in expected
        ]
        assert store.texts_at([row.row for row in reversed(found)]) == [row.text for row in reversed(found)]


def test_the_fingerprint_knows_every_good_result_and_no_order(tmp_path: Path) -> None:
    rows = [description(1), description(2, "a dog"), description(1, "a cat", sample=1)]
    found: list[str] = []
    for number, order in enumerate((rows, rows[::-1], rows[:2], [*rows[:2], description(1, "a hat", sample=1)])):
        with DescriptionStore(tmp_path / f"{number}.db", write=True) as store:
            store.add([description(3, None, error="refused")] if number else [])
            store.add(order)
            found.append(store.fingerprint())
    assert found[0] == found[1] and len(set(found)) == 3


def test_a_second_writer_is_refused_by_process_id_and_readers_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(":memory:")  # a name that means something to SQLite
    Path("link.db").symlink_to(path)
    script = "import sys, time; from pathlib import Path; from gpt4image.artifacts.store import *\n"
    script += "s = DescriptionStore(Path(sys.argv[1]), write=True); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        try:
            for name in (path, Path("link.db")):
                with pytest.raises(StoreError, match=rf"another process \(id {other.pid}\) is writing to this store"):
                    DescriptionStore(name, write=True, wait_s=0.1)
            with DescriptionStore(path) as reader:
                assert reader.counts() == []
        finally:
            other.kill()
    with DescriptionStore(path, write=True, wait_s=0.1) as store:  # a killed writer leaves no lock behind
        assert store.add([description(1)]) == 1
    assert path.is_file()


def database(path: Path, *statements: str) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.mark.parametrize("write", [True, False])
def test_what_is_no_store_is_refused_and_kept(tmp_path: Path, write: bool) -> None:
    path = tmp_path / "a.db"
    DescriptionStore(path, write=True).close()
    path.unlink()
    for content, message in (
        (database(path, "CREATE TABLE results (x)"), "not a description store"),
        (b"key,label\n1,2\n", "not a database"),
        (b"SQLite format 3\0 but then nothing of the kind" * 40, "not a description store"),
        (bytes(4096), "cannot be used"),
    ):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            DescriptionStore(path, write=write)
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=r"not a file|no description store"):
        DescriptionStore(path, write=write)
    path.rmdir()
    with pytest.raises(StoreError, match="gpt4image describe"):
        DescriptionStore(path)
    assert {file.name for file in tmp_path.iterdir()} <= {"a.db.lock"}


def copied(tmp_path: Path) -> Path:
    """A store whose 20 answers are in its log alone, as a power cut leaves it."""
    path = tmp_path / "place" / "a.db"
    path.parent.mkdir()
    with DescriptionStore(tmp_path / "whole.db", write=True) as store:
        for number in range(20):
            store.add([description(number)])
        for file in tmp_path.glob("whole.db*"):
            (path.parent / file.name.replace("whole", "a")).write_bytes(file.read_bytes())
    return path


@pytest.mark.parametrize("emptied", [True, False])
def test_a_store_that_is_gone_does_not_take_its_log_with_it(tmp_path: Path, emptied: bool) -> None:
    file = copied(tmp_path)
    whole = file.read_bytes()
    (link := tmp_path / "link.db").symlink_to(file)
    file.unlink()
    if emptied:
        file.write_bytes(b"")
    for path in (file, link):
        with pytest.raises(StoreError, match=r"put \S+ back beside it"):
            DescriptionStore(path, write=True)
    file.write_bytes(whole)
    with DescriptionStore(file) as store:
        assert len(list(store.texts())) == 20
    assert {path.name for path in file.parent.glob("a.db*")} <= {"a.db", "a.db.lock"}, "the log is merged"


def test_an_empty_file_becomes_a_store_in_one_step_and_all_of_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (flushed.append(str(Path(f"/proc/self/fd/{number}").readlink())), fsync(number))
    )
    (tmp_path / "a.db").touch()
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        assert str(tmp_path) in flushed
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store.add([description(1)]) == 1
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space left on device"):
        DescriptionStore(tmp_path / "c.db", write=True)
    assert not (tmp_path / "c.db").exists()


def test_a_full_disk_is_named_and_costs_nothing_stored_before(tmp_path: Path) -> None:
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([description(1)])
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            store.add([description(number, "word " * 900) for number in range(2, 20)])
        assert [row.digest for row in store.texts()] == [digest(1)]


def test_a_store_whose_structure_or_values_are_damaged_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with DescriptionStore(path, write=True) as store:
        store.add([description(number, answer=Answer(class_name="cat")) for number in range(300)])
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + bytes(4096) + whole[12288:])
    with DescriptionStore(path) as store, pytest.raises(StoreError, match="restore a backup"):
        list(store.answers())
    path.write_bytes(whole)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE results SET answer = '[1]' WHERE id = 7")
    with DescriptionStore(path) as store, pytest.raises(StoreError, match="restore a backup"):
        list(store.answers())


def test_notes_about_a_describer_are_kept(tmp_path: Path) -> None:
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        assert (store.dataset, store.examples(), store.box_formats()) == (None, {}, {})
        store.note_dataset("folder:a")
        store.note_dataset("folder:b")
        store.note_examples(ME, {digest(1): "cat"})
        store.note_examples(ME, {digest(2): "dog"})
        store.set_box_format(ME, "yxyx-1000", {"given": True})
    with DescriptionStore(tmp_path / "a.db") as store:
        (examples,), (name,) = store.examples().values(), store.box_formats().values()
        assert (store.dataset, examples, name) == ("folder:b", {digest(1): "cat", digest(2): "dog"}, "yxyx-1000")
