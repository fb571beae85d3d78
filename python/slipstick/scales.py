"""Scales of entropy-invariant attention: how the factor on the logits grows with n.

Attention computes ``softmax(lambda_i * <q_i, k_j>)``, where lambda_i depends on n_i, the number of
keys that query row i may attend. A scale is the law from n to lambda. Every class gives lambda in
float64 through :meth:`Scale.factor`, with the head dimension (attention) or without it
(``slipstick.softmax``, which works on finished scores).

Sources: Su Jianlin, kexue.fm/archives/8823 (2021) and 9034 (2022); each class names its own.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slipstick._numbers import is_number, to_float

__all__ = ["ClippedLogN", "LogN", "SSMax", "Scale", "Su", "Temperature"]

# Largest count for which float64 holds every integer, so that floor(a / b) of integers is exact.
_MAX_COUNT = 2**53


class Scale(ABC):
    """The base of all scales: a law from the number of visible keys to the factor lambda."""

    def factor(self, n: ArrayLike, *, dim: int | None = None) -> NDArray[np.float64]:
        """Return lambda for integer counts `n`, in float64.

        n: integers of any shape; a count below 1 is taken as 1, so ln 0 is never evaluated.
        dim: head dimension d of attention, or None for the softmax form, which has no factor of d.

        The result has the shape of `n`. If the scale has one parameter a head, heads are the
        second-last axis of the result and `n` broadcasts against (heads, 1).

        Raises TypeError if `n` or `dim` is not integer, ValueError if `dim` < 1.

        >>> LogN(512).factor([1, 8, 512], dim=64).round(12).tolist()
        [0.0, 0.041666666667, 0.125]
        >>> SSMax([0.5, 1.0]).factor([1, 2, 3]).shape
        (2, 3)
        """
        counts = np.asarray(n)
        if counts.dtype.kind not in "iu":
            raise TypeError(f"factor: `n` must hold integers, got dtype {counts.dtype}")
        if dim is not None:
            dim = _integer("factor", "dim", dim, at_least=1)
        kind, params = self._lower(dim)
        # One column a parameter: a number where all heads agree, else (heads, 1).
        columns = params[0] if len(params) == 1 else params.T[:, :, np.newaxis]
        n_float = np.maximum(counts, 1).astype(np.float64)
        return np.asarray(_LAWS[kind](n_float, *columns))

    @abstractmethod
    def _lower(self, dim: int | None) -> tuple[str, NDArray[np.float64]]:
        """Return the law as (kind, parameters): what a kernel is given and `factor` evaluates.

        The parameters are float64 of shape (heads, parameters of the kind), with 1 for heads where
        all heads agree. The kinds are the keys of `_LAWS`, with the formula of each.
        """


def _affine_log(n: Any, slope: Any, intercept: Any) -> Any:
    return slope * np.log(n) + intercept


def _clipped_log(n: Any, slope: Any, floor: Any) -> Any:
    return np.maximum(slope * np.log(n), floor)


def _temperature(n: Any, beta: Any, length: Any, offset: Any, unit: Any) -> Any:
    return unit * (1.0 + beta * np.log(1.0 + np.floor((n - 1.0 + offset) / length)))


_LAWS: dict[str, Callable[..., Any]] = {
    "affine_log": _affine_log,
    "clipped_log": _clipped_log,
    "temperature": _temperature,
}


@dataclass(frozen=True)
class LogN(Scale):
    """lambda = ln n / (ln base * sqrt d); in softmax ln n / ln base.

    base: the length at which the factor is that of ordinary attention, 1/sqrt(d); finite and
        above 1.

    Source: Su Jianlin, kexue.fm/archives/8823, in the usual normalisation; the same law as
    ``Su(sqrt(d) / ln(base))``.
    Presets: ``LogN(512)`` is the factor of the `softmax_plus` ports (bert4torch, PaddleNLP
    GAU-alpha).

    >>> round(float(LogN().factor(512, dim=64)), 12)
    0.125
    """

    base: float = 512

    def __post_init__(self) -> None:
        _above_one("LogN", "base", self.base)

    def _lower(self, dim: int | None) -> tuple[str, NDArray[np.float64]]:
        return "affine_log", _rows(1.0 / (math.log(self.base) * _root(dim)), 0.0)


@dataclass(frozen=True)
class Su(Scale):
    """lambda = kappa * ln n / d; in softmax kappa * ln n.

    kappa: a finite number; a negative one turns the order of the keys round.

    Source: Su Jianlin, kexue.fm/archives/8823, the original form.

    >>> round(float(Su(16.0).factor(100, dim=64)), 12)
    1.151292546497
    """

    kappa: float

    def __post_init__(self) -> None:
        _finite("Su", "kappa", self.kappa)

    def _lower(self, dim: int | None) -> tuple[str, NDArray[np.float64]]:
        return "affine_log", _rows(float(self.kappa) / (1 if dim is None else dim), 0.0)


@dataclass(frozen=True)
class ClippedLogN(Scale):
    """lambda = max(1, ln n / ln train_length) / sqrt(d); in softmax without the sqrt(d).

    train_length: the length up to which the factor stays that of ordinary attention; finite and
        above 1.

    Source: Qwen-1, `use_logn_attn`.
    Presets: Qwen-1 ``ClippedLogN(L)``, under left padding with ``n_keys = position + 1``; lmdeploy
    TurboMind counts from 0: ``ClippedLogN(L)`` with ``n_keys = position``.

    >>> ClippedLogN(2048).factor([1, 2048, 2048**2]).round(12).tolist()
    [1.0, 1.0, 2.0]
    """

    train_length: float

    def __post_init__(self) -> None:
        _above_one("ClippedLogN", "train_length", self.train_length)

    def _lower(self, dim: int | None) -> tuple[str, NDArray[np.float64]]:
        root = _root(dim)
        return "clipped_log", _rows(1.0 / (math.log(self.train_length) * root), 1.0 / root)


@dataclass(frozen=True)
class SSMax(Scale):
    """lambda = (s * ln n + b) / sqrt(d); in softmax s * ln n + b.

    s, b: finite numbers, or one finite number a head as a 1-D array. Arrays are kept as tuples, so
        that scales compare and hash by value.

    Source: scalable softmax, arXiv 2501.19399; the paper reports that b hurts long contexts.
    Presets: OLMo-core variant and TabICLv2 `ssmax` ``SSMax(s)`` with one s a head; UniCeption and
    MapAnything ``SSMax(1.0)``; axolotl ``SSMax(s)`` with an int `n_keys`. Starting from
    ``s = 1 / ln(n0)`` keeps the ordinary factor at n0 keys; s = 1 is 6 times sharper at 512.

    >>> SSMax([1, 2], b=0.5).factor([[1]], dim=4).tolist()
    [[0.25], [0.25]]
    """

    s: ArrayLike
    b: ArrayLike = 0.0

    def __post_init__(self) -> None:
        s, b = _per_head("SSMax", "s", self.s), _per_head("SSMax", "b", self.b)
        if isinstance(s, tuple) and isinstance(b, tuple) and len(s) != len(b):
            raise ValueError(f"SSMax: `b` must have {len(s)} entries like `s`, got {len(b)}")
        object.__setattr__(self, "s", s)
        object.__setattr__(self, "b", b)

    def _lower(self, dim: int | None) -> tuple[str, NDArray[np.float64]]:
        root = _root(dim)
        return "affine_log", _rows(np.asarray(self.s) / root, np.asarray(self.b) / root)


@dataclass(frozen=True)
class Temperature(Scale):
    """lambda = (1 + beta * ln(1 + floor((pos + offset) / length))) / sqrt(d), with pos = n - 1.

    beta: a finite number. length: an integer >= 1. offset: an integer >= 0.
    In softmax the sqrt(d) is left out. The law is published for a position; pos = n - 1 is that
    position in a causal layer without window and padding. A windowed layer passes
    ``n_keys = position + 1``.

    Source: attention temperature tuning of Llama-4 and Mistral-3.
    Presets: Llama-4 ``Temperature(0.1, 8192, offset=1)``, layers without RoPE only; Mistral-3 and
    Ministral-3 ``Temperature(beta, L0)``.

    >>> Temperature(0.1, 8192, offset=1).factor([8191, 8192]).round(6).tolist()
    [1.0, 1.069315]
    """

    beta: float
    length: int
    offset: int = 0

    def __post_init__(self) -> None:
        _finite("Temperature", "beta", self.beta)
        for name, least in (("length", 1), ("offset", 0)):
            number = _integer("Temperature", name, getattr(self, name), at_least=least)
            object.__setattr__(self, name, number)  # an int whatever integer was given: hashable

    def _lower(self, dim: int | None) -> tuple[str, NDArray[np.float64]]:
        return "temperature", _rows(self.beta, self.length, self.offset, 1.0 / _root(dim))


def _root(dim: int | None) -> float:
    return 1.0 if dim is None else math.sqrt(dim)


def _rows(*columns: ArrayLike) -> NDArray[np.float64]:
    """Parameters side by side, (heads or 1, number of parameters)."""
    per_head = [np.atleast_1d(np.asarray(column, dtype=np.float64)) for column in columns]
    return np.stack(np.broadcast_arrays(*per_head), axis=-1)


def _finite(owner: str, name: str, value: object) -> float:
    if not is_number(value):
        raise TypeError(f"{owner}: `{name}` must be a finite number, got {value!r}")
    number = to_float(value)
    if not math.isfinite(number):
        raise ValueError(f"{owner}: `{name}` must be a finite number, got {value!r}")
    return number


def _above_one(owner: str, name: str, value: object) -> None:
    expected = f"{owner}: `{name}` must be a finite number greater than 1, got {value!r}"
    if not is_number(value):
        raise TypeError(expected)
    if not (math.isfinite(to_float(value)) and to_float(value) > 1):
        raise ValueError(expected)


def _integer(owner: str, name: str, value: object, *, at_least: int) -> int:
    expected = f"{owner}: `{name}` must be an integer >= {at_least}, got {value!r}"
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(expected) from None
    if isinstance(value, bool):
        raise TypeError(expected)
    if not at_least <= number <= _MAX_COUNT:
        raise ValueError(expected if number < at_least else f"{expected}, more than 2**53")
    return number


def _per_head(owner: str, name: str, value: object) -> float | tuple[float, ...]:
    """Return a finite number, or a tuple of them from any 1-D array."""
    if is_number(value):
        return _finite(owner, name, value)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{owner}: `{name}` must be a number or a 1-D array, got {value!r}")
    if array.ndim > 1 or array.size == 0:
        raise ValueError(
            f"{owner}: `{name}` must be a number or a 1-D array with one entry a head, "
            f"got shape {array.shape}"
        )
    numbers_ = array.astype(np.float64)
    if not np.isfinite(numbers_).all():
        raise ValueError(f"{owner}: `{name}` must be finite, got {value!r}")
    return float(numbers_) if array.ndim == 0 else tuple(numbers_.tolist())
