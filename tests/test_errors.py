import pickle

import pytest

from wsi_pipeline import errors

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.WsiPipelineError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_where_why_and_what_to_do_and_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("slide.svs", "is empty", "Copy it again.")))
    assert type(error) is kind
    assert str(error) == "slide.svs: is empty. Copy it again."
    assert (error.where, error.why, error.hint) == ("slide.svs", "is empty", "Copy it again.")


def test_errors_are_also_the_builtin_they_refine():
    with pytest.raises(OSError, match="no space"):
        raise errors.OutputError("results", "no space left")
    assert str(errors.BundleError("x", "is broken")) == "x: is broken."
