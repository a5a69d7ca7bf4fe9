"""The training script of timm (its train.py) with alignment: a task, and a loader that brings the texts of a batch.

Two of its lines change, `create_loader` and `ClassificationTask`; examples/timm_script.py changes them from outside:

loader_train = create_loader_with_texts(texts, dataset_train, ...)  # in place of create_loader(dataset_train, ...)
task = AlignedTask(model, text_width=texts.width, ...)              # in place of ClassificationTask(model, ...)

timm's loader carries one target beside the images, so the texts of a batch travel as that target. Images pass for
their own classes while timm collates and mixes them, and what comes out says where each went.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import timm
import torch
from timm.data.dataset import ImageDataset
from timm.data.loader import create_loader, fast_collate
from timm.data.mixup import FastCollateMixup, one_hot
from timm.models import group_parameters
from timm.task import ClassificationTask, TrainingTask
from timm.utils.model import unwrap_model
from torch import Tensor, nn
from torch.utils.data import default_collate

from gpt4image.base.errors import ConfigError, DataError, ModelError
from gpt4image.data.file_source import file_digests
from gpt4image.models.aligner import Aligner, Head
from gpt4image.own_loop.pairs import Texts

_logger = logging.getLogger(__name__)  # as timm says it, whose script sets logging up


class Targets(NamedTuple):
    """What the images of a batch are to learn; passes through timm's loader and script in place of the labels.

    Attributes:
        classes: (B,) int64 classes of the images before mixing.
        text: (B, D) float32, the text of each image; zeros where there is none.
        described: (B,) bool, which images have a text.
        text_id: (B,) int64, images that share it have the same text.
        soft: (B, K) float32 class probabilities of mixed images; None where they are not mixed.
        mixing: (B, B) float32, row i holds the weights of the images that image i is made of; None as well.
    """

    classes: Tensor
    text: Tensor
    described: Tensor
    text_id: Tensor
    soft: Tensor | None = None
    mixing: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> Targets:
        """Return them on another device, as ``Tensor.to``."""
        return Targets(*(None if part is None else part.to(*args, **kwargs) for part in self))  # pyright: ignore


class AlignedTask(ClassificationTask):
    """timm's classification task, with the alignment loss added where a batch has texts.

    The script trains, averages, resumes and evaluates as ever. What it saves as the model is only the backbone; the
    projection head is in the task's own part of a checkpoint.

    Args:
        model: the backbone.
        *args: other arguments of ``timm.task.ClassificationTask``: the criterion, the device, ...
        **kwargs: its keyword arguments.
        text_width: D, width of the text embeddings.
        align_weight: weight of the alignment loss.
        head: as of ``Aligner``.
        classifier: as of ``Aligner``.
        alignment: options of the loss: ``loss``, ``temperature``, ``bias`` and ``paper_compat`` of ``Aligner``.

    Raises:
        ModelError: this timm's tasks have no state of their own yet, or the classifier layer is not found.
        ConfigError: options that ``Aligner`` refuses.
    """

    def __init__(
        self,
        model: nn.Module,
        *args: Any,
        text_width: int,
        align_weight: float = 1.0,
        head: Head = "linear",
        classifier: str | None = None,
        alignment: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not hasattr(TrainingTask, "get_checkpoint_state"):
            raise ModelError(f"timm {timm.__version__} has no task that can be extended; pip install 'timm>=1.0.31'.")
        aligner = _TimmAligner(model, text_width, head=head, classifier=classifier, **(alignment or {}))
        super().__init__(aligner, *args, **kwargs)
        weight = next(model.parameters())  # timm's task says cpu where no device is given, wherever the model is
        aligner.head.to(weight.device, weight.dtype)
        self.align_weight = align_weight

    def forward(self, input: Tensor, target: Tensor | Targets) -> dict[str, Tensor]:
        """Return the loss, its parts and the logits; labels without texts give only the loss of the labels."""
        logits, image_emb = self.trainable_module(input)
        if not isinstance(target, Targets):
            return {"loss": self.criterion(logits, target), "output": logits}
        task_loss = self.criterion(logits, target.classes if target.soft is None else target.soft)
        align_loss = unwrap_model(self.trainable_module).alignment_loss(
            image_emb, target.text, mixing=target.mixing, described=target.described, text_ids=target.text_id
        )
        loss = task_loss + self.align_weight * align_loss
        return {"loss": loss, "output": logits, "task_loss": task_loss, "align_loss": align_loss}

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> nn.Module:
        """Compile the aligner for training, and the backbone for evaluation."""
        options: dict[str, Any] = {"backend": backend, "mode": mode, **compile_kwargs}
        backbone = unwrap_model(self.trainable_module).backbone
        self.eval_model: Any = torch.compile(backbone, **options)
        self.trainable_module: Any = torch.compile(self.trainable_module, **options)
        return self.eval_model

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """Return the plain backbone, which is what is evaluated and saved."""
        found = super().get_eval_model(module=module, ema=ema)
        inner = None if found is None else unwrap_model(found)
        return inner.backbone if isinstance(inner, Aligner) else found

    def get_clip_parameters(self, exclude_head: bool = False) -> Iterator[nn.Parameter]:
        """Yield what gradient clipping applies to; ``exclude_head`` leaves out the classifier, as timm does."""
        aligner = unwrap_model(self.trainable_module)
        backbone = list(aligner.backbone.parameters())
        yield from backbone[:-2] if exclude_head else backbone
        yield from aligner.head.parameters()

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """Return what a checkpoint holds beside the backbone."""
        return {name: part.state_dict() for name, part in self._own_parts(module, ema).items()}

    def load_task_state(
        self, state: Mapping[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Load what ``get_task_state`` gave; a checkpoint of a run without alignment has none, which is no mistake."""
        parts = self._own_parts(module, ema)
        for name in parts.keys() & (state or {}).keys():
            parts[name].load_state_dict((state or {})[name], strict=strict)

    def _own_parts(self, module: nn.Module | None, ema: bool) -> dict[str, nn.Module]:
        """Return the parts of an aligner, however wrapped, that are not its backbone."""
        aligner: Any = unwrap_model(self.get_trainable_module(ema=ema) if module is None else module)
        return {} if aligner is None else {"head": aligner.head}


