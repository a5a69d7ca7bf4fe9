"""Dense models of transformers, for GPUs, under the names

    rt-detr-v2, segformer          their standard configuration: ResNet-50, and MiT-B0
    rt-detr-v2:DIR, segformer:DIR  as the config.json of a local folder says; --init pretrained reads its weights

Only safetensors are read, nothing is fetched, and code that comes with a model is never run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from gpt4image.base.errors import ModelError, first_few
from gpt4image.models.hugging_face import find_folder, loading, without_report
from gpt4image.models.rt_detr import RtDetr
from gpt4image.models.segmenter import STRIDE

MULTIPLE = 32
"""Pixels that the side of an input is a multiple of: the largest stride of these models."""

LR = 1e-4
"""Peak learning rate, that of RT-DETRv2's authors."""


class Segformer(nn.Module):
    """SegFormer (Xie et al. 2021, arXiv 2105.15203): images (B, 3, S, S) to logits (B, K, S // STRIDE, S // STRIDE)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of each cell."""
        logits = self.network(images).logits
        size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        return F.interpolate(logits, size, mode="bilinear", align_corners=False) if logits.shape[2:] != size else logits

    def get_classifier(self) -> nn.Module:
        """Return the layer that gives the logits."""
        return self.network.decode_head.classifier


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of models.

    Attributes:
        task: name of the only task that they are for.
        prefix: their classes in transformers: ``prefix + "Config"``, and
        network: the one with the head.
        wrap: makes a model of ours of it.
        heads: layers that start new where given weights have other classes, or none.
    """

    task: str
    prefix: str
    network: str
    wrap: Callable[[Any], nn.Module]
    heads: tuple[str, ...]


KINDS = {
    "rt-detr-v2": Kind(
        task="detection",
        prefix="RTDetrV2",
        network="RTDetrV2ForObjectDetection",
        wrap=RtDetr,
        heads=("model.enc_score_head.", "model.decoder.class_embed.", "class_embed."),
    ),
    "segformer": Kind(
        task="segmentation",
        prefix="Segformer",
        network="SegformerForSemanticSegmentation",
        wrap=Segformer,
        heads=("decode_head.",),
    ),
}


class Created(NamedTuple):
    """A model, and the names of its layers that start from random weights where others were given."""

    module: nn.Module
    new_layers: tuple[str, ...]


def kind_of(name: str) -> Kind | None:
    """Return the kind of such a model by its name; None for all others."""
    return KINDS.get(name.partition(":")[0])


def create_of_transformers(
    name: str, classes: int, image_size: int, *, pretrained: bool, model_args: Mapping[str, Any]
) -> Created:
    """Create a model of ``KINDS``; ``model_args`` change its configuration.

    Batch norms of a backbone learn as the others do, also where transformers would freeze them.

    Raises:
        ModelError: the folder, its weights, the arguments or the size cannot be used.
    """
    import transformers

    kind = KINDS[name.partition(":")[0]]
    config_class, network_class = (getattr(transformers, part) for part in (f"{kind.prefix}Config", kind.network))
    place = name.partition(":")[2]
    if image_size % MULTIPLE:
        raise ModelError(f"--model {name}: --image-size {image_size} must be a multiple of {MULTIPLE}.")
    if pretrained and not place:
        raise ModelError(f"--init pretrained: weights come from a local folder, --model {name}:DIR --init pretrained.")
    what = f"--model {name} cannot be made with {dict(model_args)}"
    given = _read_config(config_class, name, place) if place else {}
    with loading(what, ModelError):
        known = config_class().to_dict()
        if unknown := [key for key in model_args if key not in known]:
            raise ModelError(f"{what}: its configuration has no {first_few(unknown)}.")
        config = config_class(**{**given, **model_args, "num_labels": classes})
        if kind.task == "detection":
            _fit_detector(config, name, image_size)
        if not pretrained:
            return Created(kind.wrap(network_class(config)), ())
    return _with_weights(kind, network_class, config, name, place)


def _read_config(config_class: Any, name: str, place: str) -> dict[str, Any]:
    """Return the configuration of a local folder. Raises ModelError: there is none of this kind."""
    try:
        if not Path(place).expanduser().is_dir():
            raise LookupError(f"there is no folder {place!r}; copy the model here, and name its folder")
        folder = find_folder(place, ())
    except LookupError as error:
        raise ModelError(f"--model {name}: {error}.") from None
    with loading(f"--model {name}: its config.json cannot be read", ModelError):
        given: dict[str, Any] = config_class.get_config_dict(folder, local_files_only=True)[0]
    found, wanted = given.get("model_type"), config_class.model_type
    if found != wanted:
        raise ModelError(f"--model {name}: its config.json is of a {found!r}, not of a {wanted!r}.")
    backbone = (given.get("backbone_config") or {}).get("model_type", "rt_detr_resnet")
    if given.get("backbone") or backbone != "rt_detr_resnet":  # others could fetch weights
        raise ModelError(
            f"--model {name}: its backbone is a {given.get('backbone') or backbone!r}, not a rt_detr_resnet."
        )
    return {key: value for key, value in given.items() if key not in ("id2label", "label2id")}


def _fit_detector(config: Any, name: str, image_size: int) -> None:
    """Leave out what a model that sees no targets cannot use; take no more queries than there are cells."""
    cells = sum((image_size // stride) ** 2 for stride in config.feat_strides)
    if config.learn_initial_query and config.num_queries > cells:
        raise ModelError(
            f"--model {name}: --image-size {image_size} has fewer cells than {config.num_queries} queries."
        )
    config.num_queries = min(config.num_queries, cells)
    config.num_denoising, config.anchor_image_size, config.eval_size = 0, None, None
    config.freeze_backbone_batch_norms = False


def _with_weights(kind: Kind, network_class: Any, config: Any, name: str, place: str) -> Created:
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "ignore_mismatched_sizes": True}
    with loading(f"--model {name}: its weights cannot be loaded", ModelError), without_report():
        network, found = network_class.from_pretrained(
            Path(place).expanduser(), config=config, output_loading_info=True, **options
        )
    lacking = {key for key in found["missing_keys"] if not key.endswith("num_batches_tracked")}  # no weight
    new = lacking | {key for key, *_ in found["mismatched_keys"]}
    if missing := sorted(key for key in new if not key.startswith(kind.heads)):
        raise ModelError(f"--model {name}: its weights lack {first_few(missing)}, or have them in another shape.")
    module = kind.wrap(network)
    names = {f"network.{key.removeprefix('model.')}".rpartition(".")[0] for key in new}
    return Created(module, tuple(sorted(names & {layer for layer, _ in module.named_modules()})))
