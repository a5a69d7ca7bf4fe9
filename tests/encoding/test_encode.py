"""encode: each text once, the same bytes however often it was killed, nothing encoded twice."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpt4image.encoding.encode
from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.artifacts.table import ARRAYS, EmbeddingTable
from gpt4image.base.errors import ModelError, StoreError, TableError
from gpt4image.config import EncodeConfig
from gpt4image.encoding.class_names import ClassNames, find_class_names, not_read
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from tables import PAPER, digest, write_store

TOLD = Prompt("class-conditioned", 1, "A {class_name}.", True)


def fill(path: Path, texts: Sequence[str], prompt: Prompt = PAPER, first: int = 0) -> None:
    rows = ({"digest": digest(number), "text": text} for number, text in enumerate(texts, first))
    write_store(path, rows, prompt=prompt)


class Letters:
    """A text encoder made of letter counts: one word is one token, and a batch is remembered."""

    spec, precision, width, max_tokens = "letters", "fp32", 26, 16

    def __init__(self, revision: str = "r1", die_after: int | None = None) -> None:
        self.revision = revision
        self.die_after = die_after
        self.batches: list[list[str]] = []

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text.split()) for text in texts], dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self.batches) == self.die_after:
            raise ModelError("killed")
        self.batches.append(list(texts))
        counts = np.array([[text.count(chr(97 + c)) + 0.1 for c in range(26)] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run_with(encoder: Any, **options: Any) -> Any:
        monkeypatch.setattr(gpt4image.encoding.encode, "load_text_encoder", lambda _spec, _device: encoder)
        values: dict[str, Any] = {"store": tmp_path / "a.db", "out": tmp_path / "t", "batch_tokens": 64}
        return encode(EncodeConfig(**{**values, **options}))

    return run_with


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["red", "dog", "cat", "aeroplane", "sky", "small", "tree", "zebra"]
    return [" ".join(rng.choices(words, k=rng.randint(1, 24))) + f" n{seed}x{number}" for number in range(count)]


def table_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.npy").read_bytes() for name in ARRAYS}


def test_every_image_gets_the_embedding_of_its_own_text_and_equal_texts_are_encoded_once(
    run: Any, tmp_path: Path
) -> None:
    texts = [*sentences(50), *sentences(10)]
    fill(tmp_path / "a.db", texts)
    encoder = Letters()
    outcome = run(encoder, long="cut")
    asked = [text for batch in encoder.batches for text in batch]
    assert sorted(asked) == sorted(set(texts)) and len(encoder.batches) > 5
    assert all(len(batch) * min(16, max(len(text.split()) for text in batch)) <= 64 for batch in encoder.batches)
    vectors, described = EmbeddingTable.open(outcome.path).vectors([digest(n) for n in range(len(texts))])
    assert described.all()
    np.testing.assert_allclose(vectors, Letters().encode(texts), atol=2e-3)
    long = sum(len(text.split()) > 16 for text in set(texts)) / 50
    manifest = EmbeddingTable.open(tmp_path / "t").manifest
    assert (manifest.texts, manifest.images, manifest.descriptions) == (50, 60, 60)
    assert manifest.truncated == pytest.approx(long) and 0 < long < 1
    assert (manifest.length_policy, manifest.pooled) == ("cut", 0)
    assert outcome.texts_encoded == 50
    assert not (tmp_path / "t" / ".partial").exists()


def test_a_second_run_encodes_nothing_and_new_texts_cost_only_themselves(run: Any, tmp_path: Path) -> None:
    fill(tmp_path / "a.db", sentences(40))
    run(Letters(), long="cut")
    before = table_bytes(tmp_path / "t")
    again = Letters()
    assert run(again, long="cut").texts_encoded == 0 and not again.batches
    assert table_bytes(tmp_path / "t") == before
    fill(tmp_path / "a.db", [*sentences(7, seed=1), sentences(1)[0]], first=40)
    more = Letters()
    outcome = run(more, long="cut")
    assert outcome.texts_encoded == 7 and outcome.texts_kept == 40
    assert sorted(text for batch in more.batches for text in batch) == sorted(sentences(7, seed=1))
    vectors, _ = EmbeddingTable.open(tmp_path / "t").vectors([digest(n) for n in range(48)])
    expected = Letters().encode([*sentences(40), *sentences(7, seed=1), sentences(1)[0]])
    np.testing.assert_allclose(vectors, expected, atol=2e-3)


def test_long_texts_are_pooled_from_chunks_within_the_limit_and_reported(run: Any, tmp_path: Path) -> None:
    texts = sentences(50)
    fill(tmp_path / "a.db", texts)
    encoder = Letters()
    outcome = run(encoder)
    asked = [text for batch in encoder.batches for text in batch]
    assert Letters().token_lengths(asked).max() <= 16
    assert not set(" ".join(texts).split()) - set(" ".join(asked).split())
    long = [text for text in texts if len(text.split()) > 16]
    manifest = EmbeddingTable.open(outcome.path).manifest
    assert manifest.length_policy == outcome.long == "pool" and manifest.truncated == 0
    assert 0 < len(long) == manifest.pooled == outcome.pooled
    vectors, _ = EmbeddingTable.open(outcome.path).vectors([digest(n) for n in range(50)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_a_run_that_is_killed_again_and_again_goes_on_and_ends_with_the_same_bytes(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt4image.encoding.encode, "SECONDS_PER_BLOCK", 0)
    fill(tmp_path / "a.db", sentences(60))
    run(Letters(), long="cut", out=tmp_path / "whole")
    encoded = 0
    for _ in range(3):
        encoder = Letters(die_after=3)
        with pytest.raises(ModelError):
            run(encoder, long="cut")
        encoded += sum(map(len, encoder.batches))
    assert run(Letters(), long="cut").texts_encoded == 60 - encoded > 0
    assert table_bytes(tmp_path / "t") == table_bytes(tmp_path / "whole")


@pytest.mark.parametrize("moves", range(6))
def test_a_table_that_is_killed_while_it_moves_into_place_is_finished_by_the_next_run(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    fill(tmp_path / "a.db", sentences(20))
    run(Letters())
    fill(tmp_path / "a.db", sentences(5, seed=1), first=20)
    run(Letters(), out=tmp_path / "whole")
    done = list[Path]()

    def move(source: Path, path: Path) -> None:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(path)
        source.replace(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gpt4image.encoding.encode, "move", move)
        run(Letters())
    assert run(Letters()).texts_encoded == 0
    assert EmbeddingTable.open(tmp_path / "t").manifest.texts == 25
    vectors = [
        EmbeddingTable.open(tmp_path / name).vectors([digest(n) for n in range(25)])[0] for name in ("t", "whole")
    ]
    np.testing.assert_array_equal(*vectors)


def test_another_encoder_starts_afresh_and_is_refused_in_a_finished_table(run: Any, tmp_path: Path) -> None:
    fill(tmp_path / "a.db", sentences(60))
    with pytest.raises(ModelError):
        run(Letters(die_after=3))
    assert run(Letters(revision="r2"), batch_tokens=128).texts_encoded == 60
    with pytest.raises(TableError, match=r"made by letters \(revision r2\), not r1"):
        run(Letters())


def test_prompts_are_recorded_and_never_dropped_unasked(run: Any, tmp_path: Path) -> None:
    fill(tmp_path / "a.db", sentences(5))
    assert run(Letters()).class_conditioned is False
    fill(tmp_path / "a.db", sentences(5, seed=1), prompt=TOLD)
    assert run(Letters()).class_conditioned is True
    assert EmbeddingTable.open(tmp_path / "t").manifest.prompts == (TOLD, PAPER)
    with pytest.raises(TableError, match="'class-conditioned'"):
        run(Letters(), prompt="paper")
    assert run(Letters(), prompt="paper", out=tmp_path / "p").texts == 5


def test_mistakes_are_found_before_work_starts(run: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no description store"):
        run(Letters())
    DescriptionStore(tmp_path / "a.db", write=True).close()
    with pytest.raises(StoreError, match="no descriptions"):
        run(Letters())
    fill(tmp_path / "a.db", sentences(5))
    with pytest.raises(StoreError, match="Did you mean 'paper'"):
        run(Letters(), prompt="papers")
    (tmp_path / "file").touch()
    with pytest.raises(TableError, match="cannot write here"):
        run(Letters(), out=tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(TableError, match=r"holds 'notes.txt', and no table"):
        run(Letters(), out=tmp_path / "other")


@pytest.mark.parametrize(("rows", "columns"), [(3, 27), (2, 26)])
def test_embeddings_of_another_width_or_number_are_refused(run: Any, tmp_path: Path, rows: int, columns: int) -> None:
    class Careless(Letters):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.ones((rows, columns), np.float32)

    fill(tmp_path / "a.db", sentences(5))
    with pytest.raises(ModelError, match=rf"letters gives .* \({rows}, {columns}\); \(3, 26\) is needed"):
        run(Careless())
    assert not (tmp_path / "t" / "manifest.json").exists()


def test_an_embedding_that_is_not_finite_is_refused_and_costs_no_other(run: Any, tmp_path: Path) -> None:
    class Overflowing(Letters):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            vectors = super().encode(texts)
            vectors[[text.startswith("beyond") for text in texts], 3] = np.nan
            return vectors

    fill(tmp_path / "a.db", [*sentences(40), "beyond all bounds " + "and further " * 4])
    with pytest.raises(ModelError, match=r"letters, computing in fp32.*not finite.*'beyond all bounds.*--device cpu"):
        run(Overflowing(), batch_tokens=64)
    assert not (tmp_path / "t" / "manifest.json").exists()
    assert run(Letters(), batch_tokens=64).texts == 41
    assert np.isfinite(EmbeddingTable.open(tmp_path / "t").embeddings).all()


ENCODER = "bag-of-words:32"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    fill(tmp_path / "texts.db", ["A dog."])
    encode(EncodeConfig(store=tmp_path / "texts.db", encoder=ENCODER, out=tmp_path / "table"))
    return tmp_path / "table"


def test_names_are_embedded_as_captions_by_the_encoder_of_the_table_as_it_is_now(table: Path) -> None:
    found = find_class_names(table, "cpu", ("polar_bear", "dog"))
    expected = load_text_encoder(ENCODER).encode(["a photo of a polar bear", "a photo of a dog"])
    assert found.vectors is not None and np.array_equal(found.vectors, expected)
    assert found.missing == "" and found.revision == load_text_encoder(ENCODER).revision
    shutil.rmtree(table)
    encode(EncodeConfig(store=table.with_name("texts.db"), encoder="bag-of-words:16", out=table))
    again = find_class_names(table, "cpu", ("dog",))
    assert again.vectors is not None and again.vectors.shape[1] == 16
    manifest = table / "manifest.json"
    manifest.write_text(manifest.read_text().replace("bag-of-words:16", "bag-of-words:64"))
    changed, none = (find_class_names(path, "cpu", ("dog",)) for path in (table, None))
    assert changed.vectors is None and none.vectors is None
    reasons = not_read([none, ClassNames(missing=none.missing), changed, found])
    assert len(reasons) == 2 and "there is no embedding table" in reasons[0]
