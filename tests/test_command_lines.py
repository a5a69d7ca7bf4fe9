"""Random command lines: whatever is typed ends with an exit code and a sentence, and never with a traceback."""

import os
import random
from pathlib import Path

import pytest

from gpt4image import options
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.cli import ITEMS_SKIPPED, OK, USER_MISTAKE, main
from gpt4image.commands import COMMANDS
from worlds import write_colours

LIGHT = ("descriptions export", "descriptions import", "inspect",
         "describe", "doctor", "evaluate", "export-labels", "report")  # fmt: skip
PATHS = ["pictures", "folder:pictures", "a.db", "answers.jsonl", "fifo", "loop", "loop/x", "folder:loop", "empty",
         "zero", "junk.csv", "junk.json", "junk.parquet", "nothing", "", ".", " ", "~nobody/x", "\udcff",
         "folder:\udcff", "a\0b", "folder:a\0b", "x" * 300, "/dev/null", "manifest:junk.csv", "coco:junk.json",
         "yolo:pictures", "replay:fifo", "replay:answers.jsonl", "python:os:getcwd", "python:x", "openai:", "new/out",
         "o.csv", "--", "-"]  # fmt: skip
OTHERS = ["0", "1", "-1", "nan", "inf", "1e400", "9223372036854775808", "9" * 400, "٣", "red", "red; blue", "class",
          "\x1b[31m", "{}", "[", "a" * 999, "train"]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_colours(tmp_path / "pictures", each=1)
    (tmp_path / "answers.jsonl").write_text('{"key": "red/0.png", "description": "A red sheet."}\n')
    with DescriptionStore(tmp_path / "a.db", write=True):
        pass
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    for name in ("zero", "junk.csv", "junk.json", "junk.parquet"):
        (tmp_path / name).write_bytes(b"path,label\n\xff,1\n" * (name != "zero"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_command_line_ends_with_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    draw = random.Random(seed)
    for _ in range(40):
        name = draw.choice(LIGHT)
        kind = COMMANDS[name].options
        fields = [field for field, about in kind.model_fields.items() if about.is_required()]
        words = name.split()
        for field in [*fields, *draw.choices(list(kind.model_fields), k=draw.randrange(3))]:
            known = options.choices(kind.model_fields[field].annotation)
            value = draw.choice(draw.choice([known or PATHS, PATHS, OTHERS]))
            flag = kind.option(field)
            switch = bool in options._kinds(kind.model_fields[field].annotation)  # pyright: ignore[reportPrivateUsage]
            words += [value] if flag.isupper() else [flag] if switch else [flag, value]
        rc = main(words)
        told = capsys.readouterr().err
        assert rc in (OK, ITEMS_SKIPPED, USER_MISTAKE) and "Traceback" not in told, words
        assert rc != USER_MISTAKE or told.strip(), words
