"""Findings of a comparison as sentences and tables, no stronger than its seeds allow."""

from __future__ import annotations

from typing import Any

from gpt4image.artifacts.run_records import FEW_SEEDS, Arm, Comparison, Pair, comparisons_in
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
    sentence,
)
from gpt4image.reporting.metric_tables import absent_notes, compact_rows, metric_label
from gpt4image.reporting.recovered import in_words, recovered
from gpt4image.reporting.text_table import text_table

SIGNIFICANT = 0.05


def metric_name(comparison: Comparison) -> str:
    """Return the primary metric in words, e.g. ``test accuracy``."""
    return f"test {metric_label(comparison.metric, comparison.titles)}"


def phrase(arm: str) -> str:
    """Return an arm as it reads inside a sentence."""
    return ARMS[arm].phrase if arm in ARMS else one_line(arm)


def condition(data: dict[str, Any]) -> str:
    """Return which labels there were, e.g. ``With 90 of 1,007 training images labelled``, or an empty text."""
    noise, per_class = data.get("label_noise"), data.get("labels_per_class")
    parts: list[str] = []
    if per_class is not None:
        parts.append(f"{per_class} label{'' if per_class == 1 else 's'} per class" if per_class else "no label")
    if (images := data.get("labelled_images")) is not None:
        parts.append(f"{images} annotated image{'' if images == 1 else 's'}")
    if noise:
        parts.append(f"{100 * noise:.3g} % of {'them' if per_class else 'the training labels'} wrong")
    if noise and data.get("noise_kind") == "class-dependent":
        parts[-1] += " (each class mistaken for one other)"
    labelled, total = data.get("labelled"), data.get("train")
    if not parts and labelled is not None and total:
        some = f"{labelled:,} of " if labelled < total else "all "
        parts.append(f"{some}{total:,} training images labelled")
    return f"With {', '.join(parts)}" if parts else ""


def is_significant(pair: Pair) -> bool:
    """Return whether a difference is significant: enough seeds, and a p-value below 0.05.

    Older records have no p-value for other images; there the one over seeds decides.
    """
    return not pair.few and pair.p is not None and (pair.evidence.p or 0.0) < SIGNIFICANT


def is_bound(name: str, arm: Arm) -> str:
    """Return "control" or "reference" where an arm, or the one that it is a variant of, is no way to train."""
    known = ARMS.get(arm.arm or name)
    return known.bound if known else ""


def bounds_last(comparison: Comparison) -> dict[str, Arm]:
    """Return the arms by name, those that are ways to train first."""
    return dict(sorted(comparison.arms.items(), key=lambda item: bool(is_bound(*item))))


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def _in_words(difference: str, pair: Pair) -> str:
    """Return a difference with its interval and p-value, in brackets."""
    ci95, p = pair.evidence.ci95, pair.evidence.p
    parts = [difference] if ci95 is None else [difference, f"95 % interval {points_interval(ci95)}"]
    if p is None:
        parts.append("no p-value")
    elif pair.other_images.p is None:
        parts.append(f"p {_equals(p)} over {seeds(pair.n)}")
    else:
        parts.append(f"p {_equals(p)} over {seeds(pair.n)} and the test images")
    return f"({', '.join(parts)})"


def finding(comparison: Comparison, pair: Pair, *, conditioned: bool = True) -> str:
    """Return what one pair of arms shows, as one sentence; ``conditioned`` names the labels first."""
    before, after = (percent(comparison.arms[arm].mean) for arm in (pair.against, pair.arm))
    name, rival, metric = phrase(pair.arm), phrase(pair.against), metric_name(comparison)
    context = condition(comparison.data) if conditioned else ""
    reference = "" if pair.against == comparison.reference == "baseline" else f" ({rival})"
    difference = f"{points(pair.difference)} points"
    shown = _in_words(difference, pair)
    if pair.few:
        few = f"inconclusive, {seeds(pair.n)} {'is' if pair.n == 1 else 'are'} too few for a test"
        found = f"{name} changed {metric} from {before}{reference} to {after} ({difference}): {few}"
    elif is_significant(pair):
        verb = "raised" if pair.difference > 0 else "lowered"
        found = f"{name} {verb} {metric} from {before}{reference} to {after} {shown}"
    elif reference:
        found = f"no significant difference in {metric} between {name} and {rival}: {after} and {before} {shown}"
    else:
        found = f"{name} made no significant difference to {metric}: {before} without, {after} with {shown}"
    return f"{context}, {found}." if context else f"{sentence(found)}."


