"""The stages ``descriptions stats`` and ``view``: what is in a store, as counts and as a page, and what is wrong.

Counting takes a few hundred bytes of memory per result, whatever the length of the texts.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

import numpy as np

from gpt4image.artifacts.answers import KINDS
from gpt4image.artifacts.prompts import turns
from gpt4image.artifacts.results import describer_name
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.errors import ConfigError, StoreError, nearest
from gpt4image.base.files import write_text
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import visible
from gpt4image.config import Flaw, StatsConfig, ViewConfig
from gpt4image.config.results import StoreResult
from gpt4image.data import Dataset, load_dataset
from gpt4image.describing.answer_json import flaws
from gpt4image.describing.asking import asked_images
from gpt4image.describing.boxes import box_facts
from gpt4image.describing.class_lists import NONE_OF_THESE
from gpt4image.describing.questions import CLASS
from gpt4image.pages.cards import PICTURE, Thumbnails
from gpt4image.pages.numbers import duration, one_line, text_table
from gpt4image.pages.page import render

_SUMS = ("tokens_in", "tokens_out", "cost_usd")
_KINDS = ("descriptions", "answers", "rejected", "no_answer")
_REASONS = ("rejected_reasons", "no_answer_reasons", "outside_list")
_SHOWN, _CLASSES_SHOWN, _LONGEST_REASON = 5, 100, 100
# Request ids and the like, which would make every reason a reason of its own.
_PARTICULAR = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")
MEANINGS: Mapping[Flaw, str] = {
    "empty": "no letters in it",
    "refusal": "the model or its server would not or could not describe the image",
    "echo": "the prompt given back",
    "loop": "one passage over and over",
    "truncated": "cut off at the limit of tokens",
}
_BOXES_DRAWN, _BOXES_IN_WORDS = 100, 20
# An image belongs to the section of its worst answer.
_SECTIONS = (
    ("Rejected and failed", "Answers that are no description, and images without an answer."),
    ("Flawed", "Descriptions that are used, but could be better."),
    ("Good", "Descriptions without a known flaw. Check that they say what is in the picture."),
)


def all_results(
    store: DescriptionStore, prompt: str | None = None, digests: Sequence[str] | None = None
) -> Iterator[Description]:
    """Yield the descriptions of a store, then what was rejected or failed."""
    for status in ("ok", "failed"):
        yield from store.descriptions(prompt_name=prompt, digests=digests, status=status)


def shown_results(store: DescriptionStore, task: str, prompt: str | None = None) -> Iterator[Description]:
    """Yield all results, with a progress bar."""
    with progress_bar() as bar:
        shown = bar.add_task(task, total=sum(count for *_, count in store.counts()), note="")
        for result in all_results(store, prompt):
            yield result
            bar.update(shown, advance=1)


def class_names(images: Dataset) -> dict[str, str]:
    """Return the class of each image that has exactly one by digest, as folders and manifests write it."""
    return {digest: names[0] for row, digest in enumerate(images.digests) if len(names := images.label_names(row)) == 1}


def stored_flaws(result: Description, class_name: str | None) -> list[Flaw]:
    """Return the flaws of an answer about an image of a class; none if there is no answer."""
    if result.text is None:
        return []
    return flaws(result.text, finish_reason=result.finish_reason, turns=turns(result.prompt, class_name or ""))


def describer_names(describers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return short names of describers by their settings as canonical JSON; if two would be equal, what differs."""
    settings = {canonical_json(describer): describer for describer in describers}
    names: dict[str, str] = {}
    for key, own in settings.items():
        short = describer_name(own)
        others = [other for other in settings.values() if other != own and describer_name(other) == short]
        told = [f"{k}={value}" for k, value in own.items() if any(k not in one or one[k] != value for one in others)]
        names[key] = f"{short} ({', '.join(told)})" if told else short
    return names


# Counts


def stats(config: StatsConfig, prompts: Collection[Prompt] | None = None) -> StoreResult:
    """Count descriptions, structured answers, flaws, prompts, describers and failures, and the coverage of a dataset.

    Coverage is of the splits that are asked about. Only answers to ``prompts`` count; None means all. Raises DataError,
    StoreError.
    """
    dataset, images = (None, None) if config.data is None else asked_images(config, config.data)
    names = {} if dataset is None else class_names(dataset)
    found = _Stats()
    with DescriptionStore(config.store) as store:
        for result in shown_results(store, "read"):
            if prompts is None or result.prompt in prompts:
                found.add(result, names.get(result.digest))
    summary, record = found.summary(), found.record()
    stored = max(1, found.totals["descriptions"] or found.totals["answers"])
    summary["bytes_per_description"] = round(config.store.stat().st_size / stored)
    if images is not None:
        covered, answered = (sum(d in own for d in images.digests) for own in (found.described, found.answered))
        summary |= {"images_in_set": len(images), "images_described": covered, "coverage": _share(covered, len(images))}
        summary |= {"answer_coverage": _share(answered, len(images))} if found.answered else {}
    first = {name: summary[name] for name in ("descriptions", "images")}
    text = _tables(summary, record)
    return StoreResult(path=config.store, counted=first | summary, distributions=record, text=text)


