"""Text labels: the file of class probabilities that ``label`` writes.

The file is Parquet, with a checksum of each page for those who read it by other means. What is read here, the facts in
its metadata too, has a sha256 of its own, which does not depend on how Parquet stores it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.checksums import SEAL, fingerprint
from gpt4image.base.errors import TableError, first_line
from gpt4image.base.files import UNREADABLE, parse_json, read_parquet, write_parquet
from gpt4image.data.image_set import NO_LABEL

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FORMAT = "gpt4image-text-labels-1"
REMOVED = {"method": "classifier", "targets": "soft", "confidence": 0.0, "run": ""}
"""Facts of files of earlier versions, and the only values of theirs that this version makes."""
COLUMNS = ("key", "digest", "split", "given_label", "text_label", "doubt", "out_of_fold", "probabilities")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a file of text labels.

    Attributes:
        classes: class names.
        noise: estimated part of the given labels that is wrong.
        agreement: part of the out-of-fold predictions that agree with the given label.
        c: inverse strength of the classifier's penalty.
        folds: folds of its cross-validation.
        seed: seed of the folds.
        encoders: SPEC of the encoder of the embedding table; a file of an earlier version may name several.
        embeddings: absolute path of the table, which may be gone; several as ``encoders``.
        names: part that class names have in the classifier, 0 to 1.
        transition: probability of each given label by true class; empty where a wrong label is any other class alike.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class TextLabels:
    """Text labels of N described images, one row per digest.

    Attributes:
        keys: key of each image.
        digests: sha256 hex digest of each image.
        splits: (N,) split of each image.
        labels: (N,) given labels that were learned from, NO_LABEL elsewhere.
        probabilities: (N, K) float32 of the clean class, read off the text.
        out_of_fold: (N,) bool, the image has a label that what was read off its text has not seen.
        facts: classes, noise and how they were found.
    """

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    splits: NDArray[np.str_]
    labels: Ints
    probabilities: NDArray[np.float32]
    out_of_fold: Bools
    facts: Facts

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.facts.classes

    @cached_property
    def doubt(self) -> NDArray[np.float32]:
        """(N,) probability that the given label is wrong, by the text alone; NaN where it is not out-of-fold."""
        doubt = np.full(len(self.labels), np.nan, dtype=np.float32)
        rows = np.flatnonzero(self.out_of_fold)
        doubt[rows] = 1.0 - self.probabilities[rows, self.labels[rows]]
        return doubt

    def save(self, path: Path) -> None:
        """Write one Parquet file, atomically."""
        import pyarrow as pa

        given = [self.classes[label] if label >= 0 else None for label in self.labels.tolist()]
        text = [self.classes[label] for label in self.probabilities.argmax(axis=1).tolist()]
        columns: dict[str, Any] = {
            "key": pa.array(self.keys, pa.string()),
            "digest": pa.array(self.digests, pa.string()),
            "split": pa.array(self.splits.tolist(), pa.string()),
            "given_label": pa.array(given, pa.string()),
            "text_label": pa.array(text, pa.string()),
            "doubt": pa.array(self.doubt, from_pandas=True),
            "out_of_fold": pa.array(self.out_of_fold),
            "probabilities": _lists(self.probabilities),
        }
        facts = {**asdict(self.facts), SEAL: self._checksum()}
        metadata = {FORMAT: json.dumps(facts, ensure_ascii=False)}
        write_parquet(path, pa.table(columns).replace_schema_metadata(metadata))

    def _checksum(self) -> str:
        """Return the sha256 of everything that ``load`` returns."""
        lists = [self.keys, self.digests, self.splits.tolist(), self.labels.tolist(), self.out_of_fold.tolist()]
        numbers = hashlib.sha256(self.probabilities.astype("<f4").tobytes()).hexdigest()
        return fingerprint([asdict(self.facts), lists, numbers])

    @staticmethod
    def load(path: Path) -> TextLabels:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, damaged or something else."""
        if not path.is_file():
            raise TableError(f"{path}: there are no text labels here; make them with `gpt4image label --out {path}`.")
        try:
            table = read_parquet(path)
            values = parse_json((table.schema.metadata or {})[FORMAT.encode()])
            checksum = values.pop(SEAL, None)
            tuples = {name: tuple(values[name]) for name in ("classes", "encoders")}
            tuples["embeddings"] = tuple(values.get("embeddings", ()))
            transition = tuple(map(tuple, values.get("transition", ())))
            removed = {name: values.pop(name, usual) for name, usual in REMOVED.items()}
            facts = Facts(**{**values, **tuples, "transition": transition})
            columns = {name: table.column(name) for name in COLUMNS}
            place = {name: index for index, name in enumerate(facts.classes)}
            given = [NO_LABEL if name is None else place[name] for name in columns["given_label"].to_pylist()]
            found = TextLabels(
                keys=tuple(columns["key"].to_pylist()),
                digests=tuple(columns["digest"].to_pylist()),
                splits=np.array(columns["split"].to_pylist(), dtype=np.str_),
                labels=np.array(given, dtype=np.int64),
                probabilities=_rows(columns["probabilities"], len(facts.classes)),
                out_of_fold=np.array(columns["out_of_fold"].to_pylist(), dtype=bool),
                facts=facts,
            )
            if checksum not in (None, found._checksum()):
                raise ValueError("its content does not match its checksum")
        except (OSError, AttributeError, *UNREADABLE) as error:
            raise TableError(
                f"{path} is not a file of text labels, or is damaged ({first_line(error)}); write it again with "
                "`gpt4image label`."
            ) from None
        if removed != REMOVED:
            what = ", ".join(f"{name} {value!r}" for name, value in removed.items() if value != REMOVED[name])
            raise TableError(
                f"{path} was written by an earlier version with {what}, which is no longer supported; write it again "
                "with `gpt4image label`."
            )
        return found


def _lists(matrix: NDArray[np.float32]) -> Any:
    """Return the Arrow array of the rows of a matrix."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _rows(column: Any, width: int) -> NDArray[np.float32]:
    """Return the matrix whose rows are in an Arrow column."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(column), width)
