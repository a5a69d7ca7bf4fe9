"""Exports are the model of their run to everybody (plain timm, onnxruntime, torch), or nothing is written."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import trained_runs
from deploying.hub_server import Hub, serve_hub
from gpt4image.artifacts import runs
from gpt4image.base.errors import ConfigError, ExportError, Gpt4ImageError, RunError
from gpt4image.base.files import read_json, read_json_lines, write_json_lines
from gpt4image.config import ExportConfig
from gpt4image.data import load_with_splits
from gpt4image.deploying import formats
from gpt4image.deploying.export import best_run, export, push, require_login
from synthetic_records import comparison_record, write_comparison

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")

HANDED_OVER = ["README.md", "config.json", "example.py", "manifest.json", "model.safetensors", "small_stem.py"]
Runs = Callable[[str], Path]


def predicted_elsewhere(folders: list[Path], allowed: str) -> list[dict[str, Any]]:
    """Run each folder's example in one new process, elsewhere, and return what it found for its picture.jpg.

    The process fails where the code imports this package, or anything heavy that is not ``allowed``.
    """
    cases = [(str(folder / "model" / "example.py"), str(folder / "picture.jpg")) for folder in folders]
    script = f"""
import json, runpy, sys
found = []
for sys.argv in json.load(sys.stdin):
    sys.modules.pop("small_stem", None)
    names = runpy.run_path(sys.argv[0])
    found.append({{"classes": list(names["classes"]), "probabilities": names["probabilities"]}})
imported = {{name.partition(".")[0] for name in sys.modules}}
assert not imported & ({{"gpt4image", "torch", "timm", "onnxruntime", "onnx"}} - set({allowed.split()!r})), imported
print("found", json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(cases), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1].removeprefix("found "))


def spec_of(run: Path) -> str:
    return f"folder:{run.parent / 'pictures'}"


def exported(run: Path, form: str, folder: Path, **options: Any) -> Path:
    """Export a run into a folder, and put a picture of its test split there."""
    export(ExportConfig(run_dir=run, format=form, out=folder / "model", **options))  # pyright: ignore
    image_set = load_with_splits(spec_of(run), val_fraction=0.1, test_fraction=0.2)
    (folder / "picture.jpg").write_bytes(image_set.read(int(image_set.indices("test")[0])))
    return folder


def recorded(run: Path) -> tuple[list[str], list[float]]:
    """Return class names, and what the run's own evaluation said of the first test picture."""
    probabilities = pq.read_table(run / "predictions-test.parquet")["probabilities"][0].as_py()
    return read_json(run / "evaluation-test.json")["classes"], probabilities


