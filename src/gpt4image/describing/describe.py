"""The stage ``describe``: ask a describer about every image that has no description yet, and keep the answers.

Each answer is on disk before the describer may send another call in its place, so that a kill costs at most the calls
in flight. Answers that arrive together share a transaction.
"""

import contextlib
import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np

from gpt4image.artifacts import answers
from gpt4image.artifacts.answers import AS_ASKED, BOXES, CLASS, DESCRIPTION, TAGS, fill, load_prompt
from gpt4image.artifacts.class_lists import ClassNames, class_list, class_names, compare_with, readable
from gpt4image.artifacts.store import (
    OUTSIDE_LIST,
    ClassOption,
    Description,
    DescriptionStore,
    Prompt,
    Spent,
    canonical_json,
)
from gpt4image.base.errors import ConfigError, DecodeError, DescriberError, first_few
from gpt4image.base.interrupts import Interrupt, deferred_interrupt
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar, say
from gpt4image.base.secrets import hidden
from gpt4image.config import DescribeConfig, Flaw
from gpt4image.config.base import listed
from gpt4image.config.results import DescribeResult
from gpt4image.data import SPLITS, Dataset
from gpt4image.data.decode import sides
from gpt4image.data.masks import UNSEEN
from gpt4image.data.regions import Masks
from gpt4image.describing.answer_json import CUT_OFF, REJECTED, flaws, parse_answer, valid, without_thoughts
from gpt4image.describing.asking import Asking, Budget, Missing, asked_images, brings, find_missing, is_shorter
from gpt4image.describing.boxes import box_facts, find_box_format, probed_images
from gpt4image.describing.cascade import describe_in_turn
from gpt4image.describing.describers.base import Answer, Describer, Example, Name
from gpt4image.describing.describers.batch import BatchDescriber, Ledger
from gpt4image.describing.describers.images import bounded, data_url
from gpt4image.describing.describers.openai.describer import OpenAIDescriber
from gpt4image.describing.describers.registry import SERVERS, load_describer
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.describers.sheets import SheetDescriber
from gpt4image.describing.order import ROUND, Order, order_of, round_size
from gpt4image.describing.prices import HALF_PRICE, bill
from gpt4image.describing.questions import MOST_OFFERED, asks_of_list, tags_of_list
from gpt4image.labelling.pictures import FEATURES

_HOW_TO_SETTLE = "If your bill says less, give what it says: --dry-run --billed USD."
_AN_EARLIER_RUN = "an earlier run rejected the answer; --retry-rejected asks again"
ROWS_OF_ESTIMATE = 2000
USELESS = 50
"""Images whose answers are of no use, twice each, before a run without one good answer ends."""
MOST_EXAMPLES, EXAMPLE_SIDE = 300, 192
"""Maximum examples of a question, and the longer side of each in pixels."""
PIXELS_PER_TOKEN = 23
"""Of a picture, where a model takes most tokens: gpt-4o-mini 25,500 for 768 x 768; most take a thirtieth."""
LOW_SIDE = 512


def describe(config: DescribeConfig, only: Collection[str] | None = None, *, exactly: bool = False) -> DescribeResult:
    """Ask one describer, or two in turn; about the images with the digests ``only``, which is of one alone.

    ``exactly``: answers to other questions do not count, whatever they bring. Raises ConfigError, DataError,
    DescriberError, StoreError.
    """
    if config.second_describer is None:
        return _describe(config, only, exactly=exactly)
    return describe_in_turn(config, _describe)


