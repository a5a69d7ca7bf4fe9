"""What a report shows beside results: JSON that stages write while images are at hand; each file may be missing.

examples.json         pictures with their descriptions and predictions
doubtful-labels.json  pictures of suspected label errors: the description contradicts the given label
descriptions.json     who described the images, at what cost, and how good the texts are

Pictures are data URLs; the policy of the page lets nothing else through.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt4image.base.files import read_json

EXAMPLES, DOUBTFUL, DESCRIPTIONS = "examples.json", "doubtful-labels.json", "descriptions.json"
EXAMPLE: Mapping[str, Any] = {
    **{"label": None, "comparison": "", "descriptions": (), "text_label": None, "answer": None, "predictions": {}},
    **{"drawn": {}, "boxes": (), "about": "", "at_random": False},
}
"""What an example may leave out, besides key, split and picture: predictions are guesses, of a class and a probability,
and so is the answer of a describer. Those at random are a simple random sample of the held-out ones."""
SUSPECTED: Mapping[str, Any] = {"comparison": "", "description": "", "truth": None}
"""The same of a suspected error; the truth is known where a comparison flipped labels."""


def read_items(path: Path, usual: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the items of a file, whole; none where there is no file. Raises DamagedError."""
    return [{**usual, **one} for one in read_json(path)] if path.is_file() else []
