"""Text encoders of CLIP models in the open_clip library; safetensors only.

The weights come from a tag of open_clip or a file. open_clip itself would unpickle other files; here the
safetensors file is found first, and nothing else is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt4image.base.errors import ConfigError, MissingExtraError, ModelError, first_line, nearest
from gpt4image.base.files import file_digest, fingerprint
from gpt4image.encoding.text_encoders.neural import Tower, count_tokens, pickles_refused
from gpt4image.models.hugging_face import hub_asked_once, loading

_BEGIN_AND_END = 2


@dataclass(frozen=True)
class ClipFiles:
    """A CLIP model of open_clip; ``quick_gelu``: it was trained with the activation x * sigmoid(1.702 x)."""

    model: str
    weights: Path
    quick_gelu: bool

    @property
    def revision(self) -> str:
        """Fingerprint of architecture and weights."""
        import open_clip

        config = open_clip.get_model_config(self.model)
        return fingerprint({"config": config, "weights": file_digest(self.weights), "quick_gelu": self.quick_gelu})


def find_clip(name: str) -> ClipFiles:
    """Return the files of MODEL/PRETRAINED."""
    try:
        import open_clip
    except ModuleNotFoundError:
        raise MissingExtraError("--encoder open_clip:MODEL/PRETRAINED", "clip") from None
    model, _, pretrained = name.partition("/")
    if not model or not pretrained:
        raise ConfigError(
            f"The encoder SPEC is open_clip:MODEL/PRETRAINED, e.g. open_clip:ViT-B-32/laion2b_s34b_b79k; got {name!r}."
        )
    # Not open_clip.get_model_config: of local-dir:FOLDER it reads a configuration that can ask for code to be run.
    if model not in open_clip.list_models():
        raise ConfigError(f"open_clip:{name}: the model {nearest(model, open_clip.list_models())}")
    found = Path(pretrained).expanduser()
    if found.is_file():
        if found.suffix != ".safetensors":
            raise ModelError(pickles_refused(found))
        return ClipFiles(model, found, quick_gelu=False)
    tags = open_clip.list_pretrained_tags_by_model(model)
    config = open_clip.get_pretrained_cfg(model, pretrained)
    if not config:
        raise ModelError(
            f"open_clip:{name}: {pretrained!r} is neither a .safetensors file here nor a tag of {model}; "
            f"its tags: {', '.join(tags) or 'none'}."
        )
    return ClipFiles(model, _fetched_weights(name, config), quick_gelu=bool(config.get("quick_gelu", False)))


def _fetched_weights(name: str, config: Mapping[str, Any]) -> Path:
    """Return the safetensors file of a tag in the cache of the Hugging Face hub; fetched if it is not there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME

    place, _, file = str(config.get("hf_hub", "")).rpartition("/")
    own = Path(file or HF_SAFE_WEIGHTS_NAME).with_suffix(".safetensors").name
    for candidate in dict.fromkeys((own, HF_SAFE_WEIGHTS_NAME)) if place else ():
        with hub_asked_once() as unreachable:
            try:
                return Path(hf_hub_download(place, candidate))
            except (EntryNotFoundError, OSError, ValueError) as error:
                # The hub has no such file; a LocalEntryNotFoundError says that it cannot be asked.
                if not isinstance(error, EntryNotFoundError) or isinstance(error, LocalEntryNotFoundError):
                    raise ModelError(
                        f"open_clip:{name}: Hugging Face does not give {place} ({unreachable or first_line(error)}); "
                        "check the network, or give a .safetensors file in place of the tag."
                    ) from None
    raise ModelError(f"open_clip:{name}: {pickles_refused(place or str(config.get('url', 'its weights')))}")


def _tokenizer(model: str) -> Any:
    """Return the tokenizer of a model; one of transformers would by default ask at the terminal whether to run code."""
    import open_clip

    of_transformers = "hf_tokenizer_name" in (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    options: dict[str, Any] = {"trust_remote_code": False} if of_transformers else {}
    return open_clip.get_tokenizer(model, **options)


class OpenClipTower(Tower):
    """The text side of a CLIP model."""

    def __init__(self, spec: str, files: ClipFiles) -> None:
        """Load the text side, in fp32 on the CPU. Raises ModelError: the weights do not fit the model."""
        import open_clip

        super().__init__()
        with loading(f"{spec}: {files.weights} does not fit {files.model}", ModelError):
            # The weights come only from the file: nothing that the parts were once started from is fetched.
            self.model: Any = open_clip.create_model(
                files.model,
                str(files.weights.absolute()),
                weights_only=True,
                force_quick_gelu=files.quick_gelu,
                pretrained_image=False,
                pretrained_text=False,
            )
            tokenizer: Any = _tokenizer(files.model)
        self.model.visual = nn.Identity()  # only texts are encoded
        self.tokenizer = tokenizer
        self.max_tokens = int(tokenizer.context_length)

    def token_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        inner = getattr(self.tokenizer, "tokenizer", None)
        if inner is None:
            return np.array([len(self.tokenizer.encode(text)) + _BEGIN_AND_END for text in texts], dtype=np.int64)
        clean = getattr(self.tokenizer, "clean_fn", str)
        return count_tokens(inner, [clean(text) for text in texts])

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"tokens": self.tokenizer(list(texts))}

    def forward(self, tokens: Mapping[str, Any]) -> Tensor:
        return self.model.encode_text(tokens["tokens"])
