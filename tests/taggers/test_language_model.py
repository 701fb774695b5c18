"""A language model behind a local server: good, garbled, slow, failing, gone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.extras import needs
from tests.taggers.stub_server import Stub, truthful
from ttd.errors import InputError, MissingExtra
from ttd.taggers import Caption
from ttd.taggers.chat_server import ChatServer, ServerFailed
from ttd.taggers.language_model import KEY_VARIABLE, LanguageModel, read_prompt
from ttd.text.words import split_words

needs("llm", "openai")


def captions(*texts: str) -> list[Caption]:
    return [Caption(text, tuple(word.text for word in split_words(text))) for text in texts]


@pytest.fixture
def open_model(tmp_path: Path) -> Any:
    """Models that keep their answers in the test's folder."""
    opened: list[LanguageModel] = []

    def invoke(url: str, model: str = "vicuna", **options: Any) -> LanguageModel:
        opened.append(LanguageModel(url, model, **{"cache": tmp_path / "cache", **options}))
        return opened[-1]

    yield invoke
    for model in opened:
        model.close()


def test_words_named_by_the_model(open_model: Any) -> None:
    def reply(caption: str, attempt: int) -> str:
        return {"a dog on grass": 'Sure:\n```json\n["Dog", "the grass", "ball"]\n```'}.get(caption, "[]")

    asked = captions("a dog on grass", "the idea", "a dog on grass")
    with Stub(reply) as stub:
        found = open_model(stub.url).choose(asked)
        assert [one.words(caption) for one, caption in zip(found, asked, strict=True)] == [
            ["dog", "grass", "ball"],
            [],
            ["dog", "grass", "ball"],
        ]
        assert sorted(stub.asked) == ["a dog on grass", "the idea"]
        strict = open_model(stub.url, ignore_others=True).choose(asked[:1])
        assert strict[0].others == ()
        assert len(stub.asked) == 2
        path, headers, body = stub.requests[0]
        assert path == "/v1/chat/completions"
        assert "Authorization" not in headers
        assert body["model"] == "vicuna"
        assert body["temperature"] == 0
        assert body["messages"][0]["content"].startswith(read_prompt().split("{caption}")[0])


