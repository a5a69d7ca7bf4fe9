"""The likely classes of an image out of very many: those whose names are nearest to its description."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gpt4image.artifacts.store import ClassOption, DescriptionStore, Prompt, canonical_json
from gpt4image.describing.class_lists import readable
from gpt4image.describing.questions import LIKELY_CLASSES, asking_for
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT

_TEXTS_AT_ONCE = 256


def likely_classes(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    prompt: Prompt,
    classes: Sequence[ClassOption],
    digests: Collection[str],
) -> dict[str, tuple[str, ...]]:
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
    found: dict[str, tuple[str, ...]] = {}
    while batch := list(itertools.islice(described, _TEXTS_AT_ONCE)):
        nearest = np.argsort(-(encoder.encode([text for _, text in batch]) @ vectors.T), axis=1, kind="stable")
        for (digest, _), order in zip(batch, nearest[:, :LIKELY_CLASSES].tolist(), strict=True):
            found.setdefault(digest, tuple(classes[place].name for place in order))
    return found
