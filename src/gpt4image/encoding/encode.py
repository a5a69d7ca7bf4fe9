"""The stage ``encode``: every distinct text of a store becomes one row of an embedding table.

Texts are sorted by length, so that batches hold little padding. Rows are appended to a file and reported to
``progress.json`` once they are on disk: a run that is killed goes on at the last report and ends with the same bytes.
Rows that do not match the report are not used: their texts are encoded again.
A finished table gives its rows to texts it knows: only new texts are encoded. Texts longer than the encoder's limit are
cut, or pooled from chunks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import shutil
import time
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.artifacts.table import (
    ARRAYS,
    MANIFEST,
    PARTIAL,
    EmbeddingTable,
    Manifest,
    find_digests,
    read_manifest,
    save_array,
    text_digest,
    write_index,
    write_manifest,
    writing,
)
from gpt4image.base.checksums import digest_of_start, file_facts, require_recorded
from gpt4image.base.errors import DamagedError, ModelError, TableError, first_few
from gpt4image.base.files import fingerprint, flush, make_folder, move, open_npy, read_json, write_json
from gpt4image.base.interrupts import deferred_interrupt
from gpt4image.base.progress import progress_bar
from gpt4image.config import EncodeConfig
from gpt4image.config.results import EncodeResult
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.long_texts import Chunks, chunked
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.parallel.ray_cluster import Workers, require_ray

SECONDS_BETWEEN_REPORTS = 2.0
_TEXTS_PER_READ = 4096

EncodeBatches = Callable[[Iterable[Sequence[str]]], Iterator[NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Descriptions:
    """P descriptions with M distinct texts, without the texts themselves.

    Attributes:
        digests: (P, 32) uint8, image of each description.
        text_of: (P,) int64, distinct text of each description.
        texts: (M, 32) uint8, sha256 of each distinct text, sorted.
        stored: (M,) int64, row of the store that has the text.
        prompts: what they answer, sorted.
    """

    digests: NDArray[np.uint8]
    text_of: NDArray[np.int64]
    texts: NDArray[np.uint8]
    stored: NDArray[np.int64]
    prompts: tuple[Prompt, ...]

    def plan(self, revision: str, long: str) -> str:
        """Return the fingerprint of the table of these descriptions with an encoder and a length policy."""
        content = hashlib.sha256()
        for part in (self.digests, self.texts, self.text_of):
            content.update(np.ascontiguousarray(part).data)
        prompts = [(one.name, one.version, one.text, one.class_conditioned) for one in self.prompts]
        return fingerprint({"descriptions": content.hexdigest(), "prompts": prompts, "encoder": revision, "long": long})


def read_descriptions(store: DescriptionStore, prompt_name: str | None) -> Descriptions:
    """Read the descriptions for one prompt or all prompts. Raises StoreError: there is none."""
    store.require_descriptions(prompt_name)
    digests, texts, stored, prompts = bytearray(), bytearray(), array("q"), set[Prompt]()
    for digest, text, prompt, row in store.texts(prompt_name):
        digests += bytes.fromhex(digest)
        texts += text_digest(text)
        stored.append(row)
        prompts.add(prompt)
    hashes = np.frombuffer(texts, dtype="S32")
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return Descriptions(
        digests=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        text_of=inverse.astype(np.int64),
        texts=distinct.view(np.uint8).reshape(-1, 32),
        stored=np.frombuffer(stored, dtype=np.int64)[first],
        prompts=tuple(sorted(prompts)),
    )


def encode(config: EncodeConfig) -> EncodeResult:
    """Encode the descriptions of a store into the table folder ``config.out``; go on where an earlier run stopped.

    What was encoded is kept also where it fails or is interrupted.
    """
    start = time.monotonic()
    if config.engine == "ray":
        require_ray()
    encoder = load_text_encoder(config.encoder, config.device)
    with DescriptionStore(config.store) as store, writing(config.out):
        descriptions = read_descriptions(store, config.prompt)
        plan = descriptions.plan(encoder.revision, config.long)
        earlier = _earlier_table(config, encoder, descriptions)
        encoded = 0
        if earlier is None or earlier.manifest.plan != plan:
            encoded = _Work(config, store, encoder, descriptions, plan, earlier).run()
        shutil.rmtree(config.out / PARTIAL, ignore_errors=True)
        flush(config.out)  # distill does not come here again
    seconds, made = time.monotonic() - start, read_manifest(config.out)
    names = ("descriptions", "images", "texts", "pooled", "max_tokens", "encoder", "precision", "width")
    return EncodeResult(
        path=config.out,
        **{name: getattr(made, name) for name in (*names, "class_conditioned")},
        texts_encoded=encoded,
        texts_kept=made.texts - encoded,
        long=made.length_policy,
        truncated=round(made.truncated, 6),
        seconds=round(seconds, 2),
        texts_per_second=round(encoded / seconds, 1),
    )


def _earlier_table(config: EncodeConfig, encoder: TextEncoder, found: Descriptions) -> EmbeddingTable | None:
    """Return the finished table in ``config.out``, if there is one; TableError if it cannot be brought up to date."""
    out, own = config.out, {PARTIAL, *(f"{name}.npy" for name in ARRAYS)}
    if not (out / MANIFEST).exists():
        if foreign := sorted(path.name for path in out.iterdir() if path.name not in own and path.name[0] != "."):
            raise TableError(f"{out} holds {first_few(foreign)}, which encode did not write; give another --out.")
        return None
    table = EmbeddingTable.open(config.out)
    made = table.manifest
    reason, hint = "", "give another --out"
    if made.revision != encoder.revision:
        reason = (
            f"was made by {made.encoder} (revision {made.revision[:12]}), not by {encoder.spec} (revision "
            f"{encoder.revision[:12]})"
        )
    elif lost := sorted(set(made.prompts) - set(found.prompts)):
        reason = (
            f"holds descriptions for the prompts {first_few(p.name for p in lost)}, which this store or --prompt would "
            "leave out"
        )
    elif made.precision != encoder.precision and (
        made.length_policy != config.long or (find_digests(found.texts, table.texts) >= 0).sum() < len(found.texts)
    ):
        reason = f"has rows that were computed in {made.precision}, new ones would be in {encoder.precision}"
        hint = "encode on a device as before (--device), or give another --out"
    if reason:
        raise TableError(f"{config.out}: the table here {reason}; {hint}.")
    return table


@dataclass
class _Work:
    """One table in the making: rows are first appended to OUT/.partial/embeddings.npy, then moved into place."""

    config: EncodeConfig
    store: DescriptionStore
    encoder: TextEncoder
    descriptions: Descriptions
    plan: str
    earlier: EmbeddingTable | None

    def __post_init__(self) -> None:
        self.out = self.config.out
        self.partial = self.out / PARTIAL
        self.pools = self.config.long == "pool"
        self._written = hashlib.sha256()  # of all bytes of .partial/embeddings.npy

    def run(self) -> int:
        """Encode the missing texts and finish the table; return how many texts were encoded now."""
        stored, limit = self.descriptions.stored, self.encoder.max_tokens
        parts = [stored[start : start + _TEXTS_PER_READ].tolist() for start in range(0, len(stored), _TEXTS_PER_READ)]
        lengths = np.concatenate([self.encoder.token_lengths(self.store.texts_at(part)) for part in parts])
        read = lengths if self.pools else np.minimum(lengths, limit)
        found = self._reported()
        # Batches, and so rounding, depend on all of this.
        identity = {"plan": self.plan, "batch_tokens": self.config.batch_tokens, "precision": self.encoder.precision}
        if found is not None and found[0]["identity"] == identity:
            progress, self._written = found
        else:
            progress = self._begin(read, lengths > limit, identity)
        order = np.array(open_npy(self.partial / "order.npy", np.int64, (len(lengths),)))
        self._append(order, read[order], progress)
        self._finish(order, int((lengths > limit).sum()))
        return len(order) - progress["rows"]

    def _reported(self) -> tuple[dict[str, Any], Any] | None:
        """Return the report of a stopped run about its rows, and their running checksum; None if they differ."""
        try:
            progress = dict(read_json(self.partial / "progress.json"))
            require_recorded(self.partial, "order.npy", progress, largest=math.inf)
            rows = self.partial / "embeddings.npy"
            rows = rows if rows.is_file() else self.out / rows.name  # moved by a run that was killed after it
            written = digest_of_start(rows, progress["header"] + progress["rows"] * 2 * self.encoder.width)
            return (progress, written) if written.hexdigest() == progress["sha256"] else None
        except (FileNotFoundError, DamagedError, KeyError, TypeError, ValueError, OverflowError):
            return None

    def _begin(self, read: NDArray[np.int64], is_long: NDArray[np.bool_], identity: dict[str, Any]) -> dict[str, Any]:
        """Lay out the rows: those of the earlier table in its order, then new texts by the tokens that are read."""
        shutil.rmtree(self.partial, ignore_errors=True)
        make_folder(self.partial)
        source = np.full(len(read), -1, dtype=np.int64)  # row of each text in the earlier table
        if self.earlier is not None:
            found = find_digests(self.descriptions.texts, self.earlier.texts)
            source[found[found >= 0]] = np.flatnonzero(found >= 0)
            if self.earlier.manifest.length_policy != self.config.long:
                source[is_long] = -1
        reused, new = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
        order = np.concatenate([reused[np.argsort(source[reused])], new[np.argsort(read[new], kind="stable")]])
        save_array(self.partial / "order.npy", order)
        header, shape = io.BytesIO(), (len(read), self.encoder.width)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
        progress: dict[str, Any] = {
            "identity": identity,
            "header": header.tell(),
            "reused": len(reused),
            "files": file_facts(self.partial, ("order.npy",)),
        }
        self._written = hashlib.sha256()
        with (self.partial / "embeddings.npy").open("wb") as file:
            self._write(file, header.getvalue())
            if self.earlier is not None:
                rows = np.sort(source[reused])
                for start in range(0, len(rows), _TEXTS_PER_READ):
                    self._write(file, self.earlier.embeddings[rows[start : start + _TEXTS_PER_READ]].tobytes())
            return self._report(file, progress, len(reused))

    def _write(self, file: BinaryIO, content: bytes) -> None:
        file.write(content)
        self._written.update(content)

    def _append(self, order: NDArray[np.int64], lengths: NDArray[np.int64], progress: dict[str, Any]) -> None:
        """Encode the rows that are not on disk yet, batch by batch."""
        done, encoder, reported = progress["rows"], self.encoder, time.monotonic()
        if done == len(order):
            return
        every = batches(lengths, progress["reused"], self.config.batch_tokens)
        missing = [(start, stop) for start, stop in every if stop > done]
        in_flight: deque[Chunks] = deque()

        def texts_of_batches() -> Iterator[list[str]]:
            for start, stop in missing:
                texts = self.store.texts_at(self.descriptions.stored[order[start:stop]].tolist())
                in_flight.append(chunked(texts, lengths[start:stop], encoder.max_tokens, encoder.token_lengths))
                yield in_flight[-1].texts

        with (
            (self.partial / "embeddings.npy").open("rb+") as file,
            deferred_interrupt() as interrupt,
            progress_bar() as bar,
            _engine(self.config, encoder) as encode_batches,
        ):
            file.truncate(progress["header"] + done * 2 * encoder.width)
            file.seek(0, os.SEEK_END)
            task = bar.add_task("encode", total=len(order), completed=done, note=encoder.precision)
            for (start, stop), found in zip(missing, encode_batches(texts_of_batches()), strict=True):
                chunks = in_flight.popleft()
                if (shape := np.shape(found)) != (right := (len(chunks.texts), encoder.width)):  # rows would be shifted
                    raise ModelError(f"{encoder.spec} gives embeddings of the shape {shape}; {right} is needed.")
                vectors = chunks.pool(np.asarray(found))
                bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
                if len(bad):  # one would make every text label NaN
                    text = self.store.texts_at(self.descriptions.stored[order[start + bad[:1]]].tolist())[0]
                    raise ModelError(
                        f"{encoder.spec}, computing in {encoder.precision}, gives {len(bad)} of {stop - start} texts "
                        f"of a batch an embedding that is not finite, first {text[:60]!r}. Most likely its "
                        "numbers overflow or its weights are damaged: try --device cpu, or another --encoder."
                    )
                self._write(file, vectors.astype("<f2").tobytes())
                done += len(vectors)
                bar.update(task, completed=done)
                if interrupt.requested or time.monotonic() - reported >= SECONDS_BETWEEN_REPORTS:
                    self._report(file, progress, done)
                    reported = time.monotonic()
                if interrupt.requested:
                    raise KeyboardInterrupt
            self._report(file, progress, len(order))

    def _report(self, file: BinaryIO, progress: dict[str, Any], rows: int) -> dict[str, Any]:
        """Report ``rows`` rows once they are on disk."""
        file.flush()
        os.fsync(file.fileno())
        progress = {**progress, "rows": rows, "sha256": self._written.hexdigest()}
        write_json(self.partial / "progress.json", progress)
        return progress

    def _finish(self, order: NDArray[np.int64], too_long: int) -> None:
        """Move the table into place. Each step may be repeated after a crash; the manifest comes last."""
        (self.out / MANIFEST).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # moved by a run that was killed after it
            move(self.partial / "embeddings.npy", self.out / "embeddings.npy")
        row_of_text = np.empty_like(order)
        row_of_text[order] = np.arange(len(order))
        found = self.descriptions
        save_array(self.out / "texts.npy", found.texts[order])
        images = write_index(self.out, found.digests, row_of_text[found.text_of])
        made_by = self.encoder if self.earlier is None else self.earlier.manifest
        manifest = Manifest(
            encoder=self.encoder.spec,
            revision=self.encoder.revision,
            precision=made_by.precision,
            width=self.encoder.width,
            max_tokens=self.encoder.max_tokens,
            truncated=0.0 if self.pools else too_long / len(order),
            pooled=too_long if self.pools else 0,
            length_policy=self.config.long,
            descriptions=len(found.digests),
            texts=len(order),
            images=images,
            prompts=found.prompts,
            store=str(self.store.path.absolute()),
            plan=self.plan,
            gpt4image=__version__,
        )
        write_manifest(self.out, manifest)


def batches(lengths: NDArray[np.int64], start: int, batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of batches of at most ``batch_tokens`` tokens, padding included, from row ``start`` on."""
    for stop in range(start + 1, len(lengths) + 1):
        if stop == len(lengths) or (stop + 1 - start) * lengths[stop] > batch_tokens:
            yield start, stop
            start = stop


@contextlib.contextmanager
def _engine(config: EncodeConfig, encoder: TextEncoder) -> Generator[EncodeBatches]:
    """Give a function that turns batches of texts into their (N, D) vectors, in order; over Ray a few ahead."""
    if config.engine != "ray":
        yield partial(map, encoder.encode)
        return
    given = (encoder.spec, config.device, encoder.revision, encoder.precision)
    crew = Workers(_EncodeWork, lambda _count: given, config.workers, gpu=config.device in ("auto", "cuda"))
    try:
        yield lambda batches: crew.map(map(list, batches), ordered=True)
    finally:
        crew.close()


class _EncodeWork:
    """Turns texts into their vectors, float32 (N, D)."""

    def __init__(self, spec: str, device: str, revision: str, precision: str) -> None:
        self._encoder = load_text_encoder(spec, device)
        here, there = (self._encoder.revision[:12], self._encoder.precision), (revision[:12], precision)
        if here != there:
            raise ModelError(
                f"{spec}: a worker would encode with revision and precision {here}, the driver with {there}; rows of "
                "one table must be made alike. Run on machines of one kind, with the same weights, or give --device "
                "cpu."
            )

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        return self._encoder.encode(texts)
