"""A torch-export archive that would run code is refused, and runs none."""

from __future__ import annotations

import io
import json
import logging
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpt4image.base.errors import ModelError
from gpt4image.deploying.archive import load_program
from gpt4image.deploying.metadata import EXTRA_FILE

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch, about its own parts
PROGRAM, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
Entries = dict[str, bytes]


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.pt2"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2)).eval()
    batch = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=batch)
    torch.export.save(program, path, extra_files={EXTRA_FILE: '{"a": 1}'})
    return path


def changed(archive: Path, path: Path, change: Callable[[Entries], None]) -> Path:
    with zipfile.ZipFile(archive) as file:
        root = file.namelist()[0].split("/")[0]
        entries = {name.removeprefix(f"{root}/"): file.read(name) for name in file.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(f"{root}/{name}", content)
    return path


def saying(text: str, new: str) -> Callable[[Entries], None]:
    """Return a change of the first text of the program that matches."""

    def change(entries: Entries) -> None:
        program, count = re.subn(text, lambda _: json.dumps(new)[1:-1], entries[PROGRAM].decode(), count=1)
        assert count == 1
        entries[PROGRAM] = program.encode()

    return change


def with_entry(name: str, content: bytes) -> Callable[[Entries], None]:
    return lambda entries: entries.update({name: content})


def pickled_weights(entries: Entries) -> None:
    table = json.loads(entries[WEIGHTS])
    next(iter(table["config"].values()))["use_pickle"] = True
    entries[WEIGHTS] = json.dumps(table).encode()


def test_an_archive_that_is_a_classifier_is_loaded_for_any_number_of_images(archive: Path, tmp_path: Path) -> None:
    for path in (archive, changed(archive, tmp_path / "same.pt2", lambda _: None)):
        module, text = load_program(path)
        assert text == '{"a": 1}'
        for count in (1, 5):
            assert module(torch.rand(count, 3, 8, 8)).shape == (count, 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (saying("torch.ops.aten.linear.default", "torch.os.system"), "target says"),
        (saying("torch.ops.aten.linear.default", "_operator.call"), "target says"),
        (saying(r"Symbol\('s\d+'[^\"]*", "__import__('os').getpid()"), "expr_str says"),
        (saying('conv2d(?="}}], "metadata)', "x=print()"), "name says"),
        (with_entry("data/aotinductor/model/a.so", b"\x7fELF"), "data/aotinductor"),
        (with_entry("data/weights/model.pt", b""), "data/weights/model.pt"),
        (with_entry("data/constants/custom_obj_0", b""), "custom_obj_0"),
        (pickled_weights, "is pickled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_classifier_does_not_need_is_refused(
    archive: Path, tmp_path: Path, change: Callable[[Entries], None], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        load_program(changed(archive, tmp_path / "bad.pt2", change))


def test_a_pickle_that_torch_would_run_is_not_run(archive: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(((Touch(tmp_path / "ran"),), {}), buffer, pickle_module=pickle)
    bad = changed(archive, tmp_path / "bad.pt2", with_entry("data/sample_inputs/model.pt", buffer.getvalue()))
    with pytest.raises(ModelError, match="damaged or no torch-export archive"):
        load_program(bad)
    assert not (tmp_path / "ran").exists()
    logging.disable(logging.CRITICAL)  # torch's own message about it is malformed
    try:
        torch.export.load(bad)
    finally:
        logging.disable(logging.NOTSET)
    assert (tmp_path / "ran").exists(), "torch itself would have run it: the test tests something"


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 nearly"])
def test_what_is_no_archive_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(ModelError, match="no torch-export archive"):
        load_program(tmp_path / "model.pt2")


def test_a_cut_archive_is_said(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ModelError, match="no torch-export archive"):
        load_program(tmp_path / "model.pt2")
