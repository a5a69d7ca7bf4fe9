"""Shares and promises from a few looks: they hold whatever is estimated, and say much where that is right."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import ConfigError, DataError
from gpt4image.labelling.audited import (
    Bools,
    Floats,
    Promise,
    matches,
    order_of,
    promise,
    promised,
    share_of_things,
    share_right,
)
from tables import made_of
from worlds import in_memory

TOTAL, DRAWS = 2000, 250


def estimated_and_right(kind: str) -> tuple[Floats, Bools]:
    rng = np.random.default_rng(0)
    estimated = rng.choice([0.02, 0.6, 0.97, 0.99], TOTAL, p=[0.3, 0.1, 0.3, 0.3])
    chance = {"calibrated": estimated, "over-confident": estimated * 0.8, "useless": np.full(TOTAL, 0.7)}[kind]
    return estimated, rng.random(TOTAL) < chance


@pytest.mark.parametrize("looks", [20, 100])
@pytest.mark.parametrize("kind", ["calibrated", "over-confident", "useless"])
def test_the_interval_holds_whatever_the_proxy_says(kind: str, looks: int) -> None:
    estimated, right = estimated_and_right(kind)
    samples = [np.random.default_rng(seed).permutation(TOTAL)[:looks] for seed in range(DRAWS)]
    shares = [share_right(estimated, rows, right[rows]) for rows in samples]
    inside = [share.low <= right.mean() <= share.high for share in shares]
    assert np.mean(inside) >= 0.93, "0.94, and what 250 draws may be off"
    assert abs(np.mean([share.share for share in shares]) - right.mean()) < 0.02, "it has no bias"
    at_random = share_right(np.ones(TOTAL), np.arange(looks), right[:looks])
    if kind == "calibrated" and looks == 100:
        widths = [share.high - share.low for share in shares]
        assert np.mean(widths) < 0.7 * (at_random.high - at_random.low)


@given(st.integers(1, 60), st.integers(0, 2**31), st.data())
def test_more_looks_narrow_the_interval_to_the_truth(total: int, seed: int, data: st.DataObject) -> None:
    estimated = np.array(data.draw(st.lists(st.floats(0, 1), min_size=total, max_size=total)))
    order = np.random.default_rng(seed).permutation(total)
    right = np.random.default_rng(seed + 1).random(total) < 0.5
    for count in {1, (total + 1) // 2, total}:
        share = share_right(estimated, order[:count], right[order[:count]])
        assert 0 <= share.low <= share.share + 1e-9 and share.share <= share.high + 1e-9 <= 1 + 1e-8
        assert share.looks_for(0.5) <= share.looks_for(0.03) <= total
    share = share_right(estimated, order, right[order])
    assert share.low == pytest.approx(share.high) == pytest.approx(right.mean()), "all were looked at"


def test_the_order_is_random_and_stays_when_images_come_or_go() -> None:
    digests = [f"{number:064x}" for number in range(100)]
    order = [digests[row] for row in order_of(digests)]
    assert sorted(order) == digests != order
    fewer = digests[::2]
    assert [fewer[row] for row in order_of(fewer)] == [one for one in order if one in fewer]


@pytest.mark.parametrize("alike", [1.0, 30.0])
def test_things_of_one_image_are_taken_as_alike(alike: float) -> None:
    rng = np.random.default_rng(0)
    total = rng.poisson(3, 800)
    right = rng.binomial(total, rng.beta(alike * 0.9, alike * 0.1, 800))
    shares = [
        share_of_things(right[rows], total[rows], 800) for _ in range(400) for rows in [rng.permutation(800)[:50]]
    ]
    true = right.sum() / total.sum()
    assert np.mean([one is not None and one.low <= true <= one.high for one in shares]) >= 0.94
    assert share_of_things(np.zeros(9, int), np.zeros(9, int), 800) is None


CAT, DOG, SMALL = ["cat", 0.0, 0.0, 0.5, 0.5], ["dog", 0.0, 0.0, 0.5, 0.5], ["cat", 0.0, 0.0, 0.1, 0.1]


@pytest.mark.parametrize(
    ("said", "true", "count"),
    [(["a", "b"], ["b", "c"], 1), ([], [], 0), ([CAT], [], 0), ([CAT, SMALL], [SMALL, CAT], 2), ([CAT], [DOG], 0),
     ([CAT, CAT], [CAT], 1), ([SMALL], [CAT], 0), ([["cat", 0.0, 0.0, 0.5, 0.4, 0.3]], [CAT], 1)],
)  # fmt: skip
def test_what_is_said_matches_what_is_true_once(said: list[object], true: list[object], count: int) -> None:
    assert matches(said, true) == count


@pytest.mark.parametrize("wrong_of_sure", [0.002, 0.018, 0.03])
def test_a_promise_is_kept(wrong_of_sure: float) -> None:
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.9, 1, 1500), rng.uniform(0.3, 0.9, 500)])
    wrong = rng.random(TOTAL) < np.where(confidence > 0.9, wrong_of_sure, 1 - confidence)
    order, kept, sizes = np.argsort(-confidence, kind="stable"), [], []
    for _ in range(DRAWS):
        rows = rng.permutation(TOTAL)[:400]
        found = promise(confidence, rows, wrong[rows], 0.02)
        kept.append(wrong[order[: found.images]].sum() <= 0.02 * found.images)
        sizes.append(found.images)
    assert np.mean(kept) >= 0.95
    assert (np.mean(sizes) > 1300) == (wrong_of_sure == 0.002)


def test_too_few_looks_promise_nothing_and_say_how_many_are_needed() -> None:
    confidence = np.linspace(1, 0.5, 1000)
    few = promise(confidence, np.arange(60), np.zeros(60, bool), 0.02)
    assert few == Promise(images=0, looks=60, wrong=0, needed=few.needed) and 150 < few.needed < 200
    enough = promise(
        confidence, np.arange(1000)[:: 1000 // few.needed], np.zeros(1000, bool)[:: 1000 // few.needed], 0.02
    )
    assert enough.images == 1000
    bad = promise(confidence, np.arange(0, 1000, 2), np.ones(500, bool), 0.02)
    assert bad.images == bad.needed == 0 and bad.wrong == bad.looks > 0
    everything = promise(confidence[:50], np.arange(50), np.arange(50) >= 40, 0.05)
    assert everything.images == 42, "all were looked at"


def test_targets_that_are_promised_stay_and_the_others_go(tmp_path: Path) -> None:
    pictures = [f"picture {number}".encode() for number in range(300)]
    images = in_memory(pictures, [-1] * 300, classes=("cat", "dog"))
    sure = np.linspace(1, 0.55, 300, dtype=np.float32)
    targets = made_of(images, images.classes, np.stack([sure, 1 - sure], 1))
    looks, order = tmp_path / "audit.csv", order_of(images.digests).tolist()
    lines = ["path,key,label,split,review,digest"]
    for row in order[:200]:  # the unsure ones are wrong, or not known
        said = "cat,train,checked" if row < 250 else "dog,train,checked" if row % 2 else ",train,unsure"
        lines.append(f"{row}.png,k{row},{said},{images.digests[row]}")
    with pytest.raises(ConfigError, match=r"needs \d+ looks or more, and .*audit.csv has 0 .*--looks \d+"):
        promised(targets, looks, 0.05)
    looks.write_text("\n".join(lines[:20]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"has 19 at these images"):
        promised(targets, looks, 0.05)
    looks.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept, said = promised(targets, looks, 0.05)
    assert 200 < len(kept.keys) < 264 and kept.keys == images.keys[: len(kept.keys)]
    assert said.startswith(f"At most 5.0% of the {len(kept.keys)} targets are wrong, with 95 % confidence")
    with pytest.raises(ConfigError, match=r"cannot be promised: [1-9]"):
        promised(made_of(images, images.classes, np.stack([1 - sure, sure], 1)), looks, 0.05)
    for word in ("checked", "cat"):
        odd = "\n".join(lines).replace(word, f"{word.title()} ", 1) + "\n"
        looks.write_text(odd, encoding="utf-8")
        with pytest.raises(DataError, match=f"audit.csv: .*'{word.title()} ?'"):
            promised(targets, looks, 0.05)
    looks.write_text("path,label\na,cat\n", encoding="utf-8")
    with pytest.raises(DataError, match="was not written by `gpt4image audit`"):
        promised(targets, looks, 0.05)
