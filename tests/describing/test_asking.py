"""Asking within the money: everything that is missing, once, and a budget that is never overrun."""

import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.artifacts.answers import PROMPTS
from gpt4image.artifacts.store import Prompt, Spent
from gpt4image.base.errors import ConfigError
from gpt4image.base.interrupts import Interrupt
from gpt4image.data.dataset import Dataset
from gpt4image.data.splits import with_splits
from gpt4image.describing.asking import Asking, Budget, Missing
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.prices import FREE, Price, find_price
from worlds import in_memory

PRICE = Price(1.0, 4.0)
PAPER = PROMPTS["paper"]


def request(number: int, prompt: str = "paper", question: str = "?") -> Request:
    given: Any = {"prompt": PROMPTS[prompt], "question": question, "read": bytes}
    return Request(digest=f"{number:064x}", keys=(f"k{number}",), **given)


def answer(asked: Request, tokens_in: int, tokens_out: int) -> Answer:
    return Answer(request=asked, text="x", tokens_in=tokens_in, cost_usd=PRICE.of(tokens_in, tokens_out))


def costly(max_cost: float = 1.0, max_tokens: int = 0) -> Budget:
    return Budget(limit=None, max_cost=max_cost, price=PRICE, max_tokens=max_tokens)


def no_limit(limit: int | None = None) -> Budget:
    return Budget(limit=limit, max_cost=None, price=None, max_tokens=1)


def asking_all(images: Dataset, prompts: Sequence[Prompt] = (PAPER,), **options: Any) -> Asking:
    wanted = set(images.digests)
    return Asking(images, [Missing(prompt, wanted, wanted) for prompt in prompts], **options)


@pytest.mark.parametrize("untold", [{"text": ""}, {"text": "x"}, {"text": "x", "cost_usd": float("nan")}])
def test_an_answer_that_does_not_tell_its_cost_counts_as_the_dearest_that_may_be(untold: dict[str, Any]) -> None:
    budget = costly(1.0, max_tokens=10)
    budget.begin(Spent(), None, most_in=999)
    assert budget.admit(request(0))
    budget.settle(Answer(request=request(0), **untold))
    assert budget.spent == budget.uncertain == pytest.approx(PRICE.of(999 + len("?"), 10)), "as its size allows"
    budget.settle(answer(request(1), 1000, 10))
    before = budget.spent
    assert budget.admit(request(2)) and budget.lost(request(2)), "a call that timed out, and another try"
    budget.settle(Answer(request=request(2), **untold))
    assert budget.spent == pytest.approx(before + 2 * PRICE.of(1250, 10)), "as the longest input, with a margin"


def test_money_cannot_be_limited_where_nothing_has_a_price() -> None:
    for price in (None, FREE):  # a private address counts as free; what stands behind a gateway there sends bills
        with pytest.raises(ConfigError, match="give --price IN OUT, or --limit N instead"):
            Budget(limit=None, max_cost=1.0, price=price, max_tokens=10)


def test_a_prompt_that_was_never_answered_is_reckoned_with_by_its_text() -> None:
    dearest = PRICE.of(1.25 * (10_000 + 20_000), 1_000)
    for more, admitted in ((1e-9, True), (-1e-9, False)):
        budget = costly(dearest + more, 1_000)
        budget.learn(PAPER, [10_000] * 64)
        assert budget.admit(request(0, "short", "x" * 20_000)) is admitted


@settings(max_examples=20, deadline=None)
@given(max_cost=st.floats(0.001, 2.0), in_flight=st.integers(1, 60), seed=st.integers(0, 1000))
def test_money_is_never_overrun_whatever_the_order_of_answers(max_cost: float, in_flight: int, seed: int) -> None:
    rng, budget = random.Random(seed), costly(max_cost, 500)
    rounds_without_any, number, spent = 0, 0, 0.0
    while rounds_without_any < 2 and number < 3000:
        before, flying = number, list[Request]()
        while len(flying) < in_flight and budget.admit(request(number)):
            flying.append(request(number))
            number += 1
        rng.shuffle(flying)
        for asked in flying:
            back = answer(asked, rng.randint(800, 1000), rng.randint(1, 500))
            spent += back.cost_usd or 0.0
            budget.settle(back)
        rounds_without_any = 0 if number > before else rounds_without_any + 1
    assert spent == pytest.approx(budget.spent)
    assert spent <= max_cost or number == 1  # before the first answer nothing is known
    assert number == 3000 or spent > max_cost - PRICE.of(1250, 500) - 1e-9  # not one more would have been safe


