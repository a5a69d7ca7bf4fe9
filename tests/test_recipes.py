"""Recipes are true: the commands of recipes/README.md run, in two steps, on small data. checks/ parses the others."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder

from gpt4image import cli
from gpt4image.data import load_dataset
from gpt4image.data.known_sets import load_openmoji
from repository import RECIPES, ROOT, command_of, commands_of
from worlds import COLOURS, SHAPES, write_colours, write_dots, write_shapes

SMALL = (
    '--model resnet10t --model-args \'{"channels": [8, 8, 8, 8], "stem_width": 8}\' --init scratch --image-size 32 '
    "--epochs 1 --batch-size {batch} --precision fp32 --memory-format contiguous --threads 1"
)
MORE = {"train": SMALL, "compare": f"{SMALL} --no-compile --seeds 1 --jobs 1", "encode": "--encoder bag-of-words:64"}
"""What the test adds to the commands."""
SECTIONS = {
    "cifar10": ("Photographs",), "openmoji": ("Pictograms",), "groceries": ("Shelf photographs",),
    "clothing": ("Street photographs",), "clips": ("Clips",), "paper": ("The paper",),
}  # fmt: skip
"""Folders of recipes, and what in the README makes their stores and tables."""


def rows_about(keys: list[str], **more: Any) -> str:
    said = ({"key": key, "description": f"A {key.split('/')[-2]} one, {key}.", **more} for key in keys)
    return "\n".join(json.dumps(row) for row in said)


def write_photographs(data: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="pip install 'gpt4image[hf]'")
    colours = ImageFolder(write_colours(data.parent / "colours", each=36))
    (data / "images").mkdir(parents=True)
    rows = [(f"{Path(path).parent.name}/00{Path(path).stem}", Path(path).read_bytes(), label)
            for path, label in colours.samples]  # fmt: skip
    kinds = {"key": datasets.Value("string"), "image": datasets.Image(),
             "label": datasets.ClassLabel(names=colours.classes)}  # fmt: skip
    for split, of_test in (("train", False), ("test", True)):
        kept = [row for row in rows if (int(row[0][-2:]) >= 28) is of_test]
        columns = {"key": [row[0] for row in kept], "image": [{"bytes": row[1], "path": None} for row in kept],
                   "label": [row[2] for row in kept]}  # fmt: skip
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
        table.to_parquet(str(data / "images" / f"{split}.parquet"))
    keys = [key for key, *_ in rows if int(key[-2:]) < 28]
    for name in ("plain", "class-conditioned"):
        (data / f"descriptions-{name}.jsonl").write_text(rows_about(keys))
    answers = ({"key": key, "class": key.split("/")[0], "second": None, "confidence": 0.9} for key in keys)
    (data / "answers-class.jsonl").write_text("\n".join(map(json.dumps, answers)))


def write_shelves(data: Path) -> None:
    kinds = [{"id": number, "name": name} for number, name in enumerate(COLOURS)]
    said = []
    for split, each in (("train", 14), ("test", 2)):
        write_colours(data / split, each)
        names = [f"{split}/{kind['name']}/{number:02}.png" for kind in kinds for number in range(each)]
        images = [{"id": row, "file_name": name, "width": 16, "height": 16} for row, name in enumerate(names)]
        box = {"bbox": [2, 2, 12, 12], "area": 144, "iscrowd": 0}
        boxes = [{"id": row, "image_id": row, "category_id": row // each, **box} for row in range(len(names))]
        table = {"images": images, "annotations": boxes, "categories": kinds}
        (data / f"{split}.json").write_text(json.dumps(table))
        said += names if split == "train" else []
    answered = {kind: [{"label": kind, "box_2d": [100, 100, 900, 900], "truncated": False}] for kind in COLOURS}
    rows = (json.loads(row) for row in rows_about(said).splitlines())
    lines = [json.dumps(row | {"boxes": answered[row["key"].split("/")[1]]}) for row in rows]
    (data / "answers-boxes.jsonl").write_text("\n".join(lines))


def write_streets(data: Path) -> None:
    write_shapes(data, train=60, test=8, tagged=4)
    keys = [path.relative_to(data).as_posix() for path in sorted((data / "images/train").iterdir())]
    said = {"description": "A shape on grey.", "tags": [next(iter(SHAPES))]}  # some pictures are the same
    (data / "answers-tags.jsonl").write_text(rows_about(keys, **said))


def write_clips(data: Path) -> None:
    pytest.importorskip("av", reason="videos: pip install 'gpt4image[video]'")
    write_dots(data.parent / "CLIPS", train=14, test=4)
    keys = [path.relative_to(data.parent / "CLIPS").as_posix() for path in (data.parent / "CLIPS/train").rglob("*.mp4")]
    rows = ({**json.loads(row), "class": json.loads(row)["key"].split("/")[1], "confidence": 0.9}
            for row in rows_about(keys).splitlines())  # fmt: skip
    (data.parent / "CLIPS/answers-clips.jsonl").write_text("\n".join(map(json.dumps, rows)))


def texts_of(folder: Path) -> list[str]:
    """As the release has them: a text per image, in the order of ImageFolder."""
    return [f"It shows {Path(path).parent.name}, {Path(path).name}." for path, _ in ImageFolder(folder).samples]


def test_the_release_of_the_authors_becomes_rows_by_key_and_never_shifts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, folder = RECIPES / "paper" / "released_descriptions.py", write_colours(tmp_path / "train", each=12)
    texts = texts_of(folder)

    def converted(released: Any) -> str:
        torch.save(released, tmp_path / "release.pth")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(program), "release.pth", "train", "rows.jsonl"])
        try:
            runpy.run_path(str(program), run_name="__main__")
        except SystemExit as end:
            return str(end.code or "")
        return ""

    assert converted(texts) == ""
    rows = [json.loads(row) for row in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 36 and all(row["key"] in load_dataset(f"folder:{folder}").keys for row in rows)
    assert all(row["description"] == "It shows {}, {}.".format(*row["key"].split("/")) for row in rows)
    (folder / "blue" / "new.png").write_bytes((folder / "red" / "00.png").read_bytes())
    assert "36 texts" in converted(texts) and "37 images" in converted(texts)
    assert "no list of texts" in converted(torch.zeros(37, 4))
    assert "cannot be read" in converted([Path("code that pickle would run")])


def write_imagenet(data: Path) -> None:
    imagenet = data.parent / "imagenet"
    write_colours(imagenet / "train", each=20)
    write_colours(imagenet / "test", each=4, side=17)
    torch.save(texts_of(imagenet / "train"), data.parent / "minigpt4_caption_imagenet_train_0_1281166.pth")
    for name in ("cifar10", "flowers"):
        (data.parent / f"{name}.emb").symlink_to("imagenet.emb")


WRITE = {
    "cifar10": write_photographs, "groceries": write_shelves,
    "clothing": write_streets, "clips": write_clips, "paper": write_imagenet,
}  # fmt: skip


def run(line: str) -> None:
    line = line.replace("--data cifar10", "--data folder:imagenet").replace(
        "--data folder:flowers", "--data folder:imagenet"
    )
    words = shlex.split(re.sub(r"^torchrun .* -m gpt4image", "gpt4image", line))
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True)
        return
    more = MORE.get(words[1], "").replace("{batch}", "120" if "openmoji" in line else "24")
    assert cli.main([*words[1:], *shlex.split(more)]) == 0, line


@pytest.mark.slow
@pytest.mark.parametrize("folder", SECTIONS)
def test_the_commands_of_the_readme_run(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_here: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    if folder in WRITE:
        WRITE[folder](tmp_path / "DATA")
    few = load_openmoji().select(np.arange(0, 1537, 8)) if folder == "openmoji" else None
    monkeypatch.setattr("gpt4image.data.known_sets.load_openmoji", lambda *_: few)
    lines = [line for section in SECTIONS[folder] for line in commands_of(section)]
    for line in sorted(lines, key=lambda line: bool(re.search("gpt4image (compare|train) ", line))):
        run(line)
    if folder == "cifar10":
        for name in ("simclr", "captions", "fine-tuned"):  # on the same photographs
            run(command_of(RECIPES / "pretrain" / f"{name}.toml"))
