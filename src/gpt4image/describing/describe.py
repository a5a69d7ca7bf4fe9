"""The stage ``describe``: ask a describer about every image that has no description yet, and keep the answers.

Each answer is on disk before the describer may send another call in its place, so that a kill costs at most the calls
in flight. Answers that arrive together share a transaction.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt4image.artifacts.prompts import fill, load_prompt
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.interrupts import Interrupt, deferred_interrupt
from gpt4image.base.outcome import Outcome, SetAside
from gpt4image.base.progress import progress_bar
from gpt4image.config import DescribeConfig, Flaw
from gpt4image.data import load_image_set
from gpt4image.describing.asking import Asking, Settled
from gpt4image.describing.budget import Budget
from gpt4image.describing.describers.base import Answer, Describer
from gpt4image.describing.describers.batch.ledger import on_their_way
from gpt4image.describing.describers.registry import load_describer
from gpt4image.describing.describers.replay import ReplayDescriber
from gpt4image.describing.estimate import estimate, sample_of
from gpt4image.describing.flaws import flaws

_NONE: frozenset[int] = frozenset()
_Named = dict[tuple[str, Prompt, int], tuple[SetAside, ...]]


def describe(config: DescribeConfig) -> Outcome:
    """Describe the images of a dataset that have no description of this describer for these prompts.

    Raises:
        ConfigError: the SPEC of the dataset or the describer, a prompt or the budget is wrong, or what is asked for is
            on its way in a batch and would be paid for again.
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
    images = load_image_set(config.data)
    if isinstance(describer, ReplayDescriber):
        describer.require_own_images(images)
    if config.engine == "ray":
        from gpt4image.describing.describers.ray import RayDescriber

        describer = RayDescriber(config, images)
    prompts = [
        fill(prompt, domain=config.domain, word_limit=config.word_limit, classes=images.classes) for prompt in prompts
    ]
    distinct = set(images.digests)
    wanted = len(distinct) * len(prompts) * config.samples
    samples_wanted = frozenset(range(config.samples))

    def asked_for(settled: Settled) -> Settled:
        """Return only the samples that this run asks for: an earlier run may have asked for more."""
        return {digest: own for digest, samples in settled.items() if (own := samples & samples_wanted)}

    with DescriptionStore(config.store, write=True) as store:
        there = [asked_for(store.settled(prompt, describer.settings, rejected=False)) for prompt in prompts]
        settled = there
        if not config.retry_rejected:
            settled = [asked_for(store.settled(prompt, describer.settings)) for prompt in prompts]
        already = sum(len(samples) for good in there for digest, samples in good.items() if digest in distinct)
        only = sample_of(images) if config.dry_run else None
        coming, batches = on_their_way(config.store, describer.settings, prompts)
        coming = [asked_for(samples) for samples in coming]
        again: list[Settled] = [{} for _ in prompts]
        if _through_batches(config):
            # On their way because an earlier run rejected the answer.
            again = [
                _minus({digest: samples & rejected.get(digest, _NONE) for digest, samples in sent.items()}, good)
                for sent, good, rejected in zip(coming, there, settled, strict=True)
            ]
            settled = [_minus(*pair) for pair in zip(settled, again, strict=True)]
        else:
            _refuse_to_pay_again(coming, there, distinct if only is None else only, batches)
        asking = Asking(images, prompts, config.samples, settled, only=only, last=store.failed(describer.settings))
        keeper = _Keeper(
            config=config,
            store=store,
            describer=describer,
            asking=asking,
            budget=budget,
            second_tries=dict(zip(prompts, again, strict=True)),
        )
        with deferred_interrupt() as interrupt:
            keeper.ask_all(interrupt, total=wanted - already)
        if interrupt.requested:
            raise KeyboardInterrupt
        report = describer.report(images)
        at_limit = budget.limit is not None and budget.asked >= budget.limit
        stopped_by = f"--limit {budget.limit}" if at_limit else f"--max-cost {budget.max_cost}"
        rejected_earlier = {digest for pair in zip(settled, there, strict=True) for digest in _minus(*pair)}
        outcome = Outcome(
            path=config.store,
            summary={
                "images": len(images),
                "distinct_images": len(distinct),
                "already_described": already,
                "described": keeper.described,
                "failed": len(keeper.failed),
                "rejected": len(keeper.rejected),
                "without_description": wanted - already - keeper.described,
                **({"cost_usd": round(budget.spent, 6)} if budget.spent else {}),
                **({} if config.dry_run or asking.finished() else {"stopped_by": stopped_by}),
                **report.facts,
            },
            set_aside=(
                *images.set_aside,
                *asking.set_aside,
                *(
                    SetAside(name=key, reason="an earlier run rejected the answer; --retry-rejected asks again")
                    for key, digest in zip(images.keys, images.digests, strict=True)
                    if digest in rejected_earlier
                ),
                *itertools.chain(*keeper.failed.values(), *keeper.rejected.values()),
                *report.set_aside,
            ),
        )
        return outcome if only is None else estimate(config, outcome, store, describer, prompts, only)


