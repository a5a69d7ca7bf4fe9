"""near_duplicates: what is nearly the same is found, what is not is left alone."""

from __future__ import annotations

import json
import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.describing.flaws import words
from gpt4image.describing.near_duplicates import near_duplicates


def groups(texts: list[str]) -> list[list[int]]:
    return [group.tolist() for group in near_duplicates(texts, lambda places: [texts[place] for place in places])]


def shingles(text: str) -> set[tuple[str, ...]]:
    own = words(text)
    return set(zip(own, own[1:], own[2:], strict=False)) or {tuple(own)}


def test_groups_are_of_the_same_words_and_the_largest_comes_first() -> None:
    assert groups(["A cat.", "a dog", "a CAT", "the bird", "A dog!", "a, dog", ""]) == [[1, 4, 5], [0, 2]]
    assert groups([""] * 3) == [[0, 1, 2]]
    assert groups([]) == groups(["a cat"]) == groups(["a cat", "a dog", "", "a black cat on a mat"]) == []


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=30))
def test_equal_texts_are_always_together(texts: list[str]) -> None:
    group_of = {place: number for number, group in enumerate(groups(texts)) for place in group}
    for place, text in enumerate(texts):
        for other in range(place):
            if texts[other] == text:
                assert group_of[place] == group_of[other]


def test_real_descriptions_with_a_changed_word_are_found_and_others_are_not(shared_data: Path) -> None:
    lines = (shared_data / "cifar10" / "descriptions-plain.jsonl").read_text().splitlines()
    texts = [json.loads(line)["description"] for line in lines]
    rng = random.Random(0)
    changed = []
    for text in texts[:500]:
        parts = text.split()
        parts[rng.randrange(len(parts))] = "changed"
        changed.append(" ".join(parts))
    pairs = {(place, len(texts) + place) for place in range(500)}
    similar = {
        (one, other)
        for one, other in pairs
        if len(shingles(texts[one]) & shingles(changed[one]))
        >= 0.8 * len(shingles(texts[one]) | shingles(changed[one]))
    }
    found = {tuple(group) for group in groups(texts + changed)}
    assert len(similar) > 100
    assert len(similar - found) <= 2
    assert all(pair in similar for pair in found if len(pair) == 2 and pair in pairs)
    assert len(found - pairs) <= 2
