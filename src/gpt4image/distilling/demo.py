"""``distill`` on packaged photographs of clothes, offline: what are an LLM's answers worth beside human labels?

The answers were recorded and are replayed. The models that are compared learn a classifier on frozen features of
ImageNet weights: 18 of them take three minutes. Of the one that is exported the last stages learn, too.
"""

import json
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt4image.artifacts.comparisons import COMPARISON, DEMO
from gpt4image.base.errors import MissingExtraError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.progress import say
from gpt4image.config import CompareConfig, DemoConfig, DistillConfig, ReportConfig
from gpt4image.config.distilling import ANSWERS, EMBEDDINGS
from gpt4image.config.results import CompareResult

DATA, UNLABELLED = "clothes", "clothes-unlabelled"
MODEL = "tf_efficientnet_lite0"
STUDENT: dict[str, Any] = {"model": MODEL, "init": "pretrained", "image_size": 160}
FROZEN = STUDENT | {"freeze": "all"}
"""Of the comparison: 18 models in three minutes."""
DEPLOYED = STUDENT | {"freeze": "5"}
"""Of the one that is exported: its last stages learn, too."""
FEW, NONE, TEN = "5 labels per class", "no label", "10 labels per class"
ARMS: dict[str, tuple[str, int]] = {
    FEW: ("baseline,asked,fused,oracle", 5),
    NONE: ("asked,oracle", 0),
    TEN: ("baseline,oracle", 10),
}
"""Comparisons: their arms, and the human labels per class that are left."""
LIVE = "openai:gpt-4.1-mini"
USD_PER_MILLION = 0.40, 1.60
"""List price of its tokens in and out, November 2026."""
PICTURE_TOKENS = 57
"""Of a photograph of 160 x 213 pixels: 5 x 7 patches of 32 pixels, times 1.62, as its maker counts them."""
LETTERS_PER_TOKEN = 4


def demo(config: DemoConfig) -> CompareResult:
    """Distill the packaged photographs, then compare; finished parts are not made again. Raises MissingExtraError."""
    started, used = time.monotonic(), _cpu_seconds()
    say("demo: 1,200 photographs of clothes without a label; an LLM's recorded answers about them are replayed")
    from gpt4image.comparing.compare import compare
    from gpt4image.data import load_dataset
    from gpt4image.data.known_sets import ANSWERS as RECORDED
    from gpt4image.data.known_sets import IMAGENET_CLASSES
    from gpt4image.distilling.distill import distill
    from gpt4image.distilling.mapped_classes import mapped_accuracy
    from gpt4image.models.backbones import weights_package
    from gpt4image.reporting.report import report

    if weights_package(MODEL) is None:
        raise MissingExtraError("The demo", "demo")
    texts = {"describer": f"replay:{RECORDED}", "ask": "description,class", "format": "onnx"}
    distilling = DistillConfig.model_validate({"data": UNLABELLED, "out": config.out, **texts, **DEPLOYED})
    live = live_cost(distilling, RECORDED)
    say(f"cost      $0 now; asked live, {LIVE} would cost about ${live:.2f} for these photographs")
    made = distill(distilling)
    distill_cpu = _cpu_seconds() - used
    say(f"compare   {config.seeds} seeds per arm, on the same test photographs")
    shared: dict[str, Any] = {
        "data": DATA,
        "embeddings": config.out / EMBEDDINGS,
        "answers": config.out / ANSWERS,
        "out": config.out,
        "seeds": config.seeds,
        "jobs": config.jobs,
        **FROZEN,
    }
    compared = (CompareConfig(arms=arms, labels_per_class=kept, **shared) for arms, kept in ARMS.values())
    found = compare(*compared, names=tuple(ARMS))
    mapped = mapped_accuracy(MODEL, load_dataset(DATA), read_json(IMAGENET_CLASSES))
    facts = {
        "photographs": made.answered,
        "live_cost_usd": round(live, 4),
        "distill_seconds": made.seconds,
        "distill_cpu_seconds": round(distill_cpu, 1),
        "accuracy": made.scores["accuracy"],
        "imagenet_classes": mapped,
        "seconds": round(time.monotonic() - started, 1),
        "cores": os.cpu_count(),
    }
    write_json(config.out / DEMO, facts)
    report(ReportConfig(dir=config.out))  # once more, with these facts
    percents = [f"{100 * mapped[key]:.1f} %" for key in ("accuracy", "low", "high")]
    rival = "Without any of it, ImageNet classes mapped by hand: {} are right ({} to {})".format(*percents)
    text = f"{found.text}\n\n{rival}\n{next_commands(config.out)}"
    return replace(found, text=text, wrote=(config.out / COMPARISON, *made.wrote))


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def live_cost(config: DistillConfig, recorded: Path) -> float:
    """Return what the recorded answers would cost at the list price of ``LIVE``, in US dollars."""
    from gpt4image.artifacts.answers import load_prompt
    from gpt4image.artifacts.store import ClassOption
    from gpt4image.describing.questions import asking_for

    lines = recorded.read_text(encoding="utf-8").splitlines()
    rows = [{key: value for key, value in json.loads(line).items() if key != "key"} for line in lines]
    classes = sorted({row["class"] for row in rows})
    prompt, options = load_prompt(config.prompt[0]), [ClassOption(name) for name in classes]
    question = asking_for(prompt, ("description", "class"), options)
    letters_in = len(question.text) + sum(len(name) + 3 for name in classes)
    letters_out = sum(len(json.dumps(row)) for row in rows)
    tokens_in = len(rows) * (PICTURE_TOKENS + letters_in / LETTERS_PER_TOKEN)
    price_in, price_out = USD_PER_MILLION
    return (tokens_in * price_in + letters_out / LETTERS_PER_TOKEN * price_out) / 1e6


def next_commands(out: Path) -> str:
    """Return how to go on: the report, ``gpt4image`` on the PATH, and the command for one's own folder."""
    activate = Path(sys.executable).with_name("activate")
    on_path = [f"  source {shlex.quote(str(activate))}"] if activate.is_file() else []
    own = f'gpt4image distill photos --describer {LIVE} --classes "dress, hat, shoes" --max-cost 3'
    lines = [f"The report: {out / 'report.html'}", "With your own folder of photographs:", *on_path, f"  {own}"]
    return "\n".join(lines)
