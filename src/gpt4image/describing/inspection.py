"""The stage ``inspect``: what is in a store, how it fits a dataset, and a page of images with all their answers.

Counting takes a few hundred bytes of memory per result, whatever the length of the texts.
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpt4image.artifacts.answers import CLASS, KINDS, NONE_OF_THESE, describer_name, text_for
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt, canonical_json
from gpt4image.artifacts.table import text_digest
from gpt4image.base.errors import ConfigError, StoreError, first_few, nearest
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import visible
from gpt4image.config import Flaw, InspectConfig
from gpt4image.config.results import InspectResult
from gpt4image.data import Dataset
from gpt4image.describing.answer_json import flaws
from gpt4image.describing.asking import asked_images
from gpt4image.describing.boxes import box_facts
from gpt4image.pages.cards import PICTURE, Thumbnails, mark
from gpt4image.pages.numbers import one_line, text_table
from gpt4image.pages.page import render

_SUMS = ("tokens_in", "tokens_out", "cost_usd")
_NAMED = ("texts_of_several_images", "conflicting_images", "answers_outside_list")
_KINDS = ("descriptions", "answers", "rejected", "no_answer")
_REASONS, _CLASSES, _NAMES, _LETTERS, _BOXES = 5, 100, 20, 100, 100  # the most that are shown
# Request ids and the like, which would make every reason a reason of its own.
_PARTICULAR = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")
MEANINGS: Mapping[Flaw, str] = {
    "empty": "no letters in it",
    "refusal": "the model or its server would not or could not describe the image",
    "echo": "the prompt given back",
    "loop": "one passage over and over",
    "truncated": "cut off at the limit of tokens",
}
_SECTIONS = (  # an image belongs to that of its worst answer
    ("Rejected and failed", "Answers that are no description, and images without an answer."),
    ("Flawed", "Descriptions that are used, but could be better."),
    ("Good", "Descriptions without a known flaw. Check that they match the picture."),
)


def inspect(config: InspectConfig) -> InspectResult:
    """Count what is in a store; with a dataset, compare both; with a page, show images and answers, flawed ones first.

    Raises ConfigError, DataError, and StoreError where the store is of other images, or there is nothing to show.
    """
    if config.page is not None and config.page.is_dir():
        raise ConfigError(f"--page {config.page}: this is a folder; give the name of an HTML file in it.")
    dataset, images = (None, None) if config.data is None else asked_images(config, config.data)
    with DescriptionStore(config.store) as store:
        found = _Tally(dataset)
        for result in _results(store, config.prompt):
            found.add(result)
        names = {prompt.name for prompt in store.prompts()}
        if config.prompt is not None and names and not found.worst:
            raise StoreError(f"{config.store}: no answer to this prompt: {nearest(config.prompt, names)}")
        facts, record, answered = found.facts(), found.record(), found.described | found.answered
        if dataset is not None and images is not None:
            if answered and answered.isdisjoint(dataset.digests):
                raise StoreError(
                    f"{config.store}: none of its {len(answered)} described images is in {config.data}; the store "
                    "belongs to other images (a picture that was saved again has other bytes, so it is another one)."
                )
            missing = [key for key, one in zip(images.keys, images.digests, strict=True) if one not in answered]
            found.named["descriptions_without_image"] = dict.fromkeys(sorted(answered - found.key_of.keys()))
            found.named["images_without_description"] = dict.fromkeys(missing)
            shares = {"coverage": found.described, "answer_coverage": found.answered}
            facts |= {"images_in_set": len(images), "images_described": len(images) - len(missing)}
            facts |= {
                k: round(sum(map(own.__contains__, images.digests)) / len(images), 6) for k, own in shares.items()
            }
        skipped = () if dataset is None else dataset.skipped
        if config.page is not None:
            skipped = (*skipped, *_write_page(config, config.page, store, found, dataset))
    named = [f"{name.replace('_', ' ')}: {first_few(items, _NAMES)}" for name, items in found.named.items() if items]
    return InspectResult(
        path=config.page,
        counted=facts | {name: len(items) for name, items in found.named.items()},
        distributions=record | {name: [*items] for name, items in found.named.items()},
        text="\n\n".join(filter(None, (_tables(record), "\n".join(named)))),
        skipped=skipped,
    )


def store_record(path: Path, prompts: Collection[Prompt]) -> dict[str, Any]:
    """Return what ``inspect`` counts, of the answers to some prompts."""
    found = _Tally(None)
    with DescriptionStore(path) as store:
        for result in _results(store):
            if result.prompt in prompts:
                found.add(result)
    return {**found.facts(), **found.record()}


def stored_flaws(result: Description, class_name: str | None) -> list[Flaw]:
    """Return the flaws of an answer about an image of a class; none if there is no answer."""
    question = text_for(result.prompt, class_name or "")
    return [] if result.text is None else flaws(result.text, finish_reason=result.finish_reason, question=question)


def describer_names(describers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return short names of describers by their settings as canonical JSON; if two would be equal, what differs."""
    settings = {canonical_json(describer): describer for describer in describers}
    names: dict[str, str] = {}
    for key, own in settings.items():
        short = describer_name(own)
        others = [other for other in settings.values() if other != own and describer_name(other) == short]
        extra = [f"{k}={value}" for k, value in own.items() if any(k not in one or one[k] != value for one in others)]
        names[key] = f"{short} ({', '.join(extra)})" if extra else short
    return names