def _describe(config: DescribeConfig, only: Collection[str] | None = None, *, exactly: bool = False) -> DescribeResult:
    """Ask about the images of a dataset what this describer has not answered yet for these prompts and classes.

    However it ends, every answer that came is in the store. ``only``: digests of the images to ask about, None for all.
    """
    prompts = _checked_prompts(config)
    describer = BatchDescriber(config) if _through_batches(config) else load_describer(config)
    budget = Budget(limit=config.limit, max_cost=config.max_cost, price=describer.price, max_tokens=config.max_tokens)
    dataset, images = asked_images(config, config.data)
    if dataset.clips and config.per_call > 1 and not config.contact_sheet:
        raise ConfigError(f"--per-call {config.per_call}: a clip has to be one picture for that; add --contact-sheet.")
    if isinstance(describer, ReplayDescriber):
        describer.require_answers(dataset, listed(config.ask))
    if only is not None:
        images = images.select(np.array([row for row, digest in enumerate(images.digests) if digest in only], np.int64))
    classes = classes_of(config, images, replayed=isinstance(describer, ReplayDescriber))
    if config.engine == "ray":
        from gpt4image.describing.describers.ray import RayDescriber

        describer = RayDescriber(config, images)
    prompts = [fill(prompt, images.classes) for prompt in prompts]
    with DescriptionStore(config.store, write=True) as store:
        if config.examples:
            _show_examples(describer, config, store, dataset, classes)
        run = _Run(config, store, describer, dataset, images, budget, classes, exactly)
        run.find_missing(prompts)
        if config.share is not None:
            left = max(0, math.ceil(config.share * run.wanted) - run.already)
            budget.limit = left if config.limit is None else min(left, config.limit)
        run.find_order()
        store.note_dataset(hidden(config.data))
        if config.billed is not None:
            store.note_bill(config.billed)
        spent = Spent() if budget.is_free else store.spent(run.settings)
        # What is in a batch is noted by its ledger; other calls are noted before they are sent.
        is_noted = budget.is_free or _through_batches(config)
        noting = contextlib.nullcontext() if is_noted else store.cost_notes(run.settings)
        with noting as note, deferred_interrupt() as interrupt:
            budget.begin(spent, note, most_in=_most_tokens(config, images, len(classes)))
            if spent.calls:
                say(
                    f"An earlier run was killed with up to {spent.calls:,} calls in flight. Nobody knows what they "
                    f"cost; with lost ones they count as ${budget.uncertain:,.4f}. {_HOW_TO_SETTLE}"
                )
            if config.dry_run:
                return run.estimate()
            try:
                run.ask_all(interrupt)
            except DescriberError:  # after all calls in flight have ended
                budget.end()
                raise
            budget.end()
        store.require_in_place()
        if interrupt.requested:
            raise KeyboardInterrupt
        return run.outcome()


def _most_tokens(config: DescribeConfig, images: Dataset, classes: int) -> int:
    """Return how many tokens a request may take besides its question, by the size of its texts and pictures."""
    side = min(config.max_side, LOW_SIDE) if config.detail == "low" else config.max_side
    frames = config.frames if images.clips and not config.contact_sheet else 1
    pixels = frames * side**2 + config.examples * classes * EXAMPLE_SIDE**2
    return pixels // PIXELS_PER_TOKEN + len(f"{config.system}{canonical_json(config.extra_body)}".encode())


def _checked_prompts(config: DescribeConfig) -> list[Prompt]:
    """Return the prompts. Raises ConfigError: one is unknown, or options do not go together."""
    prompts, ask = [load_prompt(name) for name in config.prompt], listed(config.ask)
    names, kind = [prompt.name for prompt in prompts], config.describer.partition(":")[0]
    telling = first_few(prompt.name for prompt in prompts if prompt.class_conditioned)
    unknown = first_few(prompt.name for prompt in prompts if not prompt.text)
    asked, given, sheet = f"--ask {config.ask}", f"--prompt {' '.join(config.prompt)}", f"--per-call {config.per_call}"
    structured, sheets, alone = ask != (DESCRIPTION,), config.per_call > 1, config.engine == "local"
    servers = ", ".join(f"{name}:" for name in SERVERS)
    for is_wrong, reason in (
        (not names or len(set(names)) < len(names), f"{given}: at least one prompt is needed, each name once."),
        (structured and len(names) > 1, f"{asked} goes with one --prompt, not with {given[9:]}."),
        (CLASS in ask and telling, f"{asked}: the prompt {telling} tells the class; use another prompt."),
        (sheets and telling, f"{sheet}: the prompt {telling} tells the class; use another."),
        (
            config.batch and kind != "openai",
            f"--batch goes with openai:MODEL, not with {config.describer}; leave it out.",
        ),
        (config.batch and sheets, f"--batch sends one image per request; leave out {sheet}."),
        (config.batch and not alone, "--batch sends everything from here; leave out --engine ray."),
        (config.billed is not None and not config.dry_run, f"--billed {config.billed} goes with --dry-run; add it."),
        (config.examples and CLASS not in ask, f"--examples shows what classes look like; add class to {asked}."),
        (
            config.examples and not (alone and kind in SERVERS),
            f"--examples goes with {servers} and --engine local; leave it out.",
        ),
        (
            unknown and kind != "replay",
            f"--prompt: nothing is known to ask for {unknown}; give a text file with the question, or one of the named "
            "prompts (see `gpt4image describe --help`).",
        ),
    ):
        if is_wrong:
            raise ConfigError(reason)
    return prompts