class _TimmAligner(Aligner):
    """An aligner that tells timm's optimiser factory what its backbone says of layers."""

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return a function from the name of a parameter to its layer; head and loss belong to the last one."""
        backbone: Any = self.backbone
        layer_of: Any = group_parameters(backbone, backbone.group_matcher(coarse=coarse), reverse=True)
        last = max(layer_of.values(), default=0)
        return lambda name: layer_of.get(name.removeprefix("backbone."), last)


def create_loader_with_texts(
    texts: Texts,
    dataset: Any,
    *args: Any,
    keys: Sequence[str] | None = None,
    is_training: bool = False,
    collate_fn: FastCollateMixup | None = None,
    use_prefetcher: bool = True,
    **kwargs: Any,
) -> Any:
    """Return timm's loader; the batches of a training set are (images, Targets), those of others as ever.

    A picture that cannot be read gives way to the next one, as always in timm, with the next one's label and text.

    Args:
        texts: the texts.
        dataset: as ``timm.data.create_dataset`` returns it for files in folders, or its AugMixDataset.
        *args: other arguments of ``timm.data.create_loader``.
        **kwargs: its keyword arguments.
        keys: what ``texts`` know the images by, in the order of the dataset; by default the digests of their files.
        is_training: whether it is for training.
        collate_fn: timm's mixup and CutMix, or None; texts are mixed as the images are.
        use_prefetcher: must be True, the default of the script.

    Raises:
        ConfigError: no prefetcher, or mixup of mode "half".
        DataError: the data set is not one of files, or there is not one key for each image.
        TableError: no image has a text.
    """
    if not is_training:
        return create_loader(dataset, *args, collate_fn=collate_fn, use_prefetcher=use_prefetcher, **kwargs)
    if not use_prefetcher:
        raise ConfigError("texts come with the prefetcher of timm; leave --no-prefetcher out.")
    inner: Any = dataset
    while not isinstance(inner, ImageDataset) and hasattr(inner, "dataset"):
        inner = inner.dataset
    if not isinstance(inner, ImageDataset):
        raise DataError(f"{type(inner).__name__} gives no files to join texts to; use images in folders (ImageFolder).")
    keys = file_digests([str(name) for name in inner.filenames(absolute=True)]) if keys is None else keys
    if len(keys) != len(inner):
        raise DataError(f"{len(keys)} keys for {len(inner)} images: give one for each, in the order of the data set.")
    _logger.info("%s", texts.coverage(keys))
    inner.reader, inner.target_transform = _NumberedReader(inner), None
    lookup = _Lookup(texts, keys)
    collate = lookup.collate if collate_fn is None else _CollateMixed(collate_fn, lookup)
    return create_loader(dataset, *args, is_training=True, collate_fn=collate, use_prefetcher=True, **kwargs)


class _NumberedReader:
    """timm's reader, whose targets are (class, number of the image that was read)."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._reader: Any = dataset.reader
        self._transform = dataset.target_transform

    def __getitem__(self, index: int) -> tuple[Any, tuple[int, int]]:
        image, label = self._reader[index]
        return image, (label if self._transform is None else self._transform(label), index)

    def __len__(self) -> int:
        return len(self._reader)

    def __getattr__(self, name: str) -> Any:
        if name == "_reader":  # asked for while this is unpickled
            raise AttributeError(name)
        return getattr(self._reader, name)


