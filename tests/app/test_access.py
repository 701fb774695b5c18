from __future__ import annotations

import pytest

from ttd.app.access import Access, is_local
from ttd.errors import InputError


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_which_addresses_are_this_machine_alone(host: str, local: bool) -> None:
    assert is_local(host) is local
    if not local:
        with pytest.raises(InputError, match="--user"):
            Access(host, 7860)
    assert (Access(host, 7860, "anna", "long enough").hosts is not None) is local


def test_half_an_account_is_none() -> None:
    for user, password in (("anna", None), (None, "long enough"), (" ", "long enough"), ("anna", "short")):
        with pytest.raises(InputError):
            Access("127.0.0.1", 7860, user, password)


def test_only_the_right_pair_is_let_in() -> None:
    access = Access("0.0.0.0", 7860, "anna", "pässword 1")
    assert access.allows("anna", "pässword 1")
    for user, password in (("anna", "pässword 2"), ("Anna", "pässword 1"), ("", ""), ("anna", ""), ("\ud800", "x")):
        assert not access.allows(user, password)
    assert not Access("127.0.0.1", 7860).allows("", "")
    assert "pässword" not in repr(access)
    assert Access("::1", 7860).address == "http://[::1]:7860/"


def test_a_proxy_adds_its_name_to_those_that_are_accepted() -> None:
    access = Access("127.0.0.1", 7860, root_path="https://example.org:8443/ttd")
    assert access.hosts is not None
    assert {"example.org", "127.0.0.1"} <= access.hosts
    assert access.origin == "example.org:8443"
    only_a_path = Access("127.0.0.1", 7860, root_path="/ttd")
    assert only_a_path.hosts == Access("127.0.0.1", 7860).hosts
    assert only_a_path.origin is None
    with pytest.raises(InputError, match="https://name/path"):
        Access("127.0.0.1", 7860, root_path="ttd")


def test_everybody_is_let_in_only_where_that_is_said() -> None:
    assert Access("0.0.0.0", 7860, public=True).hosts is None
    for site in ("example.org", "https://example.org/path", "https://a.org; script-src *", "https://a.org 'self'"):
        with pytest.raises(InputError, match="--embed"):
            Access("127.0.0.1", 7860, embed=(site,))
    assert Access("127.0.0.1", 7860, embed=("https://huggingface.co",)).embed == ("https://huggingface.co",)