def choose_examples(
    dataset: Dataset, classes: Sequence[ClassOption], per_class: int, earlier: Iterable[Mapping[str, str]]
) -> list[Example]:
    """Return ``per_class`` labelled training pictures of each class that has some, the same for every question.

    Servers keep such a beginning, so it costs little from the second call on. ``earlier`` examples (class by digest)
    stay if all of them still hold, so that new labels do not make every answer worthless.
    """
    names, label_of, row_of = ClassNames(option.name for option in classes), dict[str, str](), dict[str, int]()
    for row in np.flatnonzero((dataset.splits == "train") & dataset.labelled).tolist():
        digest, name = dataset.digests[row], names.find(dataset.label_names(row)[0])
        row_of[digest] = row
        label_of[digest] = name if name is not None and label_of.get(digest, name) == name else ""
    known = {digest: name for digest, name in label_of.items() if name}
    if per_class * len(set(known.values())) > MOST_EXAMPLES:
        raise ConfigError(
            f"--examples {per_class}: {per_class * len(set(known.values())):,} pictures would go with every question, "
            f"and {MOST_EXAMPLES} is the maximum; give fewer, or leave it out."
        )
    for pairs in earlier:
        counts = Counter(pairs.values())
        if pairs.items() <= known.items() and {*counts} == {*known.values()} and max(counts.values()) == per_class:
            known = dict(pairs)
            break
    found, taken = list[Example](), Counter[str]()
    for digest, name in sorted(known.items(), key=lambda pair: pair[0][16:32]):  # as if shuffled
        if taken[name] < per_class:
            try:
                picture = bounded(dataset.read(row_of[digest]), EXAMPLE_SIDE)
            except (DecodeError, OSError):
                continue
            found.append(Example(digest, name, data_url(picture, "jpeg")))
            taken[name] += 1
    if not found:
        raise ConfigError("--examples needs labelled training images, and there is none; label a few, or leave it out.")
    if without := [option.name for option in classes if not taken[option.name]]:
        say(f"--examples: no labelled training image of {first_few(map(readable, without))}, so no example of it.")
    return found


def _show_examples(
    describer: Describer,
    config: DescribeConfig,
    store: DescriptionStore,
    dataset: Dataset,
    classes: Sequence[ClassOption],
) -> None:
    if dataset.labels.ndim == 2:
        raise ConfigError(f"--examples needs one class per image, but images of {config.data} have several.")
    examples = choose_examples(dataset, classes, config.examples, store.examples().values())
    server = describer.asked if isinstance(describer, SheetDescriber) else describer
    assert isinstance(server, OpenAIDescriber)  # noqa: S101  (others were refused)
    server.show(examples)
    store.note_examples(describer.settings, {example.digest: example.class_name for example in examples})


def _through_batches(config: DescribeConfig) -> bool:
    return config.batch and not config.dry_run  # a sample is worth its full price: nobody waits a day for it


def classes_of(config: DescribeConfig, images: Dataset, *, replayed: bool) -> tuple[ClassOption, ...]:
    """Return the classes to choose from. Tags are words where images have one class, and in a file as they stand."""
    ask = listed(config.ask)
    if {CLASS, BOXES, TAGS}.isdisjoint(ask) and config.classes is not None:
        raise ConfigError(
            f"--classes belongs to --ask class, tags and boxes, but --ask is {config.ask}; add one of them."
        )
    offered = tuple(map(ClassOption, images.classes)) if config.classes is None else class_list(config.classes)
    if isinstance(images.regions, Masks):
        offered = tuple(option for option in offered if option.name.lower() not in UNSEEN)
    if CLASS in ask and not offered:
        raise ConfigError(f"--ask {config.ask}: {config.data} has no classes; give a list or a file as --classes.")
    differs = "" if config.classes is None else compare_with(offered, images.classes, config.data)
    if differs:
        say(f"{differs}.")
    chosen = images.labels.ndim == 2 and not replayed and len(offered) <= MOST_OFFERED
    words = not asks_of_list(ask) and (TAGS not in ask or (config.classes is None and not chosen))
    return () if words else offered


