"""A text encoder that learns with the model: it reads the descriptions themselves, where else their table is read.

The encoder starts where the table was made, so the first step sees the vectors of the table. Its dropout stays off: its
output is the target of the images as well as what is learned. Texts are tokenised one batch ahead by a thread, so that
no step waits for them. Long ones are cut or pooled as in the table.

It has an optimiser of its own: what suits an untrained network does not suit a trained one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable, find_digests
from gpt4image.base.errors import ModelError, TableError
from gpt4image.encoding.distinct_texts import read_descriptions
from gpt4image.encoding.text_encoders.long_texts import Chunks, chunked, whole
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower, single_or_double, to_device
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.encoding.text_encoders.tuning import How, make_trainable, save_tuned, trained_weights
from gpt4image.training.text_targets import TextTargets


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Where the texts of a table are, and what they were encoded with.

    Attributes:
        store: description store.
        stored: (M,) int64, row of the store of the text of each row of the table.
        encoder: SPEC of the encoder.
        pooled: whether long texts are pooled from chunks; they are cut without it.
    """

    store: Path
    stored: NDArray[np.int64]
    encoder: str
    pooled: bool

    @staticmethod
    def of(table: EmbeddingTable) -> TextSource:
        """Return the source of a table.

        Raises:
            ModelError: the encoder cannot be tuned.
            TableError: the store is gone or lacks texts, or the encoder is another one now.
        """
        return _source(table.path, table.manifest.plan)

    def load(self, device: str) -> NeuralEncoder:
        """Return the encoder. Raises ModelError where it has nothing to learn."""
        encoder = load_text_encoder(self.encoder, device)
        if not isinstance(encoder, NeuralEncoder):
            raise ModelError(f"--tune-text: {self.encoder} has nothing to learn; encode with another encoder first.")
        return encoder


@functools.lru_cache(maxsize=2)
def _source(path: Path, plan: str) -> TextSource:
    """Return the source of the table in a folder; kept, since a run asks for it each time it is built."""
    table = EmbeddingTable.open(path)
    manifest = table.manifest
    store, stored = stored_texts(table)
    pooled = manifest.length_policy == "pool"
    source = TextSource(store=store, stored=stored, encoder=manifest.encoder, pooled=pooled)
    if source.load("cpu").revision != manifest.revision:
        raise TableError(
            f"--tune-text: {path} was made by another version of {manifest.encoder} than the one here; encode into a "
            "new folder."
        )
    return source


def stored_texts(table: EmbeddingTable) -> tuple[Path, NDArray[np.int64]]:
    """Return the store of a table, and (M,) which row of it holds the text of each row of the table.

    Raises:
        TableError: the store is gone, or lacks texts of the table.
    """
    manifest, path = table.manifest, table.path
    if not manifest.store:
        raise TableError(
            f"--tune-text reads the texts themselves, and {path} was imported as numbers: import the descriptions "
            "(`gpt4image descriptions import`) and encode them."
        )
    store = Path(manifest.store)
    if not store.is_file():
        raise TableError(
            f"--tune-text reads the texts themselves, but {store}, the store that {path} was made from, is gone; "
            "bring it back, or encode another store."
        )
    with DescriptionStore(store) as descriptions:
        known = read_descriptions(descriptions, None)
    place = find_digests(known.texts, table.texts)
    if (place < 0).any():
        raise TableError(
            f"--tune-text: {int((place < 0).sum())} of {len(place)} texts of {path} are no longer in {store}; run "
            "`gpt4image encode` again."
        )
    return store, known.stored[place]


class TextBatch(NamedTuple):
    """The texts of a batch of B images: T texts in C chunks.

    Attributes:
        tokens: what the encoder reads for the C chunks.
        chunk_of_text: (T, C) float32, share of each chunk in its text.
        text_of_image: (B, T) float32, share of each text in the target of its image; zeros where there is none.
    """

    tokens: dict[str, Any]
    chunk_of_text: Tensor
    text_of_image: Tensor

    def to(self, device: torch.device) -> TextBatch:
        """Return the batch on a device."""
        return TextBatch(to_device(self.tokens, device), self.chunk_of_text.to(device), self.text_of_image.to(device))


