"""The Python interface: commands as functions with types, and objects of Python in place of files and names."""

import json
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from torch import Tensor, nn

import gpt4image
from gpt4image.base.errors import ConfigError, DataError, ModelError, RunError
from gpt4image.commands import COMMANDS
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
    record = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert record["data"].startswith("python:") and record["model"] == f"python:{__name__}:Features"
    measured = gpt4image.evaluate(run_dir=tmp_path / "run")
    assert measured.score == measured.scores["top1"] and len(measured.rows) == measured.images
    assert list(measured.rows[0])[:2] == ["key", "digest"] and run.plot() is not None

    capfd.readouterr()
    three = [images[0], tmp_path / "absent.png", images[1]]
    found = gpt4image.predict(model=tmp_path / "run", images=three, top=2)
    assert [row["image"] for row in found.rows] == ["0", "2"] and found.predicted == 2
    assert [item.name for item in found.skipped] == [str(tmp_path / "absent.png")]
    assert capfd.readouterr().out == ""
    with pytest.raises(ConfigError, match="these have none"):
        gpt4image.predict(model=tmp_path / "run", images=images[0], out=tmp_path / "rows.csv")

    monkeypatch.setattr(backbones, "GIVEN", {})  # as in another process
    with pytest.raises(ModelError, match="it is not in this process"):
        gpt4image.evaluate(run_dir=tmp_path / "run", data=data)
    gpt4image.given_model(Features())
    assert gpt4image.evaluate(run_dir=tmp_path / "run", data=data).score == measured.score
    with pytest.raises(ConfigError) as caught:
        gpt4image.compare(data=data, out=tmp_path / "cmp", model=Features())
    assert caught.value.field == "model"
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


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gpt4image.train(data=pictures(), out="run", epcohs=1), ConfigError, "Did you mean 'epochs'"),
        (lambda: gpt4image.train(data="folder:/absent", out="run"), DataError, "there is no such"),
        (lambda: gpt4image.train(data="x", out="run", epochs="3.5"), ConfigError, "^epochs = 3.5: must be"),
        (lambda: gpt4image.evaluate(run_dir="absent"), RunError, "absent does not exist"),
        (lambda: gpt4image.evaluate(), ConfigError, "^run_dir is required"),
        (lambda: gpt4image.Alinger, AttributeError, "no attribute 'Alinger'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_in_a_call_names_the_keyword_before_pictures_in_memory_become_files(
    call: Any, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(error, match=message):
        call()
    assert not any(tmp_path.iterdir())


def test_help_has_every_option_with_type_default_and_what_it_does() -> None:
    told = pydoc.plain(pydoc.render_doc(gpt4image.train))
    assert "epochs: int | None = None" in told and "Example: gpt4image train --data folder:photos" in told
    assert "    val_fraction: Fraction of the training images held out for validation" in told
    for name in gpt4image.__all__:
        assert getattr(getattr(gpt4image, name), "__name__", name) == name and name in dir(gpt4image)
    for name, command in COMMANDS.items():
        function = getattr(gpt4image, name.replace("-", "_"), None)
        assert (function is None) == (" " in name)
        assert function is None or all(f"    {option}: " in function.__doc__ for option in command.options.model_fields)


SCRIPT = """\
from pathlib import Path
import numpy as np
import gpt4image

def say(image: object, question: str) -> str:
    return "A cat."

made = gpt4image.distill(data="photos", describer=say, classes=["cat", "dog"], max_cost=5, out=Path("made"))
accuracy: float | None = made.accuracy
run = gpt4image.train(data=([np.zeros((8, 8, 3), np.uint8)], ["cat"]), out="run", on_epoch=lambda epoch: epoch.loss > 1)
loss: float = gpt4image.evaluate(run_dir="run", split="val").score
rows: list[dict[str, object]] = gpt4image.predict(model="run", images=["a.png", "b.png"]).rows
store: gpt4image.DescriptionStore
gpt4image.train(data="photos", out="run", epcohs=3)  # 1: no such option
gpt4image.train(data="photos", out="run", lr="fast")  # 2: another type
gpt4image.train(out="run")  # 3: data lacks
gpt4image.export(run_dir="run", format="onx", out="m")  # 4: none of the choices
gpt4image.distill(data="photos", describer="openai:m", optimiser="sgd")  # 5
run.accuracy  # 6: no fact of training
"""


@pytest.mark.slow
def test_a_type_checker_knows_every_option_and_fact_of_a_users_script(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pip install 'gpt4image[check]'")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    places = {
        "extraPaths": [str(ROOT / "src")],
        "venvPath": str(Path(sys.prefix).parent),
        "venv": Path(sys.prefix).name,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**places, "typeCheckingMode": "standard"}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "script.py"]
    found = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout)
    lines = [each["range"]["start"]["line"] + 1 for each in found["generalDiagnostics"] if each["severity"] == "error"]
    wrong = [number for number, line in enumerate(SCRIPT.splitlines(), 1) if "  # " in line]
    assert sorted(set(lines)) == wrong, found["generalDiagnostics"]
