"""The methods: what each computes, its parameters, and the names of the usual ones.

Notation: ``|a| = 2**k1 * (1 + x)`` and ``|b| = 2**k2 * (1 + y)`` with ``0 <= x, y < 1``. A method
is defined by the value of the product in units of ``2**(k1 + k2)``; Mitchell's own is
``M = 1 + x + y`` where ``x + y < 1`` and ``2 * (x + y)`` elsewhere. m is the number of fraction
bits of a floating-point format, and n - 1 for integers of n bits.

A new method is a dataclass here and a line in `_NAMES`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slipstick._numbers import given, is_number
from slipstick.mitchell._base import LARGEST, WIDEST, Derivative, Method, bits_or_zero, integer
from slipstick.mitchell._constants import float32_offset, lmul_offset, realm_table
from slipstick.mitchell._table_method import Table

__all__ = [
    "ALMSOA",
    "DRUM",
    "ILM",
    "MBM",
    "REALM",
    "LMul",
    "LMulFormula",
    "Method",
    "MitchW",
    "Mitchell",
    "OperandDecomposition",
    "Table",
    "as_method",
    "methods",
]


@dataclass(frozen=True, repr=False)
class Mitchell(Method):
    """Mitchell's method with an offset added to the sum of the mantissa fractions.

    With ``s = x + y + d`` the product is ``1 + s`` if ``s < 1``, ``2 * s`` if ``s < 2``, else
    ``4 * (s - 1)``: the sum of the two bit patterns less C, the pattern of 1.0 less the offset.
    J. N. Mitchell, IRE Transactions on Electronic Computers EC-11(4), 1962, for d = 0; there the
    relative error lies in [-1/9, 0]. Otherwise between ``8 / (3 - d)**2 - 1`` and ``d``.

    Parameters
    ----------
    bias : float, optional
        The offset d, ``0 <= d < 1``, in ``1 + x + y + d`` (product) and ``x - y - d`` (quotient).
        None, the default, means 0: the method of 1962. In a format with m fraction bits it becomes
        ``round(d * 2**m)`` units of the bit pattern, so that close offsets coincide in bfloat16
        ("zero-bias" and "min-rms" are both 7 units); integer products are the floor of the exact
        rational.
    raw : bool
        Unsafe, floats only: the sum of the patterns as it wraps, without any rule for zeros,
        infinities or exponents beyond the range. ``0 * 0.5`` is ``-inf`` then.
    kosson_jaggi : bool
        float32 only: as the code of Kosson and Jaggi (NeurIPS 2023), NaN where the true product is
        not finite or at least 1e37 in magnitude, +0 where it is below 1e-37.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit; when the method is used, for a dtype that a flag rules
        out.

    Examples
    --------
    >>> import numpy as np
    >>> import slipstick
    >>> three = np.float32([3.0])
    >>> slipstick.mitchell.multiply(three, three, method=slipstick.mitchell.Mitchell())
    array([8.], dtype=float32)
    >>> slipstick.mitchell.multiply(three, three, method=slipstick.mitchell.Mitchell(bias=0.0625))
    array([8.5], dtype=float32)
    """

    bias: float | None = None
    _: KW_ONLY
    raw: bool = False
    kosson_jaggi: bool = False

    def __post_init__(self) -> None:
        bias = self.bias
        if bias is not None and not is_number(bias):
            raise TypeError(f"Mitchell: `bias` must be a number or None, got {type(bias).__name__}")
        if bias is not None and not 0 <= bias < 1:
            raise ValueError(
                f"Mitchell: `bias` must be at least 0 and less than 1, got {given(bias, str)}"
            )
        if bias is not None:
            object.__setattr__(self, "bias", float(bias))
        for name in ("raw", "kosson_jaggi"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise TypeError(f"Mitchell: `{name}` must be a bool, got {type(value).__name__}")
            object.__setattr__(self, name, bool(value))
        if self.raw and self.kosson_jaggi:
            raise ValueError("Mitchell: `raw` must be False beside `kosson_jaggi`, got True")

    @property
    def offset(self) -> float:
        """The offset d as a number."""
        return 0.0 if self.bias is None else self.bias

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the kind "carry", with the offset."""
        return Derivative("carry", offset=self.offset)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        mode = "raw" if self.raw else "kosson-jaggi" if self.kosson_jaggi else ""
        return {"kind": "mitchell", "bias": self.offset, "mode": mode}


