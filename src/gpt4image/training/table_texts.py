"""The texts of an embedding table, in the store that it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable, find_digests
from gpt4image.base.errors import TableError
from gpt4image.encoding.distinct_texts import read_descriptions


def stored_texts(table: EmbeddingTable, option: str) -> tuple[Path, NDArray[np.int64]]:
    """Return the store of a table, and (M,) which row of it holds the text of each row of the table.

    Args:
        table: embedding table.
        option: what reads the texts, for messages.

    Raises:
        TableError: the store is gone, or lacks texts of the table.
    """
    manifest, path = table.manifest, table.path
    if not manifest.store:
        raise TableError(
            f"{option} reads the texts themselves, and {path} was imported as numbers: import the descriptions "
            "(`gpt4image descriptions import`) and encode them."
        )
    store = Path(manifest.store)
    if not store.is_file():
        raise TableError(
            f"{option} reads the texts themselves, but {store}, the store that {path} was made from, is gone; bring it "
            "back, or encode another store."
        )
    with DescriptionStore(store) as descriptions:
        known = read_descriptions(descriptions, None)
    place = find_digests(known.texts, table.texts)
    if (place < 0).any():
        raise TableError(
            f"{option}: {int((place < 0).sum())} of {len(place)} texts of {path} are no longer in {store}; run "
            "`gpt4image encode` again."
        )
    return store, known.stored[place]
