"""A text encoder that learns with the model: it reads the descriptions themselves instead of their frozen vectors.

The encoder starts where the table was made, so the first step sees the vectors of the table. Its dropout stays off: its
output is the target of the images as well as what is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from gpt4image.encoding.encode import read_descriptions
from gpt4image.encoding.text_encoders.long_texts import chunked, whole
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, single_or_double, to_device
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.encoding.text_encoders.tuning import How, Made, make_trainable, save_tuned, trained_weights
from gpt4image.training.training_data import TextTargets


def stored_texts(table: EmbeddingTable) -> tuple[Path, NDArray[np.int64]]:
    """Return the store of a table, and (M,) which row of it holds the text of each row of the table."""
    store = Path(table.manifest.store)
    if not table.manifest.store or not store.is_file():
        raise TableError(
            f"--tune-text reads the texts themselves, and the store that {table.path} was made of is gone."
        )
    with DescriptionStore(store) as descriptions:
        known = read_descriptions(descriptions, None)
    place = find_digests(known.texts, table.texts)
    if (place < 0).any():
        raise TableError(f"--tune-text: {store} lacks texts of {table.path}; run `gpt4image encode` again.")
    return store, known.stored[place]


class TextBatch(NamedTuple):
    """The texts of a batch of B images: T texts in C chunks."""

    tokens: dict[str, Any]  # what the encoder reads for the C chunks
    chunk_of_text: Tensor  # (T, C) float32, share of each chunk in its text
    text_of_image: Tensor  # (B, T) float32, share of each text in the target of its image; zeros where there is none


class TextTower(nn.Module):
    """A text encoder with some weights that learn; the others are no part of its state."""

    def __init__(self, targets: TextTargets, table: EmbeddingTable, how: How, device: torch.device) -> None:
        super().__init__()
        manifest, path = table.manifest, table.path
        self._store, self._stored = stored_texts(table)
        encoder = load_text_encoder(manifest.encoder, device.type)
        if not isinstance(encoder, NeuralEncoder):
            raise ModelError(f"--tune-text: {manifest.encoder} has nothing to learn; encode with another encoder.")
        if encoder.revision != manifest.revision:
            raise TableError(f"--tune-text: {path} was made by another version of {manifest.encoder}; encode again.")
        self._targets, self._pools = targets, manifest.length_policy == "pool"
        self.made = Made(encoder=encoder.spec, revision=encoder.revision, how=how)
        tower = encoder.load().to(device).eval()
        make_trainable(tower, how, self.made.rank)
        self._tower = [tower]  # no child: its other weights are no part of the state, and dropout stays off
        self.learned = nn.ParameterDict({_key(name): weight for name, weight in trained_weights(tower).items()})

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the (B, D) text targets of the images: means over their texts of vectors of unit length."""
        vectors = self._tower[0](batch.tokens)
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = normalize(single_or_double(vectors), dim=1)
            texts = normalize(batch.chunk_of_text.to(vectors) @ vectors, dim=1)
            return batch.text_of_image.to(texts) @ texts

    def read(self, images: NDArray[np.int64], device: torch.device) -> TextBatch:
        """Return the texts of a batch, (B,) positions of images; long ones are cut or pooled as in the table."""
        owner, rows = self._targets.texts_of(images)
        distinct, texts = np.unique(rows), ["a"]  # nobody's, for a batch without texts: of "" no token may be left
        if len(rows):
            with DescriptionStore(self._store) as store:
                texts = store.texts_at(self._stored[distinct].tolist())
        tower, count = self._tower[0], self._tower[0].token_lengths
        chunks = chunked(texts, count(texts), tower.max_tokens, count) if self._pools else whole(texts)
        text_of_image = np.zeros((len(images), len(texts)), np.float32)
        np.add.at(text_of_image, (owner, np.searchsorted(distinct, rows)), 1.0 / np.bincount(owner)[owner])
        chunk_of_text = np.zeros((len(texts), len(chunks.owner)), np.float32)
        chunk_of_text[chunks.owner, np.arange(len(chunks.owner))] = chunks.weight
        shares = (torch.from_numpy(part).to(device) for part in (chunk_of_text, text_of_image))
        return TextBatch(to_device(tower.tokenize(chunks.texts), device), *shares)

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write what was learned; ``state`` is that of an ``Aligner`` with this tower as its ``texts``."""
        names = trained_weights(self._tower[0])
        save_tuned(folder, {name: state[f"texts.learned.{_key(name)}"] for name in names}, self.made)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ParameterDict takes no dot
