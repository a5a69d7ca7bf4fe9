"""Results of the commands: one class each, whose fields are its facts."""
# ruff: noqa: RUF009  (what is called returns a field)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt4image.base.outcome import Facts, Outcome, Row, Rows, several, unshown


@dataclass(frozen=True, kw_only=True)
class DescribeResult(Outcome):
    """Result of ``describe``: its images, what became of the answers, and what they cost.

    ``cost_usd`` is what all answers in the store have cost, ``cost_usd_earlier`` of it before this run.
    ``details`` are facts of the describer, of classes and of boxes; ``estimate_*`` those of a dry run.
    """

    images: int
    distinct_images: int
    already_described: int
    described: int
    failed: int
    rejected: int
    answered_by_split: Facts = several("answered_")
    without_description: int
    details: Facts = several()
    cost_usd: float | None = None
    cost_usd_earlier: float | None = None
    stopped_by: Literal["limit", "max_cost"] | None = None
    estimate_from_answers: int | None = None
    estimate_requests: int | None = None
    estimate_tokens_in: int | None = None
    estimate_tokens_out: int | None = None
    estimate_usd: float | None = None
    estimate_usd_in_all: float | None = None
    estimate_usd_ci95: list[float] | None = None
    estimate_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class StoreResult(Outcome):
    """What ``descriptions import`` or ``export`` counted."""

    counted: Facts = several()


@dataclass(frozen=True, kw_only=True)
class InspectResult(Outcome):
    """What ``inspect`` counted; ``distributions`` of answers, tokens and cost, and names of what is suspicious."""

    counted: Facts = several()
    distributions: Facts = several(shown=False)


@dataclass(frozen=True, kw_only=True)
class EncodeResult(Outcome):
    """The embedding table that ``encode`` wrote, and how long it took."""

    descriptions: int
    images: int
    texts: int
    texts_encoded: int
    texts_kept: int
    long: str
    truncated: float
    pooled: int
    max_tokens: int | None
    encoder: str
    precision: str
    width: int
    class_conditioned: bool
    seconds: float
    texts_per_second: float


@dataclass(frozen=True, kw_only=True)
class LabelResult(Rows):
    """The targets that ``label`` wrote, and how right they are; ``rows`` are the targets, one per image.

    ``quality`` is measured on labels that were held out; ``weights`` are those of the sources.
    """

    images: int
    described: int
    answered: int | None = None
    coverage: float
    labelled: int
    classes_without_label: int | None = None
    answered_boxes: int | None = None
    human_boxes: int | None = None
    teacher_boxes: int | None = None
    ignore_regions: int | None = None
    quality: Facts = several()
    noise: float | None = None
    class_names: float | None = None
    weights: Facts = several("weight_of_")
    unrelated: Facts = several("unrelated_")
    suspected: int
    page: Path | None = None
    notes: list[str] | None = unshown()


@dataclass(frozen=True, kw_only=True)
class ReviewResult(Outcome):
    """Numbers of images with a label after ``review``; those ``sampled_at_random`` may measure, the others teach.

    ``classes`` are all names to choose from.
    """

    total: int
    labelled: int
    checked: int
    unsure: int
    sampled_at_random: int
    classes: list[str] | None = unshown()


@dataclass(frozen=True, kw_only=True)
class AuditResult(Rows):
    """Shares that are right, estimated from ``looks``; ``shares`` has the interval of each."""

    split: str
    images: int
    looks: int
    unsure: int
    right: Facts = several("right_")
    shares: Mapping[str, Mapping[str, float]] = unshown()


