"""Numbers into words and tables: what a comparison found, said no louder than its seeds allow."""

from __future__ import annotations

import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt4image.config.arms import ARMS, TEXT_ARMS
from gpt4image.pages.numbers import (
    duration,
    memory,
    one_line,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
    seeds,
)
from gpt4image.reporting.records import FEW_SEEDS, Comparison, Pair, comparisons_in

SIGNIFICANT = 0.05


def metric_name(comparison: Comparison) -> str:
    """Return what the numbers of a comparison are, for people."""
    return f"test {comparison.titles.get(comparison.metric, comparison.metric)}"


def phrase(arm: str) -> str:
    """Return an arm as it reads inside a sentence."""
    return ARMS[arm].phrase if arm in ARMS else one_line(arm)


def condition(data: dict[str, Any]) -> str:
    """Return what the labels were like, e.g. ``With 90 of 1,007 training images labelled``, or an empty text."""
    noise, per_class, parts = data.get("label_noise"), data.get("labels_per_class"), []
    if per_class:
        parts.append(f"{per_class} label{'' if per_class == 1 else 's'} a class")
    if noise:
        parts.append(f"{100 * noise:.3g} % of {'them' if per_class else 'the training labels'} wrong")
    if noise and data.get("noise_kind") == "class-dependent":
        parts[-1] += " (each class taken for one other)"
    if (fraction := data.get("described_fraction") or 1.0) < 1.0:
        parts.append(f"{100 * fraction:.3g} % of the descriptions")
    if (imbalance := data.get("imbalance") or 1.0) > 1.0:
        parts.append(f"the largest class {imbalance:g} times the smallest")
    if parts:
        return f"With {', '.join(parts)}"
    labelled, total = data.get("labelled"), data.get("train")
    if labelled is None or not total:
        return ""
    if labelled < total:
        return f"With {labelled:,} of {total:,} training images labelled"
    return f"With all {total:,} training images labelled"


def is_sure(pair: Pair) -> bool:
    """Say whether a difference is more than chance: enough seeds, and both p-values below 0.05.

    Old records have no p-value for other images; there that over seeds decides.
    """
    return not pair.few and pair.p is not None and max(pair.p, pair.other_images.p or 0.0) < SIGNIFICANT


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def finding(comparison: Comparison, pair: Pair, *, conditioned: bool = True) -> str:
    """Return what one pair of arms shows, as one plain sentence; ``conditioned`` says first what the labels were."""
    before, after = comparison.arms[pair.against].mean, comparison.arms[pair.arm].mean
    name, metric = phrase(pair.arm), metric_name(comparison)
    context = condition(comparison.data) if conditioned else ""
    start = f"{context}, {name}" if context else name[0].upper() + name[1:]
    reference = "" if pair.against == comparison.reference else f" ({phrase(pair.against)})"
    difference = f"{points(pair.difference)} points"
    if pair.few:
        return (
            f"{start} took {metric} from {percent(before)}{reference} to {percent(after)} ({difference}), but "
            f"{seeds(pair.n)} {'is' if pair.n == 1 else 'are'} too few to tell this from chance."
        )
    p = "no p-value" if pair.p is None else f"p {_equals(pair.p)}"
    interval = [] if pair.ci95 is None else [f"95 % interval {points_interval(pair.ci95)}"]
    images = pair.other_images.p
    too = [] if images is None else [f"p {_equals(images)} with other test images counted too"]
    evidence = f"({', '.join([difference, *interval, p, *too, seeds(pair.n)])})"
    if not is_sure(pair) and reference:
        between = f"between {name} and {phrase(pair.against)} there is no sure difference in {metric}"
        between = f"{context}, {between}" if context else between[0].upper() + between[1:]
        return f"{between}: {percent(after)} and {percent(before)} {evidence}."
    if not is_sure(pair):
        return (
            f"{start} made no sure difference to {metric}: {percent(before)}{reference} without, "
            f"{percent(after)} with {evidence}."
        )
    verb = "raised" if pair.difference > 0 else "lowered"
    return f"{start} {verb} {metric} from {percent(before)}{reference} to {percent(after)} {evidence}."


