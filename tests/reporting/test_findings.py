from __future__ import annotations

from typing import Any

import pytest

from gpt4image.artifacts.run_records import Comparison, OtherImages
from gpt4image.reporting import findings
from synthetic_records import MEANS, arm_record, comparison_record, pair_record

ORACLE = {"text-labels": 0.47, "oracle": 0.5}


def two_arms(before: list[float], after: list[float], arm: str = "text-labels", **data: Any) -> Comparison:
    arms = {"baseline": arm_record(before), arm: arm_record(after)}
    return Comparison.model_validate({"metric": "top1", "arms": arms, "pairs": [pair_record(arms, arm)], "data": data})


def test_a_sure_gain_is_said_with_its_evidence() -> None:
    comparison = two_arms([0.34, 0.35, 0.354], [0.50, 0.51, 0.499], labels_per_class=5)
    assert findings.findings(comparison) == [
        "With 5 labels a class, text labels raised test accuracy from 34.8 % to 50.3 % "
        "(+15.5 points, 95 % interval +13.3 to +17.7, p = 0.001, "
        "p = 0.002 with other test images counted too, 3 seeds)."
    ]


def test_a_sure_loss_is_said_as_plainly() -> None:
    (sentence,) = findings.findings(two_arms([0.60, 0.61, 0.62], [0.50, 0.512, 0.518], "aligned"))
    assert sentence == (
        "Alignment to the descriptions lowered test accuracy from 61.0 % to 51.0 % "
        "(−10.0 points, 95 % interval −10.5 to −9.5, p < 0.001, p < 0.001 with other test images counted too, 3 seeds)."
    )


def test_a_gain_that_may_be_chance_is_no_gain() -> None:
    (sentence,) = findings.findings(two_arms([0.60, 0.61, 0.59], [0.605, 0.60, 0.62], train=2000, labelled=2000))
    assert sentence.startswith(
        "With all 2,000 training images labelled, text labels made no sure difference to test accuracy: "
        "60.0 % without, 60.8 % with (+0.8 points, "
    )
    assert "raised" not in sentence


@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        ([0.3], [0.5], "(+20.0 points), but 1 seed is too few to tell this from chance."),
        ([0.3, 0.31], [0.5, 0.512], "(+20.1 points), but 2 seeds are too few to tell this from chance."),
    ],
)
def test_fewer_than_three_seeds_show_nothing_sure(before: list[float], after: list[float], end: str) -> None:
    comparison = two_arms(before, after)
    (sentence,) = findings.findings(comparison)
    assert sentence.endswith(end)
    assert "raised" not in sentence
    assert not findings.is_sure(comparison.pairs[0])
    assert findings.few_seeds_note(comparison)


def test_a_difference_without_p_value_is_not_sure() -> None:
    comparison = two_arms([0.25, 0.5, 0.75], [0.375, 0.5, 0.75])
    pair = comparison.pairs[0].model_copy(update={"p": None, "ci95": None, "other_images": OtherImages()})
    assert "no sure difference" in findings.finding(comparison, pair)
    assert not findings.is_sure(pair.model_copy(update={"other_images": OtherImages(p=0.01)})), "one p is not both"
    assert "no p-value" in findings.finding(comparison, pair)


def test_a_difference_that_other_test_images_could_undo_is_not_sure() -> None:
    comparison = Comparison.model_validate(comparison_record())
    pair = comparison.pair("text-labels")
    assert pair is not None and findings.is_sure(pair)
    undone = pair.model_copy(update={"other_images": OtherImages(ci95=(-0.01, 0.3), p=0.08)})
    assert not findings.is_sure(undone)
    assert "p = 0.080 with other test images counted too" in findings.finding(comparison, undone)
    assert findings.is_sure(pair.model_copy(update={"other_images": OtherImages()})), "an older record has no such test"


def test_it_says_how_much_of_the_way_to_all_labels_texts_go() -> None:
    comparison = Comparison.model_validate(comparison_record(means={"baseline": 0.3, "aligned": 0.2, **ORACLE}))
    _, sentence, *_ = findings.findings(comparison)
    whole, part = comparison.pair("oracle"), comparison.pair("text-labels")
    assert whole is not None and part is not None
    share = part.difference / whole.difference
    assert findings.recovered(comparison, "text-labels") == pytest.approx(share)
    assert f"brings back: text labels {100 * share:.0f} %, alignment to the descriptions −" in sentence
    unsure = Comparison.model_validate(comparison_record(means={"baseline": 0.49, **ORACLE}))
    assert findings.recovered(unsure, "text-labels") is None, "nothing sure was lost"
    assert not any("brings back" in line for line in findings.findings(unsure))


