"""Images with their label and the embedding of their description, for people with a training loop of their own.

pairs = DescribedImages("folder:photos", "photos.emb", transform=transform)
model = Aligner(backbone, text_width=pairs.text_width)
for batch in DataLoader(pairs, batch_size=128, shuffle=True):
    logits, image_emb = model(batch.image)
    loss = F.cross_entropy(logits, batch.label) + model.alignment_loss(
        image_emb, batch.text, described=batch.described, text_ids=batch.text_id
    )
"""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.utils.data
from PIL import Image

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import DataError, DecodeError, TableError, first_few, nearest
from gpt4image.config import DataOptions
from gpt4image.data import Dataset, load_with_splits
from gpt4image.data.dataset import NO_LABEL
from gpt4image.data.decode import decode

IGNORED_LABEL = -100  # F.cross_entropy leaves such images out by default
NO_TEXT = -1
BLANK_SIZE = (224, 224)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class Text(NamedTuple):
    """The text of one image.

    Attributes:
        text: (D,) float32, mean embedding of its descriptions at unit length; zeros where there is none.
        described: whether there is a description.
        text_id: identity of its texts: images that share it must not be each other's negatives; NO_TEXT for none.
    """

    text: torch.Tensor
    described: Any
    text_id: Any


class DescribedImage(NamedTuple):
    """One image; a DataLoader collates a batch of them field by field, into one of these.

    Attributes:
        image: what ``transform`` makes of the picture; an RGB PIL image without one.
        label: position in ``classes``, IGNORED_LABEL for none; of several classes (K,) int8: 1, 0, -1 not known.
        text, described, text_id: see ``Text``.
    """

    image: Any
    label: Any
    text: torch.Tensor
    described: Any
    text_id: Any

    def to(self, device: torch.device | str) -> DescribedImage:
        """Return a batch on another device."""
        return DescribedImage(*(field.to(device, non_blocking=True) for field in self))


class Coverage(NamedTuple):
    """How many ``images`` there are, how many are ``described``, and the names of those ``missing``."""

    images: int
    described: int
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.described} of {self.images} images described"


