"""The three families in plain NumPy: what the compiled kernels are compared with.

Written to be read. Sums are float64 and results are not rounded to the dtype of the input, except
where an operation is exact by definition: a Mitchell product, an entry of a random matrix. Nothing
here checks its arguments beyond what the mathematics needs; the public functions do.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._chi2 import smallest_k
from slipstick._gaussian import fma, gaussian_from_bits
from slipstick.scales import LogN, Scale

__all__ = [
    "AttentionStats",
    "attention",
    "block",
    "divide",
    "fma",
    "gain",
    "gaussian_from_bits",
    "matmul",
    "min_dim",
    "multiply",
    "philox4x32",
    "project",
    "softmax",
]

Array = NDArray[Any]


# --- mitchell: J. N. Mitchell 1962; Su Jianlin, kexue.fm, 2020-12-14 ------------------------------


class _Format(NamedTuple):
    """A binary floating-point format: the unsigned type of its bits, and its fraction width."""

    bits: type[np.unsignedinteger[Any]]
    fraction: int
    exponent: int

    @property
    def all_ones(self) -> int:
        """The exponent field of infinities and NaN."""
        return (1 << self.exponent) - 1

    @property
    def bias(self) -> int:
        """The exponent field of 1.0."""
        return self.all_ones >> 1


_FORMATS = {
    "float16": _Format(np.uint16, 10, 5),
    "bfloat16": _Format(np.uint16, 7, 8),  # ml_dtypes.bfloat16, known by its name alone
    "float32": _Format(np.uint32, 23, 8),
    "float64": _Format(np.uint64, 52, 11),
}

_PRODUCT_DTYPES = {
    "int8": np.int16,
    "int16": np.int32,
    "int32": np.int64,
    "uint8": np.uint16,
    "uint16": np.uint32,
    "uint32": np.uint64,
}


class _Fields(NamedTuple):
    """The fields of floating-point numbers, int64 each, and the classes that decide the edges.

    A subnormal number counts as zero.
    """

    sign: Array
    exponent: Array
    fraction: Array
    is_nan: Array
    is_inf: Array
    is_zero: Array


def _fields(x: Array, fmt: _Format) -> _Fields:
    word = fmt.bits
    bits = x.view(word)
    sign = (bits >> word(fmt.exponent + fmt.fraction)).astype(np.int64)
    exponent = ((bits >> word(fmt.fraction)) & word(fmt.all_ones)).astype(np.int64)
    fraction = (bits & word((1 << fmt.fraction) - 1)).astype(np.int64)
    special = exponent == fmt.all_ones
    return _Fields(
        sign,
        exponent,
        fraction,
        special & (fraction != 0),
        special & (fraction == 0),
        exponent == 0,
    )


def _assemble(
    dtype: np.dtype[Any],
    fmt: _Format,
    sign: Array,
    exponent: Array,
    fraction: Array,
    *,
    nan: Array,
    inf: Array,
    zero: Array,
) -> Array:
    """Fields to numbers: `fraction` carries into or borrows from `exponent`, then the edges.

    The edges in order of precedence: NaN (the positive quiet one), infinity and zero as told, zero
    below the normal range, infinity above the finite one.
    """
    exponent = exponent + (fraction >> fmt.fraction)  # >> floors, so a negative fraction borrows
    fraction = fraction & ((1 << fmt.fraction) - 1)
    zero = zero | (~inf & (exponent < 1))
    inf = inf | (~zero & (exponent >= fmt.all_ones))
    exponent = np.where(nan | inf, fmt.all_ones, np.where(zero, 0, exponent))
    fraction = np.where(nan, 1 << (fmt.fraction - 1), np.where(inf | zero, 0, fraction))
    magnitude = ((exponent << fmt.fraction) | fraction).astype(fmt.bits)
    sign_bit = np.where(nan, 0, sign).astype(fmt.bits) << fmt.bits(fmt.exponent + fmt.fraction)
    return np.asarray(magnitude | sign_bit).view(dtype)


def _offset_units(bias: float, fmt: _Format) -> int:
    """Return the offset in units of the last fraction bit, half to even: C = one - this."""
    return round(Fraction(bias) * (1 << fmt.fraction))


def multiply(a: ArrayLike, b: ArrayLike, *, bias: float = 0.0) -> Array:
    """Mitchell's product of two arrays of one dtype, with broadcasting.

    Of |a| = 2^k1 (1 + x) and |b| = 2^k2 (1 + y) the product is 2^(k1 + k2) times, with
    s = x + y + bias: 1 + s if s < 1, 2 s if s < 2, 4 (s - 1) otherwise. For floats that is the sum
    of the two bit patterns less C, the pattern of 1.0 less the bias. Integers take the formula
    exactly, floor it, apply the sign and saturate in the next wider type.

    Floats: a NaN, or inf * 0, gives NaN; a subnormal operand counts as zero; a result below the
    normal range is a zero, one above the finite range an infinity, with the sign of the product.

    >>> multiply(np.uint8([3, 4, 255]), np.uint8([3, 5, 255])).tolist()
    [8, 20, 65024]
    >>> float(multiply(np.float32(1.5), np.float32(-1.5)))
    -2.0
    """
    a, b = np.broadcast_arrays(a, b)
    if a.dtype.name in _PRODUCT_DTYPES:
        return _multiply_integers(a, b, Fraction(bias))
    fmt = _FORMATS[a.dtype.name]
    p, q = _fields(a, fmt), _fields(b, fmt)
    return _assemble(
        a.dtype,
        fmt,
        p.sign ^ q.sign,
        p.exponent + q.exponent - fmt.bias,
        p.fraction + q.fraction + _offset_units(bias, fmt),
        nan=p.is_nan | q.is_nan | (p.is_inf & q.is_zero) | (p.is_zero & q.is_inf),
        inf=p.is_inf | q.is_inf,
        zero=p.is_zero | q.is_zero,
    )


def divide(a: ArrayLike, b: ArrayLike, *, bias: float = 0.0) -> Array:
    """Mitchell's quotient of two float arrays of one dtype, with broadcasting.

    The difference of the two bit patterns plus C, the pattern of 1.0 less the bias.
    0/0 and inf/inf give NaN, x/0 a signed infinity, x/inf a signed zero; the rest as in `multiply`.

    >>> float(divide(np.float32(3.0), np.float32(1.5)))
    2.0
    >>> float(divide(np.float32(1.0), np.float32(1.5)))
    0.75
    """
    a, b = np.broadcast_arrays(a, b)
    fmt = _FORMATS[a.dtype.name]
    p, q = _fields(a, fmt), _fields(b, fmt)
    return _assemble(
        a.dtype,
        fmt,
        p.sign ^ q.sign,
        p.exponent - q.exponent + fmt.bias,
        p.fraction - q.fraction - _offset_units(bias, fmt),
        nan=p.is_nan | q.is_nan | (p.is_inf & q.is_inf) | (p.is_zero & q.is_zero),
        inf=p.is_inf | q.is_zero,
        zero=p.is_zero | q.is_inf,
    )


def _multiply_integers(a: Array, b: Array, bias: Fraction) -> Array:
    dtype: np.dtype[Any] = np.dtype(_PRODUCT_DTYPES[a.dtype.name])
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    numerator, denominator = bias.numerator, bias.denominator

    def product(a: int, b: int) -> int:
        if a == 0 or b == 0:
            return 0
        k1, k2 = abs(a).bit_length() - 1, abs(b).bit_length() - 1
        one = 1 << (k1 + k2)
        cross = ((abs(a) - (1 << k1)) << k2) + ((abs(b) - (1 << k2)) << k1)  # (x + y) * one
        # In units of 1 / denominator everything is an integer, whatever the bias.
        s, one = cross * denominator + one * numerator, one * denominator
        scaled = one + s if s < one else 2 * s if s < 2 * one else 4 * (s - one)
        magnitude = scaled // denominator
        return max(low, min(high, magnitude if (a < 0) == (b < 0) else -magnitude))

    return np.asarray(np.frompyfunc(product, 2, 1)(a, b)).astype(dtype)


def gain(bias: float) -> float:
    """Return E[P T] / E[T^2] of the biased product P and the exact one T, log-uniform operands.

    >>> round(27 * gain(0.0), 12)
    26.0
    """
    return (4 / 9) * (2 + 2 * bias + (1 - bias) ** 3 / 6 + bias**3 / 3)


def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    bias: float = 0.0,
    correction: Literal["gain"] | float | None = None,
) -> Array:
    """Multiply (..., m, k) by (..., k, n) with Mitchell's products, summed in float64.

    Shapes follow numpy.matmul. `correction` multiplies the result: "gain" by 1 / gain(bias), a
    float by itself. Integers are summed exactly, to int32 or uint32 for 8-bit operands, else to
    int64 or uint64; with a correction the result is float64.

    >>> matmul(np.float32([[3, 1]]), np.float32([[3], [2]])).tolist()
    [[10.0]]
    """
    a, b = np.asarray(a), np.asarray(b)
    left, right = a[np.newaxis, :] if a.ndim == 1 else a, b[:, np.newaxis] if b.ndim == 1 else b
    products = multiply(left[..., :, :, np.newaxis], right[..., np.newaxis, :, :], bias=bias)
    if a.dtype.name in _PRODUCT_DTYPES:
        result = products.astype(object).sum(axis=-2).astype(_sum_dtype(a.dtype))
    else:
        with np.errstate(invalid="ignore"):  # inf - inf is a NaN in the result, not a warning
            result = products.astype(np.float64).sum(axis=-2)
    if a.ndim == 1:
        result = result[..., 0, :]
    if b.ndim == 1:
        result = result[..., 0]
    if correction is None:
        return np.asarray(result)
    factor = 1 / gain(bias) if correction == "gain" else float(correction)
    return np.asarray(result.astype(np.float64) * factor)


def _sum_dtype(operand: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"{operand.kind}{4 if operand.itemsize == 1 else 8}")


# --- attention: Su Jianlin, kexue.fm, 2021-12-21 and 2022-04-11 -----------------------------------


class AttentionStats(NamedTuple):
    """Per query row: log-sum-exp (natural), entropy (nats) and maximum of the final scores."""

    lse: Array
    entropy: Array
    max_logit: Array


def attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: Scale | ArrayLike = LogN(),
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    key_lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    softcap: float | None = None,
    n_keys: ArrayLike | None = None,
    return_stats: bool = False,
) -> Array | tuple[Array, AttentionStats]:
    """Compute softmax(lambda_i q_i K^T) V from the full score matrix, in float64.

    query (batch, heads, queries, dim), key (batch, kv_heads, keys, dim), value (batch, kv_heads,
    keys, dim_v); 2-D and 3-D inputs lack leading axes, and so does the result. Query head h reads
    key head h // (heads / kv_heads). `causal` and `window` are aligned bottom-right: query i stands
    at key i + keys - queries. A row that sees no key gives 0, lse -inf, entropy 0, max_logit -inf.
    A key adds nothing to a row that does not see it, not even where its value is NaN.

    >>> q, k, v = np.zeros((3, 4)), np.zeros((5, 4)), np.arange(5.0)[:, np.newaxis]
    >>> out, stats = attention(q, k, v, return_stats=True)
    >>> np.allclose(out, 2.0), np.allclose(stats.entropy, np.log(5))
    (True, True)
    """
    query, key, value = np.asarray(query), np.asarray(key), np.asarray(value)
    missing = tuple(range(4 - query.ndim))
    wide = query.dtype == np.float64
    q, k, v = (np.expand_dims(x, missing).astype(np.float64) for x in (query, key, value))
    batch, heads, queries, dim = q.shape
    group = heads // k.shape[1]

    extra = np.zeros(()) if mask is None else np.asarray(mask)
    if extra.dtype == np.bool_:
        extra = np.where(extra, 0.0, -np.inf)
    extra = extra.astype(np.float64)
    seen = _positions_seen(batch, queries, k.shape[2], causal, window, key_lengths)
    visible = np.broadcast_to(seen & (extra != -np.inf), (batch, heads, queries, k.shape[2]))
    extra = np.broadcast_to(extra, visible.shape)

    counts = visible.sum(axis=-1)
    if n_keys is not None:
        given = np.asarray(n_keys)
        if given.ndim == 1:  # (batch,), or (queries,) where the batch axis is lacking
            given = given[:, np.newaxis] if query.ndim == 4 else given[np.newaxis, :]
        if given.ndim == 2:
            given = given[:, np.newaxis, :]
        counts = np.broadcast_to(given, counts.shape)
    factor = np.broadcast_to(_lambda(scale, counts, dim, wide), counts.shape)

    out = np.zeros((batch, heads, queries, v.shape[-1]))
    stats = np.zeros((3, batch, heads, queries))
    for at in np.ndindex(batch, heads):
        shared = (at[0], at[1] // group)
        with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN propagate
            scores = factor[at][:, np.newaxis] * (q[at] @ k[shared].T)
            if softcap is not None:
                scores = softcap * np.tanh(scores / softcap)
            scores = np.where(visible[at], scores + extra[at], -np.inf)
            empty = np.logical_not(visible[at].any(axis=-1))
            weights, *row_stats = _softmax_rows(scores, empty)
            out[at] = _weighted_sum(weights, v[shared], visible[at])
        stats[(slice(None), *at)] = row_stats
    out, stats = np.squeeze(out, missing), np.squeeze(stats, tuple(i + 1 for i in missing))
    return (out, AttentionStats(*stats)) if return_stats else out


def softmax(scores: ArrayLike, *, scale: Scale | ArrayLike = LogN(), axis: int = -1) -> Array:
    """Compute the entropy-invariant softmax of given scores along `axis`, in float64.

    n is the number of entries that are not -inf, and lambda has no factor of a dimension. A row
    without such an entry gives zeros.

    >>> softmax([[0.0, 0.0, -np.inf, 0.0]]).round(4).tolist()
    [[0.3333, 0.3333, 0.0, 0.3333]]
    """
    given = np.asarray(scores)
    rows = np.moveaxis(given.astype(np.float64), axis, -1)
    visible = rows != -np.inf
    factor = _lambda(scale, visible.sum(axis=-1), None, given.dtype == np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # inf and NaN propagate
        scaled = np.where(visible, factor[..., np.newaxis] * rows, -np.inf)
        weights, *_ = _softmax_rows(scaled, np.logical_not(visible.any(axis=-1)))
    return np.moveaxis(weights, -1, axis)


def _positions_seen(
    batch: int,
    queries: int,
    keys: int,
    causal: bool,
    window: tuple[int | None, int | None] | None,
    key_lengths: ArrayLike | None,
) -> Array:
    """Tell which keys a query sees by position and length: bool (batch, 1, queries, keys)."""
    at = np.arange(queries)[:, np.newaxis] + keys - queries
    j = np.arange(keys)
    seen = np.ones((batch, 1, queries, keys), dtype=bool)
    left, right = window if window is not None else (None, None)
    if causal:
        seen &= j <= at
    if left is not None and left != -1:
        seen &= j >= at - left
    if right is not None and right != -1:
        seen &= j <= at + right
    if key_lengths is not None:
        lengths = np.broadcast_to(np.asarray(key_lengths), (batch,))
        seen &= j < lengths[:, np.newaxis, np.newaxis, np.newaxis]
    return seen


def _lambda(scale: Scale | ArrayLike, counts: Array, dim: int | None, wide: bool) -> Array:
    """Return lambda of every row: in float64, rounded once to float32 unless the input is wide."""
    if isinstance(scale, Scale):
        factor = scale.factor(counts, dim=dim)
    else:
        factor = np.asarray(scale).astype(np.float64)
    return factor if wide else factor.astype(np.float32).astype(np.float64)


def _softmax_rows(scores: Array, empty: Array) -> tuple[Array, Array, Array, Array]:
    """Softmax along the last axis with log-sum-exp, entropy and maximum of every row.

    `empty` marks the rows without a visible key: weights 0, lse -inf, entropy 0.
    """
    top = scores.max(axis=-1, initial=-np.inf)
    t = scores - np.where(empty, 0.0, top)[..., np.newaxis]
    weights = np.exp(t)
    total = np.where(empty, 1.0, weights.sum(axis=-1))
    weights = weights / total[..., np.newaxis]
    # H = -sum p ln p with ln p = t - ln(total), where 0 ln 0 = 0.
    logs = np.where(weights == 0, 0.0, t - np.log(total)[..., np.newaxis])
    entropy = np.where(empty, 0.0, -(weights * logs).sum(axis=-1))
    return weights, np.where(empty, -np.inf, top + np.log(total)), entropy, top


def _weighted_sum(weights: Array, value: Array, visible: Array) -> Array:
    """sum_j weights_ij value_j over the keys j that row i sees."""
    finite = np.isfinite(value).all(axis=-1)
    out: Array = weights[:, finite] @ value[finite]
    for j in np.flatnonzero(~finite):  # 0 * NaN is NaN, so a hidden key is left out by selection
        out += np.where(visible[:, j, np.newaxis], weights[:, j, np.newaxis] * value[j], 0.0)
    return out


# --- projection: Su Jianlin, kexue.fm, 2021-09-17 and 2021-09-24 ----------------------------------

_PHILOX_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_PHILOX_INCREMENTS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_RADEMACHER_TAG = 0x52414400
_GAUSSIAN_TAG = 0x47415500


def philox4x32(counter: ArrayLike, key: ArrayLike) -> NDArray[np.uint32]:
    """Philox4x32-10 (Salmon et al., SC11): counter (..., 4) and key (..., 2) to words (..., 4).

    >>> [f"{w:08x}" for w in philox4x32([0, 0, 0, 0], [0, 0])]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = np.moveaxis(np.asarray(key, dtype=np.uint64), -1, 0)
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = _PHILOX_MULTIPLIERS[0] * c0, _PHILOX_MULTIPLIERS[1] * c2  # below 2^64: exact
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & _LOW, (p0 >> shift) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _PHILOX_INCREMENTS[0]) & _LOW, (k1 + _PHILOX_INCREMENTS[1]) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def _words(tag: int, seed: int, number: Array, columns: Array) -> Array:
    """32-bit word `number` of the stream of each column: uint32 (len(number), len(columns)).

    Counter (c0, c1, c2, c3) = (number >> 2, low half of the column, high half, tag).
    """
    groups, where = np.unique(number >> np.uint64(2), return_inverse=True)
    counter = np.zeros((len(groups), len(columns), 4), dtype=np.uint64)
    counter[..., 0] = groups[:, np.newaxis]
    counter[..., 1] = columns & _LOW
    counter[..., 2] = columns >> np.uint64(32)
    counter[..., 3] = tag
    words = philox4x32(counter, [seed & 0xFFFFFFFF, seed >> 32])
    column = np.arange(len(columns))
    return np.asarray(words[where[:, np.newaxis], column, (number & np.uint64(3))[:, np.newaxis]])


