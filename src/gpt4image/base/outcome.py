"""What each command returns: the path of its result, its facts as typed fields, and the items that it skipped.

A fact is a field of the class of its command; the command line prints the fields in their order, or writes them as one
JSON object with ``--json``. Facts whose names depend on task, describer or dataset share a field (``SEVERAL``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pandas

Facts = Mapping[str, Any]
Row = dict[str, Any]
SEVERAL = {"prefix": ""}
"""Marks a field of several facts; each is called the prefix and its key."""
UNSHOWN = {"shown": False}
"""Marks a fact that only ``--json`` writes."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """One item that a stage skipped because it cannot be used.

    Attributes:
        name: key of the image, or file and line of the row.
        reason: why, in one line.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one command; those with facts are derived from it.

    A fact with a default is left out where it is None; one without a default is always told.

    Attributes:
        path: file or folder of the result; None for commands that write nothing.
        text: text such as a table, printed under the facts and left out of ``--json``.
        skipped: skipped items; a command with any ends with exit code 1.
        wrote: the files and folders that were written.
        next: the command to give next, or the same as a call in Python.
        counts: on how many images a fact of the summary was measured: of few, a score says little.
        drawing: what ``plot`` calls; None where there is nothing to see.
    """

    path: Path | None = None
    text: str = field(default="", repr=False)
    skipped: tuple[Skipped, ...] = ()
    wrote: tuple[Path, ...] = field(default=(), repr=False)
    next: str = ""
    counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    drawing: Callable[[], Any] | None = field(default=None, repr=False)

    @property
    def summary(self) -> Row:
        """The facts by name, as the command line prints them."""
        return self._facts(shown=True)

    @property
    def record(self) -> Row:
        """The facts that only ``--json`` writes, by name."""
        return self._facts(shown=False)

    @classmethod
    def of_facts(cls, facts: Facts, **others: Any) -> Self:
        """Return the result with these facts, as ``summary`` and ``record`` have them. Raises TypeError: one lacks."""
        single = {item.name for item in cls._fields() if "prefix" not in item.metadata}
        for item in sorted(cls._fields(), key=lambda item: -len(item.metadata.get("prefix", ""))):
            prefix = item.metadata.get("prefix")
            if prefix is not None:
                names = [name for name in facts if name.startswith(prefix) and name not in single]
                others[item.name] = {name.removeprefix(prefix): facts[name] for name in names}
                facts = {name: value for name, value in facts.items() if name not in names}
            elif item.name in facts:
                value = facts[item.name]
                others[item.name] = Path(value) if value is not None and "Path" in str(item.type) else value
        return cls(**others)

    def plot(self) -> Any:
        """Return a drawing of the result, which a notebook shows: curves of a run, bars of a comparison.

        Raises:
            AttributeError: there is nothing to see.
        """
        if self.drawing is None:
            raise AttributeError("this outcome has nothing to plot; those of train, evaluate, compare and demo have")
        return self.drawing()

    def behind(self, name: str) -> str:
        """Return on how many images a fact of the summary was measured, to be printed after it; else nothing."""
        images = self.counts.get(name)
        return "" if images is None or self.summary[name] is None else f" on {images:,} image{'s' * (images != 1)}"

    @classmethod
    def _fields(cls) -> list[Field[Any]]:
        """Return the fields that are facts."""
        own = {item.name for item in fields(Rows)}
        return [item for item in fields(cls) if item.name not in own]

    def _facts(self, *, shown: bool) -> Row:
        facts: Row = {}
        for item in self._fields():
            if item.metadata.get("shown", True) is not shown:
                continue
            value = getattr(self, item.name)
            if "prefix" in item.metadata:
                facts |= {item.metadata["prefix"] + name: each for name, each in value.items()}
            elif value is not None or (item.default is MISSING and item.default_factory is MISSING):
                facts[item.name] = str(value) if isinstance(value, Path) else value
        return facts

    if not TYPE_CHECKING:  # for a type checker a fact is what has a field

        def __getattr__(self, name: str) -> Any:
            """Return one of several facts as an attribute: ``val_top1``."""
            if not name.startswith("_") and "path" in self.__dict__:
                facts = {**self.record, **self.summary}
                if name in facts:
                    return facts[name]
                raise AttributeError(f"this outcome has no {name!r}; it has {', '.join(facts)}")
            raise AttributeError(name)

    def __dir__(self) -> list[str]:
        """Return the attributes, each of several facts too."""
        return [*super().__dir__(), *self.summary]

    def _repr_html_(self) -> str:
        """Return the facts as a table, for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align: left'>{escape(key.replace('_', ' '))}</th>"
            f"<td>{escape(str(value))}{self.behind(key)}</td></tr>"
            for key, value in self.summary.items()
        )
        text = f"<pre>{escape(self.text)}</pre>" if self.text else ""
        named = "".join(f"<li>{escape(item.name)}: {escape(item.reason)}</li>" for item in self.skipped[:20])
        skipped = f"<p>{len(self.skipped)} skipped</p><ul>{named}</ul>" if self.skipped else ""
        wrote = f"<p>wrote: {escape(', '.join(map(str, self.wrote)))}</p>" if self.wrote else ""
        then = f"<p>next: <code>{escape(self.next)}</code></p>" if self.next else ""
        return f"<table>{rows}</table>{text}{skipped}{wrote}{then}"


