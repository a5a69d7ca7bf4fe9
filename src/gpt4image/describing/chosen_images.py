"""The images that ``describe`` asks about: those of some splits, or those that a CSV file names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from gpt4image.base.errors import ConfigError, first_few
from gpt4image.base.outcome import Skipped
from gpt4image.base.visible import from_csv_cell
from gpt4image.config.base import listed
from gpt4image.config.describing import AskedOptions
from gpt4image.data import ImageSet, load_with_splits
from gpt4image.describing.rows import SYNONYMS


def asked_images(options: AskedOptions, spec: str) -> tuple[ImageSet, ImageSet]:
    """Return a dataset with all its splits, and the images of those that are asked about.

    Raises:
        ConfigError: there are none.
        DataError: the dataset cannot be read.
    """
    dataset = load_with_splits(spec, val_fraction=options.val_fraction, test_fraction=options.test_fraction)
    chosen = np.flatnonzero(np.isin(dataset.splits, listed(options.splits)))
    if not len(chosen):
        names, counts = np.unique(dataset.splits, return_counts=True)
        there = ", ".join(f"{count:,} of {name}" for name, count in zip(names, counts, strict=True))
        raise ConfigError(
            f"--splits {options.splits}: {spec} has no image of it, only {there}; give --splits {','.join(names)}."
        )
    return dataset, dataset if len(chosen) == len(dataset) else dataset.select(chosen)


def chosen_images(images: ImageSet, path: Path) -> tuple[ImageSet, list[Skipped]]:
    """Return the images that rows of a CSV file name, with all their copies, and the rows of no image.

    A row names its image by ``digest``, otherwise by ``key``; other columns are ignored.

    Raises:
        ConfigError: the file cannot be read, has neither column, or names no image of the dataset.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            usual = [SYNONYMS.get(name, name) for name in reader.fieldnames or ()]
            reader.fieldnames = usual
            rows = [{name: from_csv_cell(row.get(name) or "") for name in ("digest", "key")} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--only {path}: cannot be read as CSV in UTF-8 ({error}).") from None
    if not {"digest", "key"} & set(usual):
        raise ConfigError(f"--only {path}: there is no column key or digest, only {', '.join(usual)}; rename one.")
    digest_of, known = dict(zip(images.keys, images.digests, strict=True)), set(images.digests)
    found = [row["digest"].lower() if row["digest"].lower() in known else digest_of.get(row["key"]) for row in rows]
    if not (chosen := {digest for digest in found if digest is not None}):
        raise ConfigError(
            f"--only {path}: none of its {len(rows):,} rows names an image of {images.spec}, whose keys look like "
            f"{first_few(images.keys[:3])}; write these into a column key."
        )
    unknown = [
        Skipped(name=row["key"] or row["digest"] or f"{path.name}, row {number}", reason=f"no such image; see {path}")
        for number, (row, digest) in enumerate(zip(rows, found, strict=True), start=1)
        if digest is None
    ]
    return images.select(np.array([i for i, digest in enumerate(images.digests) if digest in chosen])), unknown
