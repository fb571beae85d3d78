"""The gallery's training examples run as a whole, at a tiny size."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slipstick

pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")
matplotlib = pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parent.parent / "docs" / "gallery" / "training"


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs an example with other constants and gives its variables."""
    monkeypatch.chdir(FOLDER)
    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: None)  # it warns where there is a display

    def execute(name: str, **constants: Any) -> dict[str, Any]:
        tree = ast.parse((FOLDER / name).read_text(encoding="utf-8"))
        left = dict(constants)
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                target = node.targets[0].id
                if target in left:
                    node.value = ast.parse(repr(left.pop(target)), mode="eval").body
        assert not left, f"{name} has no constants {sorted(left)}"
        ast.fix_missing_locations(tree)
        variables: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(tree, name, "exec"), variables)
        return variables

    # At this size more threads only wait for each other, which takes minutes on busy cores.
    threads = torch.get_num_threads(), slipstick.get_num_threads()
    torch.set_num_threads(1)
    slipstick.set_num_threads(1)
    with torch.random.fork_rng(), matplotlib.rc_context():
        yield execute
    pyplot.close("all")
    torch.set_num_threads(threads[0])
    slipstick.set_num_threads(threads[1])


def pictures():
    from matplotlib import pyplot

    return [pyplot.figure(number) for number in pyplot.get_fignums()]


def test_digits(run, capsys):
    example = run("plot_digits.py", SEEDS=1, EPOCHS=1, BATCH=256)
    for results in example["runs"].values():
        assert len(results) == 1
        for _, losses, accuracies in results:
            assert np.isfinite(losses).all()
            assert len(losses) == len(accuracies) == 1
    # The same weights, images and order: only the products differ, and those of Mitchell by little.
    exact, mitchell = (
        example["runs"][way] for way in (("exact arithmetic", ""), ("Mitchell", "mimic"))
    )
    assert exact[0][1] == pytest.approx(mitchell[0][1], rel=0.1)
    assert exact[0][1] != mitchell[0][1]
    assert "3 layers multiply by Mitchell()" in capsys.readouterr().out
    assert [len(figure.axes) for figure in pictures()] == [6, 2]


def test_length(run, capsys):
    lengths = (16, 64)
    example = run(
        "plot_length.py", SEEDS=1, STEPS=3, TRAINED=16, LENGTHS=lengths, LAST=8, SPACING=30_000
    )
    assert len(example["texts"]) > 0
    for losses, entropies in example["readers"].values():
        assert losses.shape == (1, 2, len(example["texts"]))
        assert np.isfinite(losses).all()
        # No more than the logarithm of the keys that the last rows see.
        assert (entropies > 0).all()
        assert (entropies <= np.log(lengths)[:, None]).all()
    # A scale that is the fixed one up to the training length reads like it there.
    fixed, clipped = (example["readers"][f"fixed{way}"] for way in ("", ", read with ClippedLogN"))
    np.testing.assert_allclose(clipped[0][:, 0], fixed[0][:, 0], rtol=1e-4)
    assert (clipped[1][:, 1] != fixed[1][:, 1]).all()
    assert "seed 0, heads of each layer" in capsys.readouterr().out
    assert [len(figure.axes) for figure in pictures()] == [3]