@dataclass(frozen=True)
class Judged:
    """What of an answer is stored."""

    text: str | None = None  # the description; of a rejected answer, all that the model wrote
    answer: answers.Answer | None = None
    error: str | None = None  # why it is no answer
    outside_list: bool = False  # it is one, except that its class is not in the list


def judge(answer: Answer, *, last_try: bool) -> Judged:
    """Return what of an answer is stored. Its class may be outside the list only at the ``last_try``."""
    prompt = answer.request.prompt
    if answer.error is not None or answer.text is None:
        return Judged(error=valid(answer.error or "no answer"))
    text, structured, broken = without_thoughts(valid(answer.text)), None, None
    if prompt.ask != (DESCRIPTION,):
        parsed = parse_answer(text, prompt, class_names(prompt.class_names))
        if isinstance(parsed, str):
            broken = parsed + _at_limit(answer)
        else:
            text, structured = parsed.description, parsed.answer
            if structured.boxes is not None:
                structured = replace(structured, picture=(0, 0))  # where it cannot be read any more
                with contextlib.suppress(OSError, DecodeError):
                    structured = replace(structured, picture=sides(answer.request.read()))
    if text is not None:
        found = flaws(text, finish_reason=answer.finish_reason, question=answer.request.question)
        flaw = next((flaw for flaw in found if flaw in REJECTED), None)
        if flaw is not None or broken is not None:
            return Judged(text, structured, flaw if flaw is not None else broken)
    if structured is not None and structured.is_unmapped and not last_try:
        return Judged(text or valid(answer.text), structured, f"{OUTSIDE_LIST}: {structured.said}", True)
    return Judged(text, structured)


def _at_limit(answer: Answer) -> str:
    """Return what mends an answer that was cut: the thoughts of a reasoning model may take all of its tokens."""
    return "; it ends at the limit of tokens (--max-tokens)" if answer.finish_reason == CUT_OFF else ""


