"""What multiply, divide and matmul refuse: the whole sentence, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

from slipstick import mitchell
from slipstick.mitchell import Mitchell

F32 = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda out: mitchell.multiply(F32, F32.astype(np.float64), out=out),
            TypeError,
            r"^multiply: `b` must have dtype float32 like `a`, got float64$",
        ),
        (
            lambda out: mitchell.multiply(F32.astype(bool), F32.astype(bool), out=out),
            TypeError,
            r"^multiply: `a` must be float32, float64, .* or uint32, got bool$",
        ),
        (
            lambda out: mitchell.multiply(np.ones(3, np.int64), np.ones(3, np.int64), out=out),
            TypeError,
            r"^multiply: `a` must be float32, .* got int64$",
        ),
        (
            lambda out: mitchell.divide(np.ones(3, np.int8), np.ones(3, np.int8), out=out),
            TypeError,
            r"^divide: `a` must be float32, float64, float16 or bfloat16, got int8$",
        ),
        (
            lambda out: mitchell.multiply(F32, np.ones(4, np.float32), out=out),
            ValueError,
            r"^multiply: `b` must broadcast with `a` of shape \(2, 3\), got shape \(4,\)$",
        ),
        (
            lambda out: mitchell.multiply(F32, F32, method="Mitchell", out=out),
            ValueError,
            r"^multiply: `method` must be a Method object or one of .*, got 'Mitchell'$",
        ),
        (
            lambda out: mitchell.divide(F32, F32, method=0.5, out=out),
            TypeError,
            r"^divide: `method` must be a Mitchell object or one of .*, got 0.5$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32, out=out),
            ValueError,
            r"^matmul: `b` must have 3 rows, as many as `a` of shape \(2, 3\) has columns, "
            r"got shape \(2, 3\)$",
        ),
        (
            lambda out: mitchell.matmul(F32, np.float32(3), out=out),
            ValueError,
            r"^matmul: `b` must have at least one axis, got shape \(\)$",
        ),
        (
            lambda out: mitchell.matmul(np.ones((2, 2, 3)), np.ones((3, 3, 2)), out=out),
            ValueError,
            r"^matmul: `b` must broadcast with `a` of shape \(2, 2, 3\), got shape \(3, 3, 2\)$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction="mean", out=out),
            ValueError,
            r"^matmul: `correction` must be None, 'gain' or a number, got 'mean'$",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction=F32, out=out),
            TypeError,
            r"^matmul: `correction` must be None, 'gain' or a number, got array",
        ),
        (
            lambda out: mitchell.matmul(F32, F32.T, correction=np.inf, out=out),
            ValueError,
            r"^matmul: `correction` must be finite, got inf$",
        ),
        (
            lambda out: mitchell.matmul(
                np.ones((2, 3), np.int8), np.ones((3, 2), np.int8), correction="gain", out=out
            ),
            ValueError,
            r"^matmul: `correction` must be None for integers, got 'gain'$",
        ),
        (
            lambda out: mitchell.matmul(
                np.full((1, 3), 2**31 - 1, np.int32), np.full((3, 1), 2**31 - 1, np.int32), out=out
            ),
            ValueError,
            r"^matmul: `a` and `b` must be small enough for exact sums in int64, got 3 products of "
            r"int32 that could add up to 1.38",
        ),
    ],
)
def test_refused_calls_write_nothing(call, error, message):
    out = np.full((2, 3), 42.0, np.float32)
    with pytest.raises(error, match=message):
        call(out)
    assert np.all(out == 42)


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        (1.0, ValueError, r"^Mitchell: `bias` must be at least 0 and less than 1, got 1.0$"),
        (-0.1, ValueError, r"^Mitchell: `bias` must be at least 0 and less than 1, got -0.1$"),
        (np.nan, ValueError, r"^Mitchell: `bias` must be at least 0 and less than 1, got nan$"),
        ("0", TypeError, r"^Mitchell: `bias` must be a number or None, got str$"),
        (True, TypeError, r"^Mitchell: `bias` must be a number or None, got bool$"),
    ],
)
def test_refused_biases(bias, error, message):
    with pytest.raises(error, match=message):
        Mitchell(bias)
