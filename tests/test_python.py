"""The Python interface: types for editors, help, and objects of Python in place of files and names."""

from __future__ import annotations

import json
import pydoc
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from torch import Tensor, nn

import gpt4image
from gpt4image import verbs
from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.config.results import Epoch
from gpt4image.models import backbones
from worlds import COLOURS

ROOT = Path(__file__).parents[1]
SHORT: dict[str, Any] = {"image_size": 16, "batch_size": 8, "epochs": 3, "threads": 1, "device": "cpu", "lr": 1e-2}


def pictures() -> tuple[list[Any], list[str]]:
    """Return 16 noisy pictures of each of three colours, half of them arrays, and their labels."""
    rng = np.random.default_rng(0)
    names = [name for name in COLOURS for _ in range(16)]
    arrays = [np.clip(COLOURS[name] + rng.normal(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8) for name in names]
    return [Image.fromarray(each) if row % 2 else each for row, each in enumerate(arrays)], names


class Features(nn.Module):
    """A network of one's own without a classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images).mean((2, 3))


def say(image: Image.Image, question: str) -> dict[str, Any]:
    red, green, blue = image.convert("RGB").resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    return {"class": max(zip((red, green, blue), ("red", "green", "blue"), strict=True))[1], "confidence": 0.9}


def test_objects_of_python_go_through_all_stages_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images, names = pictures()
    data = (images, [name if row % 4 == 0 else None for row, name in enumerate(names)])
    asked = gpt4image.describe(data=data, store=tmp_path / "a.db", describer=say, ask="class")
    assert 20 < asked.described <= 48 and asked.failed == 0
    targets = gpt4image.label(data=data, answers=tmp_path / "a.db", out=tmp_path / "t.parquet")
    assert {row["text_label"] for row in targets.rows} == set(COLOURS)
    assert len(targets.rows) == asked.described < targets.images

    seen: list[Epoch] = []
    run = gpt4image.train(
        data=data, targets=targets.path, out=tmp_path / "run", model=Features(), on_epoch=seen.append, **SHORT
    )
    assert [(each.epoch, each.epochs) for each in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[-1].val is not None and run.val["top1"] == round(seen[-1].val["top1"], 4)
    record = json.loads((run.path / "config.json").read_text("utf-8"))
    assert record["data"].startswith("python:") and record["model"] == f"python:{__name__}:Features"
    measured = gpt4image.evaluate(run.path)
    assert measured.score == measured.top1 and len(measured.rows) == measured.images
    assert list(measured.rows[0])[:2] == ["key", "digest"]

    capfd.readouterr()
    found = gpt4image.predict(run.path, [images[0], Path(tmp_path / "absent.png"), images[1]], top=2)
    assert [row["image"] for row in found.rows] == ["0", "2"] and found.predicted == 2
    assert [item.name for item in found.skipped] == [str(tmp_path / "absent.png")]
    assert capfd.readouterr().out == ""
    with pytest.raises(ConfigError, match=r"^out= names images by their files, and these have none"):
        gpt4image.predict(run.path, images[0], out=tmp_path / "rows.csv")

    monkeypatch.setattr(backbones, "GIVEN", {})  # as in another process
    with pytest.raises(ModelError, match=r"it is not in this process\. Build it again and pass it as model="):
        gpt4image.evaluate(run.path, data=data)
    assert gpt4image.evaluate(run.path, data=data, model=Features()).score == measured.score
    with pytest.raises(ConfigError, match=r"^model= of a comparison is a name"):
        gpt4image.compare(data=data, out=tmp_path / "cmp", model=Features())
    with pytest.raises(ModelError, match=r"gives a tensor \(1, 8, 14, 14\) for one image; needed are pooled features"):
        gpt4image.train(data=data, out=tmp_path / "other", model=nn.Conv2d(3, 8, 3), **SHORT)


def test_training_ends_where_the_callback_says_so_and_that_epoch_is_validated(
    colour_folder: Path, tmp_path: Path
) -> None:
    frame = pandas.DataFrame({"path": [str(path) for path in sorted(colour_folder.rglob("*.png"))]})
    frame["label"] = [Path(path).parent.name for path in frame["path"]]
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    options = {**SHORT, "epochs": 30, "val_fraction": 0.2}
    run = gpt4image.train(
        data=frame, out=tmp_path / "run", model=network, on_epoch=lambda epoch: epoch.epoch < 2, **options
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and rows[0]["val"] is None
    assert run.val["top1"] == round(rows[1]["val"]["top1"], 4)
    assert gpt4image.train(data=frame, out=tmp_path / "run", model=network, resume=True, **options).val == run.val


def test_a_misspelt_option_is_refused_before_pictures_in_memory_become_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"'epcohs' is not known\. Did you mean 'epochs'"):
        gpt4image.train(data=pictures(), out=tmp_path / "run", epcohs=1)  # type: ignore[call-arg]
    given = gpt4image.TrainConfig(data="x", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="'epcohs' is not known"):
        gpt4image.train(given, epcohs=1)  # type: ignore[call-arg]
    assert not any(tmp_path.iterdir())


def test_help_has_each_parameter_with_type_default_and_what_it_does() -> None:
    told = pydoc.plain(pydoc.render_doc(gpt4image.train))
    assert "data: str | Path | (images, labels) | DataFrame" in told and "epochs: int | None = None" in told
    assert "on_epoch: Callable[[Epoch], bool | None] | None = None) -> TrainResult" in told
    assert "val_fraction (float, optional): Fraction of the training images held out for validation" in told
    assert "Example: gpt4image.train(data='folder:photos', embeddings='photos.emb'" in told
    for name in verbs.VERBS:
        text = pydoc.plain(pydoc.render_doc(getattr(gpt4image, name)))
        assert " --" not in re.sub("`[^`]*`", "", text), name
