"""The budget: requests counted, money never overrun, from any number of threads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.base.errors import ConfigError, DescriberError
from gpt4image.describing.budget import Budget
from gpt4image.describing.describers.base import Answer, Request
from gpt4image.describing.prices import FREE, Price

PRICE = Price(1.0, 4.0)


def request(
    number: int, samples: tuple[int, ...] = (0,), prompt: str = "paper", turns: tuple[str, ...] = ("?",)
) -> Request:
    return Request(
        digest=f"{number:064x}",
        keys=(f"k{number}",),
        prompt=PROMPTS[prompt],
        turns=turns,
        samples=samples,
        read=bytes,
    )


def answer(asked: Request, sample: int, tokens_in: int, tokens_out: int) -> Answer:
    share = len(asked.samples)
    cost = PRICE.of(tokens_in / share, tokens_out / share)
    return Answer(request=asked, sample=sample, text="x", tokens_in=tokens_in // share, cost_usd=cost)


def test_a_limit_counts_requests_and_not_second_tries() -> None:
    budget = Budget(limit=2, max_cost=None, price=None, max_tokens=10)
    assert [budget.admit(request(number)) for number in range(4)] == [True, True, False, False]
    assert budget.admit(request(0), again=True) and budget.asked == 2
    budget.take_back(Answer(request=request(0)))
    assert budget.admit(request(3)) and not budget.allows(request(4))


def test_the_first_request_goes_alone_until_the_length_of_the_input_is_known() -> None:
    budget = Budget(limit=None, max_cost=1.0, price=PRICE, max_tokens=1000)
    first = request(0)
    assert budget.admit(first) and not budget.admit(request(1))
    budget.settle(answer(first, 0, 1000, 1000))
    assert budget.admit(request(1)) and budget.admit(request(2))


def test_money_cannot_be_limited_where_answers_do_not_tell_what_they_cost() -> None:
    budget = Budget(limit=None, max_cost=1.0, price=PRICE, max_tokens=10)
    assert budget.admit(request(0))
    budget.settle(Answer(request=request(0), text="", finish_reason="content_filter"))
    assert budget.admit(request(0))
    with pytest.raises(DescriberError, match="does not say how many tokens"):
        budget.settle(Answer(request=request(0), text="x"))
    Budget(limit=None, max_cost=None, price=PRICE, max_tokens=10).settle(Answer(request=request(0), text="x"))


@pytest.mark.parametrize("price", [None, FREE])
def test_without_a_price_money_cannot_be_limited(price: Price | None) -> None:
    """A private address counts as free; what stands behind a gateway there sends bills all the same."""
    with pytest.raises(ConfigError, match="give --prices FILE"):
        Budget(limit=None, max_cost=1.0, price=price, max_tokens=10)
    Budget(limit=None, max_cost=None, price=price, max_tokens=10)


def test_after_few_answers_a_much_longer_input_is_reckoned_with_and_after_many_it_is_not() -> None:
    budget = Budget(limit=None, max_cost=1.0, price=PRICE, max_tokens=0)
    at_once: list[int] = []
    for number in range(60):
        together = [request(100 * number + other) for other in range(100)]
        admitted = [asked for asked in together if budget.admit(asked)]
        at_once.append(len(admitted))
        for asked in admitted[1:]:
            budget.take_back(Answer(request=asked))
        budget.settle(Answer(request=admitted[0], text="x", tokens_in=10_000, cost_usd=0.0))
    assert at_once[:4] == [1, 2, 4, 5]
    assert at_once[-1] == 80


def test_answers_of_earlier_runs_tell_how_many_go_at_once() -> None:
    budget = Budget(limit=None, max_cost=1.0, price=PRICE, max_tokens=0)
    budget.learn(PROMPTS["paper"], [2_000] * 63 + [2_500] * 65, 4)
    assert sum(budget.admit(request(number)) for number in range(100)) == 50, "10,000 tokens, twice as reserve"
    fresh = Budget(limit=None, max_cost=1.0, price=PRICE, max_tokens=0)
    fresh.learn(PROMPTS["paper"], [], 4)
    assert fresh.admit(request(0)) and not fresh.admit(request(1))


@pytest.mark.parametrize(
    ("turns", "tokens_in", "tokens_out"),
    [(("x" * 20_000,), 10_000 + 20_000, 1_000), (("x" * 10_000, "y" * 10_000), 2 * (10_000 + 20_000) + 1_000, 2_000)],
)
def test_a_prompt_that_was_never_answered_is_reckoned_with_by_its_text(
    turns: tuple[str, ...], tokens_in: int, tokens_out: int
) -> None:
    dearest = PRICE.of(1.25 * tokens_in, tokens_out)
    for more, admitted in ((1e-9, True), (-1e-9, False)):
        budget = Budget(limit=None, max_cost=dearest + more, price=PRICE, max_tokens=1_000)
        budget.learn(PROMPTS["paper"], [10_000] * 64, 1)
        assert budget.admit(request(0, prompt="short", turns=turns)) is admitted


@settings(max_examples=60, deadline=None)
@given(
    max_cost=st.floats(0.001, 2.0),
    in_flight=st.integers(1, 30),
    samples=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_money_is_never_overrun_whatever_the_order_of_answers(
    max_cost: float, in_flight: int, samples: int, seed: int
) -> None:
    rng = random.Random(seed)
    budget = Budget(limit=None, max_cost=max_cost, price=PRICE, max_tokens=500)
    flying: list[tuple[Request, int]] = []
    rounds_without_any = 0
    number = 0
    spent = 0.0
    while rounds_without_any < 2 and number < 3000:
        before = number
        while len(flying) < in_flight * samples and budget.admit(request(number, tuple(range(samples)))):
            flying += [(request(number, tuple(range(samples))), sample) for sample in range(samples)]
            number += 1
        rng.shuffle(flying)
        for asked, sample in flying:
            back = answer(asked, sample, rng.randint(800, 1000), rng.randint(1, 500 * samples))
            spent += back.cost_usd or 0.0
            budget.settle(back)
        flying = []
        rounds_without_any = 0 if number > before else rounds_without_any + 1
    dearest = PRICE.of(1250, 500 * samples)
    assert spent == pytest.approx(budget.spent)
    assert spent <= max_cost or number == 1  # before the first answer nothing is known
    assert number == 3000 or spent > max_cost - dearest - 1e-9  # not one more would have been safe


def test_threads_do_not_lose_count() -> None:
    budget = Budget(limit=5000, max_cost=None, price=PRICE, max_tokens=10)

    def admit_many(start: int) -> int:
        return sum(budget.admit(request(number)) for number in range(start, start + 2000))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(admit_many, range(0, 16000, 2000))) == 5000 == budget.asked
