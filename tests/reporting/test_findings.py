"""Findings, shares and tables of a comparison: every number where it belongs, no stronger than its seeds allow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gpt4image.artifacts.comparisons import Comparison, OtherImages
from gpt4image.config import ReportConfig
from gpt4image.config.arms import ARMS
from gpt4image.reporting import findings
from gpt4image.reporting.findings import metric_label, metric_tables, recovered
from gpt4image.reporting.report import report
from synthetic_records import MEANS, arm_record, comparison_record, pair_record, write_comparison

MAP = {"metric": "mAP", "titles": {"mAP": "mean average precision (mAP)", "f1_macro": "F1, mean over classes"}}


def two_arms(before: list[float], after: list[float], arm: str = "text-labels", **data: Any) -> Comparison:
    arms = {"baseline": arm_record(before), arm: arm_record(after)}
    return Comparison.model_validate({"metric": "top1", "arms": arms, "pairs": [pair_record(arms, arm)], "data": data})


@pytest.mark.parametrize(
    ("before", "after", "arm", "data", "sentence"),
    [
        ([0.34, 0.35, 0.354], [0.50, 0.51, 0.499], "text-labels", {"labels_per_class": 5},
         "With 5 labels per class, text labels raised test accuracy from 34.8 % to 50.3 % (+15.5 points, 95 % interval "
         "+12.9 to +18.1, p = 0.002 over 3 seeds and the test images)."),
        ([0.60, 0.61, 0.62], [0.50, 0.512, 0.518], "aligned", {},
         "Alignment to the descriptions lowered test accuracy from 61.0 % to 51.0 % (−10.0 points, 95 % interval "
         "−10.6 to −9.4, p < 0.001 over 3 seeds and the test images)."),
        ([0.60, 0.61, 0.59], [0.605, 0.60, 0.62], "text-labels", {"train": 2000, "labelled": 2000},
         "With all 2,000 training images labelled, text labels made no significant difference to test accuracy: 60.0 % "
         "without, 60.8 % with (+0.8 points, 95 % interval −5.2 to +6.9, p = 0.82 over 3 seeds and the test images)."),
        ([0.3], [0.5], "my\narm", {}, "My arm changed test accuracy from 30.0 % to 50.0 % (+20.0 points): "
         "inconclusive, 1 seed is too few for a test."),
        ([0.3, 0.31], [0.5, 0.512], "text-labels", {}, "Text labels changed test accuracy from 30.5 % to 50.6 % "
         "(+20.1 points): inconclusive, 2 seeds are too few for a test."),
    ],
)  # fmt: skip
def test_a_difference_is_stated_with_its_evidence_and_no_stronger(
    before: list[float], after: list[float], arm: str, data: dict[str, Any], sentence: str
) -> None:
    comparison = two_arms(before, after, arm, **data)
    assert findings.findings(comparison) == [sentence]
    significant = "raised" in sentence or "lowered" in sentence
    assert findings.is_significant(comparison.pairs[0]) == significant
    assert bool(findings.few_seeds_note(comparison)) == ("inconclusive" in sentence)


def test_both_p_values_decide() -> None:
    comparison = Comparison.model_validate(comparison_record())
    pair = comparison.pair("text-labels")
    assert pair is not None and findings.is_significant(pair)
    undone = pair.model_copy(update={"other_images": OtherImages(ci95=(-0.01, 0.3), p=0.08)})
    assert not findings.is_significant(undone)
    assert "p = 0.080 over 3 seeds and the test images" in findings.finding(comparison, undone)
    older = pair.model_copy(update={"other_images": OtherImages()})
    assert findings.is_significant(older), "an older record has no such test"
    untested = older.model_copy(update={"p": None, "ci95": None})
    assert "no significant difference" in (sentence := findings.finding(comparison, untested))
    assert "no p-value" in sentence
    assert not findings.is_significant(untested.model_copy(update={"other_images": OtherImages(p=0.01)}))


def test_controls_and_references_are_told_from_ways_to_train_and_come_last() -> None:
    means = {"oracle": 0.6, "baseline": 0.3, "shuffled": 0.31, "text-labels": 0.5, "mine": 0.4}
    record = comparison_record(means=means)
    record["arms"]["mine"]["arm"] = "class-name"
    arms = findings.bounds_last(Comparison.model_validate(record))
    kinds = {name: findings.is_bound(name, arm) for name, arm in arms.items()}
    assert list(kinds.items()) == [
        ("baseline", ""), ("text-labels", ""), ("oracle", "reference"), ("shuffled", "control"), ("mine", "control"),
    ]  # fmt: skip


def test_the_headline_arm_is_fixed_and_not_the_best_on_test() -> None:
    comparison = Comparison.model_validate(comparison_record(means={**MEANS, "aligned": 0.58}))
    headline, *others = findings.findings(comparison)
    assert "text labels raised" in headline
    assert any("lignment to the descriptions raised" in sentence for sentence in others)
    assert others[-1].startswith("Text labels raised test accuracy from 37.7 % (the nearest class name) to 49.4 %")
    assert findings.best_text_arm(comparison) == "aligned"
    lower = comparison.model_copy(update={"higher_is_better": False})
    assert findings.best_text_arm(lower) == "zero-shot"


def test_pairs_without_a_difference_and_arms_without_pairs_are_named() -> None:
    record = comparison_record(means={"baseline": 0.3, "text-labels": 0.5, "zero-shot": 0.5})
    assert findings.findings(Comparison.model_validate(record))[-1].startswith(
        "No significant difference in test accuracy between text labels and the nearest class name: 5"
    )
    record = comparison_record(means={"baseline": 0.35}) | {"pairs": []}
    assert findings.findings(Comparison.model_validate(record)) == [
        "Test accuracy is 35.1 % with labels only; no pair of arms was compared."
    ]
    assert findings.findings(Comparison.model_validate(record | MAP))[0].startswith(
        "Test mean average precision (mAP) is 35.1 %"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ""), ({"labels_per_class": 1}, "With 1 label per class"),
        ({"label_noise": 0.4, "labelled": 10, "train": 10}, "With 40 % of the training labels wrong"),
        ({"labels_per_class": 5, "label_noise": 0.4}, "With 5 labels per class, 40 % of them wrong"),
        ({"label_noise": 0.4, "noise_kind": "class-dependent"},
         "With 40 % of the training labels wrong (each class mistaken for one other)"),
        ({"labelled": 90, "train": 1007}, "With 90 of 1,007 training images labelled"),
    ],
)  # fmt: skip
def test_the_condition_names_the_labels_there_were(data: dict[str, Any], words: str) -> None:
    assert findings.condition(data) == words


def test_the_terminal_tables_of_all_arms_fit_80_columns() -> None:
    record = comparison_record(means={**dict.fromkeys(ARMS, 0.4), "baseline": 0.3})
    record["data"] |= {"test": 1200, "test_labelled": 1100}
    first, measured, *_ = findings.comparison_tables(record).split("\n\n")
    assert first.startswith("arm") and max(map(len, first.splitlines())) <= 80
    assert measured.splitlines() == [
        "Each score is of 1,100 test images.",
        findings.findings(Comparison.model_validate(record))[0],
    ]


def metric(mean: float, difference: float | None = None, n: int = 3) -> dict[str, Any]:
    found: dict[str, Any] = {"test": [mean] * n, "mean": mean, "ci95": [mean - 0.01, mean + 0.01]}
    if difference is not None:
        found["against_baseline"] = {"difference": difference, "ci95": [0.01, 0.03], "p": 0.0004, "n": n}
    return found


EARLIER = {name: metric(0.35) for name in ("corrupted", "corrupted:jpeg", "corrupted:jpeg:1", "knn:openmoji")}
"""Metrics of records of earlier versions, which are not shown."""


def record(n: int = 3) -> dict[str, Any]:
    made, recall = comparison_record(means={"baseline": 0.34, "aligned": 0.36}), "image_to_text_recall:1"
    made["arms"]["baseline"]["metrics"] = {"top5": metric(0.8), recall: metric(0.31), **EARLIER}
    made["arms"]["aligned"] |= {
        "metrics": {"top5": metric(0.82, 0.02), recall: metric(0.33, 0.02, n), "zero_shot": metric(0.25)},
        "absent": {"retrieval": "no image of test or val has a description in the table"},
    }
    return made


def test_each_metric_has_a_table_of_the_arms_that_have_it() -> None:
    assert metric_label("image_to_text_recall:5") == "image to text, recall at 5"
    assert metric_label("own_metric") == "own metric"
    assert metric_label("own_metric", {"own_metric": "mean IoU"}) == "mean IoU"
    tables = metric_tables(Comparison.model_validate(record(n=2)))
    assert list(tables) == ["top-5 accuracy", "image to text, recall at 1", "zero-shot by class names"]
    assert tables["image to text, recall at 1"] == [
        ("baseline", "31.0 %", "30.0 to 32.0 %", "", "", ""),
        ("aligned", "33.0 %", "32.0 to 34.0 %", "+2.0", "+1.0 to +3.0", "< 0.001 *"),
    ]
    assert [row[0] for row in tables["zero-shot by class names"]] == ["aligned"]


def test_the_report_shows_them(tmp_path: Path, without_charts: None) -> None:
    cmp, plain = write_comparison(tmp_path / "cmp", record()), write_comparison(tmp_path / "plain")
    with_metrics, without = (
        report(ReportConfig(dir=folder)).path.read_text(encoding="utf-8") for folder in (cmp, plain)
    )
    assert all(text in with_metrics for text in ("Other metrics", "zero-shot by class names", "+1.0 to +3.0"))
    assert ">p</th>" in with_metrics.split("Other metrics")[0]
    assert ">p</th>" not in with_metrics.split("Other metrics")[1], "only seeds are counted there"
    assert "corrupted" not in with_metrics and "knn" not in with_metrics and "Other metrics" not in without


LOSSES = {"baseline": 0.3, "aligned": 0.2, "text-labels": 0.47, "oracle": 0.5}


def test_the_share_has_the_interval_of_all_ratios_that_a_paired_test_does_not_reject() -> None:
    comparison = Comparison.model_validate(comparison_record(seeds=5, means=LOSSES))
    share = recovered(comparison, "text-labels")
    assert share is not None
    low, high = share.interval
    tests = {name: np.array(arm.test) for name, arm in comparison.arms.items()}
    gain, loss = tests["text-labels"] - tests["baseline"], tests["oracle"] - tests["baseline"]
    assert share.value == pytest.approx(gain.mean() / loss.mean())
    for end in (low, high):
        assert stats.ttest_rel(gain, end * loss).pvalue == pytest.approx(0.05)
    assert low < share.value < high
    sentence = findings.findings(comparison)[1]
    assert sentence.startswith(
        "Share recovered of the test accuracy lost to missing or wrong labels, with 95 % interval: "
    )
    assert f"text labels {share.in_words()}, alignment to the descriptions 0 % (0 to 0 %)" in sentence


def test_no_share_is_given_where_there_may_be_no_loss() -> None:
    small = Comparison.model_validate(comparison_record(means={**LOSSES, "baseline": 0.49}))
    assert recovered(small, "text-labels") is None
    assert not any("recovered" in line for line in findings.findings(small))
    comparison = Comparison.model_validate(comparison_record(means=LOSSES))
    unsure = OtherImages(ci95=(-0.01, 0.4), p=0.06)
    pairs = [pair.model_copy(update={"other_images": unsure}) for pair in comparison.pairs]
    assert recovered(comparison.model_copy(update={"pairs": tuple(pairs)}), "text-labels") is None
    assert recovered(Comparison.model_validate(comparison_record(seeds=1, means=LOSSES)), "text-labels") is None
    free = json.loads(json.dumps(comparison_record(means=LOSSES)).replace('"baseline"', '"asked"'))
    without_labels = Comparison.model_validate(free)
    assert recovered(without_labels, "text-labels") is None, "nothing says what missing labels cost"
    assert "(answers only)" in findings.findings(without_labels)[0]
    assert recovered(comparison, "oracle") is None and recovered(comparison, "absent") is None
