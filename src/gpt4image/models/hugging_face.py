"""Models in the Hugging Face layout: their folder, here or from the hub, loading them, and training them.

The folder of a model can bring code: Python files, an ``auto_map`` of transformers, a class that a file of
sentence-transformers names. sentence-transformers before 6.0 ran such code from a local folder although
``trust_remote_code`` was False. ``find_folder`` therefore refuses it before a library reads the folder.
"""

import contextlib
import json
import re
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch.nn.functional as F
from torch import Tensor, nn

from gpt4image.base.errors import Gpt4ImageError, ModelError, first_few, first_line

_CONFIGURATIONS = ("*config*.json", "modules.json")
# Keys of sentence-transformers whose value, or values, are classes to import. transformers writes plain names there.
_CLASS_KEYS = ("type", "types", "tokenizer_class", "activation_function")
# The capital letter excludes functions, and libraries that one of these modules has imported.
_CLASS_OF_A_LIBRARY = re.compile(r"(sentence_transformers|torch\.nn)\.(\w+\.)*[A-Z]\w*")


def find_folder(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a model: ``name`` itself, or its copy of the Hugging Face hub (fetched once)."""
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        if not name or folder.is_absolute() or name.startswith(".") or len(folder.parts) > 2:
            raise LookupError(f"there is no folder {name!r}; give a folder or a Hugging Face id")
        from huggingface_hub import snapshot_download

        with hub_asked_once() as unreachable:
            try:
                folder = Path(snapshot_download(name, allow_patterns=list(patterns)))
            except (OSError, ValueError) as error:
                why, advice = (unreachable, f"; {OFFLINE}") if unreachable else (first_line(error), "")
                raise LookupError(
                    f"there is no such folder here and Hugging Face does not give it ({why}); check the name and the "
                    f"network{advice}"
                ) from error
    _refuse_code(folder)
    return folder


OFFLINE = "without one, give a local folder, or copy the cache of Hugging Face (HF_HOME) here and set HF_HUB_OFFLINE=1"
"""What helps where the hub cannot be reached."""
REACHED_SECONDS = 5.0


@contextlib.contextmanager
def hub_asked_once() -> Generator[str]:
    """Let the hub's library look only into its cache in the block where its server cannot be reached."""
    from huggingface_hub import constants

    server = urlsplit(constants.ENDPOINT)
    unreachable = ""
    if not constants.HF_HUB_OFFLINE and not getproxies():
        try:
            port = server.port or (80 if server.scheme == "http" else 443)
            socket.create_connection((server.hostname or "", port), timeout=REACHED_SECONDS).close()
        except OSError as error:
            unreachable = f"{server.hostname} cannot be reached: {error.strerror or error}"
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(unreachable)
    try:
        yield unreachable
    finally:
        constants.HF_HUB_OFFLINE = before


def _refuse_code(folder: Path) -> None:
    """Raise LookupError where a folder has Python files, or names code that a library would import."""
    reason = next((f"{file} is Python code" for file in folder.rglob("*.py")), None)
    for file in sorted({file for pattern in _CONFIGURATIONS for file in folder.rglob(pattern)}):
        # The libraries read with this parser too: what it cannot read, they cannot either.
        with contextlib.suppress(ValueError, RecursionError):
            named = _code_named(json.loads(file.read_text(encoding="utf-8")))
            reason = reason or next((f"{file} names the code {name}" for name in named), None)
    if reason:
        raise LookupError(f"{reason}; code that comes with a model is never run, give a model without code of its own")


def _code_named(configuration: Any) -> Iterator[str]:
    """Yield the code that a configuration names, other than classes of the libraries that read it."""

    def is_of_a_library(name: Any) -> bool:
        return isinstance(name, str) and _CLASS_OF_A_LIBRARY.fullmatch(name) is not None

    pending = [configuration]  # and not recursion: a file may be nested deeply
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(value.values())
            if value.get("auto_map"):
                yield repr(value["auto_map"])
            found = [value[key] for key in _CLASS_KEYS if key in value]
            names = [name for part in found for name in (part.values() if isinstance(part, Mapping) else [part])]
            yield from (repr(name) for name in names if "." in str(name) and not is_of_a_library(name))
        elif isinstance(value, list):
            pending.extend(value)


@contextlib.contextmanager
def loading(what: str, kind: type[Gpt4ImageError]) -> Generator[None]:
    """Let a library load a model without bars and tables; what it raises becomes ``kind``, with ``what`` before it."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    except Gpt4ImageError:
        raise
    except Exception as error:
        # Damaged files raise many types, among them the plain Exception of tokenizers.
        raise kind(f"{what}: {first_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


OF_TRANSFORMERS = "transformers:"
"""How the name of a model of transformers begins; a folder, or an id of the hub, comes after it."""
_AUTO = {"segmentation": "AutoModelForSemanticSegmentation", "video": "AutoModelForVideoClassification"}
STRIDE = 4
"""Pixels of the input, in both directions, that one cell of a segmentation model's outputs stands for."""


class OfTransformers(nn.Module):
    """A model of transformers as others here: images, or clips (B, 3 T, S, S) or (B, T, 3, S, S), to logits.

    Logits are (B, K), or (B, K, S // STRIDE, S // STRIDE) of a segmentation model.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        frames: int | None = getattr(self.network.config, "num_frames", None)
        inputs = images if frames is None else images.reshape(-1, frames, 3, *images.shape[-2:])
        logits: Tensor = self.network(inputs).logits
        size = images.shape[-2] // STRIDE, images.shape[-1] // STRIDE
        if logits.ndim == 2 or logits.shape[2:] == size:
            return logits
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def get_classifier(self) -> nn.Module:
        """Return the layer that gives the logits."""
        layers = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        return next(layer for layer in reversed(layers) if layer.weight.shape[0] == self.network.config.num_labels)


def create_of_transformers(
    name: str, classes: int, image_size: int, *, task: str, pretrained: bool, model_args: Mapping[str, Any]
) -> tuple[nn.Module, tuple[str, ...]]:
    """Create the model that the configuration in a folder describes, with random weights or those of the folder."""
    import transformers

    if task == "detection":
        raise ModelError(f"--model {name}: models of transformers learn classes, masks and clips here, not boxes.")
    what = f"--model {name} cannot be made with {dict(model_args)}"
    try:
        folder = find_folder(name.removeprefix(OF_TRANSFORMERS), ("*.json", "*.safetensors"))
    except LookupError as error:
        raise ModelError(f"--model {name}: {error}.") from None
    auto: Any = getattr(transformers, _AUTO.get(task, "AutoModelForImageClassification"))
    with loading(what, ModelError):
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        known = config.to_dict()
        if other := [key for key in ("backbone", "backbone_config", "use_timm_backbone") if known.get(key)]:
            raise ModelError(f"--model {name}: its configuration names another model ({first_few(other)}).")
        if unknown := [key for key in model_args if key not in known]:
            raise ModelError(f"{what}: its configuration has no {first_few(unknown)}.")
        size = {"image_size": image_size} if "image_size" in known else {}
        named = {key: value for key, value in known.items() if key not in ("id2label", "label2id")}
        config = type(config)(**{**named, **size, **model_args, "num_labels": classes})
        if not pretrained:
            return OfTransformers(auto.from_config(config, trust_remote_code=False)), ()
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "ignore_mismatched_sizes": True}
    with loading(f"--model {name}: its weights cannot be loaded", ModelError):
        network, found = auto.from_pretrained(folder, config=config, output_loading_info=True, **options)
    lacking = {key for key in found["missing_keys"] if not key.endswith("num_batches_tracked")}
    new = lacking | {key for key, *_ in found["mismatched_keys"]}
    if missing := sorted(key for key in new if key.startswith(f"{network.base_model_prefix}.")):
        raise ModelError(f"--model {name}: its weights lack {first_few(missing)}, or have them in another shape.")
    return OfTransformers(network), tuple(sorted({f"network.{key}".rpartition(".")[0] for key in new}))
