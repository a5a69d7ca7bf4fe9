"""What tokens cost: the user's own price, a table of the user's, or the list that the package genai-prices brings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from gpt4image.base.errors import ConfigError

_MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Price of tokens, in US dollars per million."""

    input: float
    output: float

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """Return the price of a call, in US dollars."""
        return (self.input * tokens_in + self.output * tokens_out) / _MILLION

    def scaled(self, factor: float) -> Price:
        """Return the price times ``factor``."""
        return Price(self.input * factor, self.output * factor)


FREE = Price(0.0, 0.0)
# What the Batch API takes of the price.
HALF_PRICE = 0.5


def find_price(model: str, base_url: str, prices: Path | None) -> Price | None:
    """Return the price of a model: from the user's table, else from the published list for the server; None if unknown.

    Args:
        model: name of the model, as sent.
        base_url: address of the server; the published list knows providers by it.
        prices: JSON file ``{"MODEL": {"input": USD per million tokens, "output": USD per million tokens}}``.

    Raises:
        ConfigError: the table cannot be read.
    """
    if prices is not None:
        table = _read_table(prices)
        if model in table:
            return table[model]
    return _published_price(model, base_url)


def _read_table(path: Path) -> dict[str, Price]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _checked(row) for name, row in rows.items()}
    except OSError as error:
        raise ConfigError(f"--prices {path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ConfigError(
            f'--prices {path}: a JSON object {{"MODEL": {{"input": USD per million tokens, "output": USD per million '
            f"tokens}}}} is needed ({error or 'another shape'})."
        ) from None


def _checked(row: dict[str, float]) -> Price:
    price = Price(float(row["input"]), float(row["output"]))
    if not (0 <= price.input < float("inf") and 0 <= price.output < float("inf")):
        raise ValueError("prices are numbers from 0 up")
    return price


def _published_price(model: str, base_url: str) -> Price | None:
    from genai_prices import Usage, calc_price

    try:
        one_in = calc_price(Usage(input_tokens=_MILLION // 100), model_ref=model, provider_api_url=base_url)
        one_out = calc_price(Usage(output_tokens=_MILLION // 100), model_ref=model, provider_api_url=base_url)
    except LookupError:
        return None
    return Price(100 * float(one_in.total_price), 100 * float(one_out.total_price))
