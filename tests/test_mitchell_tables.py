"""Tables in the formats of other simulators."""

import hashlib

import numpy as np
import pytest

from slipstick import reference
from slipstick.mitchell import ILM, MBM, Mitchell, Table, load_table, save_table

BYTES = np.arange(256)
UNSIGNED = np.multiply.outer(BYTES, BYTES).astype(np.uint16)
SIGNED = np.multiply.outer(BYTES.astype(np.int8), BYTES.astype(np.int8), dtype=np.int16)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table"


def test_exact_table_of_tfapprox(path):
    save_table(Table(UNSIGNED), path)
    assert path.stat().st_size == 131_072
    assert digest(path) == "0c6fd3441f139fb52cb64129eeb8b9cf866d6d095563d74639bd7459d183a8c1"
    table = load_table(path)
    assert table == Table(UNSIGNED)
    assert table.array.sum(dtype=np.int64) == 1_065_369_600
    assert digest(path) in repr(table)


def test_mitchell_table_of_tfapprox(path):
    save_table("mitchell", str(path))
    assert digest(path) == "a11b4b5726f98c07449de9f768a303c15b4e9434a40a680afa342bdae92003b4"
    assert load_table(str(path)).array.sum(dtype=np.int64) == 1_025_628_691


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Mitchell(), "ac623c7e6e5bb79b33d6a5b71dcac0fd324788c73c71370e406c0600bbfab667"),
        (MBM(), "dc2c5c50eb820657f593fde6927a18fbb591582e5e050d8cb727895f9a350d7a"),
    ],
    ids=repr,
)
def test_tables_of_approxtrain(path, method, expected):
    save_table(method, path, format="approxtrain", bits=7)
    assert digest(path) == expected
    table = load_table(path, format="approxtrain")
    assert table.array.shape == (128, 128)
    assert expected in repr(table)


@pytest.mark.parametrize("bits", range(1, 8))
def test_mantissa_tables_of_every_size(path, bits):
    save_table("mitchell", path, format="approxtrain", bits=bits)
    i = np.arange(2**bits)
    total = np.add.outer(i, i)
    expected = (total >> bits) << 7 | total & (2**bits - 1)
    table = load_table(path, format="approxtrain")
    assert np.array_equal(table.array, expected)
    again = path.with_suffix(".again")
    save_table(table, again, format="approxtrain", bits=bits)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("array", "signed"), [(UNSIGNED, False), (SIGNED, True)])
def test_tables_of_torchapprox(path, array, signed):
    save_table(Table(array), path, format="torchapprox")
    stored = np.load(path)
    assert stored.dtype == np.int32
    assert np.array_equal(stored, array)
    table = load_table(path, format="torchapprox")
    assert table.signed is signed
    assert table == Table(array)


def test_torchapprox_orders_signed_operands_as_bytes(path):
    """Both axes run 0, 1, ..., 127, -128, ..., -1, and the first operand is the row."""
    marked = np.zeros((256, 256), np.int32)
    marked[127, 0], marked[0, 255] = 42, -23
    np.save(path.with_suffix(".npy"), marked)
    table = load_table(path.with_suffix(".npy"), format="torchapprox")
    rows, columns = np.int8([127, 0, 0]), np.int8([0, 127, -1])
    got = reference.multiply(rows, columns, method="table", table=table.array)
    assert got.tolist() == [42, 0, -23]


@pytest.mark.parametrize("signed", [None, True, False])
def test_methods_as_tables_of_torchapprox(path, signed):
    save_table("mitchell", path, format="torchapprox", signed=signed)
    operands = BYTES.astype(np.uint8 if signed is False else np.int8)
    expected = reference.multiply(operands[:, np.newaxis], operands)
    assert np.array_equal(np.load(path), expected)


def test_an_iterated_product_that_is_exact_gives_the_exact_table(path):
    save_table(ILM(7), path)
    assert np.array_equal(load_table(path).array, UNSIGNED)


