"""Recipes: every shipped one loads, and mistakes in one are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt4image import cli
from gpt4image.base.errors import ConfigError
from gpt4image.config import CompareConfig, TrainConfig
from gpt4image.options import load_recipe, read_recipe

FOLDER = Path(__file__).parents[1] / "recipes"
SHIPPED = sorted(path for path in FOLDER.rglob("*.toml") if path.parent.name != "base")
assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_shipped_recipe_loads_and_says_how_it_was_run(path: Path) -> None:
    assert load_recipe(path, CompareConfig, data="cifar10", embeddings=Path("t.emb"), out=Path("out")).seeds >= 3
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert word in header
    assert f"recipes/{path.relative_to(FOLDER)}" in header


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("epochs = 3\n", encoding="utf-8-sig")
    assert load_recipe(tmp_path / "r.toml", TrainConfig, data="openmoji", out=tmp_path).epochs == 3


def test_options_on_the_command_line_win(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('data = "openmoji"\nbatch-size = 16\nlr = 0.1\n')
    config = load_recipe(tmp_path / "r.toml", TrainConfig, out=tmp_path, lr=0.2)
    assert (config.batch_size, config.lr, config.data) == (16, 0.2, "openmoji")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3\n", "unknown key: 'epoch' is not known. Did you mean 'epochs'"),
        ('epochs = "three"\n', "epochs = 'three'"),
        ("lr = -1\n", "lr = -1"),
        ("epochs = \n", "cannot be read"),
        ("json = true\n", "'json' is no key of a recipe.*--json"),
        ("as-json = true\n", "'as_json' is no key of a recipe"),
        ("epochs = true\n", "epochs = True"),
        ('resume = "yes"\n', "resume = 'yes'"),
        ("data = 2026-01-01\n", "data = .*a date is no value"),
        ("batch-size = 8\nbatch_size = 16\n", "batch-size and batch_size are the same option"),
        ("[train]\nbatch-size = 8\nbatch_size = 16\n", "batch-size and batch_size are the same option"),
        ("[training]\nepochs = 3\n", r"\[training\] is no table of a recipe; allowed are \[train\] and \[compare\]"),
    ],
)
def test_mistakes_are_named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(path, TrainConfig)
    assert "wrong.toml" in str(caught.value)


def test_variants_are_added_to_those_of_the_recipes_below() -> None:
    """They took the place of all of them, so ``controls.toml`` ran without the paper's setting."""
    assert {"paper", "bag-of-words"} <= read_recipe(FOLDER / "cifar10" / "controls.toml", CompareConfig)[
        "variants"
    ].keys()


def test_a_recipe_says_what_is_different_from_those_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "slow.toml").write_text('epochs = 300\nlr = 0.1\n[compare]\nseeds = 9\narms = "baseline"\n')
    (tmp_path / "base" / "large.toml").write_text('extends = "slow.toml"\nbatch-size = 64\nlr = 0.2\nmodel = "a"\n')
    (tmp_path / "base" / "other.toml").write_text('model = "b"\nhead = "mlp"\n')
    (tmp_path / "r.toml").write_text(
        'extends = ["base/large.toml", "base/other.toml"]\nhead = "linear"\n[train]\nlr = 0.3\n[compare]\nseeds = 5\n'
    )
    shared = {"epochs": 300, "batch_size": 64, "model": "b", "head": "linear"}
    assert read_recipe(tmp_path / "r.toml", TrainConfig) == shared | {"lr": 0.3}
    compared = shared | {"lr": 0.2, "seeds": 5, "arms": "baseline"}
    assert read_recipe(tmp_path / "r.toml", CompareConfig) == compared


def test_mistakes_in_what_is_extended_are_named_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("epoch = 3\n")
    (tmp_path / "r.toml").write_text('extends = "base.toml"\n')
    with pytest.raises(ConfigError, match=r"base\.toml: unknown key: 'epoch'"):
        read_recipe(tmp_path / "r.toml", TrainConfig)
    (tmp_path / "base.toml").write_text("[compare]\nepoch = 3\n")
    assert read_recipe(tmp_path / "r.toml", TrainConfig) == {}
    with pytest.raises(ConfigError, match=r"base\.toml: unknown key: 'epoch'"):
        read_recipe(tmp_path / "r.toml", CompareConfig)
    (tmp_path / "base.toml").write_text('extends = "r.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        read_recipe(tmp_path / "r.toml", TrainConfig)
    (tmp_path / "base.toml").write_text("extends = 3\n")
    with pytest.raises(ConfigError, match="extends = 3: give the path"):
        read_recipe(tmp_path / "r.toml", TrainConfig)
    (tmp_path / "base.toml").unlink()
    with pytest.raises(ConfigError, match=r"base\.toml does not exist; .*r\.toml extends it"):
        read_recipe(tmp_path / "r.toml", TrainConfig)


def test_values_are_those_of_the_stage_and_no_library_speaks_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'data = "folder:missing"\nout = "run"\nembeddings = "t.emb"\ntext-labels = "t.parquet"\nlr = 1\n'
    (tmp_path / "r.toml").write_text(text)
    found = read_recipe(tmp_path / "r.toml", TrainConfig)
    assert found["embeddings"] == Path("t.emb") and found["targets"] == Path("t.parquet")
    assert cli.main(["train", str(tmp_path / "r.toml")]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("Error: ") and "site-packages" not in said


@pytest.mark.parametrize("text", ["lr = inf", "lr = 1e999", "epochs = 1" + "0" * 400, "model_args = " + "[" * 9000])
def test_a_recipe_with_numbers_and_depth_that_no_option_has_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Recipe \S+ cannot be read"):
        read_recipe(tmp_path / "r.toml", TrainConfig)
