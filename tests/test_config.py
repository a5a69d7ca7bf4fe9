"""Options: every mistake is named, with the nearest valid name, all at once."""

from __future__ import annotations

from typing import get_args

import pytest

from gpt4image import config
from gpt4image.base.errors import ConfigError
from gpt4image.config import CompareConfig, ReviewConfig, StageConfig, TrainConfig
from gpt4image.models.alignment_losses import LOSSES

STAGES = [value for value in vars(config).values() if isinstance(value, type) and issubclass(value, StageConfig)]


@pytest.mark.parametrize("field", [name for name in TrainConfig.model_fields if len(name) > 4])
def test_a_typo_in_any_option_is_refused_with_the_right_name(field: str) -> None:
    typo = field[:-2] + field[-1]
    with pytest.raises(ConfigError, match=f"'{typo}' is not known. Did you mean '{field}'"):
        TrainConfig(**{"data": "openmoji", "out": "run", typo: 1})


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(lr=-1, epochs="many", optimiser="sgd")  # type: ignore[call-arg]
    message = str(caught.value)
    for part in (
        "--lr = -1",
        "--epochs = 'many'",
        "'optimiser'",
        "'optimizer'",
        "--data is required",
        "--out is required",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "weights.pth"}, "a pickled checkpoint is never loaded"),
        ({"align_loss": "clip"}, "--align-loss = 'clip'"),
        ({"labelled_share": 1.0}, "--labelled-share"),
        ({"paper_compat": True, "align_loss": "siglip"}, "--paper-compat: the official code has"),
        ({"arms": "baseline,alinged"}, "Did you mean 'aligned'"),
        ({"label_noise": 1.0}, "--label-noise"),
        ({"seed": 10**23}, "--seed"),
        ({"lr": float("inf")}, "--lr = inf: give a finite number"),
        ({"first_seed": 2**32}, "--first-seed"),
        ({"first_seed": 2**32 - 1, "seeds": 2}, "seeds end before"),
        ({"threads": 100_000}, "--threads = 100000: give 1024 or less"),
    ],
)
def test_values_that_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompareConfig(data="openmoji", out="cmp", **options)  # type: ignore[arg-type]


def test_the_choice_of_losses_is_that_of_the_package() -> None:
    assert get_args(TrainConfig.model_fields["align_loss"].annotation) == tuple(LOSSES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_every_option_says_what_it_means_and_configurations_do_not_change(stage: type[StageConfig]) -> None:
    assert all(field.description for field in stage.model_fields.values())
    assert stage.model_config["frozen"] is True
    assert stage.__doc__


def test_how_a_result_is_printed_is_no_part_of_a_configuration() -> None:
    printed, plain = (TrainConfig(data="openmoji", out="run", as_json=flag) for flag in (True, False))
    assert printed.model_dump() == plain.model_dump()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "labels.parquet"}, r"--labels = .*labels\.parquet.*: give a file that ends with \.csv"),
        ({"port": 65536}, "--port = 65536"),
    ],
)
def test_review_refuses_what_means_nothing(options: dict[str, object], message: str) -> None:
    assert ReviewConfig(data="openmoji", labels="l.csv", classes=["cat", "dog"]).classes == "cat\ndog\n"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        ReviewConfig(**{"data": "openmoji", "labels": "l.csv"} | options)  # type: ignore[arg-type]
