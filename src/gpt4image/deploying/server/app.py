"""A server of the model beside it, which needs Starlette, onnxruntime and Pillow alone.

    pip install -r requirements.txt && python app.py
    curl --data-binary @picture.jpg http://127.0.0.1:8000/predict

Requests that wait while the model computes are its next batch. Settings are environment variables, see ``Settings``;
/openapi.json describes the answers. On SIGTERM, requests that have begun are answered first.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from numpy.typing import NDArray
from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

FOLDER = Path(__file__).parent
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
LEAST_SCORE, MOST_OVERLAP = 0.3, 0.6  # of boxes, as in `gpt4image predict`
log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Settings:
    """Environment variables of the same names in capitals.

    Attributes:
        host: address to listen at.
        port: port to listen at.
        max_bytes: of the body of a request.
        max_pixels: of a picture, by its header.
        max_batch: pictures that the model computes at once.
        max_waiting: requests that are taken at a time; further ones get 503.
        body_seconds: time for a body to arrive.
        stop_seconds: time after SIGTERM in which requests are answered.
        threads: of onnxruntime; 0 is one per core.
        top: classes in an answer.
        unsure_dir: folder for pictures that the model is unsure of, empty for none.
        unsure_below: probability below which it is unsure.
        unsure_most: files in that folder after which no more are written.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    max_batch: int = 16
    max_waiting: int = 256
    body_seconds: float = 30.0
    stop_seconds: int = 30
    threads: int = 0
    top: int = 5
    unsure_dir: str = ""
    unsure_below: float = 0.6
    unsure_most: int = 1000

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """Return the settings of an environment; the process ends where one is wrong."""
        found: dict[str, Any] = {}
        for each in fields(cls):
            name, kind = each.name.upper(), type(each.default)
            if name in environment:
                try:
                    found[each.name] = kind(environment[name])
                    if kind is not str and not 0 <= found[each.name] < math.inf:
                        raise ValueError
                except ValueError:
                    sys.exit(f"{name}={environment[name]}: give a number of at least 0; the default is {each.default}.")
        return cls(**found)


class RefusedError(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Model:
    """The ONNX file, its preprocessing and its decision."""

    def __init__(self, settings: Settings) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        self.session = onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])
        about = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
        self.classes: list[str] = about["classes"]
        self.how: dict[str, Any] = about["preprocessing"]
        self.several: bool = about["task"] == "multilabel"
        self.decision: dict[str, Any] = about["decision"]
        self.names = [output.name for output in self.session.get_outputs()]
        self.any_number = not isinstance(self.session.get_inputs()[0].shape[0], int)
        self.settings = settings
        if settings.unsure_dir and "mask" in self.names:
            sys.exit("UNSURE_DIR: a mask has no probability, so no picture is unsure; leave it out.")
        size = self.how["size"]
        self.run(np.zeros((1, 3, size, size), np.float32))  # what does not fit is known before anybody asks

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return what the model says of (N, 3, S, S) images, N rows by the name of the output."""
        return dict(zip(self.names, map(np.asarray, self.session.run(None, {"images": images})), strict=True))

    def decode(self, data: bytes) -> tuple[NDArray[np.float32], tuple[int, int], str]:
        """Return the input (3, S, S), width and height of the upright picture, and its format. Raises RefusedError."""
        resize, size = self.how["resize"], self.how["size"]
        filter_ = Image.Resampling[self.how["interpolation"].upper()]
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                kind = str(picture.format).lower()
                width, height = picture.size
                if width * height > self.settings.max_pixels:
                    raise RefusedError(413, f"{width} x {height} pixels are more than {self.settings.max_pixels:,}")
                whole = (height, width) if picture.getexif().get(0x0112, 1) > 4 else (width, height)
                picture.draft(None, (2 * resize, 2 * resize))  # a JPEG is decoded no larger than needed
                rgb = _white_behind(ImageOps.exif_transpose(picture))
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001  (what Pillow raises on damaged files has no common class)
            known = ", ".join(FORMATS)
            raise RefusedError(400, f"no picture of {known}, or damaged ({type(error).__name__})") from None
        if self.how["fit"] == "crop":
            square = ImageOps.fit(rgb, (resize, resize), filter_)
        else:
            square = rgb.resize((resize, resize), filter_)
        start = round((resize - size) / 2)
        pixels = np.asarray(square.crop((start, start, start + size, start + size)), np.float32)
        return pixels.transpose(2, 0, 1) / np.float32(255), whole, kind

    def answer(self, output: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> tuple[dict[str, Any], float]:
        """Return the answer about a picture, and how sure it is of the least sure thing in it."""
        if "boxes" in output:
            return self._boxes(output["boxes"], size)
        if "mask" in output:
            mask = output["mask"].astype(np.uint8)
            areas = np.bincount(mask.ravel(), minlength=len(self.classes)) / mask.size
            rows = [{"class": name, "area": share} for name, share in self._best(areas) if share > 0]
            file = io.BytesIO()
            Image.fromarray(mask).save(file, "PNG")
            return {"predictions": rows, "mask_png": base64.b64encode(file.getvalue()).decode()}, 1.0
        values = output["probabilities"]
        found: dict[str, Any] = {"predictions": [{"class": k, "probability": p} for k, p in self._best(values)]}
        if self.several:
            least = self.decision.get("thresholds") or [0.5] * len(self.classes)
            found["present"] = [name for name, p, t in zip(self.classes, values, least, strict=True) if p >= t]
            return found, float(np.maximum(values, 1 - values).min())
        sure, reject = float(values.max()), self.decision.get("reject")
        if reject and "known" in output:
            found |= {"known": float(output["known"]), "none_of_these": bool(output["known"] < reject["share"])}
            sure = 0.0 if found["none_of_these"] else sure
        return found, sure

    def _best(self, values: NDArray[Any]) -> list[tuple[str, float]]:
        order = np.argsort(-values, kind="stable")[: self.settings.top]
        return [(self.classes[number], float(values[number])) for number in order]

    def _boxes(self, rows: NDArray[Any], size: tuple[int, int]) -> tuple[dict[str, Any], float]:
        """Of boxes that overlap more than is allowed the best one is given, whatever their classes."""
        kept: list[NDArray[Any]] = []
        for row in rows[rows[:, 4] >= LEAST_SCORE]:  # the best come first
            if all(_overlap(row, other) <= MOST_OVERLAP for other in kept):
                kept.append(row)
        found = [
            {
                "class": self.classes[int(row[5])],
                "probability": float(row[4]),
                "box": [round(float(side) * length, 2) for side, length in zip(row[:4], (*size, *size), strict=True)],
            }
            for row in kept
        ]
        return {"predictions": found}, float(min((row[4] for row in kept), default=1 - max(rows[:, 4], default=0)))


def _white_behind(picture: Image.Image) -> Image.Image:
    """Return a picture as RGB, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits a pixel
        picture = Image.fromarray(((np.asarray(picture).astype(np.int64) + 128) // 257).clip(0, 255).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the IoU of two boxes."""
    sides = np.clip(np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2]), 0, None)
    both = float(sides.prod())
    return both / max(float((a[2:4] - a[:2]).prod() + (b[2:4] - b[:2]).prod()) - both, 1e-12)