def _minus(settled: Settled, others: Settled) -> Settled:
    left = {digest: samples - others.get(digest, _NONE) for digest, samples in settled.items()}
    return {digest: samples for digest, samples in left.items() if samples}


def _refuse_to_pay_again(
    coming: Sequence[Settled], there: Sequence[Settled], digests: Collection[str], batches: Sequence[str]
) -> None:
    """Raise ConfigError where answers about some of the images are on their way in batches."""
    count = sum(
        len(samples - good.get(digest, _NONE))
        for own, good in zip(coming, there, strict=True)
        for digest, samples in own.items()
        if digest in digests
    )
    if count:
        raise ConfigError(
            f"{count:,} answers that are wanted here are on their way through the Batch API, in {first_few(batches)}, "
            f"and calls would pay for them a second time. Give --batch, without --dry-run, to collect them. To give "
            f"them up, cancel at the server what still runs, then give --batch once more: it keeps what was done by "
            f"then, and the others may be asked without it."
        )


def _load_prompts(config: DescribeConfig) -> list[Prompt]:
    prompts = [load_prompt(name) for name in config.prompt]
    names = [prompt.name for prompt in prompts]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"--prompt {' '.join(config.prompt)}: at least one prompt is needed, each name once.")
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


@dataclass(kw_only=True)
class _Keeper:
    """Commits answers as they arrive, judges and counts them."""

    config: DescribeConfig
    store: DescriptionStore
    describer: Describer
    asking: Asking
    budget: Budget
    second_tries: Mapping[Prompt, Settled]
    described: int = 0
    failed: _Named = field(default_factory=_Named)
    rejected: _Named = field(default_factory=_Named)

    def ask_all(self, interrupt: Interrupt, total: int) -> None:
        """Ask in rounds: a round ends where the budget has no room until answers show what the calls cost."""
        with progress_bar() as bar:
            task = bar.add_task("describe", total=total, note="")
            try:
                while not interrupt.requested and self.asking.goes_on(self.budget):
                    for group in self.describer.describe(self.asking.requests(self.budget, interrupt)):
                        with interrupt.held():
                            self._keep(group)
                            counts = {"failed": len(self.failed), "rejected": len(self.rejected)}
                            notes = [f"${self.budget.spent:.4f}"] if self.budget.spent else []
                            notes += [f"{count} {name}" for name, count in counts.items() if count]
                            done = self.described + sum(counts.values())
                            bar.update(task, completed=done, note=" · ".join(notes))
                        # Batches stay at the server, where the next run finds them; other calls are waited for.
                        if interrupt.requested and _through_batches(self.config):
                            break
            except KeyboardInterrupt:
                # A second Ctrl-C gives up the calls in flight, but not what they have already brought.
                self._keep(self.describer.arrived())
                raise

    def _keep(self, group: Sequence[Answer]) -> None:
        answered = [answer for answer in group if answer.text is not None or answer.error is not None]
        judged: list[tuple[Answer, Flaw | None]] = [(answer, self._fatal_flaw(answer)) for answer in answered]
        now, settings = time.time(), self.describer.settings
        self.store.add(_to_description(answer, flaw, settings, now) for answer, flaw in judged)
        for answer, flaw in judged:
            self.budget.settle(answer)
            self._tally(answer, flaw)
        for answer in group:
            if answer.text is None and answer.error is None and answer.sample == answer.request.samples[0]:
                self.budget.take_back(answer)

    def _fatal_flaw(self, answer: Answer) -> Flaw | None:
        if answer.text is None:
            return None
        found = flaws(answer.text, finish_reason=answer.finish_reason, turns=answer.request.turns)
        return next((flaw for flaw in found if flaw in self.config.reject), None)

    def _tally(self, answer: Answer, flaw: Flaw | None) -> None:
        name = (answer.request.digest, answer.request.prompt, answer.sample)
        self.rejected.pop(name, None)
        if answer.error is not None:
            self.failed[name] = _each_key(answer, answer.error)
        elif flaw is not None:
            self.rejected[name] = _each_key(answer, f"the answer is no description: {flaw}")
            tried = answer.wasted or answer.sample in self.second_tries[name[1]].get(name[0], _NONE)
            if not tried and not self.describer.repeatable:
                self.asking.ask_again(answer)
        else:
            self.described += 1


def _each_key(answer: Answer, reason: str) -> tuple[SetAside, ...]:
    return tuple(SetAside(name=key, reason=reason) for key in answer.request.keys)


def _valid(text: str | None) -> str | None:
    """Return a text with U+FFFD for halves of surrogate pairs: some servers send them, no database takes them."""
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _to_description(answer: Answer, flaw: Flaw | None, settings: Mapping[str, Any], now: float) -> Description:
    return Description(
        digest=answer.request.digest,
        prompt=answer.request.prompt,
        describer=settings,
        created=now,
        sample=answer.sample,
        text=_valid(answer.text) if answer.error is None else None,
        error=_valid(answer.error) or flaw,
        finish_reason=_valid(answer.finish_reason),
        **{name: getattr(answer, name) for name in ("tokens_in", "tokens_out", "cost_usd", "latency_s")},
    )
