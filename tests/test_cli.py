"""The command line as a user meets it: by its output and exit code.

MISTAKES are those of a newcomer, one a row: the command, and texts that standard error must hold: the problem and its
way out; exit code 2, no traceback, nothing left.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpt4image.cli import COMMANDS, main
from gpt4image.config import EncodeConfig
from gpt4image.data import load_dataset
from gpt4image.data.labels import note_once
from gpt4image.describing.describers.openai import describer as calls
from gpt4image.encoding.encode import encode
from tables import write_store

TINY = "--model resnet10t --epochs 1 --batch-size 4 --image-size 16"
MISTAKES = """\
tarin --data photos -> Unknown command 'tarin'. Did you mean 'train'? `gpt4image --help`
descriptions imprt -> Did you mean 'descriptions import'?
train --dta photos --out new -> Unknown option --dta | Did you mean --data?
train --data photos --out new --colour-blind -> Unknown option --colour-blind | --help-all
train --data photos --out -> --out: give a value after it | --help
train -> --data is required | --out is required
train --data photos --out new --epochs three --lr fast -> --epochs = 'three' | valid integer | valid number
train --data photos --out new --model-args {a:1} -> --model-args | is no JSON
train typo.toml --data photos --out new -> 'epohcs' | Did you mean 'epochs'?
train --data phtos --out new -> there is no such file or folder | --data
train --data foldr:photos --out new -> Did you mean 'folder'?
train --data empty --out new -> it holds no image | unlabelled
train --data loose --out new -> No training image has a label | distill
train --data single --out new -> single has one class, 'cat' | nothing to tell apart
train --data broken --out new TINY -> broken
train --data column.csv --out new -> 'lable' | Did you mean 'label'?
train --data semicolon.csv --out new -> column 'path;label' is not one of
train --data leaky --out new --batch-size 500
    -> leaky: 2 of 4 test images are byte for byte in train or val too, such as 'test/cat/0.png'
    | remove one of each
train --data double --out new --batch-size 500
    -> In train are pictures twice with different labels: 1, such as 'cat/0.png' (cat) and 'dog/0.png' (dog)
label --data photos --embeddings other.emb --classes cat,dgo --out t.parquet
    -> images of 'dog', which the list of classes lacks | Is 'dgo' meant to be 'dog'?
train --data photos --out photos/run TINY -> --out photos/run lies inside of photos | give a place outside
train --data openmoji --out openmoji TINY -> --out openmoji has the name of the packaged dataset | openmoji-out
train --data photos --out new --model resnet19 -> resnet19 | resnet18
train --data photos --out new --device gpu -> --device gpu is not available here | available: auto
train --data photos --out new --batch-size 500 -> --batch-size 500 | give at most
train --data photos --out run -> run already holds a run | --resume
evaluate photos -> photos holds no finished run
describe --data photos --store s.db --describer opnai:x -> Did you mean 'openai'?
describe --data photos --store s.db --describer openai:gpt-4.1-mini -> OPENAI_API_KEY
describe --data photos --store s.db --describer openai:m --base-url http://127.0.0.1:9/v1
    -> there is no server to be reached | is --base-url right?
