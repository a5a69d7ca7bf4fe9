"""OpenAI's Batch API: half the price, answers within a day."""