def assert_as_recorded(found: dict[str, Any], run: Path) -> None:
    classes, probabilities = recorded(run)
    assert found["classes"] == classes == list(trained_runs.CLASSES)
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "allowed", "families"),
    [
        ("timm", "timm torch", ("resnet-small-stem", "vit-small-stem")),
        ("onnx", "onnxruntime", ("vit-small-stem",)),
        ("torch-export", "torch", ("vit-small-stem",)),
    ],
)
def test_the_example_predicts_what_the_run_recorded_without_this_package(
    form: str, allowed: str, families: tuple[str, ...], run_of: Runs, tmp_path: Path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript", reason="pip install 'gpt4image[onnx]'")
    folders = [exported(run_of(family), form, tmp_path / family) for family in families]
    for family, folder, found in zip(families, folders, predicted_elsewhere(folders, allowed), strict=True):
        assert_as_recorded(found, run_of(family))
        has_small_stem = (folder / "model" / "small_stem.py").is_file()
        assert has_small_stem is (form == "timm" and family == "resnet-small-stem"), "only where it is needed"


@pytest.mark.slow
def test_the_example_in_javascript_predicts_what_the_run_recorded(
    run_of: Runs, node_modules: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'gpt4image[onnx]'")
    run = run_of("vit-small-stem")
    folder = exported(run, "onnx", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)
    command = ["node", "model/example.mjs", "picture.jpg"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    classes, probabilities = recorded(run)
    name, _, probability = done.stdout.strip().rpartition(" ")
    assert name == classes[int(np.argmax(probabilities))], done.stderr
    assert float(probability) == pytest.approx(max(probabilities), abs=0.05), "sharp resizes a little differently"


def test_the_outcome_says_what_was_checked_and_what_is_needed(run_of: Runs, tmp_path: Path) -> None:
    run, out = run_of("resnet-small-stem"), tmp_path / "model"
    outcome = export(ExportConfig(run_dir=run, format="timm", out=out))
    assert outcome.checked_on == f"9 images of {spec_of(run)}"
    assert float(outcome.largest_difference) < 1e-5 and outcome.skipped == ()
    assert "import small_stem" in outcome.needs
    names = sorted(path.name for path in out.iterdir())
    assert names == HANDED_OVER
    assert (out / "example.py").read_text(encoding="utf-8") in (out / "README.md").read_text(encoding="utf-8")
    same = [hashlib.sha256((folder / runs.MODEL).read_bytes()).hexdigest() for folder in (run, out)]
    assert same[0] == same[1] == read_json(out / "config.json")["source"]["weights_sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"], "nothing is left beside it"


def test_what_predicts_something_else_is_refused_and_nothing_is_left(
    run_of: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = formats.write_timm

    def write_other_colours(path: Path, exported: Any) -> None:
        write(path, exported)
        config = (path / "config.json").read_text(encoding="utf-8")
        values = json.loads(config)
        values["pretrained_cfg"]["mean"] = [0.0, 0.0, 0.0]
        (path / "config.json").write_text(json.dumps(values), encoding="utf-8")

    monkeypatch.setattr(formats, "write_timm", write_other_colours)
    with pytest.raises(ExportError, match=r"not the model of the run: on 9 images .* differ by up to 0\.\d+"):
        export(ExportConfig(run_dir=run_of("vit-small-stem"), format="timm", out=tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_gone_have_a_way_out(run_of: Runs, tmp_path: Path) -> None:
    family = Path(shutil.copytree(run_of("vit-small-stem").parent, tmp_path / "family"))
    config = read_json(family / "run" / runs.CONFIG)
    trained_runs.rewrite_config(family / "run", config | {"data": spec_of(family / "run")})
    moved = (family / "pictures").rename(family / "moved")
    options: dict[str, Any] = {"run_dir": family / "run", "format": "timm", "out": tmp_path / "model"}
    with pytest.raises(ExportError, match=r"needs images, and those of folder:.* Give --data SPEC"):
        export(ExportConfig(**options))
    assert not (tmp_path / "model").exists()
    export(ExportConfig(**options, data=f"folder:{moved}"))
    assert (tmp_path / "model" / "README.md").is_file()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"format": "onnx", "out": "a/m.onnx"}, ConfigError, r"m\.onnx: an export is a folder; give --out a/m\."),
        ({"format": "timm", "out": "taken"}, ConfigError, "taken exists already"),
        ({"format": "timm", "out": "model", "run_dir": "nowhere"}, RunError, "nowhere does not exist"),
        *(({"format": "timm", "out": "model", "push_to_hub": name}, ConfigError, "a repository is named USER/NAME")
          for name in ("me", "me/", "a/b/c", "https://huggingface.co/me/model", "me/mo del")),
    ],
)  # fmt: skip
def test_mistakes_are_refused_at_once(
    options: dict[str, Any], kind: type[Gpt4ImageError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    with pytest.raises(kind, match=message):
        export(ExportConfig(**{"run_dir": Path("run"), **options}))  # pyright: ignore


@pytest.mark.slow
def test_what_is_pushed_is_loaded_from_the_hub_by_plain_timm(
    run_of: Runs, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    run, folder = run_of("resnet-small-stem"), tmp_path / "exported"
    exported(run, "timm", folder, push_to_hub="me/model")
    (folder / "model").rename(tmp_path / "away")
    assert sorted(hub.files["me/model"]) == HANDED_OVER
    assert hub.private["me/model"]
    (folder / "model").mkdir()
    shutil.copy(tmp_path / "away" / "example.py", folder / "model")
    assert_as_recorded(predicted_elsewhere([folder], "timm torch")[0], run)
    assert not [path for path in folder.rglob("*") if path.is_file() and hub.token.encode() in path.read_bytes()]


def change_val(folder: Path, score: float | None) -> None:
    val = None if score is None else {"top1": score, "loss": 1.0}
    write_json_lines(
        folder / "metrics.jsonl", [{**row, "val": val} for row in read_json_lines(folder / "metrics.jsonl")]
    )
    trained_runs.rewrite_config(folder, read_json(folder / "config.json"))


def test_the_best_arm_by_the_mean_and_its_best_seed_are_chosen_by_validation(tmp_path: Path) -> None:
    folder = write_comparison(
        tmp_path / "cmp", comparison_record(seeds=2, means={"baseline": 0.9, "aligned": 0.1, "oracle": 0.99})
    )
    for arm, scores in {"baseline": (0.2, 0.9), "aligned": (0.6, 0.7), "oracle": (1.0, 1.0)}.items():
        for seed, score in enumerate(scores):
            change_val(folder / f"runs/{arm}-seed{seed}", score)
    chosen, why = best_run(folder)
    assert chosen == folder / "runs/aligned-seed1"
    assert why == "arm aligned, seed 1: val top1 0.7000; by the mean over seeds the best of baseline, aligned"
    for run in (folder / "runs").iterdir():
        change_val(run, None)
    with pytest.raises(RunError, match="name one of the runs below"):
        best_run(folder)
    assert best_run(chosen) == (chosen, ""), "a run is itself"


TOKEN = "hf_secretOfTheTests"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub(TOKEN) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_files_are_one_commit_of_a_private_repository_and_a_refused_token_is_not_shown(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_login()
    model = ExportConfig(run_dir=tmp_path, format="onnx", out=tmp_path / "a")
    (tmp_path / "a" / "inner").mkdir(parents=True)
    for name in ("model.onnx", "inner/README.md"):
        (tmp_path / "a" / name).write_bytes(name.encode() * 1000)
    assert push(model, "me/model") == f"{hub.url}/me/model"
    assert hub.files == {"me/model": {name: name.encode() * 1000 for name in ("model.onnx", "inner/README.md")}}
    assert hub.private == {"me/model": True} and hub.commits == ["gpt4image export --format onnx"]
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(ExportError, match="set HF_TOKEN") as login:
        require_login()
    with pytest.raises(ExportError, match="complete on this machine, but not at me/model") as pushed:
        push(model, "me/model")
    assert f"try `hf upload --private me/model {model.out}`" in str(pushed.value)
    assert "hf_expired" not in f"{login.value}{pushed.value}"