class _Stats:
    def __init__(self) -> None:
        self.described, self.answered = set[str](), set[str]()
        # By prompt and settings of the describer; a sum is missing as long as nothing is known.
        self.parts: dict[tuple[Prompt, str], Counter[str]] = defaultdict(Counter)
        self.words = array("q")
        self.counts: dict[str, Counter[Any]] = defaultdict(Counter)
        self.totals, self.boxes = Counter[str](), Counter[str]()

    def add(self, result: Description, class_name: str | None) -> None:
        """Count a result of an image of a class; None if the class is unknown."""
        text, answer = result.text, result.answer
        if result.status == "failed":
            kinds = ["no_answer" if text is None and answer is None else "rejected"]
        else:
            kinds = [kind for kind, there in (("descriptions", text), ("answers", answer)) if there is not None]
        sums = {name: value for name in _SUMS if (value := getattr(result, name)) is not None}
        for counter in (self.parts[result.prompt, canonical_json(result.describer)], self.totals):
            counter.update(dict.fromkeys(kinds, 1) | sums)
        if answer is not None and "answers" in kinds:
            self.answered.add(result.digest)
            self.boxes.update(box_facts([result], result.prompt.class_names))
            if CLASS in result.prompt.ask:
                self.counts["answer_kinds"][answer.kind] += 1
                if answer.class_name is not None:
                    self.counts["classes"][answer.class_name] += 1
                elif answer.said is not None:
                    self.counts["outside_list"][one_line(visible(answer.said))] += 1
        if result.error is not None:
            reason = _PARTICULAR.sub("…", one_line(visible(result.error)))[:_LONGEST_REASON]
            self.counts[f"{kinds[0]}_reasons"][reason] += 1
        if text is not None:
            found = stored_flaws(result, class_name)
            self.counts[f"flaws_of_{kinds[0]}"].update(found)
            if result.error is None:
                self.described.add(result.digest)
                self.words.append(len(text.split()))
                self.totals.update(flawed=bool(found), with_reason=result.finish_reason is not None)
                if class_name is not None:
                    self.counts["named"][class_name.replace("_", " ").lower() in text.lower()] += 1

    def summary(self) -> dict[str, Any]:
        """Return the facts of the whole store; unknown ones are left out."""
        totals, named, kinds = self.totals, self.counts["named"], self.counts["answer_kinds"]
        facts = {"descriptions": totals["descriptions"], "images": len(self.described | self.answered)}
        if self.answered:
            facts |= {"answers": totals["answers"], "images_answered": len(self.answered)}
            facts |= {f"class_{kind}": kinds[kind] for kind in KINDS if kinds} | self.boxes
        more = {
            "failures": totals["rejected"] + totals["no_answer"],
            **{name: totals[name] for name in ("rejected", "no_answer", "flawed")},
            "truncated_share": _share(self.counts["flaws_of_descriptions"]["truncated"], totals["with_reason"]),
            **{name: totals.get(name) for name in _SUMS},
            "class_named": _share(named[True], named.total()),
        }
        return {name: value for name, value in (facts | more).items() if value is not None}

    def record(self) -> dict[str, Any]:
        """Return the lengths in words, and the counts by prompt, describer, flaw and reason."""
        names = describer_names(json.loads(settings) for _, settings in self.parts)
        described = Counter[Prompt]()
        for (prompt, _), part in self.parts.items():
            described[prompt] += part["descriptions"]
        flawed = {kind: self.counts[f"flaws_of_{kind}"] for kind in ("descriptions", "rejected")}
        of_flaws = {flaw: {kind: counts[flaw] for kind, counts in flawed.items()} for flaw in get_args(Flaw)}
        return {
            "words": _distribution(self.words),
            "flaws": {flaw: counts for flaw, counts in of_flaws.items() if any(counts.values())},
            **{name: dict(self.counts[name].most_common(_SHOWN)) for name in _REASONS},
            "classes": dict(self.counts["classes"].most_common()),
            "prompts": [{**asdict(prompt), "descriptions": count} for prompt, count in sorted(described.items())],
            "describers": [
                {
                    **{"prompt": prompt.name, "describer": names[settings]},
                    **{name: part[name] for name in _KINDS},
                    **{name: part.get(name) for name in _SUMS},
                    "settings": json.loads(settings),
                }
                for (prompt, settings), part in sorted(self.parts.items(), key=lambda item: item[0])
            ],
        }


