"""What compare leaves for the report of real runs: pictures, texts with a price, suspected label errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.files import read_json
from gpt4image.comparing.compare import compare
from gpt4image.comparing.examples import write_extras
from gpt4image.comparing.planning import make_plan
from gpt4image.config import CompareConfig
from gpt4image.reporting.extras import Descriptions, Example

SMALL: dict[str, Any] = {
    "model": "resnet10t", "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}, "image_size": 16, "batch_size": 8,
    "epochs": 2, "lr": 0.005, "precision": "fp32", "memory_format": "contiguous", "seeds": 1, "jobs": 1,
}  # fmt: skip


@pytest.mark.slow
def test_a_comparison_leaves_pictures_texts_and_suspected_errors(
    described_colours: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, table = described_colours
    out = tmp_path / "cmp"
    options: dict[str, Any] = {"data": f"folder:{folder}", "embeddings": table, "out": out, "labels_per_class": 6}
    config = CompareConfig(**options, **SMALL, arms="aligned,text-labels")
    assert compare(config).skipped == ()
    examples = [Example.model_validate(row) for row in read_json(out / "examples.json")]
    assert all(len(example.neighbours) == 3 for example in examples)
    assert {"baseline", "aligned", "text-labels"} == set(examples[0].predictions)
    assert any(example.text_label for example in examples if example.split == "train")
    known = Descriptions.model_validate(read_json(out / "descriptions.json"))
    assert known.described == known.images == known.descriptions == 48
    assert known.describers[0].cost_usd == pytest.approx(0.048)
    assert known.words is not None and known.words["min"] == 6
    assert isinstance(read_json(out / "doubtful-labels.json"), list)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{part}"' in page for part in ("done", "pictures", "descriptions"))
    (tmp_path / "texts.db").write_bytes(b"no store any more" * 100)
    skipped = write_extras([make_plan(config)])
    assert {item.name for item in skipped} >= {"descriptions.json"}
    assert all("left out of the report" in item.reason for item in skipped)
    write_extras([make_plan(config.model_copy(update={"arms": "baseline"}))])
    left = {path.name for path in out.glob("*.json")}
    assert not left & {"doubtful-labels.json", "descriptions.json"}, "they were of other arms"
