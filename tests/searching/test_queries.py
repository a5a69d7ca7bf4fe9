"""Queries: pictures and texts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpt4image.base.errors import DataError
from gpt4image.training.train import train
from search_cases import ask, keys, paint, table_of
from small_training import options
from tiny_text_models import make_sentence_transformer


def test_a_query_image_that_cannot_be_read_costs_no_other_query(trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    found = ask(trained, "red", image=(broken, tmp_path / "missing.jpg"))
    assert [item.name for item in found.skipped] == [str(broken), str(tmp_path / "missing.jpg")]
    assert len(found.record["queries"]) == 1
    with pytest.raises(DataError, match=r"broken\.jpg: not an image.* nothing else to look for"):
        ask(trained, image=(broken,))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_as_a_query_is_refused_and_not_waited_for(trained: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: no regular file"):
        ask(trained, image=(tmp_path / "pipe.png",))


def test_an_encoder_that_learned_with_the_run_reads_the_query(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="tuning needs the extra 'tune'")
    paint(tmp_path / "colours")
    spec = f"sentence-transformers:{make_sentence_transformer(tmp_path)}"
    words = {"red": "a red dog runs", "green": "the green tree", "blue": "under the blue sky"}
    table = table_of(tmp_path / "colours", tmp_path / "table", spec, lambda name: [words[name]])
    train(options(tmp_path / "colours", tmp_path / "run", embeddings=table, epochs=12, lr=0.02, tune_text="full"))
    found = ask(tmp_path, *words.values(), top=8)
    assert found.summary["encoder"] == f"tuned:{tmp_path / 'run'}"
    right = [[key.split("/")[0] for key in keys(found, query)].count(name) for query, name in enumerate(words)]
    assert min(right) >= 7, right
