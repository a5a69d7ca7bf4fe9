"""What more labels would add, by looks, labels or the answers alone; and how many images to review."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.distilling.worth import USUAL, worth_of_labels

N, REVIEW = 400, "gpt4image review"


def some_targets(labelled: int, *, right: float = 0.9, several: bool = False) -> Targets:
    """Most images are surely of the first class, a tenth is doubtful; of the labels a share says the same."""
    sure = np.where(np.arange(N) % 10 == 0, 0.6, 0.95).astype(np.float32)
    labels = np.where(np.arange(N) < labelled, np.arange(N) >= right * labelled, -1)
    return Targets(
        keys=tuple(map(str, range(N))),
        digests=tuple(f"{row:064x}" for row in range(N)),
        splits=np.full(N, "train"),
        labels=np.stack([labels] * 2, axis=1) if several else labels,
        probabilities=np.stack([sure, 1 - sure], axis=1),
        out_of_fold=np.zeros((N, 2), bool) if several else labels >= 0,
        facts=Facts(classes=("a", "b"), noise=0.0, agreement=None, c=None, folds=0, seed=0, encoders=()),
    )


@pytest.mark.parametrize(
    ("labelled", "accuracy", "said"),
    [
        (0, None, "right for about 91.5%, if they are as good as the answers state"),
        (20, None, "right for about 91.5%, if they are as good as the answers state"),
        (100, None, "right for about 90.0%, by 100 labels (82.6% to 94.5%)"),
        (0, None, f"add about {8.5 * USUAL:.1f} points of accuracy (0 to 8.5)"),
        (0, 0.99, "add about 1.0 points of accuracy (0 to 1.0)"),
        (0, None, "Review the first 61 images, which hold about half of the wrong targets:\n  gpt4image review"),
    ],
)
def test_what_labels_would_add(labelled: int, accuracy: float | None, said: str, tmp_path: Path) -> None:
    assert said in worth_of_labels(some_targets(labelled), tmp_path / "audit.csv", accuracy, REVIEW)


def test_looks_count_before_labels(tmp_path: Path) -> None:
    rows = [f"{row},{row:064x},{'a' if row % 5 else 'b'},checked" for row in range(N)]
    (tmp_path / "audit.csv").write_text("\n".join(["key,digest,label,review", *rows]), encoding="utf-8")
    said = worth_of_labels(some_targets(100), tmp_path / "audit.csv", None, REVIEW)
    assert "right for about 80.0%, by 400 looks (80.0% to 80.0%)" in said
    assert f"add about {20 * USUAL * 0.75:.1f} points" in said, "of a quarter there are labels"


def test_nothing_is_said_where_all_have_a_label_or_images_have_several_classes(tmp_path: Path) -> None:
    for targets in (some_targets(N), some_targets(10, several=True)):
        assert not worth_of_labels(targets, tmp_path / "audit.csv", None, REVIEW)
