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
import openai_stub

COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}
OWN = ("lock", "answer", "url", "requests", "authorisations")
"""What a server of batches keeps whatever state it goes back to."""


class Server:
    """What is paid for: chat completions or batches, with states that can be gone back to."""

    def __init__(self, kind: str, stack: ExitStack) -> None:
        self.states: list[Any] = []
        self._chat = stack.enter_context(openai_stub.serve(self._answer)) if kind == "chat" else None
        self._batch = stack.enter_context(batch_server.serving(batch_server.BatchServer())) if kind == "batch" else None
        self.url = self._chat.url if self._chat else self._batch.url if self._batch else ""
        self._paid: dict[bytes, int] = {}
        self.save()

    @staticmethod
    def _class_of(image: bytes) -> str:
        mean = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), float).mean(axis=(0, 1))
        return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))

    def _answer(self, call: openai_stub.Call) -> openai_stub.Reply:
        self._paid[call.image] = self._paid.get(call.image, 0) + 1
        name = self._class_of(call.image)
        said = {"description": f"A {name} sheet.", "class": name, "second": None, "confidence": 0.9}
        return openai_stub.answer(json.dumps(said))

    @property
    def paid(self) -> dict[Any, int]:
        """How often each image was paid for."""
        return dict(self._batch.paid) if self._batch else self._paid

    def save(self) -> int:
        """Keep the state, and return its number."""
        if self._batch:
            with self._batch.lock:
                state = copy.deepcopy({name: value for name, value in vars(self._batch).items() if name not in OWN})
        else:
            state = dict(self._paid)
        if not self.states or repr(self.states[-1]) != repr(state):
            self.states.append(state)
        return len(self.states) - 1

    def back_to(self, number: int) -> None:
        state = copy.deepcopy(self.states[number])
        if self._batch:
            with self._batch.lock:
                vars(self._batch).update(state)
        else:
            self._paid = state


def make_inputs(root: Path) -> None:
    """Draw what the first stages start from."""
    import drawn_masks
    import tiny_videos
    from box_cases import answer_squares, write_squares

    rng, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for name, colour in COLOURS.items():
        (root / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            noisy = np.clip(np.array(colour) + rng.normal(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / "pictures" / name / f"{number}.png")
            said = {"description": f"A {name} sheet, number {number}.", "class": name, "confidence": 0.9}
            if not number:
                (root / "few" / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(noisy).save(root / "few" / name / f"{number}.png")
            rows.append({"key": f"{name}/{number}.png", **said})
    (root / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    drawn_masks.draw(root / "shapes", train=8, test=4)
    answer_squares(write_squares(root / "squares"), root / "boxes.db")
    tiny_videos.write_dots(root / "dots", train=8, test=4)
