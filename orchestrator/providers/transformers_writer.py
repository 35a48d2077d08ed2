"""A model as Transformers loads it, on the GPU where there is one: a conversation in, words out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from jinja2 import TemplateError

from orchestrator.errors import ModelError
from orchestrator.providers.transformers_models import WINDOW, Generated


class TransformersWriter:
    """A loaded model.

    Raises:
        ModelError: `model_not_found`: neither here nor to be fetched, or no model of this kind.
    """

    def __init__(self, model: str) -> None:
        path = Path(model).expanduser()
        name = str(path) if path.is_dir() else model
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
            self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(name, dtype="auto").to(device).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"the model `{model}` cannot be loaded: {str(error).strip().partition(chr(10))[0][:300]}",
                code="model_not_found",
                next="Give the folder of a model, or a name of huggingface.co where it can be fetched.",
                sent=False,
            ) from None
        self.window = int(getattr(self._model.config, "max_position_embeddings", 0) or WINDOW)

    def write(self, messages: Sequence[dict[str, str]], *, max_tokens: int, temperature: float, within_s: float) -> Generated:
        """Goes on with the conversation."""
        started = time.monotonic()
        given = self._given(messages)
        length = given["input_ids"].shape[1]
        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        with torch.inference_mode():
            made = self._model.generate(**given, max_new_tokens=max_tokens, max_time=within_s, **sampling)[0][length:]
        ended = len(made) > 0 and int(made[-1]) in self._ends()
        return Generated(
            self._tokenizer.decode(made, skip_special_tokens=True),
            length,
            len(made),
            cut=not ended and len(made) >= max_tokens,
            late=not ended and time.monotonic() - started >= within_s,
        )

    def _given(self, messages: Sequence[dict[str, str]]) -> Any:
        """The conversation in the model's own template; the system's words before the first user's where it knows no system."""
        if not self._tokenizer.chat_template:
            text = "\n\n".join(m["content"] for m in messages)
            return self._tokenizer(text, return_tensors="pt").to(self._model.device)
        try:
            return self._templated(messages)
        except (ValueError, TemplateError):
            first, second, *rest = messages
            return self._templated([second | {"content": f"{first['content']}\n\n{second['content']}"}, *rest])

    def _templated(self, messages: Sequence[dict[str, str]]) -> Any:
        made = self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return made.to(self._model.device)

    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends) if isinstance(ends, list) else {ends}
