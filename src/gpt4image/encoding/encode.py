"""The stage ``encode``: every distinct text of a store becomes one row of an embedding table.

Texts are sorted by length, so that batches hold little padding. Rows are written in blocks of whole batches to
``.partial``: a run that is killed goes on after the last block and ends with the same bytes. A finished table gives its
rows to texts it knows: only new texts are encoded. Texts longer than the encoder's limit are cut or pooled.
"""

import contextlib
import hashlib
import shutil
import time
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.artifacts.table import (
    ARRAYS,
    PARTIAL,
    EmbeddingTable,
    Manifest,
    find_digests,
    is_table,
    read_manifest,
    save_array,
    text_digest,
    write_index,
    write_manifest,
    writing,
)
from gpt4image.base.errors import ModelError, TableError, first_few
from gpt4image.base.files import atomic_path, fingerprint, flush, make_folder, move, read_json, write_json
from gpt4image.base.interrupts import deferred_interrupt
from gpt4image.base.manifest import MANIFEST
from gpt4image.base.progress import progress_bar
from gpt4image.config import EncodeConfig
from gpt4image.config.results import EncodeResult
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.long_texts import Chunks, chunked
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.parallel.ray_cluster import Workers, require_ray

SECONDS_PER_BLOCK = 5.0
PLAN = "plan.json"
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
        _publish(config.out)  # what a run that was killed had finished
        descriptions = read_descriptions(store, config.prompt)
        plan = descriptions.plan(encoder.revision, config.long)
        earlier = _earlier_table(config, encoder, descriptions, plan)
        encoded = 0
        if earlier is None or earlier.manifest.plan != plan:
            encoded = _Work(config, store, encoder, descriptions, plan, earlier).run()
            _publish(config.out)
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


def _publish(out: Path) -> None:
    """Move a table that is finished in ``.partial`` into place; each step may be repeated after a crash."""
    if is_table(out / PARTIAL):
        (out / MANIFEST).unlink(missing_ok=True)
        for name in (*(f"{name}.npy" for name in ARRAYS), MANIFEST):
            if (out / PARTIAL / name).is_file():
                move(out / PARTIAL / name, out / name)


def _earlier_table(config: EncodeConfig, encoder: TextEncoder, found: Descriptions, plan: str) -> EmbeddingTable | None:
    """Return the finished table in ``config.out``, if there is one; TableError if it cannot be brought up to date."""
    if not is_table(config.out):
        foreign = sorted(path.name for path in config.out.iterdir() if path.name[0] != ".")
        if foreign:
            raise TableError(f"{config.out} holds {first_few(foreign)}, and no table; give another --out.")
        return None
    table = EmbeddingTable.open(config.out)
    made = table.manifest
    reason = ""
    if made.revision != encoder.revision:
        reason = f"was made by {made.encoder} (revision {made.revision[:12]}), not {encoder.revision[:12]}"
    elif lost := sorted(set(made.prompts) - set(found.prompts)):
        reason = f"has texts of {first_few(p.name for p in lost)}, which this store or --prompt would leave out"
    elif made.precision != encoder.precision and made.plan != plan:
        reason = f"was computed in {made.precision}, new rows would be in {encoder.precision} (--device)"
    if reason:
        raise TableError(f"{config.out}: the table here {reason}; give another --out.")
    return table


