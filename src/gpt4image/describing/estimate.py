"""Tokens, money and time that describing a whole dataset will take, from a small sample of real answers."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from statistics import fmean
from typing import Any, Literal

from scipy import stats

from gpt4image.artifacts.store import DescriptionStore, Prompt, canonical_json
from gpt4image.config import DescribeConfig
from gpt4image.config.results import DescribeResult
from gpt4image.data import ImageSet
from gpt4image.describing.describers.base import Describer
from gpt4image.describing.prices import HALF_PRICE, bill

IMAGES_IN_SAMPLE = 8


def sample_of(images: ImageSet) -> set[str]:
    """Return the digests of a few images from all over the dataset; always the same ones for the same dataset."""
    distinct = list(dict.fromkeys(images.digests))
    count = min(IMAGES_IN_SAMPLE, len(distinct))
    return {distinct[(2 * number + 1) * len(distinct) // (2 * count)] for number in range(count)}


def estimate(
    config: DescribeConfig,
    outcome: DescribeResult,
    store: DescriptionStore,
    describer: Describer,
    prompts: Sequence[Prompt],
    sample: Collection[str],
) -> DescribeResult:
    """Return the outcome of the sample with ``estimate_*`` facts of the rest of the run.

    They are requests, tokens, money (mean and 95 % interval of the mean) and the time if the server keeps the sample's
    speed at this concurrency. Facts that the answers do not tell (tokens, price) are left out.
    """
    in_each = 1 if any(prompt.classes for prompt in prompts) else config.samples
    requests = min(outcome.without_description // in_each, config.limit or sys.maxsize)
    settings = canonical_json(describer.settings)
    statuses: tuple[Literal["ok", "failed"], ...] = ("ok", "failed")
    rows = [  # of this run or an earlier one
        [
            row
            for row in store.descriptions(digests=sorted(sample), status=status)
            if canonical_json(row.describer) == settings
        ]
        for status in statuses
    ]
    own = [[row for row in of_status if row.prompt in prompts] for of_status in rows]
    answers, failed = own if own[0] else rows  # without an answer to these prompts, the price of others is the nearest
    facts: dict[str, Any] = {"estimate_from_answers": len(answers), "estimate_requests": requests}
    tokens_in = [row.tokens_in for row in answers if row.tokens_in is not None]
    tokens_out = [row.tokens_out for row in answers if row.tokens_out is not None]
    descriptions = requests * in_each
    if tokens_in and len(tokens_in) == len(tokens_out):
        facts["estimate_tokens_in"] = round(descriptions * sum(tokens_in) / len(tokens_in))
        facts["estimate_tokens_out"] = round(descriptions * sum(tokens_out) / len(tokens_out))
        if describer.price is not None:
            price = describer.price.scaled(HALF_PRICE) if config.batch else describer.price
            costs = [price.of(*pair) for pair in zip(tokens_in, tokens_out, strict=True)]
            if not config.batch:  # second tries and rejected answers cost too; the tokens are those of the last try
                spent = [row.cost_usd for row in (*answers, *failed) if row.cost_usd]
                costs = spent if sum(spent) > sum(costs) else costs
            facts["estimate_usd"] = round(fmean(costs) * descriptions, 4)
            facts["estimate_usd_in_all"] = round(facts["estimate_usd"] + (outcome.cost_usd or 0.0), 4)
            if len(costs) > 1:
                half = float(stats.t.ppf(0.975, len(costs) - 1) * stats.sem(costs))
                ends = max(0.0, fmean(costs) - half), fmean(costs) + half
                facts["estimate_usd_ci95"] = [round(end * descriptions, 4) for end in ends]
    latencies = [row.latency_s for row in answers if row.latency_s is not None]
    if latencies and not config.batch:
        facts["estimate_seconds"] = round(_seconds(config, requests, in_each, latencies, tokens_in, tokens_out), 1)
    return replace(outcome, text=_sentence({**outcome.summary, **facts}), **facts)


def _sentence(facts: Mapping[str, Any]) -> str:
    parts = [f"{facts['estimate_requests']:,} requests"]
    if "estimate_tokens_in" in facts:
        parts.append(f"{facts['estimate_tokens_in']:,} tokens in and {facts['estimate_tokens_out']:,} out")
    if "estimate_usd" in facts:
        interval = facts.get("estimate_usd_ci95")
        parts.append(
            f"${facts['estimate_usd']:,.2f}" + (f" (${interval[0]:,.2f} to {interval[1]:,.2f})" if interval else "")
        )
    if "estimate_seconds" in facts:
        parts.append(f"{timedelta(seconds=round(facts['estimate_seconds']))} at the speed of the sample")
    spent = ""
    if facts.get("cost_usd") and "estimate_usd" in facts:
        spent = f" In all ${facts['estimate_usd_in_all']:,.4f}, of it {bill(facts['cost_usd'])} spent already."
    return f"The rest: {', '.join(parts)}.{spent}"


def _seconds(
    config: DescribeConfig,
    requests: int,
    in_each: int,
    latencies: Sequence[float],
    tokens_in: Sequence[int],
    tokens_out: Sequence[int],
) -> float:
    """Return the time that calls, and the limits the user gave, need."""
    mean, answers = sum(latencies) / len(latencies), requests * in_each
    if config.describer.startswith("openai:"):
        seconds = requests * mean / config.concurrency  # which workers share
    else:
        seconds = answers * mean / config.batch_size / (config.workers or 1)
    if config.requests_per_minute is not None:
        seconds = max(seconds, 60 * requests / config.requests_per_minute)
    if config.tokens_per_minute is not None and tokens_in and tokens_out:
        tokens = answers * (sum(tokens_in) + sum(tokens_out)) / len(tokens_in)
        seconds = max(seconds, 60 * tokens / config.tokens_per_minute)
    return seconds
