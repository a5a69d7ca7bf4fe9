"""The stage ``encode``: every distinct text of a store becomes one row of an embedding table.

Texts are sorted by length, so that batches hold little padding. Rows are appended to a file and reported to
``progress.json`` once they are on disk: a run that is killed goes on at the last report and ends with the same bytes.
Rows that are not those that were reported are not used: their texts are encoded again.
A table that is there already gives its rows to texts it knows, and so does a run that was stopped before the store
grew: new descriptions cost only themselves. Texts longer than the encoder reads are cut, or pooled from chunks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.table import (
    MANIFEST,
    PARTIAL,
    EmbeddingTable,
    Manifest,
    find_digests,
    read_manifest,
    save_array,
    write_index,
    write_manifest,
    writing_table,
)
from gpt4image.base.checksums import digest_of_start, file_facts, require_recorded
from gpt4image.base.errors import DamagedError, ModelError, TableError, first_few
from gpt4image.base.files import move, open_npy, read_json, write_json
from gpt4image.base.interrupts import deferred_interrupt
from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import progress_bar
from gpt4image.config import EncodeConfig
from gpt4image.encoding.distinct_texts import Descriptions, read_descriptions
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.long_texts import Chunks, chunked
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.parallel.ray_cluster import require_ray

SECONDS_BETWEEN_REPORTS = 2.0
STOPPED = f"{PARTIAL}-stopped"  # what .partial was, while one for other texts is begun
_TEXTS_PER_READ = 4096

_Known = tuple[NDArray[np.float16], NDArray[np.int64]]  # rows, and the row of each distinct text, -1 where it has none
EncodeBatches = Callable[[Iterable[Sequence[str]]], Iterator[NDArray[np.float32]]]


def encode(config: EncodeConfig) -> Outcome:
    """Encode the descriptions of a store into the table folder ``config.out``; go on where an earlier run stopped.

    Raises:
        ConfigError: the encoder SPEC or the device is wrong.
        MissingExtraError: the engine ray is asked for, and Ray is not installed.
        ModelError: the encoder cannot be loaded, or gives an embedding that is not finite.
        RunError: the Ray cluster failed; what was encoded is kept.
        StoreError: there is no store, or no description in it.
        TableError: the folder holds another table, another process writes to it, or the disk is full.
        KeyboardInterrupt: the user stopped it; what was encoded is kept.
    """
    start = time.monotonic()
    if config.engine == "ray":
        require_ray()
    encoder = load_text_encoder(config.encoder, config.device)
    with DescriptionStore(config.store) as store, writing_table(config.out):
        descriptions = read_descriptions(store, config.prompt)
        plan = descriptions.plan(encoder.revision, config.long)
        earlier = _earlier_table(config.out, encoder, descriptions)
        encoded = 0
        if earlier is None or earlier.manifest.plan != plan:
            if earlier is not None and _adds_rows(config, earlier, descriptions):
                _require_precision(config.out, earlier, encoder)
            encoded = _Work(config, store, encoder, descriptions, plan, earlier).run()
        for folder in (PARTIAL, STOPPED):
            shutil.rmtree(config.out / folder, ignore_errors=True)
    seconds = time.monotonic() - start
    manifest = read_manifest(config.out)
    return Outcome(
        path=config.out,
        summary={
            "descriptions": manifest.descriptions,
            "images": manifest.images,
            "texts": manifest.texts,
            "texts_encoded": encoded,
            "texts_kept": manifest.texts - encoded,
            "long": manifest.length_policy,
            "truncated": round(manifest.truncated, 6),
            "pooled": manifest.pooled,
            "max_tokens": manifest.max_tokens,
            "encoder": manifest.encoder,
            "precision": manifest.precision,
            "width": manifest.width,
            "class_conditioned": manifest.class_conditioned,
            "seconds": round(seconds, 2),
            "texts_per_second": round(encoded / seconds, 1),
        },
    )


def _earlier_table(out: Path, encoder: TextEncoder, descriptions: Descriptions) -> EmbeddingTable | None:
    """Return the finished table in ``out``, if there is one and it may be brought up to date."""
    if not (out / MANIFEST).exists():
        return None
    table = EmbeddingTable.open(out)
    if not table.manifest.store:
        raise TableError(f"{out}: the table here was imported as numbers; give another --out, or delete the folder.")
    if table.manifest.revision != encoder.revision:
        raise TableError(
            f"{out}: the table here was made by {table.manifest.encoder} (revision {table.manifest.revision[:12]}), "
            f"not by {encoder.spec} (revision {encoder.revision[:12]}); give another --out, or delete the folder."
        )
    lost = sorted(set(table.manifest.prompts) - set(descriptions.prompts))
    if lost:
        raise TableError(
            f"{out}: the table here holds descriptions for the prompts {first_few(p.name for p in lost)}, which this "
            f"store or --prompt would leave out; give another --out, or delete the folder."
        )
    return table


def _adds_rows(config: EncodeConfig, earlier: EmbeddingTable, descriptions: Descriptions) -> bool:
    """Return whether there may be texts to encode, and not only other images of those that are encoded."""
    known = (find_digests(descriptions.texts, earlier.texts) >= 0).sum()
    return earlier.manifest.length_policy != config.long or known < len(descriptions.texts)


def _require_precision(out: Path, earlier: EmbeddingTable, encoder: TextEncoder) -> None:
    """Refuse to add rows in one precision to a table of rows in another."""
    if earlier.manifest.precision != encoder.precision:
        raise TableError(
            f"{out}: the rows here were computed in {earlier.manifest.precision}, new ones would be in "
            f"{encoder.precision}, as {encoder.spec} computes on this device. Encode on a device as before (--device) "
            "or give another --out, where all texts are encoded."
        )


class _Work:
    """One table in the making: rows are first appended to OUT/.partial/embeddings.npy, then moved into place."""

    def __init__(
        self,
        config: EncodeConfig,
        store: DescriptionStore,
        encoder: TextEncoder,
        descriptions: Descriptions,
        plan: str,
        earlier: EmbeddingTable | None,
    ) -> None:
        self.out = config.out
        self.partial = config.out / PARTIAL
        self.batch_tokens = config.batch_tokens
        self.long = config.long
        self.store = store
        self.encoder = encoder
        self.encoding = _encoding(config, encoder)
        self.descriptions = descriptions
        self.plan = plan
        self.earlier = earlier
        self._written = hashlib.sha256()  # of all bytes of .partial/embeddings.npy

    def run(self) -> int:
        """Encode what is missing and finish the table; return how many texts were encoded now."""
        lengths = self._token_lengths()
        progress = self._resume() or self._begin(lengths)
        order = np.array(open_npy(self.partial / "order.npy", np.int64, (len(lengths),)))
        self._append(order, self._read(lengths[order]), progress)
        self._finish(order, int((lengths > self.encoder.max_tokens).sum()))
        return len(order) - progress["rows"]

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a later run to go on: batches, and so rounding, depend on all of it."""
        return {"plan": self.plan, "batch_tokens": self.batch_tokens, "precision": self.encoder.precision}

    def _token_lengths(self) -> NDArray[np.int64]:
        stored = self.descriptions.stored
        parts = [stored[start : start + _TEXTS_PER_READ] for start in range(0, len(stored), _TEXTS_PER_READ)]
        return np.concatenate([self.encoder.token_lengths(self.store.texts_at(part.tolist())) for part in parts])

    def _read(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many tokens of each text are read."""
        return lengths if self.long == "pool" else np.minimum(lengths, self.encoder.max_tokens)

    def _resume(self) -> dict[str, Any] | None:
        found = self._reported(self.partial)
        if found is None or found[0]["identity"] != self._identity():
            return None
        progress, self._written = found
        return progress

    def _reported(self, folder: Path) -> tuple[dict[str, Any], Any] | None:
        """Return what a run reported of its rows in a folder, and their running checksum.

        None where nothing was reported, or what is there is not what was reported.
        """
        try:
            progress = read_json(folder / "progress.json")
            known = [require_recorded(folder, name, progress, largest=math.inf) for name in ("order.npy", "texts.npy")]
            rows = folder / "embeddings.npy"
            rows = rows if rows.is_file() else self.out / rows.name  # moved by a run that was killed after it
            written = digest_of_start(rows, progress["header"] + progress["rows"] * 2 * self.encoder.width)
            return (progress, written) if all(known) and written.hexdigest() == progress["sha256"] else None
        except (FileNotFoundError, DamagedError, KeyError, TypeError, ValueError, OverflowError):
            return None

    def _begin(self, lengths: NDArray[np.int64]) -> dict[str, Any]:
        """Lay out the rows: those of the earlier table in its order, then new texts by length."""
        stopped = self.out / STOPPED
        if (self.partial / "progress.json").is_file():
            shutil.rmtree(stopped, ignore_errors=True)
            self.partial.rename(stopped)
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        known = [*self._rows_of_stopped(stopped), *self._rows_of_earlier(lengths)]
        source = np.full(len(lengths), -1, dtype=np.int64)  # number of the row in all of them, one after the other
        first = np.cumsum([0, *(len(rows) for rows, _ in known)])
        for (_, row_of_text), start in reversed(list(zip(known, first[:-1], strict=True))):
            source[row_of_text >= 0] = start + row_of_text[row_of_text >= 0]
        reused = np.flatnonzero(source >= 0)
        reused = reused[np.argsort(source[reused])]
        new = np.flatnonzero(source < 0)
        new = new[np.argsort(self._read(lengths[new]), kind="stable")]
        order = np.concatenate([reused, new])
        save_array(self.partial / "order.npy", order)
        save_array(self.partial / "texts.npy", self.descriptions.texts[order])
        header = io.BytesIO()
        shape = (len(lengths), self.encoder.width)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
        progress: dict[str, Any] = {"identity": self._identity(), "header": header.tell(), "reused": len(reused)}
        progress["arithmetic"] = self._arithmetic()
        progress["files"] = file_facts(self.partial, ("order.npy", "texts.npy"))
        self._written = hashlib.sha256()
        with (self.partial / "embeddings.npy").open("wb") as file:
            self._write(file, header.getvalue())
            for (rows, _), start, stop in zip(known, first[:-1], first[1:], strict=True):
                own = source[(source >= start) & (source < stop)]
                own = np.sort(own) - start
                for begin in range(0, len(own), _TEXTS_PER_READ):
                    self._write(file, rows[own[begin : begin + _TEXTS_PER_READ]].tobytes())
            progress = self._report(file, progress, len(reused))
        shutil.rmtree(stopped, ignore_errors=True)
        return progress

    def _write(self, file: BinaryIO, content: bytes) -> None:
        file.write(content)
        self._written.update(content)

    def _arithmetic(self) -> list[str]:
        """Return what must be the same for rows of one text to be the same but for rounding."""
        return [self.encoder.revision, self.encoder.precision, self.long]

    def _rows_of_earlier(self, lengths: NDArray[np.int64]) -> Iterator[_Known]:
        """Yield the rows of the earlier table, but for texts that were too long for it."""
        if self.earlier is None:
            return
        rows = self._rows_by_text(self.earlier.texts)
        if self.earlier.manifest.length_policy != self.long:
            rows[lengths > self.encoder.max_tokens] = -1
        yield self.earlier.embeddings, rows

    def _rows_of_stopped(self, folder: Path) -> Iterator[_Known]:
        """Yield the rows that a run had on disk which was stopped, and was for other texts or in other batches."""
        found = self._reported(folder) if (folder / "embeddings.npy").is_file() else None
        if found is None:
            return
        progress, _ = found
        rows = progress["rows"]
        if progress.get("arithmetic") == self._arithmetic() and rows:
            texts = np.load(folder / "texts.npy", allow_pickle=False)[:rows]
            shape = (rows, self.encoder.width)
            matrix = np.memmap(folder / "embeddings.npy", "<f2", "r", offset=progress["header"], shape=shape)
            yield matrix, self._rows_by_text(texts)

    def _rows_by_text(self, known: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return at which row each distinct text is among known ones, -1 where it is not."""
        found = find_digests(self.descriptions.texts, known)
        rows = np.full(len(self.descriptions.texts), -1, dtype=np.int64)
        rows[found[found >= 0]] = np.flatnonzero(found >= 0)
        return rows

    def _append(self, order: NDArray[np.int64], lengths: NDArray[np.int64], progress: dict[str, Any]) -> None:
        """Encode the rows that are not on disk yet, batch by batch."""
        done = progress["rows"]
        if done == len(order):
            return
        row_bytes = 2 * self.encoder.width
        all_batches = batches(lengths, progress["reused"], self.batch_tokens)
        missing = [(start, stop) for start, stop in all_batches if stop > done]
        in_flight: deque[Chunks] = deque()
        reported = time.monotonic()

        def texts_of_batches() -> Iterator[list[str]]:
            for start, stop in missing:
                chunks = self._chunks(order[start:stop], lengths[start:stop])
                in_flight.append(chunks)
                yield chunks.texts

        with (
            (self.partial / "embeddings.npy").open("rb+") as file,
            deferred_interrupt() as interrupt,
            progress_bar() as bar,
            self.encoding as encode_batches,
        ):
            file.truncate(progress["header"] + done * row_bytes)
            file.seek(0, os.SEEK_END)
            task = bar.add_task("encode", total=len(order), completed=done, note=self.encoder.precision)
            for vectors_of_chunks in encode_batches(texts_of_batches()):
                vectors = in_flight.popleft().pool(vectors_of_chunks)
                self._require_finite(vectors, order[done : done + len(vectors)])
                self._write(file, vectors.astype("<f2").tobytes())
                done += len(vectors)
                bar.update(task, completed=done)
                if interrupt.requested or time.monotonic() - reported >= SECONDS_BETWEEN_REPORTS:
                    self._report(file, progress, done)
                    reported = time.monotonic()
                if interrupt.requested:
                    raise KeyboardInterrupt
            self._report(file, progress, len(order))

    def _require_finite(self, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Refuse (n, D) embeddings of which any is not finite: one would make every text label NaN."""
        bad = rows[~np.isfinite(vectors).all(axis=1)]
        if len(bad):
            text = self.store.texts_at(self.descriptions.stored[bad[:1]].tolist())[0]
            raise ModelError(
                f"{self.encoder.spec}, computing in {self.encoder.precision}, gives {len(bad)} of {len(rows)} texts of "
                f"a batch an embedding that is not finite, the first that of {text[:60]!r}. Most likely its numbers "
                "overflow or its weights are damaged: try --device cpu, or another --encoder."
            )

    def _chunks(self, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Chunks:
        texts = self.store.texts_at(self.descriptions.stored[rows].tolist())
        return chunked(texts, lengths, self.encoder.max_tokens, self.encoder.token_lengths)

    def _report(self, file: BinaryIO, progress: dict[str, Any], rows: int) -> dict[str, Any]:
        """Say that ``rows`` rows are on disk, once they are."""
        file.flush()
        os.fsync(file.fileno())
        progress = {**progress, "rows": rows, "sha256": self._written.hexdigest()}
        write_json(self.partial / "progress.json", progress)
        return progress

    def _finish(self, order: NDArray[np.int64], too_long: int) -> None:
        """Move the table into place. Each step may be done again after a crash; the manifest comes last."""
        (self.out / MANIFEST).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # moved by a run that was killed after it
            move(self.partial / "embeddings.npy", self.out / "embeddings.npy")
        row_of_text = np.empty_like(order)
        row_of_text[order] = np.arange(len(order))
        found = self.descriptions
        save_array(self.out / "texts.npy", found.texts[order])
        images = write_index(self.out, found.digests, row_of_text[found.text_of])
        manifest = Manifest(
            encoder=self.encoder.spec,
            revision=self.encoder.revision,
            precision=(self.earlier.manifest if self.earlier is not None else self.encoder).precision,
            width=self.encoder.width,
            max_tokens=self.encoder.max_tokens,
            truncated=too_long / len(order) if self.long == "cut" else 0.0,
            pooled=too_long if self.long == "pool" else 0,
            length_policy=self.long,
            descriptions=len(found.digests),
            texts=len(order),
            images=images,
            prompts=found.prompts,
            store=str(self.store.path.absolute()),
            plan=self.plan,
            gpt4image=__version__,
        )
        write_manifest(self.out, manifest)


def _encoding(config: EncodeConfig, encoder: TextEncoder) -> contextlib.AbstractContextManager[EncodeBatches]:
    """Return the engine: gives a function that turns batches of texts into their vectors, one after the other."""
    if config.engine == "ray":
        from gpt4image.encoding.ray import encoding_over_ray

        return encoding_over_ray(encoder, config.device, config.workers)
    return contextlib.nullcontext(partial(map, encoder.encode))


def batches(lengths: NDArray[np.int64], start: int, batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of batches of at most ``batch_tokens`` tokens, padding included, from row ``start`` on.

    Args:
        lengths: (M,) tokens of each row, ascending from ``start`` on; a longer text than a batch is one of its own.
        start: first row.
        batch_tokens: tokens per batch.
    """
    for stop in range(start + 1, len(lengths) + 1):
        if stop == len(lengths) or (stop + 1 - start) * lengths[stop] > batch_tokens:
            yield start, stop
            start = stop
