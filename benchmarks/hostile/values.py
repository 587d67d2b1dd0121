"""Values that a field may hold and should not."""

from typing import Any

LONG = 10**400  # Python refuses to write it out
NUMBERS: dict[str, Any] = {
    "text": "7",
    "nothing": "",
    "list": [2],
    "empty_list": [],
    "object": {"a": 1},
    "true": True,
    "nan": float("nan"),
    "infinity": float("inf"),
    "400_digits": LONG,
    "long_text": "x" * 5000,
}
SIZES = NUMBERS | {"half": 1.5, "minus": -1, "zero": 0, "trillion": 10**12, "billion": 2**31}
SWITCHES: dict[str, Any] = {
    "text": "false",
    "two": 2,
    "minus": -1,
    "half": 0.5,
    "list": [True],
    "empty_list": [],
    "object": {"a": True},
    "nan": float("nan"),
    "400_digits": LONG,
    "long_text": "x" * 5000,
}
CHOICES: dict[str, Any] = {
    "other": "no_such_thing",
    "nothing": "",
    "number": 3,
    "true": True,
    "list": ["silu"],
    "empty_list": [],
    "object": {"a": "silu"},
    "nan": float("nan"),
    "400_digits": LONG,
    "zero_character": "\0",
    "long_text": "x" * 5000,
    "surrogate": "\ud800",
    "line_end": "a\nb",
}
LISTS: dict[str, Any] = {
    "text": "abc",
    "number": 3,
    "true": True,
    "object": {"a": 1},
    "nested": [[[]]],
    "nulls": [None, None],
    "numbers": [1, 2],
    "texts": ["no", "such"],
    "400_digits": [LONG],
    "long_text": "x" * 5000,
}
OBJECTS: dict[str, Any] = {
    "text": "abc",
    "number": 3,
    "true": True,
    "list": [1],
    "list_of_lists": [["a", 1]],
    "unknown": {"no_such_thing": 1},
    "nested": {"a": {"a": {"a": []}}},
    "nan": float("nan"),
    "400_digits": LONG,
    "long_text": "x" * 5000,
}
