"""A model behind any URL that speaks the OpenAI chat protocol: Ollama, vLLM, llama.cpp, OpenAI itself.

Servers differ in what they know of structured output. The strongest form is tried first, and the one that a server takes is
remembered. Errors name the model, the address and the status, and quote neither keys nor prompts nor answers.
"""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import Any

import httpx2
import openai
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from orchestrator.errors import ModelError
from orchestrator.providers.answers import read_answer
from orchestrator.providers.chat import ChatRequest, Message, Reply, Usage
from orchestrator.providers.exchange import hint, sendable, shown
from orchestrator.providers.in_time import within
from orchestrator.providers.openai_protocols import FORMS, Form, asked_for
from orchestrator.providers.patience import Patience

CONNECT_S = 5.0
MAX_BYTES = 4 << 20  # of an answer
_RETRIED = (408, 409, 429)  # and 5xx
_NOT_SENT: Any = {"OpenAI-Organization": openai.omit, "OpenAI-Project": openai.omit}  # the SDK's, from the environment
_CODE = re.compile(r"[a-z_]{1,40}")  # a vendor's word such as `invalid_api_key`; nothing that could be a secret


class OpenAICompatible:
    """One model at one address."""

    def __init__(self, *, url: str, model: str, key: SecretStr | None = None, timeout_s: float = 30.0, retries: int = 2) -> None:
        """`timeout_s` bounds a whole request with its retries; redirects are refused: prompts go nowhere else.

        Raises:
            ModelError: `model_not_set`: the address or the key can be none.
        """
        self._model, self._url, self._timeout_s, self._retries = model, shown(url), timeout_s, retries
        self._key = sendable(key) or "none"  # never the SDK's default, which is OpenAI's key
        self._client = openai.OpenAI(
            base_url=url,
            api_key=self._key,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
            default_headers=_NOT_SENT,
        )
        self._form: Form = FORMS[0]
        self._limit = "max_tokens"
        self._cold = True  # whether the server takes `temperature`

    @property
    def name(self) -> str:
        """The model and its address."""
        return f"`{self._model}` at {self._url}"

    def ask(self, request: ChatRequest) -> Reply:
        """The checked answer; see `ChatModel`."""
        started = time.monotonic()
        patience = Patience(started + self._timeout_s, self._retries)
        for form in FORMS[FORMS.index(self._form) :]:
            try:
                completion, value = self._form_of(request, form, patience)
            except ModelError as error:
                if form == FORMS[-1] or not _other_form_may_do(error):
                    raise
                continue
            self._form = form
            return Reply(value, _usage(completion), str(completion.model or self._model), time.monotonic() - started)
        raise AssertionError("the last form answers or raises")

    def _form_of(self, request: ChatRequest, form: Form, patience: Patience) -> tuple[ChatCompletion, Any]:
        completion = patience.retried(partial(self._adapted, request, form, patience))
        return completion, read_answer(self._text(completion), request.schema)

    def _adapted(self, request: ChatRequest, form: Form, patience: Patience) -> ChatCompletion:
        """Newer models of OpenAI name the limit otherwise, and take no temperature: learned from the first refusal."""
        for _ in range(2):
            try:
                return self._once(request, form, patience)
            except openai.BadRequestError as error:
                if not self._learn(error.param):
                    raise self._status_error(error) from None
        return self._once(request, form, patience)

    def _learn(self, param: object) -> bool:
        if param == "max_tokens" and self._limit == param:
            self._limit = "max_completion_tokens"
        elif param == "temperature" and self._cold:
            self._cold = False
        else:
            return False
        return True

    def _once(self, request: ChatRequest, form: Form, patience: Patience) -> ChatCompletion:
        try:
            return within(max(patience.left_s, 0.001), partial(self._sent, self._body(request, form), patience))
        except openai.BadRequestError:
            raise
        except openai.APIStatusError as error:
            raise self._status_error(error) from None
        except (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError):
            raise self._too_slow() from None
        except (openai.APIConnectionError, httpx2.HTTPError):
            raise ModelError(
                f"{self.name} cannot be reached",
                code="model_unreachable",
                retryable=True,
                next="Is it running, and is the address right?",
            ) from None

    def _sent(self, body: dict[str, Any], patience: Patience) -> ChatCompletion:
        left_s = max(patience.left_s, 0.001)
        timeout = httpx2.Timeout(left_s, connect=min(CONNECT_S, left_s))
        with self._client.chat.completions.with_streaming_response.create(**body, timeout=timeout) as response:
            return self._read(response.iter_bytes(), patience)

    def _body(self, request: ChatRequest, form: Form) -> dict[str, Any]:
        messages = request.messages if form == "json_schema" else (*request.messages, Message("user", asked_for(request.schema)))
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.text} for m in messages],
            self._limit: request.max_tokens,
        }
        if self._cold:
            body["temperature"] = request.temperature
        if form == "json_schema":
            schema = {"name": request.name, "schema": request.schema, "strict": True}
            body["response_format"] = {"type": form, "json_schema": schema}
        elif form == "json_object":
            body["response_format"] = {"type": form}
        return body

    def _read(self, chunks: Any, patience: Patience) -> ChatCompletion:
        body = bytearray()
        for chunk in chunks:
            body += chunk
            if patience.left_s < 0:  # a read's own timeout begins anew with every byte
                raise self._too_slow()
            if len(body) > MAX_BYTES:
                raise self._bad("an answer of more than 4 MiB")
        try:
            return ChatCompletion.construct(**json.loads(body))
        except (ValueError, TypeError, RecursionError):
            raise self._bad("something that is no JSON") from None

    def _text(self, completion: ChatCompletion) -> str:
        try:
            choice = completion.choices[0]
            text, refusal, why = choice.message.content, choice.message.refusal, choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            raise self._bad("something that is no chat completion") from None
        if why == "length":
            raise ModelError(f"{self.name} was cut off at the limit of tokens", code="model_cut_off", next="Ask for less at once.")
        if refusal or why == "content_filter":
            raise ModelError(f"{self.name} refused to answer", code="model_refused")
        if not isinstance(text, str):
            raise self._bad("no text")
        return text

    def _status_error(self, error: openai.APIStatusError) -> ModelError:
        status, said = error.status_code, str(error.code or "")
        said = f", {said}" if _CODE.fullmatch(said) and said not in self._key else ""
        spent = "quota" in said
        code, what, move = _MEANINGS.get(status, ("model_failed", "failed", None))
        return ModelError(
            f"{self.name} {what} (HTTP {status}{said})",
            code=code,
            status=status,
            next=move,
            retryable=(status in _RETRIED or status >= 500)
            and not spent
            and error.response.headers.get("x-should-retry") != "false",
            retry_after_s=hint(error.response.headers),
        )

    def _too_slow(self) -> ModelError:
        return ModelError(f"{self.name} did not answer within {self._timeout_s:g} s", code="model_timeout", retryable=True)

    def _bad(self, what: str) -> ModelError:
        return ModelError(f"{self.name} answered with {what}", code="model_bad_answer")


_MEANINGS: dict[int, tuple[str, str, str | None]] = {
    400: ("model_bad_request", "does not take the request", None),
    422: ("model_bad_request", "does not take the request", None),
    401: ("model_denied", "refused the key", "Set the right key."),
    403: ("model_denied", "refused the key", "Set a key that may use this model."),
    404: ("model_not_found", "is not there", "Check the address, which often ends in /v1, and the model's name."),
    429: ("model_limited", "takes no more requests now", None),
}


def _other_form_may_do(error: ModelError) -> bool:
    """A server that does not know a form refuses it, ignores it, or breaks (llama_cpp.server answers 500)."""
    return error.code in ("model_bad_request", "model_bad_answer") or error.status in (500, 501)


def _usage(completion: ChatCompletion) -> Usage:
    usage = completion.usage
    details = getattr(usage, "prompt_tokens_details", None)
    return Usage(
        _count(getattr(usage, "prompt_tokens", None)),
        _count(getattr(usage, "completion_tokens", None)),
        _count(getattr(details, "cached_tokens", None)),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
