"""What is missing: for each image and sample, the parts of an answer that no stored answer brings.

A description, a class and tags may have been asked for together or apart. A part that is there is not paid for again:
an image is only asked for what it lacks. A class, boxes or tags of a list count as there if the list was the same.

An answer that chose from a shorter list stays valid under the longer one, unless the image may be of an added class:

- it was of no class of the list, or its class was stated with a confidence below SURE;
- or its description contains the name of an added class, or is nearer to this name (and definition) than to the class
  that was answered, by the text encoder MiniLM.

Where an answer has neither a confidence nor a description, nothing speaks against the added class: it is asked again.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.artifacts.store import ClassOption, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import from_csv_cell
from gpt4image.config.base import listed
from gpt4image.config.describing import AskedOptions
from gpt4image.data import Dataset, load_with_splits
from gpt4image.describing.class_lists import readable
from gpt4image.describing.questions import CLASS, DESCRIPTION, TAGS, asking_for, tags_of_list
from gpt4image.describing.rows import SYNONYMS
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT

Samples = Mapping[str, frozenset[int]]
"""Numbers of samples by digest."""
NO_SAMPLES: frozenset[int] = frozenset()
SURE = 0.9
"""Stated confidence from which on the description decides."""
_TEXTS_AT_ONCE = 256


def asked_images(options: AskedOptions, spec: str) -> tuple[Dataset, Dataset]:
    """Return a dataset with all its splits, and the images of those that are asked about.

    Raises:
        ConfigError: there are none.
        DataError: the dataset cannot be read.
    """
    dataset = load_with_splits(spec, val_fraction=options.val_fraction, test_fraction=options.test_fraction)
    chosen = np.flatnonzero(np.isin(dataset.splits, listed(options.splits)))
    if not len(chosen):
        names, counts = np.unique(dataset.splits, return_counts=True)
        there = ", ".join(f"{count:,} of {name}" for name, count in zip(names, counts, strict=True))
        raise ConfigError(
            f"--splits {options.splits}: {spec} has no image of it, only {there}; give --splits {','.join(names)}."
        )
    return dataset, dataset if len(chosen) == len(dataset) else dataset.select(chosen)


def chosen_images(images: Dataset, path: Path) -> tuple[Dataset, list[Skipped]]:
    """Return the images that rows of a CSV file name, with all their copies, and the rows of no image.

    A row names its image by ``digest``, otherwise by ``key``; other columns are ignored.

    Raises:
        ConfigError: the file cannot be read, has neither column, or names no image of the dataset.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            usual = [SYNONYMS.get(name, name) for name in reader.fieldnames or ()]
            reader.fieldnames = usual
            rows = [{name: from_csv_cell(row.get(name) or "") for name in ("digest", "key")} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--only {path}: cannot be read as CSV in UTF-8 ({error}).") from None
    if not {"digest", "key"} & set(usual):
        raise ConfigError(f"--only {path}: there is no column key or digest, only {', '.join(usual)}; rename one.")
    digest_of, known = dict(zip(images.keys, images.digests, strict=True)), set(images.digests)
    found = [row["digest"].lower() if row["digest"].lower() in known else digest_of.get(row["key"]) for row in rows]
    if not (chosen := {digest for digest in found if digest is not None}):
        raise ConfigError(
            f"--only {path}: none of its {len(rows):,} rows names an image of {images.spec}, whose keys look like "
            f"{first_few(images.keys[:3])}; write these into a column key."
        )
    unknown = [
        Skipped(name=row["key"] or row["digest"] or f"{path.name}, row {number}", reason=f"no such image; see {path}")
        for number, (row, digest) in enumerate(zip(rows, found, strict=True), start=1)
        if digest is None
    ]
    return images.select(np.array([i for i, digest in enumerate(images.digests) if digest in chosen])), unknown


@dataclass
class Missing:
    """What one prompt is still to be asked.

    Attributes:
        lacking: samples without a good answer, by digest.
        wanted: those of them to ask for: without rejected ones, unless these are asked for again.
    """

    prompt: Prompt
    lacking: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    wanted: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])


def find_missing(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    bases: Sequence[Prompt],
    ask: tuple[str, ...],
    classes: Sequence[ClassOption],
    *,
    digests: Collection[str],
    samples: frozenset[int],
    retry_rejected: bool,
) -> tuple[list[Missing], int]:
    """Return what a describer with these settings is still to be asked about images, and how many samples have all."""
    stored = store.prompts()

    @cache
    def settled(prompt: Prompt, rejected: bool) -> Samples:
        good = store.settled(prompt, settings)
        return _union(good, store.settled(prompt, settings, rejected=True)) if rejected else good

    @cache
    def doubtful(prompt: Prompt) -> Samples:
        return _may_be_added(store, settings, prompt, classes, digests)

    def there(base: Prompt, part: str, rejected: bool) -> Samples:
        found: Samples = {}
        for prompt in stored:
            if brings(prompt, part, base, ask, classes):
                found = _union(found, settled(prompt, rejected))
            elif part == CLASS and is_shorter(prompt, classes):
                found = _union(found, _minus(settled(prompt, rejected), doubtful(prompt)))
        return found

    missing, done = list[Missing](), 0
    for base in bases:
        good = [there(base, part, False) for part in ask]
        known = good if retry_rejected else [there(base, part, True) for part in ask]
        of_parts = dict[tuple[str, ...], Missing]()
        for digest in digests:
            lacking, wanted = (
                _lacking(ask, samples, *(own.get(digest, NO_SAMPLES) for own in view)) for view in (good, known)
            )
            done += len(lacking.get((), NO_SAMPLES))
            for parts in {*lacking, *wanted} - {()}:
                one = of_parts.get(parts) or of_parts.setdefault(parts, Missing(_asking_for(base, parts, ask, classes)))
                one.lacking |= {digest: lacking[parts]} if parts in lacking else {}
                one.wanted |= {digest: wanted[parts]} if parts in wanted else {}
        missing += [of_parts[parts] for parts in sorted(of_parts, key=len, reverse=True)]
        if not of_parts:
            missing.append(Missing(_asking_for(base, ask, ask, classes)))
    return missing, done