def test_the_headline_arm_is_fixed_and_not_the_best_on_test() -> None:
    comparison = Comparison.model_validate(comparison_record(means={**MEANS, "aligned": 0.58}))
    headline, *others = findings.findings(comparison)
    assert "text labels raised" in headline
    assert any("lignment to the descriptions raised" in sentence for sentence in others)
    assert findings.best_text_arm(comparison) == "aligned"


def test_a_pair_without_the_baseline_names_what_it_is_against() -> None:
    last = findings.findings(Comparison.model_validate(comparison_record()))[-1]
    assert last.startswith("Text labels raised test accuracy from 37.7 % (the nearest class name) to 49.4 %")


def test_two_arms_that_may_be_equal_are_named_together() -> None:
    record = comparison_record(means={"baseline": 0.3, "text-labels": 0.5, "zero-shot": 0.5})
    assert findings.findings(Comparison.model_validate(record))[-1].startswith(
        "Between text labels and the nearest class name there is no sure difference in test accuracy: 5"
    )


def test_arms_of_a_recipe_have_a_sentence_too() -> None:
    (sentence,) = findings.findings(two_arms([0.3, 0.31, 0.32], [0.5, 0.51, 0.53], "my\narm"))
    assert sentence.startswith("My arm raised test accuracy")


def test_arms_without_pairs_are_named_with_their_means() -> None:
    record = comparison_record(means={"baseline": 0.35}) | {"pairs": []}
    assert findings.findings(Comparison.model_validate(record)) == [
        "Test accuracy is 35.1 % with labels alone; no pair of arms was compared."
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ""),
        ({"labels_per_class": 1}, "With 1 label a class"),
        ({"label_noise": 0.4, "labelled": 10, "train": 10}, "With 40 % of the training labels wrong"),
        ({"labels_per_class": 5, "label_noise": 0.4}, "With 5 labels a class, 40 % of them wrong"),
        (
            {"label_noise": 0.4, "noise_kind": "class-dependent"},
            "With 40 % of the training labels wrong (each class taken for one other)",
        ),
        (
            {"described_fraction": 0.1, "imbalance": 50.0},
            "With 10 % of the descriptions, the largest class 50 times the smallest",
        ),
        ({"labelled": 90, "train": 1007}, "With 90 of 1,007 training images labelled"),
    ],
)
def test_the_condition_says_what_labels_there_were(data: dict[str, Any], words: str) -> None:
    assert findings.condition(data) == words


def test_the_terminal_table_has_a_line_per_arm_and_the_findings() -> None:
    text = findings.comparison_table(comparison_record())
    line = next(line for line in text.splitlines() if line.strip().startswith("text-labels"))
    words = "text-labels 49.4 % 46.9 to 52.0 % 48.6 49.1 50.6 +14.3 +12.2 to +16.3 0.001 0.002 42 s 612 MB"
    assert " ".join(line.split()) == words
    assert "With 5 labels a class, text labels raised" in text
    assert "*" not in text


def test_a_long_name_costs_no_number() -> None:
    record = comparison_record(means={**MEANS, "text-labels-with-" + 5 * "a-very-long-": 0.4})
    table = findings.comparison_table(record)
    assert "…" not in table
    name, arm = list(record["arms"].items())[-1]
    assert all(f"{100 * value:.1f}" in table for value in arm["test"]) and name[:20] in table


def test_nothing_in_a_name_acts_on_a_terminal() -> None:
    arms = {"baseline": arm_record([0.3, 0.4, 0.5]), "x\x1b[31mred\u202e": arm_record([0.4, 0.5, 0.6])}
    table = findings.comparison_table({"metric": "top1", "arms": arms, "pairs": []})
    assert "\x1b" not in table and "\u202e" not in table
    assert r"x\x1b[31mred\u202e" in table


def test_the_terminal_table_takes_names_literally() -> None:
    record = comparison_record(means={"baseline": 0.3, "[red]odd[/red]": 0.4})
    assert "[red]odd[/red]" in findings.comparison_table(record)


def test_few_seeds_are_marked_in_every_table() -> None:
    record = comparison_record(seeds=2)
    for table in (findings.comparison_table(record), findings.markdown_table(record).replace("\\", "")):
        assert " *" in table
        assert "* n < 3 seeds" in table


def test_markdown_tables_are_well_formed() -> None:
    record = comparison_record(means={"baseline": 0.3, "a|b<i>": 0.4})
    table = findings.markdown_table({**record, "comparisons": {"few": record, "all": record}})
    assert table.count("**few**") == table.count("**all**") == 1
    assert "a\\|b&lt;i>" in table
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {len(findings.HEADINGS) + 1}
