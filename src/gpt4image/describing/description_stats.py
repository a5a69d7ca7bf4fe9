"""The stage ``descriptions stats``: what is in a store, how good it is and what it cost.

Memory is a few hundred bytes per result, whatever the length of the texts.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

import numpy as np

from gpt4image.artifacts.answers import KINDS, Answer
from gpt4image.artifacts.prompts import turns
from gpt4image.artifacts.results import describer_name
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import visible
from gpt4image.config import Flaw, StatsConfig
from gpt4image.config.results import StatsResult
from gpt4image.data import Dataset
from gpt4image.describing.boxes import box_facts
from gpt4image.describing.flaws import flaws
from gpt4image.describing.missing import asked_images
from gpt4image.describing.questions import CLASS
from gpt4image.pages.numbers import one_line, percent, text_table

_SUMS = ("tokens_in", "tokens_out", "cost_usd")
_KINDS = ("descriptions", "answers", "rejected", "no_answer")
_MOST_COMMON = ("rejected_reasons", "no_answer_reasons", "outside_list", "tags")
_SHOWN, _CLASSES_SHOWN = 5, 100
_LONGEST_TEXT = 100
_BINS = 24
# Request ids and the like, which would make every reason a reason of its own.
_PARTICULAR = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")


def stats(config: StatsConfig, prompts: Collection[Prompt] | None = None) -> StatsResult:
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
        covered = sum(digest in found.described for digest in images.digests)
        summary |= {"images_in_set": len(images), "images_described": covered, "coverage": _share(covered, len(images))}
        if found.answered:
            answered = sum(digest in found.answered for digest in images.digests)
            summary["answer_coverage"] = _share(answered, len(images))
    text = _tables(summary, record)
    described, of = summary.pop("descriptions"), summary.pop("images")
    return StatsResult(
        path=config.store, descriptions=described, images=of, details=summary, distributions=record, text=text
    )


def all_results(
    store: DescriptionStore, prompt: str | None = None, digests: Sequence[str] | None = None
) -> Iterator[Description]:
    """Yield the descriptions of a store, then what was rejected or failed."""
    yield from store.descriptions(prompt_name=prompt, digests=digests)
    yield from store.descriptions(prompt_name=prompt, digests=digests, status="failed")


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
    short = {key: describer_name(describer) for key, describer in settings.items()}
    names: dict[str, str] = {}
    for key, describer in settings.items():
        namesakes = [settings[other] for other, name in short.items() if name == short[key] and other != key]
        own = [
            f"{option}={value}"
            for option, value in describer.items()
            if any(option not in other or other[option] != value for other in namesakes)
        ]
        names[key] = f"{short[key]} ({', '.join(own)})" if own else short[key]
    return names


class _Stats:
    """Counts results one by one."""

    def __init__(self) -> None:
        self.described, self.answered = set[str](), set[str]()
        # By prompt and settings of the describer; a sum is missing as long as nothing is known.
        self.parts: dict[tuple[Prompt, str], Counter[str]] = defaultdict(Counter)
        self.spreads: dict[str, array[Any]] = {
            "words": array("q"),
            "answer_tokens": array("q"),
            "latency_s": array("d"),
        }
        self.counts: dict[str, Counter[Any]] = defaultdict(Counter)
        self.totals, self.boxes = Counter[str](), Counter[str]()

    def add(self, result: Description, class_name: str | None) -> None:
        """Count a result of an image of a class; None if the class is unknown."""
        if result.status == "failed":
            kinds = ["no_answer" if result.text is None and result.answer is None else "rejected"]
        else:
            there = {"descriptions": result.text, "answers": result.answer}
            kinds = [kind for kind, content in there.items() if content is not None]
        sums = {name: value for name in _SUMS if (value := getattr(result, name)) is not None}
        for counter in (self.parts[result.prompt, canonical_json(result.describer)], self.totals):
            counter.update(dict.fromkeys(kinds, 1) | sums)
        if "answers" in kinds and result.answer is not None:
            self._add_answer(result, result.answer)
        if result.error is not None:
            reason = _PARTICULAR.sub("…", one_line(visible(result.error)))[:_LONGEST_TEXT]
            self.counts[f"{kinds[0]}_reasons"][reason] += 1
        if result.text is None:
            return
        for name, value in (("answer_tokens", result.tokens_out), ("latency_s", result.latency_s)):
            if value is not None:
                self.spreads[name].append(value)
        found = stored_flaws(result, class_name)
        self.counts[f"flaws_of_{kinds[0]}"].update(found)
        if result.error is None:
            text = result.text.lower()
            self.described.add(result.digest)
            self.spreads["words"].append(len(text.split()))
            self.totals.update(flawed=bool(found), with_reason=result.finish_reason is not None)
            if class_name is not None:
                self.counts["named"][class_name.replace("_", " ").lower() in text] += 1

    def _add_answer(self, result: Description, answer: Answer) -> None:
        self.answered.add(result.digest)
        self.boxes.update(box_facts([result], result.prompt.class_names))
        self.counts["tags"].update(answer.tags or ())
        if CLASS in result.prompt.ask:
            self.counts["answer_kinds"][answer.kind] += 1
            if answer.class_name is not None:
                self.counts["classes"][answer.class_name] += 1
            elif answer.said is not None:
                self.counts["outside_list"][one_line(visible(answer.said))] += 1
            if answer.confidence is not None:
                self.counts["confidence"][min(9, int(answer.confidence * 10))] += 1

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
        """Return the distributions, and the counts by prompt, describer, flaw and reason."""
        names = describer_names(json.loads(settings) for _, settings in self.parts)
        described = Counter[Prompt]()
        for (prompt, _), part in self.parts.items():
            described[prompt] += part["descriptions"]
        flawed = {kind: self.counts[f"flaws_of_{kind}"] for kind in ("descriptions", "rejected")}
        of_flaws = {flaw: {kind: counts[flaw] for kind, counts in flawed.items()} for flaw in get_args(Flaw)}
        confidence = self.counts["confidence"]
        return {
            **{name: _distribution(values) for name, values in self.spreads.items()},
            "words_histogram": _histogram(self.spreads["words"]),
            "flaws": {flaw: counts for flaw, counts in of_flaws.items() if any(counts.values())},
            **{name: dict(self.counts[name].most_common(_SHOWN)) for name in _MOST_COMMON},
            "classes": dict(self.counts["classes"].most_common()),
            "confidence_histogram": [confidence[place] for place in range(10)] if self.answered else None,
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


def _distribution(values: array[Any]) -> dict[str, float] | None:
    if not values:
        return None
    numbers = np.asarray(values)
    median, p95, p99 = np.percentile(numbers, (50, 95, 99)).round(3).tolist()
    low, mean, high = numbers.min().item(), round(numbers.mean().item(), 1), numbers.max().item()
    return {"min": low, "median": median, "mean": mean, "p95": p95, "p99": p99, "max": high}


def _histogram(values: array[int]) -> dict[str, list[int]] | None:
    """Return ``edges`` (b + 1) and ``counts`` (b) of the values, those beyond the 99th percentile in the last bin."""
    if not values:
        return None
    numbers = np.asarray(values)
    low, high = int(numbers.min()), int(np.ceil(np.percentile(numbers, 99)))
    step = max(1, -(-(high - low + 1) // _BINS))
    counts, edges = np.histogram(np.minimum(numbers, high), np.arange(low, high + step + 1, step))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _tables(summary: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the record as tables for a terminal."""

    def shares(counts: Mapping[str, int], whole: str) -> list[tuple[Any, ...]]:
        return [(name, count, percent(_share(count, summary[whole]))) for name, count in counts.items() if count]

    spreads = {
        name.replace("_", " "): values for name in ("words", "answer_tokens", "latency_s") if (values := record[name])
    }
    flawed = [
        (
            flaw,
            counts["descriptions"],
            percent(_share(counts["descriptions"], summary["descriptions"])),
            counts["rejected"],
        )
        for flaw, counts in record["flaws"].items()
    ]
    stated = enumerate(record["confidence_histogram"] or ())
    confidence = {f"{place / 10:.1f} to {(place + 1) / 10:.1f}": count for place, count in stated}
    columns, headings = ("prompt", "describer", *_KINDS, *_SUMS), next(iter(spreads.values()), ())
    tables: tuple[tuple[str, Sequence[str], Sequence[Sequence[Any]]], ...] = (
        ("per description", [*headings], [(name, *values.values()) for name, values in spreads.items()]),
        ("prompt", columns[1:], [[part[column] for column in columns] for part in record["describers"]]),
        ("flaw", ("descriptions", "share", "rejected answers"), flawed),
        ("rejected because", ("answers",), [*record["rejected_reasons"].items()]),
        ("no answer because", ("requests",), [*record["no_answer_reasons"].items()]),
        ("class", ("answers", "share"), shares(record["classes"], "answers")[:_CLASSES_SHOWN]),
        ("outside the class list", ("answers",), [*record["outside_list"].items()]),
        ("stated confidence", ("answers", "share"), shares(confidence, "answers")),
        ("most frequent tag", ("answers",), [*record["tags"].items()]),
    )
    return "\n\n".join(
        text_table(
            title, [["", *(name.replace("_", " ") for name in names)], *([_cell(v) for v in row] for row in rows)]
        )
        for title, names, rows in tables
        if rows
    )


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "–" if value is None else one_line(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
