"""A server that others wrote answers as the same model does in this process."""

from __future__ import annotations

import base64
import io

import openai
from PIL import Image

from transformers_server import Server


def test_serves_the_model_to_any_openai_client(transformers_serve: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    with openai.OpenAI(base_url=transformers_serve.base_url, api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=transformers_serve.model,
            temperature=0,
            max_tokens=64,
            messages=[
                {"role": "system", "content": "You describe."},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": url}},
                        {"type": "text", "text": "Describe this image in detail."},
                    ],
                },
            ],
        )
    print(answer)
    assert answer.choices[0].message.content
