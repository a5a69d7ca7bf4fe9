"""The stages ``descriptions stats`` and ``view``: what is in a store, as counts and as a page, and what is wrong.

Counting takes a few hundred bytes of memory per result, whatever the length of the texts.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, get_args

import numpy as np

from gpt4image.artifacts.answers import KINDS, describer_name, text_for
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


def shown_results(
    store: DescriptionStore, task: str, prompt: str | None = None, digests: Sequence[str] | None = None
) -> Iterator[Description]:
    """Yield the descriptions of a store, then what was rejected or failed, with a progress bar."""
    with progress_bar() as bar:
        shown = bar.add_task(task, total=sum(count for *_, count in store.counts()), note="")
        for status in ("ok", "failed"):
            for result in store.descriptions(prompt_name=prompt, digests=digests, status=status):
                yield result
                bar.update(shown, advance=1)


def class_names(images: Dataset) -> dict[str, str]:
    """Return the class of each image that has exactly one by digest, as folders and manifests write it."""
    return {digest: names[0] for row, digest in enumerate(images.digests) if len(names := images.label_names(row)) == 1}


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
    described, answered, boxes = set[str](), set[str](), Counter[str]()
    # By prompt and settings of the describer; a sum is missing as long as nothing is known.
    parts: dict[tuple[Prompt, str], Counter[str]] = defaultdict(Counter)
    counts: dict[str, Counter[Any]] = defaultdict(Counter)
    with DescriptionStore(config.store) as store:
        for result in shown_results(store, "read"):
            if prompts is None or result.prompt in prompts:
                part = parts[result.prompt, canonical_json(result.describer)]
                _count(result, stored_flaws(result, names.get(result.digest)), part, counts)
                if result.status == "ok":
                    if result.text is not None:
                        described.add(result.digest)
                    if result.answer is not None:
                        answered.add(result.digest)
                    boxes.update(box_facts(result, result.prompt.class_names))
    totals, kinds = sum(parts.values(), Counter[str]()), counts["answer_kinds"]
    summary: dict[str, Any] = {"descriptions": totals["descriptions"], "images": len(described | answered)}
    if answered:
        summary |= {"answers": totals["answers"], "images_answered": len(answered)}
        summary |= {f"class_{kind}": kinds[kind] for kind in KINDS if kinds} | boxes
    summary |= {"failures": totals["rejected"] + totals["no_answer"]}
    summary |= {"rejected": totals["rejected"], "no_answer": totals["no_answer"], "flawed": totals["flawed"]}
    summary |= {name: totals[name] for name in _SUMS if any(name in part for part in parts.values())}
    if images is not None:
        covered, has_answer = (sum(digest in own for digest in images.digests) for own in (described, answered))
        summary |= {"images_in_set": len(images), "images_described": covered}
        summary |= {"coverage": round(covered / len(images), 6)}
        summary |= {"answer_coverage": round(has_answer / len(images), 6)} if answered else {}
    record = _record(parts, counts)
    return StoreResult(path=config.store, counted=summary, distributions=record, text=_tables(record))


def _count(result: Description, found: list[Flaw], part: Counter[str], counts: dict[str, Counter[Any]]) -> None:
    text, answer = result.text, result.answer
    part.update({name: value for name in _SUMS if (value := getattr(result, name)) is not None})
    if result.status != "ok":
        kind = "no_answer" if text is None and answer is None else "rejected"
        part[kind] += 1
        counts[f"{kind}_reasons"][_PARTICULAR.sub("…", one_line(visible(result.error or "")))[:_LONGEST_REASON]] += 1
        counts["flaws_of_rejected"].update(found)
        return
    if text is not None:
        part.update(descriptions=1, flawed=bool(found))
        counts["flaws_of_descriptions"].update(found)
        counts["words"][len(text.split())] += 1
    if answer is not None:
        part["answers"] += 1
        if CLASS in result.prompt.ask:
            counts["answer_kinds"][answer.kind] += 1
            if answer.class_name is not None:
                counts["classes"][answer.class_name] += 1
            elif answer.said is not None:
                counts["outside_list"][one_line(visible(answer.said))] += 1


def _record(parts: Mapping[tuple[Prompt, str], Counter[str]], counts: Mapping[str, Counter[Any]]) -> dict[str, Any]:
    short, by_prompt = describer_names(json.loads(settings) for _, settings in parts), Counter[Prompt]()
    for (prompt, _), part in parts.items():
        by_prompt[prompt] += part["descriptions"]
    kinds, listed = ("descriptions", "rejected"), ("rejected_reasons", "no_answer_reasons", "outside_list")
    flaws_of = {flaw: {kind: counts[f"flaws_of_{kind}"][flaw] for kind in kinds} for flaw in get_args(Flaw)}
    return {
        "words": _distribution([*counts["words"].elements()]),
        "flaws": {flaw: own for flaw, own in flaws_of.items() if any(own.values())},
        **{name: dict(counts[name].most_common(_SHOWN)) for name in listed},
        "classes": dict(counts["classes"].most_common()),
        "prompts": [{**asdict(prompt), "descriptions": count} for prompt, count in sorted(by_prompt.items())],
        "describers": [
            {"prompt": prompt.name, "describer": short[settings]}
            | {name: part[name] for name in _KINDS}
            | {name: part.get(name) for name in _SUMS}
            | {"settings": json.loads(settings)}
            for (prompt, settings), part in sorted(parts.items(), key=lambda item: item[0])
        ],
    }


def _distribution(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    median, p95 = np.percentile(values, (50, 95)).tolist()
    return {"min": min(values), "median": median, "mean": round(fmean(values), 1), "p95": p95, "max": max(values)}


def _tables(record: Mapping[str, Any]) -> str:
    words, columns = record["words"] or {}, ("prompt", "describer", *_KINDS, *_SUMS)
    tables: tuple[tuple[str, Sequence[str], Sequence[Sequence[Any]]], ...] = (
        ("per description", [*words], [("words", *words.values())] if words else []),
        ("prompt", columns[1:], [[part[column] for column in columns] for part in record["describers"]]),
        (
            "flaw",
            ("descriptions", "rejected answers"),
            [(flaw, *own.values()) for flaw, own in record["flaws"].items()],
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
    names, rows, worst = ({} if images is None else class_names(images)), dict[str, list[int]](), dict[str, int]()
    for row, digest in enumerate(() if images is None else images.digests):
        rows.setdefault(digest, []).append(row)
    with DescriptionStore(config.store) as store:
        for result in shown_results(store, "judge", config.prompt):
            if images is None:
                rows[result.digest] = [0]
            rank = 0 if result.status == "failed" else 1 if stored_flaws(result, names.get(result.digest)) else 2
            worst[result.digest] = min(rank, worst.get(result.digest, rank))
        groups = [[digest for digest in rows if worst.get(digest) == rank] for rank in range(len(_SECTIONS))]
        if not any(groups):
            raise _nothing_to_show(config, store)
        rng, shares = random.Random(0), _shares([len(group) for group in groups], config.limit)
        shown = [
            [group[place] for place in sorted(rng.sample(range(len(group)), share))]
            for group, share in zip(groups, shares, strict=True)
        ]
        results: dict[str, list[Description]] = {digest: [] for digest in itertools.chain(*shown)}
        for result in shown_results(store, "read", config.prompt, list(results)):
            results[result.digest].append(result)
        formats = {key: {"box_format": name} for key, name in store.box_formats().items()}
    every = list(itertools.chain(*results.values()))
    side = 2 * PICTURE if any(map(_drawn, every)) else PICTURE
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

    sections = [
        {"title": title, "note": note, "total": len(group), "cards": list(map(card, digests))}
        for (title, note), group, digests in zip(_SECTIONS, groups, shown, strict=True)
        if digests
    ]
    summary: dict[str, Any] = {"images_shown": len(results), "images_answered": sum(map(len, groups))}
    summary |= {"images_in_set": len(rows), "with_failures": len(groups[0]), "with_flaws": len(groups[1])}
    title = visible(config.data or str(config.store))
    write_text(config.out, _page(every, described_by, formats, data=title, facts=summary, sections=sections))
    skipped = () if images is None or thumbnails is None else (*images.skipped, *thumbnails.skipped)
    return StoreResult(path=config.out, skipped=skipped, counted=summary)


def _nothing_to_show(config: ViewConfig, store: DescriptionStore) -> StoreError:
    known = sorted({prompt.name for prompt, *_ in store.counts()})
    if config.prompt is not None and known and config.prompt not in known:
        return StoreError(f"{config.store}: no answer to this prompt: {nearest(config.prompt, known)}")
    about = f" about an image of {config.data}; compare both by `descriptions check`" if config.data else ""
    return StoreError(f"{config.store}: there is no answer{about}.")


def _page(every: list[Description], names: dict[str, str], formats: dict[str, dict[str, str]], **others: Any) -> str:
    """Return the page of results; ``names`` of describers and ``formats`` of their boxes are by settings."""
    describers = {canonical_json(one.describer): {**one.describer} for one in every}
    return render(
        "gallery.html",
        prompts=[
            {**vars(prompt), "name": visible(prompt.name), "text": visible(prompt.text)}
            for prompt in sorted({result.prompt for result in every})
        ],
        describers={
            visible(names[key]): {visible(k): visible(str(v)) for k, v in (own | formats.get(key, {})).items()}
            for key, own in sorted(describers.items())
        },
        meanings=MEANINGS,
        **others,
    )


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Return how many of each group to show; the last group gets what the others, a quarter each at most, leave."""
    shares = [0] * len(sizes)
    for number, size in enumerate(sizes[:-1]):
        shares[number] = min(size, max(1, limit // 4), limit - sum(shares))
    for number in reversed(range(len(sizes))):
        shares[number] += min(sizes[number] - shares[number], limit - sum(shares))
    return shares


def _answer(result: Description, describer: str, class_name: str | None) -> dict[str, Any]:
    facts = (
        result.finish_reason,
        None if result.tokens_in is None else f"{result.tokens_in:,} tokens in",
        None if result.tokens_out is None else f"{result.tokens_out:,} tokens out",
        None if result.cost_usd is None else f"${result.cost_usd:.6f}".rstrip("0").rstrip("."),
        None if result.latency_s is None else duration(result.latency_s),
    )
    return {
        "kind": "description" if result.status == "ok" else "no answer" if result.text is None else "rejected",
        "text": visible(result.text or ""),
        "error": visible(result.error or ""),
        "prompt": visible(result.prompt.name),
        "describer": visible(describer),
        "structured": visible(" · ".join(_in_words(result))),
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
        labels = [box["label"] for box in answer.boxes]
        more = ["…"] if len(labels) > _BOXES_IN_WORDS else []
        yield f"{len(labels)} boxes" + (": " if labels else "") + ", ".join(labels[:_BOXES_IN_WORDS] + more)


def _drawn(result: Description) -> list[dict[str, Any]]:
    """Return the boxes of an answer in percent of the picture, with what they are of."""
    drawn: list[dict[str, Any]] = []
    for box in () if result.answer is None or result.status == "failed" else result.answer.boxes or ():
        left, top, right, bottom = (value / 10 for value in box["box_2d"])
        place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        label = visible(box["label"])
        drawn.append({"label": label, "title": label, "place": place})
    return drawn
