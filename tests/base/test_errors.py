"""Errors: what messages quote, and what libraries raise becomes an error of ours."""

import pytest

from gpt4image.base.errors import ConfigError, DataError, first_few, first_line, nearest, parsing


def test_the_nearest_name_is_told_and_many_choices_are_not_listed() -> None:
    known = ["baseline", "aligned"]
    assert nearest("alinged", known) == "'alinged' is not one of: aligned, baseline. Did you mean 'aligned'?"
    assert nearest("x", known) == "'x' is not one of: aligned, baseline."
    many = [f"option-{number}" for number in range(21)]
    assert nearest("optoin-3", many) == "'optoin-3' is not known. Did you mean 'option-3'?"
    assert nearest("x", many).count("option-") == 21, "without a near one, all of them are the help there is"
    assert first_few("ab") == "'a', 'b'" and first_few("abcdefg", limit=3) == "'a', 'b', 'c' and 4 more"
    assert first_line(ValueError("\n one\ntwo")) == "one" and first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) == 200


def test_what_a_library_raises_is_a_data_error_and_our_own_errors_stay() -> None:
    with pytest.raises(DataError, match=r"a\.csv: no table \(broken\)\.") as caught, parsing("a.csv: no table"):
        raise RuntimeError("broken\nby a library")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ConfigError), parsing("a.csv"):
        raise ConfigError("ours")
    with pytest.raises(KeyboardInterrupt), parsing("a.csv"):
        raise KeyboardInterrupt
