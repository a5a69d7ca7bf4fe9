"""The engine ray of ``encode``: batches of texts become vectors on the workers of a cluster, and come back in order.

Workers that compute in another precision than this machine are refused. The weights must be found on every machine
under the SPEC of the encoder.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gpt4image.base.errors import ModelError
from gpt4image.encoding.text_encoders.base import TextEncoder
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.parallel.ray_cluster import MOST_TRIES, Workers


@contextlib.contextmanager
def encoding_over_ray(
    encoder: TextEncoder, device: str, workers: int | None
) -> Generator[Callable[[Iterable[Sequence[str]]], Iterator[NDArray[np.float32]]]]:
    """Give a function that encodes batches of texts, a few ahead, and yields the (N, D) vectors of each in order.

    Raises as ``Workers``, and ModelError: the encoder cannot be used on a worker, or kills it.
    """
    given = (encoder.spec, device, encoder.revision, encoder.precision)
    crew = Workers(_EncodeWork, lambda _count: given, workers, calls=2, gpu=device in ("auto", "cuda"))
    try:
        yield lambda batches: _in_order(crew, batches, encoder.width)
    finally:
        crew.close()


def _in_order(crew: Workers, batches: Iterable[Sequence[str]], width: int) -> Iterator[NDArray[np.float32]]:
    waiting, ready, following = iter(batches), dict[int, bytes](), 0
    while True:
        # Results that are ready too early count as in flight, so that they do not pile up behind one slow batch.
        while crew.has_room and len(ready) < crew.room and (batch := next(waiting, None)) is not None:
            crew.send(json.dumps(list(batch)).encode("ascii"))
        if not crew.pending:
            return
        result = crew.receive()
        if result.fault is not None or result.lost:
            raise ModelError(result.fault or f"Workers died {MOST_TRIES} times over the same texts; free some memory.")
        ready[result.number] = result.payload
        while following in ready:
            yield np.frombuffer(ready.pop(following), dtype=np.float32).reshape(-1, width)
            following += 1


class _EncodeWork:
    """Turns a JSON list of texts into the bytes of their vectors, float32 (N, D); one list at a time."""

    def __init__(self, spec: str, device: str, revision: str, precision: str) -> None:
        self._encoder, self._lock = load_text_encoder(spec, device), threading.Lock()
        here, there = (self._encoder.revision[:12], self._encoder.precision), (revision[:12], precision)
        if here != there:
            raise ModelError(
                f"{spec}: a worker would encode with revision and precision {here}, the driver with {there}; rows of "
                "one table must be made alike. Run on machines of one kind, with the same weights, or give --device "
                "cpu."
            )

    def __call__(self, payload: bytes) -> bytes:
        with self._lock:
            return self._encoder.encode(json.loads(payload)).astype(np.float32).tobytes()