@lru_cache(maxsize=4096)
def _lacking(
    ask: tuple[str, ...], samples: frozenset[int], *there: frozenset[int]
) -> Mapping[tuple[str, ...], frozenset[int]]:
    """Return the samples by the parts that they lack, given the samples that have each part."""
    lacks = {
        sample: tuple(part for part, own in zip(ask, there, strict=True) if sample not in own) for sample in samples
    }
    return {parts: frozenset(s for s in samples if lacks[s] == parts) for parts in set(lacks.values())}


def _asking_for(base: Prompt, parts: tuple[str, ...], ask: Sequence[str], classes: Sequence[ClassOption]) -> Prompt:
    # Tags alone are words where they are so beside a class.
    words = tags_of_list(parts, classes) and not tags_of_list(ask, classes)
    return asking_for(base, parts, () if words else classes)


def brings(prompt: Prompt, part: str, base: Prompt, ask: Sequence[str], classes: Sequence[ClassOption]) -> bool:
    """Return whether an answer to a prompt has a part of ``ask`` as it is asked for now, by ``base`` and the list."""
    if part not in prompt.ask:
        return False
    if part == DESCRIPTION:
        return prompt == asking_for(base, prompt.ask, prompt.classes)
    if part == TAGS and not tags_of_list(ask, classes):
        return not tags_of_list(prompt.ask, prompt.classes)
    return prompt.classes == tuple(classes) and (part != TAGS or tags_of_list(prompt.ask, prompt.classes))


def is_shorter(prompt: Prompt, classes: Sequence[ClassOption]) -> bool:
    """Return whether a prompt offered some of the classes, with the same definitions, and no others."""
    return CLASS in prompt.ask and len(prompt.classes) < len(classes) and set(prompt.classes) < set(classes)


def _union(some: Samples, others: Samples) -> Samples:
    """Return the samples of both; of very many images, nothing is copied where one has none."""
    if not some or not others:
        return some or others
    return {**some, **{digest: own | some.get(digest, NO_SAMPLES) for digest, own in others.items()}}


def _minus(some: Samples, others: Samples) -> Samples:
    left = {digest: samples - others.get(digest, NO_SAMPLES) for digest, samples in some.items()}
    return {digest: samples for digest, samples in left.items() if samples}


def _may_be_added(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    prompt: Prompt,
    classes: Sequence[ClassOption],
    digests: Collection[str],
) -> Samples:
    """Return the samples of answers to a prompt with a shorter list that the added classes put in doubt, by digest."""
    answers = dict[str, list[tuple[int, str | None, float | None]]]()
    for item in store.answers(describer=settings):
        if item.prompt == prompt and item.digest in digests:
            name, stated = item.answer.class_name, item.answer.confidence
            stated = item.answer.probability if stated is None else stated
            unsure = stated is not None and stated < SURE
            answers.setdefault(item.digest, []).append((item.sample, None if unsure else name, stated))
    sure = {digest: {name for _, name, _ in own if name is not None} for digest, own in answers.items()}
    nearer = _nearer(store, settings, classes, prompt, {digest: names for digest, names in sure.items() if names})
    doubtful = {
        digest: frozenset(
            sample
            for sample, name, stated in own
            if name is None or nearer.get((digest, name), stated is None)  # without a description
        )
        for digest, own in answers.items()
    }
    return {digest: samples for digest, samples in doubtful.items() if samples}


def _nearer(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    classes: Sequence[ClassOption],
    prompt: Prompt,
    answered: Mapping[str, Collection[str]],
) -> dict[tuple[str, str], bool]:
    """Return by digest and ``answered`` class whether a description is nearer to an added class."""
    from gpt4image.encoding.text_encoders.registry import load_text_encoder

    if not answered:
        return {}
    encoder = load_text_encoder("minilm")
    names = [CLASS_NAME_PROMPT.format(readable(name)) + (told and f": {told}") for name, told in classes]
    parts = [names[start : start + _TEXTS_AT_ONCE] for start in range(0, len(names), _TEXTS_AT_ONCE)]
    vectors = np.concatenate([encoder.encode(part) for part in parts])
    place = {option.name: number for number, option in enumerate(classes)}
    added = [number for number, option in enumerate(classes) if option not in prompt.classes]
    words = [_squeezed(classes[number].name) for number in added]
    rows = store.descriptions(digests=sorted(answered), describer=settings)
    described = ((row.digest, row.text) for row in rows if row.text)
    found: dict[tuple[str, str], bool] = {}
    while batch := list(itertools.islice(described, _TEXTS_AT_ONCE)):
        likeness = encoder.encode([text for _, text in batch]) @ vectors.T
        for (digest, text), row in zip(batch, likeness, strict=True):
            is_named = any(word in _squeezed(text) for word in words)
            for name in answered[digest]:
                is_nearer = is_named or bool(row[added].max() > row[place[name]])
                found[digest, name] = found.get((digest, name), False) or is_nearer
    return found


def _squeezed(text: str) -> str:
    """Return the letters and digits of a text: a long-sleeve is a long sleeve and a longsleeve."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())