@dataclass(frozen=True, repr=False)
class LMul(Method):
    """L-Mul as integer addition: Mitchell's method with the offset ``2**-l``.

    arXiv 2410.00907 prints a formula without a carry (`LMulFormula`) and adds integers in its code,
    which carries. The two differ greatly: this one has relative errors in [-7.3 %, +6.25 %], mean
    +0.41 % and mean magnitude 2.65 % for l = 4. The rule l = bits for bits <= 3, 3 for 4 and 4
    above is that of public ports of the code.

    Parameters
    ----------
    bits : int, optional
        Mantissa bits of the operands, at least 1; None, the default, takes those of the dtype.
        Where that has more, operands are rounded to `bits` fraction bits first, ties to even.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import LMul, multiply
    >>> multiply(np.float32([3.0]), np.float32([3.0]), method=LMul())
    array([8.5], dtype=float32)
    """

    bits: int | None = None

    def __post_init__(self) -> None:
        bits_or_zero(self, "bits")

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the kind "carry", or None where operands are rounded."""
        bits = self.bits or fraction
        return None if bits < fraction else Derivative("carry", offset=2.0 ** -lmul_offset(bits))

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "lmul", "width": bits_or_zero(self, "bits")}


@dataclass(frozen=True, repr=False)
class LMulFormula(Method):
    """L-Mul as printed in arXiv 2410.00907: ``1 + x + y + 2**-l``, without a carry.

    The relative error lies between ``-(1 - 2**-l) / 4`` and ``2**-l``; mean -6.41 % and mean
    magnitude 7.58 % for l = 4. `LMul` is the integer addition of its code. A float product is
    rounded once, to nearest even.

    Parameters
    ----------
    bits : int, optional
        As in `LMul`, and so is l.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import LMulFormula, multiply
    >>> multiply(np.float32([3.5]), np.float32([3.5]), method=LMulFormula())
    array([10.25], dtype=float32)
    """

    bits: int | None = None

    def __post_init__(self) -> None:
        bits_or_zero(self, "bits")

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the kind "leading", or None where operands are rounded."""
        return None if (self.bits or fraction) < fraction else Derivative("leading")

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "lmul-formula", "width": bits_or_zero(self, "bits")}


@dataclass(frozen=True, repr=False)
class MBM(Method):
    """Minimally biased multiplier: ``M + 5/64``.

    Saadat, Bokhari and Parameswaran 2018. Where Mitchell's sum carries and the correction would
    carry again, it is left out. Relative error in [-7.64 %, +7.81 %], mean magnitude 2.58 %, for
    mantissas of many bits.

    Parameters
    ----------
    truncate : int
        t: the t lowest fraction bits of the operands are dropped and bit t is set; 0, the default,
        drops and sets nothing. At least 0 and less than m, which is checked when the method is
        used.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit; when the method is used, for one too large for the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import MBM, multiply
    >>> multiply(np.float32([3.0]), np.float32([3.0]), method=MBM())
    array([8.3125], dtype=float32)
    """

    truncate: int = 0

    def __post_init__(self) -> None:
        integer(self, "truncate", "at least 0", 0)

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the kind "carry" without an offset, or None where bits are dropped."""
        return None if self.truncate else Derivative("carry")

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "mbm", "width": min(self.truncate, LARGEST)}


@dataclass(frozen=True, repr=False)
class REALM(Method):
    """Mitchell's method with a correction for every segment: ``M + s[i, j]``.

    Saadat, Javaid, Ignjatovic and Parameswaran 2020, with i = floor(N x) and j = floor(N y). The
    correction makes the mean relative error of each segment zero before it is rounded to 6 fraction
    bits. With 16 segments the relative error lies in [-2.08 %, +1.78 %], mean magnitude 0.42 %.

    Parameters
    ----------
    segments : int
        N, a power of two from 1 to 64; 16 by default.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import REALM, multiply
    >>> multiply(np.float32([3.0]), np.float32([3.0]), method=REALM(segments=16))
    array([8.875], dtype=float32)
    """

    segments: int = 16

    def __post_init__(self) -> None:
        expected = "a power of two from 1 to 64"
        segments = integer(self, "segments", expected, 1, 64)
        if segments & (segments - 1):
            raise ValueError(f"REALM: `segments` must be {expected}, got {segments}")

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the kind "carry" without an offset."""
        return Derivative("carry")

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        table = realm_table(self.segments)
        return {"kind": "realm", "width": self.segments, "table": table}