@settings(max_examples=60, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 8), st.sampled_from([-1, 0, 1])), min_size=1, max_size=20),
    missing=st.sets(st.integers(0, 8)),
    told=st.booleans(),
    limits=st.lists(st.integers(0, 5), max_size=5),
)
def test_every_answer_that_is_missing_is_asked_for_once_however_often_it_is_interrupted(
    images: list[tuple[int, int]], missing: set[int], told: bool, limits: list[int]
) -> None:
    image_data = in_memory([str(content).encode() for content, _ in images], [label for _, label in images])
    digest_of = dict(zip((content for content, _ in images), image_data.digests, strict=True))
    wanted = {digest_of[content] for content in missing if content in digest_of}
    prompts = [PAPER, PROMPTS["class-conditioned" if told else "attributes"]]
    asking = Asking(image_data, [Missing(prompt, wanted, wanted) for prompt in prompts])
    asked: Counter[tuple[str, Prompt]] = Counter()
    for limit in [*limits, None]:
        for one in asking.requests(no_limit(limit), Interrupt()):
            asked[one.name] += 1
            assert one.read().decode() == next(str(c) for c, d in digest_of.items() if d == one.digest)
    labelled = {digest_of[content] for content, label in images if label >= 0}

    def can_be_asked(digest: str, prompt: Prompt) -> bool:
        return digest in labelled or not prompt.class_conditioned

    assert asked == Counter((digest, prompt) for digest in wanted for prompt in prompts if can_be_asked(digest, prompt))
    assert asking.finished() and len(asking.skipped) == (len(wanted - labelled) if told else 0)


def asked_of(asking: Asking, budget: Budget) -> list[str]:
    return [one.digest for one in asking.requests(budget, Interrupt())]


def test_the_first_images_asked_about_come_from_all_classes_and_splits_in_any_order_of_the_set() -> None:
    """A folder comes class by class, and the first digests of a class are its test split."""
    contents = [b"image %d" % number for number in range(1000)]
    images = with_splits(in_memory(contents, [0] * 500 + [1] * 500), val_fraction=0.1, test_fraction=0.2)
    asked = asked_of(asking_all(images), no_limit(200))
    rows = [images.digests.index(digest) for digest in asked]
    assert 80 <= sum(images.labels[rows] == 0) <= 120
    assert 120 <= sum(images.splits[rows] == "train") <= 165
    assert asked_of(asking_all(images.select(range(999, -1, -1))), no_limit(200)) == asked


def numbered(count: int) -> Dataset:
    return in_memory([bytes([number]) for number in range(count)], [0] * count)


def test_a_limit_leaves_room_for_one_more_try_of_each_image() -> None:
    """All answers of a round come when its requests have ended, and none of them is a description."""
    asking, budget, rounds = asking_all(numbered(6)), no_limit(3), list[list[Request]]()
    while asking.goes_on(budget):
        rounds.append(list(asking.requests(budget, Interrupt())))
        for one in rounds[-1]:
            asking.ask_again(Answer(request=one, text=""))
    first, again = ([one.keys for one in asked] for asked in rounds)
    assert len(set(first)) == 3 and again == first and not asking.finished()
    assert len(asked_of(asking, no_limit())) == 3 and asking.finished()


def test_what_failed_in_an_earlier_run_comes_last_and_nothing_once_the_user_wants_to_stop() -> None:
    images = numbered(40)
    failed: Collection[str] = set(images.digests[::4])
    asking, interrupt = asking_all(images, last=failed), Interrupt()
    requests = asking.requests(no_limit(), interrupt)
    asked = [next(requests).digest for _ in range(35)]
    assert not set(failed) & set(asked[:30]) and set(asked[30:]) < set(failed)
    interrupt.requested = True
    assert list(requests) == [] and not asking.finished() and asking.goes_on(no_limit())


# Prices

OPENAI = "https://api.openai.com/v1"


def test_the_published_list_knows_models_by_server() -> None:
    assert find_price("gpt-4o-mini", OPENAI) == pytest.approx(Price(0.15, 0.6))
    assert find_price("gpt-4o-mini", "http://localhost:8000/v1") is None
    assert find_price("no-such-model-of-anyone", OPENAI) is None
    assert Price(2.0, 10.0).of(500_000, 100_000) == pytest.approx(2.0)
    assert Price(2.0, 10.0).scaled(0.5).of(1_000_000, 1_000_000) == pytest.approx(6.0)
