import pytest
from needs import needed, unavailable


@pytest.mark.parametrize(("value", "outcome"), [("true", pytest.fail), ("TRUE", pytest.fail), ("", pytest.skip)])
def test_what_is_missing_is_skipped_but_fails_under_ci(monkeypatch, value, outcome):
    monkeypatch.setenv("CI", value)
    for ask in (lambda: unavailable("no such thing here"), lambda: needed("no.such.module")):
        with pytest.raises(outcome.Exception, match=r"no such thing|no\.such\.module cannot be imported"):
            ask()


def test_what_is_there_is_given():
    assert needed("json").loads("1") == 1