@dataclass(frozen=True, kw_only=True)
class DiscoverResult(Rows):
    """The classes that ``discover`` found in ``images`` described ones; ``unsure`` clusters belong to none."""

    images: int
    clusters: int
    classes: int
    named: int
    unsure: int
    silhouette: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainResult(Outcome):
    """The run that ``train`` wrote; ``chosen`` are the options that it chose, ``val`` the scores on validation images.

    ``val`` is empty without a labelled validation image.
    """

    chosen: Facts
    train_images: int
    val_images: int
    test_images: int
    classes: int
    labelled: int
    described: int
    val: Facts = several("val_")
    thresholds: str | None = None
    notes: str | None = None
    seconds: float
    images_per_second: float

    @property
    def summary(self) -> Row:
        """The facts by name; ``val`` is told where there is no score, too."""
        facts = super().summary
        return facts if self.val else {**facts, "val": None}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """An epoch that has ended, for ``on_epoch`` of ``train``; ``epoch`` counts from 1 to ``epochs``.

    ``loss`` and ``losses`` (task, align and others) are means over the epoch, ``val`` has scores on the validation
    images; None where this epoch is not validated. ``step`` counts optimiser steps, ``seconds`` are of training so far.
    """

    epoch: int
    epochs: int
    step: int
    loss: float
    losses: Mapping[str, float | None]
    val: Mapping[str, float] | None
    lr: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(Rows):
    """Scores by ``evaluate``, by name; ``metric`` is the primary one. ``rows`` are the predictions of the images.

    By ``looks`` of ``audit``, ``right`` is the share of predictions that are right.
    """

    split: str
    images: int
    labelled: int
    scores: Facts = several()
    note: str | None = None
    looks: int | None = None
    right: float | None = None
    right_ci95: list[float] | None = None
    metric: str = unshown("")
    not_measured: Facts | None = unshown()

    @property
    def score(self) -> float:
        """Value of the primary metric: accuracy (top1) of classification, mAP of detection, and so on."""
        return self.scores[self.metric]

    @property
    def accuracy(self) -> float | None:
        """Accuracy (top1) of classification; None for other tasks."""
        return self.scores.get("top1")


@dataclass(frozen=True, kw_only=True)
class CompareResult(Rows):
    """The comparison that ``compare`` and ``demo`` wrote; ``rows`` are its arms, ``content`` is comparison.json."""

    comparison: Path
    report: Path
    content: Facts = several(shown=False)


@dataclass(frozen=True, kw_only=True)
class ReportResult(Outcome):
    """Findings of ``report``: the first sentence of each comparison, or the score of a run."""

    findings: Facts | None = None
    pictures: int | None = None
    scores: Facts = several()


@dataclass(frozen=True, kw_only=True)
class DistillResult(Outcome):
    """The model that ``distill`` made, its ``scores`` by human labels, and the facts of its ``stages``."""

    images: int
    human_labels: int
    answered: int
    without_answer: int | None = None
    answered_by_split: Facts = several("answered_")
    cost_usd: float | None = None
    cost_usd_earlier: float | None = None
    scores: Facts = several()
    measured_on: str | None = None
    model: Path
    seconds: float
    stages: Facts | None = unshown()

    @property
    def accuracy(self) -> float | None:
        """Accuracy of classification by human labels; None for other tasks, and without such labels."""
        return self.scores.get("accuracy")


@dataclass(frozen=True, kw_only=True)
class ExportLabelsResult(Outcome):
    """The labels that ``export_labels`` wrote, and how many images have none."""

    format: str
    images: int
    human_labels: int
    left_out: int
    boxes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExportResult(Outcome):
    """The model that ``export`` wrote, and on what it was compared to the run."""

    run: Path | None = None
    chosen: str | None = None
    format: str
    model: str
    classes: int
    checked_on: str
    largest_difference: str
    card: Path
    needs: str | None = None
    hub: str | None = None


@dataclass(frozen=True, kw_only=True)
class PredictResult(Rows):
    """Predictions by ``predict``; ``rows`` has one per image, or one per box."""

    predicted: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class SearchResult(Rows):
    """Images found by ``search``: ``rows``, the most similar ones of each query first."""

    run: Path
    data: str
    split: str
    images: int
    encoder: str
    index: Path
    indexed_now: int
    index_seconds: float
    query_seconds: float
    queries: list[Row] | None = unshown()


@dataclass(frozen=True, kw_only=True)
class DoctorResult(Outcome):
    """Packages that are installed; or, of a path, the state of its files."""

    files: int | None = None
    damaged: int | None = None
    machine: Facts | None = unshown()
    packages: Facts | None = unshown()
    extras: Facts | None = unshown()
    environment: Facts | None = unshown()
    plugins: Facts | None = unshown()
    checked: list[Row] | None = unshown()