def test_answers_are_asked_once_for_each_model_prompt_and_request(open_model: Any, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Nouns! Caption: {caption}")
    with Stub() as one, Stub() as other:
        for url in (one.url, other.url, f"{other.url}/chat/completions/"):  # the address is not part of the question
            assert open_model(url).choose(captions("a dog"))[0].selected == (False, True)
        assert (len(one.asked), len(other.asked)) == (1, 0)
        for options in ({"model": "qwen"}, {"prompt": prompt}, {"request": {"max_tokens": None, "top_p": 0.5}}):
            open_model(one.url, **options).choose(captions("a dog"))
        assert len(one.asked) == 4
        assert one.requests[-1][2].keys() == {"model", "messages", "temperature", "top_p", "response_format"}
        assert one.requests[-2][2]["messages"][0]["content"] == "Nouns! Caption: a dog"


def test_a_key_comes_from_the_environment_and_goes_nowhere_else(
    open_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret-17")
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://another.example")
    with Stub(lambda caption, attempt: (401, '{"error": {"message": "wrong key"}}')) as stub:
        model = open_model(stub.url)
        with pytest.raises(ServerFailed, match=r"401 \(wrong key\).*TTD_LLM_API_KEY") as told:
            model.choose(captions("a dog"))
        assert stub.requests[0][1]["Authorization"] == "Bearer sk-secret-17"
        assert not any("another" in value for value in stub.requests[0][1].values())
        assert len(stub.asked) == 1
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert b"secret" not in kept + str(told.value).encode() + json.dumps(model.settings).encode()
    monkeypatch.setenv(KEY_VARIABLE, "two\nlines-secret")
    with pytest.raises(InputError, match="characters") as told:
        open_model("http://localhost/v1")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "fault",
    [
        (429, "{}", {"Retry-After": "0"}),
        (500, "oops"),
        (503, '{"error": "loading"}'),
        lambda handler: handler.connection.close(),
    ],
)
def test_faults_that_pass_are_repeated(open_model: Any, fault: Any) -> None:
    with Stub(lambda caption, attempt: fault if attempt < 2 else truthful(caption)) as stub:
        found = open_model(stub.url, retries=2).choose(captions("a dog", "a cat"))
        assert [one.selected for one in found] == [(False, True)] * 2
        assert len(stub.asked) == 6
    with Stub(lambda caption, attempt: fault) as stub:
        with pytest.raises(ServerFailed, match=r"gives no answer \(.*\): start its server"):
            open_model(stub.url, model="other", retries=1).choose(captions("a dog"))
        assert len(stub.asked) == 2


def test_slow_answers_are_given_up_and_asked_again(open_model: Any) -> None:
    again = threading.Event()

    def reply(caption: str, attempt: int) -> Any:
        if attempt:
            again.set()
        else:
            assert again.wait(60)
        return truthful(caption)

    with Stub(reply) as stub:  # on a busy machine good answers may be late, too: then it is asked once more
        found = open_model(stub.url, timeout=0.3, retries=100).choose(captions("a dog"))
        assert found[0].selected == (False, True)
        assert len(stub.asked) >= 2


def test_nobody_there_is_said_at_once() -> None:
    with Stub() as stub:
        server = ChatServer(stub.url, "vicuna", retries=1000)
    with pytest.raises(ServerFailed, match=r"http://127.0.0.1:\d+ gives no answer \(no connection"):
        server.ask("a dog")


@pytest.mark.parametrize("text", ["<html>no chat</html>", '{"choices": []}', '{"choices": 3}', "{"])
def test_what_is_not_a_chat_server_is_said_at_once(open_model: Any, text: str) -> None:
    with Stub(lambda caption, attempt: (200, text)) as stub:
        with pytest.raises(ServerFailed, match="what it sends is not a chat completion"):
            open_model(stub.url, retries=1000).choose(captions("a dog"))
        assert len(stub.asked) == 1


def test_a_server_that_knows_no_form_of_answers_is_asked_without_it(open_model: Any) -> None:
    def reply(caption: str, attempt: int) -> Any:
        form = stub.requests[-1][2].get("response_format")
        return (400, '{"error": {"message": "response_format?"}}') if form else truthful(caption)

    with Stub(reply) as stub:
        found = open_model(stub.url, at_once=1).choose(captions("a dog", "a cat"))
        assert [one.selected for one in found] == [(False, True)] * 2
        assert stub.asked == ["a dog", "a dog", "a cat"]


def test_an_answer_in_the_form_that_was_asked_for(open_model: Any) -> None:
    with Stub(lambda caption, attempt: '{"words": ["dog", "ball"]}') as stub:
        found = open_model(stub.url).choose(captions("a dog"))
        assert (found[0].selected, found[0].others) == ((False, True), ("ball",))
        assert stub.requests[0][2]["response_format"]["json_schema"]["schema"]["required"] == ["words"]


@pytest.mark.parametrize("status", [302, 404, 405])
def test_a_wrong_address_is_not_asked_again(open_model: Any, status: int) -> None:
    with Stub(lambda caption, attempt: (status, "", {"Location": "http://localhost:1/"})) as stub:
        with pytest.raises(ServerFailed, match=f"answers {status}.*--llm-url"):
            open_model(stub.url, at_once=1).choose(captions("a dog", "a cat"))
        assert len(stub.asked) == 1


def test_unreadable_and_refused_answers_are_none_and_are_kept(open_model: Any) -> None:
    def reply(caption: str, attempt: int) -> Any:
        if "cat" in caption:
            return 400, '{"error": {"message": "content filter"}}'
        return "I am sorry, I would rather talk about the weather today." if "sky" in caption else truthful(caption)

    asked = captions("a cat", "the sky", "a dog")
    with Stub(reply) as stub:
        for _ in range(2):
            found = open_model(stub.url).choose(asked)
            assert [one and one.selected for one in found] == [None, None, (False, True)]
        assert sorted(stub.asked) == ["a cat", "a cat", "a dog", "the sky"]  # what is refused: without a form, too
        assert open_model(stub.url).choose(captions("another cat")) == [None]  # it has answered before
        with pytest.raises(ServerFailed, match=r"refuses every question \(400: content filter\)"):
            open_model(stub.url, model="other").choose(captions("a cat"))
        assert open_model(stub.url, model="other").choose(captions("a dog", "a cat"))[1] is None


def test_questions_are_asked_at_once(open_model: Any) -> None:
    together = threading.Barrier(4, timeout=600)

    def reply(caption: str, attempt: int) -> str:
        together.wait()
        return truthful(caption)

    with Stub(reply) as stub:
        found = open_model(stub.url, at_once=4).choose(captions(*(f"dog {i}" for i in range(8))))
    assert all(one.selected == (True, False) for one in found)


def test_what_was_answered_before_a_failure_is_kept(open_model: Any) -> None:
    def reply(caption: str, attempt: int) -> Any:
        return (500, "") if caption == "c 9" else truthful(caption)

    asked = captions(*(f"c {i}" for i in range(10)))
    with Stub(reply) as stub:
        with pytest.raises(ServerFailed):
            open_model(stub.url, retries=0, at_once=1).choose(asked)
        assert len(stub.asked) == 10
        stub.reply = lambda caption, attempt: truthful(caption)
        open_model(stub.url).choose(asked)
        assert stub.asked[10:] == ["c 9"]


WORK = """
import sys
from tests.taggers.test_language_model import captions
from ttd.taggers.language_model import LanguageModel
url, cache, first, last = sys.argv[1:]
model = LanguageModel(url, "m", cache=cache, at_once=2)
print(sum(one.selected[0] for one in model.choose(captions(*(f"dog {i}" for i in range(int(first), int(last)))))))
"""


def test_two_processes_share_a_cache_and_kills_lose_only_what_is_under_way(tmp_path: Path, open_model: Any) -> None:
    enough, goes_on = threading.Event(), threading.Event()

    def reply(caption: str, attempt: int) -> str:
        if len(stub.asked) > 60:
            enough.set()
            goes_on.wait(60)
        return truthful(caption)

    def kept() -> int:
        base = sqlite3.connect(tmp_path / "cache" / "answers.sqlite")
        with closing(base):
            return int(base.execute("SELECT count(*) FROM answers").fetchone()[0])

    def start(first: int, last: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORK, stub.url, str(tmp_path / "cache"), str(first), str(last)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with Stub(reply) as stub:
        killed = start(0, 200)
        assert enough.wait(60)
        while kept() < 60:  # the last answers are being stored
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert kept() == 60
        assert len(stub.asked) <= 62  # with the two that were under way
        goes_on.set()
        both = [start(0, 120), start(80, 200)]
        assert [int(one.communicate()[0]) for one in both] == [120, 120]
        asked = len(stub.asked)
        assert len(open_model(stub.url, model="m").choose(captions(*(f"dog {i}" for i in range(200))))) == 200
        assert len(stub.asked) == asked


def test_ctrl_c_does_not_wait_for_answers(tmp_path: Path) -> None:
    both_asked, over = threading.Event(), threading.Event()

    def reply(caption: str, attempt: int) -> str:
        if len(stub.asked) == 2:
            both_asked.set()
        over.wait(120)
        return "[]"

    with Stub(reply) as stub:
        command = [sys.executable, "-c", WORK, stub.url, str(tmp_path / "cache"), "0", "5"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        assert both_asked.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) != 0  # it ends, and no answer has come
        over.set()


def test_a_damaged_cache_is_named(tmp_path: Path, open_model: Any) -> None:
    place = tmp_path / "cache" / "answers.sqlite"
    place.parent.mkdir()
    place.write_bytes(b"no base at all " * 100)
    with pytest.raises(InputError, match=r"answers.sqlite \(.*\): remove it if it is damaged"):
        open_model("http://localhost:1/v1")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000/v1", "not an address"),
        ("ftp://x/v1", "not an address"),
        ("http://", "not an address"),
        ("http://[::1/v1", "not an address"),
        ("http://x:port/v1", "not an address"),
        ("http://a\x00b/v1", "not an address"),
        ("https://user:pass@x/v1", "no user or password"),
    ],
)
def test_wrong_addresses(open_model: Any, url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_model(url)


def test_wrong_prompts_and_requests(open_model: Any, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    for content, message in ((b"no mark", "no {caption}"), (b"\xff{caption}", "UTF-8")):
        prompt.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_model("http://x/v1", prompt=prompt)
    with pytest.raises(InputError, match="cannot be read"):
        open_model("http://x/v1", prompt=tmp_path / "none.txt")
    with pytest.raises(InputError, match="'messages' is ours"):
        open_model("http://x/v1", request={"messages": []})
    with pytest.raises(InputError, match="--llm-model is empty"):
        open_model("http://x/v1", model=" ")


def test_without_openai_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[llm\]'"):
        ChatServer("http://x/v1", "m")


assert os.environ.get(KEY_VARIABLE) is None, "tests must not see a key of the user's"