@dataclass
class _Run:
    """Asks, judges and commits answers as they arrive, and counts them.

    Of the whole ``dataset``, ``images`` are asked about. ``sent`` is what is pending in a batch, ``tried`` what of it
    is the second try of a rejected answer.
    """

    config: DescribeConfig
    store: DescriptionStore
    describer: Describer
    dataset: Dataset
    images: Dataset
    budget: Budget
    classes: tuple[ClassOption, ...]
    exactly: bool = False

    def __post_init__(self) -> None:
        self.ask, self.settings = listed(self.config.ask), self.describer.settings
        self.digests = set(self.images.digests)
        self.sent, self.tried, self.askings = dict[Name, float](), set[Name](), list[Asking]()
        self.described, self.kinds, self.with_boxes = Counter[str](), Counter[str](), set[str]()
        self.failed, self.rejected = dict[Name, list[Skipped]](), dict[Name, list[Skipped]]()
        self.probed: Mapping[str, Any] = {}
        self.useless = 0  # images whose last answer was rejected
        self.order: Order | None = None
        self.gained = False  # whether more calls are expected to bring less than what is wished
        # Whether stopping saves calls: recorded answers cost nothing, and a batch was sent whole.
        self.stoppable = self.settings.get("kind") != "replay" and not _through_batches(self.config)

    def find_missing(self, prompts: Sequence[Prompt]) -> None:
        """Find out what is missing. Raises ConfigError: it is pending in a batch and would be paid for again."""
        config, store, classes = self.config, self.store, self.classes
        of_list = classes if tags_of_list(self.ask, classes) or asks_of_list(self.ask) else ()
        known: Any = {"digests": self.digests, "retry_rejected": config.retry_rejected, "exactly": self.exactly}
        self.missing, self.already = find_missing(store, self.settings, prompts, self.ask, of_list, **known)
        self.wanted = len(self.digests) * len(prompts)
        if not self.budget.is_free:
            for one in self.missing:
                inputs = store.inputs(one.prompt, self.settings)
                self.budget.learn(one.prompt, [tokens for digest, tokens in inputs if digest in self.digests])
        if not config.dry_run:
            self._look_for_batches(prompts, of_list)
        self._warn_of_other_servers(lambda other: find_missing(store, other, prompts, self.ask, of_list, **known)[0])
        shorter = [prompt for prompt in store.prompts() if is_shorter(prompt, classes)]
        answered = {digest for prompt in shorter for digest, _ in store.settled(prompt, self.settings)} & self.digests
        again = set[str]().union(*(one.lacking & answered for one in self.missing if CLASS in one.prompt.ask))
        if again:
            say(
                f"Classes came to the list later: of {len(answered):,} images with an answer, {len(again):,} may be of "
                "an added class and are asked again; the others keep theirs."
            )
        if BOXES in self.ask and config.box_format != "auto":
            store.set_box_format(self.settings, config.box_format, {"given": True})
        if self.wanted > self.already:
            store.require_whole()

    def _look_for_batches(self, bases: Sequence[Prompt], classes: Sequence[ClassOption]) -> None:
        """Refuse what is pending in a batch and would be paid for again; a run through batches waits for its own."""
        mine = {one.prompt: one for one in self.missing} if _through_batches(self.config) else {}
        with Ledger(self.config.store, self.settings) as ledger:
            sent, batches = ledger.pending(self.store.prompts())
        lacking, doubled = set[str]().union(*(one.lacking for one in self.missing)), set[str]()
        for prompt, digests in sent.items():
            if (own := mine.get(prompt)) is not None:
                again = (digests.keys() & own.lacking) - own.wanted
                own.wanted |= again
                self.sent |= {(digest, prompt): usd for digest, usd in digests.items()}
                self.tried |= {(digest, prompt) for digest in again}
            elif any(brings(prompt, part, base, self.ask, classes) for base in bases for part in self.ask):
                doubled |= digests.keys() & lacking
        if doubled:
            raise ConfigError(
                f"{len(doubled):,} images are pending in {first_few(batches)} of the Batch API, and would be paid for "
                "a second time. Collect them first, with --batch and the same --ask, --classes and --prompt as then. "
                "To give them up, cancel what still runs at the server, then give --batch once "
                "more: it keeps what was done by then. Where answers cannot be had, add --retry-rejected."
            )

    def _warn_of_other_servers(self, missing_by: Callable[[Mapping[str, Any]], Sequence[Missing]]) -> None:
        """Say how many images are asked about anew only because the server of the same model has another name."""
        wanted = set[str]().union(*(one.wanted for one in self.missing))
        for other in self.store.describers() if wanted else ():
            if other == self.settings or {**other, "server": self.settings.get("server")} != self.settings:
                continue
            answered = wanted.difference(*(one.lacking for one in missing_by(other)))
            with Ledger(self.config.store, other) as ledger:
                pending = ledger.pending([one.prompt for one in self.missing])[0]
            if answered := answered | wanted.intersection(itertools.chain(*pending.values())):
                say(
                    f"{len(answered):,} images have an answer of {other['model']} from {other['server']}, or one "
                    "pending in its batches. They are asked about anew, and paid for again, because --base-url or "
                    f"--server-name differs. To keep these answers, press Ctrl-C and give --server-name "
                    f"{other['server']}; batches are collected with the address as then."
                )

    def ask_all(self, interrupt: Interrupt) -> None:
        """Ask in rounds: a round ends where the budget has no room until answers show what the calls cost."""
        with progress_bar() as bar:
            task = bar.add_task("describe", total=self.wanted - self.already, note="")
            for only in self._rounds():
                last = self.store.failed(self.settings)
                self.asking = Asking(self.images, self.missing, only=only, last=last, sent=self.sent)
                self.askings.append(self.asking)
                try:
                    while not interrupt.requested and self.store.in_place() and self.asking.goes_on(self.budget):
                        self._ask(interrupt, partial(bar.update, task))
                except KeyboardInterrupt:
                    # A second Ctrl-C gives up the calls in flight, but not what they have already brought.
                    self._keep(self.describer.arrived())
                    raise
                if interrupt.requested or not (self.store.in_place() and self.asking.finished()):
                    return
                if self._box_format_is_open():
                    self.probed = find_box_format(self.store, self.settings, self.images)

    def _rounds(self) -> Iterator[Collection[str]]:
        """Yield digests to ask about next. Images with human boxes come first where they show how a
        describer writes boxes. Where not all may be asked about, the others have an order; see ``order``."""
        rest = self.digests
        if self._box_format_is_open() and not _through_batches(self.config):  # a second batch may take a second day
            first = self.digests & probed_images(self.images).keys()
            if first:
                yield first
            rest = self.digests - first
        if self.order is None:
            yield rest
            return
        wanted = rest & self._wanted()
        most, batches = min(len(wanted), self.budget.limit or len(wanted)), _through_batches(self.config)
        for digests in self.order.rounds(wanted, round_size(most, self.config.per_call, batches=batches)):
            if self.order.reached:
                say(self.order.reached + (f" ${self.budget.spent:,.2f}" if self.budget.spent else ""))
            gain = self.order.gain()
            self.gained = gain is not None and gain < (self.config.until_gain or 0.0)
            if self.gained:
                return
            yield set(digests)

    def _wanted(self) -> set[str]:
        return set[str]().union(*(one.wanted for one in self.missing))

    def find_order(self) -> None:
        """Choose the order, where it may be that not all images are asked about. A few, to be looked at before more is
        paid for, are asked about at random."""
        options, limit, wanted = self.config, self.budget.limit, len(self._wanted())
        may_stop = options.max_cost or options.until_gain or (limit is not None and ROUND * wanted < limit < wanted)
        if options.dry_run:  # a forecast needs features, which take their time
            may_stop = options.store.with_suffix(FEATURES).is_dir()
        if options.order == "auto" and may_stop:
            named = tuple(option.name for option in self.classes) if CLASS in self.ask else ()
            self.order = order_of(self.images, named, options.store)

    def _ask(self, interrupt: Interrupt, update: Callable[..., None]) -> None:
        requests = self.asking.requests(self.budget, interrupt)
        for group in self.describer.describe(itertools.takewhile(lambda _: self.store.in_place(), requests)):
            with interrupt.held():
                self._keep(group)
                counts = {"failed": len(self.failed), "rejected": len(self.rejected)}
                notes = [f"{count} {name}" for name, count in counts.items() if count]
                notes = [f"${self.budget.spent:.4f}", *notes] if self.budget.spent else notes
                update(completed=self.described.total() + sum(counts.values()), note=" · ".join(notes))
            # Batches stay at the server, where the next run finds them; other calls are waited for.
            if interrupt.requested and _through_batches(self.config):
                return
        if self.asking.stopped and not self.asking.finished():
            reason = Counter(item.reason for items in self.rejected.values() for item in items).most_common(1)[0][0]
            raise DescriberError(
                f"none of the first {self.useless} images has an answer of any use ({reason}), so the others are not "
                "asked about. `gpt4image inspect` shows what the model wrote. Try another model, --prompt or "
                "--max-tokens; with the same ones, --retry-rejected asks about these images again."
            )

    def _box_format_is_open(self) -> bool:
        """Return whether it has to be found how this describer writes boxes; files have thousandths."""
        known = self.settings.get("kind") == "replay" or canonical_json(self.settings) in self.store.box_formats()
        return BOXES in self.ask and not known

    def _keep(self, group: Sequence[Answer]) -> None:
        """Judge answers, write them to the store, and count them; ask once more for those of no use."""
        judged = [
            (answer, judge(answer, last_try=not self._may_ask_again(answer)))
            for answer in group
            if answer.text is not None or answer.error is not None
        ]
        now = time.time()
        self.store.add(
            Description(
                digest=answer.request.digest,
                prompt=answer.request.prompt,
                describer=self.settings,
                created=now,
                text=found.text,
                answer=found.answer,
                error=found.error,
                finish_reason=None if answer.finish_reason is None else valid(answer.finish_reason),
                **{name: getattr(answer, name) for name in ("tokens_in", "tokens_out", "cost_usd", "latency_s")},
            )
            for answer, found in judged
        )
        for answer in group:
            self.budget.settle(answer)
        for answer, found in judged:
            self._count(answer, found)

    def _count(self, answer: Answer, found: Judged) -> None:
        request = answer.request
        self.rejected.pop(request.name, None)
        self.failed.pop(request.name, None)
        if found.error is not None:
            is_flaw = found.error in get_args(Flaw)
            reason = f"the answer is no description: {found.error}{_at_limit(answer)}" if is_flaw else found.error
            named = [Skipped(name=key, reason=reason) for key in request.keys]
            was_answered = found.text is not None or found.answer is not None
            (self.rejected if was_answered else self.failed)[request.name] = named
            if (was_answered or answer.retry) and self._may_ask_again(answer):
                self.asking.ask_again(answer, outside_list=found.outside_list)
            elif was_answered and self.stoppable and not (self.described or self.already):
                self.useless += 1
                self.asking.stopped = self.useless >= USELESS
            return
        self.described[request.digest] += 1
        self.asking.stopped = False  # while the last calls were in flight, one of them brought a good answer
        if found.answer is not None:
            if found.answer.boxes is not None:
                self.with_boxes.add(request.digest)
            if CLASS in request.prompt.ask:
                self.kinds[found.answer.kind] += 1

    def _may_ask_again(self, answer: Answer) -> bool:
        name = answer.request.name
        return not (self.describer.repeatable or name in self.tried or name in self.asking.asked_again)

    def outcome(self) -> DescribeResult:
        """Return what was done, and what was skipped."""
        config, budget, images = self.config, self.budget, self.images
        report = self.describer.report(images)
        at_limit = budget.limit is not None and budget.asked >= budget.limit
        finished = config.dry_run or all(asking.finished() for asking in self.askings)
        text = f"Cost: {bill(budget.spent, budget.earlier, budget.uncertain)}." if budget.spent else ""
        if budget.pending > 0:
            text += f" Answers that are pending in batches cost up to ${budget.pending:,.4f} more."
        if not finished and not at_limit:
            waiting = next(request for asking in self.askings if (request := asking.upcoming()) is not None)
            one = f"another call, which may cost ${budget.dearest(waiting, alone=True):,.4f}"
            text += f" --max-cost {budget.max_cost or 0:g} has no room for {one}; a higher number asks for the rest."
            text += f" {_HOW_TO_SETTLE}" if budget.uncertain else ""
        lacking = set[str]().union(*(one.lacking for one in self.missing))
        earlier = set[str]().union(*(one.lacking - one.wanted for one in self.missing))
        keyed = zip(images.keys, images.digests, strict=True)
        answered = (self.digests - lacking) | self.described.keys()
        has, splits = np.array([digest in answered for digest in self.dataset.digests]), self.dataset.splits
        return DescribeResult(
            path=config.store,
            text=text.strip(),
            images=len(images),
            distinct_images=len(self.digests),
            already_described=self.already,
            described=self.described.total(),
            failed=len(self.failed),
            rejected=len(self.rejected),
            answered_by_split={s: int(has[splits == s].sum()) for s in SPLITS if (splits == s).any()},
            without_description=self.wanted - self.already - self.described.total(),
            details={
                **({f"class_{kind}": self.kinds[kind] for kind in answers.KINDS} if CLASS in self.ask else {}),
                **(self._boxes() if BOXES in self.ask else {}),
                **({} if self.order is None else self.order.facts()),
                **report.facts,
            },
            cost_usd=round(budget.spent, 6) if budget.spent else None,
            cost_usd_earlier=round(budget.earlier, 6) if budget.earlier else None,
            stopped_by=self._stopped_by(finished=finished, at_limit=at_limit),
            skipped=(
                *images.skipped,
                *(item for asking in self.askings for item in asking.skipped),
                *(Skipped(name=key, reason=_AN_EARLIER_RUN) for key, digest in keyed if digest in earlier),
                *itertools.chain(*self.failed.values(), *self.rejected.values()),
                *report.skipped,
            ),
        )

    def _stopped_by(self, *, finished: bool, at_limit: bool) -> Any:
        if self.gained or finished:
            return "until_gain" if self.gained else None
        return "max_cost" if not at_limit else "limit" if self.budget.limit == self.config.limit else "share"

    def _boxes(self) -> dict[str, Any]:
        """Return facts about the new boxes, and how they are read."""
        facts, classes = Counter[str](), frozenset(option.name for option in self.classes)
        for result in self.store.descriptions(digests=sorted(self.with_boxes), describer=self.settings):
            facts.update(box_facts(result, classes))
        known = self.store.box_formats().get(canonical_json(self.settings))
        return {**facts, "box_format": known or f"{AS_ASKED} (as asked: not probed on human boxes)", **self.probed}

    def estimate(self) -> DescribeResult:
        """Return the outcome of a run that asks nobody, with ``estimate_*`` facts of the rest, from stored answers.

        They are requests, tokens, money (mean and 95 % interval of the mean) and the time if the server keeps the
        speed of these answers at this concurrency. Facts that they do not tell (tokens, price) are left out.
        """
        if self.order is not None:
            self.order.forecast()
        config, price, outcome = self.config, self.describer.price, self.outcome()
        requests = min(outcome.without_description, config.limit or sys.maxsize)
        rows = list[Description]()
        for status in get_args(Literal["ok", "failed"]):
            stored = self.store.descriptions(describer=self.settings, status=status)
            some = [*itertools.islice(stored, ROWS_OF_ESTIMATE)]
            rows += [row for row in some if row.digest in self.digests] or some
        prompts = {one.prompt for one in self.missing}
        # Without an answer to these prompts, the price of others is the nearest.
        rows = [row for row in rows if row.prompt in prompts] or rows
        found = [row for row in rows if row.status == "ok"]
        facts: dict[str, Any] = {"estimate_from_answers": len(found), "estimate_requests": requests}
        parts = [f"{requests:,} requests"]
        tokens = [(r.tokens_in, r.tokens_out) for r in found if r.tokens_in is not None and r.tokens_out is not None]
        if tokens:
            given, written = (round(requests * fmean(one)) for one in zip(*tokens, strict=True))
            facts |= {"estimate_tokens_in": given, "estimate_tokens_out": written}
            parts.append(f"{given:,} tokens in and {written:,} out")
        if tokens and price is not None:
            price = price.scaled(HALF_PRICE) if config.batch else price
            # Rejected answers and second tries cost too; examples that the server keeps cost less.
            spent = [] if config.batch else [row.cost_usd for row in rows if row.cost_usd]
            costs = spent or [price.of(*pair) for pair in tokens]
            usd = facts["estimate_usd"] = round(fmean(costs) * requests, 4)
            facts["estimate_usd_in_all"] = round(usd + (outcome.cost_usd or 0.0), 4)
            interval = ""
            if len(costs) > 1:
                from scipy import stats

                half = float(stats.t.ppf(0.975, len(costs) - 1) * stats.sem(costs))
                low, high = (round(max(0.0, end) * requests, 4) for end in (fmean(costs) - half, fmean(costs) + half))
                facts["estimate_usd_ci95"], interval = [low, high], f" (${low:,.2f} to {high:,.2f})"
            parts.append(f"${usd:,.2f}{interval}")
        latencies = [row.latency_s for row in found if row.latency_s is not None]
        if latencies and not config.batch:
            on_server = config.describer.partition(":")[0] in SERVERS  # whose calls in flight the workers share
            at_once = config.concurrency if on_server else config.batch_size * (config.workers or 1)
            seconds = requests * fmean(latencies) / at_once
            if config.requests_per_minute is not None:
                seconds = max(seconds, 60 * requests / config.per_call / config.requests_per_minute)
            facts["estimate_seconds"] = round(seconds, 1)
            parts.append(f"{timedelta(seconds=round(seconds))} at the speed of the stored answers")
        request = Asking(self.images, self.missing).upcoming()
        if not tokens and request is not None and not self.budget.is_free:
            parts.append(
                f"at most ${requests * self.budget.dearest(request):,.2f}: --limit 8 first shows what one takes"
            )
        text = f"The rest: {', '.join(parts)}."
        if outcome.cost_usd and "estimate_usd" in facts:
            text += f" In all ${facts['estimate_usd_in_all']:,.4f}, of it {bill(outcome.cost_usd)} spent already."
        if self.order is not None and self.order.reached:
            text += f" {self.order.reached}"
        return replace(outcome, text=text, **facts)
