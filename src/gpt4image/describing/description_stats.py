"""The stage ``descriptions stats``: what is in a store, how good it is and what it cost."""

from __future__ import annotations

import io
import itertools
import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial, reduce
from typing import Any, get_args

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import visible
from gpt4image.config import Flaw, StatsConfig
from gpt4image.data import ImageSet, load_image_set
from gpt4image.describing.flaws import flaws, opening
from gpt4image.describing.near_duplicates import near_duplicates
from gpt4image.describing.prompts import turns
from gpt4image.pages.numbers import one_line, percent

_PART_COLUMNS = (
    "prompt",
    "describer",
    "descriptions",
    "rejected",
    "no_answer",
    "tokens_in",
    "tokens_out",
    "cost_usd",
)
_SHOWN = 5
_LONGEST_TEXT = 100
_BINS = 24
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Numbers of requests and the like, which would make every reason a reason of its own.
_PARTICULAR = re.compile(r"\b(?=[\w-]*\d)[\w-]{8,}\b")


def stats(config: StatsConfig, prompts: Collection[Prompt] | None = None) -> Outcome:
    """Count descriptions, their lengths, flaws, prompts, describers and failures, and the coverage of an image set.

    Memory is a few hundred bytes a result.

    Args:
        config: options of the command.
        prompts: whose answers count; None for all.

    Raises:
        DataError: the image set cannot be read.
        StoreError: there is no store.
    """
    images = None if config.data is None else load_image_set(config.data)
    names = {} if images is None else class_names(images)
    found = _Stats()
    with DescriptionStore(config.store) as store, progress_bar() as bar:
        total = sum(count for _, _, _, count in store.counts())
        task = bar.add_task("read", total=total, note="")
        for result in itertools.chain(store.descriptions(), store.descriptions(status="failed")):
            if prompts is None or result.prompt in prompts:
                found.add(result, names.get(result.digest))
            bar.update(task, advance=1)
        repeated = _repeated(store, prompts)
    summary = found.summary() | {
        "near_duplicates": sum(count - 1 for count, _ in repeated),
        "bytes_per_description": round(config.store.stat().st_size / max(1, len(found.words))),
    }
    if images is not None:
        summary |= _coverage(images, found.described)
    if found.named:
        summary["class_named"] = _share(found.named[True], found.named.total())
    record = found.record() | {"repeated_texts": [{"count": count, "text": text} for count, text in repeated[:_SHOWN]]}
    return Outcome(path=config.store, summary=summary, record=record, text=_tables(summary, record))


def class_names(images: ImageSet) -> dict[str, str]:
    """Return the class of each image that has exactly one by digest, as folders and manifests write it."""
    return {digest: names[0] for row, digest in enumerate(images.digests) if len(names := images.label_names(row)) == 1}


def stored_flaws(result: Description, class_name: str | None) -> list[Flaw]:
    """Return the flaws of a stored answer; none where there is no answer.

    Args:
        result: from a store.
        class_name: of the image, which the prompt may have told.
    """
    if result.text is None:
        return []
    asked = turns(result.prompt, class_name or "")
    return flaws(result.text, finish_reason=result.finish_reason, turns=asked)


