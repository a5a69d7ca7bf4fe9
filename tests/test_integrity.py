"""A damaged file is named or reads as before, whatever was done to it, and doctor finds it in what stages wrote."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gpt4image import cli, integrity
from gpt4image.artifacts import runs
from gpt4image.artifacts.run_records import load_comparisons, load_run
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.text_labels import TextLabels
from gpt4image.artifacts.weights import load_tensors
from gpt4image.base.checksums import SEAL, require_recorded
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.files import read_json, read_parquet, write_json
from gpt4image.config import ExportConfig, LabelConfig, TrainConfig
from gpt4image.deploying.export import export
from gpt4image.labelling.label import label
from gpt4image.recipes import read_recipe
from gpt4image.searching.index import open_index, up_to_date
from gpt4image.training.checkpoint import load_checkpoint, save_checkpoint
from synthetic_records import write_comparison
from trained_runs import TINY_RESNET, described, trained, write_pictures

IDENTITY = {"data": "folder:photos"}
PREDICTIONS = "predictions-test.parquet"


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that stages write."""
    root = tmp_path_factory.mktemp("made")
    spec = write_pictures(root / "photos", per_class=10)
    table = described(spec, root)
    trained(spec, root / "run", embeddings=table, **TINY_RESNET)
    label(LabelConfig(data=spec, embeddings=table, out=root / "labels.parquet"))
    export(ExportConfig(run_dir=root / "run", format="timm", out=root / "exported"))
    digests = np.sort(np.frombuffer(np.random.default_rng(0).bytes(32 * 9), "S32")).view(np.uint8).reshape(-1, 32)
    rows = np.eye(9, 8, dtype=np.float32)
    up_to_date(root / "index", IDENTITY, digests, np.arange(9), 8, lambda i: (rows[i], np.ones(len(i), bool)))
    model, optimizer = model_and_optimizer()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    (root / "begun").mkdir()
    save_checkpoint(root / "begun" / runs.CHECKPOINT, {"model": model}, {"optimizer": optimizer}, {"step": 1})
    write_comparison(root / "cmp")
    (root / "recipe.toml").write_text('epochs = 3\nlr = 0.5\nmodel_args = {"channels" = [8, 8]}\n', encoding="utf-8")
    return root


def read_table(root: Path) -> Any:
    table = EmbeddingTable.open(root / "texts.emb")
    parts = (table.embeddings, table.texts, table.digests, table._offsets, table._rows)
    return table.manifest, [part.tobytes() for part in parts]


def read_index(root: Path) -> Any:
    index = open_index(root / "index", IDENTITY)
    return index and (index.embeddings.tobytes(), index.digests.tobytes())


def read_labels(root: Path) -> Any:
    labels = TextLabels.load(root / "labels.parquet")
    matrices = (labels.probabilities, labels.splits, labels.labels, labels.out_of_fold)
    return labels.keys, labels.digests, labels.facts, [matrix.tobytes() for matrix in matrices]


def read_checkpoint(root: Path) -> Any:
    model, optimizer = model_and_optimizer()
    state = load_checkpoint(root / "begun" / runs.CHECKPOINT, {"model": model}, {"optimizer": optimizer})
    momentum = [slot["momentum_buffer"].tolist() for slot in optimizer.state_dict()["state"].values()]
    return state, [value.tolist() for value in model.state_dict().values()], momentum


def read_predictions(root: Path) -> Any:
    require_recorded(root / "run", PREDICTIONS, read_json(root / "run" / "evaluation-test.json"))
    return read_parquet(root / "run" / PREDICTIONS).to_pylist()


READERS: dict[str, Callable[[Path], Any]] = {
    **{f"texts.emb/{name}.npy": read_table for name in ("embeddings", "texts", "digests", "offsets", "rows")},
    "texts.emb/manifest.json": read_table,
    "index/index.json": read_index,
    "index/embeddings-*.npy": read_index,
    "index/digests-*.npy": read_index,
    "labels.parquet": read_labels,
    **{f"run/{name}": lambda root: runs.read_run(root / "run") for name in (runs.CONFIG, runs.RUN, runs.METRICS)},
    f"run/{runs.MODEL}": lambda root: [t.tolist() for t in load_tensors(root / "run" / runs.MODEL)[0].values()],
    "run/evaluation-test.json": lambda root: load_run(root / "run"),
    f"run/{PREDICTIONS}": read_predictions,
    f"begun/{runs.CHECKPOINT}": read_checkpoint,
    "cmp/comparison.json": lambda root: load_comparisons(root / "cmp"),
}
DAMAGE = st.one_of(
    st.just(lambda _: b""),
    st.just(lambda _: b"[" * 100_000),
    st.just(lambda content: content.replace(b": 0", b": 1e999", 1).replace(b": 1", b": 1" + b"0" * 400, 1)),
    st.just(lambda content: b"\xff" + content),
    st.floats(0.0, 0.999).map(lambda part: lambda content: content[: int(part * len(content))]),
    st.integers(1, 40).map(lambda count: lambda content: content[:-count]),
    st.floats(0.0, 0.999).map(lambda at: lambda content: content[: int(at * len(content))] + bytes(40)),
    st.tuples(st.floats(0.0, 0.999), st.integers(0, 7)).map(lambda where: lambda content: flipped(content, *where)),
)


