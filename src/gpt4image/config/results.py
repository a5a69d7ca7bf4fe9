"""Results of the commands: one class each, whose fields are its facts."""

# pyright: reportGeneralTypeIssues=false
# (a result that is always written has a path, where the base has perhaps one)
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

from gpt4image.base.outcome import Facts, Outcome, Row, Rows


def drawn(plot: str, path: Any) -> Any:
    """Return a drawing of ``reporting.charts``, which is imported when needed."""
    return getattr(import_module("gpt4image.reporting.charts"), plot)(path)


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
    answered_by_split: Facts = field(default_factory=dict)
    without_description: int
    details: Facts = field(default_factory=dict)
    cost_usd: float | None = None
    cost_usd_earlier: float | None = None
    stopped_by: Literal["limit", "share", "max_cost", "until_gain"] | None = None
    estimate_from_answers: int | None = None
    estimate_requests: int | None = None
    estimate_tokens_in: int | None = None
    estimate_tokens_out: int | None = None
    estimate_usd: float | None = None
    estimate_usd_in_all: float | None = None
    estimate_usd_ci95: list[float] | None = None
    estimate_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrialResult(Rows):
    """What ``trial`` found out on a sample of ``images``; ``rows``, in JSON ``combinations``, has one row per describer
    and prompt.

    ``recommended`` is the cheapest that is not shown to be worse, None where labels do not tell. A row has
    ``difference``, its ``difference_ci95`` and its corrected ``p`` against the recommended one, and the number of
    labelled images by which such a difference would be ``decided``.
    """

    path: Path
    images: int
    labelled: int
    differ: int
    recommended: str | None = None
    cost_usd: float | None = None
    page: Path
    combinations: list[Row] = field(default_factory=list, repr=False)


@dataclass(frozen=True, kw_only=True)
class StoreResult(Outcome):
    """What ``descriptions import`` or ``export`` counted."""

    counted: Facts = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class InspectResult(Outcome):
    """What ``inspect`` counted; ``distributions`` of answers, tokens and cost, and names of what is suspicious."""

    counted: Facts = field(default_factory=dict)
    distributions: Facts = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class EncodeResult(Outcome):
    """The embedding table that ``encode`` wrote, and how long it took."""

    path: Path
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

    path: Path
    images: int
    described: int
    answered: int | None = None
    coverage: float
    by_picture: int | None = None
    labelled: int
    classes_without_label: int | None = None
    answered_boxes: int | None = None
    human_boxes: int | None = None
    teacher_boxes: int | None = None
    ignore_regions: int | None = None
    promised: int | None = None
    quality: Facts = field(default_factory=dict)
    noise: float | None = None
    class_names: float | None = None
    weights: Facts = field(default_factory=dict)
    unrelated: Facts = field(default_factory=dict)
    suspected: int
    page: Path | None = None
    notes: list[str] | None = field(default=None, repr=False)


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
    classes: list[str] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class AuditResult(Rows):
    """Shares that are right, estimated from ``looks`` audited images; ``shares`` has the interval of each."""

    split: str
    images: int
    looks: int
    unsure: int
    right: Facts = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict, repr=False)


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

    path: Path
    chosen: Facts
    train_images: int
    val_images: int
    test_images: int
    classes: int
    labelled: int
    described: int
    val: Facts = field(default_factory=dict)
    none_of_these: str | None = None
    thresholds: str | None = None
    notes: str | None = None
    seconds: float
    images_per_second: float

    def plot(self) -> Any:
        """Return curves of the run, for notebooks."""
        return drawn("plot_run", self.path)


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

    By ``looks`` audited images, ``right`` is the share of predictions that are right. ``refused`` among the scores is
    the share of images that the model calls none of the classes; ``at_least`` the probability that --at-least needs.
    """

    split: str
    images: int
    labelled: int
    scores: Facts = field(default_factory=dict)
    note: str | None = None
    looks: int | None = None
    right: float | None = None
    right_ci95: list[float] | None = None
    at_least: Facts | None = field(default=None, repr=False)
    calibration: Facts | None = field(default=None, repr=False)
    metric: str = field(default="", repr=False)
    not_measured: Facts | None = field(default=None, repr=False)

    @property
    def score(self) -> float:
        """Value of the primary metric: accuracy (top1) of classification, mAP of detection, and so on."""
        return self.scores[self.metric]

    @property
    def accuracy(self) -> float | None:
        """Accuracy (top1) of classification; None for other tasks."""
        return self.scores.get("top1")

    def plot(self) -> Any:
        """Return the scores of the classes, for notebooks."""
        return drawn("plot_classes", self.path)


@dataclass(frozen=True, kw_only=True)
class CompareResult(Rows):
    """The comparison that ``compare`` and ``demo`` wrote; ``rows`` are its arms, ``content`` is comparison.json."""

    path: Path
    comparison: Path
    report: Path
    content: Facts = field(default_factory=dict, repr=False)

    def plot(self) -> Any:
        """Return the scores of the arms, for notebooks."""
        return drawn("plot_comparison", self.path)


@dataclass(frozen=True, kw_only=True)
class ReportResult(Outcome):
    """Findings of ``report``: the first sentence of each comparison, or the score of a run."""

    findings: Facts | None = None
    pictures: int | None = None
    scores: Facts = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DistillResult(Outcome):
    """The model that ``distill`` made, its ``scores`` by human labels, and the facts of its ``stages``."""

    path: Path
    images: int
    human_labels: int
    answered: int
    without_answer: int | None = None
    answered_by_split: Facts = field(default_factory=dict)
    cost_usd: float | None = None
    cost_usd_earlier: float | None = None
    scores: Facts = field(default_factory=dict)
    measured_on: str | None = None
    model: Path
    seconds: float
    stages: Facts | None = field(default=None, repr=False)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of classification by human labels; None for other tasks, and without such labels."""
        return self.scores.get("accuracy")


