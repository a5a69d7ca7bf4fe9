"""The stage ``descriptions view``: a page of images with all that was said about them, what is wrong first."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.errors import ConfigError, StoreError, nearest
from gpt4image.base.files import write_text
from gpt4image.base.visible import visible
from gpt4image.config import Flaw, ViewConfig
from gpt4image.config.results import ViewResult
from gpt4image.data import load_dataset
from gpt4image.describing.class_lists import NONE_OF_THESE
from gpt4image.describing.description_stats import (
    all_results,
    class_names,
    describer_names,
    shown_results,
    stored_flaws,
)
from gpt4image.describing.questions import CLASS
from gpt4image.pages.cards import PICTURE, Thumbnails
from gpt4image.pages.numbers import duration
from gpt4image.pages.page import render

MEANINGS: Mapping[Flaw, str] = {
    "empty": "no letters in it",
    "refusal": "the model or its server would not or could not describe the image",
    "echo": "the prompt given back",
    "loop": "one passage over and over",
    "truncated": "cut off at the limit of tokens",
    "boilerplate": "opens with a stock phrase",
}
_BOXES_DRAWN, _BOXES_IN_WORDS = 100, 20
# An image belongs to the section of its worst answer.
_SECTIONS = (
    ("Rejected and failed", "Answers that are no description, and images without an answer."),
    ("Flawed", "Descriptions that are used, but could be better."),
    ("Good", "Descriptions without a known flaw. Check that they say what is in the picture."),
)


def view(config: ViewConfig) -> ViewResult:
    """Write a page of a random sample of images with their answers, flaws, tokens and cost; what is wrong comes first.

    Images with a failure and images with a flaw fill a quarter of the page each, more only if the others are few.
    Raises ConfigError, DataError, and StoreError where there is nothing to show.
    """
    if config.out.is_dir():
        raise ConfigError(f"--out {config.out}: this is a folder; give the name of an HTML file in it.")
    images = None if config.data is None else load_dataset(config.data)
    names = {} if images is None else class_names(images)
    with DescriptionStore(config.store) as store:
        if images is None:
            rows = {result.digest: [0] for result in all_results(store, config.prompt)}
        else:
            rows: dict[str, list[int]] = {}
            for row, digest in enumerate(images.digests):
                rows.setdefault(digest, []).append(row)
        groups = _groups(store, config, rows, names)
        sizes = [len(group) for group in groups]
        if not any(sizes):
            raise StoreError(_nothing_to_show(store, config))
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
    labels = {digest: visible(names[digest].replace("_", " ")) if digest in names else None for digest in results}
    counts = Counter(labels.values())
    kinds = {name: f"k{number}" for number, name in enumerate(sorted(counts, key=lambda name: (name is None, name)))}

    def card(digest: str) -> dict[str, Any]:
        own = sorted(results[digest], key=lambda one: (one.prompt, canonical_json(one.describer), one.sample))
        row, *twins = rows[digest]
        return {
            "key": visible(digest if images is None else images.keys[row]),
            "twins": len(twins),
            "label": labels[digest],
            "kind": kinds[labels[digest]],
            "picture": None if thumbnails is None else thumbnails.of(row),
            "boxes": list(itertools.chain(*map(_drawn, own)))[:_BOXES_DRAWN],
            "answers": [
                _answer(result, described_by[canonical_json(result.describer)], names.get(digest)) for result in own
            ],
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
                visible(option): visible(str(value)) for option, value in {**settings, **formats.get(key, {})}.items()
            }
            for key, settings in sorted(describers.items())
        },
        meanings=MEANINGS,
        kinds=[{"id": kind, "name": name, "cards": counts[name]} for name, kind in kinds.items()],
    )
    write_text(config.out, page)
    skipped = () if images is None or thumbnails is None else (*images.skipped, *thumbnails.skipped)
    return ViewResult(path=config.out, skipped=skipped, **summary)


def _groups(
    store: DescriptionStore, config: ViewConfig, digests: Iterable[str], names: Mapping[str, str]
) -> list[list[str]]:
    """Return the images of each section, in the order of the dataset."""
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


def _nothing_to_show(store: DescriptionStore, config: ViewConfig) -> str:
    names = sorted({prompt.name for prompt, *_ in store.counts()})
    if not names:
        return f"{config.store}: there is nothing in this store; fill it with `gpt4image describe`."
    if config.prompt is not None and config.prompt not in names:
        return f"{config.store}: no answer to this prompt: {nearest(config.prompt, names)}"
    what = f" with the flaw {config.flaw}" if config.flaw else ""
    about = f" about an image of {config.data}" if config.data else ""
    return (
        f"{config.store}: there is no answer{what}{about}; `gpt4image descriptions stats` shows "
        "what is in the store, `gpt4image descriptions check` what belongs to the dataset."
    )


def _answer(result: Description, describer: str, class_name: str | None) -> dict[str, Any]:
    texts = {
        "text": result.text or "",
        "error": result.error or "",
        "prompt": result.prompt.name,
        "describer": describer,
        "structured": "" if result.answer is None else _in_words(result.prompt, result.answer),
    }
    return {
        "kind": "description" if result.status == "ok" else "no answer" if result.text is None else "rejected",
        **{name: visible(text) for name, text in texts.items()},
        "flaws": stored_flaws(result, class_name),
        "facts": [visible(fact) for fact in _facts(result)],
    }


def _in_words(prompt: Prompt, answer: Answer) -> str:
    """Return class, confidence and tags in one line."""
    parts: list[str] = []
    if CLASS in prompt.ask:
        outside = f"“{answer.said}” (not in the class list)" if answer.is_unmapped else NONE_OF_THESE
        parts.append(answer.class_name or outside)
        for name, share in (("confidence", answer.confidence), ("probability", answer.probability)):
            parts += [] if share is None else [f"{name} {share:.2f}"]
        parts += [] if answer.second is None else [f"second: {answer.second}"]
    if answer.tags:
        parts.append(f"tags: {', '.join(answer.tags)}")
    if answer.boxes is not None:
        each = [f"{box['label']} (“{box['words']}”)" if "words" in box else box["label"] for box in answer.boxes]
        more = ["…"] if len(each) > _BOXES_IN_WORDS else []
        parts.append(f"{len(each)} boxes" + (": " if each else "") + ", ".join(each[:_BOXES_IN_WORDS] + more))
    return " · ".join(parts)


def _drawn(result: Description) -> list[dict[str, Any]]:
    """Return the boxes of an answer in percent of the picture, with what they are of."""
    drawn: list[dict[str, Any]] = []
    for box in () if result.answer is None or result.status == "failed" else result.answer.boxes or ():
        left, top, right, bottom = (value / 10 for value in box["box_2d"])
        title = visible(" · ".join(filter(None, (box["label"], box.get("words")))))
        place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        drawn.append({"label": visible(box["label"]), "title": title, "place": place})
    return drawn


def _facts(result: Description) -> Iterator[str]:
    if result.sample:
        yield f"sample {result.sample + 1}"
    if result.finish_reason is not None:
        yield result.finish_reason
    for name, tokens in (("in", result.tokens_in), ("out", result.tokens_out)):
        if tokens is not None:
            yield f"{tokens:,} tokens {name}"
    if result.cost_usd is not None:
        yield f"${result.cost_usd:.6f}".rstrip("0").rstrip(".")
    if result.latency_s is not None:
        yield duration(result.latency_s)
