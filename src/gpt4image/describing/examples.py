"""Examples: small labelled training pictures that every question begins with, the same bytes for all of them.

Servers keep such a beginning, so it costs little from the second call on. An image that is itself an example is asked
about without it. Its label has still shaped the other answers, so the store notes which images were examples, and
``StoredAnswer.was_example`` says that an answer is no evidence of how good the describer is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gpt4image.artifacts.store import ClassOption
from gpt4image.base.errors import ConfigError, DecodeError, first_few
from gpt4image.base.progress import say
from gpt4image.data import Dataset
from gpt4image.describing.class_lists import ClassNames, readable
from gpt4image.describing.describers.base import Example
from gpt4image.describing.describers.images import bounded, data_url

MOST, SIDE = 300, 192
"""Maximum examples of a question, and the longer side of each in pixels."""


def choose_examples(
    dataset: Dataset, classes: Sequence[ClassOption], per_class: int, earlier: Iterable[Mapping[str, str]]
) -> list[Example]:
    """Return ``per_class`` labelled training pictures of each class that has some, always the same ones.

    Args:
        dataset: all its splits.
        classes: what the describer chooses from.
        per_class: number of pictures per class.
        earlier: classes by digest of the examples of earlier runs. They stay if all of them still hold, so that new
            labels do not make every answer worthless. Raises ConfigError.
    """
    names, label_of, row_of = ClassNames(option.name for option in classes), dict[str, str](), dict[str, int]()
    for row in np.flatnonzero((dataset.splits == "train") & dataset.labelled).tolist():
        digest, name = dataset.digests[row], names.find(dataset.label_names(row)[0])
        row_of[digest] = row
        label_of[digest] = name if name is not None and label_of.get(digest, name) == name else ""
    known = {digest: name for digest, name in label_of.items() if name}
    if per_class * len(set(known.values())) > MOST:
        raise ConfigError(
            f"--examples {per_class}: {per_class * len(set(known.values())):,} pictures would go with every question, "
            f"and {MOST} is the maximum; give fewer, or leave it out."
        )
    for pairs in earlier:
        counts = Counter(pairs.values())
        if pairs.items() <= known.items() and {*counts} == {*known.values()} and max(counts.values()) == per_class:
            known = dict(pairs)
            break
    found, taken = list[Example](), Counter[str]()
    for digest, name in sorted(known.items(), key=lambda pair: pair[0][16:32]):  # as if shuffled
        if taken[name] < per_class:
            try:
                found.append(Example(digest, name, data_url(bounded(dataset.read(row_of[digest]), SIDE), "jpeg")))
            except (DecodeError, OSError):
                continue
            taken[name] += 1
    if not found:
        raise ConfigError("--examples needs labelled training images, and there is none; label a few, or leave it out.")
    if without := [option.name for option in classes if not taken[option.name]]:
        say(f"--examples: no labelled training image of {first_few(map(readable, without))}, so no example of it.")
    return found
