"""The vocabulary: what strategies need, and what they may declare."""

import dataclasses
from dataclasses import dataclass

import pytest

from mixbench import MixStrategy, Needs, create_strategy
from mixbench.strategies.mixup import Mixup


def test_needs_join_every_field():
    values = {"attention": "last", "network": "resnet50"}
    for field in dataclasses.fields(Needs):
        needs = Needs(**{field.name: values.get(field.name, True)})
        assert needs | Needs() == needs == Needs() | needs != Needs()


def test_a_new_need_is_joined_too():
    @dataclass(frozen=True, kw_only=True)
    class More(Needs):
        look: bool = False

    both = More(pixels=True) | More(look=True)
    assert both == More(pixels=True, look=True)
    with pytest.raises(ValueError, match="two kinds of attention, 'last' and '3': choose one"):
        Needs(attention="last") | Needs(attention="3")


def test_clean_weight_by_attribute_and_by_property():
    @dataclass(frozen=True)
    class Attribute(MixStrategy):
        clean_weight = 1.0

        def mix(self, images, labels, ctx):
            raise NotImplementedError

    assert Attribute().clean_weight == 1.0 and Mixup().clean_weight == 0.0
    assert create_strategy("puzzlemix(clean_lam=0.5)").clean_weight == 0.5
    assert [field.name for field in dataclasses.fields(Attribute)] == []
