"""What each protocol sets, per data set where the authors' configurations differ, and what the command line changes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.colour_encoder import ColourEncoder
from ttd.encoders.methods import find_method, known_methods
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import own_classes
from ttd.inference.options import Options
from ttd.inference.protocols import PROTOCOLS, class_options, find_protocol

SETS = ("voc", "voc20", "context60", "context59", "coco-object", "coco-stuff", "ade20k", "cityscapes")


def opened(protocol: str, dataset: str, **changes: Any) -> Options:
    classes = own_classes(dataset, None, None, find_protocol(protocol).classes)
    return class_options(protocol, changes, dataset, background=classes.background_words, encoder=ColourEncoder())


@pytest.mark.parametrize(
    ("protocol", "dataset", "expected"),
    [
        # protocol, data set: short side, window, step, softmax scale, probability, area, PAMR (their configurations)
        ("sclip", "voc", (336, 224, 112, 65, 0.1, 0.1, "none")),
        ("sclip", "voc20", (336, 224, 112, 40, None, None, "none")),
        ("sclip", "context60", (336, 224, 112, 50, 0.1, None, "none")),
        ("sclip", "coco-object", (336, 224, 112, 50, 0.1, None, "none")),
        ("sclip", "coco-stuff", (448, 224, 112, 40, None, None, "none")),
        ("sclip", "cityscapes", (560, 224, 112, 40, None, None, "none")),
        ("naclip", "voc", (336, 2048, 2048, 40, 0.1, None, "pamr")),
        ("naclip", "voc20", (336, 2048, 2048, 40, None, None, "pamr")),
        ("naclip", "context60", (336, 224, 112, 40, 0.1, None, "pamr")),
        ("naclip", "ade20k", (336, 224, 112, 40, None, None, "pamr")),
        ("naclip", "coco-stuff", (448, 224, 112, 40, None, None, "pamr")),
        ("naclip", "cityscapes", (560, 224, 112, 40, None, None, "pamr")),
        ("clearclip", "voc", (448, 448, 224, 50, 0.5, None, "none")),
        ("clearclip", "context60", (448, 448, 224, 50, 0.15, None, "none")),
        ("clearclip", "coco-object", (448, 448, 224, 50, 0.4, None, "none")),
        ("clearclip", "cityscapes", (448, 224, 224, 50, None, None, "none")),
        ("sc-clip", "voc", (336, 224, 112, 50, 0.15, 0.1, "none")),
        ("sc-clip", "context60", (336, 224, 112, 40, 0.15, None, "none")),
        ("sc-clip", "coco-object", (336, 224, 112, 55, 0.35, None, "none")),
        ("sc-clip", "coco-stuff", (336, 224, 112, 40, None, None, "none")),
        ("sc-clip", "cityscapes", (560, 224, 112, 40, None, None, "none")),
        ("proxyclip", "voc", (336, 336, 112, 40, 0.2, None, "none")),
        ("proxyclip", "context60", (336, 336, 112, 40, 0.15, None, "none")),
        ("proxyclip", "coco-object", (336, 336, 112, 40, 0.25, None, "none")),
        ("proxyclip", "ade20k", (448, 336, 112, 40, None, None, "none")),
        ("proxyclip", "cityscapes", (448, 224, 112, 40, None, None, "none")),
        ("trident", "voc", (336, 336, 224, 40, 0.2, None, "none")),
        ("gem", "voc20", (448, None, None, None, None, None, "none")),
        ("clip-surgery", "voc20", (512, None, None, None, None, None, "none")),
        ("cliptrase", "voc20", (336, None, None, None, None, None, "none")),
    ],
)
def test_settings_of_the_public_configurations(protocol: str, dataset: str, expected: tuple[Any, ...]) -> None:
    o = opened(protocol, dataset)
    found = (o.size, o.window, o.stride, o.logit_scale, o.prob_threshold, o.area_threshold, o.refine)
    assert found == expected
    whole = {"gem": "square", "clip-surgery": "square", "cliptrase": "patches"}
    if protocol in whole:
        templates = {"gem": ("a photo of a {}.",), "clip-surgery": "maskclip85", "cliptrase": "openai80"}[protocol]
        scale = {"gem": "norm", "clip-surgery": "norm-patches", "cliptrase": "calibrated"}[protocol]
        assert (o.resize, o.templates, o.label_scale) == (whole[protocol], templates, scale)
        return
    resize = "opencv-patches" if protocol == "trident" else "opencv"
    assert (o.resize, o.pad, o.templates) == (resize, {"clearclip": 16, "proxyclip": 56}.get(protocol), "openai80")
    assert (o.pamr_dilations, o.pamr_grid) == ((8, 16), "image")


def test_names_are_spelled_as_each_protocol_spells_them() -> None:
    lists = {name: own_classes("voc", None, None, find_protocol(name).classes) for name in PROTOCOLS}
    assert {len(one) for one in lists.values()} == {21}
    table = {name: one.titles[11] for name, one in lists.items()}
    assert {table[name] for name in ("paper", "tcl", "tcl-plain", "maskclip", "gem", "clip-surgery")} == {"diningtable"}
    peers = ("sclip", "naclip", "clearclip", "sc-clip", "proxyclip", "trident", "cliptrase")
    assert {table[name] for name in peers} == {"table"}
    assert lists["proxyclip"].background_words == lists["sclip"].background_words
    assert lists["proxyclip"].names[15] == ("person",)
    assert table["default"] == "dining table"
    assert lists["tcl"].titles[20] == "tvmonitor"
    assert lists["sclip"].background_words == lists["naclip"].background_words
    assert lists["sclip"].background_words[:3] == ("sky", "wall", "tree")
    assert lists["clearclip"].background_words == ()
    assert all(len(names) == 1 for names in lists["clearclip"].names)
    for dataset in SETS:
        assert {len(own_classes(dataset, None, None, find_protocol(name).classes)) for name in PROTOCOLS} == {
            len(own_classes(dataset, None))
        }


def test_the_background_by_words_by_a_number_and_by_none() -> None:
    assert opened("sclip", "voc").background_words[:2] == ("sky", "wall")
    assert opened("clearclip", "voc").background_words == ("background",)
    assert opened("sclip", "voc20").background is False
    number = opened("sclip", "voc", background=0.4)
    assert (number.background, number.prob_threshold) == (0.4, None)
    assert number.threshold(ColourEncoder()) == 0.4
    assert opened("paper", "voc", prob_threshold=0.3).background is False
    assert opened("sclip", "voc", background="names").background_words[:2] == ("sky", "wall")
    assert opened("sclip", "voc", background=("fog",)).background_words == ("fog",)
    with pytest.raises(InputError, match="names no words"):
        opened("default", "voc", background="names")
    with pytest.raises(InputError, match="give one of them"):
        opened("sclip", "voc", background=0.4, prob_threshold=0.2)


def test_a_window_of_the_users_brings_its_own_step() -> None:
    assert (opened("naclip", "voc", window=64).window, opened("naclip", "voc", window=64).stride) == (64, None)
    assert (opened("clearclip", "voc", window=None).window, opened("clearclip", "voc", window=None).pad) == (None, None)
    assert opened("sclip", "voc", stride=56).stride == 56


def test_every_methods_protocol_is_there_and_says_where_it_comes_from() -> None:
    assert all(method.protocol in PROTOCOLS for method in known_methods())
    own = {method.name: method.protocol for method in known_methods()}
    assert [own.pop(name) for name in ("maskclip", "values")] == ["paper", "paper"]
    assert own.pop("cliptrase-voc20") == "cliptrase"
    assert own == {name: name for name in own}
    assert find_method("maskclip").refine == "crf"
    assert all(protocol.source for protocol in PROTOCOLS.values())