class _Lookup(NamedTuple):
    """The texts of numbered images."""

    texts: Texts
    keys: Sequence[str]

    def targets(self, batch: Sequence[tuple[Any, tuple[int, int]]]) -> Targets:
        """Return the targets of images that are not mixed."""
        classes, found = zip(*((label, self.texts[self.keys[index]]) for _, (label, index) in batch), strict=True)
        text, described, text_id = default_collate(list(found))
        return Targets(torch.tensor(classes), text, described, text_id)

    def collate(self, batch: Sequence[tuple[Any, tuple[int, int]]]) -> tuple[Tensor, Targets]:
        """Collate as timm does; images pass for their own classes, so that timm says where each went."""
        images, rows = fast_collate([(image, row) for row, (image, _) in enumerate(batch)])
        targets = self.targets(batch)
        return images, Targets(*(part[rows] for part in targets[:4]))  # more rows than images with splits of AugMix


class _CollateMixed(FastCollateMixup):
    """timm's mixup while a batch is collated; its soft targets of images that pass for classes are the mixing matrix.

    It is a FastCollateMixup, for the loader looks for one to switch the mixing off.
    """

    def __init__(self, mixup: FastCollateMixup, lookup: _Lookup) -> None:
        if mixup.mode == "half":
            raise ConfigError(
                '--mixup-mode half leaves half of the texts without an image; use "batch", "pair" or "elem".'
            )
        vars(self).update(vars(mixup))
        self.lookup = lookup

    def __call__(self, batch: Sequence[tuple[Any, tuple[int, int]]], _: Any = None) -> tuple[Tensor, Targets]:
        by_image = copy.copy(self)
        by_image.num_classes, by_image.label_smoothing = len(batch), 0.0
        images, mixing = FastCollateMixup.__call__(by_image, [(image, row) for row, (image, _) in enumerate(batch)])
        targets = self.lookup.targets(batch)
        off = self.label_smoothing / self.num_classes
        known = one_hot(targets.classes, self.num_classes, on_value=1.0 - self.label_smoothing + off, off_value=off)
        return images, targets._replace(soft=mixing.float() @ known, mixing=mixing.float())
