"""Named prompts. A prompt whose text changes gets a new version: stored descriptions keep the one that they answer.

A prompt is a template. ``{class_list}`` is filled in once for the run and belongs to the identity of the prompt;
``{class_name}`` differs from image to image and marks the prompt as class-conditioned.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import ConfigError, first_few, nearest

CLASS_NAME = "{class_name}"
PLACES = ("class_name", "class_list")
_PLACE = re.compile(r"\{(\w+)\}")

_TEXTS = {
    # What the texts of our evidence answered (docs/practice.md); a text of MiniLM's length, at half the price.
    "short": "Describe this image in detail, in 25 to 45 words.",
    "paper": "Describe this image in detail.",  # arXiv 2306.00693, first version
    "class-conditioned": f"This is an image of the class: {CLASS_NAME}. Describe this image in detail; say only what "
    "can be seen.",
    "attributes": "Describe what this image shows in at most 100 words: the main object and its parts, their colours, "
    "shapes and textures, its pose or state, and the setting around it. Say only what can be seen; no introduction.",
    "contrastive": f"This is an image of the class: {CLASS_NAME}. In at most 100 words, say what in this image tells "
    f"this {CLASS_NAME} from the other classes ({{class_list}}): parts, colours, shapes, textures, setting. Say only "
    "what can be seen.",
    "motion": "These are frames of one clip, in the order of time (on one picture: row by row). What moves, how, and "
    "in which order? Answer in 25 to 45 words; say only what can be seen.",
    "imported": "",
}
PROMPTS: Mapping[str, Prompt] = {name: Prompt(name, 1, text, CLASS_NAME in text) for name, text in _TEXTS.items()}


def find_prompt(name: str) -> Prompt:
    """Return the prompt called ``name``; a name of the user's own has no text. ConfigError: it is a slip of one."""
    if name in PROMPTS:
        return PROMPTS[name]
    if not name.strip() or difflib.get_close_matches(name.lower(), PROMPTS, n=1, cutoff=0.75):
        raise ConfigError(f"Unknown prompt: {nearest(name, PROMPTS)}")
    return Prompt(name, 1, "", class_conditioned=False)


def load_prompt(name: str) -> Prompt:
    """Return the prompt ``name``, or the template in the text file ``name``, called by the file's stem. ConfigError."""
    path = Path(name)
    if name in PROMPTS or not (path.suffix or path.is_file()):
        return find_prompt(name)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        asking = ", ".join(prompt.name for prompt in PROMPTS.values() if prompt.text)
        raise ConfigError(f"--prompt {name}: {why}; give a text file, or one of {asking}.") from None
    unknown = [place for place in _PLACE.findall(text) if place not in PLACES]
    if unknown:
        odd, places = (first_few(f"{{{place}}}" for place in some) for some in (unknown, PLACES))
        raise ConfigError(f"--prompt {name}: nothing fills {odd}; a prompt may use {places}.")
    if not text:
        raise ConfigError(f"--prompt {name}: it is empty; write what is to be asked.")
    return Prompt(path.stem, 1, text, class_conditioned=CLASS_NAME in text)


def fill(prompt: Prompt, classes: Sequence[str]) -> Prompt:
    """Return the prompt with the class list filled in, which is the same for every image. Raises ConfigError."""
    if "{class_list}" in prompt.text and not classes:
        raise ConfigError(f"The prompt {prompt.name!r} lists the classes, but the dataset has none; use another.")
    return replace(prompt, text=prompt.text.replace("{class_list}", ", ".join(map(_readable, classes))))


def text_for(prompt: Prompt, class_name: str) -> str:
    """Return the question about an image of a class, which is told only if the prompt has a place for it."""
    return prompt.text.replace(CLASS_NAME, _readable(class_name))


def _readable(class_name: str) -> str:
    return class_name.replace("_", " ")
