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

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.data
from PIL import Image

from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import DataError, DecodeError, TableError, nearest
from gpt4image.config import DataOptions
from gpt4image.data import Dataset, load_with_splits
from gpt4image.data.dataset import NO_LABEL
from gpt4image.data.decode import decode
from gpt4image.own_loop.texts import NO_TEXT, Text, Texts, coverage

IGNORED_LABEL = -100  # F.cross_entropy leaves such images out by default
BLANK_SIZE = (224, 224)


class DescribedImage(NamedTuple):
    """One image; a DataLoader collates a batch of them field by field, into one of these.

    Attributes:
        image: what ``transform`` makes of the picture; an RGB PIL image without one.
        label: position in ``classes``; IGNORED_LABEL where there is none. Of several classes per image a (K,) int8
            tensor: 1 present, 0 absent, -1 not known.
        text: (D,) float32, mean embedding of the descriptions at unit length; zeros where there is none.
        described: whether there is a description.
        text_id: identity of the text, as ``text_ids`` of the loss; negative where there is none.
    """

    image: Any
    label: Any
    text: torch.Tensor
    described: Any
    text_id: Any

    def to(self, device: torch.device | str) -> DescribedImage:
        """Return a batch on another device."""
        return DescribedImage(*(field.to(device, non_blocking=True) for field in self))


class WithTexts(torch.utils.data.Dataset[DescribedImage]):
    """A data set of your own, of pairs (image, label), joined to the texts of its images by key.

    Args:
        dataset: map-style data set, any transform of its images included.
        texts: the texts.
        keys: key of each image, in the order of the data set, as ``texts`` takes them.

    Attributes:
        text_width: D, width of the text embeddings.
        coverage: which images have a description.

    Raises:
        DataError: not one key for each image.
        TableError: no image has a text.
    """

    def __init__(self, dataset: torch.utils.data.Dataset[Any], texts: Texts, keys: Sequence[str]) -> None:
        size = len(dataset)  # pyright: ignore[reportArgumentType]
        if len(keys) != size:
            raise DataError(f"{len(keys)} keys for {size} images: give one for each, in the order of the data set.")
        self.dataset, self.texts, self.keys = dataset, texts, keys
        self.text_width = texts.width
        self.coverage = texts.coverage(keys)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.keys)

    def __getitem__(self, index: int) -> DescribedImage:
        """Return one image with its label and text."""
        image, label = self.dataset[index]
        return DescribedImage(image, label, *self.texts[self.keys[index]])


class DescribedImages(torch.utils.data.Dataset[DescribedImage]):
    """A dataset joined to its text embeddings by content: names and order of the files do not matter.

    The table stays a memory map, in worker processes too. A picture that cannot be decoded gives a warning that names
    it, and a white picture without label and description, which takes part in no loss.

    Args:
        data: SPEC as ``gpt4image train --data`` takes it (missing splits are cut as there), or an Dataset.
        embeddings: folder of the embedding table written by ``gpt4image encode``, or the open table.
        split: train, val or test; None for all images.
        transform: from an RGB PIL image to what the model takes, e.g. of torchvision.transforms.

    Attributes:
        classes: K class names.
        text_width: D, width of the text embeddings.
        coverage: which images have a description.

    Raises:
        ConfigError, DataError: the dataset cannot be loaded, or the split is unknown or empty.
        TableError: there is no table, or it describes none of the images to train on.
    """

    def __init__(
        self,
        data: str | Dataset,
        embeddings: str | Path | EmbeddingTable,
        *,
        split: str | None = "train",
        transform: Callable[[Image.Image], Any] | None = None,
    ) -> None:
        if isinstance(data, str):
            own = DataOptions(data=data)  # the defaults of `gpt4image train`, so that both train on the same images
            data = load_with_splits(data, val_fraction=own.val_fraction, test_fraction=own.test_fraction)
        self.image_set = data
        if split is not None:
            indices, there = data.indices(split), np.unique(data.splits).tolist()
            if not len(indices):
                raise DataError(f"{data.spec} has no images in the split asked for: {nearest(split, there)}")
            self.image_set = data.select(indices)
        if data.clips:
            raise DataError(f"{data.spec} holds clips; this dataset gives images. `gpt4image train` reads clips.")
        self.texts = Texts(embeddings)
        self.transform = transform
        self.classes = self.image_set.classes
        self.text_width = self.texts.width
        table, part = self.texts.table, self.image_set
        self.coverage = coverage(table, part.keys, part.digests, among=data.digests)
        if not self.coverage.described and split in ("train", None):
            raise TableError(
                f"None of the {len(self)} images of {data.spec} has an embedding in {table.path}: the table was "
                "made from descriptions of other images. Run `gpt4image descriptions check` on the store it came from."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_set)

    def __getitem__(self, index: int) -> DescribedImage:
        """Return one image with its label and text."""
        text = self.texts[self.image_set.digests[index]]
        label = np.array(self.image_set.labels[index])
        try:
            image = decode(self.image_set.read(index))
        except (OSError, DecodeError) as error:
            warnings.warn(f"{self.image_set.keys[index]}: {error}; it is left out of the losses.", stacklevel=2)
            image, label = Image.new("RGB", BLANK_SIZE, "white"), np.full_like(label, NO_LABEL)
            text = Text(torch.zeros(self.text_width), described=False, text_id=NO_TEXT)
        return DescribedImage(
            image if self.transform is None else self.transform(image),
            torch.from_numpy(label) if label.ndim else IGNORED_LABEL if label == NO_LABEL else int(label),
            *text,
        )
