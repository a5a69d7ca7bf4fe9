"""One sitting at the page: what is labelled, what is worth a look next, and a ranker that is fitted meanwhile."""

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gpt4image.base.errors import ConfigError, Gpt4ImageError, first_line, nearest
from gpt4image.base.interrupts import Stopped, stopped_by
from gpt4image.data.dataset import DOUBT, RANDOM
from gpt4image.data.labels import SEPARATOR, class_name
from gpt4image.data.video import picture_of
from gpt4image.reviewing.labels_file import NOTES, LabelsFile, Mark, cell_of, value_of
from gpt4image.reviewing.queue import Proposal, Ranker, Ranking
from gpt4image.selecting.order import at_random

MOST_SHOWN = 96
LONGEST_NAME = 200
EVERY = 4  # one of so many images on a page is sampled at random, to measure
PAUSE = 2.0  # seconds between two fits, at least


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the page shows of one image; ``likely`` are its most probable classes, best first.

    A label is a class name, empty for none; or a list of names or of boxes, None for none, see ``value_of``. An image
    that is sampled at random comes without a proposal, so that its label does not depend on one; boxes are corrected.
    """

    id: str
    key: str
    label: Any
    note: str
    proposal: Any
    share: float
    reason: str
    likely: Sequence[str]
    sampled: str


class Session:
    """The labels of distinct images, by digest. Safe to call from several threads.

    ``classes`` are names to choose from, new ones may be added if ``is_open``; ``changes`` says how many clicks there
    were, ``learning`` whether nothing is learned from the evidence yet, ``headline`` what stands above the images of an
    audit.
    """

    def __init__(self, file: LabelsFile, ranker: Ranker, classes: Sequence[str], *, is_open: bool) -> None:
        """Order the images; what is learned from the evidence follows meanwhile."""
        self.digests = list(file.distinct.digests)
        self._item = {digest: item for item, digest in enumerate(self.digests)}
        self.file, self._ranker, self.classes, self.is_open = file, ranker, list(classes), is_open
        self.headline: Callable[[], str] = str
        self.changes = 0
        self._changed: dict[int, int] = {}
        self._random = at_random(self.digests).tolist()
        self._place = {item: place for place, item in enumerate(self._random)}
        self._drawn = frozenset[int]()  # on the page, sampled at random
        self._train = (file.distinct.splits == "train").tolist()
        self._lock, self._stale, self._ended = threading.RLock(), threading.Event(), threading.Event()
        self._fault = ""
        self._count: Counter[str] = Counter()
        for item in range(len(self.digests)):
            self._tally(self._mark(item), 1)
        self._take(ranker.ranking(*self._known(), learn=False))
        self.learning = ranker.learns
        self._wrong_before = None if self.learning else self._ranking.wrong
        if self.learning:
            self._stale.set()
        self._thread = threading.Thread(target=self._keep_fitting, name="ranker", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop fitting, in the middle where need be; when this returns, nothing runs."""
        self._ended.set()
        self._stale.set()
        self._thread.join()

    def mark(self, wanted: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
        """Give images, by digest, a label and a note; when this returns, it is on disk. Return what they had before."""
        with self._lock:
            classes = list(self.classes)

            def name_of(name: str) -> str:
                found = self._class_name(name, classes)
                classes.extend([found] * (found not in classes))
                return found

            marks = dict[int, Mark]()
            for digest, (value, note) in wanted.items():
                if note not in NOTES:
                    raise ConfigError(f"note {nearest(note, NOTES)}")
                item = self._known_item(digest)
                marks[item] = Mark(cell_of(self.file.kind, value, name_of), note, self._why(item, bool(note)))
            places = (self._place[item] for item, mark in marks.items() if mark.sampled == RANDOM)
            # What lies before it in the random order and was in doubt is sampled at random, too.
            passed = {item: self._mark(item) for item in self._random[: max(places, default=0)] if item not in marks}
            passed = {item: mark._replace(sampled=RANDOM) for item, mark in passed.items() if mark.sampled == DOUBT}
            every = marks | passed
            before = {item: self._mark(item) for item in every}
            self.file.set({row: mark for item, mark in every.items() for row in self.file.copies[item]})
            for item, mark in every.items():
                self._tally(before[item], -1)
                self._tally(mark, 1)
            self.classes = classes
            self.changes += 1
            self._changed |= dict.fromkeys(marks, self.changes)
            if self._ranking.classes is None:
                self._stale.set()
            else:  # names of clusters: the next click may take one over
                self._take(self._ranker.ranking(*self._known()))
            return {self.digests[item]: (self._value(before[item]), before[item].note) for item in marks}

    def cards(self, mode: str, count: int) -> list[Card]:
        """Return the images to look at next, most valuable first; those that somebody was not sure of come last."""
        with self._lock:
            wanted = [(item, self._mark(item)) for item in self._queue(mode)]
            sure = [item for item, mark in wanted if mark.note != "unsure"]
            if mode != "correct" and self._ranking.classes is None:
                sure = self._page(sure, min(count, MOST_SHOWN))
            chosen = [*sure, *(item for item, mark in wanted if mark.note == "unsure")][: min(count, MOST_SHOWN)]
            return [self._card(item) for item in chosen]

    def card(self, digest: str) -> Card:
        """Return one image. Raises ConfigError: it is not known."""
        with self._lock:
            return self._card(self._known_item(digest))

    def picture(self, digest: str, side: int) -> Image.Image:
        """Return one image of about ``side`` pixels or more, or frames of a clip."""
        images = self.file.images
        return picture_of(images.read(self._row(self._known_item(digest))), clips=images.clips, draft_side=side)

    def news(self, since: int) -> dict[str, Any]:
        """Return what changed after change number ``since``, and how far the work is."""
        with self._lock:
            marks = {item: self._mark(item) for item, number in self._changed.items() if number > since}
            return {
                "changes": self.changes,
                "marks": {
                    self.digests[item]: {"label": self._value(mark), "note": mark.note} for item, mark in marks.items()
                },
                "classes": self.classes,
                "open": self.is_open,
                "total": len(self.digests),
                **{name: self._count[name] for name in ("labelled", "checked", "unsure", RANDOM)},
                "suspects": len(self._unchecked(self._ranking.labelled[: self._ranking.suspects])),
                "wrong": self._ranking.wrong,
                "wrong_before": self._wrong_before,
                "learning": self.learning,
                "fault": self._fault,
                "headline": self.headline(),
                "likely": {}
                if self._ranking.classes is None
                else {digest: self._ranking.proposal_of(item).likely for item, digest in enumerate(self.digests)},
            }

    def _take(self, ranking: Ranking) -> None:
        self._ranking = ranking
        if ranking.classes is not None:
            self.classes = list(ranking.classes)

    def _queue(self, mode: str) -> list[int]:
        if self._ranking.classes is not None:
            return list(self._ranking.order)
        if mode == "correct":
            return self._unchecked(self._ranking.labelled)
        # An image that lost its label again is not in the order until the next fit.
        order = dict.fromkeys([*self._ranking.order, *self._changed])
        return [item for item in order if not self._mark(item).label]

    def _page(self, items: Sequence[int], count: int) -> list[int]:
        """Return the images of a page: each ``EVERY``-th one at random, the others by doubt; only of train, as labels
        of other splits measure."""
        there = set(items)
        by_chance = [item for item in self._random if item in there]
        drawn = by_chance[: min(count, len(items)) // EVERY]
        doubt = [item for item in items if self._train[item] and item not in drawn] if self._ranking.by_doubt else []
        if len(doubt) < count - len(drawn):
            drawn = [item for item in by_chance if item not in doubt][: count - len(doubt)]
        self._drawn = frozenset(drawn)
        page, left = list[int](), iter(drawn)
        for item in doubt[: count - len(drawn)]:
            page += [item, *(itertools.islice(left, 1) if len(page) % EVERY == EVERY - 2 else ())]
        return [*page, *left]

    def _why(self, item: int, given: bool) -> str:
        """Return why a person is asked about an image, of which the answer is ``given`` or taken back."""
        mark = self._mark(item)
        if not given or mark.note or (mark.label and not mark.sampled):
            return mark.sampled if given else ""
        return RANDOM if item in self._drawn else DOUBT

    def _row(self, item: int) -> int:
        return self.file.copies[item][0]

    def _unchecked(self, items: Sequence[int]) -> list[int]:
        return [item for item in items if self._mark(item).note != "checked" and self._mark(item).label]

    def _tally(self, mark: Mark, sign: int) -> None:
        at_random = sign * bool(mark.label and mark.sampled == RANDOM)
        self._count.update({"labelled": sign * bool(mark.label), mark.note: sign, RANDOM: at_random})

    def _mark(self, item: int) -> Mark:
        return self.file[self._row(item)]

    def _value(self, mark: Mark) -> Any:
        return value_of(self.file.kind, mark.label)

    def _card(self, item: int) -> Card:
        mark, key = self._mark(item), self.file.images.keys[self._row(item)]
        proposal, why = self._ranking.proposal_of(item), mark.sampled or (RANDOM if item in self._drawn else "")
        if why == RANDOM and not mark.label and self.file.kind != "detection" and self._ranking.classes is None:
            proposal = Proposal(value_of(self.file.kind, ""))
        value = self._value(mark)
        return Card(id=self.digests[item], key=key, label=value, note=mark.note, sampled=why, **proposal._asdict())

    def _known_item(self, digest: str) -> int:
        if digest not in self._item:
            raise ConfigError(f"image {digest[:80]!r} is not in {self.file.images.spec}; load the page anew.")
        return self._item[digest]

    def _class_name(self, name: str, classes: Sequence[str]) -> str:
        """Return the class of that name; a new one only where new ones may be added."""
        if name in classes:
            return name
        if not self.is_open:
            raise ConfigError(f"class {nearest(name[:LONGEST_NAME], classes)}")
        return new_class(name, classes)

    def _known(self) -> tuple[list[str], list[str]]:
        with self._lock:
            return [self._mark(item).label for item in range(len(self.digests))], list(self.classes)

    def _keep_fitting(self) -> None:
        with contextlib.suppress(Stopped), stopped_by(self._ended):
            while self._stale.wait() and not self._ended.is_set():
                self._stale.clear()
                self._fit()

    def _fit(self) -> None:
        started = time.monotonic()
        try:
            ranking = self._ranker.ranking(*self._known())
        except Exception as error:  # noqa: BLE001  (of a library, too: without this thread the order stays as it is)
            known = isinstance(error, Gpt4ImageError)
            self.learning = False
            self._fault = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
        else:
            with self._lock:
                self._ranking, self._fault, self.learning = ranking, "", False
                self._wrong_before = ranking.wrong if self._wrong_before is None else self._wrong_before
        self._ended.wait(max(PAUSE, time.monotonic() - started))


def new_class(name: str, classes: Sequence[str]) -> str:
    """Return the name of a new class, or the class that it differs from only in case."""
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME or not class_name(name) or not name.isprintable() or SEPARATOR in name:
        raise ConfigError(
            f"class {name[:80]!r}: give a name of 1 to {LONGEST_NAME} visible characters, without {SEPARATOR!r}."
        )
    return next((known for known in classes if known.casefold() == name.casefold()), name)
