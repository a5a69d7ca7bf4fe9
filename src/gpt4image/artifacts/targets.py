"""Targets: the Parquet files of class probabilities and of boxes that ``label`` writes, and what they were made from.

Facts stand in the metadata of the file, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from gpt4image.artifacts.probabilities import (
    Probabilities,
    as_array,
    as_column,
    from_columns,
    is_matrix,
    scatter,
    take,
    to_columns,
)
from gpt4image.base.errors import DamagedError, Gpt4ImageError, TableError, first_line, parsing
from gpt4image.base.files import (
    ROW_GROUP,
    damaged,
    parse_json,
    read_parquet,
    require_format,
    row_groups,
    write_parquet,
    write_row_groups,
)
from gpt4image.data.dataset import NO_LABEL
from gpt4image.data.regions import Boxes

TARGETS, BOXES = "gpt4image-targets", "gpt4image-boxes"  # names of their metadata, JSON with the format
FORMAT = 2


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
        """Return what a file of targets was made from; None where it does not say, is missing or cannot be read."""
        try:
            if not holds_boxes(path):
                return Targets.load(path).facts
            known = BoxLabels.load(path).facts
        except (Gpt4ImageError, OSError):
            return None
        own = {name: known[name] for name in ("evidence", "answers", "seed") if name in known}
        return LabelEvidence(task="detection", embeddings=tuple(filter(None, [known.get("embeddings")])), **own)


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
    ``single_source`` (N,) which images have one kind of evidence alone, so that it overrules no given label.
    """

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    splits: NDArray[np.str_]
    labels: NDArray[Any]
    probabilities: Probabilities
    out_of_fold: NDArray[np.bool_]
    facts: Facts
    single_source: NDArray[np.bool_] | None = None

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
        return scatter(take(self.probabilities, rows[there]), there, len(rows), nothing)

    def take(self, rows: NDArray[np.int64]) -> Targets:
        """Return those of some images."""
        return replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            digests=tuple(self.digests[row] for row in rows),
            splits=self.splits[rows],
            labels=self.labels[rows],
            probabilities=take(self.probabilities, rows),
            out_of_fold=self.out_of_fold[rows],
            single_source=None if self.single_source is None else self.single_source[rows],
        )

    def single_source_of(self, digests: Sequence[str]) -> NDArray[np.bool_]:
        """Return (n,) which images, by digest, are ``single_source``."""
        rows = rows_of(self.digests, digests)
        return np.zeros(len(rows), bool) if self.single_source is None else self.single_source[rows] & (rows >= 0)

    def save(self, path: str | Path) -> None:
        """Write one Parquet file, atomically."""
        metadata = {TARGETS: json.dumps({"format": FORMAT, **asdict(self.facts)}, ensure_ascii=False)}

        def table(rows: slice) -> Any:
            import pyarrow as pa

            return pa.table(self._columns(rows)).replace_schema_metadata(metadata)

        total = len(self.keys)
        write_row_groups(Path(path), row_groups(total, ROW_GROUP if self.labels.ndim == 1 else total), table)

    def _columns(self, rows: slice) -> dict[str, Any]:
        import pyarrow as pa

        found, labels = take(self.probabilities, rows), self.labels[rows]
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
            **({} if self.single_source is None else {"single_source": as_column(self.single_source[rows])}),
            **to_columns(found, exclusive=labels.ndim == 1),
        }

    @staticmethod
    def load(path: str | Path) -> Targets:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, DamagedError, FormatError."""
        path = Path(path)
        names = ["key", "digest", "split", "given_label", "out_of_fold"]
        table, values = _read(path, "targets", TARGETS, names)
        try:
            facts = TypeAdapter(Facts).validate_python(values)
        except ValidationError as error:
            raise damaged(path, f"its facts are not those of targets ({first_line(error)})") from None
        place = {None: NO_LABEL} | {name: index for index, name in enumerate(facts.classes)}
        with parsing(f"{path} is damaged: it does not hold targets", DamagedError):
            given = table.column("given_label")
            if is_matrix(given):
                labels = as_array(given, np.int8)
            else:
                labels = np.array([place[name] for name in given.to_pylist()], dtype=np.int64)
            return Targets(
                keys=tuple(table.column("key").to_pylist()),
                digests=tuple(table.column("digest").to_pylist()),
                splits=np.array(table.column("split").to_pylist(), dtype=np.str_),
                labels=labels,
                probabilities=from_columns(table, len(facts.classes)),
                out_of_fold=as_array(table.column("out_of_fold"), np.bool_),
                facts=facts,
                single_source=(
                    as_array(table.column("single_source"), np.bool_) if "single_source" in table.column_names else None
                ),
            )


COLUMNS = ("left", "top", "right", "bottom", "class", "weight")  # fields of a box, besides the name of its class


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxLabels:
    """Boxes of N images, by key and digest; ``facts`` say how they were made, as JSON values."""

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    boxes: Boxes
    classes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def by_digest(self, digests: Sequence[str]) -> Boxes:
        """Return the boxes of images; one that the file lacks is not annotated. Of equal images the first counts."""
        rows = rows_of(self.digests, digests)
        found = self.boxes[np.maximum(rows, 0)] if len(self.boxes) else Boxes.of_images([None] * len(rows))
        return found.hidden(rows < 0)

    def save(self, path: Path) -> None:
        """Write one Parquet file, atomically."""
        import pyarrow as pa

        boxes = self.boxes
        values = [*boxes.corners.T, boxes.labels.astype(np.int32), boxes.weights]
        names = pa.array([self.classes[label] for label in boxes.labels.tolist()], pa.string())
        arrays = [*(pa.array(np.ascontiguousarray(one)) for one in values), names]
        rows = pa.StructArray.from_arrays(arrays, names=[*COLUMNS, "name"])
        lists = pa.ListArray.from_arrays(pa.array(boxes.starts.astype(np.int32)), rows)
        columns = {"key": self.keys, "digest": self.digests, "known": pa.array(boxes.known), "boxes": lists}
        about = {"format": FORMAT, "classes": list(self.classes), "facts": dict(self.facts)}
        metadata = {BOXES: json.dumps(about, ensure_ascii=False, allow_nan=False)}
        write_parquet(path, pa.table(columns).replace_schema_metadata(metadata))

    @property
    def human(self) -> list[int]:
        """Positions of the images whose boxes people drew, as far as the file says so."""
        return list(self.facts.get("human", ()))

    @staticmethod
    def load(path: str | Path) -> BoxLabels:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, damaged or something else."""
        path = Path(path)
        table, about = _read(path, "boxes", BOXES, ["key", "digest", "known", "boxes"])
        with parsing(f"{path} is damaged: it does not hold boxes", DamagedError):
            table.validate(full=True)
            return BoxLabels(
                keys=tuple(table.column("key").to_pylist()),
                digests=tuple(table.column("digest").to_pylist()),
                boxes=_boxes(table),
                classes=tuple(about["classes"]),
                facts=about["facts"],
            )


