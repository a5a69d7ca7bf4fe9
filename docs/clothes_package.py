"""Make the packaged dataset ``clothes`` from the shared one: ``python docs/clothes_package.py``.

It reads ``clothes/`` in ``$GPT4IMAGE_SHARED_DATA`` (or ``../shared/data``) and writes tables of photographs and what a
multimodal LLM answered about those in train to ``src/gpt4image/packaged/clothes``. The same input gives the same bytes
with the same version of Pillow.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", ROOT.parent / "shared" / "data")) / "clothes"
PACKAGE = ROOT / "src" / "gpt4image" / "packaged" / "clothes"
COUNTS = {"train": 1200, "validation": 150, "test": 372}
"""Photographs of each split that are packaged: drawn at random, of test all."""
SEED = 0
SIDE, QUALITY = 160, 80
"""Pixels of the shorter side, and quality of WebP: together below 9 MB."""
HASH = 16
NEAR_COPY = 26
"""Bits of 256 by which the hashes of two photographs of one thing differ at most; the nearest pair has 27, and shows
two shirts before one backdrop."""


def photographs(split: str) -> list[Path]:
    """Return the photographs of a split, in order of their keys."""
    return sorted((SOURCE / split).glob("*/*.jpg"))


def difference_hash(path: Path) -> NDArray[np.bool_]:
    """Return which pixels of a tiny grey copy are brighter than their left neighbour: near copies agree in most."""
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").resize((HASH + 1, HASH), Image.Resampling.LANCZOS), np.int16)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def without_near_copies(paths: list[Path], of: list[Path]) -> list[Path]:
    """Return the photographs that are no near copy of one of the others."""
    others = np.array([difference_hash(path) for path in of])
    return [path for path in paths if (difference_hash(path) != others).sum(axis=1).min() > NEAR_COPY]


def drawn(paths: list[Path], count: int) -> list[Path]:
    """Return some of the photographs at random, in order."""
    return [paths[row] for row in np.sort(np.random.default_rng(SEED).permutation(len(paths))[:count])]


def small(path: Path) -> bytes:
    """Return a photograph as a small WebP file, without metadata."""
    with Image.open(path) as image:
        scale = min(1.0, SIDE / min(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        smaller = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    smaller.save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()


def write_table(paths: list[Path], out: Path) -> None:
    """Write photographs with key and label as a Parquet file, as the library datasets does."""
    images = [{"bytes": small(path), "path": f"{path.stem}.webp"} for path in paths]
    table = pa.table(
        {
            "key": [path.stem for path in paths],
            "label": [path.parent.name for path in paths],
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        }
    )
    features = {"key": _text(), "label": _text(), "image": {"_type": "Image"}}
    info = json.dumps({"info": {"features": features}})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": info}), out, compression="none", use_dictionary=["label"]
    )


def _text() -> dict[str, str]:
    return {"dtype": "string", "_type": "Value"}


def main() -> None:
    """Write tables and answers, and say what is in them."""
    PACKAGE.mkdir(parents=True, exist_ok=True)
    held_out = photographs("test") + photographs("validation")
    everything = photographs("train")
    own = without_near_copies(everything, held_out)
    print(f"train: {len(everything) - len(own)} near copies of held-out photographs left out")
    chosen = {split: drawn(own if split == "train" else photographs(split), n) for split, n in COUNTS.items()}
    for split, paths in chosen.items():
        write_table(paths, PACKAGE / f"{split}.parquet")
        print(f"{split}: {len(paths)} photographs, {(PACKAGE / f'{split}.parquet').stat().st_size / 1e6:.1f} MB")
    rows = map(json.loads, (SOURCE / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    answer_of = {Path(row["key"]).stem: row for row in rows}
    lines = [json.dumps(answer_of[path.stem] | {"key": path.stem}) for path in chosen["train"]]
    (PACKAGE / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    right = np.mean([answer_of[path.stem]["class"] == path.parent.name for path in chosen["train"]])
    print(f"answers: {len(lines)}, right for {right:.1%}")
    (PACKAGE / "LICENSE").write_bytes((SOURCE / "LICENSE").read_bytes())


if __name__ == "__main__":
    main()
