from pathlib import Path

import numpy as np
import pytest

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.labelling.audited import matches, promised
from gpt4image.selecting.order import at_random
from tables import made_of
from worlds import in_memory

CAT, DOG, SMALL = ["cat", 0.0, 0.0, 0.5, 0.5], ["dog", 0.0, 0.0, 0.5, 0.5], ["cat", 0.0, 0.0, 0.1, 0.1]


@pytest.mark.parametrize(
    ("said", "true", "count"),
    [(["a", "b"], ["b", "c"], 1), ([], [], 0), ([CAT], [], 0), ([CAT, SMALL], [SMALL, CAT], 2), ([CAT], [DOG], 0),
     ([CAT, CAT], [CAT], 1), ([SMALL], [CAT], 0), ([["cat", 0.0, 0.0, 0.5, 0.4, 0.3]], [CAT], 1)],
)  # fmt: skip
def test_what_is_said_matches_what_is_true_once(said: list[object], true: list[object], count: int) -> None:
    assert matches(said, true) == count


def test_targets_that_are_promised_stay_and_the_others_go(tmp_path: Path) -> None:
    pictures = [f"picture {number}".encode() for number in range(300)]
    images = in_memory(pictures, [-1] * 300, classes=("cat", "dog"))
    sure = np.linspace(1, 0.55, 300, dtype=np.float32)
    targets = made_of(images, images.classes, np.stack([sure, 1 - sure], 1))
    looks, order = tmp_path / "audit.csv", at_random(images.digests).tolist()
    lines = ["path,key,label,split,review,digest"]
    for row in order[:200]:  # the unsure ones are wrong, or not known
        said = "cat,train,checked" if row < 250 else "dog,train,checked" if row % 2 else ",train,unsure"
        lines.append(f"{row}.png,k{row},{said},{images.digests[row]}")
    with pytest.raises(ConfigError, match=r"needs \d+ audited images or more, and .*audit.csv has 0\..*--looks \d+"):
        promised(targets, looks, 0.05)
    looks.write_text("\n".join(lines[:20]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has 19\."):
        promised(targets, looks, 0.05)
    looks.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept, said = promised(targets, looks, 0.05)
    assert 200 < len(kept.keys) < 264 and kept.keys == images.keys[: len(kept.keys)]
    assert said.startswith(f"At most 5.0% of the {len(kept.keys)} targets are wrong, with 95 % confidence")
    with pytest.raises(ConfigError, match=r"cannot be promised: of the \d+ .* [1-9]"):
        promised(made_of(images, images.classes, np.stack([1 - sure, sure], 1)), looks, 0.05)
    for word in ("checked", "cat"):
        odd = "\n".join(lines).replace(word, f"{word.title()} ", 1) + "\n"
        looks.write_text(odd, encoding="utf-8")
        with pytest.raises(DataError, match=f"audit.csv: .*'{word.title()} ?'"):
            promised(targets, looks, 0.05)
    looks.write_text("path,label\na,cat\n", encoding="utf-8")
    with pytest.raises(DataError, match="was not written by `gpt4image audit`"):
        promised(targets, looks, 0.05)