def _read(path: Path, what: str, name: str, columns: Sequence[str]) -> tuple[Any, Any]:
    """Return a table that has these columns, and the JSON object in its metadata, of our format."""
    if not path.is_file():
        raise TableError(f"{path}: there are no {what} here; make them with `gpt4image label --out {path}`.")
    table = read_parquet(path)
    metadata = (table.schema.metadata or {}).get(name.encode())
    if metadata is None or not set(columns) <= set(table.column_names):
        raise TableError(f"{path} is not a file of {what}; `gpt4image label` makes one.")
    with parsing(f"{path} is damaged: its metadata is no JSON", DamagedError):
        about = dict(parse_json(metadata))
    require_format(path, about.pop("format", None), FORMAT)
    return table, about


def rows_of(known: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Return where wanted digests are among those that are known; -1 for others. Of equal ones the first counts."""
    row_of = {digest: row for row, digest in reversed(list(enumerate(known)))}
    return np.array([row_of.get(digest, -1) for digest in wanted], np.int64)


def holds_boxes(path: Path) -> bool:
    """Return whether a file says of itself that it is one of boxes; one that cannot be read says nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return BOXES.encode() in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _boxes(table: Any) -> Boxes:
    lists = table.column("boxes").combine_chunks()
    rows = lists.flatten()
    *corners, labels, weights = (rows.field(name).to_numpy(zero_copy_only=False) for name in COLUMNS)
    return Boxes(
        starts=np.cumsum([0, *lists.value_lengths().to_numpy(zero_copy_only=False)], dtype=np.int64),
        corners=np.stack(corners, axis=1).astype(np.float32),
        labels=labels.astype(np.int64),
        weights=weights.astype(np.float32),
        known=table.column("known").combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_),
    )
