"""What is still to be asked: everything that is not settled, once, as far as the budget goes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.artifacts.prompts import PROMPTS
from gpt4image.base.interrupts import Interrupt
from gpt4image.data.splits import with_splits
from gpt4image.describing.asking import Asking
from gpt4image.describing.budget import Budget
from gpt4image.describing.describers.base import Answer
from loaded_sets import in_memory


def no_limit(limit: int | None = None) -> Budget:
    return Budget(limit=limit, max_cost=None, price=None, max_tokens=1)


@settings(max_examples=100, deadline=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 8), st.sampled_from([-1, 0, 1])), min_size=1, max_size=20),
    samples=st.integers(1, 3),
    told=st.booleans(),
    settled=st.dictionaries(st.integers(0, 8), st.frozensets(st.integers(0, 3), min_size=1)),
    limits=st.lists(st.integers(0, 5), max_size=5),
)
def test_every_answer_that_is_wanted_is_asked_for_once_however_often_it_is_interrupted(
    images: list[tuple[int, int]],
    samples: int,
    told: bool,
    settled: dict[int, frozenset[int]],
    limits: list[int],
) -> None:
    contents = [str(content).encode() for content, _ in images]
    image_data = in_memory(contents, [label for _, label in images])
    digest_of = dict(zip((content for content, _ in images), image_data.digests, strict=True))
    there = {digest_of[content]: done for content, done in settled.items() if content in digest_of}
    prompts = [PROMPTS["paper"], PROMPTS["class-conditioned" if told else "attributes"]]
    asking = Asking(image_data, prompts, samples, [there, {}])
    asked: Counter[tuple[str, str, int]] = Counter()
    for limit in [*limits, None]:
        for request in asking.requests(no_limit(limit), Interrupt()):
            asked.update((request.digest, request.prompt.name, sample) for sample in request.samples)
            assert request.read().decode() == next(str(c) for c, d in digest_of.items() if d == request.digest)
    labelled = {digest_of[content] for content, label in images if label >= 0}
    wanted = {
        (digest, prompt.name, sample)
        for digest in image_data.digests
        for prompt, done in zip(prompts, (there, {}), strict=True)
        for sample in range(samples)
        if sample not in done.get(digest, ()) and (digest in labelled or not prompt.class_conditioned)
    }
    assert asked == Counter(dict.fromkeys(wanted, 1))
    assert asking.finished()
    assert len(asking.skipped) == (len(set(image_data.digests) - labelled) if told else 0)


def test_the_first_images_asked_about_come_from_all_classes_and_splits_in_any_order_of_the_set() -> None:
    """A folder comes class by class, and the first digests of a class are its test split."""
    contents = [b"image %d" % number for number in range(1000)]
    images = with_splits(in_memory(contents, [0] * 500 + [1] * 500), val_fraction=0.1, test_fraction=0.2)
    asked = [
        request.digest for request in Asking(images, [PROMPTS["paper"]], 1, [{}]).requests(no_limit(200), Interrupt())
    ]
    rows = [images.digests.index(digest) for digest in asked]
    assert 80 <= sum(images.labels[rows] == 0) <= 120
    assert 120 <= sum(images.splits[rows] == "train") <= 165
    reordered = Asking(images.select(range(999, -1, -1)), [PROMPTS["paper"]], 1, [{}])
    assert [request.digest for request in reordered.requests(no_limit(200), Interrupt())] == asked


def test_one_more_try_comes_at_once_and_only_once() -> None:
    asking = Asking(in_memory([b"a", b"b", b"c"], [0, 0, 0]), [PROMPTS["paper"]], 2, [{}])
    budget, asked = no_limit(), []
    for request in asking.requests(budget, Interrupt()):
        asked.append((request.keys[0], request.samples))
        if request.keys[0] == "k1":
            asking.ask_again(Answer(request=request, sample=1, text=""))
    again = asked.index(("k1", (0, 1))) + 1
    assert asked.pop(again) == ("k1", (1,))
    assert sorted(asked) == [(key, (0, 1)) for key in ("k0", "k1", "k2")]
    assert budget.asked == 3 and asking.finished()


def test_a_limit_leaves_room_for_one_more_try_of_each_image() -> None:
    """All answers of a round come when its requests have ended, and none of them is a description."""
    asking = Asking(in_memory([bytes([number]) for number in range(6)], [0] * 6), [PROMPTS["paper"]], 1, [{}])
    budget, rounds = no_limit(3), []
    while asking.goes_on(budget):
        rounds.append(list(asking.requests(budget, Interrupt())))
        for request in rounds[-1]:
            asking.ask_again(Answer(request=request, text=""))
    first, again = ([request.keys for request in asked] for asked in rounds)
    assert len(set(first)) == 3 and again == first
    assert not asking.finished()
    assert len(list(asking.requests(no_limit(), Interrupt()))) == 3 and asking.finished()


def test_what_failed_in_an_earlier_run_comes_last_and_nothing_once_the_user_wants_to_stop() -> None:
    images = in_memory([bytes([number]) for number in range(40)], [0] * 40)
    failed = set(images.digests[::4])
    asking, interrupt = Asking(images, [PROMPTS["paper"]], 1, [{}], last=failed), Interrupt()
    requests = asking.requests(no_limit(), interrupt)
    asked = [next(requests).digest for _ in range(35)]
    assert not failed & set(asked[:30]) and set(asked[30:]) < failed
    interrupt.requested = True
    assert list(requests) == [] and not asking.finished() and asking.goes_on(no_limit())
