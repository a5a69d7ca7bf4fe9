"""Named prompts. A prompt whose text changes gets a new version: old descriptions keep saying what they answer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from gpt4image.errors import ConfigError, nearest
from gpt4image.store import Prompt

CLASS_NAME = "{class_name}"

PROMPTS: Mapping[str, Prompt] = {
    prompt.name: prompt
    for prompt in (
        # arXiv 2306.00693, first version.
        Prompt("paper", 1, "Describe this image in detail.", class_conditioned=False),
        Prompt(
            "class-conditioned",
            1,
            f"This is an image of the class: {CLASS_NAME}. Describe this image in detail; say only what can be seen.",
            class_conditioned=True,
        ),
        Prompt("imported", 1, "", class_conditioned=False),
    )
}


def find_prompt(name: str) -> Prompt:
    """Return the prompt called ``name``; a name of the user's own is a prompt whose text is not known.

    Raises:
        ConfigError: the name is almost that of a known prompt: a slip would lose the mark that the class was told.
    """
    if name in PROMPTS:
        return PROMPTS[name]
    if not name.strip() or difflib.get_close_matches(name.lower(), PROMPTS, n=1, cutoff=0.75):
        raise ConfigError(f"Unknown prompt: {nearest(name, PROMPTS)}")
    return Prompt(name, 1, "", class_conditioned=False)


def render(prompt: Prompt, class_name: str) -> str:
    """Return the text to send for an image of a class; without a place for it, the class is not told."""
    return prompt.text.replace(CLASS_NAME, class_name)
