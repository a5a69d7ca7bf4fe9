"""Keep which test images each run of a comparison named right, and recompute "images too" from that alone.

    python benchmarks/kept_predictions.py keep COMPARISON_DIR NAME    # writes docs/research/records/right/NAME.json
    python benchmarks/kept_predictions.py check                       # of all that are kept

A file holds the sha256 of the test images' keys in sorted order, their number, and for each comparison of the record
and each arm one string per seed: ``np.packbits`` of right or wrong, in the order of the keys, in base85.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gpt4image.base.files import read_json
from gpt4image.comparing.results import pair

RECORDS = Path(__file__).parents[1] / "docs" / "research" / "records"


def comparisons_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    return record.get("comparisons") or [record]


def keep(folder: Path, name: str) -> None:
    """Write what is kept of the finished runs of a comparison; ``name`` is its record's, relative to the records."""
    keys: set[str] = set()
    rights: list[dict[str, list[str]]] = []
    for record in comparisons_of(read_json(folder / "comparison.json")):
        rights.append({})
        for arm, of_arm in record["arms"].items():
            rights[-1][arm] = []
            for run in of_arm["runs"]:
                rows = pq.read_table(folder / run / "predictions-test.parquet", columns=["key", "score"]).sort_by("key")
                keys.add("\n".join(rows["key"].to_pylist()))
                rights[-1][arm].append(base64.b85encode(np.packbits(rows["score"].to_numpy() == 1.0)).decode())
    [text] = keys
    kept = {
        "keys_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "images": text.count("\n") + 1,
        "comparisons": rights,
    }
    file = RECORDS / "right" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def recomputed(file: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each pair of the record that ``file`` belongs to, and the same pair as what is kept gives it."""
    kept = read_json(file)
    record = read_json(RECORDS / file.relative_to(RECORDS / "right"))
    for comparison, rights in zip(comparisons_of(record), kept["comparisons"], strict=True):
        scores = {
            arm: np.stack(
                [np.unpackbits(np.frombuffer(base64.b85decode(text), np.uint8), count=kept["images"]) for text in seeds]
            ).astype(np.float64)
            for arm, seeds in rights.items()
        }
        tests = {arm: of_seeds.mean(axis=1).tolist() for arm, of_seeds in scores.items()}
        yield from ((said, pair(said["arm"], said["against"], tests, scores)) for said in comparison["pairs"])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["keep", folder, name]:
            keep(Path(folder), name)
        case ["check"]:
            for file in sorted((RECORDS / "right").rglob("*.json")):
                for said, found in recomputed(file):
                    print(f"{file.name} {said['arm']} - {said['against']}: {found['difference']:+.4f}", end=" ")
                    ours, theirs = (one["other_images"] and one["other_images"]["p"] for one in (found, said))
                    print(f"p {ours} (said {theirs})")  # of one seed there is none
        case _:
            sys.exit(__doc__)
