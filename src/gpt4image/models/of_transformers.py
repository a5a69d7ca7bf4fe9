"""Models of transformers, for GPUs, under the names

    rt-detr-v2, segformer, videomae  their standard configuration: ResNet-50, MiT-B0, and the base model
    rt-detr-v2:DIR, segformer:DIR    as the config.json of a local folder says; --init pretrained reads its weights
    videomae:NAME_OR_PATH            the same, of a folder here or on the hub

Only safetensors are read, and code that comes with a model is never run. Nothing is fetched of the first two, whose
configurations could name another model to fetch.
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
from gpt4image.models.videomae import VideoMae

MULTIPLE = 32
"""Pixels that the side of an input of the dense ones is a multiple of: their largest stride."""
FILES = ("*.json", "*.safetensors")
"""What is fetched of a model on the hub."""


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
        fit: makes a configuration fit ``--model NAME`` and the side of the input, or raises ModelError.
        heads: layers that start new where given weights have other classes, or none.
        on_hub: whether its folder may be on the Hugging Face hub.
        lr: its peak learning rate; None for that of models of timm.
        over_time: whether its layers have weights over time too, which torch cannot keep in the format channels_last.
        traced_by_bytecode: whether torch.export must trace its bytecode, which is slower: its code takes the length of
            a tensor for a number, and only that trace leaves the number open.
    """

    task: str
    prefix: str
    network: str
    wrap: Callable[[Any], nn.Module]
    fit: Callable[[Any, str, int], None]
    heads: tuple[str, ...]
    on_hub: bool = False
    lr: float | None = None
    over_time: bool = False
    traced_by_bytecode: bool = False


def _fit_segmenter(_config: Any, name: str, image_size: int) -> None:
    if image_size % MULTIPLE:
        raise ModelError(f"--model {name}: --image-size {image_size} must be a multiple of {MULTIPLE}.")


def _fit_detector(config: Any, name: str, image_size: int) -> None:
    """Leave out what a model that sees no targets cannot use; take no more queries than there are cells."""
    _fit_segmenter(config, name, image_size)
    cells = sum((image_size // stride) ** 2 for stride in config.feat_strides)
    if config.learn_initial_query and config.num_queries > cells:
        raise ModelError(
            f"--model {name}: --image-size {image_size} has fewer cells than {config.num_queries} queries."
        )
    config.num_queries = min(config.num_queries, cells)
    config.num_denoising, config.anchor_image_size, config.eval_size = 0, None, None
    config.freeze_backbone_batch_norms = False


def _fit_clips(config: Any, name: str, image_size: int) -> None:
    config.image_size = image_size
    if config.num_frames % config.tubelet_size or image_size % config.patch_size:
        raise ModelError(
            f"--model {name}: --frames {config.num_frames} must be a multiple of {config.tubelet_size}, and "
            f"--image-size {image_size} of {config.patch_size}."
        )


KINDS = {
    "rt-detr-v2": Kind(
        task="detection",
        prefix="RTDetrV2",
        network="RTDetrV2ForObjectDetection",
        wrap=RtDetr,
        fit=_fit_detector,
        heads=("model.enc_score_head.", "model.decoder.class_embed.", "class_embed."),
        lr=1e-4,  # of its authors
        traced_by_bytecode=True,
    ),
    "segformer": Kind(
        task="segmentation",
        prefix="Segformer",
        network="SegformerForSemanticSegmentation",
        wrap=Segformer,
        fit=_fit_segmenter,
        heads=("decode_head.",),
        lr=1e-4,
    ),
    "videomae": Kind(
        task="video",
        prefix="VideoMAE",
        network="VideoMAEForVideoClassification",
        wrap=VideoMae,
        fit=_fit_clips,
        heads=("classifier.", "fc_norm."),
        on_hub=True,
        over_time=True,
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
    """Create a model of ``KINDS``; ``model_args`` change its configuration (``num_frames`` of one of clips).

    Batch norms of a backbone learn as the others do, also where transformers would freeze them.

    Raises:
        ModelError: the folder, its weights, the arguments or the size cannot be used.
    """
    import transformers

    kind = KINDS[name.partition(":")[0]]
    config_class, network_class = (getattr(transformers, part) for part in (f"{kind.prefix}Config", kind.network))
    place = name.partition(":")[2]
    if pretrained and not place:
        raise ModelError(
            f"--init pretrained: weights come from a {'' if kind.on_hub else 'local '}folder, "
            f"--model {name}:{'NAME_OR_PATH' if kind.on_hub else 'DIR'} --init pretrained."
        )
    folder = _find(kind, name, place) if place else None
    what = f"--model {name} cannot be made with {dict(model_args)}"
    given = {} if folder is None else _read_config(config_class, name, folder)
    with loading(what, ModelError):
        known = config_class().to_dict()
        if unknown := [key for key in model_args if key not in known]:
            raise ModelError(f"{what}: its configuration has no {first_few(unknown)}.")
        config = config_class(**{**given, **model_args, "num_labels": classes})
        kind.fit(config, name, image_size)
        if folder is None or not pretrained:
            return Created(kind.wrap(network_class(config)), ())
    return _with_weights(kind, network_class, config, name, folder)


def _find(kind: Kind, name: str, place: str) -> Path:
    """Return the folder of a model. Raises ModelError: there is none, or it brings code."""
    try:
        if not kind.on_hub and not Path(place).expanduser().is_dir():
            raise LookupError(f"there is no folder {place!r}; copy the model here, and name its folder")
        return find_folder(place, FILES)
    except LookupError as error:
        raise ModelError(f"--model {name}: {error}.") from None


def _read_config(config_class: Any, name: str, folder: Path) -> dict[str, Any]:
    """Return the configuration of a folder. Raises ModelError: it is not of this kind."""
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


def _with_weights(kind: Kind, network_class: Any, config: Any, name: str, folder: Path) -> Created:
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "ignore_mismatched_sizes": True}
    with loading(f"--model {name}: its weights cannot be loaded", ModelError), without_report():
        network, found = network_class.from_pretrained(folder, config=config, output_loading_info=True, **options)
    lacking = {key for key in found["missing_keys"] if not key.endswith("num_batches_tracked")}  # no weight
    new = lacking | {key for key, *_ in found["mismatched_keys"]}
    if missing := sorted(key for key in new if not key.startswith(kind.heads)):
        raise ModelError(f"--model {name}: its weights lack {first_few(missing)}, or have them in another shape.")
    module = kind.wrap(network)
    names = {f"network.{key.removeprefix('model.')}".rpartition(".")[0] for key in new}
    return Created(module, tuple(sorted(names & {layer for layer, _ in module.named_modules()})))
