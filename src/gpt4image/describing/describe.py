"""The stage ``describe``: ask a describer about every image that has no description yet, and keep the answers.

Each answer is on disk before the describer may send another call in its place, so that a kill costs at most the calls
in flight. Answers that arrive together share a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gpt4image.artifacts.prompts import fill, load_prompt, turns
from gpt4image.artifacts.store import ClassOption, Description, DescriptionStore, Prompt, canonical_json
from gpt4image.base.errors import ConfigError, DescriberError, first_few
from gpt4image.base.interrupts import Interrupt, deferred_interrupt
from gpt4image.base.outcome import Skipped
from gpt4image.base.progress import progress_bar, say
from gpt4image.base.secrets import hidden
from gpt4image.config import DescribeConfig
from gpt4image.config.base import listed
from gpt4image.config.results import DescribeResult
from gpt4image.data import SPLITS, ImageSet
from gpt4image.data.labels import note_once
from gpt4image.data.masks import UNSEEN
from gpt4image.data.regions import Masks
from gpt4image.describing.answer_json import valid
from gpt4image.describing.asking import Asking
from gpt4image.describing.boxes import box_facts, find_box_format, how_read, probed_images
from gpt4image.describing.budget import Budget
from gpt4image.describing.chosen_images import asked_images, chosen_images
from gpt4image.describing.class_lists import class_list, compare_with
from gpt4image.describing.describers.base import Answer, Describer
from gpt4image.describing.describers.batch.ledger import on_their_way
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.estimate import estimate, sample_of
from gpt4image.describing.judging import Judged, judge
from gpt4image.describing.prices import bill
from gpt4image.describing.questions import BOXES, CLASS, DESCRIPTION, MOST_OFFERED, TAGS, asks_of_list, tags_of_list
from gpt4image.describing.tally import Tally
from gpt4image.describing.wanted import (
    Settled,
    Wanted,
    brings,
    find_wanted,
    is_shorter,
    minus,
    refuse_to_pay_again,
    refuse_to_pay_for_parts,
    steps_of,
)

_NONE: frozenset[int] = frozenset()


def describe(config: DescribeConfig) -> DescribeResult:
    """Ask about the images of a dataset what this describer has not answered yet for these prompts and classes.

    Raises:
        ConfigError: the SPEC of the dataset or the describer, a prompt, the class list, the list of images or the
            budget is wrong, or what is asked for is on its way in a batch and would be paid for again.
        DataError: the dataset cannot be read.
        DescriberError: the describer cannot be used or stopped answering; what it answered is in the store.
        StoreError: the store cannot be written.
        KeyboardInterrupt: the user stopped it; every answer that came is in the store.
    """
    prompts = _load_prompts(config)
    describer = _describer_of(config)
    if config.samples > 1 and describer.repeatable:
        raise ConfigError(f"--samples {config.samples}: every answer would be the same; give --temperature 0.7, say.")
    budget = Budget(limit=config.limit, max_cost=config.max_cost, price=describer.price, max_tokens=config.max_tokens)
    dataset, images = asked_images(config, config.data)
    if isinstance(describer, ReplayDescriber):
        describer.require_answers(dataset, listed(config.ask))
    elif dataset.clips and config.prompt == DescribeConfig.model_fields["prompt"].default:
        note_once(f"the prompt {prompts[0].name!r} asks about an image; for clips, --prompt motion asks what moves.")
    unknown: list[Skipped] = []
    if config.only is not None:
        images, unknown = chosen_images(dataset, config.only)
    classes = _classes_of(config, images, replayed=isinstance(describer, ReplayDescriber))
    if config.engine == "ray":
        from gpt4image.describing.describers.ray import RayDescriber

        describer = RayDescriber(config, images)
    prompts = [
        fill(prompt, domain=config.domain, word_limit=config.word_limit, classes=images.classes) for prompt in prompts
    ]
    with DescriptionStore(config.store, write=True) as store:
        run = _Run(
            config=config,
            store=store,
            describer=describer,
            dataset=dataset,
            images=images,
            budget=budget,
            unknown=unknown,
        )
        run.plan(prompts, classes)
        store.note_dataset(hidden(config.data))
        known, uncertain = store.spent(describer.settings, set(dataset.digests))
        # What is in a batch is known to the next run; other calls are noted before they are sent.
        noted = config.max_cost is not None and not _through_batches(config)
        noting = store.cost_notes(describer.settings) if noted else nullcontext()
        with noting as note, deferred_interrupt() as interrupt:
            budget.begin(known, 0.0 if config.max_cost is None else uncertain, note)
            try:
                run.ask_all(interrupt)
            except DescriberError:  # after all calls in flight have ended
                budget.end()
                raise
            budget.end()
        if interrupt.requested:
            raise KeyboardInterrupt
        outcome = run.outcome()
        if run.only is None:
            return outcome
        return estimate(
            config, outcome, store, describer, [one for step in run.steps for one in step.prompts], run.only
        )


def _load_prompts(config: DescribeConfig) -> list[Prompt]:
    prompts = [load_prompt(name) for name in config.prompt]
    names = [prompt.name for prompt in prompts]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"--prompt {' '.join(config.prompt)}: at least one prompt is needed, each name once.")
    ask = listed(config.ask)
    if ask != (DESCRIPTION,):
        if len(prompts) > 1:
            raise ConfigError(f"--ask {config.ask} goes with one --prompt, not with {' '.join(config.prompt)}.")
        if len(turns(prompts[0], "")) > 1:
            raise ConfigError(f"--ask {config.ask}: the prompt {names[0]!r} has several turns; use one with one turn.")
        if CLASS in ask and prompts[0].class_conditioned:
            raise ConfigError(f"--ask {config.ask}: the prompt {names[0]!r} tells the class; use another prompt.")
    silent = [prompt.name for prompt in prompts if not prompt.text]
    if silent and not config.describer.startswith("replay:"):
        raise ConfigError(
            f"--prompt {silent[0]}: nothing is known to ask; give a text file with the question, or one of the named "
            f"prompts (see `gpt4image describe --help`)."
        )
    return prompts


def _describer_of(config: DescribeConfig) -> Describer:
    if not _through_batches(config):
        return load_describer(config)
    if config.engine != "local":
        raise ConfigError("--batch sends everything from here; leave out --engine ray.")
    from gpt4image.describing.describers.batch.describer import BatchDescriber

    return BatchDescriber(config)


def _through_batches(config: DescribeConfig) -> bool:
    return config.batch and not config.dry_run  # a sample is worth its full price: nobody waits a day for it


def _classes_of(config: DescribeConfig, images: ImageSet, *, replayed: bool) -> tuple[ClassOption, ...]:
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
    chosen = images.labels.ndim == 2 and not replayed and len(offered) <= MOST_OFFERED
    differs = "" if config.classes is None else compare_with(offered, images.classes, config.data)
    if differs and config.only is None:  # a list for some images is shorter on purpose
        say(f"{differs}.")
    words = not asks_of_list(ask) and (TAGS not in ask or (config.classes is None and not chosen))
    return () if words else offered


@dataclass(kw_only=True)
class _Run:
    """Asks step by step; commits answers as they arrive, judges and counts them.

    Attributes:
        dataset: all its splits.
        images: those of them that are asked about.
        unknown: images that were to be asked about and are not in the dataset.
        only: images of a sample to ask about; None for all.
        steps: what each step asks for.
        sent: for each prompt, samples that are on their way in a batch.
        again: for each prompt, samples that are on their way because an earlier run rejected the answer.
        tally: what became of the answers.
        probed: how it was found out in which form the describer writes boxes.
    """

    config: DescribeConfig
    store: DescriptionStore
    describer: Describer
    dataset: ImageSet
    images: ImageSet
    budget: Budget
    unknown: Sequence[Skipped] = ()
    only: set[str] | None = None
    steps: list[Wanted] = field(default_factory=list[Wanted])
    again: dict[Prompt, Settled] = field(default_factory=dict[Prompt, Settled])
    sent: dict[Prompt, Settled] = field(default_factory=dict[Prompt, Settled])
    tally: Tally = field(default_factory=Tally)
    probed: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def plan(self, prompts: Sequence[Prompt], classes: Sequence[ClassOption]) -> None:
        """Find out what is wanted and not there. Raises ConfigError: it is on its way and would be paid for again."""
        config, settings = self.config, self.describer.settings
        self.prompts, self.class_list = prompts, classes
        self.only = sample_of(self.images) if config.dry_run else None
        distinct, samples = set(self.images.digests), frozenset(range(config.samples))
        for ask in steps_of(listed(config.ask), classes):
            # Tags beside a class are words, also where the class is asked for in a second step.
            of_list = tags_of_list(listed(config.ask), classes) or asks_of_list(ask)
            own = classes if of_list else ()
            step = find_wanted(
                self.store,
                settings,
                prompts,
                ask,
                own,
                digests=distinct,
                samples=samples,
                retry_rejected=config.retry_rejected,
            )
            self.steps.append(step)
            self._learn_lengths(step.prompts, distinct)
            named = distinct if self.only is None else self.only
            others = [
                prompt
                for prompt in self.store.prompts()
                if prompt not in step.prompts
                and any(brings(prompt, part, base, ask, own) for base in prompts for part in ask)
            ]
            refuse_to_pay_for_parts(*on_their_way(config.store, settings, others), step.settled, named, samples)
            coming, batches = on_their_way(config.store, settings, step.prompts)
            coming = [{digest: own & samples for digest, own in sent.items()} for sent in coming]
            if _through_batches(config):
                again = [
                    minus({digest: own & rejected.get(digest, _NONE) for digest, own in sent.items()}, good)
                    for sent, good, rejected in zip(coming, step.there, step.settled, strict=True)
                ]
                self.again |= dict(zip(step.prompts, again, strict=True))
                self.sent |= dict(zip(step.prompts, coming, strict=True))
                step.settled = [minus(*pair) for pair in zip(step.settled, again, strict=True)]
            else:
                refuse_to_pay_again(coming, step.there, named, batches)
        self._tell_of_added(classes)
        if BOXES in listed(config.ask) and config.box_format != "auto":
            self.store.set_box_format(settings, config.box_format, {"given": True})
        self.already = sum(step.done for step in self.steps)
        self.wanted = len(distinct) * len(prompts) * config.samples * len(self.steps)
        if self.wanted > self.already:
            self.store.require_whole()
        self.askings: list[Asking] = []

    def _tell_of_added(self, classes: Sequence[ClassOption]) -> None:
        """Say how many images are asked again because classes were added to the list."""
        earlier = [prompt for prompt in self.store.prompts() if is_shorter(prompt, classes)]
        answered = {d for prompt in earlier for d in self.store.settled(prompt, self.describer.settings)}
        if not (answered := answered & {*self.images.digests}):
            return
        again = {d for step in self.steps for d in self._open(step, part=CLASS) if d in answered}
        longest = {option for prompt in earlier for option in prompt.classes}
        added = [option.name for option in classes if option not in longest]
        say(
            f"{first_few(added) if added else 'Classes'} came to the list later: of {len(answered):,} images with an "
            f"answer, {len(again):,} may be of an added class and are asked again; the others keep theirs."
        )

    def _open(self, step: Wanted, part: str | None = None) -> Iterator[str]:
        """Yield the images for which a step lacks something, or a ``part`` of it, perhaps several times."""
        samples = frozenset(range(self.config.samples))
        for prompt, there in zip(step.prompts, step.there, strict=True):
            if part is None or part in prompt.ask:
                yield from (digest for digest in self.images.digests if samples - there.get(digest, _NONE))

    def _learn_lengths(self, prompts: Sequence[Prompt], digests: Set[str]) -> None:
        if self.config.max_cost is not None:
            for prompt in prompts:
                rows = self.store.inputs(prompt, self.describer.settings)
                samples = max((self.config.samples, *(sample + 1 for _, sample, _ in rows)))
                self.budget.learn(prompt, [tokens for digest, _, tokens in rows if digest in digests], samples)

    def ask_all(self, interrupt: Interrupt) -> None:
        """Ask, step after step."""
        with progress_bar() as bar:
            task = bar.add_task("describe", total=self.wanted - self.already, note="")
            for number, step in enumerate(self.steps):
                likely = self._likely(step) if number else None
                for only in self._rounds_of_images(step):
                    self.asking = Asking(
                        self.images,
                        step.prompts,
                        self.config.samples,
                        step.settled,
                        only=only,
                        last=self.store.failed(self.describer.settings),
                        likely=likely,
                        sent=self.sent,
                    )
                    self.askings.append(self.asking)
                    self._ask_in_rounds(interrupt, partial(bar.update, task))
                    if interrupt.requested:
                        return
                    self._find_box_format()

    def _rounds_of_images(self, step: Wanted) -> list[Collection[str] | None]:
        """Return the images to ask about first, and then: first those that show how boxes are written, if any do."""
        first: set[str] = set()
        if self._box_format_is_open() and not _through_batches(self.config):  # a second batch may take a second day
            first = set(probed_images(self.images)) & set(self.only or self.images.digests)
        if not first or not any(BOXES in prompt.ask for prompt in step.prompts):
            return [self.only]
        return [first, set(self.only or self.images.digests) - first]

    def _box_format_is_open(self) -> bool:
        """Return whether it has to be found how this describer writes boxes; files have thousandths."""
        return (
            BOXES in listed(self.config.ask)
            and self.describer.settings.get("kind") != "replay"
            and canonical_json(self.describer.settings) not in self.store.box_formats()
        )

    def _find_box_format(self) -> None:
        if self._box_format_is_open():
            self.probed = find_box_format(self.store, self.describer.settings, self.images)

    def _likely(self, step: Wanted) -> Mapping[str, Sequence[str]]:
        """Return the likely classes of images that have a description and no class."""
        from gpt4image.describing.likely_classes import likely_classes

        settled, samples = step.settled[0], frozenset(range(self.config.samples))
        open_ = {digest for digest in self.only or self.images.digests if samples - settled.get(digest, _NONE)}
        return likely_classes(self.store, self.describer.settings, self.prompts[0], self.class_list, open_)

    def _ask_in_rounds(self, interrupt: Interrupt, update: Callable[..., None]) -> None:
        """Ask in rounds: a round ends where the budget has no room until answers show what the calls cost."""
        try:
            while not interrupt.requested and self.asking.goes_on(self.budget):
                for group in self.describer.describe(self.asking.requests(self.budget, interrupt)):
                    with interrupt.held():
                        self._keep(group)
                        spent = [f"${self.budget.spent:.4f}"] if self.budget.spent else []
                        update(completed=self.tally.answered, note=" · ".join(spent + self.tally.notes()))
                    # Batches stay at the server, where the next run finds them; other calls are waited for.
                    if interrupt.requested and _through_batches(self.config):
                        break
        except KeyboardInterrupt:
            # A second Ctrl-C gives up the calls in flight, but not what they have already brought.
            self._keep(self.describer.arrived())
            raise

    def _keep(self, group: Sequence[Answer]) -> None:
        answered = [answer for answer in group if answer.text is not None or answer.error is not None]
        judged = [
            (answer, judge(answer, self.config.reject, last_try=not self._may_ask_again(answer))) for answer in answered
        ]
        now, settings = time.time(), self.describer.settings
        self.store.add(_to_description(*pair, settings, now) for pair in judged)
        for answer, found in judged:
            self.budget.settle(answer)
            if self.tally.add(answer, found) == "rejected" and self._may_ask_again(answer):
                self.asking.ask_again(answer, outside_list=found.outside_list)
        for answer in group:
            if answer.text is None and answer.error is None and answer.sample == answer.request.samples[0]:
                self.budget.take_back(answer)

    def _may_ask_again(self, answer: Answer) -> bool:
        request = answer.request
        tried = answer.wasted or answer.sample in self.again.get(request.prompt, {}).get(request.digest, _NONE)
        return not (tried or self.describer.repeatable or self.asking.was_asked_again(answer))

    def outcome(self) -> DescribeResult:
        """Return what was done, and what was skipped."""
        config, budget, images, tally = self.config, self.budget, self.images, self.tally
        report = self.describer.report(self.dataset)
        at_limit = budget.limit is not None and budget.asked >= budget.limit
        stopped_by = f"--limit {budget.limit}" if at_limit else f"--max-cost {budget.max_cost or 0:g}"
        finished = config.dry_run or all(asking.finished() for asking in self.askings)
        rejected_earlier = {
            digest
            for step in self.steps
            for pair in zip(step.settled, step.there, strict=True)
            for digest in minus(*pair)
        }
        text = f"Cost: {bill(budget.spent, budget.earlier, budget.uncertain)}." if budget.spent else ""
        if not finished and not at_limit:
            text += f" That uses up {stopped_by}; a higher number asks for the rest."
        return DescribeResult(
            path=config.store,
            text=text.strip(),
            images=len(images),
            distinct_images=len(set(images.digests)),
            already_described=self.already,
            described=tally.described,
            failed=tally.counts["failed"],
            rejected=tally.counts["rejected"],
            answered_by_split=self._by_split(),
            without_description=self.wanted - self.already - tally.described,
            details={
                **(tally.classes_answered if CLASS in listed(config.ask) else {}),
                **(self._boxes() if BOXES in listed(config.ask) else {}),
                **report.facts,
            },
            cost_usd=round(budget.spent, 6) if budget.spent else None,
            cost_usd_earlier=round(budget.earlier, 6) if budget.earlier else None,
            stopped_by=None if finished else stopped_by,
            skipped=(
                *images.skipped,
                *self.unknown,
                *(item for asking in self.askings for item in asking.skipped),
                *(
                    Skipped(name=key, reason="an earlier run rejected the answer; --retry-rejected asks again")
                    for key, digest in zip(images.keys, images.digests, strict=True)
                    if digest in rejected_earlier
                ),
                *tally.skipped,
                *report.skipped,
            ),
        )

    def _by_split(self) -> dict[str, int]:
        """Return how many images of each split have an answer."""
        missing = {d for step in self.steps for d in self._open(step)} - self.tally.digests
        mine = {*self.images.digests}
        answered = (mine - missing) | self.tally.digests
        splits, digests = self.dataset.splits, self.dataset.digests
        has = np.fromiter((digest in answered for digest in digests), bool, len(digests))
        return {split: int(has[splits == split].sum()) for split in SPLITS if (splits == split).any()}

    def _boxes(self) -> dict[str, Any]:
        """Return how boxes were read, and what was wrong with those of this run."""
        settings = canonical_json(self.describer.settings)
        new = (
            result
            for result in self.store.descriptions(digests=sorted(self.tally.with_boxes))
            if canonical_json(result.describer) == settings
        )
        return {
            **box_facts(new, [option.name for option in self.class_list]),
            **how_read(self.store, settings),
            **self.probed,
        }


def _to_description(answer: Answer, found: Judged, settings: Mapping[str, Any], now: float) -> Description:
    return Description(
        digest=answer.request.digest,
        prompt=answer.request.prompt,
        describer=settings,
        created=now,
        sample=answer.sample,
        text=found.text,
        answer=found.answer,
        error=found.error,
        finish_reason=None if answer.finish_reason is None else valid(answer.finish_reason),
        **{name: getattr(answer, name) for name in ("tokens_in", "tokens_out", "cost_usd", "latency_s")},
    )
