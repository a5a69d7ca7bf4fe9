"""Boxes on disk: one Parquet file of the boxes of images, by digest, with class names and facts about its making.

The file has a checksum of each page for those who read it by other means, and a sha256 of what ``load`` returns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    """Boxes of N images, by key and digest.

    Attributes:
        keys: names of the images, for people.
        digests: of the images; boxes belong to these.
        boxes: of the images, in this order.
        classes: class names.
        facts: how they were made, as JSON values.
    """

    keys: tuple[str, ...]
    digests: tuple[str, ...]
    boxes: Boxes
    classes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def by_digest(self, digests: Sequence[str]) -> Boxes:
        """Return the boxes of images; one that the file lacks is not annotated. Of equal images the first counts."""
        row_of = {digest: row for row, digest in reversed(list(enumerate(self.digests)))}
        rows = [row_of.get(digest, -1) for digest in digests]
        found = self.boxes[[max(row, 0) for row in rows]] if len(self.boxes) else Boxes.of_images([None] * len(rows))
        return found.hidden(np.array(rows, np.int64) < 0)

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

    def _require_sound(self) -> None:
        """Refuse numbers that no run could use. Raises ValueError."""
        boxes = self.boxes
        if not ((boxes.labels >= 0) & (boxes.labels < len(self.classes))).all():
            raise ValueError(f"a box is of none of its {len(self.classes)} classes")
        values = np.concatenate([boxes.corners.ravel(), boxes.weights])
        if not ((values >= 0) & (values <= 1)).all():  # NaN is refused as well
            raise ValueError("sides and weights of boxes are from 0 to 1")
        if not all(type(row) is int and 0 <= row < len(self.keys) for row in self.human):
            raise ValueError("it names human boxes of images that it does not have")

    @staticmethod
    def load(path: Path) -> BoxLabels:
        """Read a file that ``save`` wrote. Raises TableError where it is missing, damaged or something else."""
        if not path.is_file():
            raise TableError(f"{path}: there is no file of boxes here; `gpt4image label --task detection` writes one.")
        try:
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
            found._require_sound()
        except (OSError, AttributeError, *UNREADABLE) as error:
            raise TableError(
                f"{path} is not a file of boxes, or is damaged ({first_line(error)}); write it again with "
                "`gpt4image label --task detection`."
            ) from None
        return found


def holds_boxes(path: Path) -> bool:
    """Return whether a file says of itself that it is one of boxes; one that cannot be read says nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return FORMAT.encode() in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _boxes(table: Any) -> Boxes:
    """Return the boxes of a table that ``BoxLabels.save`` made."""
    lists = table.column("boxes").combine_chunks()
    rows = lists.flatten()
    columns = {name: _numbers(rows.field(name)) for name in COLUMNS}
    corners = np.stack([columns[name] for name in COLUMNS[:4]], axis=1).astype(np.float32)
    counts = _numbers(lists.value_lengths())
    return Boxes(
        starts=np.cumsum([0, *counts], dtype=np.int64),
        corners=corners,
        labels=columns["class"].astype(np.int64),
        weights=columns["weight"].astype(np.float32),
        known=_numbers(table.column("known").combine_chunks()).astype(np.bool_),
    )


def _numbers(column: Any) -> NDArray[Any]:
    return column.to_numpy(zero_copy_only=False)
