"""Random numbers of an image do not depend on how many processes share the batch."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.training.batch_rng import BatchRng


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@given(st.integers(1, 20), st.integers(1, 4))
def test_parts_of_a_batch_get_the_numbers_of_the_whole(total: int, processes: int) -> None:
    whole = BatchRng.whole(total, generator())
    numbers = [whole.uniform(2), whole.integers(3, 9, 2), whole.seeds()]
    for rank in range(processes):
        rows = torch.arange(total)[rank::processes]
        part = BatchRng(generator=generator(), total=total, rows=rows)
        for mine, all_of_them in zip((part.uniform(2), part.integers(3, 9, 2), part.seeds()), numbers, strict=True):
            assert torch.equal(mine, all_of_them[rows])


def test_ranges_are_those_asked_for_and_a_choice_keeps_the_rows() -> None:
    rng = BatchRng.whole(1000, generator())
    assert set(rng.integers(3, 6).tolist()) == {3, 4, 5}
    uniform = rng.uniform()
    assert uniform.min() >= 0 and uniform.max() < 1 and uniform.dtype == torch.float32
    chosen = BatchRng.whole(6, generator()).of(torch.tensor([True, False, True, False, False, True]))
    assert chosen.rows.tolist() == [0, 2, 5]
    assert chosen.of(torch.tensor([2, 0])).rows.tolist() == [5, 0], "positions among those that are here"
    assert torch.equal(chosen.uniform(), BatchRng.whole(6, generator()).uniform()[[0, 2, 5]])
