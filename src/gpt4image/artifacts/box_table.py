"""Boxes on disk: one Parquet file of the boxes of images, by digest, with class names and facts about its making."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.checksums import SEAL, fingerprint
from gpt4image.base.errors import TableError, first_line
from gpt4image.base.files import UNREADABLE, parse_json, read_parquet, write_parquet
from gpt4image.data.regions import Boxes

FORMAT = "gpt4image-box-labels-1"
COLUMNS = ("left", "top", "right", "bottom", "class", "weight")
"""Fields of a box, besides the name of its class."""


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
        about = {"classes": list(self.classes), "facts": dict(self.facts), SEAL: self._checksum()}
        metadata = {FORMAT: json.dumps(about, ensure_ascii=False, allow_nan=False)}
        write_parquet(path, pa.table(columns).replace_schema_metadata(metadata))

    def _checksum(self) -> str:
        about = [list(self.classes), json.loads(json.dumps(dict(self.facts)))]
        return fingerprint([about, list(self.keys), list(self.digests), self.boxes.content()])

    @property
    def human(self) -> list[int]:
        """Positions of the images whose boxes people drew, as far as the file says so."""
        return list(self.facts.get("human", ()))

    @staticmethod
    def load(path: Path) -> BoxLabels:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, damaged or something else."""
        with reading(path, "boxes"):
            table = read_parquet(path, ["key", "digest", "known", "boxes"])
            about = parse_json((table.schema.metadata or {})[FORMAT.encode()])
            table.validate(full=True)
            found = BoxLabels(
                keys=tuple(table.column("key").to_pylist()),
                digests=tuple(table.column("digest").to_pylist()),
                boxes=_boxes(table),
                classes=tuple(about["classes"]),
                facts=about["facts"],
            )
            if about[SEAL] != found._checksum():
                raise ValueError("its content does not match its checksum")
        return found


@contextlib.contextmanager
def reading(path: Path, what: str) -> Generator[None]:
    """Turn whatever a missing or damaged file of ``what``, or another one, raises in the block into TableError."""
    if not path.is_file():
        raise TableError(f"{path}: there are no {what} here; make them with `gpt4image label --out {path}`.")
    try:
        yield
    except (OSError, AttributeError, *UNREADABLE) as error:
        raise TableError(
            f"{path} is not a file of {what}, or is damaged ({first_line(error)}); make it with `gpt4image label`."
        ) from None


def rows_of(known: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Return where wanted digests are among those that are known; -1 for others. Of equal ones the first counts."""
    row_of = {digest: row for row, digest in reversed(list(enumerate(known)))}
    return np.array([row_of.get(digest, -1) for digest in wanted], np.int64)


def holds_boxes(path: Path) -> bool:
    """Return whether a file says of itself that it is one of boxes; one that cannot be read says nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return FORMAT.encode() in (pq.read_schema(path).metadata or {})
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
