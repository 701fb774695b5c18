from __future__ import annotations

from pathlib import Path

import pytest

from ttd.app.models import NO_ADAPTER, OWN_METHOD, PageChoices
from ttd.encoders.methods import find_method
from ttd.errors import InputError


def test_labels_are_short_and_never_two_the_same(tmp_path: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / run / "adapter").mkdir(parents=True)
    (tmp_path / "a" / "other").mkdir()
    names = [str(tmp_path / "a" / "adapter"), str(tmp_path / "b" / "adapter"), str(tmp_path / "a" / "other"), "tcl+ttd"]
    choices = PageChoices.of(["mini", "mini", "openai/clip-vit-base-patch16"], names)
    assert list(choices.models) == ["mini", "openai/clip-vit-base-patch16"]
    assert choices.adapter_labels == [NO_ADAPTER, names[0], names[1], "other", "tcl+ttd"]
    assert choices.names("mini", "other") == ("mini", names[2])
    assert choices.names("mini", NO_ADAPTER) == ("mini", None)


@pytest.mark.parametrize(("model", "adapter"), [("/etc/passwd", NO_ADAPTER), ("mini", "../x"), ("", "")])
def test_a_visitor_cannot_name_another_model(model: str, adapter: str) -> None:
    with pytest.raises(InputError, match="choose from the list"):
        PageChoices.of(["mini"], ["tcl+ttd"]).names(model, adapter)


def test_only_what_is_there_is_offered() -> None:
    offered = PageChoices.of(["mini"]).methods
    assert offered[0] == OWN_METHOD
    assert {"gem", "naclip"} < set(offered)
    assert not {"proxyclip", "trident"} & set(offered)
    one, both = (PageChoices.of(["mini"], proxy_model=names) for names in ("dino", "dino,sam"))
    assert "proxyclip" in one.methods
    assert "trident" not in one.methods
    for name in ("proxyclip", "trident"):
        assert both.method(name).second_backbone is not None
        assert both.method(name).second_backbone == find_method(name).with_second_backbone("dino,sam").second_backbone
        with pytest.raises(InputError, match="choose from the list"):
            PageChoices.of(["mini"]).method(name)
    assert "sam" not in PageChoices.of(["mini"]).refinements
    assert "sam" in PageChoices.of(["mini"], sam_model="sam-hq").refinements
    with pytest.raises(InputError, match="at least one model"):
        PageChoices.of([])