@dataclass(frozen=True, repr=False)
class ILM(Method):
    """Babic's iterative logarithmic multiplier: ``iterations + 1`` basic blocks.

    Babic, Avramovic and Bulic 2011. A block is ``2**(k1 + k2) + (A - 2**k1) * 2**k2
    + (B - 2**k2) * 2**k1``, the next one that of the residuals ``A - 2**k1`` and ``B - 2**k2``,
    until one is zero. The relative error lies in (-4**-(iterations + 1), 0], before rounding; its
    mean magnitude for 8-bit operands is 8.91, 0.834, 0.0708 and 0.0048 % for 0 to 3 iterations.
    Ansari's multiplier of 2021 shares the abbreviation and nothing else. A float product is rounded
    once, to nearest even.

    Parameters
    ----------
    iterations : int
        Corrections, 0 to 63; 1 by default. 0 is the bare block.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import ILM, multiply
    >>> multiply(np.float32([7.0]), np.float32([7.0]), method=ILM(iterations=1))
    array([48.], dtype=float32)
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        integer(self, "iterations", "from 0 to 63", 0, 63)

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the kind "remainder"."""
        return Derivative("remainder", terms=self.iterations + 1)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "ilm", "width": self.iterations}


@dataclass(frozen=True, repr=False)
class MitchW(Method):
    """Mitchell's method on operands cut to ``width - 1`` fraction bits.

    Kim, Del Barrio, Oliveira, Hermida and Bagherzadeh 2019. `width` counts the leading one. The
    relative error lies in ``(-(1/9 + 2**(2 - width)), 0]``; with 6 bits of many in [-14.7 %, 0],
    mean -5.91 %. The unbiasing bit that some sources add is not there.

    Parameters
    ----------
    width : int
        At least 1; 6 by default. ``min(width - 1, m)`` fraction bits are kept.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import MitchW, multiply
    >>> multiply(np.float32([7.0]), np.float32([1.0]), method=MitchW(width=2))
    array([6.], dtype=float32)
    """

    width: int = 6

    def __post_init__(self) -> None:
        integer(self, "width", "at least 1", 1)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "mitch-w", "width": min(self.width, WIDEST)}


@dataclass(frozen=True, repr=False)
class DRUM(Method):
    """Dynamic range unbiased multiplier: the exact product of shortened operands.

    Hashemi, Bahar and Reda 2015. `width` bits are kept from the leading one on, the last of them
    set where bits were dropped; integers of at most `width` bits stay as they are, but a float has
    as many bits as its dtype: with width 3, 3.0 becomes 3.5. The relative error of an operand lies
    within ``2**(1 - width)``; the mean magnitude for 16-bit operands is 11.9, 2.94 and 0.73 % for
    widths 3, 5 and 7. A float product is rounded once, to nearest even.

    Parameters
    ----------
    width : int
        At least 1; 6 by default.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import DRUM, multiply
    >>> multiply(np.uint8([200]), np.uint8([3]), method=DRUM(width=3))
    array([672], dtype=uint16)
    """

    width: int = 6

    def __post_init__(self) -> None:
        integer(self, "width", "at least 1", 1)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "drum", "width": min(self.width, WIDEST)}


