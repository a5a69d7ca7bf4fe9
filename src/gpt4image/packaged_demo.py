"""The whole pipeline on packaged pictures, offline: what do descriptions buy where labels are few?"""

from __future__ import annotations

from typing import Any

from gpt4image.base.outcome import Outcome
from gpt4image.base.progress import console
from gpt4image.config import CompareConfig, DemoConfig, DescribeConfig, EncodeConfig, LabelConfig

DATA = "openmoji"
LABELS_PER_CLASS = 5
TRAINING: dict[str, Any] = {"image_size": 48, "epochs": 30}
FEW, ALL = "few labels", "all labels"


def demo(config: DemoConfig) -> Outcome:
    """Describe, encode, label, compare and report, each through its own stage; finished parts are not made again.

    Raises:
        MissingExtraError: the packaged pictures are not installed.
    """
    from gpt4image.comparing.compare import compare
    from gpt4image.data.openmoji import packaged_descriptions
    from gpt4image.describing.describe import describe
    from gpt4image.encoding.encode import encode
    from gpt4image.labelling.label import label

    out = config.out
    store, table = out / "descriptions.db", out / "embeddings"
    console.print("1/4 describe: packaged descriptions by a multimodal LLM, through the replay describer")
    describe(DescribeConfig(data=DATA, store=store, describer=f"replay:{packaged_descriptions()}"))
    console.print("2/4 encode: MiniLM")
    encode(EncodeConfig(store=store, encoder="minilm", out=table))
    console.print("3/4 label: suspected label errors of the whole dataset, text-labels.html")
    label(LabelConfig(data=DATA, embeddings=table, out=out / "text-labels.parquet"))
    console.print(f"4/4 compare: {config.seeds} seeds per arm, {LABELS_PER_CLASS} labels a category and all labels")
    shared: dict[str, Any] = {
        "data": DATA,
        "embeddings": table,
        "out": out,
        "seeds": config.seeds,
        "jobs": config.jobs,
        **TRAINING,
    }
    few = CompareConfig(arms="baseline,aligned,text-labels,oracle", labels_per_class=LABELS_PER_CLASS, **shared)
    everything = CompareConfig(arms="baseline,aligned", **shared)
    return compare(few, everything, names=(FEW, ALL))
