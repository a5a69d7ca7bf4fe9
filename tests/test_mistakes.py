"""Mistakes of a newcomer, one a row: the command, what the answer must say, and the exit code; no traceback.

A row is a command and texts that standard error must hold: the problem and its way out. The exit code is 2 and nothing
is left behind, except where a row names another code: then the command goes on, and says what looks wrong.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.artifacts.targets import Facts, Targets
from gpt4image.cli import main
from gpt4image.config import EncodeConfig
from gpt4image.data import load_dataset
from gpt4image.data.labels import note_once
from gpt4image.describing.describers.openai import limiter
from gpt4image.encoding.encode import encode

TRAIN = "train --data photos --out new"
TINY = "--model resnet10t --epochs 1 --batch-size 4 --image-size 16"
MISTAKES: dict[str, tuple[str | int, ...]] = {
    # a word of the command line
    "no such command": ("trian --data photos", "Unknown command 'trian'. Did you mean 'train'? `gpt4image --help`"),
    "no such second word": ("descriptions imprt", "Did you mean 'descriptions import'?"),
    "no such option": ("train --dta photos --out new", "Unknown option --dta", "Did you mean --data?"),
    "an option of nothing": (f"{TRAIN} --colour-blind", "Unknown option --colour-blind", "--help-all"),
    "no value": ("train --data photos --out", "--out: give a value after it", "--help"),
    "nothing is given": ("train", "--data is required", "--out is required"),
    "a word too many": (f"{TRAIN} photos2", "'photos2' belongs to no option", "recipe"),
    "text for a number": (f"{TRAIN} --epochs three", "--epochs = 'three'", "give a whole number"),
    "a part of an epoch": (f"{TRAIN} --epochs 1.5", "--epochs = 1.5", "give a whole number"),
    "zero epochs": (f"{TRAIN} --epochs 0", "--epochs = 0", "give 1 or more"),
    "a rate below zero": (f"{TRAIN} --lr -0.1", "--lr = -0.1", "give more than 0"),
    "a share above one": (f"{TRAIN} --val-fraction 20", "--val-fraction = 20", "give less than 1"),
    "a choice that is none": (f"{TRAIN} --align-loss info-nce", "--align-loss", "Did you mean 'infonce'?"),
    "JSON without quotes": (f"{TRAIN} --model-args {{a:1}}", "--model-args", "is no JSON"),
    "a recipe that is not there": ("train mine.toml --data photos --out new", "Recipe mine.toml does not exist"),
    "a recipe with a typo": ("train typo.toml --data photos --out new", "'epohcs'", "Did you mean 'epochs'?"),
    # data
    "no such folder": ("train --data phtos --out new", "there is no such file or folder", "--data"),
    "no such folder in a SPEC": (
        "train --data folder:phtos --out new",
        "folder:phtos: there is no such file or folder",
    ),
    "a SPEC with a typo": ("train --data foldr:photos --out new", "Did you mean 'folder'?"),
    "an empty folder": ("train --data empty --out new", "there are no class folders", "unlabelled"),
    "images without class folders": ("train --data loose --out new", "No training image has a label", "distill"),
    "an empty class": (
        "train --data hollow --out new",
        "no images in class folder 'dog'",
        "Remove the folder or fill it",
    ),
    "one class": (
        "train --data single --out new",
        "single has one class, 'cat'",
        "a folder above those of the classes?",
    ),
    "no labels": ("train --data unnamed --out new", "No training image has a label", "label some"),
    "only broken images": (f"train --data broken --out new {TINY}", "broken"),
    "a table without images": ("train --data gone.csv --out new", "none of its 1 rows", "'gone.jpg'"),
    "a column with a typo": ("train --data column.csv --out new", "'lable'", "Did you mean 'label'?"),
    "a table with semicolons": ("train --data semicolon.csv --out new", "separated by commas, not by ';'"),
    "a text for a table": ("train --data notes.txt --out new", "a table ends with .csv"),
    # data that looks wrong: told before anything is trained or paid for; the batch is what ends these commands
    "pictures of train in test": (
        "train --data leaky --out new --batch-size 500",
        "leaky: 2 of 4 test images are byte for byte in train or val too, such as 'test/cat/0.png'",
        "remove one of each",
    ),
    "the same before paying": (
        "describe --data leaky --store s.db --describer openai:m --base-url http://127.0.0.1:9/v1",
        "2 of 4 test images are byte for byte in train or val too",
    ),
    "a picture with two labels": (
        "train --data double --out new --batch-size 500",
        "In train are pictures twice with different labels: 1, such as 'cat/0.png' (cat) and 'dog/0.png' (dog)",
    ),
    "a class list with a typo": (
        "label --data photos --embeddings other.emb --classes cat,dgo --out t.parquet",
        "images of 'dog', which the list of classes lacks",
        "Is 'dgo' meant to be 'dog'?",
    ),
    "a class list with a class too many": (
        "label --data photos --embeddings other.emb --classes cat,dog,dogs --out t.parquet",
        "--classes has the classes 'dogs', and no image of photos has such a label. Is 'dogs' meant to be 'dog'?",
    ),
    "targets of other classes": (
        f"{TRAIN} --targets more.parquet --batch-size 500",
        "--targets more.parquet has the classes 'dgo', and no image of photos has such a label.",
    ),
    "corners for sides": (
        "train --data coco:corners/train.json --out new",
        "4 of 4 boxes reach beyond their picture",
        "10, 10, 15, 15 of 'a.png, annotation 0'",
        "subtract left from the third number and top from the fourth",
    ),
    "class numbers from 1": (
        "train --data yolo:from-one --out new",
        "no box has the class 0, 'cat'",
        "subtract 1 from the first number of each line",
    ),
    "results among the images": (
        f"train --data photos --out photos/run {TINY}",
        "--out photos/run lies inside of photos",
        "give a place outside",
    ),
    "results of distill here": (
        "distill photos --describer replay:other.jsonl --out photos",
        "--out photos lies inside of photos",
    ),
    # model and run
    "no such model": (f"{TRAIN} --model resnet19", "resnet19", "resnet18"),
    "weights as pickle": (f"{TRAIN} --init weights.pth", "--init = 'weights.pth'", "safetensors"),
    "no such device": (f"{TRAIN} --device gpu", "--device gpu is not available here", "available: auto"),
    "a batch larger than the set": (f"{TRAIN} --batch-size 500", "--batch-size 500", "give at most"),
    "a run that is there": ("train --data photos --out run", "run already holds a run", "--resume"),
    "no such run": ("evaluate rnu", "rnu does not exist"),
    "a folder that is no run": ("evaluate photos", "photos holds no finished run"),
    "a report of nothing": ("report photos", "photos holds neither comparison.json nor run.json"),
    # descriptions
    "no such describer": ("describe --data photos --store s.db --describer opnai:x", "Did you mean 'openai'?"),
    "no key for the server": ("describe --data photos --store s.db --describer openai:gpt-4.1-mini", "OPENAI_API_KEY"),
    "a server that is down": (
        "describe --data photos --store s.db --describer openai:m --base-url http://127.0.0.1:9/v1",
        "there is no server to be reached",
        "is --base-url right?",
    ),
    "texts of other images": (
        "describe --data photos --store s.db --describer replay:other.jsonl",
        "none of its 1 rows belongs",
        "'other/1.jpg'",
    ),
    "no file to replay": ("describe --data photos --store s.db --describer replay:gone.jsonl", "there is no such file"),
    "no store": ("encode --store gone.db --out new.emb", "there is no description store", "gpt4image describe"),
    "a store of other images": ("descriptions check --store other.db --data photos", "belongs to other images"),
    "no such encoder": ("encode --store other.db --encoder minillm --out new.emb", "Did you mean 'minilm'?"),
    "no table": (f"{TRAIN} --embeddings gone.emb", "gone.emb", "gpt4image encode"),
    "a table of other images": (f"{TRAIN} --embeddings other.emb", "was made from descriptions of other images"),
    "a table that is a store": (f"{TRAIN} --embeddings other.db", "other.db", "gpt4image encode"),
    "no text labels": (f"{TRAIN} --targets gone.parquet", "gone.parquet", "gpt4image label"),
    "label without labels": (
        "label --data unnamed --embeddings other.emb --out t.parquet",
        "No image of unnamed has a label",
        "--classes",
    ),
    # to put a run to use
    "no such format": ("export run --format onx --out model.onnx", "--format", "Did you mean 'onnx'?"),
    "no such model file": ("predict model.onnx photos", "model.onnx does not exist", "gpt4image export"),
    "no images": ("predict run empty", "No image is found: 'empty': holds no image"),
    "no store to count": ("descriptions stats --store gone.db", "gone.db"),
    "labels for all arms": (
        "compare --data photos --out new --targets other.parquet",
        "labels that an arm must not see",
    ),
    "no such arm": ("compare --data photos --out new --arms alinged", "Did you mean 'aligned'?"),
    "an arm without texts": ("compare --data photos --out new --arms aligned", "--embeddings"),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as a newcomer may have it."""
    root = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)

    def pictures(*names: str) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name)

    pictures(*(f"photos/{kind}/{number}.png" for kind in ("cat", "dog") for number in range(8)))
    pictures(*(f"loose/{n}.png" for n in range(8)), "hollow/cat/1.png", "other/cat/1.png", "other/dog/2.png")
    pictures(*(f"single/cat/{n}.png" for n in range(8)), *(f"unnamed/unlabelled/{n}.png" for n in range(8)))
    pictures(
        *(f"leaky/{split}/{kind}/{n}.png" for split in ("train", "test") for kind in ("cat", "dog") for n in (0, 1))
    )
    pictures("double/cat/0.png", "double/cat/1.png", "double/dog/1.png", "corners/a.png", "from-one/images/a.png")
    for copy, of in (("test/cat/0", "train/cat/0"), ("test/dog/1", "train/dog/0")):
        shutil.copy(root / f"leaky/{of}.png", root / f"leaky/{copy}.png")
    shutil.copy(root / "double/cat/0.png", root / "double/dog/0.png")
    for folder in ("empty", "from-one/labels", "hollow/dog", "broken/cat", "broken/dog"):
        (root / folder).mkdir(parents=True)
    for number in range(8):
        (root / f"broken/{('cat', 'dog')[number % 2]}/{number}.png").write_bytes(b"no picture")
    texts = {
        "typo.toml": "epohcs = 3\n",
        "gone.csv": "path,label\ngone.jpg,cat\n",
        "column.csv": "path,lable\nphotos/cat/1.png,cat\n",
        "semicolon.csv": "path;label\nphotos/cat/1.png;cat\n",
        "notes.txt": "my photos\n",
        "other.jsonl": '{"key": "other/1.jpg", "description": "A red square."}\n',
        "run/config.json": "{}",
        "corners/train.json": json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 16}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [
                    {"id": n, "image_id": 1, "category_id": 1, "bbox": [10 - n, 10, 15, 15]} for n in range(4)
                ],
            }
        ),
        "from-one/data.yaml": "names: [cat, dog]",
        "from-one/labels/a.txt": "1 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.3 0.3\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    with DescriptionStore(root / "other.db", write=True) as store:
        store.add(
            Description(
                digest=digest, text=f"A picture, number {n}.", prompt=Prompt("paper", 1, "Describe it.", False),
                describer={"kind": "replay"}, created=0.0,
            )
            for n, digest in enumerate(load_dataset(str(root / "other")).digests)
        )  # fmt: skip
    photos = load_dataset(str(root / "photos"))
    Targets(
        keys=photos.keys, digests=photos.digests, splits=photos.splits, labels=np.full(len(photos), -1),
        probabilities=np.full((len(photos), 3), 1 / 3, np.float32), out_of_fold=np.zeros(len(photos), bool),
        facts=Facts(classes=("cat", "dgo", "dog"), noise=0.0, agreement=None, c=None, folds=0, seed=0, encoders=()),
    ).save(root / "more.parquet")  # fmt: skip
    encode(EncodeConfig(store=root / "other.db", encoder="bag-of-words:8", out=root / "other.emb"))
    return root


def left_in(desk: Path) -> set[str]:
    """Return what is in a folder, except for a store that was begun before its describer answered."""
    return {path.name for path in desk.iterdir() if not path.name.startswith("s.db")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered(
    mistake: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(limiter, "UNREACHABLE_S", 0.0)
    note_once.cache_clear()
    command, *answers = MISTAKES[mistake]
    expected = next((answer for answer in answers if isinstance(answer, int)), 2)
    before = left_in(desk)
    code = main(str(command).split())
    told = capsys.readouterr().err
    shutil.rmtree(desk / "new", ignore_errors=True)
    assert expected != 2 or left_in(desk) == before, "nothing else is left behind by a mistake"
    assert code == expected, told
    assert [answer for answer in answers if isinstance(answer, str) and answer not in told] == [], told
    assert "Traceback" not in told
