"""What is stored is read strictly: JSON without NaN, YAML that cannot grow, fields of the type their names say."""

import os
import time

import pytest

from ddim.files import read_json
from ddim.refused import Refused
from ddim.stored import FLAG, NUMBER, WORD, checked, counted, from_json, from_yaml, object_from_json

DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NaN", "NaN is no number"), ('{"a": [-Infinity]}', "-Infinity is no number"),
        ("[1e999]", "beyond all numbers"),
        ("1" * 5000, "x is not readable as JSON"), ("[" * DEEP + "]" * DEEP, "x is not readable as JSON"),
        ("[" * 70 + "]" * 70, "more than 64 lists or mappings"), (b"\xff\xfe", "x is not readable as JSON"),
        ("{} {}", "Extra data"), ("", "x is not readable as JSON"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_in_one_line(text, words):
    with pytest.raises(Refused, match=words) as found:
        from_json(text, "x")
    assert "\n" not in str(found.value) and len(str(found.value)) < 300
    with pytest.raises(Refused):
        object_from_json("[]", "x")


def test_json_of_other_programs_is_read():
    assert from_json('{"a": [1, 2.5, -1e-4, 1e300, null, true, "\\u00e9"], "b": {}}', "x") == {
        "a": [1, 2.5, -1e-4, 1e300, None, True, "\u00e9"], "b": {},
    }  # fmt: skip


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(Refused, match="no file that can be read"):
        read_json(tmp_path / "x.json")
    (tmp_path / "large.json").open("wb").truncate(2**33)
    with pytest.raises(Refused, match="8589934592 bytes, too many"):
        read_json(tmp_path / "large.json")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]", "&a {b: *a}", "&a {b: {c: [*a]}}"])
def test_yaml_that_grows_is_refused_at_once(text):
    begun = time.process_time()
    with pytest.raises(Refused, match="more than 1000000 values"):
        from_yaml(text, "x")
    assert time.process_time() - begun < 5.0


def test_yaml_of_people_is_read():
    assert from_yaml("base: &b {lr: 1e-4}\nown:\n  <<: *b\n  steps: [1, 2]\n", "x") == {
        "base": {"lr": 1e-4}, "own": {"lr": 1e-4, "steps": [1, 2]},
    }  # fmt: skip
    assert from_yaml("", "x") is None and from_yaml("# nothing", "x") is None
    for text in (
        "{a: " * 3000 + "1" + "}" * 3000,
        "!!python/name:os.system",
        "? [1]\n: {a: 1}\n? {b: 1}\n: 2",
        "a:\n\t- b",
    ):
        with pytest.raises(Refused, match="x is not readable"):
            from_yaml(text, "x")


RULES = {"count": counted(1, 9), "seed": counted(0), "on": FLAG, "rate": NUMBER, "name": WORD}


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("count", 0, "a whole number from 1 to 9"), ("count", 10, "a whole number from 1 to 9"),
        ("count", True, "a whole number from 1 to 9"), ("count", 2.0, "a whole number from 1 to 9"),
        ("count", "5", "a whole number from 1 to 9"), ("seed", 2**63, "a whole number from 0"),
        ("on", 1, "true or false"), ("rate", float("nan"), "a finite number"), ("rate", 10**400, "a finite number"),
        ("rate", [1], "a finite number"), ("name", 5, "a word"), ("name", {"a": "b" * 1000}, "a word"),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_named(field, value, rule):
    with pytest.raises(Refused, match=f"file: {field} must be {rule}, got ") as found:
        checked({field: value}, RULES, "file")
    assert len(str(found.value)) < 200


def test_fields_that_fit_are_kept_and_null_is_not_told():
    told = {"count": 9, "seed": 0, "on": False, "rate": 0.5, "name": "", "other": [1]}
    assert checked(told, RULES, "file") == told
    assert checked({"count": None}, RULES, "file") == {"count": None}
