"""The likely classes of an image out of very many: those whose names are nearest to its description."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.store import ClassOption, DescriptionStore, Prompt, canonical_json
from gpt4image.describing.class_lists import readable
from gpt4image.describing.questions import LIKELY_CLASSES, asking_for
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT

_TEXTS_AT_ONCE = 256


class _Likely(Mapping[str, Sequence[str]]):
    """Likely classes by digest. Of a million images, numbers are kept and not tuples of names."""

    def __init__(self, digests: Collection[str], names: Sequence[str]) -> None:
        self._names, self._place = names, {digest: place for place, digest in enumerate(digests)}
        self._numbers: NDArray[Any] = np.full((len(digests), min(LIKELY_CLASSES, len(names))), -1, np.int32)

    def put(self, digest: str, numbers: NDArray[Any]) -> None:
        """Keep those of an image, unless it has some."""
        own = self._numbers[self._place[digest]]
        if own[0] < 0:
            own[:] = numbers

    def __getitem__(self, digest: str) -> Sequence[str]:
        numbers: NDArray[Any] = self._numbers[self._place[digest]]
        if numbers[0] < 0:
            raise KeyError(digest)
        chosen: list[int] = numbers.tolist()
        return tuple(self._names[number] for number in chosen)

    def __iter__(self) -> Iterator[str]:
        return (digest for digest, place in self._place.items() if self._numbers[place, 0] >= 0)

    def __len__(self) -> int:
        return int((self._numbers[:, 0] >= 0).sum())


def likely_classes(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    prompt: Prompt,
    classes: Sequence[ClassOption],
    digests: Collection[str],
) -> Mapping[str, Sequence[str]]:
    """Return the likely classes of each image that this describer described, by the text encoder MiniLM."""
    from gpt4image.encoding.text_encoders.registry import load_text_encoder

    described = (
        (row.digest, row.text)
        for row in store.descriptions(prompt_name=prompt.name, digests=sorted(digests))
        if row.text is not None
        and row.prompt == asking_for(prompt, row.prompt.ask, row.prompt.classes)
        and canonical_json(row.describer) == canonical_json(settings)
    )
    encoder = load_text_encoder("minilm")
    names = [
        CLASS_NAME_PROMPT.format(readable(name)) + (definition and f": {definition}") for name, definition in classes
    ]
    vectors = np.concatenate(
        [encoder.encode(names[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(names), _TEXTS_AT_ONCE)]
    )
    found = _Likely(digests, [name for name, _ in classes])
    while batch := list(itertools.islice(described, _TEXTS_AT_ONCE)):
        nearest = np.argsort(-(encoder.encode([text for _, text in batch]) @ vectors.T), axis=1, kind="stable")
        for (digest, _), order in zip(batch, nearest[:, :LIKELY_CLASSES], strict=True):
            found.put(digest, order)
    return found
