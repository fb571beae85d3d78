"""The documents' examples run, and their commands are what they should be."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import slipstick

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("cpp/*/README.md")]
    if ">>> " in path.read_text()
)
# What a bridge stands on. CI installs all; who has less tests less.
GUESTS = {
    "dask": "dask",
    "distributed": "torch",
    "sklearn": "sklearn",
    "torch": "torch",
    "transformers": "transformers",
}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(slipstick.__path__, "slipstick.")
    if not module.name.endswith(("__main__", "_cpu", "_cuda"))
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_of_documents(path):
    text = path.read_text()
    for block in re.findall(r"^```python\n.*?^```$", text, re.M | re.S):
        for bridge in re.findall(r"slipstick\.(\w+)", block):
            if bridge in GUESTS and not importlib.util.find_spec(GUESTS[bridge]):
                text = text.replace(block, "")
    examples = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    failed, tried = doctest.DocTestRunner().run(examples)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    bridge = name.split(".")[1]
    if bridge in GUESTS:
        pytest.importorskip(GUESTS[bridge])
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", ["lsh", "mitchell", "projection", "scales", "reference"])
def test_every_public_function_is_documented(name):
    module = importlib.import_module(f"slipstick.{name}")
    for public in module.__all__:
        assert (getattr(module, public).__doc__ or "").strip(), f"{name}.{public}"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_the_readme_has_exactly_two_commands():
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    commands = [text for language, text in fenced if language == ""]
    assert [text.count("\n") for text in commands] == [1, 1]
    assert commands[0].startswith('pip install ".[demo]" && ')
    assert commands[1].startswith('pip install ".[test]" && ')
