"""Targets: the Parquet file of class probabilities that ``label`` writes, and what files of targets were made from.

What is read here, the facts in its metadata too, has a sha256, which does not depend on how Parquet stores it.
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
from pydantic import TypeAdapter

from gpt4image.artifacts.box_table import BoxLabels, holds_boxes, reading, rows_of
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
from gpt4image.base.errors import TableError
from gpt4image.base.files import ROW_GROUP, parse_json, read_parquet, row_groups, write_row_groups
from gpt4image.data.dataset import NO_LABEL

FORMAT = "gpt4image-text-labels-1"
FEW_CLASSES = "gpt4image-text-labels-2"
"""Of many classes: ``probabilities`` are those of ``classes`` of each image, and ``rest`` that of each other one."""


@dataclass(frozen=True, kw_only=True)
class LabelEvidence:
    """What targets were predicted from, by the options of ``label``; paths are absolute, and may be gone."""

    task: str = "classification"
    evidence: str = "texts"
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

    @staticmethod
    def of(path: Path) -> LabelEvidence | None:
        """Return what a file of targets was made from; None where it is missing or cannot be read."""
        try:
            if not holds_boxes(path):
                return Targets.load(path).facts
            known = BoxLabels.load(path).facts
        except TableError:
            return None
        return LabelEvidence(
            task="detection",
            evidence=str(known.get("evidence", "fused")),
            embeddings=(str(known["embeddings"]),) if known.get("embeddings") else (),
            answers=str(known.get("answers", "")),
            seed=int(known.get("seed", 0)),
        )


@dataclass(frozen=True, kw_only=True)
class Facts(LabelEvidence):
    """What is known about a file of targets.

    ``noise`` is the estimated part of wrong given labels, ``agreement`` of out-of-fold predictions with them, ``c`` the
    inverse strength of the classifier's penalty, ``names`` the part that class names have in it, ``transition`` the
    probability of each given label by true class, ``weights`` those of the sources, ``answered`` the images with an
    answer.
    """

    classes: tuple[str, ...]
    noise: float
    agreement: float | None
    c: float | None
    folds: int
    encoders: tuple[str, ...]
    names: float = 0.0
    transition: tuple[tuple[float, ...], ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    answered: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Targets of N images, one row per digest.

    ``labels`` are those that were learned from, (N,) or (N, K) as of a dataset; ``probabilities`` (N, K) of the clean
    class, NaN where nothing is known; ``out_of_fold``, of the shape of labels, which the prediction has not seen;
    ``firm`` (N,) which images have one kind of evidence alone, so that it overrules no given label.
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
        rows = rows_of(self.digests, digests)
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
        rows = rows_of(self.digests, digests)
        return np.zeros(len(rows), bool) if self.firm is None else self.firm[rows] & (rows >= 0)

    def save(self, path: Path) -> None:
        """Write one Parquet file, atomically."""
        facts = asdict(self.facts)
        facts |= {SEAL: self._checksum(facts)}
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

    def _checksum(self, facts: Mapping[str, Any]) -> str:
        """Return the sha256 of everything that ``load`` returns: its fingerprint as JSON, which is never whole."""
        found = self.probabilities if isinstance(self.probabilities, TopKProbs) else self.probabilities.astype("<f4")
        numbers = hashlib.sha256(found.tobytes()).hexdigest()
        content = hashlib.sha256(f"[{canonical(facts)},[".encode())
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
        with reading(path, "targets"):
            table = read_parquet(path)
            metadata = table.schema.metadata or {}
            values = parse_json(metadata.get(FEW_CLASSES.encode()) or metadata[FORMAT.encode()])
            checksum = values.pop(SEAL)
            facts = TypeAdapter(Facts).validate_python(values)
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
            if checksum != found._checksum(values):
                raise ValueError("its content does not match its checksum")
        return found
