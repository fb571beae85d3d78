"""The encoder once more, plainly, in float64: what the demo's encoder is checked against.

No padding, one sentence and one head at a time in the attention, the weights as the file holds
them, nothing shared with `encoder`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

# erf by linear interpolation: with 2^16 steps over [-6, 6] the error is below h^2/8 = 4.2e-9
# (|erf''| < 1), and beyond 6 erf is 1 to the last bit of float64.
_STEPS = 2**16
_ERF = np.array([math.erf(12.0 * i / _STEPS - 6.0) for i in range(_STEPS + 2)])


class Oracle:
    """Sentence embeddings in float64 from the published weights and config."""

    def __init__(self, weights: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]) -> None:
        self._config = config
        self._words = weights["embeddings.word_embeddings.weight"]
        self._weights = {
            name: value.astype(np.float64)
            for name, value in weights.items()
            if value.dtype.kind == "f" and "word_embeddings" not in name
        }

    def embed(self, sentences: Sequence[Sequence[int]]) -> Array:
        """Return unit vectors, (sentences, hidden), of sentences given as token ids.

        Linear layers treat every token alone, so all sentences run through them stacked.
        """
        ends = np.cumsum([len(ids) for ids in sentences]).tolist()
        parts = [slice(end - len(ids), end) for ids, end in zip(sentences, ends, strict=True)]
        positions = self._weights["embeddings.position_embeddings.weight"]
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        x = np.vstack([self._words[list(ids)] + positions[: len(ids)] + kind for ids in sentences])
        x = self._normalise(x, "embeddings.LayerNorm")
        for i in range(self._config["num_hidden_layers"]):
            name = f"encoder.layer.{i}"
            q, k, v = (
                self._linear(x, f"{name}.attention.self.{part}")
                for part in ("query", "key", "value")
            )
            seen = np.vstack([self._attend(q[part], k[part], v[part]) for part in parts])
            x = x + self._linear(seen, f"{name}.attention.output.dense")
            x = self._normalise(x, f"{name}.attention.output.LayerNorm")
            h = self._linear(x, f"{name}.intermediate.dense")
            x = x + self._linear(h * 0.5 * (1.0 + _erf(h / math.sqrt(2.0))), f"{name}.output.dense")
            x = self._normalise(x, f"{name}.output.LayerNorm")
        means = np.vstack([x[part].mean(axis=0) for part in parts])
        unit: Array = means / np.sqrt(np.sum(means**2, axis=1))[:, None]
        return unit

    def _attend(self, q: Array, k: Array, v: Array) -> Array:
        dim = q.shape[1] // self._config["num_attention_heads"]
        heads = []
        for first in range(0, q.shape[1], dim):
            head = slice(first, first + dim)
            scores = q[:, head] @ k[:, head].T / math.sqrt(dim)
            p = np.exp(scores - scores.max(axis=1)[:, None])
            heads.append(p / p.sum(axis=1)[:, None] @ v[:, head])
        return np.hstack(heads)

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normalise(self, x: Array, name: str) -> Array:
        spread = np.sqrt(x.var(axis=1) + self._config["layer_norm_eps"])
        x = (x - x.mean(axis=1)[:, None]) / spread[:, None]
        return x * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _erf(z: Array) -> Array:
    position = (np.clip(z, -6.0, 6.0) + 6.0) * (_STEPS / 12.0)
    i = position.astype(np.int64)
    low: Array = _ERF[i]
    high: Array = _ERF[i + 1]
    return low + (position - i) * (high - low)