def findings(comparison: Comparison) -> list[str]:
    """Return the headline, then what the other text arms and the pairs without the reference show.

    The headline is about the first of TEXT_ARMS that was measured against the reference, else about the first pair,
    else it gives the mean of every arm.
    """
    text_pairs = [pair for arm in TEXT_ARMS if (pair := comparison.pair(arm))]
    others = [pair for pair in comparison.pairs if pair.against != comparison.reference]
    pairs = text_pairs + others or list(comparison.pairs[:1])
    if pairs:
        first, *rest = (finding(comparison, pair, conditioned=number == 0) for number, pair in enumerate(pairs))
        return [first, *_way_back(comparison), *rest]
    means = ", ".join(f"{percent(arm.mean)} with {phrase(name)}" for name, arm in comparison.arms.items())
    return [f"{metric_name(comparison).capitalize()} is {means}; no pair of arms was compared."]


def recovered(comparison: Comparison, arm: str) -> float | None:
    """Return the share of what missing or wrong labels cost that an arm brings back: 1 is all of it.

    None where all true labels were not measured, or are not surely better than the reference.
    """
    whole, part = comparison.pair("oracle"), comparison.pair(arm)
    if whole is None or part is None or whole.difference <= 0.0 or not is_sure(whole):
        return None
    return part.difference / whole.difference


def _way_back(comparison: Comparison) -> list[str]:
    shares = {phrase(arm): recovered(comparison, arm) for arm in TEXT_ARMS}
    known = [f"{name} {percent(share, digits=0)}" for name, share in shares.items() if share is not None]
    return [f"Of what the missing or wrong labels cost, this brings back: {', '.join(known)}."] if known else []


def best_text_arm(comparison: Comparison) -> str | None:
    """Return the text arm with the highest mean, or None where there is none beside the reference."""
    arms = [name for name in TEXT_ARMS if name in comparison.arms and name != comparison.reference]
    return max(arms, key=lambda name: comparison.arms[name].mean, default=None)


HEADINGS = (
    "arm",
    "mean",
    "95 % interval",
    "seeds",
    "difference",
    "95 % interval",
    "p",
    "p, images too",
    "time a run",
    "memory",
)


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row of texts per arm, under HEADINGS; differences are in points, to the reference."""
    rows = []
    for name, arm in comparison.arms.items():
        pair = comparison.pair(name)
        rows.append(
            (
                one_line(name),
                percent(arm.mean),
                percent_interval(arm.ci95),
                " ".join(f"{100 * value:.1f}" for value in arm.test),
                points(pair.difference) if pair else "",
                points_interval(pair.ci95) if pair else "",
                p_value(pair.p) + (" *" if pair.few else "") if pair else "",
                p_value(pair.other_images.p) if pair else "",
                duration(arm.seconds),
                memory(arm.peak_memory_bytes),
            )
        )
    return rows


def few_seeds_note(comparison: Comparison) -> str:
    """Return the footnote that table rows with too few seeds need, or an empty text."""
    few = any(pair.few for name in comparison.arms if (pair := comparison.pair(name)))
    return f"* n < {FEW_SEEDS} seeds: too few to tell a difference from chance." if few else ""


def comparison_table(record: dict[str, Any]) -> str:
    """Return the tables of a comparison record (the content of comparison.json) for a terminal."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=160, color_system=None)
    for name, comparison in comparisons_in(record).items():
        table = Table(box=box.SIMPLE_HEAD, title=Text(one_line(name)) if name else None, title_justify="left")
        for number, heading in enumerate(HEADINGS):
            justify, overflow = ("left", "fold") if number == 0 else ("right", "ellipsis")
            table.add_column(heading, justify=justify, overflow=overflow, no_wrap=number not in (0, 3))
        for row in table_rows(comparison):
            table.add_row(*map(Text, row))
        console.print(table)
        for line in [*findings(comparison), few_seeds_note(comparison)]:
            if line:
                console.print(Text(line), soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def markdown_table(record: dict[str, Any]) -> str:
    """Return the tables of a comparison record (the content of comparison.json) as GitHub Markdown."""
    blocks = []
    for name, comparison in comparisons_in(record).items():
        rows = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *table_rows(comparison)]
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in row) + " |" for row in rows
        ]
        note = few_seeds_note(comparison).replace("*", "\\*")
        title = [f"**{one_line(name)}**"] if name else []
        blocks.append("\n\n".join([*title, "\n".join(lines), *([note] if note else [])]))
    return "\n\n".join(blocks) + "\n"
