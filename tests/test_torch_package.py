"""`slipstick.torch` as a package: its examples, and what it says where torch is missing or old."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")


def test_slipstick_does_not_import_torch():
    code = "import sys, slipstick; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        ("None", "torch of at least version 2.13 must be installed, got none"),
        (
            "types.SimpleNamespace(__version__='2.12.1+cpu')",
            "at least version 2.13, got 2.12.1+cpu",
        ),
    ],
)
def test_without_a_fitting_torch(stub, message):
    code = f"import sys, types; sys.modules['torch'] = {stub}; import slipstick.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: slipstick.torch: " in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    "name",
    ["approximate", "attention", "convolution", "layers", "products", "projection", "scales"],
)
def test_examples(name):
    module = importlib.import_module(f"slipstick.torch._{name}")
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0
