"""Findings of a comparison as sentences and tables, no stronger than its seeds allow."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gpt4image.artifacts.comparisons import FEW_SEEDS, Arm, Comparison, Pair, comparisons_in
from gpt4image.artifacts.runs import Run
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
    text_table,
)
from gpt4image.tasks.registry import TITLES

SIGNIFICANT = 0.05
CONFUSED = 5  # pairs of classes named per arm
LABELS = {
    "zero_shot": "zero-shot by class names",
    "retrieval": "retrieval between images and texts",
    "image_to_text_recall": "image to text, recall at",
    "text_to_image_recall": "text to image, recall at",
}
_ARM, _DIFFERENCE, _SEEDS_ONLY = ("arm", "mean", "95 % interval"), ("difference", "95 % interval"), "p, seeds only"
METRIC_HEADINGS = (*_ARM, *_DIFFERENCE, _SEEDS_ONLY)
HEADINGS = (*_ARM, "seeds", *_DIFFERENCE, "p", _SEEDS_ONLY, "time per run", "memory")
TERMINAL = (*HEADINGS[:4], "points", *HEADINGS[5:7])


def metric_label(metric: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a metric in words, e.g. ``image to text, recall at 5``, by the ``titles`` of its record if it has any."""
    family, _, detail = metric.partition(":")
    return f"{({**TITLES, **LABELS, **titles}).get(family, family.replace('_', ' '))} {detail}".strip()


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
    """Return whether a difference is significant: enough seeds, and p-values below 0.05."""
    return not pair.few and pair.p is not None and (pair.evidence.p or 0.0) < SIGNIFICANT


def is_bound(name: str, arm: Arm) -> str:
    """Return "control" or "reference" where an arm, or the one that it is a variant of, is no way to train."""
    known = ARMS.get(arm.arm or name)
    return known.bound if known else ""


def bounds_last(comparison: Comparison) -> dict[str, Arm]:
    """Return the arms by name, those that are ways to train first."""
    return dict(sorted(comparison.arms.items(), key=lambda item: bool(is_bound(*item))))


def _in_words(difference: str, pair: Pair) -> str:
    """Return a difference with its interval and p-value, in brackets."""
    ci95, p = pair.evidence.ci95, pair.evidence.p
    if ci95 is None or p is None:
        return f"({difference}, no p-value)"
    images = "" if pair.other_images.p is None else " and the test images"
    evidence = f"p {'' if p < 0.001 else '= '}{p_value(p)} over {seeds(pair.n)}{images}"
    return f"({difference}, 95 % interval {points_interval(ci95)}, {evidence})"


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
    """Return the headline, about the first of TEXT_ARMS that was measured, then the other findings."""
    text_pairs = [pair for arm in TEXT_ARMS if (pair := comparison.pair(arm))]
    others = [pair for pair in comparison.pairs if pair.against != comparison.reference]
    if pairs := text_pairs + others or list(comparison.pairs[:1]):
        first, *rest = (finding(comparison, pair, conditioned=number == 0) for number, pair in enumerate(pairs))
        shares = {phrase(arm): recovered(comparison, arm) for arm in TEXT_ARMS}
        known = [f"{name} {share.in_words()}" for name, share in shares.items() if share is not None]
        lost = (
            f"Share recovered of the {metric_name(comparison)} lost to missing or wrong labels, with 95 % interval: "
            f"{', '.join(known)}."
        )
        return [first, *([lost] if known else []), *rest]
    means = ", ".join(f"{percent(arm.mean)} with {phrase(name)}" for name, arm in comparison.arms.items())
    return [f"{sentence(metric_name(comparison))} is {means}; no pair of arms was compared."]


class Share(NamedTuple):
    """A share of the loss, 1 is all of it, and its 95 % interval over seeds."""

    value: float
    interval: tuple[float, float]

    def in_words(self) -> str:
        """Return e.g. ``56 % (48 to 64 %)``; ends are 0 and 100 %, as an arm above all labels has lost nothing."""
        value, low, high = (f"{100 * min(max(end, 0.0), 1.0):.0f}" for end in (self.value, *self.interval))
        return f"{value} % ({low} to {high} %)"


def recovered(comparison: Comparison, arm: str) -> Share | None:
    """Return the share of the loss by missing or wrong labels that an arm recovers: its gain by that of all labels.

    The interval is Fieller's (1954) of a ratio of two means, by seed. None where the gain of all true labels over
    human ones was not measured by the same seeds, or by too few, or is not clear of 0.
    """
    whole, part = comparison.pair("oracle"), comparison.pair(arm)
    if comparison.reference != "baseline" or whole is None or part is None or whole.few or arm == "oracle":
        return None
    limits = [interval[0] for interval in (whole.ci95, whole.other_images.ci95) if interval is not None]
    measured = [comparison.arms[name] for name in (arm, "oracle", comparison.reference)]
    if whole.ci95 is None or min(limits) <= 0.0 or len({one.seeds for one in measured}) > 1:
        return None
    from scipy.stats import t

    ours, best, reference = (np.array(one.test) for one in measured)
    gain, loss = ours - reference, best - reference
    above, below = float(gain.mean()), float(loss.mean())
    covariance = np.cov(gain, loss) / len(gain) * float(t.ppf(0.975, len(gain) - 1)) ** 2
    # The ratios r for which above - r * below does not differ from 0: those between the roots of a parabola.
    lead, middle = below**2 - float(covariance[1, 1]), above * below - float(covariance[0, 1])
    if lead <= 0.0:
        return None
    half = math.sqrt(max(middle**2 - lead * (above**2 - float(covariance[0, 0])), 0.0))
    return Share(above / below, ((middle - half) / lead, (middle + half) / lead))


