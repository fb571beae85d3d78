"""What every method has, and checks of their parameters."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from slipstick import _cpu
from slipstick._numbers import given

# No format has more fraction bits: a width beyond is the same as this one.
WIDEST = 64
# What the compiled counterpart can hold, for parameters that an error names as they were given.
LARGEST = 2**63 - 1


class Derivative(NamedTuple):
    """The derivative of a product with respect to its first operand, for `gradient="exact"`.

    Attributes
    ----------
    kind : str
        "carry": ``sgn(b) * 2**(E_b + carry)``, with as many carries as ``x + y + offset`` has whole
        units; "leading": ``sgn(b) * 2**E_b``; "remainder": b less what remains of it when its
        ``terms`` leading ones are removed.
    offset : float
        What a method adds to the sum of the fractions, for "carry".
    terms : int
        The number of leading ones, for "remainder".
    """

    kind: Literal["carry", "leading", "remainder"]
    offset: float = 0.0
    terms: int = 0


class Method:
    """A way to multiply: immutable, hashable, equal where class and parameters are.

    The base of `Mitchell`, `LMul`, `LMulFormula`, `MBM`, `REALM`, `ILM`, `MitchW`, `DRUM`,
    `ALMSOA`, `OperandDecomposition` and `Table`. All but the last two take float32, float64,
    float16, bfloat16 and integers of 8, 16 and 32 bits.

    Examples
    --------
    >>> from slipstick.mitchell import DRUM, Method
    >>> isinstance(DRUM(5), Method), DRUM(5) == DRUM(width=5), DRUM(5).identity
    (True, True, 'DRUM(width=5)')
    """

    _arguments: Any  # keywords of the compiled counterpart; every method but this base has them

    def _in(self, kernels: Any) -> Any:
        """Return the compiled counterpart in a module of kernels, made once."""
        name = kernels.__name__
        made = self.__dict__.get(name)
        if made is None:
            made = None if kernels is _cpu else _ON_DEVICES.get((name, self))
            if made is None:
                made = kernels.MitchellMethod(**self._arguments)
                if kernels is not _cpu and self._arguments.get("table") is not None:
                    _ON_DEVICES[name, self] = made
            self.__dict__[name] = made
        return made

    @property
    def _native(self) -> Any:
        return self._in(_cpu)

    @property
    def identity(self) -> str:
        """What error reports print, so that one sees which multiplier ran: the repr."""
        return repr(self)

    def derivative(self, fraction: int) -> Derivative | None:
        """Return the piecewise derivative in a format with `fraction` fraction bits.

        None for methods that drop bits of their operands: their derivative is zero wherever there
        is one.
        """
        return None

    def _parameters(self) -> dict[str, Any]:
        if not is_dataclass(self):
            return {}
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __repr__(self) -> str:
        """Name the parameters, but no flag that is off and nothing that is left to the dtype."""
        parameters = ", ".join(
            f"{name}={given(value)}"
            for name, value in self._parameters().items()
            if value is not None and value is not False
        )
        return f"{type(self).__name__}({parameters})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the parameters alone: the compiled counterpart stays here."""
        return _make, (type(self), self._parameters())


# The tables that devices keep, 128 KiB each at most, are there as long as the process: a captured
# graph may read one when the method itself is long gone.
_ON_DEVICES: dict[tuple[str, Method], Any] = {}


def _make(cls: Any, parameters: dict[str, Any]) -> Any:
    return cls(**parameters)


def integer(method: Method, name: str, expected: str, low: int, high: int | None = None) -> int:
    """Return a checked parameter as an int, which the object then holds."""
    value: Any = getattr(method, name)
    owner = type(method).__name__
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{owner}: `{name}` must be an int, got {type(value).__name__}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{owner}: `{name}` must be {expected}, got {given(value, str)}")
    object.__setattr__(method, name, int(value))
    return int(value)


def bits_or_zero(method: Method, name: str) -> int:
    """Return a number of bits that may be left to the dtype, then as 0."""
    if getattr(method, name) is None:
        return 0
    return min(integer(method, name, "at least 1 or None", 1), WIDEST)
