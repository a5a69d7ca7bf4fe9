"""Runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comparing_cases import options
from gpt4image.comparing.planning import Job, make_plan
from gpt4image.data.pixels import available_cores
from gpt4image.parallel.devices import cpu_threads


def test_runs_share_the_cores_and_take_no_more_threads_than_torch_would(colour_folder: Path, tmp_path: Path) -> None:
    def planned(**changes: Any) -> list[Job]:
        config = options(colour_folder, None, tmp_path / "cmp", arms="baseline", seeds=1, **changes)
        return list(make_plan(config).jobs)

    def threads(**changes: Any) -> set[int | None]:
        return {job.config.threads for job in planned(**changes)}

    cores = available_cores()
    shared = [job.shared.workers for job in (*planned(jobs=1), *planned(jobs=2 * cores), *planned(jobs=2, workers=5))]
    assert shared == [cores, 1, 5], "and the processes that decode"
    with cpu_threads(cores):
        assert threads(jobs=1) == {cores} and threads(jobs=cores) == {1} and threads(jobs=2 * cores) == {1}
        assert threads(jobs=cores, threads=3) == {3}, "what is asked for"
    with cpu_threads(1):
        assert threads(jobs=1) == {1}