class Batches:
    """Pictures that wait for the model: whatever came while it computed is its next batch."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._most = model.settings.max_batch if model.any_number else 1
        self._queue: asyncio.Queue[tuple[NDArray[np.float32], asyncio.Future[dict[str, Any]]]] = asyncio.Queue()

    async def predict(self, image: NDArray[np.float32]) -> dict[str, Any]:
        """Return what the model says of one image (3, S, S)."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((image, future))
        return await future

    async def run(self) -> None:
        """Compute batches, for ever."""
        with ThreadPoolExecutor(1, "model") as thread:
            while True:
                batch = [await self._queue.get()]
                while len(batch) < self._most and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                batch = [(image, future) for image, future in batch if not future.done()]  # its client may be gone
                if not batch:
                    continue
                images = np.stack([image for image, _ in batch])
                try:
                    found = await asyncio.get_running_loop().run_in_executor(thread, self._model.run, images)
                except Exception as error:  # noqa: BLE001  (onnxruntime's have no common class; each client is told)
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for row, (_, future) in enumerate(batch):
                    if not future.done():
                        future.set_result({name: values[row] for name, values in found.items()})


class Unsure:
    """Pictures that the model was unsure of, kept as they came, each once."""

    def __init__(self, settings: Settings) -> None:
        self._folder, self._below, self._most = Path(settings.unsure_dir), settings.unsure_below, settings.unsure_most
        self._on = bool(settings.unsure_dir)
        if self._on:
            self._folder.mkdir(parents=True, exist_ok=True)

    def keep(self, data: bytes, kind: str, sure: float) -> None:
        """Write a picture if the model was unsure of it. A disk that is full costs no answer."""
        if not self._on or sure >= self._below:
            return
        path = self._folder / f"{hashlib.sha256(data).hexdigest()}.{kind.replace('jpeg', 'jpg')}"
        if path.exists() or sum(1 for _ in self._folder.iterdir()) >= self._most:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
                file.write(data)
            os.replace(file.name, path)  # noqa: PTH105
        except OSError as error:
            log.warning("an unsure picture could not be kept: %s", error)


