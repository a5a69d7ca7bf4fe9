"""Any server that speaks OpenAI's chat completions, asked directly."""
