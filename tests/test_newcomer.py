"""tools/newcomer.py can fail: what it finds wrong decides its exit code."""

import newcomer
import pytest


def door(command, code, holds):
    def own(walk):
        """A door."""
        said = walk.types(command, code)
        walk.check("it names itself", holds == ("ddim" in said))

    return own


@pytest.mark.parametrize(
    ("doors", "code"),
    [
        ([door("ddim --version", 0, True)], 0),
        ([door("ddim --version", 0, False)], 1),  # a check that does not hold
        ([door("ddim --version", 2, True), door("ddim --version", 0, True)], 1),  # an exit code; the next door is tried
        ([door("ddim nonsense", 2, True)], 0),
    ],
)
def test_the_exit_code_says_whether_all_of_it_holds(doors, code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(newcomer, "DOORS", doors)
    assert newcomer.main([str(tmp_path)]) == code
    said = capsys.readouterr().out
    assert said.count("$ ddim") == len(doors) and ("WRONG" in said) == bool(code)


def test_a_walk_that_takes_too_long_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(newcomer, "DOORS", ())
    assert newcomer.main([str(tmp_path)]) == 0
    monkeypatch.setattr(newcomer, "MOST_SECONDS", -1)
    assert newcomer.main([str(tmp_path)]) == 1