class Server:
    """The requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._model = settings, Model(settings)
        self._batches, self._unsure = Batches(self._model), Unsure(settings)
        self._taken = 0
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "decode")  # each holds at most one decoded picture

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        """Compute batches while the server runs."""
        batches = asyncio.create_task(self._batches.run())
        yield
        batches.cancel()
        self._threads.shutdown()

    async def health(self, _: Request) -> JSONResponse:
        """Answer that the model is loaded, and how many requests are in work."""
        return JSONResponse({"status": "ok", "classes": len(self._model.classes), "in_work": self._taken})

    async def predict(self, request: Request) -> JSONResponse:
        """Answer what a picture shows."""
        if self._taken >= self._settings.max_waiting:
            raise HTTPException(503, "too many requests at once; try again", {"Retry-After": "1"})
        self._taken += 1
        loop = asyncio.get_running_loop()
        try:
            data = await self._body(request)
            image, size, kind = await loop.run_in_executor(self._threads, self._model.decode, data)
            output = await self._batches.predict(image)
            return JSONResponse(await loop.run_in_executor(self._threads, self._finish, output, size, data, kind))
        except RefusedError as refused:
            raise HTTPException(refused.status, str(refused)) from None
        finally:
            self._taken -= 1

    def _finish(self, output: dict[str, Any], size: tuple[int, int], data: bytes, kind: str) -> dict[str, Any]:
        found, sure = self._model.answer(output, size)
        self._unsure.keep(data, kind, sure)
        return found

    async def _body(self, request: Request) -> bytes:
        most, parts, size = self._settings.max_bytes, list[bytes](), 0
        too_large = RefusedError(413, f"the body is larger than {most:,} bytes")
        if int(request.headers.get("content-length") or 0) > most:
            raise too_large
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise RefusedError(408, "the body did not arrive in time") from None
        except ClientDisconnect:
            raise RefusedError(400, "the client is gone") from None
        if not size:
            raise RefusedError(400, "the body is empty; send the bytes of a picture")
        return b"".join(parts)

    async def openapi(self, _: Request) -> JSONResponse:
        """Answer the description of this server."""
        return JSONResponse(openapi(self._model))


def openapi(model: Model) -> dict[str, Any]:
    """Return the OpenAPI document."""

    def table(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties}

    def replies(schema: dict[str, Any], *statuses: str) -> dict[str, Any]:
        fault = {"application/json": {"schema": table(error={"type": "string"})}}
        reasons = {"400": "no picture", "408": "too slow", "413": "too large", "503": "too busy"}
        good = {"description": "the answer", "content": {"application/json": {"schema": schema}}}
        return {"200": good} | {key: {"description": reasons[key], "content": fault} for key in statuses}

    number, text, flag = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
    row: dict[str, Any] = {"class": {"type": "string", "enum": model.classes}}
    row |= {"area": number} if "mask" in model.names else {"probability": number}
    answer: dict[str, Any] = {}
    if "boxes" in model.names:
        row["box"] = {"type": "array", "items": number, "description": "left, top, right, bottom in pixels"}
    if "mask" in model.names:
        answer["mask_png"] = {
            **text,
            "description": "the class of each pixel of the stretched picture: a PNG, as base64",
        }
    if model.several:
        answer["present"] = {"type": "array", "items": text}
    if "known" in model.names:
        answer |= {"known": number, "none_of_these": flag}
    answer["predictions"] = {"type": "array", "items": table(**row), "description": "the most probable first"}
    picture = {f"image/{name.lower()}": {"schema": {**text, "format": "binary"}} for name in FORMATS}
    body = {"required": True, "content": picture}
    health = table(status=text, classes={"type": "integer"}, in_work={"type": "integer"})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Predictions of pictures", "version": "1"},
        "paths": {
            "/predict": {"post": {"summary": "Predict a picture", "operationId": "predict", "requestBody": body,
                                  "responses": replies(table(**answer), "400", "408", "413", "503")}},
            "/health": {"get": {"summary": "Is it ready", "operationId": "health", "responses": replies(health)}},
        },
    }  # fmt: skip


def _fault(_: Request, error: Exception) -> JSONResponse:
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    reason = error.detail if isinstance(error, HTTPException) else "the model failed on this picture"
    return JSONResponse({"error": reason}, status, headers)


def build(settings: Settings) -> Starlette:
    """Return the application."""
    server = Server(settings)
    Image.MAX_IMAGE_PIXELS = None  # the limit is in the settings
    routes = [
        Route("/predict", server.predict, methods=["POST"]),
        Route("/health", server.health),
        Route("/openapi.json", server.openapi),
    ]
    faults: Any = {HTTPException: _fault, Exception: _fault}
    return Starlette(routes=routes, lifespan=server.lifespan, exception_handlers=faults)


if __name__ == "__main__":
    chosen = Settings.of(os.environ)
    where: Any = {"host": chosen.host, "port": chosen.port, "timeout_graceful_shutdown": chosen.stop_seconds}
    uvicorn.run(build(chosen), **where)
