"""The stage ``embeddings import``: a released matrix of text embeddings becomes an embedding table.

Row k of the matrix belongs to the k-th image of the set, as in the official code. The table that comes of it is one
like any other: joined by digest, float16, unit length, read through a memory map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.config import ImportEmbeddingsConfig
from gpt4image.data import load_image_set
from gpt4image.describers.prompts import find_prompt
from gpt4image.describing.released import read_matrix
from gpt4image.descriptions import require_one_each
from gpt4image.errors import DataError, TableError
from gpt4image.files import atomic_path, fingerprint, write_json
from gpt4image.outcome import Outcome, SetAside
from gpt4image.table import (
    MANIFEST,
    Manifest,
    digests_to_bytes,
    read_manifest,
    save_array,
    write_index,
    writing_table,
)

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE = 8192
SHORTEST = 1e-6  # a row of this length or less points nowhere


def import_embeddings(config: ImportEmbeddingsConfig) -> Outcome:
    """Write the table ``config.out`` from a matrix (N, D) whose rows are in the order of the N images of a set.

    Rows are brought to unit length. Those that are zero or not finite are set aside: their images count as not
    described.

    Raises:
        ConfigError: the file is missing or of no known kind.
        DataError: the file is no matrix of floats or would run code, counts differ, or no row can be used.
        TableError: the folder holds another table, another process writes to it, or the disk is full.
    """
    prompt = find_prompt(config.prompt)
    matrix = read_matrix(config.file)
    images = load_image_set(config.data)
    require_one_each(config.file, len(matrix), images, config.expect)
    usable = np.concatenate([_usable(rows) for rows in _chunks(matrix)])
    if not usable.any():
        raise DataError(f"{config.file}: all {len(usable)} rows are zero or not finite; is it the right matrix?")
    digests = digests_to_bytes([images.digests[i] for i in np.flatnonzero(usable)])
    revision = _digest(config.file)
    content = hashlib.sha256(digests.tobytes()).hexdigest()
    plan = fingerprint({"matrix": revision, "images": content, "prompt": prompt.name, "encoder": config.encoder})
    with writing_table(config.out):
        if not _is_there(config.out, plan):
            texts = _write_rows(config.out / "embeddings.npy", matrix, usable)
            save_array(config.out / "texts.npy", texts)
            described = write_index(config.out, digests, np.arange(len(digests)))
            manifest = Manifest(
                encoder=config.encoder,
                revision=revision,
                precision=str(matrix.dtype).removeprefix("torch."),
                width=matrix.shape[1],
                max_tokens=0,
                truncated=0.0,
                length_policy="unknown",
                descriptions=len(digests),
                texts=len(digests),
                images=described,
                prompts=(prompt,),
                store="",
                plan=plan,
                gpt4image=__version__,
            )
            write_json(config.out / MANIFEST, manifest.to_json())
    manifest = read_manifest(config.out)
    return Outcome(
        path=config.out,
        summary={
            "rows": len(usable),
            "images": manifest.images,
            "width": manifest.width,
            "encoder": manifest.encoder,
            "class_conditioned": manifest.class_conditioned,
        },
        set_aside=tuple(
            SetAside(name=images.keys[i], reason=f"row {i + 1} is zero or not finite") for i in np.flatnonzero(~usable)
        ),
    )


def _chunks(matrix: Tensor) -> Iterator[Tensor]:
    """Yield the rows in float32, a few at a time."""
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        yield matrix[start : start + ROWS_AT_ONCE].float()


def _usable(rows: Tensor) -> NDArray[np.bool_]:
    """Return (n,) which rows have a direction."""
    lengths = rows.norm(dim=1)
    return (lengths.isfinite() & (lengths > SHORTEST)).numpy()


def _write_rows(path: Path, matrix: Tensor, usable: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Write the usable rows in unit length and float16; return (M, 32) what stands for the sha256 of their texts."""
    shape = (int(usable.sum()), matrix.shape[1])
    texts = np.empty((shape[0], 32), dtype=np.uint8)
    done = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for number, rows in enumerate(_chunks(matrix)):
            kept = rows.numpy()[usable[number * ROWS_AT_ONCE :][: len(rows)]]
            unit = (kept / np.linalg.norm(kept, axis=1, keepdims=True)).astype("<f2")
            file.write(unit.tobytes())
            for row in unit:
                # The text is not known; no text has the digest of these bytes.
                texts[done] = np.frombuffer(hashlib.sha256(b"embedding\0" + row.tobytes()).digest(), dtype=np.uint8)
                done += 1
    return texts


def _is_there(out: Path, plan: str) -> bool:
    """Return whether ``out`` holds this table already. Raises TableError where it holds another one."""
    if not (out / MANIFEST).exists():
        return False
    if read_manifest(out).plan != plan:
        raise TableError(f"{out}: there is another embedding table here; give another --out, or delete the folder.")
    return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