@dataclass(frozen=True, kw_only=True)
class ImproveResult(Outcome):
    """The model that ``improve`` made of ``new_images``; ``known_images`` were left out.

    ``compared`` has the deployed model and the new one on the ``old`` and the ``new`` test images, of which ``looks``
    were taken at random. ``taken_over`` is None where nothing was new.
    """

    path: Path
    parent: Path | None = None
    new_images: int
    known_images: int
    looks: int | None = None
    asked: int | None = None
    cost_usd: float | None = None
    compared: Facts = field(default_factory=dict, repr=False)
    taken_over: bool | None = None
    page: Path | None = None
    model: Path | None = None


@dataclass(frozen=True, kw_only=True)
class HistoryResult(Rows):
    """The models of a line, the first one first; ``rows`` has the data, cost and accuracy of each."""

    writes: ClassVar[bool] = False
    models: int


@dataclass(frozen=True, kw_only=True)
class ExportLabelsResult(Outcome):
    """The labels that ``export_labels`` wrote, and how many images have none."""

    path: Path
    format: str
    images: int
    human_labels: int
    left_out: int
    boxes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExportResult(Outcome):
    """The model that ``export`` wrote, and on what it was compared to the run."""

    path: Path
    run: Path | None = None
    chosen: str | None = None
    format: str
    model: str
    classes: int
    checked_on: str
    largest_difference: str
    quantised: Facts = field(default_factory=dict)
    card: Path
    needs: str | None = None
    hub: str | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult(Rows):
    """The table of ``benchmark``; ``rows`` has one row per model: mb, ms_1, ms_32, score, ci95, ece, same."""

    writes: ClassVar[bool] = False
    data: str
    split: str
    images: int

    def plot(self) -> Any:
        """Return accuracy against milliseconds and megabytes, for notebooks."""
        return drawn("plot_benchmark", self.rows)


@dataclass(frozen=True, kw_only=True)
class PredictResult(Rows):
    """Predictions by ``predict``; ``rows`` has one per image, or one per box. No facts where rows are printed."""

    predicted: int | None = None
    asked: int | None = None
    none_of_these: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None


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
    queries: list[Row] | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class DoctorResult(Outcome):
    """Packages that are installed; or, of a path, the state of its files."""

    writes: ClassVar[bool] = False
    files: int | None = None
    damaged: int | None = None
    machine: Facts | None = field(default=None, repr=False)
    packages: Facts | None = field(default=None, repr=False)
    extras: Facts | None = field(default=None, repr=False)
    environment: Facts | None = field(default=None, repr=False)
    plugins: Facts | None = field(default=None, repr=False)
    checked: list[Row] | None = field(default=None, repr=False)
