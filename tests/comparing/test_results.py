"""The record of a comparison: what is measured, its statistics, notes, and what the report shows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from comparing.cases import SMALL
from gpt4image.base.errors import DamagedError
from gpt4image.base.files import read_json, write_parquet
from gpt4image.comparing.compare import compare, write_extras
from gpt4image.comparing.planning import Member, make_plan
from gpt4image.comparing.results import crossed, mean_ci, pair, paired, scores_of, uninformative_texts
from gpt4image.config import CompareConfig


@pytest.mark.parametrize("resampled", [False, True])
def test_other_images_never_make_a_difference_surer_than_the_seeds_alone(resampled: bool) -> None:
    rng, surer = np.random.default_rng(0), 0
    for _ in range(50):
        scores = {arm: rng.random((3, 40)) < rng.random((3, 1)) * 0.2 + 0.4 for arm in "ab"}
        values = {arm: hits.mean(axis=1).tolist() for arm, hits in scores.items()}
        times = rng.multinomial(40, np.full(40, 1 / 40), size=200).T / 40
        by_resamples = {arm: hits @ times for arm, hits in scores.items()} if resampled else {}
        found = pair("a", "b", values, scores, by_resamples)
        (low, high), (widest, highest) = found["ci95"], found["other_images"]["ci95"]
        assert widest <= low and high <= highest and found["other_images"]["p"] >= found["p"]
        alone = crossed(**(by_resamples or scores), averaged=not resampled)
        surer += (alone.p or 0.0) < found["p"]
    assert surer, "the second test alone is surer at times, or this test says nothing"


def test_scores_by_image_are_read_without_images_that_have_no_label(tmp_path: Path) -> None:
    path = tmp_path / "predictions-test.parquet"
    write_parquet(path, pa.table({"score": [0.5, np.nan, np.nan, 1.0]}))
    assert scores_of(tmp_path).tolist() == [0.5, 1.0]
    path.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DamagedError, match="predictions-test"):
        scores_of(tmp_path)


def test_arms_that_left_their_texts_out_are_named_with_the_seeds() -> None:
    members = {name: Member(arm=name, options={}) for name in ("baseline", "text-labels", "fused")}

    def record(with_target: int, labelled: int = 10) -> dict[str, dict[str, int]]:
        return {"data": {"train": 40, "labelled": labelled, "with_target": with_target}}

    facts = {
        "baseline": [record(10)] * 3,
        "text-labels": [record(10), record(40), record(10)],
        "fused": [record(40)] * 3,
    }
    (note,) = uninformative_texts(members, facts)
    assert note.startswith("text-labels: no text or answer gave") and "in 2 of 3 runs;" in note
    assert uninformative_texts(members, facts | {"text-labels": [record(40, labelled=40)] * 3}) == []


@pytest.mark.slow
def test_a_comparison_leaves_pictures_texts_and_suspected_errors(
    described_colours: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, table = described_colours
    out = tmp_path / "cmp"
    options: dict[str, Any] = {"data": f"folder:{folder}", "embeddings": table, "out": out, "labels_per_class": 6}
    config = CompareConfig(**options, **SMALL, seeds=1, arms="aligned,text-labels")
    assert compare(config).skipped == ()
    examples = read_json(out / "examples.json")
    assert {"baseline", "aligned", "text-labels"} == set(examples[0]["predictions"])
    assert any(example["text_label"] for example in examples if example["split"] == "train")
    known = read_json(out / "descriptions.json")
    assert known["described"] == known["images"] == known["descriptions"] == 48
    assert known["describers"][0]["cost_usd"] == pytest.approx(0.048) and known["words"]["min"] == 6
    assert isinstance(read_json(out / "doubtful-labels.json"), list)
    facts = read_json(out / "comparison.json")["data"]
    assert facts["test_labelled"] == facts["test"] > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("done", "pictures", "descriptions"))
    (tmp_path / "texts.db").write_bytes(b"no store any more" * 100)
    skipped = write_extras(make_plan(config))
    assert {item.name for item in skipped} >= {"descriptions.json"}
    assert all("left out of the report" in item.reason for item in skipped)
    write_extras(make_plan(config.model_copy(update={"arms": "baseline"})))
    left = {path.name for path in out.glob("*.json")}
    assert not left & {"doubtful-labels.json", "descriptions.json"}, "they were of other arms"


fractions = st.integers(0, 1000).map(lambda i: i / 1000)
samples = st.lists(fractions, min_size=2, max_size=12)
pairs = st.lists(st.tuples(fractions, fractions), min_size=2, max_size=12)


@given(samples)
def test_interval_is_the_naive_one(values: list[float]):
    mean, interval = mean_ci(values)
    naive = sum(values) / len(values)
    variance = sum((value - naive) ** 2 for value in values) / (len(values) - 1)
    half = stats.t.ppf(0.975, len(values) - 1) * math.sqrt(variance / len(values))
    assert mean == pytest.approx(naive, abs=1e-9) and interval == pytest.approx([naive - half, naive + half], abs=1e-9)


@given(pairs)
def test_paired_is_scipys_paired_t_test(values: list[tuple[float, float]]):
    a, b = (list(side) for side in zip(*values, strict=True))
    result = paired(a, b)
    assert result.difference == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    differences = np.round(np.subtract(a, b), 6)
    if np.ptp(differences) > 0:
        assert result.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    else:
        assert result.p == (1.0 if differences[0] == 0 else None)


def test_one_seed_and_equal_differences_have_no_p():
    assert mean_ci([0.5]) == (0.5, None)
    one, equal, same = paired([0.6], [0.5]), paired([0.3, 0.4, 0.5], [0.2, 0.3, 0.4]), paired([0.3, 0.4], [0.3, 0.4])
    assert (one.ci95, one.p, one.n) == (None, None, 1)
    assert equal.difference == pytest.approx(0.1) and (equal.ci95, equal.p) == (None, None)
    assert (same.ci95, same.p) == ((0.0, 0.0), 1.0)
    right, mixed = np.ones((3, 2), bool), np.array([[True, False], [False, True]])
    assert (crossed(right, ~right).ci95, crossed(right, ~right).p) == (None, None)
    assert crossed(right, right).p == crossed(mixed, mixed).p == 1.0
    assert crossed(mixed[:1], ~mixed[:1]).p is None


hits = st.tuples(st.integers(2, 5), st.integers(2, 12)).flatmap(
    lambda shape: st.tuples(*[arrays(np.bool_, shape) for _ in range(2)])
)


@given(hits)
def test_crossed_is_the_naive_analysis_of_variance(both: tuple[NDArray[np.bool_], NDArray[np.bool_]]):
    a, b = both
    n, images = a.shape
    d = [[float(a[s, i]) - float(b[s, i]) for i in range(images)] for s in range(n)]
    mean = sum(map(sum, d)) / (n * images)
    seed = [sum(row) / images for row in d]
    image = [sum(row[i] for row in d) / n for i in range(images)]
    of_seeds = images * sum((value - mean) ** 2 for value in seed) / (n - 1)
    of_images = n * sum((value - mean) ** 2 for value in image) / (images - 1)
    rest = sum((d[s][i] - seed[s] - image[i] + mean) ** 2 for s in range(n) for i in range(images))
    rest /= (n - 1) * (images - 1)
    components = [max((of_seeds - rest) / images, 0) / n, max((of_images - rest) / n, 0) / images, rest / (n * images)]
    result = crossed(a, b)
    assert result.difference == pytest.approx(mean, abs=1e-12)
    if abs(mean) == 1.0:  # all differences are equal
        assert result.ci95 is None
        return
    assert result.ci95 is not None
    assert result.p is not None
    assert (result.ci95[1] - mean) >= stats.norm.ppf(0.975) * math.sqrt(sum(components)) - 1e-9
    seeds_differ = max(of_seeds, rest) > 1e-12
    freedom = (n - 1) * (sum(components) / max(of_seeds, rest) * n * images) ** 2 if seeds_differ else math.inf
    freedom = min(freedom, images - 1)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(components))
    assert result.ci95 == pytest.approx((mean - half, mean + half), abs=1e-9)


def test_a_bootstrap_finds_a_difference_that_is_there_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0.5, 0.05, 1000)
    one, other = (shared + rng.normal(0, 0.005, (5, 1000)) for _ in range(2))
    none, there = crossed(one, other, averaged=False), crossed(one + 0.03, other, averaged=False)
    assert none.ci95 is not None and none.ci95[0] < 0 < none.ci95[1] and (none.p or 0) > 0.3
    assert there.difference == pytest.approx(0.03, abs=0.002)
    assert there.ci95 is not None and 0.02 < there.ci95[0] < there.ci95[1] < 0.04
    assert there.p is not None and there.p < 0.001
    assert crossed(one[:1], other[:1], averaged=False).p is None, "one seed says nothing of others"
