from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from gpt4image.artifacts.run_records import Comparison, OtherImages
from gpt4image.reporting import findings
from gpt4image.reporting.recovered import Share, in_words, recovered
from synthetic_records import comparison_record

MEANS = {"baseline": 0.3, "aligned": 0.2, "text-labels": 0.47, "oracle": 0.5}


def test_the_share_has_the_interval_of_all_ratios_that_a_paired_test_does_not_reject() -> None:
    comparison = Comparison.model_validate(comparison_record(seeds=5, means=MEANS))
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
    assert f"text labels {in_words(share)}, alignment to the descriptions 0 % (0 to 0 %)" in sentence


def test_no_share_is_given_where_there_may_be_no_loss() -> None:
    small = Comparison.model_validate(comparison_record(means={**MEANS, "baseline": 0.49}))
    assert recovered(small, "text-labels") is None
    assert not any("recovered" in line for line in findings.findings(small))
    comparison = Comparison.model_validate(comparison_record(means=MEANS))
    unsure = OtherImages(ci95=(-0.01, 0.4), p=0.06)
    pairs = [pair.model_copy(update={"other_images": unsure}) for pair in comparison.pairs]
    assert recovered(comparison.model_copy(update={"pairs": tuple(pairs)}), "text-labels") is None
    assert recovered(Comparison.model_validate(comparison_record(seeds=1, means=MEANS)), "text-labels") is None
    free = json.loads(json.dumps(comparison_record(means=MEANS)).replace('"baseline"', '"asked"'))
    without_labels = Comparison.model_validate(free)
    assert recovered(without_labels, "text-labels") is None, "nothing says what missing labels cost"
    assert "(answers only)" in findings.findings(without_labels)[0]
    assert recovered(comparison, "oracle") is None and recovered(comparison, "absent") is None


def test_no_share_is_said_to_be_more_than_all_or_less_than_none() -> None:
    assert in_words(Share(0.563, (0.48, 0.64))) == "56 % (48 to 64 %)"
    assert in_words(Share(1.04, (0.97, 1.12))) == "100 % (97 to 100 %)"
    assert in_words(Share(-0.1, (-0.4, 0.2))) == "0 % (0 to 20 %)"
