"""The documentation: its examples run, every public name has a page, and private ones have none."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import slipstick

DOCS = Path(__file__).parent.parent / "docs"
BUILT = ("_build", "examples", "generated", "backreferences")
PAGES = sorted(
    path
    for path in DOCS.rglob("*")
    if path.suffix in (".md", ".rst") and not set(path.relative_to(DOCS).parts) & set(BUILT)
)
WITH_EXAMPLES = [path for path in PAGES if ">>> " in path.read_text()]
REFERENCE = [path for path in PAGES if "autosummary::" in path.read_text()]
# Importable packages that an example may need.
GUESTS = r">>> (?:import|from) (torch|dask|sklearn|scipy|matplotlib|transformers)"


def name_of(path: Path) -> str:
    return str(path.relative_to(DOCS))


@pytest.fixture
def keep_threads():
    before = slipstick.get_num_threads()
    yield
    slipstick.set_num_threads(before)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=name_of)
def test_examples_of_pages(path, keep_threads):
    for guest in set(re.findall(GUESTS, path.read_text())):
        pytest.importorskip(guest)
    failed, tried = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("path", REFERENCE, ids=name_of)
def test_every_public_name_is_in_the_reference(path):
    text = path.read_text()
    module = re.search(r"currentmodule:: (\S+)", text).group(1)
    try:
        public = set(importlib.import_module(module).__all__)
    except ImportError as error:
        # A bridge whose package is not installed says so; nothing else may be missing.
        pytest.skip(str(error))
    if module == "slipstick":
        public -= {"__version__", "lsh", "mitchell", "projection", "scales"}
    listed = re.findall(r"^   (\w+)$", text, re.M)
    assert sorted(listed) == sorted(public)


@pytest.mark.parametrize(
    "path", [p for p in DOCS.rglob("*.py") if not set(p.parts) & set(BUILT)], ids=name_of
)
def test_no_script_imports_private_names(path):
    assert not re.search(r"slipstick(\.\w+)*\.? ?(import )?\b_(?!_)", path.read_text())