@dataclass(frozen=True, kw_only=True)
class Rows(Outcome):
    """Result of a command with something to tell of each image, query or arm.

    Attributes:
        read_rows: gives ``rows`` when they are first asked for.
    """

    read_rows: Callable[[], list[Row]] = field(default=list, repr=False, compare=False)

    @cached_property
    def rows(self) -> list[Row]:
        """What there is to tell, one dictionary each; all have the same keys."""
        return self.read_rows()

    def to_pandas(self) -> pandas.DataFrame:
        """Return ``rows`` as a table of pandas. Raises ImportError: pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "to_pandas() needs pandas, which gpt4image does not: pip install pandas. `.rows` holds the same as a "
                "list of dictionaries."
            ) from None
        return pandas.DataFrame(self.rows)


@dataclass(frozen=True, kw_only=True)
class DescribeResult(Outcome):
    """What ``describe`` did: its images, what became of the answers, and what they cost.

    ``cost_usd`` is what the model has cost for the dataset, ``cost_usd_earlier`` of it before this run.
    ``details`` are facts of the describer, of classes and of boxes; ``estimate_*`` those of a dry run.
    """

    images: int
    distinct_images: int
    already_described: int
    described: int
    failed: int
    rejected: int
    answered_by_split: Facts = field(default_factory=dict[str, Any], metadata={"prefix": "answered_"})
    without_description: int
    details: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)
    cost_usd: float | None = None
    cost_usd_earlier: float | None = None
    stopped_by: str | None = None
    estimate_from_answers: int | None = None
    estimate_requests: int | None = None
    estimate_tokens_in: int | None = None
    estimate_tokens_out: int | None = None
    estimate_usd: float | None = None
    estimate_usd_in_all: float | None = None
    estimate_usd_ci95: list[float] | None = None
    estimate_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImportResult(Outcome):
    """What ``descriptions import`` found in a file; ``details`` are counts of classes and boxes."""

    rows: int
    added: int
    unchanged: int
    descriptions: int
    unknown_keys: int
    conflicting_texts: int
    bad_rows: int
    details: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)


@dataclass(frozen=True, kw_only=True)
class ExportDescriptionsResult(Outcome):
    """How much ``descriptions export`` wrote."""

    descriptions: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class BackupResult(Outcome):
    """How much ``descriptions backup`` copied."""

    results: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StatsResult(Outcome):
    """What is in a store; ``details`` are counts of answers, tokens and cost, ``distributions`` those by kind."""

    descriptions: int
    images: int
    details: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)
    distributions: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL | UNSHOWN)


@dataclass(frozen=True, kw_only=True)
class CheckResult(Outcome):
    """How a store fits a dataset; ``details`` counts what is suspicious."""

    images: int
    images_described: int
    images_without_description: int
    images_skipped: int
    details: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)


@dataclass(frozen=True, kw_only=True)
class ViewResult(Outcome):
    """How many images the page of ``descriptions view`` shows."""

    images_shown: int
    images_answered: int
    images_in_set: int
    with_failures: int
    with_flaws: int


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

    ``coverage`` is the share of the training images with a target. ``quality`` is measured on labels that were held
    out; ``weights`` are those of the sources.
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
    quality: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)
    noise: float | None = None
    class_names: float | None = None
    weights: Facts = field(default_factory=dict[str, Any], metadata={"prefix": "weight_of_"})
    doubtful: int
    page: Path | None = None
    suspected: Path | None = None
    suggestions: Path | None = None
    again: Path | None = None
    again_classes: Path | None = None
    table: Path | None = None
    notes: list[str] | None = field(default=None, metadata=UNSHOWN)


@dataclass(frozen=True, kw_only=True)
class ReviewResult(Outcome):
    """How many images have a label after ``review``."""

    total: int
    labelled: int
    checked: int
    unsure: int


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
    val: Facts = field(default_factory=dict[str, Any], metadata={"prefix": "val_"})
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
    """What ``on_epoch`` of ``train`` is told when an epoch has ended.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: how many there will be.
        step: optimiser steps so far.
        loss: mean of the whole loss over the epoch.
        losses: mean of each part of it: task, align and others; None for one that the run has not.
        val: scores on the validation images by metric; None where this epoch is not validated.
        lr: learning rate.
        seconds: of training so far.
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
    """What ``evaluate`` measured; ``metric`` names the task's primary one. ``rows`` are the predictions of the images.

    Attributes:
        scores: of all metrics, by name.
    """

    split: str
    images: int
    labelled: int
    scores: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)
    note: str | None = None
    metric: str = field(default="", metadata=UNSHOWN)
    not_measured: Facts | None = field(default=None, metadata=UNSHOWN)

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
    content: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL | UNSHOWN)


