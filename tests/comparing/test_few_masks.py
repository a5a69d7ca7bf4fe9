"""Few masks: which are kept, and what each arm is told of the images that lost theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worlds
from gpt4image.artifacts.answers import Answer, Prompt
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.comparing.arms import training_data
from gpt4image.comparing.compare import arm_inputs
from gpt4image.comparing.planning import Regime, make_plan
from gpt4image.config import CompareConfig
from gpt4image.config.arms import ARMS
from gpt4image.data import load_dataset
from gpt4image.training.prepare import prepare
from tables import write_store

Once = Callable[[str, Callable[[Path], Any]], Path]
NAMES = ("baseline", "asked", "oracle")


def write(root: Path) -> None:
    images = load_dataset(worlds.write_shapes(root / "set", train=36, tagged=6))
    prompt = Prompt(name="tags", version=1, text="Which?", class_conditioned=False, ask=("tags",))
    tags = [tuple(name for name in images.label_names(i) if name != "background") for i in range(len(images))]
    rows = [{"digest": images.digests[i], "answer": Answer(tags=names)} for i, names in enumerate(tags)]
    write_store(root / "tags.db", (rows[i] for i, key in enumerate(images.keys) if "tagged" not in key), prompt=prompt)


@pytest.fixture(scope="module")
def root(once: Once) -> Path:
    """A set of drawn pictures, and answers with the tags of those that have a mask."""
    return once("few-masks", write)


def options(root: Path, out: Path, **changes: Any) -> CompareConfig:
    given = {"data": f"masks:{root / 'set'}", "answers": root / "tags.db", "out": out, "labelled_images": 5}
    return CompareConfig(**{**worlds.SMALL, "epochs": 2, "seeds": 1, "jobs": 1, **given, **changes})


def test_masks_that_are_kept_are_drawn_per_seed_and_are_part_of_more(root: Path, tmp_path: Path) -> None:
    data = prepare(options(root, tmp_path)).data
    train = data.indices("train")
    few, more, other = (
        Regime(labelled_images=count).apply(data, seed).labels.known for count, seed in ((5, 0), (9, 0), (5, 1))
    )
    assert few[train].sum() == other[train].sum() == 5 and more[train].sum() == 9
    assert (more | ~few).all() and (few != other).any()
    assert np.array_equal(np.delete(few, train), np.delete(data.labels.known, train))
    assert Regime(labelled_images=5).name == "5-images" and Regime(labelled_images=5).is_label_scarce
    with pytest.raises(DataError, match="36 annotated images are asked for, but train has 3"):
        Regime(labelled_images=36).apply(data, 0)
    with pytest.raises(ConfigError, match="labelled_images and --labels-per-class"):
        options(root, tmp_path, labels_per_class=2)


def test_every_arm_is_told_what_its_name_says(root: Path, tmp_path: Path) -> None:
    plan = make_plan(options(root, tmp_path, arms=",".join(NAMES)))
    assert tuple(plan.members) == NAMES
    made = [training_data(ARMS[job.arm], arm_inputs(job, plan.prepared.data)) for job in plan.jobs]
    arms = dict(zip(NAMES, made, strict=True))
    data = arms["baseline"]
    train, true = data.indices("train"), data.all_labels.presence_of_classes
    known = data.labels.known[train]
    assert known.sum() == 5 and all(
        (arm.labels.known[train] == known).all() for name, arm in arms.items() if name != "oracle"
    )
    assert arms["oracle"].labels.known[train].sum() == data.all_labels.known[train].sum()
    pools = {name: [len(part) for part in arm.pools()] for name, arm in arms.items()}
    weak = {name: int(arm.weak(arm.pools()[1]).sum()) for name, arm in arms.items()}
    asked = int((data.all_labels.known[train] & ~known).sum())
    assert weak == {"baseline": 0, "asked": asked, "oracle": 0}, "tags of images without a mask are told to no arm"
    assert pools["asked"] == [5, len(train) - 5]
    rows = train[data.all_labels.known[train] & ~known]
    told = arms["asked"].soft
    assert told is not None and ((told[rows, 1:] >= 0.5) == (true[rows, 1:] == 1)).all()
