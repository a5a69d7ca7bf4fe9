"""Mistakes of a newcomer, one a row: the command, what the answer must say; exit code 2, no traceback, nothing left.

A row is a command and texts that standard error must hold: the problem and its way out.
"""

from __future__ import annotations

import json
import re
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

TINY = "--model resnet10t --epochs 1 --batch-size 4 --image-size 16"
MISTAKES = """\
trian --data photos -> Unknown command 'trian'. Did you mean 'train'? `gpt4image --help`
descriptions imprt -> Did you mean 'descriptions import'?
train --dta photos --out new -> Unknown option --dta | Did you mean --data?
train --data photos --out new --colour-blind -> Unknown option --colour-blind | --help-all
train --data photos --out -> --out: give a value after it | --help
train -> --data is required | --out is required
train --data photos --out new photos2 -> 'photos2' belongs to no option | recipe
train --data photos --out new --epochs three -> --epochs = 'three' | give a whole number
train --data photos --out new --epochs 1.5 -> --epochs = 1.5 | give a whole number
train --data photos --out new --epochs 0 -> --epochs = 0 | give 1 or more
train --data photos --out new --lr -0.1 -> --lr = -0.1 | give more than 0
train --data photos --out new --val-fraction 20 -> --val-fraction = 20 | give less than 1
train --data photos --out new --align-loss info-nce -> --align-loss | Did you mean 'infonce'?
train --data photos --out new --model-args {a:1} -> --model-args | is no JSON
train mine.toml --data photos --out new -> Recipe mine.toml does not exist
train typo.toml --data photos --out new -> 'epohcs' | Did you mean 'epochs'?
train --data phtos --out new -> there is no such file or folder | --data
train --data folder:phtos --out new -> folder:phtos: there is no such file or folder
train --data foldr:photos --out new -> Did you mean 'folder'?
train --data empty --out new -> there are no class folders | unlabelled
train --data loose --out new -> No training image has a label | distill
train --data single --out new -> single has one class, 'cat' | a folder above those of the classes?
train --data unnamed --out new -> No training image has a label | label some
train --data broken --out new TINY -> broken
train --data gone.csv --out new -> none of its 1 rows | 'gone.jpg'
train --data column.csv --out new -> 'lable' | Did you mean 'label'?
train --data semicolon.csv --out new -> names the columns 'path;label', separated by commas
train --data notes.txt --out new -> a table ends with .csv
train --data leaky --out new --batch-size 500
    -> leaky: 2 of 4 test images are byte for byte in train or val too, such as 'test/cat/0.png'
    | remove one of each
describe --data leaky --store s.db --describer openai:m --base-url http://127.0.0.1:9/v1
    -> 2 of 4 test images are byte for byte in train or val too
train --data double --out new --batch-size 500
    -> In train are pictures twice with different labels: 1, such as 'cat/0.png' (cat) and 'dog/0.png' (dog)
label --data photos --embeddings other.emb --classes cat,dgo --out t.parquet
    -> images of 'dog', which the list of classes lacks | Is 'dgo' meant to be 'dog'?
label --data photos --embeddings other.emb --classes cat,dog,dogs --out t.parquet
    -> --classes has the classes 'dogs', and no image of photos has such a label. Is 'dogs' meant to be 'dog'?
train --data photos --out new --targets more.parquet --batch-size 500
    -> --targets more.parquet has the classes 'dgo', and no image of photos has such a label.
train --data coco:corners/train.json --out new -> 4 of 4 boxes reach beyond their picture
    | 10, 10, 15, 15 of 'a.png, annotation 0' | subtract left from the third number and top from the fourth
train --data yolo:from-one --out new -> no box has the class 0, 'cat' | subtract 1 from the first number of each line
train --data photos --out photos/run TINY -> --out photos/run lies inside of photos | give a place outside
distill photos --describer replay:other.jsonl --out photos -> --out photos lies inside of photos
train --data photos --out new --model resnet19 -> resnet19 | resnet18
train --data photos --out new --init weights.pth -> --init = 'weights.pth' | safetensors
train --data photos --out new --device gpu -> --device gpu is not available here | available: auto
train --data photos --out new --batch-size 500 -> --batch-size 500 | give at most
train --data photos --out run -> run already holds a run | --resume
evaluate rnu -> rnu does not exist
evaluate photos -> photos holds no finished run
report photos -> photos holds neither comparison.json nor run.json
describe --data photos --store s.db --describer opnai:x -> Did you mean 'openai'?
describe --data photos --store s.db --describer openai:gpt-4.1-mini -> OPENAI_API_KEY
describe --data photos --store s.db --describer openai:m --base-url http://127.0.0.1:9/v1
    -> there is no server to be reached | is --base-url right?
describe --data photos --store s.db --describer replay:other.jsonl -> none of its 1 rows belongs | 'other/1.jpg'
describe --data photos --store s.db --describer replay:gone.jsonl -> there is no such file
encode --store gone.db --out new.emb -> there is no description store | gpt4image describe
descriptions check --store other.db --data photos -> belongs to other images
encode --store other.db --encoder minillm --out new.emb -> Did you mean 'minilm'?
train --data photos --out new --embeddings gone.emb -> gone.emb | gpt4image encode
train --data photos --out new --embeddings other.emb -> was made from descriptions of other images
train --data photos --out new --embeddings other.db -> other.db | gpt4image encode
train --data photos --out new --targets gone.parquet -> gone.parquet | gpt4image label
label --data unnamed --embeddings other.emb --out t.parquet -> No image of unnamed has a label | --classes
export run --format onx --out model.onnx -> --format | Did you mean 'onnx'?
predict model.onnx photos -> model.onnx does not exist | gpt4image export
predict run empty -> No image is found: 'empty': holds no image
descriptions stats --store gone.db -> gone.db
compare --data photos --out new --targets other.parquet -> labels that an arm must not see
compare --data photos --out new --arms alinged -> Did you mean 'aligned'?
compare --data photos --out new --arms aligned -> --embeddings
"""
ROWS = [" ".join(row.split()) for row in re.split(r"\n(?! )", MISTAKES.strip())]


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
    pictures(*(f"loose/{n}.png" for n in range(8)), "other/cat/1.png", "other/dog/2.png")
    pictures(*(f"single/cat/{n}.png" for n in range(8)), *(f"unnamed/unlabelled/{n}.png" for n in range(8)))
    pictures(
        *(f"leaky/{split}/{kind}/{n}.png" for split in ("train", "test") for kind in ("cat", "dog") for n in (0, 1))
    )
    pictures("double/cat/0.png", "double/cat/1.png", "double/dog/1.png", "corners/a.png", "from-one/images/a.png")
    for copy, of in (("test/cat/0", "train/cat/0"), ("test/dog/1", "train/dog/0")):
        shutil.copy(root / f"leaky/{of}.png", root / f"leaky/{copy}.png")
    shutil.copy(root / "double/cat/0.png", root / "double/dog/0.png")
    for folder in ("empty", "from-one/labels", "broken/cat", "broken/dog"):
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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:50])
def test_a_mistake_is_answered(
    row: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(limiter, "UNREACHABLE_S", 0.0)
    note_once.cache_clear()
    command, _, answers = row.partition(" -> ")
    before = left_in(desk)
    code = main(command.replace("TINY", TINY).split())
    told = " ".join(capsys.readouterr().err.split())
    shutil.rmtree(desk / "new", ignore_errors=True)
    assert left_in(desk) == before, "nothing else is left behind by a mistake"
    assert code == 2, told
    assert [answer for answer in answers.split(" | ") if answer not in told] == [], told
    assert "Traceback" not in told