def _indices(part: slice) -> Array:
    """Return the global indices of a slice with an end, uint64 up to 2^64 - 1."""
    start = part.start or 0
    return np.asarray(np.uint64(start) + np.arange(part.stop - start, dtype=np.uint64))


def block(
    kind: str, seed: int, rows: slice, cols: slice, *, n_components: int | None = None
) -> NDArray[np.float64]:
    """Return any (rows, cols) of the random matrix A, times 1/sqrt(n_components) if it is given.

    Row i is a component, column j a feature; every entry is a function of (seed, i, j) alone.
    "rademacher": 1 - 2 * bit, one bit an entry. "gaussian": `gaussian_from_bits`, one word an
    entry.

    >>> block("rademacher", 7, slice(0, 8), slice(0, 1))[:, 0].astype(int).tolist()
    [-1, -1, 1, 1, -1, 1, -1, -1]
    """
    i, j = _indices(rows), _indices(cols)
    if kind == "rademacher":
        words = _words(_RADEMACHER_TAG, seed, i >> np.uint64(5), j)
        bits = (words >> (i & np.uint64(31)).astype(np.uint32)[:, np.newaxis]) & 1
        entries = 1.0 - 2.0 * bits
    elif kind == "gaussian":
        entries = gaussian_from_bits(_words(_GAUSSIAN_TAG, seed, i, j)).astype(np.float64)
    else:
        raise ValueError(f'block: `kind` must be "rademacher" or "gaussian", got {kind!r}')
    return np.asarray(entries if n_components is None else entries * (1 / np.sqrt(n_components)))


