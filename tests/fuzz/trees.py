"""Trees of JSON that are almost right: one that is, with a few places changed."""

import copy
from typing import Any

import atheris

# What parsers tend to stumble over; a chosen tree may hold any of it in any place.
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1 << 31,
    1 << 63,
    -(1 << 64),
    10**400,
    0.1,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "inf",
    "\0",
    "\ud800",
    "é" * 300,
    "A" * 70_000,
    "default",
    "audio/pcmu",
    [],
    {},
    [[[[[[[[]]]]]]]],
    {"type": "message"},
    {"id": "voice_1"},
    {"": {"": {}}},
    ["text", "audio"],
]
MOST_DOUBLED = 8  # entries of a list that is made longer: twice over, 70,000 letters would be a hundred megabytes
KEYS = ["type", "id", "audio", "content", "role", "format", "voice", "session", "item", "response", "", "__class__"]


def changed(tree: Any, data: atheris.FuzzedDataProvider) -> Any:
    """A copy with up to four places replaced, dropped, doubled or added to."""
    tree = copy.deepcopy(tree)
    for _ in range(data.ConsumeIntInRange(0, 4)):
        tree = _changed(tree, data)
    return tree


def _changed(tree: Any, data: atheris.FuzzedDataProvider) -> Any:
    inside = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    if not inside or data.ConsumeIntInRange(0, 7) == 0:
        return _odd(data)
    key = inside[data.ConsumeIntInRange(0, len(inside) - 1)]
    match data.ConsumeIntInRange(0, 9):
        case 0:
            del tree[key]
        case 1 if isinstance(tree, list) and len(tree) < MOST_DOUBLED:
            tree.extend(tree * data.ConsumeIntInRange(0, 40))
        case 1 | 2 if isinstance(tree, dict):
            tree[_name(data)] = _odd(data)
        case _:
            tree[key] = _changed(tree[key], data)
    return tree


def _odd(data: atheris.FuzzedDataProvider) -> Any:
    pick = data.ConsumeIntInRange(0, len(ODD) + 3)
    if pick < len(ODD):
        return copy.deepcopy(ODD[pick])
    if pick == len(ODD):
        return data.ConsumeInt(9)
    return data.ConsumeUnicode(data.ConsumeIntInRange(0, 40))


def _name(data: atheris.FuzzedDataProvider) -> str:
    pick = data.ConsumeIntInRange(0, len(KEYS))
    return KEYS[pick] if pick < len(KEYS) else data.ConsumeUnicode(12)