class Texts:
    """Text embeddings, looked up by the digest of an image or by any other key. The table stays a memory map.

    A key of 64 hexadecimal digits is the sha256 of an image's bytes (``file_digests``). Any other key is a name, as
    ``from_csv`` and ``encoded`` take them.
    """

    def __init__(self, table: str | Path | EmbeddingTable) -> None:
        """Open an embedding table, by its folder. Raises TableError: there is none."""
        self.table = table if isinstance(table, EmbeddingTable) else EmbeddingTable.open(table)
        self.width = self.table.width

    @classmethod
    def from_csv(cls, path: str | Path, *, key: str = "key", text: str = "description", **options: Any) -> Self:
        """Encode the descriptions in a CSV file, once: see ``encoded``, also for the options.

        Args:
            path: CSV file: UTF-8, names of the columns in its first line. Several rows may share a key.
            key: column of the keys.
            text: column of the descriptions.
            options: of ``encoded``; ``table`` is by default beside the file, ``captions.emb`` for ``captions.csv``.

        Raises: DataError: the file cannot be read or lacks a column.
        """
        try:
            with Path(path).open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path} is no CSV file with the columns {key!r} and {text!r}: {error}.") from error
        if absent := [name for name in (key, text) if rows and name not in rows[0]]:
            raise DataError(f"{path} has no column {absent[0]!r}, only {', '.join(map(str, rows[0]))}.")
        pairs = [(row[key] or f"row {number}", None if None in row or not row[key] else row[text])
                 for number, row in enumerate(rows, 1)]  # fmt: skip
        return cls.encoded(pairs, options.pop("table", Path(path).with_suffix(".emb")), **options)

    @classmethod
    def encoded(
        cls, texts: Iterable[tuple[str, Any]], table: str | Path, *, encoder: str = "minilm", device: str = "auto"
    ) -> Self:
        """Encode descriptions into a table on disk, once: the next time only new texts are encoded.

        Args:
            texts: pairs of a key and a description; a key may come again. No text: left out, with a warning.
            table: folder of the embedding table. It is brought up to date and then holds exactly these texts.
            encoder: as ``gpt4image encode`` takes it; ``device`` too.

        Raises: DataError: no texts. ModelError: no such encoder. TableError: the folder holds the table of another.
        """
        from gpt4image.parallel import processes

        every = dict.fromkeys((key, text) for key, text in texts)
        good = [(key, text) for key, text in every if isinstance(text, str) and text.strip()]
        if not good:
            raise DataError("there are no texts to encode; give pairs of a key and a description.")
        if empty := [key for key, text in every if (key, text) not in set(good)]:
            warnings.warn(f"{len(empty)} keys have no text and are left out: {first_few(empty)}.", stacklevel=2)
        pairs = [(_digest_of(key), text) for key, text in good]
        processes.on_all_ranks(lambda: _encode(pairs, Path(table), encoder, device), first_ahead=True)
        return cls(table)

    def __getitem__(self, key: str) -> Text:
        """Return the text of one image; a key without a description gets zeros, and ``described`` says so."""
        digest = _digest_of(key)
        vectors, described = self.table.vectors([digest])
        _, rows = self.table.rows_of([digest])
        return Text(torch.from_numpy(vectors[0]), bool(described[0]), int(rows.min()) if len(rows) else NO_TEXT)

    def coverage(self, keys: Sequence[str], names: Sequence[str] = (), *, required: bool = True) -> Coverage:
        """Return which of these images have a text, by their ``names``. Raises TableError: none has one."""
        names, described = names or keys, self.table.vectors([_digest_of(key) for key in keys])[1]
        if required and not described.any():
            raise TableError(
                f"None of the {len(keys)} images has a text in {self.table.path}: keys are {first_few(names[:3])}."
            )
        return Coverage(len(keys), int(described.sum()), tuple(np.asarray(names, object)[~described].tolist()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the path of the table to worker processes, for a pickled memory map is a copy of its file."""
        return type(self), (self.table.path,)


class WithTexts(torch.utils.data.Dataset[DescribedImage]):
    """A data set of your own, of pairs (image, label), joined to the texts of its images by key.

    Args:
        dataset: map-style data set, any transform of its images included.
        texts: the texts.
        keys: key of each image, in the order of the data set, as ``texts`` takes them.

    Attributes:
        text_width: D, width of the text embeddings.
        coverage: which images have a description.

    Raises: DataError: not one key for each image. TableError: no image has a text.
    """

    def __init__(self, dataset: Any, texts: Texts, keys: Sequence[str]) -> None:
        if len(keys) != len(dataset):
            raise DataError(f"{len(keys)} keys for {len(dataset)} images: give one for each, in the order of the data.")
        self.dataset, self.texts, self.keys, self.text_width = dataset, texts, keys, texts.width
        self.coverage = texts.coverage(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> DescribedImage:
        """Return one image with its label and text."""
        image, label = self.dataset[index]
        return DescribedImage(image, label, *self.texts[self.keys[index]])


class DescribedImages(WithTexts):
    """A dataset joined to its text embeddings by content: names and order of the files do not matter.

    A picture that cannot be decoded gives a warning that names it, and a white picture without label and description.

    Args:
        data: SPEC as ``gpt4image train --data`` takes it (missing splits are cut as there), or a Dataset.
        embeddings: folder of the embedding table written by ``gpt4image encode``, or the open table.
        split: train, val or test; None for all images.
        transform: from an RGB PIL image to what the model takes, e.g. of torchvision.transforms.

    Attributes:
        classes, text_width: K class names; D, width of the text embeddings.
        coverage: which images have a description.

    Raises: ConfigError, DataError: no such dataset or split. TableError: no table, or it describes no image of train.
    """

    def __init__(
        self,
        data: str | Path | Dataset,
        embeddings: str | Path | EmbeddingTable,
        *,
        split: str | None = "train",
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        if isinstance(data, str | Path):
            usual = DataOptions(data=str(data))  # of `gpt4image train`, so that both train on the same images
            data = load_with_splits(str(data), val_fraction=usual.val_fraction, test_fraction=usual.test_fraction)
        if data.clips:
            raise DataError(f"{data.spec} holds clips; this dataset gives images. `gpt4image train` reads clips.")
        if split is not None:
            rows = data.indices(split)
            if not len(rows):
                there = nearest(split, np.unique(data.splits).tolist())
                raise DataError(f"{data.spec} has no images in the split asked for: {there}")
            data = data.select(rows)
        self.image_set, self.classes, self.transform = data, data.classes, transform
        self.texts, self.keys = Texts(embeddings), data.digests
        self.text_width = self.texts.width
        self.coverage = self.texts.coverage(self.keys, data.keys, required=split in ("train", None))

    def __getitem__(self, index: int) -> DescribedImage:
        """Return one image with its label and text."""
        text, label = self.texts[self.keys[index]], np.array(self.image_set.labels[index])
        try:
            image = decode(self.image_set.read(index))
        except (OSError, DecodeError) as error:
            warnings.warn(f"{self.image_set.keys[index]}: {error}; it is left out of the losses.", stacklevel=2)
            image, label = Image.new("RGB", BLANK_SIZE, "white"), np.full_like(label, NO_LABEL)
            text = Text(torch.zeros(self.text_width), described=False, text_id=NO_TEXT)
        one = torch.from_numpy(label) if label.ndim else IGNORED_LABEL if label == NO_LABEL else int(label)
        return DescribedImage(image if self.transform is None else self.transform(image), one, *text)


def _digest_of(key: object) -> str:
    """Return the digest that stands for a key in a table; a name gets one that no image has. DataError: no text."""
    if not isinstance(key, str):
        raise DataError(f"a key must be a text, and {key!r} is of type {type(key).__name__}; give str(key), always so.")
    return key.lower() if _DIGEST.fullmatch(key) else hashlib.sha256(b"key\0" + key.encode()).hexdigest()


def _encode(pairs: Sequence[tuple[str, str]], table: Path, encoder: str, device: str) -> None:
    """Bring the table up to date through a store that is needed no longer than that."""
    from gpt4image.artifacts.answers import find_prompt
    from gpt4image.artifacts.store import Description, DescriptionStore
    from gpt4image.config import EncodeConfig
    from gpt4image.encoding.encode import encode

    of_all: dict[str, Any] = {"prompt": find_prompt("imported"), "describer": {"name": "imported"}}
    seen, rows = Counter[str](), list[Description]()
    for digest, text in pairs:
        rows.append(Description(digest=digest, sample=seen[digest], text=text, created=time.time(), **of_all))
        seen[digest] += 1
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "texts.db"
        with DescriptionStore(store, write=True) as writer:
            writer.add(rows)
        encode(EncodeConfig(store=store, out=table, encoder=encoder, device=device))
