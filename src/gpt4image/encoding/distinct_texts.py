"""The descriptions of a store with each distinct text once, and the row of each text in the store."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.artifacts.table import text_digest
from gpt4image.base.files import fingerprint


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
