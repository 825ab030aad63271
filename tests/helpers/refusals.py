"""What tests expect of a file that is refused."""

from contextlib import contextmanager

import pytest

from utils.errors import DataError


@contextmanager
def refused(*words):
    """Within it a DataError must be raised, and its message must contain these words and a remedy."""
    with pytest.raises(DataError) as caught:
        yield
    for word in (*words, "Remedy: "):
        assert str(word) in str(caught.value)