def _results(
    store: DescriptionStore, prompt: str | None = None, digests: Sequence[str] | None = None
) -> Iterator[Description]:
    """Yield the descriptions of a store, then what was rejected or failed, with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("read", total=sum(count for *_, count in store.counts()), note="")
        for status in ("ok", "failed"):
            for result in store.descriptions(prompt_name=prompt, digests=digests, status=status):
                yield result
                bar.update(task, advance=1)


class _Tally:
    """Counts of results, and ``named`` texts and images that are suspicious.

    ``worst`` is by digest 0 where an answer was rejected or failed, 1 where one has a flaw, else 2. ``class_of`` an
    image is known where it has exactly one.
    """

    def __init__(self, dataset: Dataset | None) -> None:
        digests = () if dataset is None else dataset.digests
        labels = {one: () if dataset is None else dataset.label_names(row) for row, one in enumerate(digests)}
        self.class_of = {digest: names[0] for digest, names in labels.items() if len(names) == 1}
        self.key_of = dict(zip(digests, () if dataset is None else dataset.keys, strict=True))
        self.worst, self.described, self.answered = dict[str, int](), set[str](), set[str]()
        self.named: dict[str, dict[str, None]] = {name: {} for name in _NAMED}
        # By prompt and settings of the describer; a sum is missing as long as nothing is known.
        self._parts: dict[tuple[Prompt, str], Counter[str]] = defaultdict(Counter)
        self._counts: dict[str, Counter[Any]] = defaultdict(Counter)
        self._first: dict[Any, Any] = {}  # digest of the first text about an image, first image of a text

    def add(self, result: Description) -> None:
        """Count a result."""
        digest, answer = result.digest, result.answer
        key, found = self.key_of.get(digest, digest), stored_flaws(result, self.class_of.get(digest))
        part = self._parts[result.prompt, canonical_json(result.describer)]
        part.update({name: value for name in _SUMS if (value := getattr(result, name)) is not None})
        rank = 0 if result.status == "failed" else 1 if found else 2
        self.worst[digest] = min(rank, self.worst.get(digest, rank))
        if result.status == "failed":
            kind = "no_answer" if result.text is None and answer is None else "rejected"
            part[kind] += 1
            reason = _PARTICULAR.sub("…", one_line(visible(result.error or "")))[:_LETTERS]
            self._counts[f"{kind}_reasons"][reason] += 1
            return
        if result.text is not None:
            self.described.add(digest)
            part.update(descriptions=1, flawed=bool(found))
            self._counts["flaws"].update(found)
            self._counts["words"][len(result.text.split())] += 1
            name = text_digest(result.text)
            if self._first.setdefault(name, digest) != digest:
                self.named["texts_of_several_images"][result.text] = None
            if self._first.setdefault((digest, result.prompt), name) != name:
                self.named["conflicting_images"][key] = None
        if answer is not None:
            self.answered.add(digest)
            part["answers"] += 1
            self._counts["boxes"].update(box_facts(result, known := result.prompt.class_names))
            if CLASS in result.prompt.ask:
                self._counts["answer_kinds"][answer.kind] += 1
                if (chosen := answer.class_name or answer.said) is not None:
                    self._counts["outside_list" if answer.is_unmapped else "classes"][one_line(visible(chosen))] += 1
            labels = dict.fromkeys([answer.said] if answer.is_unmapped else [])
            labels |= dict.fromkeys(box["label"] for box in answer.boxes or () if known and box["label"] not in known)
            self.named["answers_outside_list"] |= {f"{key} ({label})": None for label in labels}

    def facts(self) -> dict[str, Any]:
        """Return the numbers that are shown."""
        totals, kinds = sum(self._parts.values(), Counter[str]()), self._counts["answer_kinds"]
        facts: dict[str, Any] = {"descriptions": totals["descriptions"], "images": len(self.described | self.answered)}
        if self.answered:
            facts |= {"answers": totals["answers"], "images_answered": len(self.answered)}
            facts |= {f"class_{kind}": kinds[kind] for kind in KINDS if kinds} | self._counts["boxes"]
        facts |= {"failures": totals["rejected"] + totals["no_answer"]}
        facts |= {name: totals[name] for name in ("rejected", "no_answer", "flawed")}
        return facts | {name: totals[name] for name in _SUMS if any(name in part for part in self._parts.values())}

    def record(self) -> dict[str, Any]:
        """Return distributions, by name."""
        by_prompt, words = Counter[Prompt](), [*self._counts["words"].elements()]
        for (prompt, _), part in self._parts.items():
            by_prompt[prompt] += part["descriptions"]
        short = describer_names(json.loads(settings) for _, settings in self._parts)
        ends = dict(zip(("min", "median", "p95", "max"), np.percentile(words or [0], (0, 50, 95, 100)), strict=True))
        reasons = ("rejected_reasons", "no_answer_reasons", "outside_list")
        return {
            "words": {name: round(float(value), 1) for name, value in ends.items()} if words else None,
            "flaws": {flaw: {"descriptions": count} for flaw, count in self._counts["flaws"].items()},
            **{name: dict(self._counts[name].most_common(_REASONS)) for name in reasons},
            "classes": dict(self._counts["classes"].most_common()),
            "prompts": [{**asdict(prompt), "descriptions": count} for prompt, count in sorted(by_prompt.items())],
            "describers": [
                {"prompt": prompt.name, "describer": short[settings], **{name: part[name] for name in _KINDS}}
                | {name: part.get(name) for name in _SUMS}
                | {"settings": json.loads(settings)}
                for (prompt, settings), part in sorted(self._parts.items(), key=lambda item: item[0])
            ],
        }


def _tables(record: Mapping[str, Any]) -> str:
    words, columns = record["words"] or {}, ("prompt", "describer", *_KINDS, *_SUMS)
    flaw_counts = {flaw: own["descriptions"] for flaw, own in record["flaws"].items()}
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = [
        ("per description", [*words], [("words", *words.values())] if words else []),
        ("prompt", columns[1:], [[part[column] for column in columns] for part in record["describers"]]),
    ]
    counted = {"flaw": flaw_counts, "rejected because": record["rejected_reasons"], "class": record["classes"]}
    counted |= {"no answer because": record["no_answer_reasons"], "outside the class list": record["outside_list"]}
    tables += [(title, ("answers",), [*own.items()][:_CLASSES]) for title, own in counted.items()]
    return "\n\n".join(
        text_table(title, [["", *(name.replace("_", " ") for name in names)], *([*map(_cell, row)] for row in rows)])
        for title, names, rows in tables
        if rows
    )


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "–" if value is None else one_line(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _write_page(
    config: InspectConfig, page: Path, store: DescriptionStore, found: _Tally, images: Dataset | None
) -> Sequence[Skipped]:
    """Write a random sample of images with their answers; return pictures that cannot be shown.

    Images with a failure and images with a flaw fill a quarter of the page each, more only if the others are few.
    """
    rows: dict[str, list[int]] = {digest: [] for digest in (found.worst if images is None else images.digests)}
    for row, digest in enumerate(() if images is None else images.digests):
        rows[digest].append(row)
    groups = [[digest for digest in rows if found.worst.get(digest) == rank] for rank in range(len(_SECTIONS))]
    if not any(groups):
        about = "" if images is None else f" about an image of {config.data}"
        raise StoreError(f"{config.store}: there is no answer{about}.")
    rng, quarter = random.Random(0), max(1, config.limit // 4)
    failed, flawed, good = (rng.sample(group, len(group)) for group in groups)
    order = (*failed[:quarter], *flawed[:quarter], *good, *failed[quarter:], *flawed[quarter:])
    results: dict[str, list[Description]] = {digest: [] for digest in order[: config.limit]}
    for result in _results(store, config.prompt, list(results)):
        results[result.digest].append(result)
    every = [one for own in results.values() for one in own]
    thumbnails = None if images is None else Thumbnails(images, 2 * PICTURE if any(map(_marks, every)) else PICTURE)
    names, formats = describer_names(result.describer for result in every), store.box_formats()

    def card(digest: str) -> dict[str, Any]:
        own = sorted(results[digest], key=lambda one: (one.prompt, canonical_json(one.describer), one.sample))
        name = found.class_of.get(digest)
        answers = [(one, names[canonical_json(one.describer)], stored_flaws(one, name), _in_words(one)) for one in own]
        return {
            "key": found.key_of.get(digest, digest),
            "twins": max(len(rows[digest]) - 1, 0),
            "label": name and name.replace("_", " "),
            "picture": None if thumbnails is None else thumbnails.of(rows[digest][0]),
            "boxes": [box for one in own for box in _marks(one)][:_BOXES],
            "answers": answers,
        }

    cards = [[card(digest) for digest in group if digest in results] for group in groups]
    settings = {canonical_json(one.describer): dict(one.describer) for one in every}
    for key in settings.keys() & formats.keys():
        settings[key]["box_format"] = formats[key]
    context = {
        "data": config.data or str(config.store),
        "facts": {"images": len(rows), "answered": len(order), "failed": len(failed), "flawed": len(flawed)},
        "sections": [
            (*about, len(all_), own) for about, all_, own in zip(_SECTIONS, groups, cards, strict=True) if own
        ],
        "prompts": sorted({result.prompt for result in every}),
        "describers": {names[key]: own for key, own in sorted(settings.items())},
        "meanings": MEANINGS,
    }
    write_text(page, render("gallery.html", **context))
    return () if thumbnails is None else thumbnails.skipped


def _in_words(result: Description) -> str:
    """Return the structured part of an answer on one line."""
    words, answer = list[str](), result.answer
    if answer is not None and CLASS in result.prompt.ask:
        outside = f"“{answer.said}” (not in the class list)" if answer.is_unmapped else NONE_OF_THESE
        shares = {"confidence": answer.confidence, "probability": answer.probability}
        words += [answer.class_name or outside, *(f"{name} {x:.2f}" for name, x in shares.items() if x is not None)]
        words += [] if answer.second is None else [f"second: {answer.second}"]
    if answer is not None and answer.tags:
        words.append(f"tags: {', '.join(answer.tags)}")
    if answer is not None and answer.boxes is not None:
        counts = Counter(box["label"] for box in answer.boxes).most_common(_NAMES)
        words.append(f"{len(answer.boxes)} boxes: {', '.join(f'{count} {label}' for label, count in counts)}")
    return " · ".join(words)


def _marks(result: Description) -> list[dict[str, Any]]:
    """Return the boxes of an answer, to be drawn over the picture."""
    boxes = () if result.answer is None or result.status == "failed" else result.answer.boxes or ()
    return [mark("", [side / 1000 for side in box["box_2d"]], box["label"]) for box in boxes]
