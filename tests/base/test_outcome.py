"""What commands return: facts as typed fields, as a terminal, JSON and a notebook show them."""

import pickle
from dataclasses import replace
from pathlib import Path

from gpt4image.base.outcome import as_json, as_text
from gpt4image.config.results import TrainResult

TRAINED = TrainResult(
    path=Path("run"), chosen={"model": "<b>"}, train_images=1722, val_images=3, test_images=9, classes=3, labelled=12,
    described=0, val={"top1": 2 / 3}, counts={"top1": 3}, ci95={"top1": (0.2, 0.9)}, seconds=1.5, images_per_second=9.0,
    text="a < b",
)  # fmt: skip
PRINTED = """\
chosen:
  model: <b>
train images: 1722
val images: 3
test images: 9
classes: 3
labelled: 12
described: 0
val:
  top1: 0.6667 on 3 images (95 % interval 0.200 to 0.900)
seconds: 1.5
images per second: 9.0

a < b

wrote: run"""


def test_facts_are_printed_one_a_line_with_what_they_were_measured_on_and_what_is_not_known_is_left_out() -> None:
    assert as_text(TRAINED) == PRINTED
    assert "val:" not in as_text(replace(TRAINED, val={}))
    found = as_json(TRAINED)
    assert found["val"] == {"top1": 2 / 3} and found["counts"] == {"top1": 3} and "notes" not in found
    html = TRAINED._repr_html_()
    assert "a &lt; b" in html and "&lt;b&gt;" in html and "on 3 images" in html
    assert "a < b" not in repr(TRAINED)
    assert pickle.loads(pickle.dumps(TRAINED)) == TRAINED  # noqa: S301
