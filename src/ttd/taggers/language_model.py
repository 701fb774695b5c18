"""A language model as a tagger: it gets the caption alone and names its visible words (Table 2a)."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ttd.encoders.loading.downloads import cache_folder
from ttd.errors import InputError
from ttd.taggers import Caption, Chosen, TextTagger
from ttd.taggers.answers import AnswerCache, CachedAnswer, choose_words, read_answer
from ttd.taggers.chat_server import ChatServer, ServerFailed

KEY_VARIABLE = "TTD_LLM_API_KEY"
PLACE = "{caption}"
_WORDS = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"type": "string"}}},
    "required": ["words"],
    "additionalProperties": False,
}
REQUEST: Mapping[str, Any] = MappingProxyType(
    {
        "temperature": 0,
        "max_tokens": 512,
        "response_format": {"type": "json_schema", "json_schema": {"name": "words", "strict": True, "schema": _WORDS}},
    }
)
"""Fields of a request besides model and message. Servers that know `response_format` answer in its form."""


class LanguageModel(TextTagger):
    """Asks a server with OpenAI's chat interface for the visible words of each caption; keeps every answer.

    A caption whose answer cannot be read, or that the server refuses (its content filter, its length), gives None.

    Args:
        url: of the server, up to `/v1`. A key is taken from the environment variable TTD_LLM_API_KEY alone.
        model: as the server calls it.
        prompt: text file with the mark {caption}; None: the shipped one.
        ignore_others: leave out words that the model names and the caption does not have.
        at_once: questions that are under way at the same time.
        cache: folder for the answers; None: the package's cache folder.
        request: more fields of the request, or other values of `REQUEST`; None leaves a field out.
        timeout, retries: see `ttd.taggers.chat_server.ChatServer`.

    Raises:
        MissingExtra: openai is not installed.
        InputError: address, model or prompt cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        prompt: str | Path | None = None,
        ignore_others: bool = False,
        at_once: int = 8,
        cache: str | Path | None = None,
        request: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
        retries: int = 5,
    ) -> None:
        if not model.strip():
            raise InputError("--llm-model is empty: give the model's name as its server calls it")
        self._prompt = read_prompt(prompt)
        digest = hashlib.sha256(self._prompt.encode()).hexdigest()
        fields = {**REQUEST, **(request or {})}
        self.name = f"llm {model}"
        self.settings: dict[str, Any] = {
            "tagger": "llm",
            "model": model,
            "prompt": digest,
            "request": fields,
            "ignore_others": ignore_others,
        }
        self._ignore_others, self._at_once, self._answers = ignore_others, at_once, False
        self._server = ChatServer(
            url,
            model,
            key=os.environ.get(KEY_VARIABLE, "").strip() or None,
            timeout=timeout,
            retries=retries,
            fields=fields,
        )
        folder = Path(cache) if cache else cache_folder() / "llm"
        self._cache = AnswerCache(folder / "answers.sqlite", model, digest, fields)

    def choose(self, captions: Sequence[Caption]) -> list[Chosen | None]:
        """See `TextTagger`; every distinct caption that was never asked before is asked once.

        Raises:
            ServerFailed: the server is gone, or refuses all captions.
        """
        texts = list(dict.fromkeys(caption.text for caption in captions))
        answers = self._cache.get(texts)
        for ready in self._ask([text for text in texts if text not in answers]):
            answers |= self._cache.put(ready)
        return [self._read(caption, answers[caption.text]) for caption in captions]

    def close(self) -> None:
        """Close connections and cache."""
        self._server.close()
        self._cache.close()

    def _read(self, caption: Caption, answer: CachedAnswer) -> Chosen | None:
        entries = None if answer.refused else read_answer(answer.text)
        return None if entries is None else choose_words(entries, caption, ignore_others=self._ignore_others)

    def _ask(self, captions: list[str]) -> Iterator[dict[str, CachedAnswer]]:
        """Answers as they come, refusals last: a server that has never answered anything is set up wrongly."""
        refused: dict[str, CachedAnswer] = {}
        for ready in self._concurrently(captions):
            given = {caption: answer for caption, answer in ready.items() if not answer.refused}
            refused |= {caption: answer for caption, answer in ready.items() if answer.refused}
            if given:
                self._answers = True
                yield given
        if refused and not self._answers and not self._cache.has_answers():
            raise ServerFailed(
                f"the server of {self.settings['model']} refuses every question ({next(iter(refused.values())).text}): "
                "check --llm-model, --llm-request and the prompt"
            )
        yield refused

    def _concurrently(self, captions: list[str]) -> Iterator[dict[str, CachedAnswer]]:
        """All that has come since the last time, at least one; raises the first failure after what came before it."""
        todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        done: _Done = queue.SimpleQueue()
        for caption in captions:
            todo.put(caption)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    caption = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((caption, self._server.ask(self._prompt.replace(PLACE, caption))))
                except BaseException as error:  # the main thread raises it
                    done.put((caption, error))
                    return

        # Daemons: after Ctrl-C the process need not wait for answers that are under way.
        for _ in range(min(self._at_once, len(captions))):
            threading.Thread(target=work, daemon=True).start()
        try:
            left = len(captions)
            while left:
                ready = [done.get()]
                while not done.empty():
                    ready.append(done.get())
                left -= len(ready)
                yield {caption: answer for caption, answer in ready if isinstance(answer, CachedAnswer)}
                for _, answer in ready:
                    if isinstance(answer, BaseException):
                        raise answer
        finally:
            stop.set()


_Done = queue.SimpleQueue["tuple[str, CachedAnswer | BaseException]"]


def read_prompt(path: str | Path | None = None) -> str:
    """The prompt, with the mark {caption} where the caption goes; None: the shipped one.

    Raises:
        InputError: it cannot be read, or has no mark.
    """
    if path is None:
        return files("ttd").joinpath("assets/llm_prompt.txt").read_text("utf-8")
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompt {path} cannot be read as UTF-8 text ({error}): check the path") from None
    if PLACE not in text:
        raise InputError(f"the prompt {path} has no {PLACE}: write it where the caption goes")
    return text