def _distribution(values: array[int]) -> dict[str, float] | None:
    if not values:
        return None
    numbers = np.asarray(values)
    median, p95 = np.percentile(numbers, (50, 95)).tolist()
    low, mean, high = numbers.min().item(), round(numbers.mean().item(), 1), numbers.max().item()
    return {"min": low, "median": median, "mean": mean, "p95": p95, "max": high}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _tables(summary: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    words, columns = record["words"] or {}, ("prompt", "describer", *_KINDS, *_SUMS)
    tables: tuple[tuple[str, Sequence[str], Sequence[Sequence[Any]]], ...] = (
        ("per description", [*words], [("words", *words.values())] if words else []),
        ("prompt", columns[1:], [[part[column] for column in columns] for part in record["describers"]]),
        (
            "flaw",
            ("descriptions", "rejected answers"),
            [(flaw, *kinds.values()) for flaw, kinds in record["flaws"].items()],
        ),
        ("rejected because", ("answers",), [*record["rejected_reasons"].items()]),
        ("no answer because", ("requests",), [*record["no_answer_reasons"].items()]),
        ("class", ("answers",), [*record["classes"].items()][:_CLASSES_SHOWN]),
        ("outside the class list", ("answers",), [*record["outside_list"].items()]),
    )
    return "\n\n".join(
        text_table(title, [["", *(name.replace("_", " ") for name in names)], *([_cell(v) for v in r] for r in rows)])
        for title, names, rows in tables
        if rows
    )


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "–" if value is None else one_line(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


# The page


def view(config: ViewConfig) -> StoreResult:
    """Write a page of a random sample of images with their answers, flaws, tokens and cost; what is wrong comes first.

    Images with a failure and images with a flaw fill a quarter of the page each, more only if the others are few.
    Raises ConfigError, DataError, and StoreError where there is nothing to show.
    """
    if config.out.is_dir():
        raise ConfigError(f"--out {config.out}: this is a folder; give the name of an HTML file in it.")
    images = None if config.data is None else load_dataset(config.data)
    names, rows = ({}, {}) if images is None else (class_names(images), dict[str, list[int]]())
    for row, digest in enumerate(() if images is None else images.digests):
        rows.setdefault(digest, []).append(row)
    with DescriptionStore(config.store) as store:
        if images is None:
            rows = {result.digest: [0] for result in all_results(store, config.prompt)}
        groups = _groups(store, config, rows, names)
        sizes = [len(group) for group in groups]
        if not any(sizes):
            known = sorted({prompt.name for prompt, *_ in store.counts()})
            if config.prompt is not None and known and config.prompt not in known:
                raise StoreError(f"{config.store}: no answer to this prompt: {nearest(config.prompt, known)}")
            what = f" with the flaw {config.flaw}" if config.flaw else ""
            about = f" about an image of {config.data}; compare both by `descriptions check`" if config.data else ""
            raise StoreError(f"{config.store}: there is no answer{what}{about}.")
        rng = random.Random(0)
        shown = [
            [group[place] for place in sorted(rng.sample(range(len(group)), share))]
            for group, share in zip(groups, _shares(sizes, config.limit), strict=True)
        ]
        results: dict[str, list[Description]] = {digest: [] for digest in itertools.chain(*shown)}
        for result in all_results(store, config.prompt, list(results)):
            results[result.digest].append(result)
        formats = {key: {"box_format": name} for key, name in store.box_formats().items()}
    every = list(itertools.chain(*results.values()))
    side = 2 * PICTURE if any(_drawn(result) for result in every) else PICTURE
    thumbnails = None if images is None else Thumbnails(images, side)
    described_by = describer_names(result.describer for result in every)

    def card(digest: str) -> dict[str, Any]:
        own = sorted(results[digest], key=lambda one: (one.prompt, canonical_json(one.describer), one.sample))
        row, *twins = rows[digest]
        return {
            "key": visible(digest if images is None else images.keys[row]),
            "twins": len(twins),
            "label": visible(names[digest].replace("_", " ")) if digest in names else None,
            "picture": None if thumbnails is None else thumbnails.of(row),
            "boxes": list(itertools.chain(*map(_drawn, own)))[:_BOXES_DRAWN],
            "answers": [_answer(one, described_by[canonical_json(one.describer)], names.get(digest)) for one in own],
        }

    summary: dict[str, Any] = {"images_shown": len(results), "images_answered": sum(sizes), "images_in_set": len(rows)}
    summary |= {"with_failures": sizes[0], "with_flaws": sizes[1]}
    describers = {canonical_json(one.describer): one.describer for one in every}
    page = render(
        "gallery.html",
        data=visible(config.data or str(config.store)),
        flaw=config.flaw,
        facts=summary,
        sections=[
            {"title": title, "note": note, "total": size, "cards": [card(digest) for digest in digests]}
            for (title, note), size, digests in zip(_SECTIONS, sizes, shown, strict=True)
            if digests
        ],
        prompts=[
            {**vars(prompt), "name": visible(prompt.name), "text": visible(prompt.text)}
            for prompt in sorted({result.prompt for result in every})
        ],
        describers={
            visible(described_by[key]): {
                visible(k): visible(str(v)) for k, v in {**own, **formats.get(key, {})}.items()
            }
            for key, own in sorted(describers.items())
        },
        meanings=MEANINGS,
    )
    write_text(config.out, page)
    skipped = () if images is None or thumbnails is None else (*images.skipped, *thumbnails.skipped)
    return StoreResult(path=config.out, skipped=skipped, counted=summary)


def _groups(
    store: DescriptionStore, config: ViewConfig, digests: Iterable[str], names: Mapping[str, str]
) -> list[list[str]]:
    worst: dict[str, int] = {}
    for result in shown_results(store, "judge", config.prompt):
        found = stored_flaws(result, names.get(result.digest))
        if config.flaw is None or config.flaw in found:
            rank = 0 if result.status == "failed" else 1 if found else 2
            worst[result.digest] = min(rank, worst.get(result.digest, rank))
    return [[digest for digest in digests if worst.get(digest) == rank] for rank in range(len(_SECTIONS))]


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Return how many of each group to show; the last group gets what the others, a quarter each at most, leave."""
    shares = [0] * len(sizes)
    for number, size in enumerate(sizes[:-1]):
        shares[number] = min(size, max(1, limit // 4), limit - sum(shares))
    for number in reversed(range(len(sizes))):
        shares[number] += min(sizes[number] - shares[number], limit - sum(shares))
    return shares


def _answer(result: Description, describer: str, class_name: str | None) -> dict[str, Any]:
    texts = {
        "text": result.text or "",
        "error": result.error or "",
        "prompt": result.prompt.name,
        "describer": describer,
        "structured": " · ".join(_in_words(result)),
    }
    tokens = (
        f"{n:,} tokens {name}" for name, n in (("in", result.tokens_in), ("out", result.tokens_out)) if n is not None
    )
    facts = (
        f"sample {result.sample + 1}" if result.sample else None,
        result.finish_reason,
        *tokens,
        None if result.cost_usd is None else f"${result.cost_usd:.6f}".rstrip("0").rstrip("."),
        None if result.latency_s is None else duration(result.latency_s),
    )
    return {
        "kind": "description" if result.status == "ok" else "no answer" if result.text is None else "rejected",
        **{name: visible(text) for name, text in texts.items()},
        "flaws": stored_flaws(result, class_name),
        "facts": [visible(fact) for fact in facts if fact is not None],
    }


def _in_words(result: Description) -> Iterator[str]:
    if (answer := result.answer) is None:
        return
    if CLASS in result.prompt.ask:
        outside = f"“{answer.said}” (not in the class list)" if answer.is_unmapped else NONE_OF_THESE
        yield answer.class_name or outside
        for name, share in (("confidence", answer.confidence), ("probability", answer.probability)):
            if share is not None:
                yield f"{name} {share:.2f}"
        if answer.second is not None:
            yield f"second: {answer.second}"
    if answer.tags:
        yield f"tags: {', '.join(answer.tags)}"
    if answer.boxes is not None:
        each = [f"{box['label']} (“{box['words']}”)" if "words" in box else box["label"] for box in answer.boxes]
        more = ["…"] if len(each) > _BOXES_IN_WORDS else []
        yield f"{len(each)} boxes" + (": " if each else "") + ", ".join(each[:_BOXES_IN_WORDS] + more)


def _drawn(result: Description) -> list[dict[str, Any]]:
    """Return the boxes of an answer in percent of the picture, with what they are of."""
    drawn: list[dict[str, Any]] = []
    for box in () if result.answer is None or result.status == "failed" else result.answer.boxes or ():
        left, top, right, bottom = (value / 10 for value in box["box_2d"])
        title = visible(" · ".join(filter(None, (box["label"], box.get("words")))))
        place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        drawn.append({"label": visible(box["label"]), "title": title, "place": place})
    return drawn