def flipped(content: bytes, at: float, bit: int) -> bytes:
    place = int(at * len(content))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_a_damaged_file_reads_as_before_or_is_named(made: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (path,) = made.glob(name)
    whole, before = path.read_bytes(), READERS[name](made)
    path.write_bytes(damage(whole))
    try:
        found = READERS[name](made)
    except Gpt4ImageError as error:
        assert "damaged" in str(error) or path.name in str(error) or path.stem in str(error)
    else:
        assert found == before or (found is None and name.startswith("index")), "an index is made anew"
    finally:
        path.write_bytes(whole)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE)
def test_a_damaged_recipe_is_read_or_named(made: Path, damage: Callable[[bytes], bytes]) -> None:
    path = made / "damaged.toml"
    path.write_bytes(damage((made / "recipe.toml").read_bytes()))
    try:
        assert isinstance(read_recipe(path, TrainConfig), dict)
    except Gpt4ImageError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("text", ["lr = inf", "lr = 1e999", "epochs = 1" + "0" * 400, "model_args = " + "[" * 9000])
def test_a_recipe_with_numbers_and_depth_that_no_option_has_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(Gpt4ImageError, match=r"Recipe \S+ cannot be read"):
        read_recipe(tmp_path / "r.toml", TrainConfig)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


KINDS = ("texts.db", "texts.emb", "index", "labels.parquet", "run", "cmp", "exported")


@pytest.mark.parametrize("kind", KINDS)
def test_doctor_finds_what_stages_wrote_whole(made: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(made / kind), "--json"]) == cli.OK
    told = json.loads(capsys.readouterr().out)
    states = {Path(one["file"]).name: one["state"] for one in told["checked"]}
    assert told["files"] == len(told["checked"]) >= 1 and told["damaged"] == 0
    unlisted = {name for name, state in states.items() if state != "whole"}
    assert not unlisted or kind == "cmp", "all of it has a checksum"
    if kind == "run":
        assert states.keys() >= {runs.MODEL, runs.HEAD, runs.METRICS, runs.RUN, PREDICTIONS, "text_space.json"}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("texts.db", "sqlite3"),
        ("texts.emb/embeddings.npy", "gpt4image encode --store STORE --out"),
        ("texts.emb/manifest.json", "gpt4image encode"),
        ("index/embeddings-*.npy", "gpt4image search"),
        ("labels.parquet", "gpt4image label"),
        (f"run/{runs.MODEL}", "train it again"),
        (f"run/{runs.METRICS}", "train it again"),
        ("run/evaluation-test.json", "gpt4image evaluate"),
        (f"run/{PREDICTIONS}", "gpt4image evaluate"),
        (f"begun/{runs.CHECKPOINT}", "--resume"),
        ("cmp/comparison.json", "gpt4image compare"),
        ("exported/model.safetensors", "gpt4image export"),
    ],
)
def test_doctor_names_a_damaged_file_and_what_makes_it_again(
    copy: Path, name: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = copy.glob(name)
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 5000)
    content[middle] = bytes(byte ^ 1 for byte in content[middle])
    path.write_bytes(content)
    place = path if path.parent == copy else path.parent
    assert cli.main(["doctor", str(place)]) == cli.ITEMS_SKIPPED
    told = capsys.readouterr()
    assert f"{path}: damaged" in told.out and remedy in told.err and told.out.count(": damaged") == 1


def test_doctor_names_a_file_that_is_missing(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "run" / runs.HEAD).unlink()
    assert cli.main(["doctor", str(copy / "run")]) == cli.ITEMS_SKIPPED
    assert f"{copy / 'run' / runs.HEAD} is missing" in capsys.readouterr().err


def test_doctor_refuses_what_no_stage_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.json").write_text("{not json")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for path in (tmp_path, tmp_path / "notes.json", tmp_path / "other.db", tmp_path / "gone"):
        assert cli.main(["doctor", str(path)]) == cli.USER_MISTAKE
        assert str(path) in capsys.readouterr().err


def test_what_earlier_versions_wrote_opens_and_has_no_checksum(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_table(copy)[1]
    for path in (copy / "texts.emb" / "manifest.json", copy / "run" / runs.RUN, copy / "run" / runs.CONFIG):
        record = read_json(path)
        write_json(path, {name: value for name, value in record.items() if name != "files"}, checksum=False)
        assert SEAL not in path.read_text(encoding="utf-8")
    assert read_table(copy)[1] == before and runs.read_run(copy / "run")["metrics"]
    assert cli.main(["doctor", str(copy / "texts.emb")]) == cli.OK
    assert capsys.readouterr().out.count("no checksum recorded") == 6


def test_files_of_others_that_vanish_or_cannot_be_read_end_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "other.db-shm").write_bytes(b"x")
    known = integrity._is_store

    def vanished(path: Path) -> bool:
        if path.name == "other.db-shm":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return known(path)

    monkeypatch.setattr(integrity, "_is_store", vanished)
    assert cli.main(["doctor", str(copy)]) == cli.OK
    assert "other.db-shm" not in capsys.readouterr().out
