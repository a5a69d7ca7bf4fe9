"""A second describer for the images where it is expected to mend most: a dear one after a cheap one.

A random pilot of PILOT images is asked of both. It calibrates how probably the second answer differs, by the first
one's stated confidence, whether it names a second class, and its class. Then come rounds of the images with the largest
expected gain of right labels per dollar, until it is below the limit; each round calibrates anew. All that is known
lies in the store, so that a run that was killed goes on, and nothing is paid for twice.

Legend: N images, K answered classes.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from gpt4image.artifacts.answers import CLASS, Answer, describer_name
from gpt4image.artifacts.class_lists import ClassNames
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError
from gpt4image.base.progress import say
from gpt4image.config import DescribeConfig
from gpt4image.config.base import flag_of, listed
from gpt4image.config.results import DescribeResult
from gpt4image.data import Dataset
from gpt4image.describing.asking import asked_images
from gpt4image.describing.describers.registry import SERVERS, load_describer
from gpt4image.describing.prices import FREE
from gpt4image.pages.numbers import text_table
from gpt4image.selecting.order import at_random

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PILOT = 50
ROUNDS = 4  # about so many: a round is this part of the images that are worth it, and no smaller than the pilot
SHARES = (0.05, 0.1, 0.2, 0.5)
"""Parts of the images at which the curve is told."""
UNANSWERED = 0.9  # probability that the second answer differs from none
# Of differing answers, how many second ones are right, first ones are right, and neither: counts that stand for what is
# believed before there is a label.
MENDED, SPOILT, NEITHER = 7.0, 1.5, 1.5
AGREED, AGREED_WRONG = 29.0, 1.0  # of equal answers, how many are right and wrong: so, too
_COSTS = "cost_usd_earlier", "cost_usd"
_SPREADS = 1.5, 0.5, 1.0, 0.5  # prior standard deviations: level, confidence, no second class, each class

Describe = Callable[[DescribeConfig, "Collection[str] | None"], DescribeResult]


class Known(NamedTuple):
    """What is known of N images."""

    said: Ints  # (N,) number of the first describer's class; -1 for an image without an answer
    confidence: Floats  # (N,) stated probability, NaN where none is stated
    second: NDArray[np.bool_]  # (N,) whether a second class is named
    differs: Ints  # (N,) 1 where the second describer's class is another one, 0 where it is the same, -1 without it
    right: Ints  # (N, 2) whether the first and the second answer are right by a label, -1 where that is not known


class Forecast(NamedTuple):
    """What asking the second describer brings: (N,) expected gain of right labels, and those expected as it is.

    The gain is 0 for images that were asked about.
    """

    gain: Floats
    right: float


def pilot(digests: Collection[str]) -> list[str]:
    """Return PILOT images at random; always the same of the same ones, and most of them when some are added."""
    every = list(digests)
    return [every[row] for row in at_random(every, "pilot")[:PILOT]]


def forecast(known: Known) -> Forecast:
    """Return what is expected of the second describer.

    The probability of another answer is a logistic regression with a prior towards the stated confidence: what is
    learned from few looks stays near it. Images with a label and a first answer only count as looks, too, where the
    answer is wrong.
    """
    answered, asked = known.said >= 0, known.differs >= 0
    differs = np.full(len(answered), UNANSWERED)
    differs[answered] = _other_answer(known, answered)
    both = (known.right >= 0).all(axis=1) & (known.differs == 1)
    mended, spoilt = (float((known.right[both, which] == 1).sum()) for which in (1, 0))
    total = MENDED + SPOILT + NEITHER + both.sum()
    mended, spoilt = (MENDED + mended) / total, (SPOILT + spoilt) / total
    same = known.right[known.differs == 0, 0]
    agreed = (AGREED + (same == 1).sum()) / (AGREED + AGREED_WRONG + (same >= 0).sum())
    gain = np.where(answered, differs * (mended - spoilt), differs * mended)
    first_right = np.where(answered, (1 - differs) * agreed + differs * spoilt, 0.0)
    right = np.where(asked, np.where(known.differs == 1, mended, agreed), first_right)
    return Forecast(np.where(asked, 0.0, np.maximum(gain, 0.0)), float(right.sum()))


def _other_answer(known: Known, rows: NDArray[np.bool_]) -> Floats:
    """Return (n,) the probability that the second answer differs from the first, for n images with a first one."""
    stated = np.where(np.isnan(known.confidence), 0.85, known.confidence)[rows]
    doubt = 1 - np.clip(stated, 0.02, 0.99)
    _, said = np.unique(known.said[rows], return_inverse=True)
    x = np.zeros((len(doubt), 3 + said.max(initial=-1) + 1))
    x[:, 0], x[:, 1], x[:, 2] = 1, np.log(doubt / (1 - doubt)), ~known.second[rows]
    x[np.arange(len(said)), 3 + said] = 1
    y = np.where(known.differs >= 0, known.differs, np.where(known.right[:, 0] >= 0, 1 - known.right[:, 0], -1))[rows]
    seen = np.flatnonzero(y >= 0)
    prior = np.zeros(x.shape[1])
    prior[1] = 1.0  # the confidence as it is stated
    precision = 1 / np.array([*_SPREADS[:3], *[_SPREADS[3]] * (x.shape[1] - 3)]) ** 2
    sign = np.where(y[seen] == 1, -1.0, 1.0)

    def loss(weights: Floats) -> tuple[float, Floats]:
        score, away = sign * (x[seen] @ weights), weights - prior
        value = np.logaddexp(0, score).sum() + 0.5 * (precision * away**2).sum()
        return float(value), x[seen].T @ (sign * expit(score)) + precision * away

    return expit(x @ minimize(loss, prior, jac=True, method="L-BFGS-B").x)


def next_round(gain: Floats, least: float, tried: Collection[int] = ()) -> Ints:
    """Return the images to ask next, the largest gain first: a part of those with at least this gain."""
    order = np.argsort(-gain, kind="stable")
    worth = np.array([row for row in order.tolist() if gain[row] >= max(least, 1e-9) and row not in tried], np.int64)
    return worth[: max(PILOT, math.ceil(len(worth) / ROUNDS))]


def curve(found: Forecast, least: float, price: float | None) -> list[tuple[int, float | None, float]]:
    """Return images, cost and expected right labels of asking about none more, parts of them, all, and those worth it.

    An image costs ``price`` US dollars, None if unknown.
    """
    gains, open_ = np.sort(found.gain)[::-1], int((found.gain > 0).sum())
    total, worth = len(gains), int((gains >= max(least, 1e-9)).sum())
    counts = sorted({0, worth, open_, *(min(open_, round(share * total)) for share in SHARES)})
    return [(n, None if price is None else price * n, found.right + float(gains[:n].sum())) for n in counts]


def describe_in_turn(config: DescribeConfig, describe: Describe) -> DescribeResult:
    """Ask the first describer about all images, and the second one where that is expected to be worth it.

    ``describe`` asks one describer, about all images or those with the given digests. Raises ConfigError.
    """
    assert config.second_describer is not None  # noqa: S101  (asked for)
    first = config.model_copy(update={"second_describer": None})
    own = {
        "describer": config.second_describer,
        "batch": False,
        "price": None,
        "base_url": config.second_base_url or config.base_url,
    }
    both = [first, first.model_copy(update=own)]
    if any(served := [one.describer.partition(":")[0] in SERVERS for one in both]):  # options of a server alone
        alone = {"per_call": 1, "examples": 0}
        both = [one.model_copy(update={} if is_server else alone) for one, is_server in zip(both, served, strict=True)]
    describers = [load_describer(one) for one in both]
    names, free = [describer_name(one.settings) for one in describers], [one.price == FREE for one in describers]
    if CLASS not in listed(config.ask):
        raise ConfigError(f"--second-describer is for uncertain classes, but --ask is {config.ask}; add class.")
    if names[0] == names[1]:
        raise ConfigError(
            f"--second-describer {config.second_describer} is the describer that was asked first; give another."
        )
    if not all(free):  # a limit of the other one's cost
        both = [one.model_copy(update={"max_cost": None} if no else {}) for one, no in zip(both, free, strict=True)]
    outcome, second = describe(both[0], None), both[1]
    if config.dry_run:
        other = describe(second, None)
        text = f"{outcome.text}\n{config.second_describer} for all. {other.text}"
        return replace(outcome, **_together(outcome, [other]), text=text)
    if outcome.stopped_by is not None:
        waits = "The second describer is asked when the first one is done."
        return replace(outcome, text=f"{outcome.text} {waits}".strip())
    return _ask_second(config, second, describers[1].settings, names, outcome, describe)


def _ask_second(
    config: DescribeConfig,
    second: DescribeConfig,
    settings: Mapping[str, Any],
    names: Sequence[str],
    first: DescribeResult,
    describe: Describe,
) -> DescribeResult:
    """Ask the pilot, tell the curve, and ask rounds until none is worth it or the budget ends."""
    images = asked_images(config, config.data)[1]
    digests, done, stopped, text = list(dict.fromkeys(images.digests)), list[DescribeResult](), None, ""
    row_of, tried = {digest: row for row, digest in enumerate(digests)}, set[int]()
    known = _known(config, names, images, digests)
    chosen, found = [row_of[digest] for digest in pilot(digests)], forecast(known)
    while chosen:
        left = dict[str, Any]()
        if second.limit is not None:
            left["limit"] = second.limit - sum(one.described + one.failed + one.rejected for one in (first, *done))
            if left["limit"] <= 0:
                stopped = "limit"
                break
        done.append(one := describe(second.model_copy(update=left), {digests[row] for row in chosen}))
        tried |= {*chosen}
        known = _known(config, names, images, digests)
        found, answers = forecast(known), int((known.differs >= 0).sum())
        price = _paid(config, settings) / answers if one.cost_usd is not None and answers else None
        least = max(
            config.least_gain,
            0.0 if config.value_per_label is None or price is None else price / config.value_per_label,
        )
        if not text:
            rows = [("more images", "cost", "expected right", "")]
            worth = int((found.gain >= max(least, 1e-9)).sum())
            for count, usd, right in curve(found, least, price):
                mark = "<- these are worth it" if count == worth else ""
                cost = "?" if usd is None else f"${usd:,.2f}"
                rows.append((f"{count:,}", cost, f"{right / len(digests):.1%}", mark))
            say(text := text_table("What asking the second describer brings", rows))
        if one.stopped_by is not None:
            stopped = one.stopped_by
            break
        chosen = next_round(found.gain, least, tried).tolist()
    stopped_by, text = first.stopped_by, f"{first.text}\n{text}"
    if done and done[-1].cost_usd is not None:
        text += f"\n{config.second_describer} has cost ${_paid(config, settings):,.4f}."
    if stopped:
        stopped_by = stopped
        limit = f"{flag_of(stopped)} {getattr(config, stopped):g}"
        text += f"\nThat uses up {limit}; a higher number asks {config.second_describer} for more."
    facts = {
        "second_answered": int((known.differs >= 0).sum()),
        "second_differs": int((known.differs == 1).sum()),
        "second_described": sum(one.described for one in done),
        "second_expected_right": round(found.right / len(digests), 4),
    }
    together = _together(first, done)
    return replace(first, **together, text=text.strip(), stopped_by=stopped_by, details={**first.details, **facts})


def _paid(config: DescribeConfig, settings: Mapping[str, Any]) -> float:
    """Return what the model of a describer has cost, as far as its answers tell."""
    with DescriptionStore(config.store) as store:
        return store.spent(settings).own


def _together(first: DescribeResult, done: Sequence[DescribeResult]) -> dict[str, Any]:
    """Return the facts that are sums over both describers; a result has the cost of all answers before it, too."""
    earlier, costs = ([cost for one in (first, *done) if (cost := getattr(one, name))] for name in _COSTS)
    return {
        "failed": first.failed + sum(one.failed for one in done),
        "rejected": first.rejected + sum(one.rejected for one in done),
        "cost_usd": costs[-1] if costs else None,
        "cost_usd_earlier": earlier[0] if earlier else None,
        "skipped": tuple(dict.fromkeys((*first.skipped, *(item for one in done for item in one.skipped)))),
    }


def _known(config: DescribeConfig, names: Sequence[str], images: Dataset, digests: Sequence[str]) -> Known:
    """Return what the store says by now; of several answers the first counts."""
    total, row_of, classes = len(digests), {digest: row for row, digest in enumerate(digests)}, dict[str, int]()
    none, label_of = np.full(total, -1), dict[str, str]()
    found = Known(none, np.full(total, np.nan), np.zeros(total, bool), none.copy(), np.full((total, 2), -1))
    if images.labels.ndim == 1:
        for row in np.flatnonzero((images.splits == "train") & (images.labels >= 0)):
            label_of[images.digests[row]] = images.classes[images.labels[row]]
    answers: list[dict[str, Answer]] = [{}, {}]
    with DescriptionStore(config.store) as store:
        for item in store.answers():
            name = describer_name(item.describer)
            if name in names and CLASS in item.prompt.ask and item.digest in row_of:
                answers[names.index(name)].setdefault(item.digest, item.answer)
    for digest, row in row_of.items():
        both = first, second = [own.get(digest) for own in answers]
        if first is not None:
            found.said[row] = classes.setdefault(first.class_name or "", len(classes))
            sure = first.confidence if first.confidence is not None else first.probability
            found.confidence[row] = np.nan if sure is None else sure
            found.second[row] = first.second is not None
        if second is not None:
            found.differs[row] = first is None or first.class_name != second.class_name
        for which, one in enumerate(both):
            if digest in label_of and one is not None:
                name, label = one.class_name, label_of[digest]
                found.right[row, which] = name is not None and ClassNames([name]).find(label) is not None
    if config.second_targets is not None:
        targets = Targets.load(config.second_targets).of(digests)[:]
        sure = targets.any(axis=1)
        found.said[sure], found.confidence[sure] = targets[sure].argmax(axis=1), targets[sure].max(axis=1)
    return found
