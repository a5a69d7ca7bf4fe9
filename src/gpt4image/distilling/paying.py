"""Nothing is paid for before somebody agreed: by an option, or by an answer at the terminal."""

from __future__ import annotations

import sys

from gpt4image.base.errors import ConfigError
from gpt4image.base.progress import console, say
from gpt4image.config import DescribeConfig, DistillConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.registry import is_free
from gpt4image.next_steps import command


def require_payer(config: DistillConfig, describing: DescribeConfig, images: int) -> None:
    """Refuse to begin where the describer may cost money and there is nobody to ask. Raises ConfigError."""
    if _agreed(config, describing) or sys.stdin.isatty():
        return
    again = command("distill", {**dict(config), "max_cost": 5.0})
    raise ConfigError(
        f"Asking {describing.describer} about {images:,} images may cost money, and there is no terminal to ask you "
        f"on. Give the most it may cost, in US dollars, with --max-cost (or --yes for no limit):\n  {again}"
    )


def agree_to_pay(config: DistillConfig, describing: DescribeConfig) -> None:
    """Estimate the cost and ask, where nobody agreed before.

    Raises:
        KeyboardInterrupt: the answer is no.
    """
    if _agreed(config, describing):
        return
    say("A small sample is asked first, to estimate the rest; its answers are kept.")
    sample = describe(describing.model_copy(update={"dry_run": True}))
    if not sample.estimate_requests:
        return
    say(sample.text)
    if sample.estimate_usd is None:
        say("What that costs is not known: no price is known for this model (--prices FILE names one).")
    try:
        answer = console.input("Go on? [y/N] ", markup=False)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise KeyboardInterrupt


def _agreed(config: DistillConfig, describing: DescribeConfig) -> bool:
    return config.yes or describing.max_cost is not None or is_free(describing)
