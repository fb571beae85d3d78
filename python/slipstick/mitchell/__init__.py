"""Mitchell's approximate multiplication: products by adding piecewise-linear logarithms.

J. N. Mitchell, "Computer Multiplication and Division Using Binary Logarithms", IRE Transactions on
Electronic Computers EC-11(4), 1962. A number ``2**k * (1 + x)`` has the approximate logarithm
``k + x``, which is its own bit pattern, so that a product is one integer addition. The relative
error of a product lies between -1/9 and 0, that of a quotient between 0 and +1/8.

This is a simulator: on a CPU or GPU the exact product is never slower. Subnormal operands count as
zero, and results below the normal range are flushed to zero.

Arrays of torch and cupy on a CUDA device are computed there, in the order of the framework's
current stream, with the bits that the CPU gives.

Every function takes a `method`: one of the names of `methods()`, or an object such as `DRUM(5)` or
the `Table` of a multiplier of one's own. `error_report` measures what a method gets wrong.
"""

from slipstick.mitchell._backward import matmul_backward
from slipstick.mitchell._conv import conv2d
from slipstick.mitchell._elementwise import (
    divide,
    exp2,
    log2,
    multiply,
    power,
    reciprocal,
    sqrt,
    square,
)
from slipstick.mitchell._matmul import matmul
from slipstick.mitchell._methods import (
    ALMSOA,
    DRUM,
    ILM,
    MBM,
    REALM,
    LMul,
    LMulFormula,
    Method,
    Mitchell,
    MitchW,
    OperandDecomposition,
    Table,
    methods,
)
from slipstick.mitchell._report import ErrorReport, error_report
from slipstick.mitchell._tables import load_table, save_table

__all__ = [
    "ALMSOA",
    "DRUM",
    "ILM",
    "MBM",
    "REALM",
    "ErrorReport",
    "LMul",
    "LMulFormula",
    "Method",
    "MitchW",
    "Mitchell",
    "OperandDecomposition",
    "Table",
    "conv2d",
    "divide",
    "error_report",
    "exp2",
    "load_table",
    "log2",
    "matmul",
    "matmul_backward",
    "methods",
    "multiply",
    "power",
    "reciprocal",
    "save_table",
    "sqrt",
    "square",
]
