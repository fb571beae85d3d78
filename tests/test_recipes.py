"""The recipes of the documentation run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "docs" / "recipes"


@pytest.mark.slow
def test_ray(tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("torch")
    (code,) = re.findall(r"^```python\n(.*?)^```$", (RECIPES / "ray.md").read_text(), re.M | re.S)
    program = tmp_path / "recipe.py"
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "two actors gave what one process gives"