def findings(comparison: Comparison) -> list[str]:
    """Return the headline, then the findings for the other text arms and for the pairs without the reference.

    The headline is about the first of TEXT_ARMS that was measured against the reference, else about the first pair,
    else it gives the mean of every arm.
    """
    text_pairs = [pair for arm in TEXT_ARMS if (pair := comparison.pair(arm))]
    others = [pair for pair in comparison.pairs if pair.against != comparison.reference]
    if pairs := text_pairs + others or list(comparison.pairs[:1]):
        first, *rest = (finding(comparison, pair, conditioned=number == 0) for number, pair in enumerate(pairs))
        shares = {phrase(arm): recovered(comparison, arm) for arm in TEXT_ARMS}
        known = [f"{name} {in_words(share)}" for name, share in shares.items() if share is not None]
        lost = (
            f"Share recovered of the {metric_name(comparison)} lost to missing or wrong labels, with 95 % interval: "
            f"{', '.join(known)}."
        )
        return [first, *([lost] if known else []), *rest]
    means = ", ".join(f"{percent(arm.mean)} with {phrase(name)}" for name, arm in comparison.arms.items())
    return [f"{sentence(metric_name(comparison))} is {means}; no pair of arms was compared."]


def best_text_arm(comparison: Comparison) -> str | None:
    """Return the text arm with the best mean, or None where there is none beside the reference."""
    arms = [name for name in TEXT_ARMS if name in comparison.arms and name != comparison.reference]
    sign = 1 if comparison.higher_is_better else -1
    return max(arms, key=lambda name: sign * comparison.arms[name].mean, default=None)


HEADINGS = (
    "arm",
    "mean",
    "95 % interval",
    "seeds",
    "difference",
    "95 % interval",
    "p",
    "p, seeds only",
    "time per run",
    "memory",
)


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row of texts per arm, under HEADINGS; differences are in points, to the reference."""
    rows: list[tuple[str, ...]] = []
    for name, arm in bounds_last(comparison).items():
        pair = comparison.pair(name)
        rows.append(
            (
                one_line(name),
                percent(arm.mean),
                percent_interval(arm.ci95),
                " ".join(f"{100 * value:.1f}" for value in arm.test),
                points(pair.difference) if pair else "",
                points_interval(pair.evidence.ci95) if pair else "",
                p_value(pair.evidence.p) + (" *" if pair.few else "") if pair else "",
                p_value(pair.p) if pair else "",
                duration(arm.seconds),
                memory(arm.peak_memory_bytes),
            )
        )
    return rows


TERMINAL = (*HEADINGS[:3], "seeds", "points", *HEADINGS[5:7])


def terminal_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the part of ``table_rows`` that fits a terminal, under TERMINAL; the report has the rest.

    In place of the score of every seed, their number.
    """
    counts = [str(len(arm.test)) for arm in bounds_last(comparison).values()]
    return [(*row[:3], n, *row[4:7]) for row, n in zip(table_rows(comparison), counts, strict=True)]


def few_seeds_note(comparison: Comparison) -> str:
    """Return the footnote that table rows with too few seeds need, or an empty text."""
    few = any(pair.few for name in comparison.arms if (pair := comparison.pair(name)))
    return f"* inconclusive: fewer than {FEW_SEEDS} seeds." if few else ""


def comparison_tables(record: dict[str, Any]) -> str:
    """Return the tables and findings of a comparison record (the content of comparison.json) for a terminal."""
    parts: list[str] = []
    for name, comparison in comparisons_in(record).items():
        images = comparison.data.get("test")
        measured = f"Each score is of {images:,} test images." if images else ""
        lines = [measured, *findings(comparison), few_seeds_note(comparison)]
        parts += [
            text_table(name, [TERMINAL, *terminal_rows(comparison)], numbers=True),
            "\n".join(filter(None, lines)),
        ]
        if rows := compact_rows(comparison):
            parts.append(text_table(name, rows, numbers=True))
        parts += absent_notes(comparison)
    return "\n\n".join(parts)


def markdown_table(record: dict[str, Any]) -> str:
    """Return the tables of a comparison record (the content of comparison.json) as GitHub Markdown."""
    blocks: list[str] = []
    for name, comparison in comparisons_in(record).items():
        rows = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *table_rows(comparison)]
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in row) + " |" for row in rows
        ]
        title, note = f"**{one_line(name)}**" if name else "", few_seeds_note(comparison).replace("*", "\\*")
        blocks += filter(None, [title, "\n".join(lines), note])
    return "\n\n".join(blocks) + "\n"