@dataclass(frozen=True, kw_only=True)
class ReportResult(Outcome):
    """What ``report`` found: the first sentence of each comparison, or the score of a run."""

    findings: Facts | None = None
    pictures: int | None = None
    scores: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)


@dataclass(frozen=True, kw_only=True)
class DistillResult(Outcome):
    """The model that ``distill`` made, and how good it is by human labels; ``stages`` are the facts of its stages.

    Attributes:
        scores: of the primary metric, ``accuracy`` for classification; None without human labels to measure on.
    """

    images: int
    human_labels: int
    answered: int
    without_answer: int | None = None
    answered_by_split: Facts = field(default_factory=dict[str, Any], metadata={"prefix": "answered_"})
    cost_usd: float | None = None
    cost_usd_earlier: float | None = None
    scores: Facts = field(default_factory=dict[str, Any], metadata=SEVERAL)
    measured_on: str | None = None
    model: Path
    seconds: float
    stages: Facts | None = field(default=None, metadata=UNSHOWN)

    @property
    def accuracy(self) -> float | None:
        """Accuracy of classification by human labels; None for other tasks, and without such labels."""
        return self.scores.get("accuracy")


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
    """What ``predict`` predicted; ``rows`` are the predictions, one per image, or one per box."""

    predicted: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class SearchResult(Rows):
    """What ``search`` found; ``rows`` are the images, the most similar ones of each query first."""

    run: Path
    data: str
    split: str
    images: int
    encoder: str
    index: Path
    indexed_now: int
    index_seconds: float
    query_seconds: float
    queries: list[Row] | None = field(default=None, metadata=UNSHOWN)


@dataclass(frozen=True, kw_only=True)
class DoctorResult(Outcome):
    """What is installed; or, of a path, which of its files are whole."""

    files: int | None = None
    damaged: int | None = None
    machine: Facts | None = field(default=None, metadata=UNSHOWN)
    packages: Facts | None = field(default=None, metadata=UNSHOWN)
    extras: Facts | None = field(default=None, metadata=UNSHOWN)
    environment: Facts | None = field(default=None, metadata=UNSHOWN)
    checked: list[Row] | None = field(default=None, metadata=UNSHOWN)
