"""Images with their label and the embedding of their description, for people with a training loop of their own.

pairs = DescribedImages("folder:photos", "photos.emb", transform=transform)
model = Aligner(backbone, text_width=pairs.text_width)
for image, label, text, described in DataLoader(pairs, batch_size=128, shuffle=True):
    logits, image_emb = model(image)
    loss = F.cross_entropy(logits, label) + model.alignment_loss(image_emb, text, described=described)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from gpt4image.config import DataOptions
from gpt4image.data import ImageSet, load_with_splits
from gpt4image.data.decode import decode
from gpt4image.data.image_set import NO_LABEL
from gpt4image.errors import DataError, DecodeError, TableError, nearest
from gpt4image.table import EmbeddingTable
from gpt4image.training.training_data import is_described

IGNORED_LABEL = -100  # F.cross_entropy leaves such images out by default
BLANK_SIZE = (224, 224)


class DescribedImage(NamedTuple):
    """One image; a DataLoader collates a batch of them field by field.

    Attributes:
        image: what ``transform`` makes of the picture; an RGB PIL image without one.
        label: position in ``classes``; IGNORED_LABEL where there is none.
        text: (D,) float32, mean embedding of the descriptions at unit length; zeros where there is none.
        described: whether there is a description.
    """

    image: Any
    label: int
    text: torch.Tensor
    described: bool


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How well an image set and an embedding table fit together.

    Attributes:
        images: images of the split.
        described: those that have an embedding.
        missing: keys of those that have none.
        unused: images of the table that are in no split of the set.
    """

    images: int
    described: int
    missing: tuple[str, ...]
    unused: int

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.described} of {self.images} images described; {self.unused} further images in the table"


class DescribedImages(Dataset[DescribedImage]):
    """An image set joined to its text embeddings by content: names and order of the files do not matter.

    The table stays a memory map, in worker processes too. A picture that cannot be decoded costs a warning that names
    it, and is a white one without label and description: it takes part in no loss.

    Args:
        data: SPEC string (as ``gpt4image train --data``; splits that the set lacks are cut as there), or an ImageSet.
        embeddings: folder of the embedding table written by ``gpt4image encode``, or the open table.
        split: train, val or test; None for all images.
        transform: from an RGB PIL image to what the model takes, e.g. of torchvision.transforms.

    Attributes:
        classes: K class names.
        text_width: D, width of the text embeddings.
        coverage: which images have a description.

    Raises:
        ConfigError, DataError: the image set cannot be loaded, or the split is unknown or empty.
        TableError: there is no table, or it describes none of the images to train on.
    """

    def __init__(
        self,
        data: str | ImageSet,
        embeddings: str | Path | EmbeddingTable,
        *,
        split: str | None = "train",
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        whole = _load(data) if isinstance(data, str) else data
        self.image_set = whole if split is None else _select(whole, split)
        self.table = embeddings if isinstance(embeddings, EmbeddingTable) else EmbeddingTable.open(Path(embeddings))
        self.transform = transform
        self.classes = self.image_set.classes
        self.text_width = self.table.width
        self.coverage = _coverage(whole, self.image_set, self.table)
        if not self.coverage.described and split in ("train", None):
            raise TableError(
                f"None of the {len(self)} images of {whole.spec} has an embedding in {self.table.path}: the table was "
                "made from descriptions of other images. Run `gpt4image descriptions check` on the store it came from."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_set)

    def __getitem__(self, index: int) -> DescribedImage:
        """Return one image with its label and text."""
        vectors, described = self.table.vectors([self.image_set.digests[index]])
        text, has_text = torch.from_numpy(vectors[0]), bool(described[0])
        label = int(self.image_set.labels[index])
        try:
            image = decode(self.image_set.read(index))
        except (OSError, DecodeError) as error:
            warnings.warn(f"{self.image_set.keys[index]}: {error}; it is left out of the losses.", stacklevel=2)
            image, label, text, has_text = Image.new("RGB", BLANK_SIZE, "white"), NO_LABEL, text * 0, False
        return DescribedImage(
            image=image if self.transform is None else self.transform(image),
            label=IGNORED_LABEL if label == NO_LABEL else label,
            text=text,
            described=has_text,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Send the path of the table to worker processes, for a pickled memory map is a copy of its file."""
        return {**self.__dict__, "table": self.table.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the table again."""
        self.__dict__.update(state, table=EmbeddingTable.open(state["table"]))


def _load(spec: str) -> ImageSet:
    options = DataOptions(data=spec)  # the defaults of `gpt4image train`, so that both train on the same images
    return load_with_splits(spec, val_fraction=options.val_fraction, test_fraction=options.test_fraction)


def _select(image_set: ImageSet, split: str) -> ImageSet:
    indices = image_set.indices(split)
    if not len(indices):
        there = np.unique(image_set.splits).tolist()
        raise DataError(f"{image_set.spec} has no images in the split asked for: {nearest(split, there)}")
    return image_set.select(indices)


def _coverage(whole: ImageSet, part: ImageSet, table: EmbeddingTable) -> Coverage:
    described = is_described(table, part.digests)
    used = is_described(table, tuple(dict.fromkeys(whole.digests)))
    return Coverage(
        images=len(part),
        described=int(described.sum()),
        missing=tuple(part.keys[i] for i in np.flatnonzero(~described)),
        unused=table.manifest.images - int(used.sum()),
    )
