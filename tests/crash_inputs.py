"""What stages start from in tests of crashes: pictures, and servers whose states can be gone back to."""

from __future__ import annotations

import copy
import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import batch_server
import drawn_masks
import openai_stub
import tiny_videos
from box_cases import answer_squares, write_squares

COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}
OWN = ("lock", "answer", "url", "requests", "authorisations")
"""What a server of batches keeps whatever state it goes back to."""


class Server:
    """What is paid for: chat completions or batches, with states that can be gone back to; "" is nobody."""

    def __init__(self, kind: str, stack: ExitStack) -> None:
        self._paid: dict[Any, int] = {}
        self._batch = stack.enter_context(batch_server.serving(batch_server.BatchServer())) if kind == "batch" else None
        chat = stack.enter_context(openai_stub.serve(self._answer)) if kind == "chat" else None
        self.url = chat.url if chat else self._batch.url if self._batch else ""
        self._states: list[Any] = [self._state()]

    def _answer(self, call: openai_stub.Call) -> openai_stub.Reply:
        self._paid[call.image] = self._paid.get(call.image, 0) + 1
        mean = np.asarray(Image.open(io.BytesIO(call.image)).convert("RGB"), float).mean(axis=(0, 1))
        name = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
        said = {"description": f"A {name} sheet.", "class": name, "second": None, "confidence": 0.9}
        return openai_stub.answer(json.dumps(said))

    def _state(self) -> Any:
        if not self._batch:
            return dict(self._paid)
        with self._batch.lock:
            return copy.deepcopy({name: value for name, value in vars(self._batch).items() if name not in OWN})

    def count(self) -> int:
        """Return how many answers were paid for."""
        return sum((self._batch.paid if self._batch else self._paid).values())

    def save(self) -> int:
        """Keep the state, and return its number."""
        if repr(self._states[-1]) != repr(state := self._state()):
            self._states.append(state)
        return len(self._states) - 1

    def back_to(self, number: int) -> None:
        state = copy.deepcopy(self._states[number])
        if self._batch:
            with self._batch.lock:
                vars(self._batch).update(state)
        else:
            self._paid = state


def make_inputs(root: Path) -> None:
    """Draw what the first stages start from."""
    rng, rows = np.random.default_rng(0), list[str]()
    for name, colour in COLOURS.items():
        for number in range(6):
            noisy = np.clip(np.array(colour) + rng.normal(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            for folder in ("pictures", "few") if number == 0 else ("pictures",):
                (root / folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(noisy).save(root / folder / name / f"{number}.png")
            said = {"description": f"A {name} sheet, number {number}.", "class": name, "confidence": 0.9}
            rows.append(json.dumps({"key": f"{name}/{number}.png", **said}))
    (root / "answers.jsonl").write_text("\n".join(rows), encoding="utf-8")
    drawn_masks.draw(root / "shapes", train=8, test=4)
    answer_squares(write_squares(root / "squares"), root / "boxes.db")
    tiny_videos.write_dots(root / "dots", train=8, test=4)
