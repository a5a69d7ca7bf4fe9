"""Models behind any server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, and others."""
