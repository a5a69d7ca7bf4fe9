"""The stage ``descriptions view``: a page of images with all that was said about them, what is wrong first."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt4image.artifacts.store import Description, DescriptionStore, canonical_json
from gpt4image.base.errors import ConfigError, DecodeError, StoreError, nearest
from gpt4image.base.files import write_text
from gpt4image.base.outcome import Outcome, SetAside
from gpt4image.base.progress import progress_bar
from gpt4image.base.visible import visible
from gpt4image.config import Flaw, ViewConfig
from gpt4image.data import ImageSet, load_image_set
from gpt4image.describing.description_stats import class_names, describer_names, stored_flaws
from gpt4image.reporting.examples import picture
from gpt4image.reporting.findings import duration
from gpt4image.reporting.page import render

PICTURE = 288
MEANINGS: Mapping[Flaw, str] = {
    "empty": "no letters in it",
    "refusal": "the model or its server would not or could not describe the image",
    "echo": "the prompt given back",
    "loop": "one passage over and over",
    "language": "another language than the prompt's",
    "truncated": "cut off at the limit of tokens",
    "boilerplate": "opens with a stock phrase",
}


@dataclass
class _Group:
    """Images of which the worst answer is alike."""

    title: str
    note: str
    digests: list[str] = field(default_factory=list)


def view(config: ViewConfig) -> Outcome:
    """Write a page of a random sample of images with their answers, flaws, tokens and cost; what is wrong comes first.

    Images with a failure and images with a flaw fill a quarter of the page each, more only where the others are few.

    Raises:
        ConfigError: the file is a folder.
        DataError: the image set cannot be read.
        StoreError: there is no store, or no answer in it is about an image of the set, to the prompt and with the flaw
            that were asked for.
    """
    if config.out.is_dir():
        raise ConfigError(f"--out {config.out}: this is a folder; give the name of an HTML file in it.")
    images = None if config.data is None else load_image_set(config.data)
    keys: dict[str, list[str]] = {}
    if images is not None:
        for key, digest in zip(images.keys, images.digests, strict=True):
            keys.setdefault(digest, []).append(key)
    names = {} if images is None else class_names(images)
    with DescriptionStore(config.store) as store:
        if images is None:
            keys = {result.digest: [result.digest] for result in _all(store, config.prompt)}
        groups = _groups(store, config, keys.keys(), names)
        sizes = [len(group.digests) for group in groups]
        if not any(sizes):
            raise StoreError(_nothing_to_show(store, config))
        shown = _sample(groups, config.limit, config.seed)
        results = _results(store, list(itertools.chain(*shown)), config.prompt)
    cards = _Cards(images, keys, names, results)
    sections = [
        {
            "title": group.title,
            "note": group.note,
            "total": len(group.digests),
            "cards": [cards.card(digest) for digest in digests],
        }
        for group, digests in zip(groups, shown, strict=True)
        if digests
    ]
    summary = {
        "images_shown": sum(map(len, shown)),
        "images_answered": sum(sizes),
        "images_in_set": len(keys),
        "with_failures": sizes[0],
        "with_flaws": sizes[1],
    }
    page = render(
        "gallery.html",
        data=visible(config.data or str(config.store)),
        flaw=config.flaw,
        facts=summary,
        sections=sections,
        prompts=cards.prompts(),
        describers=cards.describers(),
        meanings=MEANINGS,
    )
    write_text(config.out, page)
    unread = () if images is None else images.set_aside
    return Outcome(path=config.out, summary=summary, set_aside=(*unread, *cards.set_aside))


def _groups(
    store: DescriptionStore, config: ViewConfig, digests: Iterable[str], names: Mapping[str, str]
) -> tuple[_Group, ...]:
    """Return the images that have answers by the worst of them, in the order of the set."""
    groups = (
        _Group("Rejected and failed", "An answer that is no description, or none at all."),
        _Group("Flawed", "Descriptions that are kept, but could be better."),
        _Group("Good", "Descriptions without a known flaw: do they say what is in the picture?"),
    )
    worst: dict[str, int] = {}
    with progress_bar() as bar:
        task = bar.add_task("judge", total=sum(count for *_, count in store.counts()), note="")
        for result in _all(store, config.prompt):
            bar.update(task, advance=1)
            found = stored_flaws(result, names.get(result.digest))
            if config.flaw is None or config.flaw in found:
                rank = 0 if result.status == "failed" else 1 if found else 2
                worst[result.digest] = min(rank, worst.get(result.digest, rank))
    for digest in digests:
        if digest in worst:
            groups[worst[digest]].digests.append(digest)
    return groups


def _all(store: DescriptionStore, prompt: str | None, digests: Sequence[str] | None = None) -> Iterator[Description]:
    yield from store.descriptions(prompt_name=prompt, digests=digests)
    yield from store.descriptions(prompt_name=prompt, digests=digests, status="failed")


def _results(store: DescriptionStore, digests: Sequence[str], prompt: str | None) -> dict[str, list[Description]]:
    """Return the answers about each image, ordered by prompt, describer and sample."""
    found: dict[str, list[Description]] = {digest: [] for digest in digests}
    for result in _all(store, prompt, digests):
        found[result.digest].append(result)
    for results in found.values():
        results.sort(key=lambda result: (result.prompt, canonical_json(result.describer), result.sample))
    return found


def _sample(groups: Sequence[_Group], limit: int, seed: int) -> list[list[str]]:
    """Return which images of each group to show, in the order of the set."""
    rng = random.Random(seed)
    sizes = [len(group.digests) for group in groups]
    return [
        [group.digests[place] for place in sorted(rng.sample(range(size), share))]
        for group, size, share in zip(groups, sizes, _shares(sizes, limit), strict=True)
    ]


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
        "what is in the store, `gpt4image descriptions check` what belongs to the set."
    )


class _Cards:
    """What the page says of each image.

    Attributes:
        set_aside: images of which no picture can be made.
    """

    def __init__(
        self,
        images: ImageSet | None,
        keys: Mapping[str, Sequence[str]],
        names: Mapping[str, str],
        results: Mapping[str, Sequence[Description]],
    ) -> None:
        self._images = images
        digests = () if images is None else images.digests
        self._row_of = dict(zip(reversed(digests), reversed(range(len(digests))), strict=True))
        self._keys = keys
        self._names = names
        self._results = results
        self._described_by = describer_names(result.describer for result in self._all_results())
        self.set_aside: list[SetAside] = []

    def card(self, digest: str) -> dict[str, Any]:
        """Return one image with its answers."""
        name = self._names.get(digest)
        return {
            "key": visible(self._keys[digest][0]),
            "twins": len(self._keys[digest]) - 1,
            "label": None if name is None else visible(name.replace("_", " ")),
            "picture": self._picture(digest),
            "answers": [self._answer(result, name) for result in self._results[digest]],
        }

    def prompts(self) -> list[dict[str, Any]]:
        """Return what was asked, in the order of names."""
        return [
            {
                "name": visible(prompt.name),
                "version": prompt.version,
                "text": visible(prompt.text),
                "class_conditioned": prompt.class_conditioned,
            }
            for prompt in sorted({result.prompt for result in self._all_results()})
        ]

    def describers(self) -> dict[str, dict[str, str]]:
        """Return the settings of each describer by its name."""
        settings = {canonical_json(result.describer): result.describer for result in self._all_results()}
        return {
            visible(self._described_by[key]): {
                visible(option): visible(str(value)) for option, value in options.items()
            }
            for key, options in sorted(settings.items())
        }

    def _all_results(self) -> Iterator[Description]:
        return itertools.chain(*self._results.values())

    def _picture(self, digest: str) -> str | None:
        if self._images is None:
            return None
        row = self._row_of[digest]
        try:
            return picture(self._images.read(row), PICTURE)
        except (DecodeError, OSError) as error:
            self.set_aside.append(SetAside(name=self._images.keys[row], reason=str(error)))
            return None

    def _answer(self, result: Description, class_name: str | None) -> dict[str, Any]:
        return {
            "kind": "no answer" if result.text is None else "rejected" if result.error is not None else "description",
            "text": visible(result.text or ""),
            "error": visible(result.error or ""),
            "prompt": visible(result.prompt.name),
            "describer": visible(self._described_by[canonical_json(result.describer)]),
            "flaws": stored_flaws(result, class_name),
            "facts": [visible(fact) for fact in _facts(result)],
        }


def _facts(result: Description) -> Iterator[str]:
    if result.sample:
        yield f"sample {result.sample + 1}"
    if result.finish_reason is not None:
        yield result.finish_reason
    if result.tokens_in is not None:
        yield f"{result.tokens_in:,} tokens in"
    if result.tokens_out is not None:
        yield f"{result.tokens_out:,} tokens out"
    if result.cost_usd is not None:
        yield f"${result.cost_usd:.6f}".rstrip("0").rstrip(".")
    if result.latency_s is not None:
        yield duration(result.latency_s)
