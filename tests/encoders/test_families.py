from __future__ import annotations

import pytest

from tests.colour_encoder import ColourEncoder
from ttd.encoders.families import Format, families, find_family, register_encoder
from ttd.errors import InputError, ModelError


def test_the_packages_own_families_come_first() -> None:
    assert [family.kind for family in families()][:3] == ["clip", "siglip", "tcl"]
    assert all(family.encoder.kind == family.kind for family in families())


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ModelError, match=r"unknown kind of model 'resnet'.*clip, siglip, tcl"):
        find_family("resnet")


@pytest.mark.parametrize("kind", ["clip", "tcl", "Colour", "", "../x"])
def test_a_kind_that_is_taken_or_no_name_is_refused(kind: str) -> None:
    with pytest.raises(InputError):
        register_encoder(kind)(type("Mine", (ColourEncoder,), {}))
    assert all(family.encoder.__name__ != "Mine" for family in families())


def test_a_format_is_recognised_by_one_thing() -> None:
    with pytest.raises(InputError, match="one of model_type"):
        Format("both", model_type="x", config="y.json")
    with pytest.raises(InputError, match="one of model_type"):
        Format("neither")


def test_a_family_that_says_nothing_about_files_is_refused_in_a_sentence() -> None:
    encoder = ColourEncoder()
    with pytest.raises(ModelError, match="must define from_source"):
        encoder.from_source(None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="must define save"):
        encoder.save(None)  # type: ignore[arg-type]
