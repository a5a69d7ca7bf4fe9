"""Fine-tuned text encoders, found again as ``tuned:FOLDER``: only what was learned is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field
from torch import Tensor, nn

from gpt4image.base.checksums import file_digest
from gpt4image.base.errors import ConfigError, MissingExtraError, ModelError
from gpt4image.base.files import fingerprint, read_json, write_json
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.neural import NeuralEncoder, Tower, to_device
from gpt4image.models.weights import load_tensors, save_tensors
from gpt4image.parallel import processes

FOLDER = "text_encoder"
RECORD, WEIGHTS = "tuned.json", "weights.safetensors"  # the record is written last
How = Literal["lora", "full"]


class Made(BaseModel, frozen=True, extra="forbid"):
    """How a text encoder was tuned: the content of RECORD."""

    encoder: str
    revision: str
    how: How
    rank: int = Field(default=8, ge=1, le=2**16, strict=True)


def make_trainable(tower: Tower, how: How, rank: int) -> None:
    """Make a tower trainable, in place: all its weights, or adapters of low rank (LoRA, arXiv 2106.09685)."""
    tower.requires_grad_(how == "full")
    if how == "lora":
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ModuleNotFoundError:
            raise MissingExtraError("LoRA (--tune-text lora)", "tune") from None
        # torch's own attention (in open_clip) reads the weight of its projection and would never call the adapter.
        parts = dict(tower.named_modules())
        inside = {f"{name}.out_proj" for name, module in parts.items() if isinstance(module, nn.MultiheadAttention)}
        linear = [name for name, module in parts.items() if isinstance(module, nn.Linear) and name not in inside]
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=linear, lora_dropout=0.0), tower)
    tower(to_device(tower.tokenize(["a"]), next(tower.parameters()).device)).sum().backward()
    for parameter in tower.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def trained_weights(tower: nn.Module) -> dict[str, Tensor]:
    """Return the trainable weights of a tower, by name."""
    return {name: parameter for name, parameter in tower.named_parameters() if parameter.requires_grad}


def save_tuned(folder: Path, weights: Mapping[str, Tensor], made: Made) -> None:
    """Write the trained weights of an encoder, and a record to find it again."""
    save_tensors(folder / WEIGHTS, weights)
    processes.by_first(lambda: write_json(folder / RECORD, made.model_dump()))


def load_tuned(name: str, device: str, load_base: Callable[[str, str], TextEncoder]) -> NeuralEncoder:
    """Return the encoder in a run folder or in the folder that ``save_tuned`` wrote."""
    if not name:
        raise ConfigError("The encoder SPEC is tuned:RUN_DIR; the folder is missing.")
    given = Path(name).expanduser()
    folder = given if (given / RECORD).is_file() else given / FOLDER
    if not (folder / RECORD).is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"tuned:{name}: there is no tuned text encoder, or a part of it; give a run with --tune-text.")
    try:
        made = Made.model_validate(read_json(folder / RECORD))
        base = load_base(made.encoder, device)
    except (ValueError, RecursionError) as error:  # the latter: it says that it was made from itself
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder / RECORD} is no record of a tuned text encoder: {reason}. Train again.") from None
    if not isinstance(base, NeuralEncoder) or base.revision != made.revision:
        raise ModelError(
            f"tuned:{name}: it was made from {made.encoder} (revision {made.revision[:12]}), but that is "
            f"{base.revision[:12]} now; bring back the files that it was made from."
        )

    def load() -> Tower:
        tower = base.load()
        make_trainable(tower, made.how, made.rank)
        weights, _ = load_tensors(folder / WEIGHTS)
        known: dict[str, Any] = {key: value.shape for key, value in trained_weights(tower).items()}
        if known != {key: value.shape for key, value in weights.items()}:
            raise ModelError(f"{folder / WEIGHTS} does not fit {made.encoder}; the folder is damaged.")
        tower.load_state_dict(weights, strict=False)
        return tower.requires_grad_(False)

    of = {"encoder": made.revision, "how": made.how, "rank": made.rank, "weights": file_digest(folder / WEIGHTS)}
    return NeuralEncoder(f"tuned:{name}", fingerprint(of), load, device)
