"""One question to a server that speaks OpenAI's chat interface (vLLM, llama.cpp, Ollama, ...), with patience."""

from __future__ import annotations

import importlib
import json
import math
import random
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from ttd.errors import InputError, TTDError, missing_extra
from ttd.taggers.answer_cache import CachedAnswer

_AGAIN = (408, 409, 425, 429)  # and every 5xx: the same question may be answered later
_REFUSED = (400, 413, 422)  # this question is not answered: too long, or its content is not wanted
_LONGEST_PAUSE = 60.0
_CONNECT = 20.0  # seconds
_MOST_BYTES = 1 << 22
_NOTHING_SAID = "too late"


class ServerFailed(TTDError):
    """The server cannot be used; the message is a sentence for the user."""


class _Late(Exception):
    """An answer took longer than the timeout."""


class ChatServer:
    """See the module. May be shared by threads.

    Args:
        url: address up to `/v1`, or with `/chat/completions`.
        model: as the server calls it.
        key: sent as a bearer token; None: none is sent.
        timeout: seconds for a whole answer.
        retries: how often a question is asked again after a fault that may pass.
        pause: seconds before the first repetition; each further one waits twice as long, at most a minute.
        fields: of the request, beside model and message; what is None is left out.

    Raises:
        MissingExtra: httpx is not installed.
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
        pause: float = 1.0,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._http = _httpx()
        self._address, self._shown = _address(url, self._http)
        self._model, self._fields = model, {n: v for n, v in (fields or {}).items() if v is not None}
        if taken := sorted({"model", "messages", "stream", "n"} & set(self._fields)):
            raise InputError(f"the request's field {taken[0]!r} is ours: leave it out of --llm-request")
        self._timeout, self._retries, self._pause = timeout, retries, pause
        self._heard = False  # whether the server has ever answered anything
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise InputError("the key in TTD_LLM_API_KEY has characters that no key has: set it again")
        limits = self._http.Timeout(timeout, connect=min(timeout, _CONNECT))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = self._http.Client(headers=headers, timeout=limits, follow_redirects=False)

    def ask(self, question: str, stop: Event | None = None) -> CachedAnswer:
        """The answer to one question; asked again after timeouts, lost connections, 408, 429 and 5xx.

        Args:
            question: the user's message.
            stop: once it is set, nothing is asked again.

        Raises:
            ServerFailed: unreachable, or no usable answer after all repetitions.
        """
        stop = stop or Event()
        fault = ""
        for attempt in range(self._retries + 1):
            wait: float | None = None
            try:
                status, text, wait = self._post(question)
            except (self._http.ConnectError, self._http.ConnectTimeout) as error:
                fault = f"no connection ({_brief(str(error)) or _NOTHING_SAID})"
                if not self._heard:
                    break  # nobody is there: waiting would only delay the news
            except (self._http.TransportError, _Late) as error:
                fault = f"no answer within {self._timeout:g} s" if _is_late(error, self._http) else _brief(repr(error))
            else:
                answer = self._judge(status, text)
                if answer is not None:
                    return answer
                fault = f"status {status}: {_message(text)}"
            if attempt == self._retries or stop.wait(self._backoff(attempt, wait)):
                break
        raise ServerFailed(
            f"the language model at {self._shown} gives no answer ({fault}): start its server, or check --llm-url"
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _post(self, question: str) -> tuple[int, str, float | None]:
        """Status, body, and the seconds that the server asks to wait."""
        messages = [{"role": "user", "content": question}]
        body = {"model": self._model, "messages": messages, **self._fields}
        end = time.monotonic() + self._timeout
        with self._client.stream("POST", self._address, json=body) as response:
            self._heard = True
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > _MOST_BYTES:
                    raise ServerFailed(f"{self._shown} sends more than {_MOST_BYTES:,} bytes: it is no chat server")
                if time.monotonic() > end:
                    raise _Late
            text = b"".join(parts).decode("utf-8", "replace")
            return response.status_code, text, _seconds(response.headers.get("Retry-After"))

    def _judge(self, status: int, text: str) -> CachedAnswer | None:
        """The answer, None where it is worth asking again; raises `ServerFailed` where it is not."""
        if status == 200:
            content = _content(text)
            return None if content is None else CachedAnswer(content)
        if status in _AGAIN or status >= 500:
            return None
        if status in _REFUSED:
            return CachedAnswer(f"{status}: {_message(text)}", refused=True)
        hint = {
            401: "set the key in the environment variable TTD_LLM_API_KEY",
            403: "check the key in the environment variable TTD_LLM_API_KEY",
            404: "check --llm-url (it usually ends in /v1) and --llm-model",
        }.get(status, "check --llm-url")
        raise ServerFailed(f"the server at {self._shown} answers {status} ({_message(text)}): {hint}")

    def _backoff(self, attempt: int, wait: float | None) -> float:
        if wait is not None:
            return min(wait, _LONGEST_PAUSE)
        return min(self._pause * 2.0**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)


def _httpx() -> Any:
    try:
        return importlib.import_module("httpx")
    except ImportError:
        raise missing_extra("llm", "language models need httpx") from None


def _address(url: str, http: Any) -> tuple[str, str]:
    """Where questions go, and how messages call the place."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"--llm-url {url!r} is no address: write for example http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise InputError("--llm-url must hold no user or password: set the environment variable TTD_LLM_API_KEY")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    name = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{name}{f':{port}' if port else ''}"
    address = f"{shown}{path}{f'?{parts.query}' if parts.query else ''}"
    try:
        http.URL(address)
    except http.InvalidURL:
        raise InputError(f"--llm-url {url!r} is no address: write for example http://localhost:8000/v1") from None
    return address, shown


def _content(text: str) -> str | None:
    """The answer in a chat completion; None where it is none."""
    try:
        content = json.loads(text)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return content if isinstance(content, str) else ""


def _message(text: str) -> str:
    """What the server says of an error."""
    try:
        found = json.loads(text)
        found = found.get("error", found.get("message", found))
        text = str(found.get("message", found) if isinstance(found, dict) else found)
    except (ValueError, AttributeError, RecursionError):
        pass
    return _brief(text) or "without a reason"


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _is_late(error: Exception, http: Any) -> bool:
    return isinstance(error, (_Late, http.TimeoutException))


def _seconds(header: str | None) -> float | None:
    """Of a Retry-After header: a number, or a date."""
    if not header:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None
