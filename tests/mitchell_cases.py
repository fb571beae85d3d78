"""What the tests of Mitchell's family share: dtypes, operands, methods, comparison of bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from slipstick import mitchell

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(name) for name in ("float32", "float64", "float16")] + [BF16]
INTEGERS = [np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32)]
DTYPES = FLOATS + INTEGERS
# The products of Mitchell's own names, as the reference takes them: an offset.
BIASES = {
    "mitchell": 0.0,
    "zero-bias": (0x3F800000 - 0x3F78C094) * 2.0**-23,
    "minimax": (0x3F800000 - 0x3F772FAD) * 2.0**-23,
}
# Around the lengths of vectors and of blocks of four of them, at every level.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 1009]


def bits_of(array: np.ndarray) -> np.ndarray:
    """The bit patterns: what `==` on floats hides (NaN, the sign of zero)."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    first, second = bits_of(actual), bits_of(expected)
    # NumPy's own assertion takes ten times as long, also where nothing is wrong.
    if not np.array_equal(first, second):
        np.testing.assert_array_equal(first, second)


def assert_same_numbers(actual: np.ndarray, expected: np.ndarray) -> None:
    """The same bits, but any NaN for a NaN."""
    nothing = np.isnan(expected)
    if nothing.any():
        np.testing.assert_array_equal(np.isnan(actual), nothing)
        actual, expected = actual[~nothing], expected[~nothing]
    assert_same_bits(actual, expected)


def random_array(rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """All bit patterns alike: subnormals, infinities and NaNs included."""
    return rng.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype)[..., 0]


def ordinary_array(rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of ordinary size: floats around 1, some zeros; integers of every length."""
    if dtype.kind in "iu":
        return random_array(rng, dtype, shape) >> rng.integers(0, 8 * dtype.itemsize, shape, dtype)
    array = rng.standard_normal(shape).astype(dtype)
    array[rng.random(shape) < 0.02] = 0
    return array


def special_values(dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        near = [0, 1, 2, 3, 127, 128, limits.max - 1, limits.max, limits.max // 2, limits.min]
        return np.array([v for v in near if limits.min <= v <= limits.max], dtype)
    one = bits_of(np.array([1], dtype))[0]
    infinity = bits_of(np.array([np.inf], dtype))[0]
    step = type(one)
    smallest = bits_of(np.array([ml_dtypes.finfo(dtype).smallest_normal], dtype))[0]
    quiet = infinity + (infinity - one) // step(64)
    # The square root of the largest number: products around the end of the range.
    root = step((int(infinity) + int(one)) // 2)
    magnitudes = np.array(
        [
            *(0, 1, smallest - step(1), smallest, smallest + step(1)),
            *(one - step(1), one, one + step(1), one + smallest // step(2)),
            *(
                root - step(1),
                root,
                root + step(1),
                one - (root - one),
                one - (root - one) + step(1),
            ),
            *(infinity - step(1), infinity, infinity + step(1), quiet),
        ],
        one.dtype,
    )
    negative = magnitudes | step(1 << (8 * dtype.itemsize - 1))
    return np.concatenate([magnitudes, negative]).view(dtype)


def fraction_bits(dtype: np.dtype) -> int:
    """m: the fraction bits of a float, n - 1 for integers of n bits."""
    return 8 * dtype.itemsize - 1 if dtype.kind in "iu" else ml_dtypes.finfo(dtype).nmant


def all_methods(dtype: np.dtype) -> list[tuple[mitchell.Method, dict[str, object]]]:
    """Methods with usual and extreme parameters, and the reference's name for each."""
    m = fraction_bits(dtype)
    offsets = (None, 1 / 16, 0.1, 0.9, 1 - 2**-53)
    cases = [
        *((mitchell.Mitchell(d), {"method": "mitchell", "bias": d or 0.0}) for d in offsets),
        *(
            (make(bits), {"method": name, "width": bits or 0})
            for make, name in ((mitchell.LMul, "lmul"), (mitchell.LMulFormula, "lmul-formula"))
            for bits in (None, 1, 2, 3, 4, 5, m - 1, m, m + 5)
        ),
        *((mitchell.MBM(t), {"method": "mbm", "width": t}) for t in (0, 1, 2, m - 1)),
        *((mitchell.REALM(n), {"method": "realm", "width": n}) for n in (1, 2, 16, 64)),
        *((mitchell.ILM(j), {"method": "ilm", "width": j}) for j in (0, 1, 2, 3, 10, 63)),
        *((mitchell.MitchW(w), {"method": "mitch-w", "width": w}) for w in (1, 2, 6, m + 1, 90)),
        *((mitchell.DRUM(w), {"method": "drum", "width": w}) for w in (1, 2, 6, m, m + 1, 90)),
        *((mitchell.ALMSOA(w), {"method": "alm-soa", "width": w}) for w in (1, 2, 4, m)),
    ]
    if dtype.kind in "iu":
        cases.append((mitchell.OperandDecomposition(), {"method": "operand-decomposition"}))
    else:
        cases += [(raw(d), {"method": "mitchell", "mode": "raw", "bias": d}) for d in (0.0, 0.1)]
    if dtype == np.float32:
        cases.append((mitchell.Mitchell(kosson_jaggi=True), {"mode": "kosson-jaggi"}))
    for table in tables(dtype):
        cases.append((mitchell.Table(table), {"method": "table", "table": table}))
    return cases


def raw(bias: float) -> mitchell.Mitchell:
    return mitchell.Mitchell(bias, raw=True)


def tables(dtype: np.dtype) -> list[np.ndarray]:
    """Arbitrary tables that the dtype takes."""
    rng = np.random.default_rng(77)
    if dtype.name in ("int8", "uint8"):
        return [random_array(rng, np.dtype(f"{dtype.kind}2"), (256, 256))]
    if dtype.kind in "iu":
        return []
    bytes_of = [rng.integers(0, 2**m, (2**m, 2**m), dtype=np.uint8) for m in (1, 3, 7)]
    return [table | rng.integers(0, 2, table.shape, dtype=np.uint8) << 7 for table in bytes_of]


def ordered_sum(products: np.ndarray, acc: type) -> np.ndarray:
    """The kernel's order of summation: chains of 256 from +0, then the chains in order."""
    total = np.zeros(products.shape[:-1], acc)
    for start in range(0, products.shape[-1], 256):
        terms = products[..., start : start + 256].astype(acc)
        # One addition after the other, where `sum` would add in pairs.
        chain = np.add.accumulate(terms, axis=-1)[..., -1] + acc(0)
        total = chain if start == 0 else total + chain
    return total