def project(
    x: ArrayLike,
    n_components: int,
    *,
    kind: str = "rademacher",
    seed: int = 0,
    first_feature: int = 0,
) -> NDArray[np.float64]:
    """Multiply x (..., features) by A^T / sqrt(n_components), to (..., n_components).

    The scale keeps squared norms on average. `first_feature` is the global index of column 0 of x.

    >>> float(np.linalg.norm(project([0.0, 2.0, 0.0], 16)))  # a one-hot x keeps its norm
    2.0
    """
    x = np.asarray(x).astype(np.float64)
    columns = slice(first_feature, first_feature + x.shape[-1])
    entries = block(kind, seed, slice(0, n_components), columns)
    return np.asarray((x @ entries.T) * (1 / np.sqrt(n_components)))


def min_dim(
    n_samples: ArrayLike,
    eps: ArrayLike,
    *,
    delta: ArrayLike | None = None,
    guarantee: str = "all_pairs",
    on: str = "squared",
) -> Any:
    """Return the number of components that keeps distances among N points within 1 +- `eps`.

    delta=None: floor(4 ln N / (eps^2/2 - eps^3/3)) of Dasgupta and Gupta, as in scikit-learn, for
    all pairs and squared distances. Otherwise the smallest k for which the union bound over the
    pairs ("each_pair": one pair) keeps the probability of failure at most `delta`; exact for
    Gaussian entries, where k |Ax|^2 / |x|^2 has the chi-square law with k degrees. on="distance"
    takes eps on the distances themselves, (1 - eps)^2 .. (1 + eps)^2 on the squared ones.

    Arguments broadcast; the result is int64.

    >>> int(min_dim(1000, 0.1)), int(min_dim(1000, 0.1, delta=0.05))
    (5920, 5806)
    """
    if delta is None:
        e = np.asarray(eps, dtype=np.float64)
        return (4 * np.log(n_samples) / ((e**2 / 2) - (e**3 / 3))).astype(np.int64)

    def exact(n: int, eps: float, delta: float) -> int:
        low, high = (-eps, eps) if on == "squared" else (-eps * (2 - eps), eps * (2 + eps))
        pairs = n * (n - 1) / 2 if guarantee == "all_pairs" else 1
        return smallest_k(low, high, delta / pairs) if pairs else 1

    return np.asarray(np.frompyfunc(exact, 3, 1)(n_samples, eps, delta)).astype(np.int64)
