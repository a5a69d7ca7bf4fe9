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
import pyarrow as pa
import pyarrow.parquet as pq
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
from gpt4image.base.errors import DamagedError, TableError, first_line, parsing
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

METADATA = b"gpt4image-targets"  # the name of the metadata, JSON of the facts with the format
FORMAT = 3
PARQUET = b"PAR1"  # how its files begin
DETECTION = "detection"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a file of targets: what it was predicted from, by the options of ``label``, and how.

    Paths are absolute, and may be gone. ``noise`` is the estimated part of wrong given labels, ``agreement`` of
    out-of-fold predictions with them, ``c`` the inverse strength of the classifier's penalty, ``names`` the part that
    class names have in it, ``transition`` the probability of each given label by true class, ``weights`` those of the
    sources, ``answered`` the images with an answer, ``none_of_these`` the digests of images without a label that show
    none of the classes, as answers say. Boxes have the first six.
    """

    task: str = "classification"
    classes: tuple[str, ...]
    evidence: str = "texts"
    embeddings: tuple[str, ...] = ()
    answers: str = ""
    seed: int = 0
    noise: float = 0.0
    agreement: float | None = None
    c: float | None = None
    folds: int = 0
    encoders: tuple[str, ...] = ()
    names: float = 0.0
    transition: tuple[tuple[float, ...], ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    answered: int = 0
    none_of_these: tuple[str, ...] = ()

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
        return {"multilabel": "tags", DETECTION: "boxes"}.get(self.task, "class")

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """The metadata of the file. Raises ValueError: a number is not finite."""
        return {METADATA: json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False).encode()}

    @staticmethod
    def of(path: Path) -> Facts:
        """Read the facts of a file. Raises TableError where it is missing or something else; DamagedError."""
        if not path.is_file():
            way = "give the file" if path.is_dir() else "make it by"
            raise TableError(f"{path}: there is no file of targets here; {way} `gpt4image label --out FILE.parquet`.")
        with path.open("rb") as file:
            is_parquet = file.read(4) == PARQUET
        with parsing(f"{path} is damaged: it cannot be read as Parquet", DamagedError):
            metadata: dict[bytes, bytes] = (pq.read_schema(path).metadata or {}) if is_parquet else {}
        if METADATA not in metadata:
            raise TableError(f"{path} is not a file of targets; `gpt4image label` makes one.")
        with parsing(f"{path} is damaged: its metadata is no JSON", DamagedError):
            about = dict(parse_json(metadata[METADATA]))
        require_format(path, about.pop("format", None), FORMAT)
        try:
            return _FACTS.validate_python(about)
        except ValidationError as error:
            raise damaged(path, f"its facts are not those of targets ({first_line(error)})") from None


_FACTS = TypeAdapter(Facts)


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

        def table(rows: slice) -> Any:
            return pa.table(self._columns(rows)).replace_schema_metadata(self.facts.metadata)

        total = len(self.keys)
        write_row_groups(Path(path), row_groups(total, ROW_GROUP if self.labels.ndim == 1 else total), table)

    def _columns(self, rows: slice) -> dict[str, Any]:
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
        """Read a file that ``save`` wrote. Raises TableError where it is missing or of boxes; DamagedError."""
        found = load_targets(Path(path))
        if not isinstance(found, Targets):
            raise TableError(f"{path} is a file of boxes, not of classes; `gpt4image label` makes one.")
        return found


COLUMNS = ("left", "top", "right", "bottom", "class", "weight")  # fields of a box, besides the name of its class


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxLabels:
    """Boxes of N images, by key and digest; ``human`` (N,) are those whose boxes people drew."""

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    boxes: Boxes
    human: NDArray[np.bool_]
    facts: Facts

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.facts.classes

    def by_digest(self, digests: Sequence[str]) -> Boxes:
        """Return the boxes of images; one that the file lacks is not annotated. Of equal images the first counts."""
        rows = rows_of(self.digests, digests)
        found = self.boxes[np.maximum(rows, 0)] if len(self.boxes) else Boxes.of_images([None] * len(rows))
        return found.hidden(rows < 0)

    def save(self, path: Path) -> None:
        """Write one Parquet file, atomically."""
        boxes = self.boxes
        values = [*boxes.corners.T, boxes.labels.astype(np.int32), boxes.weights]
        names = pa.array([self.classes[label] for label in boxes.labels.tolist()], pa.string())
        arrays = [*(pa.array(np.ascontiguousarray(one)) for one in values), names]
        rows = pa.StructArray.from_arrays(arrays, names=[*COLUMNS, "name"])
        lists = pa.ListArray.from_arrays(pa.array(boxes.starts.astype(np.int32)), rows)
        columns = {"key": self.keys, "digest": self.digests, "known": boxes.known, "human": self.human, "boxes": lists}
        write_parquet(path, pa.table(columns).replace_schema_metadata(self.facts.metadata))


def load_targets(path: Path) -> Targets | BoxLabels:
    """Read targets of either kind. Raises TableError where they are missing or something else; DamagedError."""
    facts = Facts.of(path)
    table = read_parquet(path)
    with parsing(f"{path} is damaged: it does not hold targets", DamagedError):
        table.validate(full=True)
        names = {name: tuple(table.column(f"{name[:-1]}").to_pylist()) for name in ("keys", "digests")}
        if facts.task == DETECTION:
            human = as_array(table.column("human"), np.bool_)
            return BoxLabels(**names, boxes=_boxes(table), human=human, facts=facts)
        place = {None: NO_LABEL} | {name: index for index, name in enumerate(facts.classes)}
        given, single = table.column("given_label"), "single_source"
        several = is_matrix(given)
        return Targets(
            **names,
            splits=np.array(table.column("split").to_pylist(), dtype=np.str_),
            labels=as_array(given, np.int8)
            if several
            else np.array([place[one] for one in given.to_pylist()], np.int64),
            probabilities=from_columns(table, len(facts.classes)),
            out_of_fold=as_array(table.column("out_of_fold"), np.bool_),
            single_source=as_array(table.column(single), np.bool_) if single in table.column_names else None,
            facts=facts,
        )


def rows_of(known: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Return where wanted digests are among those that are known; -1 for others. Of equal ones the first counts."""
    row_of = {digest: row for row, digest in reversed(list(enumerate(known)))}
    return np.array([row_of.get(digest, -1) for digest in wanted], np.int64)


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
