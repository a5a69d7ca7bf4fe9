"""Opening a torch-export archive (.pt2) that somebody else may have made, without running what it says.

``torch.export.load`` warns never to load untrusted files, with reason: it unpickles (sample inputs, custom objects,
tensor subclasses, older formats), loads compiled libraries, resolves the names of operators below ``torch`` and
``operator`` by ``getattr``, evaluates symbolic sizes with ``sympy.sympify``, and puts names into generated Python code.
So everything in the archive is held against a list of what the export of a classifier needs, by the reader that torch
loads it with, before torch interprets any of it; the rest is refused.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader

from gpt4image.base.errors import ModelError, first_line
from gpt4image.deploying.metadata import EXTRA_FILE

_PROGRAM = "models/model.json"
_INPUTS = "data/sample_inputs/model.pt"
_TABLES = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/[\w.]+"
    rf"|data/weights/weight_\d+|data/constants/tensor_\d+|{'|'.join(map(re.escape, (_PROGRAM, _INPUTS, *_TABLES)))}",
    re.ASCII,
)
# Keys of the program whose texts mean something to torch, and what they may say; every other text is a plain name.
_MAY_SAY = {
    "target": re.compile(
        r"torch\.ops\.aten\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|eq|ne|l[te]|g[te])", re.ASCII
    ),
    "expr_str": re.compile(
        r"(\d|[-+*/(), ]|\bs\d+\b|\bSymbol\('s\d+', positive=True, integer=True\)"
        r"|\b(Integer|Add|Mul|Pow|FloorDiv|CleanDiv|Mod|PythonMod|Max|Min)(?=\())*",
        re.ASCII,
    ),
    "in_spec": re.compile(
        r'([\[\]{}:, \d]|"(type|context|children_spec|null|\[\]|builtins\.(tuple|list|dict))"|null)*'
    ),
}
_MAY_SAY["out_spec"] = _MAY_SAY["in_spec"]
_NAME = re.compile(r"[\w.\-]*", re.ASCII)
# Texts that torch keeps, or shows, and no more; guards are not compiled (check_guards=False).
_SHOWN = frozenset(("metadata", "guards_code", "torch_version", "as_string"))


# What torch raises on damaged archives.
_DAMAGED = (RuntimeError, AssertionError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError)


def load_program(path: Path) -> tuple[nn.Module, str | None]:
    """Return the module that a torch-export archive holds, and the text of its extra file gpt4image.json.

    Raises:
        ModelError: the file is missing, damaged, or holds what may run code.
    """
    from torch.export.pt2_archive._package import load_pt2

    data = path.read_bytes()  # read once: what was looked at is what is loaded
    try:
        reader = PT2ArchiveReader(io.BytesIO(data))
        problem = next(_problems(reader), None)
    except _DAMAGED as error:
        raise ModelError(f"{path} is damaged or no torch-export archive: {first_line(error)[:200]}") from None
    if problem:
        raise ModelError(
            f"{path} is not loaded, for {problem}, which the export of a classifier does not need and which may run "
            "code. Export the run again, or to ONNX."
        )
    try:
        # not torch.export.load: where this fails, it goes on with an older format, which is unpickled
        loaded = load_pt2(io.BytesIO(data))
        return loaded.exported_programs["model"].module(check_guards=False), loaded.extra_files.get(EXTRA_FILE)
    except _DAMAGED as error:
        raise ModelError(
            f"{path} cannot be loaded by torch {torch.__version__}: {first_line(error)[:200]} Was it exported by a "
            "later version?"
        ) from None


def _problems(reader: PT2ArchiveReader) -> Iterator[str]:
    """Yield what an archive holds beyond a classifier: nothing where it is one."""
    names = reader.get_file_names()
    yield from (f"it holds {name!r}" for name in names if not _ENTRY.fullmatch(name))
    if len(set(names)) < len(names):
        yield "it holds files of the same name"
    for table in _TABLES:
        for name, entry in json.loads(reader.read_string(table))["config"].items():
            if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
                yield f"{name!r} in it is pickled"
    yield from _texts("program", json.loads(reader.read_string(_PROGRAM)))
    if inputs := reader.read_bytes(_INPUTS):
        torch.load(io.BytesIO(inputs), weights_only=True)  # where this fails, torch would go on and unpickle anything


def _texts(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _NAME.fullmatch(name):
                yield f"it names {name!r}"
            elif name not in _SHOWN:
                yield from _texts(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(key, inner)
    elif isinstance(value, str) and not _MAY_SAY.get(key, _NAME).fullmatch(value):
        yield f"its {key} says {value[:100]!r}"