@dataclass
class _Work:
    """One table in the making, in OUT/.partial."""

    config: EncodeConfig
    store: DescriptionStore
    encoder: TextEncoder
    descriptions: Descriptions
    plan: str
    earlier: EmbeddingTable | None

    def run(self) -> int:
        """Encode the missing texts and finish the table; return how many texts were encoded now."""
        self.partial = self.config.out / PARTIAL
        stored, limit = self.descriptions.stored, self.encoder.max_tokens
        parts = [stored[start : start + _TEXTS_PER_READ].tolist() for start in range(0, len(stored), _TEXTS_PER_READ)]
        lengths = np.concatenate([self.encoder.token_lengths(self.store.texts_at(part)) for part in parts])
        if lengths.shape != stored.shape:
            raise ModelError(
                f"{self.encoder.spec} counts the tokens of {len(lengths)} texts, and {len(stored)} were given."
            )
        pools = self.config.long == "pool"
        read = lengths if pools else np.minimum(lengths, limit)
        kept, rows, new = self._order(read, lengths > limit)
        # Batches, and so rounding, depend on all of this.
        identity = {
            "plan": self.plan,
            "batch_tokens": self.config.batch_tokens,
            "precision": self.encoder.precision,
            "earlier": None if self.earlier is None else self.earlier.manifest.plan,
        }
        if not (self.partial / PLAN).is_file() or read_json(self.partial / PLAN) != identity:
            shutil.rmtree(self.partial, ignore_errors=True)
            make_folder(self.partial)
            write_json(self.partial / PLAN, identity)
        done = sum(len(np.load(block, mmap_mode="r")) for block in self._blocks())
        self._append(new, read[new], done)
        self._finish(kept, rows, new, int((lengths > limit).sum()))
        return len(new) - done

    def _order(self, read: NDArray[np.int64], is_long: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
        """Return the texts of the earlier table and their rows there, in its order, and new texts by their length."""
        source = np.full(len(read), -1, dtype=np.int64)  # row of each text in the earlier table
        if self.earlier is not None:
            found = find_digests(self.descriptions.texts, self.earlier.texts)
            source[found[found >= 0]] = np.flatnonzero(found >= 0)
            if self.earlier.manifest.length_policy != self.config.long:
                source[is_long] = -1
        kept, new = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
        kept = kept[np.argsort(source[kept])]
        return kept, source[kept], new[np.argsort(read[new], kind="stable")]

    def _blocks(self) -> list[Path]:
        return sorted(self.partial.glob("rows-*.npy"))

    def _append(self, order: NDArray[np.int64], lengths: NDArray[np.int64], done: int) -> None:
        """Encode the new texts that are not on disk yet, batch by batch, and write the rows in blocks."""
        encoder = self.encoder
        missing = [(start, stop) for start, stop in batches(lengths, self.config.batch_tokens) if start >= done]
        in_flight: deque[Chunks] = deque()

        def texts_of_batches() -> Iterator[list[str]]:
            for start, stop in missing:
                texts = self.store.texts_at(self.descriptions.stored[order[start:stop]].tolist())
                in_flight.append(chunked(texts, lengths[start:stop], encoder.max_tokens, encoder.token_lengths))
                yield in_flight[-1].texts

        block, began = list[NDArray[np.float16]](), time.monotonic()

        def write() -> None:
            nonlocal block, began
            if block:
                save_array(self.partial / f"rows-{done - sum(map(len, block)):012}.npy", np.concatenate(block))
            block, began = [], time.monotonic()

        with (
            deferred_interrupt() as interrupt,
            progress_bar() as bar,
            _engine(self.config, encoder) as encode_batches,
            contextlib.ExitStack() as at_end,
        ):
            at_end.callback(write)
            task = bar.add_task("encode", total=len(order), completed=done, note=encoder.precision)
            for (start, stop), vectors in zip(missing, encode_batches(texts_of_batches()), strict=True):
                chunks = in_flight.popleft()
                if (shape := np.shape(vectors)) != (right := (len(chunks.texts), encoder.width)):
                    raise ModelError(f"{encoder.spec} gives embeddings of the shape {shape}; {right} is needed.")
                pooled = chunks.pool(np.asarray(vectors))
                bad = np.flatnonzero(~np.isfinite(pooled).all(axis=1))
                if len(bad):  # one would make every target NaN
                    text = self.store.texts_at(self.descriptions.stored[order[start + bad[:1]]].tolist())[0]
                    raise ModelError(
                        f"{encoder.spec}, computing in {encoder.precision}, gives {len(bad)} of {stop - start} texts "
                        f"of a batch an embedding that is not finite, first {text[:60]!r}. Most likely its "
                        "numbers overflow or its weights are damaged: try --device cpu, or another --encoder."
                    )
                block.append(pooled.astype("<f2"))
                done += len(pooled)
                bar.update(task, completed=done)
                if interrupt.requested or time.monotonic() - began >= SECONDS_PER_BLOCK:
                    write()
                if interrupt.requested:
                    raise KeyboardInterrupt

    def _finish(self, kept: NDArray[np.int64], rows: NDArray[np.int64], new: NDArray[np.int64], too_long: int) -> None:
        """Write the whole table into ``.partial``, its manifest last."""
        order, found, width = np.concatenate([kept, new]), self.descriptions, self.encoder.width
        with atomic_path(self.partial / "embeddings.npy") as temporary, temporary.open("wb") as file:
            shape = {"descr": "<f2", "fortran_order": False, "shape": (len(order), width)}
            np.lib.format.write_array_header_1_0(file, shape)
            if self.earlier is not None:
                for start in range(0, len(rows), _TEXTS_PER_READ):
                    file.write(self.earlier.embeddings[rows[start : start + _TEXTS_PER_READ]].tobytes())
            for block in self._blocks():
                file.write(np.load(block).tobytes())
        row_of_text = np.empty_like(order)
        row_of_text[order] = np.arange(len(order))
        save_array(self.partial / "texts.npy", found.texts[order])
        images = write_index(self.partial, found.digests, row_of_text[found.text_of])
        pools = self.config.long == "pool"
        manifest = Manifest(
            encoder=self.encoder.spec,
            revision=self.encoder.revision,
            precision=self.encoder.precision,
            width=width,
            max_tokens=self.encoder.max_tokens,
            truncated=0.0 if pools else too_long / len(order),
            pooled=too_long if pools else 0,
            length_policy=self.config.long,
            descriptions=len(found.digests),
            texts=len(order),
            images=images,
            prompts=found.prompts,
            store=str(self.store.path.absolute()),
            plan=self.plan,
            gpt4image=__version__,
        )
        write_manifest(self.partial, manifest)


def batches(lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of batches of at most ``batch_tokens`` tokens, padding included."""
    start = 0
    for stop in range(1, len(lengths) + 1):
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
        if (self._encoder.revision, self._encoder.precision) != (revision, precision):
            raise ModelError(
                f"{spec}: a worker has other weights or another precision than the driver; rows of one table must be "
                "made alike. Run on machines of one kind, with the same weights, or give --device cpu."
            )

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        return self._encoder.encode(texts)
