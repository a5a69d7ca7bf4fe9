"""What is wanted of every image and not in the store yet: whole answers, or the parts of them that are missing.

A description, a class and tags may have been asked for together or apart. A part that is there is not paid for again:
the prompt of an image asks for what it lacks. A class, boxes or tags of a list count as there if the list was the same.

An answer that chose from a shorter list stays valid under the longer one, unless the image may be of an added class:

- it was of no class of the list, or its class was stated with a confidence below SURE;
- or its description contains the name of an added class, or is nearer to this name (and definition) than to the class
  that was answered, by the text encoder MiniLM.

Where an answer has neither a confidence nor a description, nothing speaks against the added class: it is asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gpt4image.artifacts.store import ClassOption, DescriptionStore, Prompt, StoredAnswer, canonical_json
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.describing.class_lists import readable
from gpt4image.describing.questions import CLASS, DESCRIPTION, MOST_OFFERED, TAGS, asking_for, tags_of_list
from gpt4image.encoding.class_names import CLASS_NAME_PROMPT

Settled = Mapping[str, frozenset[int]]
_NONE: frozenset[int] = frozenset()
SURE = 0.9
"""Stated confidence from which on the description decides."""
_TEXTS_AT_ONCE = 256


@dataclass
class Wanted:
    """What one step of a run asks for, as prompts that each ask for some parts.

    Attributes:
        there: for each prompt, the samples that it need not ask for, by digest, as their answers are good.
        settled: the same with rejected answers, unless they are asked for again.
        done: number of samples that have everything.
    """

    prompts: list[Prompt] = field(default_factory=list[Prompt])
    there: list[Settled] = field(default_factory=list[Settled])
    settled: list[Settled] = field(default_factory=list[Settled])
    done: int = 0


def steps_of(ask: Sequence[str], classes: Sequence[ClassOption]) -> list[tuple[str, ...]]:
    """Return what to ask for in which order: of many classes, the likely ones are chosen by the description."""
    if CLASS not in ask or len(classes) <= MOST_OFFERED:
        return [tuple(ask)]
    return [(DESCRIPTION, *(part for part in ask if part not in (DESCRIPTION, CLASS))), (CLASS,)]


def find_wanted(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    bases: Sequence[Prompt],
    ask: tuple[str, ...],
    classes: Sequence[ClassOption],
    *,
    digests: Collection[str],
    samples: frozenset[int],
    retry_rejected: bool,
) -> Wanted:
    """Return what a describer with these settings is still to be asked, in ``samples`` about each of ``digests``."""
    wanted = Wanted()
    stored = store.prompts()

    @cache
    def settled(prompt: Prompt, rejected: bool) -> Settled:
        found = store.settled(prompt, settings, rejected=rejected)
        found = {digest: both for digest, own in found.items() if (both := own & samples)}
        return _union(settled(prompt, False), found) if rejected else found

    @cache
    def doubtful(prompt: Prompt) -> Settled:
        """Return the answers that the classes added since put in doubt."""
        return _may_be_added(store, settings, prompt, classes, digests)

    def known(base: Prompt, part: str, rejected: bool) -> Settled:
        """Return the samples that have a part, by digest."""
        found: Settled = {}
        for prompt in stored:
            if brings(prompt, part, base, ask, classes):
                found = _union(found, settled(prompt, rejected))
            elif part == CLASS and is_shorter(prompt, classes):
                found = _union(found, minus(settled(prompt, rejected), doubtful(prompt)))
        return found

    for base in bases:
        good = [known(base, part, False) for part in ask]
        all_ = good if retry_rejected else [known(base, part, True) for part in ask]
        _add(wanted, base, ask, classes, (good, all_), (digests, samples))
    return wanted


def refuse_to_pay_again(
    coming: Sequence[Settled], there: Sequence[Settled], digests: Collection[str], batches: Sequence[str]
) -> None:
    """Raise ConfigError where answers about some of the images are on their way in batches."""
    count = sum(
        len(samples - good.get(digest, _NONE))
        for own, good in zip(coming, there, strict=True)
        for digest, samples in own.items()
        if digest in digests
    )
    if count:
        raise ConfigError(
            f"{count:,} answers that are wanted here are on their way through the Batch API, in {first_few(batches)}, "
            f"and calls would pay for them a second time. Give --batch, without --dry-run, to collect them. To give "
            f"them up, cancel at the server what still runs, then give --batch once more: it keeps what was done by "
            f"then, and the others may be asked without it."
        )


def refuse_to_pay_for_parts(
    coming: Sequence[Settled],
    batches: Sequence[str],
    settled: Sequence[Settled],
    digests: Collection[str],
    samples: frozenset[int],
) -> None:
    """Raise ConfigError where batches that asked for other parts too bring some of what is still wanted."""
    sent = {digest for own in coming for digest in own if digest in digests}
    count = sum(any(samples - own.get(digest, _NONE) for own in settled) for digest in sent)
    if count:
        raise ConfigError(
            f"{count:,} images are with the Batch API, in {first_few(batches)}, which was asked for other parts of an "
            "answer, some of them wanted here: they would be paid for twice. Collect them first, with --batch and the "
            "same --ask, --classes and --prompt as then."
        )


def minus(settled: Settled, others: Settled) -> Settled:
    """Return the samples that only the first has, by digest."""
    if settled is others:
        return {}
    left = {digest: samples - others.get(digest, _NONE) for digest, samples in settled.items()}
    return {digest: samples for digest, samples in left.items() if samples}


def _union(some: Settled, others: Settled) -> Settled:
    """Return the samples of both, by digest; of very many images, nothing is copied where one has none."""
    if not some or not others:
        return some or others
    return {**some, **{digest: own | some.get(digest, _NONE) for digest, own in others.items()}}


def brings(prompt: Prompt, part: str, base: Prompt, ask: Sequence[str], classes: Sequence[ClassOption]) -> bool:
    """Return whether an answer to a prompt has a part of ``ask`` as it is asked for now, by ``base`` and the list."""
    if part not in prompt.ask:
        return False
    if part == DESCRIPTION:
        return prompt == asking_for(base, prompt.ask, prompt.classes)
    if part == TAGS and not tags_of_list(ask, classes):
        return not tags_of_list(prompt.ask, prompt.classes)
    return prompt.classes == tuple(classes) and (part != TAGS or tags_of_list(prompt.ask, prompt.classes))


def _add(
    wanted: Wanted,
    base: Prompt,
    ask: tuple[str, ...],
    classes: Sequence[ClassOption],
    known: tuple[list[Settled], list[Settled]],
    among: tuple[Collection[str], frozenset[int]],
) -> None:
    digests, samples = among
    good, all_ = known
    if len(ask) == 1:  # the common case, also of very many images
        wanted.prompts.append(asking_for(base, ask, classes))
        wanted.there.append(good[0])
        wanted.settled.append(all_[0])
        wanted.done += sum(len(own) for digest, own in good[0].items() if digest in digests)
        return
    missing = [
        [_missing(ask, samples, *(own.get(digest, _NONE) for own in view)) for digest in digests] for view in known
    ]
    variants = {parts for view in missing for own in view for parts in own if parts} or {ask}
    for parts in sorted(variants, key=len, reverse=True):
        # Tags alone are words where they are so beside a class.
        words = tags_of_list(parts, classes) and not tags_of_list(ask, classes)
        wanted.prompts.append(asking_for(base, parts, () if words else classes))
        for target, view in zip((wanted.there, wanted.settled), missing, strict=True):
            target.append({d: samples - own.get(parts, _NONE) for d, own in zip(digests, view, strict=True)})
    wanted.done += sum(len(own.get((), _NONE)) for own in missing[0])


@lru_cache(maxsize=4096)
def _missing(
    ask: tuple[str, ...], samples: frozenset[int], *there: frozenset[int]
) -> Mapping[tuple[str, ...], frozenset[int]]:
    """Return the samples by the parts that they lack, given the samples that have each part."""
    lacks = {
        sample: tuple(part for part, own in zip(ask, there, strict=True) if sample not in own) for sample in samples
    }
    return {parts: frozenset(s for s in samples if lacks[s] == parts) for parts in set(lacks.values())}


def is_shorter(prompt: Prompt, classes: Sequence[ClassOption]) -> bool:
    """Return whether a prompt offered some of the classes, with the same definitions, and no others."""
    return CLASS in prompt.ask and len(prompt.classes) < len(classes) and set(prompt.classes) < set(classes)


def _may_be_added(
    store: DescriptionStore,
    settings: Mapping[str, Any],
    prompt: Prompt,
    classes: Sequence[ClassOption],
    digests: Collection[str],
) -> dict[str, frozenset[int]]:
    """Return the samples of answers to a prompt with a shorter list that the added classes put in doubt, by digest."""
    ours, doubtful = canonical_json(settings), dict[str, frozenset[int]]()
    sure: dict[str, list[StoredAnswer]] = {}
    for item in store.answers():
        if item.prompt == prompt and item.digest in digests and canonical_json(item.describer) == ours:
            if _is_sure(item):
                sure.setdefault(item.digest, []).append(item)
            else:
                doubtful[item.digest] = doubtful.get(item.digest, _NONE) | {item.sample}
    nearer = _nearer(store, ours, classes, prompt, sure) if sure else {}
    for digest, items in sure.items():
        for item in items:
            stated = item.answer.confidence is not None or item.answer.probability is not None
            if nearer.get((digest, item.answer.class_name), not stated):
                doubtful[digest] = doubtful.get(digest, _NONE) | {item.sample}
    return doubtful


def _is_sure(item: StoredAnswer) -> bool:
    answer = item.answer
    stated = answer.confidence if answer.confidence is not None else answer.probability
    return answer.class_name is not None and (stated is None or stated >= SURE)


def _nearer(
    store: DescriptionStore,
    ours: str,
    classes: Sequence[ClassOption],
    prompt: Prompt,
    sure: Mapping[str, Sequence[StoredAnswer]],
) -> dict[tuple[str, str | None], bool]:
    """Return by digest and answered class whether a description is nearer to an added class."""
    from gpt4image.encoding.text_encoders.registry import load_text_encoder

    encoder = load_text_encoder("minilm")
    names = [CLASS_NAME_PROMPT.format(readable(name)) + (told and f": {told}") for name, told in classes]
    vectors = np.concatenate([encoder.encode(part) for part in _parts(names)])
    place = {option.name: number for number, option in enumerate(classes)}
    added = np.array([number for number, option in enumerate(classes) if option not in prompt.classes])
    words = [_squeezed(classes[number].name) for number in added]
    described = (
        (row.digest, row.text)
        for row in store.descriptions(digests=sorted(sure))
        if row.text and canonical_json(row.describer) == ours
    )
    found: dict[tuple[str, str | None], bool] = {}
    while batch := list(itertools.islice(described, _TEXTS_AT_ONCE)):
        likeness = encoder.encode([text for _, text in batch]) @ vectors.T
        for (digest, text), row in zip(batch, likeness, strict=True):
            is_named = any(word in _squeezed(text) for word in words)
            for name in {item.answer.class_name for item in sure[digest]}:
                is_nearer = is_named or bool(row[added].max() > row[place[name or ""]])
                found[digest, name] = found.get((digest, name), False) or is_nearer
    return found


def _squeezed(text: str) -> str:
    """Return the letters and digits of a text: a long-sleeve is a long sleeve and a longsleeve."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