class TextTower(nn.Module):
    """A text encoder with some weights that learn; the others are no part of its state.

    Args:
        source: names the encoder.
        how: ``lora`` or ``full``.
        rank: of LoRA.
        device: where it is trained.
    """

    def __init__(self, source: TextSource, how: How, rank: int, device: torch.device) -> None:
        super().__init__()
        encoder = source.load(device.type)
        self.source = source
        self.tower: Tower = encoder.load().to(device).eval()
        make_trainable(self.tower, how, rank)
        self._made_of: dict[str, Any] = {"spec": encoder.spec, "revision": encoder.revision, "how": how, "rank": rank}
        learned = trained_weights(self.tower)
        self.fixed = tuple(f"tower.{name}" for name in self.tower.state_dict() if name not in learned)
        self.register_state_dict_post_hook(_without_fixed)
        self.register_load_state_dict_post_hook(_fixed_may_be_missing)

    def train(self, mode: bool = True) -> TextTower:
        """Leave the encoder in evaluation mode: without dropout."""
        self.training = mode
        return self

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the (B, D) text targets of the images: means over their texts of vectors of unit length."""
        vectors = self.tower(batch.tokens)
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = normalize(single_or_double(vectors), dim=1)
            texts = normalize(batch.chunk_of_text.to(vectors) @ vectors, dim=1)
            return batch.text_of_image.to(texts) @ texts

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write what was learned; ``tuned:`` finds it again.

        Args:
            folder: where.
            state: the state of an ``Aligner`` with this tower as its ``texts``.
        """
        prefix = "texts.tower."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        save_tuned(folder, weights, **self._made_of)


def _without_fixed(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in module.fixed:
        state.pop(prefix + name, None)


def _fixed_may_be_missing(module: Any, incompatible: Any) -> None:
    missing: list[str] = incompatible.missing_keys
    missing[:] = [name for name in missing if not name.endswith(module.fixed)]


class TextReader:
    """Reads and tokenises the texts of batches, the next one while the last one is learned from."""

    def __init__(self, targets: TextTargets, tower: TextTower) -> None:
        """Remember whose texts to read, and for whom."""
        self._targets, self._source, self._tower = targets, tower.source, tower.tower
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="texts")
        self._ahead: dict[bytes, Future[_Read]] = {}

    def prepare(self, images: NDArray[np.int64]) -> None:
        """Begin to read the texts of a batch, (B,) positions of images."""
        if images.tobytes() not in self._ahead:
            self._ahead[images.tobytes()] = self._thread.submit(self._read, images)

    def take(self, images: NDArray[np.int64]) -> TextBatch:
        """Return the texts of a batch, (B,) positions of images, on the CPU."""
        self.prepare(images)
        read = self._ahead.pop(images.tobytes()).result()
        owner, rows = self._targets.texts_of(images)
        counts = np.bincount(owner, minlength=len(images))
        text_of_image = np.zeros((len(images), len(read.rows)), np.float32)
        np.add.at(text_of_image, (owner, np.searchsorted(read.rows, rows)), 1.0 / counts[owner])
        chunk_of_text = np.zeros((len(read.rows), len(read.chunks.owner)), np.float32)
        chunk_of_text[read.chunks.owner, np.arange(len(read.chunks.owner))] = read.chunks.weight
        return TextBatch(
            tokens=read.tokens,
            chunk_of_text=torch.from_numpy(chunk_of_text),
            text_of_image=torch.from_numpy(text_of_image),
        )

    def _read(self, images: NDArray[np.int64]) -> _Read:
        rows = np.unique(self._targets.texts_of(images)[1])
        texts = ["a"]  # nobody's, for a batch without descriptions: of "" a decoder's tokenizer may leave no token
        if len(rows):
            with DescriptionStore(self._source.store) as store:
                texts = store.texts_at(self._source.stored[rows].tolist())
        chunks = whole(texts)
        if self._source.pooled:
            lengths = self._tower.token_lengths(texts)
            chunks = chunked(texts, lengths, self._tower.max_tokens, self._tower.token_lengths)
        return _Read(rows if len(rows) else np.array([-1]), chunks, self._tower.tokenize(chunks.texts))


class _Read(NamedTuple):
    """All texts of the images of a batch: their rows of the table, ascending, their chunks, and the tokens of those."""

    rows: NDArray[np.int64]
    chunks: Chunks
    tokens: dict[str, Any]
