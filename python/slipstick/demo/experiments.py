"""The four questions of the demo, answered in numbers. Nothing here prints or draws."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from slipstick import mitchell, projection
from slipstick.scales import LogN

from .encoder import Array, Encoder, Model, Tokens, Weights
from .oracle import Oracle

Advance: TypeAlias = Callable[[int], None]
Float64: TypeAlias = npt.NDArray[np.float64]

# Three sentences and their similarities as the documentation of sentence-transformers prints them
# for this model (www.sbert.net, quickstart): pairs (1, 2), (1, 3), (2, 3).
PUBLISHED_SENTENCES = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
)
PUBLISHED_SIMILARITIES = (0.6660, 0.1046, 0.1411)

METHODS = ("mitchell", "zero-bias", "minimax")
KINDS = ("rademacher", "gaussian")
_NEIGHBOURS = 10
# Sentences per call of the float64 pass: about 600 tokens, so that a product pays for its threads.
_ORACLE_BATCH = 20


def agreement(
    embeddings: Array,
    sentences: Sequence[Tokens],
    weights: Weights,
    config: Mapping[str, Any],
    advance: Advance,
) -> Float64:
    """Cosine similarity of each embedding to the float64 pass, (sentences,)."""
    oracle = Oracle(weights, config)
    cosines = []
    for first in range(0, len(sentences), _ORACLE_BATCH):
        batch = slice(first, first + _ORACLE_BATCH)
        expected = oracle.embed(sentences[batch])
        cosines.append(np.sum(embeddings[batch] * expected, axis=1))
        advance(len(expected))
    return np.concatenate(cosines)


def published_similarities(encoder: Encoder, model: Model) -> tuple[float, float, float]:
    """Our similarities of the three published sentences, in the order of the published ones."""
    a, b, c = encoder.encode([model.tokenize(text) for text in PUBLISHED_SENTENCES])
    return float(a @ b), float(a @ c), float(b @ c)


@dataclass(frozen=True)
class EntropyCurves:
    """Mean entropy in nats by name of the scale, each (lengths, layers)."""

    lengths: tuple[int, ...]
    curves: Mapping[str, Float64]

    def slopes(self, name: str) -> Float64:
        """Least-squares slope of entropy over ln(length), (layers,): 0 is invariant."""
        slopes: Float64 = np.polyfit(np.log(self.lengths), self.curves[name], 1)[0]
        return slopes


def entropy_curves(
    encoder: Encoder,
    windows: Sequence[Tokens],
    lengths: Sequence[int],
    advance: Advance,
) -> EntropyCurves:
    """Entropy of attention over the beginnings of the same windows of text.

    A window is [CLS], running text, [SEP] and has the longest of `lengths`; a shorter one keeps the
    beginning and the [SEP]. The whole model runs with the scale in question. Means are over
    windows, heads and queries.
    """
    scales = {"fixed 1/sqrt(d)": None, "LogN": LogN()}
    curves = {name: np.empty((len(lengths), encoder.layers)) for name in scales}
    for i, length in enumerate(lengths):
        cut = [[*window[: length - 1], window[-1]] for window in windows]
        for name, scale in scales.items():
            _, entropies = encoder.forward(cut, scale=scale)
            curves[name][i] = [np.nanmean(e, dtype=np.float64) for e in entropies]
            advance(1)
    return EntropyCurves(tuple(lengths), curves)


def text_windows(model: Model, sentences: Sequence[str], count: int, length: int) -> list[Tokens]:
    """`count` windows of `length` tokens at even distances in the joined sentences."""
    first, *stream, last = model.tokenize(" ".join(sentences), limit=10**9)
    body = length - 2
    starts = np.linspace(0, len(stream) - body, count).astype(int)
    return [[first, *stream[start : start + body], last] for start in starts]


@dataclass(frozen=True)
class ProductReport:
    """How an approximate product changes the embeddings."""

    method: str
    cosines: Float64  # (sentences,), to the embedding with exact products
    nearest_kept: float  # share of sentences with the same nearest neighbour
    ten_kept: float  # mean share of the ten nearest neighbours found again


def approximate_products(
    encoder: Encoder,
    sentences: Sequence[Tokens],
    exact: Array,
    method: str,
    advance: Advance,
) -> ProductReport:
    """Embed with every linear layer through `mitchell.matmul` and compare with `exact`."""
    approximate = encoder.encode(
        sentences, product=partial(mitchell.matmul, method=method), advance=advance
    )
    before, after = _neighbours(exact), _neighbours(approximate)
    shared = [len(set(a) & set(b)) for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    return ProductReport(
        method,
        np.sum(exact.astype(np.float64) * approximate, axis=1),
        float(np.mean(before[:, 0] == after[:, 0])),
        float(np.mean(shared)) / before.shape[1],
    )


def _neighbours(x: Array) -> npt.NDArray[np.intp]:
    """Find the ten nearest other rows by cosine similarity, nearest first."""
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    count = min(_NEIGHBOURS, len(x) - 1)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


@dataclass(frozen=True)
class Distortion:
    """Squared distances after a projection over those before, all pairs of all draws."""

    n_components: int
    kind: str
    smallest: float
    low: float  # 5 % of the pairs are below
    high: float  # 5 % of the pairs are above
    largest: float
    deviation: float  # standard deviation


def distortions(
    x: npt.NDArray[Any],
    dimensions: Sequence[int],
    draws: int,
    advance: Advance,
) -> list[Distortion]:
    """Project the rows of `x` with seeds 0, 1, ..., `draws` - 1 and compare all pairs."""
    before = _squared_distances(x)
    # Rows that are equal up to float32 rounding (1e-14 of a squared norm) have no ratio.
    apart = before > 1e-9 * before.max()
    result = []
    for n_components in dimensions:
        for kind in KINDS:
            ratios = np.concatenate(
                [
                    _squared_distances(
                        np.asarray(projection.project(x, n_components, kind=kind, seed=seed))
                    )[apart]
                    / before[apart]
                    for seed in range(draws)
                ]
            )
            quantiles = np.quantile(ratios, [0.0, 0.05, 0.95, 1.0])
            smallest, low, high, largest = (float(q) for q in quantiles)
            deviation = float(ratios.std())
            result.append(Distortion(n_components, kind, smallest, low, high, largest, deviation))
            advance(1)
    return result


def _squared_distances(x: npt.NDArray[Any]) -> Float64:
    """All pairs i < j, flat. In float64, as the subtraction below cancels."""
    x = x.astype(np.float64)
    norms = np.sum(x * x, axis=1)
    squared: Float64 = norms[:, None] + norms[None, :] - 2.0 * (x @ x.T)
    return squared[np.triu_indices(len(x), 1)]


def guaranteed_eps(n_points: int, n_components: int) -> float | None:
    """Return the smallest eps in (0, 1) with ``min_dim(n_points, eps) <= n_components``, or None.

    This is the Johnson-Lindenstrauss bound read backwards: in so many dimensions a projection is
    promised to keep all squared distances among the points within 1 - eps .. 1 + eps, with the
    probability that `min_dim` states.

    >>> guaranteed_eps(300, 64) is None
    True
    >>> round(guaranteed_eps(300, 384), 2)
    0.4
    """
    low, high = 0.0, math.nextafter(1.0, 0.0)
    if projection.min_dim(n_points, high) > n_components:
        return None
    # min_dim falls as eps grows; 50 halvings reach the spacing of float64 near 1.
    for _ in range(50):
        middle = (low + high) / 2
        if projection.min_dim(n_points, middle) > n_components:
            low = middle
        else:
            high = middle
    return high
