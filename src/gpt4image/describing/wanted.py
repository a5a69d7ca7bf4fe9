"""What is wanted of every image and not in the store yet: whole answers, or the parts of them that are missing.

A description, a class and tags may have been asked for together or apart. A part that is there is not paid for again:
the prompt of an image asks for what it lacks. A class, boxes or tags of a list count as there if the list was the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from gpt4image.artifacts.store import ClassOption, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.describing.questions import CLASS, DESCRIPTION, MOST_OFFERED, TAGS, asking_for, tags_of_list

Settled = Mapping[str, frozenset[int]]
_NONE: frozenset[int] = frozenset()


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

    def known(base: Prompt, part: str, rejected: bool) -> Settled:
        """Return the samples that have a part, by digest."""
        found: Settled = {}
        for prompt in stored:
            if brings(prompt, part, base, ask, classes):
                found = _union(found, settled(prompt, rejected))
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