describe --data photos --store s.db --describer replay:other.jsonl -> none of its 1 rows belongs | 'other/1.jpg'
inspect other.db --data photos -> belongs to other images
encode --store other.db --encoder minillm --out new.emb -> Did you mean 'minilm'?
train --data photos --out new --embeddings other.emb -> the table is of other images
export run --format onx --out model -> --format | Did you mean 'onnx'?
predict run empty -> No image is found: 'empty': holds no image
compare --data photos --out new --targets other.parquet -> labels that an arm must not see
compare --data photos --out new --arms alinged -> Did you mean 'aligned'?
"""
ROWS = [" ".join(row.split()) for row in re.split(r"\n(?! )", MISTAKES.strip())]
WRONG_PATHS = """
train --data gone --out new
train --data photos --embeddings gone.emb --out new
train --dta photos --out new
evaluate photos
compare --data photos --answers gone.db --out new
report gone
export gone --format timm --out new
benchmark nowhere --data folder:photos
predict model photos
search gone cat --data photos
distill gone --describer openai:m --classes cat,dog
improve gone photos
history gone
trial gone --describers replay:gone.jsonl,openai:m --classes cat,dog
describe --data photos --store new.db --describer replay:gone.jsonl
descriptions import gone.jsonl --store new.db --data photos
descriptions export new.jsonl --store gone.db
inspect gone.db --data photos
encode --store gone.db --encoder minilm --out new.emb
label --data photos --embeddings gone.emb --out new.parquet
export-labels --data gone --targets gone.parquet --format csv --out new.csv
audit --data photos --model gone
discover --data photos --embeddings gone.emb
review --data photos --labels new.csv --answers gone.db
doctor gone
"""


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
    pictures(*(f"single/cat/{n}.png" for n in range(8)), "double/cat/0.png", "double/cat/1.png", "double/dog/1.png")
    pictures(*(f"leaky/{part}/{kind}/{n}.png" for part in ("train", "test") for kind in ("cat", "dog") for n in (0, 1)))
    for copy, of in (("leaky/test/cat/0", "leaky/train/cat/0"), ("leaky/test/dog/1", "leaky/train/dog/0"),
                     ("double/dog/0", "double/cat/0")):  # fmt: skip
        shutil.copy(root / f"{of}.png", root / f"{copy}.png")
    texts = {
        **{f"broken/{('cat', 'dog')[number % 2]}/{number}.png": "no picture" for number in range(8)},
        "empty/.nothing": "",
        "typo.toml": "epohcs = 3\n",
        "column.csv": "path,lable\nphotos/cat/1.png,cat\n",
        "semicolon.csv": "path;label\nphotos/cat/1.png;cat\n",
        "other.jsonl": '{"key": "other/1.jpg", "description": "A red square."}\n',
        "run/config.json": "{}",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    digests = load_dataset(str(root / "other")).digests
    write_store(root / "other.db", ({"digest": digest, "text": f"Picture {n}."} for n, digest in enumerate(digests)))
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
    monkeypatch.setattr(calls, "UNREACHABLE_S", 0.0)
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


def test_a_wrong_path_is_told_in_one_line_by_every_command(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(desk / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    lines = WRONG_PATHS.strip().splitlines()
    assert [name for name in COMMANDS if not any(line.startswith(name) for line in lines)] == ["demo"]
    for line in lines:
        assert main(line.split()) == 2, line
        told = capsys.readouterr().err
        assert sum(said.startswith("Error: ") for said in told.splitlines()) == 1, told


def test_help_has_every_command_with_an_example_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from gpt4image.cli import COMMANDS, main; main(['--help']); main(['train', '--help']); "
        "print({'torch', 'numpy', 'timm', 'PIL'} & set(sys.modules), file=sys.stderr)\n"
        "for command in COMMANDS: assert main([*command.split(), '--help']) == 0 and 'torch' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stderr.strip() == "set()"
    shown = " ".join(told.stdout.split())
    assert [command for command in COMMANDS if f"Example: gpt4image {command} " not in shown] == []
    overview = shown.split("Example:")[0]
    assert told.returncode == 0 and all(command in overview for command in COMMANDS)


KEPT = "Interrupted; what was finished is kept. Give the same command again"
OF_THE_GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. If reserved but unallocated"
TRAIN = "train --data openmoji --out run"


@pytest.mark.parametrize(
    ("error", "words", "code", "parts"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/archive/page.html"), "demo", 2,
         ["Error: /archive/page.html: Read-only file system; choose a place that can be read or written.\n"]),
        (OSError(errno.ENOSPC, "No space left on device"), "demo", 2, ["Error: No space left on device; free some "]),
        (SystemExit(0), "demo", 70, ["SystemExit: 0", "\nThis is a bug of gpt4image"]),
        (MemoryError("4 TiB"), "demo", 2, ["Error: this machine has too little memory (4 TiB)."]),
        (torch.OutOfMemoryError(OF_THE_GPU), "demo", 2,
         ["Error: the GPU has too little memory (CUDA out of memory. Tried to allocate 2.00 GiB).", "--batch-size"]),
        (ZeroDivisionError("a bug"), "demo", 70, ["ZeroDivisionError: a bug", "\nThis is a bug of gpt4image"]),
        (KeyboardInterrupt(), TRAIN, 130, [f"{KEPT} with --resume to go on.\n"]),
        (KeyboardInterrupt(), f"{TRAIN} --resume", 130, [f"{KEPT} to go on.\n"]),
        (KeyboardInterrupt(), "inspect s.db", 130,
         ["Interrupted; no partial file is left. Give the same command again to start over.\n"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_an_error_of_a_stage_has_its_exit_code_and_only_a_bug_a_traceback(
    error: BaseException, words: str, code: int, parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def stage(_config: object) -> None:
        raise error

    name = next(name for name in COMMANDS if words.startswith(name))
    monkeypatch.setitem(sys.modules, "gpt4image.failing", types.SimpleNamespace(stage=stage))  # type: ignore[arg-type]
    monkeypatch.setitem(COMMANDS, name, replace(COMMANDS[name], stage="failing:stage"))
    assert main(words.split()) == code
    shown = capsys.readouterr().err
    assert all(part in shown for part in parts) and ("Traceback" in shown) is (code == 70)


def test_what_a_file_is_called_does_nothing_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "a\x1b[2J\u202eb")]) == 2
    said = capsys.readouterr().err
    assert r"a\x1b[2J\u202eb" in said and "\x1b" not in said and "\u202e" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--version >/dev/full", 2, "No space left on device"),
        ("train --help >/dev/full", 2, "No space left on device"),
        ("train --help | head -1; exit ${PIPESTATUS[0]}", 0, ""),  # a reader that has seen enough is no error
        ("\u732b", 2, r"\u732b"),  # letters that the terminal has not are escaped
    ],
)
def test_output_that_cannot_be_written_is_a_plain_error(line: str, code: int, said: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = ["bash", "-c", f"{sys.executable} -m gpt4image {line}"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == code and said in result.stderr and "Traceback" not in result.stderr
    assert bool(result.stderr) == bool(said)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["describe", "--data", "\udcff", "--store", "s.db", "--describer", "replay:x"], "--data"),
        (["describe", "--data", "folder:loop", "--store", "s.db", "--describer", "replay:x"], "--data"),
        (["describe", "--data", ".", "--store", "loop", "--describer", "replay:x"], "--store"),
        (["predict", "run", "x.png", "--out", ""], "--out"),
        (["predict", "run", "x.png", "--batch-size", str(2**63)], "--batch-size"),
        (["predict", "run", "x.png", "--draw", "a\0b"], "--draw"),
        (["doctor", "loop"], "PATH"),
        (["doctor", "fifo"], "fifo"),
    ],
)
def test_values_that_no_option_can_use_are_refused(
    words: list[str], option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo("fifo")
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"Error: {option}")
