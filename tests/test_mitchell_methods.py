"""Method objects: names, parameters, identity, derivatives, and what constructors refuse."""

import copy
import pickle

import numpy as np
import pytest

from slipstick import mitchell, reference
from slipstick.mitchell import (
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
)
from slipstick.mitchell._base import Derivative
from slipstick.mitchell._constants import realm_table
from slipstick.mitchell._methods import as_method

BYTES = np.arange(256, dtype=np.uint16)
EXACT = np.multiply.outer(BYTES, BYTES)
EXACT_SHA256 = "0c6fd3441f139fb52cb64129eeb8b9cf866d6d095563d74639bd7459d183a8c1"

# An object, its repr, and an object like it in all but one parameter.
OBJECTS = [
    (Mitchell(), "Mitchell()", Mitchell(0.5)),
    (Mitchell(0.0625), "Mitchell(bias=0.0625)", Mitchell(0.0625, raw=True)),
    (Mitchell(raw=True), "Mitchell(raw=True)", Mitchell()),
    (Mitchell(kosson_jaggi=True), "Mitchell(kosson_jaggi=True)", Mitchell()),
    (LMul(), "LMul()", LMul(4)),
    (LMul(4), "LMul(bits=4)", LMulFormula(4)),
    (LMulFormula(), "LMulFormula()", LMulFormula(3)),
    (MBM(), "MBM(truncate=0)", MBM(1)),
    (REALM(), "REALM(segments=16)", REALM(8)),
    (ILM(), "ILM(iterations=1)", ILM(0)),
    (MitchW(), "MitchW(width=6)", MitchW(5)),
    (DRUM(), "DRUM(width=6)", DRUM(5)),
    (ALMSOA(), "ALMSOA(width=4)", ALMSOA(3)),
    (OperandDecomposition(), "OperandDecomposition()", Mitchell()),
    (Table(EXACT), f"Table(256x256 uint16, sha256={EXACT_SHA256})", Table(EXACT // 2)),
]
NAMES = {
    "mitchell": Mitchell(),
    "zero-bias": Mitchell(0x73F6C / 2**23),
    "minimax": Mitchell(0x8D053 / 2**23),
    "min-rms": Mitchell(0x7124A / 2**23),
    "lmul": LMul(),
    "lmul-formula": LMulFormula(),
    "mbm": MBM(0),
    "realm": REALM(16),
    "ilm": ILM(1),
    "mitch-w": MitchW(6),
    "drum": DRUM(6),
    "alm-soa": ALMSOA(4),
    "operand-decomposition": OperandDecomposition(),
}


def test_names():
    assert mitchell.methods() == tuple(NAMES)
    for name, method in NAMES.items():
        assert as_method("multiply", name) == method
        assert as_method("multiply", method) is method


@pytest.mark.parametrize("row", OBJECTS, ids=lambda row: row[1][:30])
def test_objects_are_values(row):
    method, text, other = row
    assert repr(method) == method.identity == text
    assert method != other
    assert method != text
    _ = method._native  # cached in the object, and no part of its value
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert twin == method
        assert hash(twin) == hash(method)
    with pytest.raises(AttributeError):
        method.bias = 0.25


def test_numbers_of_numpy_are_parameters():
    assert REALM(np.int64(8)) == REALM(8)
    assert Mitchell(np.float32(0.5)) == Mitchell(0.5)
    assert type(DRUM(np.uint8(3)).width) is int


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Mitchell("0"), TypeError, "Mitchell: `bias` must be a number or None, got str"),
        (lambda: Mitchell(True), TypeError, "Mitchell: `bias` must be a number or None, got bool"),
        (
            lambda: Mitchell(1.0),
            ValueError,
            "Mitchell: `bias` must be at least 0 and less than 1, got 1.0",
        ),
        (
            lambda: Mitchell(float("nan")),
            ValueError,
            "Mitchell: `bias` must be at least 0 and less than 1, got nan",
        ),
        (lambda: Mitchell(raw=1), TypeError, "Mitchell: `raw` must be a bool, got int"),
        (
            lambda: Mitchell(kosson_jaggi=None),
            TypeError,
            "Mitchell: `kosson_jaggi` must be a bool, got NoneType",
        ),
        (
            lambda: Mitchell(raw=True, kosson_jaggi=True),
            ValueError,
            "Mitchell: `raw` must be False beside `kosson_jaggi`, got True",
        ),
        (lambda: LMul(0), ValueError, "LMul: `bits` must be at least 1 or None, got 0"),
        (lambda: LMul(4.0), TypeError, "LMul: `bits` must be an int, got float"),
        (
            lambda: LMulFormula(-1),
            ValueError,
            "LMulFormula: `bits` must be at least 1 or None, got -1",
        ),
        (lambda: MBM(-1), ValueError, "MBM: `truncate` must be at least 0, got -1"),
        (lambda: MBM(True), TypeError, "MBM: `truncate` must be an int, got bool"),
        (
            lambda: REALM(5),
            ValueError,
            "REALM: `segments` must be a power of two from 1 to 64, got 5",
        ),
        (
            lambda: REALM(128),
            ValueError,
            "REALM: `segments` must be a power of two from 1 to 64, got 128",
        ),
        (lambda: REALM("16"), TypeError, "REALM: `segments` must be an int, got str"),
        (lambda: ILM(64), ValueError, "ILM: `iterations` must be from 0 to 63, got 64"),
        (lambda: ILM(None), TypeError, "ILM: `iterations` must be an int, got NoneType"),
        (lambda: MitchW(0), ValueError, "MitchW: `width` must be at least 1, got 0"),
        (lambda: DRUM(0), ValueError, "DRUM: `width` must be at least 1, got 0"),
        (lambda: ALMSOA(0), ValueError, "ALMSOA: `width` must be at least 1, got 0"),
        (
            lambda: Table(EXACT.astype(float)),
            TypeError,
            "Table: `array` must have an integer dtype, got float64",
        ),
        (
            lambda: Table(EXACT > 0),
            TypeError,
            "Table: `array` must have an integer dtype, got bool",
        ),
        (
            lambda: Table(EXACT, signed=1),
            TypeError,
            "Table: `signed` must be a bool or None, got int",
        ),
        (
            lambda: Table(EXACT[:255]),
            ValueError,
            "Table: `array` must have shape (256, 256), or (2**m, 2**m) with m from 1 to 7, "
            "got shape (255, 256)",
        ),
        (
            lambda: Table(np.zeros((12, 12), np.uint8)),
            ValueError,
            "Table: `array` must have shape (256, 256), or (2**m, 2**m) with m from 1 to 7, "
            "got shape (12, 12)",
        ),
        (
            lambda: Table(EXACT[:1, :1]),
            ValueError,
            "Table: `array` must have shape (256, 256), or (2**m, 2**m) with m from 1 to 7, "
            "got shape (1, 1)",
        ),
        (
            lambda: Table(EXACT.astype(np.int64) - 1, signed=False),
            ValueError,
            "Table: `array` must have entries from 0 to 65535, got -1",
        ),
        (
            lambda: Table(EXACT, signed=True),
            ValueError,
            "Table: `array` must have entries from -32768 to 32767, got 65025",
        ),
        (
            lambda: Table(EXACT[:8, :8]),
            TypeError,
            "Table: `array` must have dtype uint8 if 8 x 8, got uint16",
        ),
        (
            lambda: Table(np.zeros((8, 8), np.uint8), signed=False),
            ValueError,
            "Table: `signed` must be None for a table of 8 x 8, got False",
        ),
        (
            lambda: Table(np.full((8, 8), 0x88, np.uint8)),
            ValueError,
            "Table: `array` must have bytes of a carry in bit 7 and a mantissa of at most 7, "
            "got 136",
        ),
        (
            lambda: as_method("matmul", "LMul"),
            ValueError,
            "matmul: `method` must be a Method object or one of "
            + ", ".join(map(repr, NAMES))
            + ", got 'LMul'",
        ),
        (
            lambda: as_method("divide", 0.5),
            TypeError,
            "divide: `method` must be a Method object or one of "
            + ", ".join(map(repr, NAMES))
            + ", got 0.5",
        ),
        (
            lambda: as_method("divide", Mitchell),
            TypeError,
            "divide: `method` must be a Method object or one of "
            + ", ".join(map(repr, NAMES))
            + f", got {Mitchell!r}",
        ),
        (
            lambda: as_method("multiply", Method()),
            TypeError,
            "multiply: `method` must be a Method object or one of "
            + ", ".join(map(repr, NAMES))
            + ", got Method",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def test_what_no_one_would_print():
    assert repr(DRUM(10**5000)) == "DRUM(width=int of too many digits)"
    assert repr(Method()) == "Method()"
    assert Mitchell(raw=np.bool_(True)) == Mitchell(raw=True)


def test_tables_keep_their_own_copy():
    array = EXACT.astype(np.int64)
    table = Table(array, signed=False)
    array[3, 3] = 0
    assert table.array[3, 3] == 9
    assert table.array.dtype == np.uint16
    for same in (table, pickle.loads(pickle.dumps(table))):
        assert not same.array.flags.writeable
    assert table == Table(EXACT)
    assert table.sha256 == EXACT_SHA256


def test_tables_take_the_signedness_of_their_dtype():
    signed = np.multiply.outer(BYTES.view(np.int16) % 128, BYTES.view(np.int16) % 128)
    assert Table(signed).signed is True
    assert Table(signed).array.dtype == np.int16
    assert Table(signed, signed=False).signed is False
    assert Table(signed) != Table(signed, signed=False)
    assert Table(np.zeros((8, 8), np.uint8)).signed is None
    big_endian = Table(EXACT.astype(">u2"))
    assert big_endian == Table(EXACT)
    assert big_endian.sha256 == EXACT_SHA256


@pytest.mark.parametrize("segments", [1, 2, 4, 8, 16, 32, 64])
def test_segment_constants_agree_with_the_reference(segments):
    table = realm_table(segments)
    assert table.dtype == np.uint8
    assert np.array_equal(table, reference.realm_table(segments))
    if segments == 16:
        assert (table.sum(), table.max()) == (1368, 15)


def test_derivatives():
    assert Mitchell(0.25).derivative(23) == Derivative("carry", offset=0.25)
    assert LMul().derivative(23) == LMul(23).derivative(23) == Derivative("carry", offset=1 / 16)
    assert LMul().derivative(4) == Derivative("carry", offset=1 / 8)
    assert LMulFormula().derivative(7) == Derivative("leading")
    assert MBM().derivative(10) == REALM().derivative(10) == Derivative("carry")
    assert ILM(2).derivative(10) == Derivative("remainder", terms=3)
    dropping = [LMul(4), LMulFormula(4), MBM(1), MitchW(), DRUM(), ALMSOA(), Table(EXACT)]
    assert all(method.derivative(23) is None for method in dropping)


@pytest.mark.parametrize(
    ("method", "a", "b", "dtype", "product"),
    [
        ("lmul", 3, 3, np.float32, 8.5),
        ("lmul-formula", 3.5, 3.5, np.float32, 10.25),
        ("mbm", 3, 3, np.float32, 8.3125),
        ("realm", 3, 3, np.float32, 8.875),
        ("ilm", 7, 7, np.float32, 48),
        ("alm-soa", 192, 192, np.uint8, 36608),
        ("operand-decomposition", 3, 6, np.uint8, 18),
    ],
)
def test_examples_of_the_docstrings(method, a, b, dtype, product):
    assert float(reference.multiply(dtype(a), dtype(b), method=method)) == product