@dataclass(frozen=True, repr=False)
class ALMSOA(Method):
    """Mitchell's method with an adder whose low bits are all ones (set-one adder).

    Liu, Xu, Wang, Wang, Montuschi and Lombardi 2018. The low `width` bits of the sum of the
    fractions are 1, and ``x[width - 1] and y[width - 1]`` carries into the rest. All 8-bit operands
    with width 4: relative error in [-14.1 %, +11.7 %], mean -0.90 %, mean magnitude 3.46 %.

    Parameters
    ----------
    width : int
        At least 1 and, which is checked when the method is used, at most m; 4 by default.

    Raises
    ------
    TypeError, ValueError
        For a parameter that does not fit; when the method is used, for one too large for the dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import ALMSOA, multiply
    >>> multiply(np.uint8([192]), np.uint8([192]), method=ALMSOA(width=4))
    array([36608], dtype=uint16)
    """

    width: int = 4

    def __post_init__(self) -> None:
        integer(self, "width", "at least 1", 1)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "alm-soa", "width": min(self.width, LARGEST)}


@dataclass(frozen=True, repr=False)
class OperandDecomposition(Method):
    """Two Mitchell products of decomposed operands: ``Mit(A & B, A | B) + Mit(A & ~B, ~A & B)``.

    Mahalingam and Ranganathan 2006, for integers. The identity is exact where both products are;
    the relative error lies in [-1/9, 0], mean -2.03 % for 8-bit operands (Mitchell's: -3.79 %).

    Raises
    ------
    TypeError
        When the method is used, for operands that are not integers.

    Examples
    --------
    >>> import numpy as np
    >>> from slipstick.mitchell import OperandDecomposition, multiply
    >>> multiply(np.uint8([3]), np.uint8([6]), method=OperandDecomposition())
    array([18], dtype=uint16)
    """

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"kind": "operand-decomposition"}


_NAMES: dict[str, Method] = {
    "mitchell": Mitchell(),
    "zero-bias": Mitchell(float32_offset(0x3F78C094)),
    "minimax": Mitchell(float32_offset(0x3F772FAD)),
    "min-rms": Mitchell(float32_offset(0x3F78EDB6)),
    "lmul": LMul(),
    "lmul-formula": LMulFormula(),
    "mbm": MBM(),
    "realm": REALM(),
    "ilm": ILM(),
    "mitch-w": MitchW(),
    "drum": DRUM(),
    "alm-soa": ALMSOA(),
    "operand-decomposition": OperandDecomposition(),
}


def methods() -> tuple[str, ...]:
    """Return the names that `method` accepts, each for an object with its usual parameters.

    "mitchell" is `Mitchell()`, and "zero-bias", "minimax" and "min-rms" have the offsets 0.05662,
    0.0688575 and 0.05525: no mean error, the smallest largest error and the smallest root mean
    square error of products for uniform mantissas. The others are the classes without arguments:
    `REALM(16)`, `ILM(1)`, `MitchW(6)`, `DRUM(6)`, `ALMSOA(4)`, `MBM(0)`, and `LMul()` and
    `LMulFormula()` of the operands' own mantissa bits.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> import slipstick
    >>> slipstick.mitchell.methods()[:4]
    ('mitchell', 'zero-bias', 'minimax', 'min-rms')
    """
    return tuple(_NAMES)


def as_method(function: str, method: object) -> Method:
    """Return the method of a name, or the object itself; `function` is named in the error."""
    # The base itself, or a subclass from elsewhere, has nothing compiled that could run.
    if isinstance(method, Method) and hasattr(type(method), "_arguments"):
        return method
    if isinstance(method, str) and method in _NAMES:
        return _NAMES[method]
    expected = ", ".join(repr(name) for name in _NAMES)
    shown = type(method).__name__ if isinstance(method, Method) else given(method)
    message = f"{function}: `method` must be a Method object or one of {expected}, got {shown}"
    raise ValueError(message) if isinstance(method, str) else TypeError(message)
