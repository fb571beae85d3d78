"""Packages that only the demo uses, imported when they are needed."""

import importlib
from types import ModuleType


class Missing(Exception):
    """Something optional is not installed; the message is the sentence to show."""


def require(module: str, *, purpose: str, package: str) -> ModuleType:
    """Import `module`, or raise `Missing` with the command that installs `package`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A package that is there but broken keeps its own traceback.
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise Missing(
            f"Without {package} there is no {purpose}: run `pip install {package}`."
        ) from None
