"""The stage ``embeddings import``: a released matrix of text embeddings becomes an embedding table.

Row k of the matrix belongs to the k-th image of the dataset, as in the official code. The table is like any other:
joined by digest, float16, unit length, read through a memory map. The texts are unknown; the sha256 of each row, marked
as an embedding, stands for that of its text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt4image import __version__
from gpt4image.artifacts.prompts import find_prompt
from gpt4image.artifacts.table import (
    MANIFEST,
    Manifest,
    digests_to_bytes,
    read_manifest,
    save_array,
    write_index,
    write_manifest,
    writing_table,
)
from gpt4image.base.checksums import file_digest
from gpt4image.base.errors import DataError, TableError
from gpt4image.base.files import atomic_path, fingerprint
from gpt4image.base.outcome import Outcome, Skipped
from gpt4image.config import ImportEmbeddingsConfig
from gpt4image.data import load_image_set
from gpt4image.encoding.released import read_matrix, require_one_each

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE = 8192
SHORTEST = 1e-6  # a row of this length or less has no direction


def import_embeddings(config: ImportEmbeddingsConfig) -> Outcome:
    """Write the table ``config.out`` from a matrix (N, D) whose rows are in the order of the N images of a dataset.

    Rows are brought to unit length. Rows that are zero or not finite are skipped: their images count as not described.

    Raises:
        ConfigError: the file is missing or of unknown kind.
        DataError: the file is no matrix of floats or would run code, counts differ, or no row is usable.
        TableError: the folder holds another table, another process writes to it, or the disk is full.
    """
    prompt = find_prompt(config.prompt)
    matrix = read_matrix(config.file)
    images = load_image_set(config.data)
    require_one_each(config.file, len(matrix), images, config.expect)
    texts, usable = _texts(matrix)
    if not usable.any():
        raise DataError(f"{config.file}: all {len(usable)} rows are zero or not finite; is it the right matrix?")
    digests = digests_to_bytes([images.digests[i] for i in np.flatnonzero(usable)])
    content = hashlib.sha256(digests.tobytes()).hexdigest()
    matrix_digest = file_digest(config.file)
    plan = fingerprint({"matrix": matrix_digest, "images": content, "prompt": prompt.name, "encoder": config.encoder})
    with writing_table(config.out):
        is_there = (config.out / MANIFEST).exists()
        if is_there and read_manifest(config.out).plan != plan:
            raise TableError(
                f"{config.out}: there is another embedding table here; give another --out, or delete the folder."
            )
        if not is_there:
            # Equal rows are one text: its images must not be each other's negatives.
            _, first, text_of = np.unique(texts[usable].view("S32").ravel(), return_index=True, return_inverse=True)
            kept = np.flatnonzero(usable)[np.sort(first)]
            _write_rows(config.out / "embeddings.npy", matrix, kept)
            save_array(config.out / "texts.npy", texts[kept])
            described = write_index(config.out, digests, np.argsort(np.argsort(first))[text_of])
            manifest = Manifest(
                encoder=config.encoder,
                revision="",  # which weights the encoder had is not known
                precision=str(matrix.dtype).removeprefix("torch."),
                width=matrix.shape[1],
                max_tokens=0,
                truncated=0.0,
                length_policy="unknown",
                descriptions=len(digests),
                texts=len(kept),
                images=described,
                prompts=(prompt,),
                store="",
                plan=plan,
                gpt4image=__version__,
            )
            write_manifest(config.out, manifest)
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
        skipped=tuple(
            Skipped(name=images.keys[i], reason=f"row {i + 1} is zero or not finite") for i in np.flatnonzero(~usable)
        ),
    )


def _chunks(matrix: Tensor) -> Iterator[Tensor]:
    """Yield the rows in float32, a few at a time."""
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        yield matrix[start : start + ROWS_AT_ONCE].detach().float()


def _unit(rows: Tensor) -> NDArray[np.float16]:
    """Return rows in unit length and float16; zeros if they have no direction."""
    lengths = rows.norm(dim=1, keepdim=True)
    usable = lengths.isfinite() & (lengths > SHORTEST)
    return (rows / lengths).masked_fill(~usable, 0.0).numpy().astype("<f2")


def _texts(matrix: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return digests in place of those of the texts, (N, 32), and which rows have a direction, (N,)."""
    texts, usable = bytearray(), list[bool]()
    for rows in _chunks(matrix):
        for row in _unit(rows):
            usable.append(bool(row.any()))
            texts += hashlib.sha256(b"embedding\0" + row.tobytes()).digest()
    return np.frombuffer(texts, np.uint8).reshape(-1, 32), np.array(usable)


def _write_rows(path: Path, matrix: Tensor, kept: NDArray[np.int64]) -> None:
    """Write some rows, in ascending order, in unit length and float16."""
    header = {"descr": "<f2", "fortran_order": False, "shape": (len(kept), matrix.shape[1])}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for number, rows in enumerate(_chunks(matrix)):
            start = number * ROWS_AT_ONCE
            own = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + len(rows))]
            file.write(_unit(rows)[own - start].tobytes())
