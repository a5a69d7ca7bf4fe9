"""What tokens cost, by the list that the package genai-prices brings."""

from __future__ import annotations

from dataclasses import dataclass, field

_MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Price of tokens, in US dollars per million; ``cached`` of input that the server has kept from earlier calls."""

    input: float
    output: float
    cached: float | None = field(default=None, compare=False)

    def of(self, tokens_in: float, tokens_out: float, cached: float = 0.0) -> float:
        """Return the price of a call in US dollars; ``cached`` of its input tokens the server had kept."""
        saved = 0.0 if self.cached is None else (self.input - self.cached) * min(cached, tokens_in)
        return (self.input * tokens_in - saved + self.output * tokens_out) / _MILLION

    def scaled(self, factor: float) -> Price:
        """Return the price times ``factor``."""
        return Price(self.input * factor, self.output * factor, None if self.cached is None else self.cached * factor)


FREE = Price(0.0, 0.0)
HALF_PRICE = 0.5  # factor of the Batch API


def bill(total: float, earlier: float = 0.0, uncertain: float = 0.0) -> str:
    """Return what answers have cost in US dollars, how much of it before this run, and how much is only a bound."""
    lost = f" (at most ${uncertain:,.4f} of it for calls that did not tell their price)" if uncertain else ""
    return f"${total:,.4f}" + (f", of it ${earlier:,.4f} earlier" if earlier else "") + lost


def find_price(model: str, base_url: str) -> Price | None:
    """Return the published price of a model at a server; None if unknown."""
    from genai_prices import Usage, calc_price

    many = _MILLION // 100
    calls = Usage(input_tokens=many), Usage(output_tokens=many), Usage(input_tokens=many, cache_read_tokens=many)
    try:
        costs = [calc_price(call, model_ref=model, provider_api_url=base_url).total_price for call in calls]
    except LookupError:
        return None
    return Price(*(100 * float(cost) for cost in costs))
