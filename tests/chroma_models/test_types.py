"""What crosses from stage to stage arrives as it left."""

import pickle
from dataclasses import fields

import pytest

from chroma_models.types import Frame, TextStep

STEP = TextStep(3, 17, b"row", " word")


@pytest.mark.parametrize("item", [STEP, Frame(6, bytes(range(16)), STEP), Frame(7, bytes(16), None)])
def test_every_field_of_an_item_arrives(item: TextStep | Frame) -> None:
    """They say themselves how they are pickled: a field that was added and forgotten there would be lost."""
    arrived = pickle.loads(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))
    assert type(arrived) is type(item)
    for field in fields(item):
        assert getattr(arrived, field.name) == getattr(item, field.name)
    assert item.__reduce__()[1] == tuple(getattr(item, field.name) for field in fields(item))
