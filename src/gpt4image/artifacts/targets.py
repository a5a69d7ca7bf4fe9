"""Targets: the file of class probabilities that ``label`` writes, and what files of targets were made from.

The file is Parquet, with a checksum of each page for those who read it by other means. What is read here, the facts in
its metadata too, has a sha256 of its own, which does not depend on how Parquet stores it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.artifacts.box_table import BoxLabels, holds_boxes
from gpt4image.artifacts.top_k_probs import (
    Probabilities,
    TopKProbs,
    as_array,
    as_column,
    as_columns,
    chosen,
    is_matrix,
    of_columns,
    scattered,
)
from gpt4image.base.checksums import SEAL, canonical
from gpt4image.base.errors import TableError, first_line
from gpt4image.base.files import ROW_GROUP, UNREADABLE, parse_json, read_parquet, row_groups, write_row_groups
from gpt4image.data.dataset import NO_LABEL

FORMAT = "gpt4image-text-labels-1"
FEW_CLASSES = "gpt4image-text-labels-2"
"""Of many classes: ``probabilities`` are those of ``classes`` of each image, and ``rest`` that of each other one."""
LATER = {"task": "classification", "evidence": "texts", "weights": {}, "answers": "", "answered": 0}
"""Facts that earlier versions do not know, with what their files mean; written where they say something else."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a file of text labels.

    Attributes:
        classes: class names.
        noise: estimated part of the given labels that is wrong.
        agreement: part of the out-of-fold predictions that agree with the given label.
        c: inverse strength of the classifier's penalty; of several classifiers the geometric mean.
        folds: folds of its cross-validation.
        seed: seed of the folds.
        encoders: SPEC of the encoder of the embedding table.
        embeddings: absolute path of the table, which may be gone; several as ``encoders``.
        names: part that class names have in the classifier, 0 to 1.
        transition: probability of each given label by true class; empty where a wrong label is any other class alike.
        task: what the labels are of: classification, multilabel or video.
        evidence: what was read: fused, texts, answers or names.
        weights: of each source of evidence in the product of experts; none in files of earlier versions.
        answers: absolute path of the store of answers; empty where none were read.
        answered: images with an answer.
    """

    classes: tuple[str, ...]
    noise: float
    agreement: float | None
    c: float | None
    folds: int
    seed: int
    encoders: tuple[str, ...]
    names: float = 0.0
    transition: tuple[tuple[float, ...], ...] = ()
    embeddings: tuple[str, ...] = ()
    task: str = "classification"
    evidence: str = "texts"
    weights: Mapping[str, float] = field(default_factory=dict)
    answers: str = ""
    answered: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what is stored: facts of later versions only where they say something, so that checksums hold."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Text labels of N described images, one row per digest.

    Attributes:
        keys: key of each image.
        digests: sha256 hex digest of each image.
        splits: (N,) split of each image.
        labels: given labels that were learned from: (N,) classes, NO_LABEL elsewhere; with several per image (N, K)
            int8, 1 present, 0 absent, -1 not known.
        probabilities: (N, K) of the clean class, by the text; of several labels per image NaN where nothing is known.
        out_of_fold: bool, of the shape of the labels: which of them the prediction has not seen.
        facts: classes, noise and how they were found.
        firm: (N,) images of which one kind of evidence alone tells, so that it overrules no given label; None: nowhere.
    """

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    splits: NDArray[np.str_]
    labels: NDArray[Any]
    probabilities: Probabilities
    out_of_fold: NDArray[np.bool_]
    facts: Facts
    firm: NDArray[np.bool_] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.facts.classes

    @cached_property
    def doubt(self) -> NDArray[np.float32]:
        """Probability that each given label is wrong, by the text alone; NaN where it is not out-of-fold."""
        if self.labels.ndim == 2:
            own = np.where(self.labels == 1, self.probabilities[:], 1 - self.probabilities[:])
        else:
            own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return np.where(self.out_of_fold, 1 - own, np.float32("nan"))

    def of(self, digests: Sequence[str], nothing: float = 0.0) -> Probabilities:
        """Return the (n, K) probabilities of images by digest; ``nothing`` for all classes of one that is not here."""
        rows = self._rows(digests)
        there = np.flatnonzero(rows >= 0)
        return scattered(chosen(self.probabilities, rows[there]), there, len(rows), nothing)

    def take(self, rows: NDArray[np.int64]) -> Targets:
        """Return those of some images."""
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            digests=tuple(self.digests[row] for row in rows),
            splits=self.splits[rows],
            labels=self.labels[rows],
            probabilities=chosen(self.probabilities, rows),
            out_of_fold=self.out_of_fold[rows],
            firm=None if self.firm is None else self.firm[rows],
        )

    def firm_of(self, digests: Sequence[str]) -> NDArray[np.bool_]:
        """Return (n,) which images, by digest, are ``firm``."""
        rows = self._rows(digests)
        return np.zeros(len(rows), bool) if self.firm is None else self.firm[rows] & (rows >= 0)

    def _rows(self, digests: Sequence[str]) -> NDArray[np.int64]:
        place = {digest: row for row, digest in enumerate(self.digests)}
        return np.array([place.get(digest, -1) for digest in digests], np.int64)

    def save(self, path: Path) -> None:
        """Write one Parquet file, atomically."""
        facts = {**self.facts.to_json(), SEAL: self._checksum()}
        name = FEW_CLASSES if isinstance(self.probabilities, TopKProbs) else FORMAT
        metadata = {name: json.dumps(facts, ensure_ascii=False)}

        def table(rows: slice) -> Any:
            import pyarrow as pa

            return pa.table(self._columns(rows)).replace_schema_metadata(metadata)

        total = len(self.keys)
        write_row_groups(path, row_groups(total, ROW_GROUP if self.labels.ndim == 1 else total), table)

    def _columns(self, rows: slice) -> dict[str, Any]:
        """Return the columns of some images."""
        import pyarrow as pa

        found, labels = chosen(self.probabilities, rows), self.labels[rows]
        if labels.ndim == 2:
            given = as_column(labels)
            text = [[self.classes[k] for k in np.flatnonzero(row)] for row in found[:] >= 0.5]
        else:
            kind = pa.string() if (self.labels >= 0).any() else pa.null()
            given = pa.array([self.classes[label] if label >= 0 else None for label in labels.tolist()], kind)
            text = [self.classes[label] for label in found.argmax(axis=1).tolist()]
        return {
            "key": self.keys[rows],
            "digest": self.digests[rows],
            "split": self.splits[rows].tolist(),
            "given_label": given,
            "text_label": text,
            "doubt": as_column(self.doubt[rows]),
            "out_of_fold": as_column(self.out_of_fold[rows]),
            **({} if self.firm is None else {"firm": as_column(self.firm[rows])}),
            **as_columns(found),
        }

    def _checksum(self) -> str:
        """Return the sha256 of everything that ``load`` returns: its fingerprint as JSON, which is never whole."""
        found = self.probabilities if isinstance(self.probabilities, TopKProbs) else self.probabilities.astype("<f4")
        numbers = hashlib.sha256(found.tobytes()).hexdigest()
        content = hashlib.sha256(f"[{canonical(self.facts.to_json())},[".encode())
        lists = (self.keys, self.digests, self.splits, self.labels, self.out_of_fold)
        lists += () if self.firm is None else (self.firm,)
        for number, values in enumerate(lists):
            content.update(b",[" if number else b"[")
            for rows in row_groups(len(values), ROW_GROUP):
                part = canonical(values[rows] if isinstance(values, tuple) else values[rows].tolist())
                content.update((f",{part[1:-1]}" if rows.start else part[1:-1]).encode())
            content.update(b"]")
        content.update(f'],"{numbers}"]'.encode())
        return content.hexdigest()

    @staticmethod
    def load(path: Path) -> Targets:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, damaged or something else."""
        if path.suffix == ".csv":
            raise TableError(f"{path} is the table for people; give {path.with_suffix('.parquet')} beside it.")
        if not path.is_file():
            raise TableError(f"{path}: there are no text labels here; make them with `gpt4image label --out {path}`.")
        try:
            table = read_parquet(path)
            metadata = table.schema.metadata or {}
            values = parse_json(metadata.get(FEW_CLASSES.encode()) or metadata[FORMAT.encode()])
            checksum = values.pop(SEAL, None)
            tuples: dict[str, Any] = {
                name: tuple(values.get(name, ())) for name in ("classes", "encoders", "embeddings")
            }
            tuples["transition"] = tuple(map(tuple, values.get("transition", ())))
            facts = Facts(**{**values, **tuples})
            given = table.column("given_label")
            if is_matrix(given):
                labels = as_array(given, np.int8)
            else:
                place = {None: NO_LABEL} | {name: index for index, name in enumerate(facts.classes)}
                labels = np.array([place[name] for name in given.to_pylist()], dtype=np.int64)
            found = Targets(
                keys=tuple(table.column("key").to_pylist()),
                digests=tuple(table.column("digest").to_pylist()),
                splits=np.array(table.column("split").to_pylist(), dtype=np.str_),
                labels=labels,
                probabilities=of_columns(table, len(facts.classes)),
                out_of_fold=as_array(table.column("out_of_fold"), np.bool_),
                facts=facts,
                firm=as_array(table.column("firm"), np.bool_) if "firm" in table.column_names else None,
            )
            if checksum not in (None, found._checksum()):
                raise ValueError("its content does not match its checksum")
            if found.probabilities.shape != (len(found.keys), len(facts.classes)):
                raise ValueError(f"{found.probabilities.shape} probabilities of {len(facts.classes)} classes")
            _require_probabilities(found.probabilities)
        except (OSError, AttributeError, *UNREADABLE) as error:
            raise TableError(
                f"{path} is not a file of text labels, or is damaged ({first_line(error)}); write it again with "
                "`gpt4image label`."
            ) from None
        return found


ROUNDING = 1e-3
"""By how much a probability in a file may be outside of 0 to 1."""


def _require_probabilities(given: Probabilities) -> None:
    """Refuse numbers that are no probabilities; NaN stands for an image of which nothing is said. Raises ValueError."""
    for values in (given.values, given.rest) if isinstance(given, TopKProbs) else (given,):
        wrong = (values < -ROUNDING) | (values > 1 + ROUNDING)
        if wrong.any():
            raise ValueError(f"{values[wrong][0]:g} is no probability, which is from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class LabelEvidence:
    """What targets were predicted from, by the options of ``label``.

    Attributes:
        task: classification, multilabel, video or detection.
        evidence: fused, texts, answers or names.
        embeddings: absolute paths of the embedding tables that were given; they may be gone.
        answers: absolute path of the store of answers that was given, which may be gone; else empty.
        seed: seed of the folds.
    """

    task: str
    evidence: str
    embeddings: tuple[str, ...] = ()
    answers: str = ""
    seed: int = 0

    @property
    def texts_read(self) -> bool:
        """Whether descriptions were read."""
        return bool(self.embeddings) and self.evidence != "answers"

    @property
    def answers_read(self) -> bool:
        """Whether answers were read, be it to learn what descriptions mean."""
        return bool(self.answers) and self.evidence != "names"

    @property
    def asked(self) -> str:
        """What answers are about, as ``describe --ask`` calls it: class, tags or boxes."""
        return {"multilabel": "tags", "detection": "boxes"}.get(self.task, "class")

    @classmethod
    def of(cls, path: Path) -> LabelEvidence | None:
        """Return what a file of targets was made from; None where it is missing or cannot be read."""
        try:
            if holds_boxes(path):
                known = BoxLabels.load(path).facts
                table, answers, seed = known.get("embeddings", ""), known.get("answers", ""), known.get("seed", 0)
                tables, evidence = (str(table),) if table else (), str(known.get("evidence", "fused"))
                return cls(task="detection", evidence=evidence, embeddings=tables, answers=str(answers), seed=int(seed))
            facts = Targets.load(path).facts
        except TableError:
            return None
        tables = facts.embeddings
        return cls(task=facts.task, evidence=facts.evidence, embeddings=tables, answers=facts.answers, seed=facts.seed)