@pytest.mark.parametrize(
    ("format", "content", "message"),
    [
        ("tfapprox", bytes(131_071), "hold 131072 bytes, got 131071 in "),
        ("tfapprox", b"", "hold 131072 bytes, got 0 in "),
        ("approxtrain", bytes(15), r"hold 4\*\*m bytes with m from 1 to 7, got 15 in "),
        ("approxtrain", bytes(4**8), r"hold 4\*\*m bytes with m from 1 to 7, got 65536 in "),
        ("approxtrain", bytes([0, 1, 1, 0x82]), "hold mantissas below 2, got 2 in "),
        (
            "torchapprox",
            b"no array",
            ".* 256 x 256 integers, got .*, which NumPy cannot read",
        ),
        (
            "torchapprox",
            b"",
            ".* 256 x 256 integers, got .*, which NumPy cannot read",
        ),
        ("torchapprox", b"PK\x03\x04 no archive", ".* got .*, which NumPy cannot read"),
        ("torchapprox", UNSIGNED[:5], r".* got shape \(5, 256\) and dtype uint16 in "),
        ("torchapprox", UNSIGNED * 1.0, r".* got shape \(256, 256\) and dtype float64 in "),
        ("torchapprox", UNSIGNED + np.int64(2**16), "hold entries from 0 to 65535, got 65536 in "),
        ("torchapprox", UNSIGNED - np.int64(1), "hold entries from -32768 to 32767, got 32"),
    ],
)
def test_files_that_do_not_fit_are_refused(path, format, content, message):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with path.open("wb") as file:
            np.save(file, content)
    with pytest.raises(ValueError, match=f"^load_table: `path` must {message}"):
        load_table(path, format=format)


def test_archives_and_truncated_arrays_are_refused(path):
    with path.open("wb") as file:
        np.savez(file, UNSIGNED)
    with pytest.raises(ValueError, match=r"256 x 256 integers, got an archive in "):
        load_table(path, format="torchapprox")
    with path.open("wb") as file:
        np.save(file, UNSIGNED)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"which NumPy cannot read"):
        load_table(path, format="torchapprox")
    with pytest.raises(FileNotFoundError):
        load_table(path.with_suffix(".missing"))


MANTISSAS = Table(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("mitchel", {}, ValueError, "`method` must be a Method object or one of .*, got 'mitchel'"),
        ("mitchell", {"format": "csv"}, ValueError, "`format` must be one of 'tfapprox', .* 'csv'"),
        ("mitchell", {"format": None}, TypeError, "`format` must be one of 'tfapprox', .* None"),
        ("mitchell", {"bits": 7}, ValueError, "`bits` must be 8 for 'tfapprox', got 7"),
        ("mitchell", {"bits": 8.0}, TypeError, "`bits` must be an int, got float"),
        (
            "mitchell",
            {"format": "approxtrain"},
            ValueError,
            "`bits` must be from 1 to 7 for 'approxtrain', got 8",
        ),
        ("mitchell", {"signed": 1}, TypeError, "`signed` must be a bool or None, got int"),
        ("mitchell", {"signed": True}, ValueError, "`signed` must be False for 'tfapprox', got T"),
        (Table(SIGNED), {}, ValueError, "`signed` must be False for 'tfapprox', got True"),
        (
            Table(UNSIGNED),
            {"format": "torchapprox", "signed": True},
            ValueError,
            "`method` must be a table of signed 8-bit operands, got Table",
        ),
        (MANTISSAS, {}, ValueError, "`method` must be a table of unsigned 8-bit operands, got T"),
        (
            MANTISSAS,
            {"format": "approxtrain", "bits": 4},
            ValueError,
            "`method` must be a table of 4 mantissa bits, got Table",
        ),
        (
            Mitchell(0.75),
            {"format": "approxtrain", "bits": 4},
            ValueError,
            "`method` must have products from 1 to less than 4 .*, got Mitchell",
        ),
    ],
)
def test_what_cannot_be_saved_is_refused(path, method, options, error, message):
    with pytest.raises(error, match=f"^save_table: {message}"):
        save_table(method, path, **options)
    assert not path.exists()


def test_paths_are_checked():
    with pytest.raises(TypeError, match=r"^load_table: `path` must be a path, got int$"):
        load_table(3)
    with pytest.raises(TypeError, match=r"^save_table: `path` must be a path, got NoneType$"):
        save_table("mitchell", None)
    with pytest.raises(ValueError, match=r"^load_table: `format` must be one of .*, got 'npy'$"):
        load_table("table", format="npy")