def describer_names(describers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return short names of describers by their settings as canonical JSON; where two would be equal, what differs."""
    settings = {canonical_json(describer): describer for describer in describers}
    short = {key: _short_name(describer) for key, describer in settings.items()}
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


def _short_name(describer: Mapping[str, Any]) -> str:
    parts = [describer[part] for part in ("kind", "name", "model", "file") if isinstance(describer.get(part), str)]
    return ":".join(parts[:2]) or canonical_json(describer)[:_LONGEST_TEXT]


@dataclass
class _Part:
    """What one describer answered to one prompt. Sums are None as long as nothing is known."""

    descriptions: int = 0
    rejected: int = 0
    no_answer: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None


@dataclass
class _Stats:
    """Counts results one by one.

    Attributes:
        described: digests of the images that have a description.
        words: words of each description.
        tokens: tokens of each answer, where they are known.
        latency: seconds to each answer, where they are known.
        parts: counts by prompt and by the settings of the describer as canonical JSON.
        flaws: of the descriptions.
        rejected_flaws: of the answers that are no descriptions.
        rejected: their number by reason.
        no_answer: number of requests without an answer, by reason.
        openings: number of descriptions by their first words.
        flawed: descriptions with any flaw.
        with_reason: descriptions that say why they ended.
        named: number of descriptions of labelled images by whether they hold the name of the class.
        vocabulary: number of uses of each word, in small letters.
    """

    described: set[str] = field(default_factory=set)
    words: array[int] = field(default_factory=partial(array, "q"))
    tokens: array[int] = field(default_factory=partial(array, "q"))
    latency: array[float] = field(default_factory=partial(array, "d"))
    parts: dict[tuple[Prompt, str], _Part] = field(default_factory=lambda: defaultdict(_Part))
    flaws: Counter[Flaw] = field(default_factory=Counter)
    rejected_flaws: Counter[Flaw] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    no_answer: Counter[str] = field(default_factory=Counter)
    openings: Counter[str] = field(default_factory=Counter)
    flawed: int = 0
    with_reason: int = 0
    named: Counter[bool] = field(default_factory=Counter)
    vocabulary: Counter[str] = field(default_factory=Counter)

    def add(self, result: Description, class_name: str | None) -> None:
        """Count a result of an image of a class; None where the class is not known."""
        part = self.parts[result.prompt, canonical_json(result.describer)]
        part.tokens_in = _sum(part.tokens_in, result.tokens_in)
        part.tokens_out = _sum(part.tokens_out, result.tokens_out)
        part.cost_usd = _sum(part.cost_usd, result.cost_usd)
        if result.text is None:
            part.no_answer += 1
            self.no_answer[_general(result.error)] += 1
            return
        if result.tokens_out is not None:
            self.tokens.append(result.tokens_out)
        if result.latency_s is not None:
            self.latency.append(result.latency_s)
        if result.error is not None:
            part.rejected += 1
            self.rejected[_general(result.error)] += 1
            self.rejected_flaws.update(stored_flaws(result, class_name))
        else:
            part.descriptions += 1
            self._add_description(result, result.text, class_name)

    def _add_description(self, result: Description, text: str, class_name: str | None) -> None:
        found = stored_flaws(result, class_name)
        self.described.add(result.digest)
        self.words.append(len(text.split()))
        self.vocabulary.update(_WORD.findall(text.lower()))
        self.openings[opening(text)] += 1
        self.flaws.update(found)
        self.flawed += bool(found)
        self.with_reason += result.finish_reason is not None
        if class_name is not None:
            self.named[_readable(class_name) in text.lower()] += 1

    def summary(self) -> dict[str, Any]:
        """Return the facts of the whole store; those that are not known are left out."""
        rejected, no_answer = self.rejected.total(), self.no_answer.total()
        facts = {
            "descriptions": len(self.words),
            "images": len(self.described),
            "failures": rejected + no_answer,
            "rejected": rejected,
            "no_answer": no_answer,
            "flawed": self.flawed,
            "truncated_share": _share(self.flaws["truncated"], self.with_reason),
            "tokens_in": _total(part.tokens_in for part in self.parts.values()),
            "tokens_out": _total(part.tokens_out for part in self.parts.values()),
            "cost_usd": _total(part.cost_usd for part in self.parts.values()),
        }
        return {name: value for name, value in facts.items() if value is not None}

    def record(self) -> dict[str, Any]:
        """Return the distributions, and the counts by prompt, describer, flaw, reason and opening."""
        names = describer_names(json.loads(settings) for _, settings in self.parts)
        described = Counter[Prompt]()
        for (prompt, _), part in self.parts.items():
            described[prompt] += part.descriptions
        return {
            "words": _distribution(self.words),
            "words_histogram": _histogram(self.words),
            "vocabulary": {
                "words": len(self.vocabulary),
                "once": sum(count == 1 for count in self.vocabulary.values()),
                "uses": self.vocabulary.total(),
            },
            "answer_tokens": _distribution(self.tokens),
            "latency_s": _distribution(self.latency),
            "flaws": {
                flaw: {"descriptions": self.flaws[flaw], "rejected": self.rejected_flaws[flaw]}
                for flaw in get_args(Flaw)
                if self.flaws[flaw] or self.rejected_flaws[flaw]
            },
            "rejected_reasons": dict(self.rejected.most_common(_SHOWN)),
            "no_answer_reasons": dict(self.no_answer.most_common(_SHOWN)),
            "openings": dict(self.openings.most_common(_SHOWN)),
            "prompts": [
                {
                    "name": prompt.name,
                    "version": prompt.version,
                    "text": prompt.text,
                    "class_conditioned": prompt.class_conditioned,
                    "descriptions": count,
                }
                for prompt, count in sorted(described.items())
            ],
            "describers": [
                {
                    "prompt": prompt.name,
                    "describer": names[settings],
                    **asdict(part),
                    "settings": json.loads(settings),
                }
                for (prompt, settings), part in sorted(self.parts.items())
            ],
        }


def _repeated(store: DescriptionStore, prompts: Collection[Prompt] | None) -> list[tuple[int, str]]:
    """Return size and first text of each group of descriptions that are nearly the same, the largest first."""
    rows = array("q")

    def texts() -> Iterator[str]:
        for stored in store.texts():
            if prompts is None or stored.prompt in prompts:
                rows.append(stored.row)
                yield stored.text

    groups = near_duplicates(texts(), lambda places: store.texts_at(np.asarray(rows)[places].tolist()))
    first = store.texts_at([rows[group[0]] for group in groups[:_SHOWN]])
    return [(len(group), text) for group, text in itertools.zip_longest(groups, first, fillvalue="")]


def _coverage(images: ImageSet, described: set[str]) -> dict[str, Any]:
    covered = sum(digest in described for digest in images.digests)
    return {"images_in_set": len(images), "images_described": covered, "coverage": _share(covered, len(images))}


def _distribution(values: array[Any]) -> dict[str, float] | None:
    """Return what the values are like; None where there are none."""
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
    edges = np.arange(low, high + step + 1, step)
    counts, _ = np.histogram(np.minimum(numbers, high), edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _sum(one: Any, other: Any) -> Any:
    """Return the sum of numbers of which either may not be known."""
    return one if other is None else other if one is None else one + other


def _total(values: Iterable[Any]) -> Any:
    return reduce(_sum, values, None)


def _general(reason: str | None) -> str:
    return _PARTICULAR.sub("…", one_line(visible(reason or "")))[:_LONGEST_TEXT]


def _readable(class_name: str) -> str:
    return class_name.replace("_", " ").lower()


def _tables(summary: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return the record as tables for a terminal."""
    spreads = {name: record[name] for name in ("words", "answer_tokens", "latency_s") if record[name]}
    blocks = [
        _table(
            ("per description", *next(iter(spreads.values()), ())),
            [(name.replace("_", " "), *spread.values()) for name, spread in spreads.items()],
        ),
        _table(_PART_COLUMNS, [[part[column] for column in _PART_COLUMNS] for part in record["describers"]], texts=2),
        _table(
            ("flaw", "descriptions", "share", "rejected answers"),
            [
                (flaw, count["descriptions"], _percent(count["descriptions"], summary), count["rejected"])
                for flaw, count in record["flaws"].items()
            ],
        ),
        _table(("rejected because", "answers"), record["rejected_reasons"].items()),
        _table(("no answer because", "requests"), record["no_answer_reasons"].items()),
        _table(
            ("most frequent opening", "descriptions", "share"),
            [(start, count, _percent(count, summary)) for start, count in record["openings"].items() if count > 1],
        ),
        _table(
            ("nearly the same text", "descriptions"),
            [(row["text"][:_LONGEST_TEXT], row["count"]) for row in record["repeated_texts"]],
        ),
    ]
    return "\n\n".join(filter(None, blocks))


def _percent(count: int, summary: Mapping[str, Any]) -> str:
    return percent(_share(count, summary["descriptions"]))


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1) -> str:
    """Return a table, or nothing where it has no rows; the first columns are texts, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(Text(heading.replace("_", " ")), justify="right" if number >= texts else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    if not table.row_count:
        return ""
    buffer = io.StringIO()
    Console(file=buffer, width=250, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return one_line(visible(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
