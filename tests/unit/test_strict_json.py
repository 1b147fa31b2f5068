"""JSON that says a thing twice is refused, at any depth; all else is read as usual."""

import json

import pytest

from prototokens._util import strict_json

REPEATED = ['{"a": 1, "a": 1}', '{"a": {"b": 1, "c": 2, "b": 3}}', '[1, {"a": 1, "\\u0061": 2}]']


@pytest.mark.parametrize("text", REPEATED)
def test_a_repeated_key_is_refused(text):
    with pytest.raises(strict_json.RepeatedKeyError, match=r"names the key '[ab]' twice"):
        strict_json.loads(text)


@pytest.mark.parametrize(
    "text", ["{}", '{"a": {"a": {"a": 1}}}', '[{"a": 1}, {"a": 2}]', '"a"', "1.5", "null"]
)
def test_all_else_is_read_as_usual(text):
    assert strict_json.loads(text) == json.loads(text)
    assert strict_json.loads(text.encode()) == json.loads(text)


def test_options_are_passed_on():
    assert strict_json.loads("[1.5]", parse_float=str) == ["1.5"]
