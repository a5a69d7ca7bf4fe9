"""The texts behind a table are found in its store, in the order of its rows."""

from __future__ import annotations

from typing import Any

from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable, text_digest
from gpt4image.training.text_tower import stored_texts


def test_each_row_of_the_table_has_its_text(worded: dict[str, Any]) -> None:
    table = EmbeddingTable.open(worded["embeddings"])
    path, rows = stored_texts(table)
    with DescriptionStore(path) as store:
        texts = store.texts_at(rows.tolist())
    assert [text_digest(text) for text in texts] == [row.tobytes() for row in table.texts]
