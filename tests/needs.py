"""What tests need of the machine they run on: where it is not there they are skipped, and under CI=true they fail."""

import os
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip; where everything has to be there, fail."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def needed(module: str) -> ModuleType:
    """A module that the extra `test` brings along."""
    try:
        return import_module(module)
    except ImportError as error:
        unavailable(f'{module} cannot be imported ({error}): pip install ".[test]"')
