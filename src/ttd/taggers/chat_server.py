"""One question to a server that speaks OpenAI's chat interface (vLLM, llama.cpp, Ollama, ...), by OpenAI's client."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ttd.errors import InputError, TTDError, missing_extra
from ttd.taggers.answers import CachedAnswer

_REFUSED = (400, 413, 422)  # this question is not answered: too long, or its content is not wanted
_CONNECT = 20.0  # seconds
_STRUCTURE = "response_format"


class ServerFailed(TTDError):
    """The server cannot be used; the message is a sentence for the user."""


class ChatServer:
    """See the module. May be shared by threads.

    Args:
        url: address up to `/v1`, or with `/chat/completions`.
        model: as the server calls it.
        key: sent as a bearer token; None: none is sent.
        timeout: seconds without a byte of an answer.
        retries: how often a question is asked again after a timeout, a lost connection, 408, 409, 429 or 5xx; the
            client waits as the server says, or half a second, then twice as long each time, at most 8 seconds.
        fields: of the request, beside model and message; what is None is left out. A server that refuses
            `response_format` is asked without it.

    Raises:
        MissingExtra: openai is not installed.
        InputError: address, key or fields cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._openai = _openai()
        address, query, self._shown = _address(url)
        self._model, self._fields = model, {n: v for n, v in (fields or {}).items() if v is not None}
        if taken := sorted({"model", "messages", "stream", "n"} & set(self._fields)):
            raise InputError(f"the request's field {taken[0]!r} is ours: leave it out of --llm-request")
        self._retries = retries
        # What the client would take from OpenAI's own environment variables is nothing for this server.
        mine = ("OpenAI-Organization", "OpenAI-Project", *(() if key else ("Authorization",)))
        self._headers = {name: self._openai.Omit() for name in mine}
        self._answered = False  # whether the server has ever answered anything
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError("the key in TTD_LLM_API_KEY has characters that no key has: set it again")
        try:
            self._client = self._openai.OpenAI(
                base_url=address,
                default_query=query,
                api_key=key or "none",  # the client takes no empty key
                timeout=self._openai.Timeout(timeout, connect=min(timeout, _CONNECT)),
                http_client=self._openai.DefaultHttpxClient(follow_redirects=False),
            )
        except Exception as error:  # whatever httpx finds wrong with the address
            raise _no_address(url) from error

    def ask(self, question: str) -> CachedAnswer:
        """The answer to one question.

        Args:
            question: the user's message.

        Raises:
            ServerFailed: unreachable, or no usable answer after all repetitions.
        """
        answer = self._ask(question, self._fields)
        if answer.refused and _STRUCTURE in self._fields:
            free = self._ask(question, {n: v for n, v in self._fields.items() if n != _STRUCTURE})
            if not free.refused:
                self._fields.pop(_STRUCTURE, None)  # it was the form that was refused, not the question
                return free
        return answer

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _ask(self, question: str, fields: Mapping[str, Any]) -> CachedAnswer:
        api = self._openai
        try:
            found = self._post(question, fields)
        except api.APITimeoutError:
            raise self._silent("no answer in time") from None
        except api.APIConnectionError as error:
            raise self._silent(f"no connection ({_brief(str(error.__cause__ or error))})") from None
        except api.APIStatusError as error:
            self._answered = True
            return self._judge(error.status_code, _message(error))
        except ValueError:  # no JSON
            raise self._silent("what it sends is not a chat completion") from None
        self._answered = True
        try:
            content = found.choices[0].message.content
        except (AttributeError, LookupError, TypeError):
            raise self._silent("what it sends is not a chat completion") from None
        return CachedAnswer(content if isinstance(content, str) else "")

    def _post(self, question: str, fields: Mapping[str, Any]) -> Any:
        """The client's answer. A server that is not there is reported at once: waiting would only delay the news."""

        def send(retries: int) -> Any:
            return self._client.with_options(max_retries=retries).chat.completions.create(
                model=self._model,
                messages=[{"role": "user", "content": question}],
                extra_body=dict(fields),
                extra_headers=self._headers,
            )

        if self._answered or not self._retries:
            return send(self._retries)
        try:
            return send(0)
        except self._openai.APIConnectionError as error:
            if type(error.__cause__).__name__ == "ConnectError":  # httpx's; another one found somebody
                raise
        except self._openai.APIStatusError as error:
            if not _may_pass(error.status_code):
                raise
        return send(self._retries - 1)

    def _judge(self, status: int, message: str) -> CachedAnswer:
        """A refused question; raises `ServerFailed` where the server is at fault."""
        if status in _REFUSED:
            return CachedAnswer(f"{status}: {message}", refused=True)
        if _may_pass(status):
            raise self._silent(f"status {status}: {message}")
        hint = {
            401: "set the key in the environment variable TTD_LLM_API_KEY",
            403: "check the key in the environment variable TTD_LLM_API_KEY",
            404: "check --llm-url (it usually ends in /v1) and --llm-model",
        }.get(status, "check --llm-url")
        raise ServerFailed(f"the server at {self._shown} answers {status} ({message}): {hint}")

    def _silent(self, fault: str) -> ServerFailed:
        return ServerFailed(
            f"the language model at {self._shown} gives no answer ({fault}): start its server, or check --llm-url"
        )


def _may_pass(status: int) -> bool:
    """Whether the same question may be answered later; the client asks again in the same cases."""
    return status in (408, 409, 429) or status >= 500


def _openai() -> Any:
    try:
        return importlib.import_module("openai")
    except ImportError:
        raise missing_extra("llm", "language models need openai") from None


def _no_address(url: str) -> InputError:
    return InputError(f"--llm-url {url!r} is not an address: write for example http://localhost:8000/v1")


def _address(url: str) -> tuple[str, dict[str, str], str]:
    """Where the client sends questions, the address's query, and how messages call the place."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _no_address(url) from None
    if parts.scheme not in ("http", "https") or not host:
        raise _no_address(url)
    if parts.username is not None or parts.password is not None:
        raise InputError("--llm-url must hold no user or password: set the environment variable TTD_LLM_API_KEY")
    name = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{name}{f':{port}' if port else ''}"
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{shown}{path}", dict(parse_qsl(parts.query)), shown


def _message(error: Any) -> str:
    """What the server says of an error."""
    found: Any = error.body
    if isinstance(found, dict):
        found = found.get("error", found)
    if isinstance(found, dict):
        found = found.get("message", found)
    return _brief(str(found or "")) or "without a reason"


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"