def best_text_arm(comparison: Comparison) -> str | None:
    """Return the text arm with the best mean, or None where there is none beside the reference."""
    arms = [name for name in TEXT_ARMS if name in comparison.arms and name != comparison.reference]
    sign = 1 if comparison.higher_is_better else -1
    return max(arms, key=lambda name: sign * comparison.arms[name].mean, default=None)


def table_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return one row of texts per arm, under HEADINGS; differences are in points, to the reference."""
    rows: list[tuple[str, ...]] = []
    for name, arm in bounds_last(comparison).items():
        pair, scores = comparison.pair(name), " ".join(f"{100 * value:.1f}" for value in arm.test)
        gap = ("",) * 4 if pair is None else (*_gap(pair.difference, pair.evidence, pair.few), p_value(pair.p))
        mean = (one_line(name), percent(arm.mean), percent_interval(arm.ci95))
        rows.append((*mean, scores, *gap, duration(arm.seconds), memory(arm.peak_memory_bytes)))
    return rows


def _gap(difference: float, evidence: Any, few: bool) -> tuple[str, str, str]:
    return points(difference), points_interval(evidence.ci95), p_value(evidence.p) + (" *" if few else "")


def metric_tables(comparison: Comparison) -> dict[str, list[tuple[str, ...]]]:
    """Return the rows of one table per known metric, under METRIC_HEADINGS; a record may have others."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    known = {*LABELS, *TITLES, *comparison.titles}
    names = dict.fromkeys(name for arm in comparison.arms.values() for name in arm.metrics)
    for metric in (name for name in names if name.partition(":")[0] in known):
        rows = tables[metric_label(metric, comparison.titles)] = []
        for name, arm in comparison.arms.items():
            if found := arm.metrics.get(metric):
                against = found.against_baseline
                gap = ("",) * 3 if against is None else _gap(against.difference, against, against.few)
                rows.append((one_line(name), percent(found.mean), percent_interval(found.ci95), *gap))
    return tables


def absent_notes(comparison: Comparison) -> list[str]:
    """Return which metrics could not be measured, and why, as sentences."""
    reasons = dict.fromkeys((metric, why) for arm in comparison.arms.values() for metric, why in arm.absent.items())
    return [f"Not measured: {metric_label(metric)} ({one_line(why)})." for metric, why in reasons]


class Confused(NamedTuple):
    """Test pictures of class ``truth`` predicted as ``taken``, summed over seeds, and their share of that class."""

    truth: str
    taken: str
    pictures: int
    share: float


def confusions(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Confused]]:
    """Return the most confused pairs of classes of each arm, most frequent first; none where nothing is recorded."""
    found: dict[str, list[Confused]] = {}
    for arm, arm_runs in runs.items():
        counts: Counter[tuple[str, str]] = Counter()
        support: Counter[str] = Counter()
        for one in (run.evaluation for run in arm_runs if run.evaluation):
            if one.confused is not None:
                support.update(dict(zip(one.classes, one.support, strict=True)))
                counts.update({(one.classes[truth], one.classes[taken]): n for truth, taken, n in one.confused})
        if support:
            found[arm] = [Confused(*pair, n, n / support[pair[0]]) for pair, n in counts.most_common(CONFUSED)]
    return found


def few_seeds_note(comparison: Comparison) -> str:
    """Return the footnote that table rows with too few seeds need, or an empty text."""
    few = any(pair.few for name in comparison.arms if (pair := comparison.pair(name)))
    return f"* inconclusive: fewer than {FEW_SEEDS} seeds." if few else ""


def comparison_tables(record: dict[str, Any]) -> str:
    """Return the tables of a comparison record (the content of comparison.json) for a terminal, each with its first
    finding; the report has the others."""
    parts: list[str] = []
    for name, comparison in comparisons_in(record).items():
        images = comparison.data.get("test_labelled", comparison.data.get("test"))
        measured = f"Each score is of {images:,} test images." if images else ""
        lines = [measured, findings(comparison)[0], few_seeds_note(comparison)]
        rows = [(*row[:3], str(len(row[3].split())), *row[4:7]) for row in table_rows(comparison)]
        parts += [text_table(name, [TERMINAL, *rows], numbers=True), "\n".join(filter(None, lines))]
        parts += absent_notes(comparison)
    return "\n\n".join(parts)
