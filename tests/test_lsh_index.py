"""The index: order of probes, exactness of its distances, segments, files and their damage."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import struct
import zlib

import numpy as np
import pytest

import slipstick
from projection_cases import ramp
from slipstick import _cpu, lsh
from slipstick.lsh import _file

KINDS = ["simhash", "cross_polytope"]


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows in pairs and triples of near neighbours."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n // 3 + 1, d))
    x = centres[rng.integers(0, len(centres), n)] + 0.3 * rng.standard_normal((n, d))
    return x.astype(np.float32)


def small_index(n: int = 400, d: int = 20, **arguments) -> tuple[lsh.Index, np.ndarray]:
    x = vectors(n, d)
    index = lsh.Index(d, **{"n_tables": 3, "n_hashes": 5, "seed": 7, **arguments})
    index.add(x)
    return index, x


# --- The order of probes --------------------------------------------------------------------------


def brute_force(penalties: np.ndarray) -> list[tuple[float, tuple[int, ...]]]:
    """All choices of one alternative a hash with their sums, taken in the order of the kernel."""
    hashes, alternatives = penalties.shape
    order = np.argsort(penalties[:, 1], kind="stable")
    sums = []
    for choice in itertools.product(range(alternatives), repeat=hashes):
        total = 0.0
        for h in order:
            total += penalties[h, choice[h]]
        sums.append((total, choice))
    return sorted(sums)


@pytest.mark.parametrize(
    ("hashes", "alternatives"), [(1, 2), (1, 7), (2, 5), (3, 4), (6, 2), (8, 2)]
)
def test_probes_come_by_increasing_sums(threads, hashes, alternatives):
    rng = np.random.default_rng(hashes)
    penalties = np.sort(rng.exponential(size=(100, hashes, alternatives)), axis=2)
    penalties[50:] = np.round(penalties[50:] * 4)  # with ties
    penalties[..., 0] = 0
    count = alternatives**hashes
    ranks = _cpu.probe_ranks(penalties, count)
    assert ranks.shape == (100, count, hashes)
    for row in range(100):
        expected = brute_force(penalties[row])
        sums = {choice: total for total, choice in expected}
        got = [tuple(choice) for choice in ranks[row].tolist()]
        assert got[0] == (0,) * hashes
        assert len(set(got)) == count  # each choice once
        assert [sums[choice] for choice in got] == [total for total, _ in expected]
        if row < 50:  # without ties the choices are the same too
            assert got == [choice for _, choice in expected]
    np.testing.assert_array_equal(_cpu.probe_ranks(penalties, count // 2), ranks[:, : count // 2])


def test_probes_of_a_query_are_the_least_margins():
    """SimHash: the second key flips the bit whose projection is nearest to 0."""
    index, x = small_index(n_tables=2, n_hashes=6)
    keys = index._maker.probes("query", x[:50], 64)
    margins = slipstick.projection.project(x[:50], 12, kind="gaussian", seed=7).reshape(50, 2, 6)
    first = np.abs(margins).argmin(axis=-1)
    np.testing.assert_array_equal(keys[..., 0] ^ keys[..., 1], 1 << first)
    assert np.all(np.sort(keys, axis=-1) == np.arange(64))  # 2^6 keys, each once
    np.testing.assert_array_equal(keys[..., 0], index._maker.keys("query", x[:50]))


def test_probes_of_cross_polytopes_are_the_next_vertices():
    index, x = small_index(d=30, kind="cross_polytope", n_tables=2, n_hashes=1)
    keys = index._maker.probes("query", x[:50], 64)
    rotated = slipstick.reference.cross_polytope(x[:50], 2, 7)[1]
    reach = np.stack([rotated, -rotated], axis=-1).reshape(50, 2, 64)
    reached = np.take_along_axis(reach, keys.astype(np.int64), axis=-1)
    # In order up to the error of 3 * 5 additions in float32.
    assert np.diff(reached).max() <= 15 * 2.0**-23 * np.linalg.norm(x[:50], axis=1).max()
    assert np.all(np.sort(keys, axis=-1) == np.arange(64))


# --- Queries --------------------------------------------------------------------------------------


def exact(x: np.ndarray, q: np.ndarray, metric: str) -> np.ndarray:
    x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(q[:, np.newaxis] - x, axis=-1)
    norms = np.linalg.norm(q, axis=1)[:, np.newaxis] * np.linalg.norm(x, axis=1)
    return 1 - np.divide(q @ x.T, norms, out=np.zeros(norms.shape), where=norms > 0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_buckets_give_the_exact_neighbours(isa, threads, kind, metric):
    """Probing every key leaves nothing out: then an index is an exhaustive search."""
    hashes = {"simhash": 5, "cross_polytope": 1}[kind]
    index, x = small_index(d=13, kind=kind, n_hashes=hashes, metric=metric)
    x = np.concatenate([x, x[:40], np.zeros((1, 13), np.float32)])
    index.add(x[400:])  # neighbours that are equally near, and one of no direction
    q = vectors(31, 13, seed=1)
    q[0] = 0
    q[1:6] = x[:5]
    distances, indices = index.query(q, 7, n_probes=32)
    assert (distances.dtype, indices.dtype) == (np.float64, np.int64)
    # Another order of sums: 13 terms, each rounded to 2^-53.
    expected = exact(x, q, metric)
    found = np.take_along_axis(expected, indices, axis=1)
    np.testing.assert_allclose(distances, found, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :7], rtol=1e-14, atol=1e-14)
    order = np.lexsort((indices, distances), axis=1)
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(7), order.shape))
    np.testing.assert_array_equal(indices[1:6, :2], np.arange(5)[:, np.newaxis] + [0, 400])
    if metric == "cosine":
        np.testing.assert_array_equal(distances[0], 1)
        np.testing.assert_array_equal(indices[0], np.arange(7))


def test_distances_have_the_same_bits_at_every_level_and_thread_count():
    index, _ = small_index(d=37)
    q = vectors(40, 37, seed=2)
    before = slipstick.get_isa(), slipstick.get_num_threads()
    results = []
    for level in _cpu.levels[: _cpu.levels.index(_cpu.best_isa) + 1]:
        for count in (1, 2, 7):
            slipstick.set_isa(level)
            slipstick.set_num_threads(count)
            again, _ = small_index(d=37)
            results.append((*index.query(q, 9, n_probes=6), *again.query(q, 9, n_probes=6)))
    slipstick.set_isa(before[0])
    slipstick.set_num_threads(before[1])
    for result in results:
        for got, want in zip(result, results[0][:2] * 2, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_those_of_the_probed_buckets(kind):
    """One table: what is found shares one of the probed keys, and all that does is found."""
    hashes = {"simhash": 8, "cross_polytope": 1}[kind]
    index, x = small_index(kind=kind, n_tables=1, n_hashes=hashes)
    q = vectors(25, 20, seed=3)
    keys = index._maker.keys("query", x)[:, 0]
    for n_probes in (1, 2, 5):
        probed = index._maker.probes("query", q, n_probes)[:, 0]
        _, indices = index.query(q, 400, n_probes=n_probes)
        for row in range(25):
            expected = np.flatnonzero(np.isin(keys, probed[row]))
            found = indices[row][indices[row] >= 0]
            np.testing.assert_array_equal(np.sort(found), expected)
            assert np.all(indices[row][len(found) :] == -1)


@pytest.mark.parametrize("kind", KINDS)
def test_more_probes_find_more(kind):
    """Noise of half the length: an angle of 27 degrees, where few keys are equal."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3000, 40)).astype(np.float32)
    q = x + 0.5 * rng.standard_normal(x.shape).astype(np.float32)
    index = lsh.Index(40, kind=kind, n_tables=4)
    index.add(x)
    found = [
        np.mean(index.query(q, 1, n_probes=n_probes)[1][:, 0] == np.arange(len(x)))
        for n_probes in (1, 8, 64)
    ]
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.9


def test_shapes_of_queries():
    index, x = small_index()
    distances, indices = index.query(x[:6].reshape(2, 3, 20), 4, n_probes=3)
    assert distances.shape == indices.shape == (2, 3, 4)
    single = index.query(x[5], 4, n_probes=3)
    np.testing.assert_array_equal(single[0], distances[1, 2])
    np.testing.assert_array_equal(single[1], indices[1, 2])
    assert index.query(x[:0], 4)[0].shape == (0, 4)
    wide = index.query(x[:2].astype(np.float64)[:, ::-1][:, ::-1], 4, n_probes=3)
    np.testing.assert_array_equal(wide[1], indices[0, :2])


def test_an_empty_index_finds_nothing():
    index = lsh.Index(5)
    assert len(index) == 0
    distances, indices = index.query(np.ones((2, 5)), 3, n_probes=9)
    assert np.all(np.isinf(distances))
    assert np.all(indices == -1)
    assert index.add(np.ones((0, 5))) == range(0)
    assert len(index) == 0


# --- Adding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_how_vectors_came_in_makes_no_difference(kind):
    x, q = vectors(300, 20), vectors(50, 20, seed=5)
    hashes = {"simhash": 6, "cross_polytope": 1}[kind]
    indices = [lsh.Index(20, kind=kind, n_tables=3, n_hashes=hashes) for _ in range(4)]
    indices[0].add(x)
    for row in x:
        indices[1].add(row)
    for start in range(0, 300, 37):
        expected = range(start, min(start + 37, 300))
        assert indices[2].add(x[start : start + 37]) == expected
    for start, stop in itertools.pairwise((0, 200, 280, 300)):
        indices[3].add(x[start:stop])
    assert len(indices[3]._segments) == 3  # the query goes through several
    assert len(indices[1]._segments) <= 9  # and never through many
    results = [index.query(q, 20, n_probes=7) for index in indices]
    for index, result in zip(indices, results, strict=True):
        assert len(index) == 300
        for got, want in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


def test_vectors_are_the_indexs_own():
    index, x = small_index()
    expected = index.query(x[:9], 3)
    x_before, x[:] = x.copy(), 0
    for got, want in zip(index.query(x_before[:9], 3), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_refused_addition_changes_nothing():
    index, x = small_index()
    expected = index.query(x[:9], 3)
    bad = x.copy()
    bad[-1, 3] = math.nan
    with pytest.raises(ValueError, match="finite"):
        index.add(bad)
    assert len(index) == 400
    for got, want in zip(index.query(x[:9], 3), expected, strict=True):
        np.testing.assert_array_equal(got, want)


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path, kind, metric):
    index, _ = small_index(kind=kind, n_hashes=2, metric=metric)
    index.add(vectors(150, 20, seed=6))
    q = vectors(20, 20, seed=7)
    path = tmp_path / "vectors.index"
    index.save(path)
    for loaded in (lsh.Index.load(path), lsh.Index.load(str(path), verify=False)):
        assert repr(loaded) == repr(index)
        for got, want in zip(
            loaded.query(q, 9, n_probes=4), index.query(q, 9, n_probes=4), strict=True
        ):
            np.testing.assert_array_equal(got, want)
    # Mapped, not read, and not writable.
    assert not loaded._segments[0].vectors.flags.writeable
    assert isinstance(loaded._segments[0].vectors.base, np.memmap | np.ndarray)
    # Adding after loading is adding before saving, and leaves the file alone.
    before = path.read_bytes()
    more = vectors(90, 20, seed=8)
    assert index.add(more) == loaded.add(more) == range(550, 640)
    for got, want in zip(
        loaded.query(q, 9, n_probes=4), index.query(q, 9, n_probes=4), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    assert path.read_bytes() == before
    # Over itself, though mapped; both ways give the same file.
    loaded.save(path)
    index.save(tmp_path / "other.index")
    assert path.read_bytes() == (tmp_path / "other.index").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other.index", "vectors.index"]


def test_an_empty_index_is_saved_too(tmp_path):
    lsh.Index(5, n_tables=2).save(tmp_path / "empty")
    loaded = lsh.Index.load(tmp_path / "empty")
    assert len(loaded) == 0
    loaded.add(np.eye(5))
    assert loaded.query(np.eye(5))[1][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_pickles(tmp_path):
    index, x = small_index()
    index.save(tmp_path / "index")
    for original in (index, lsh.Index.load(tmp_path / "index")):
        copy = pickle.loads(pickle.dumps(original))
        for got, want in zip(copy.query(x[:9], 3), index.query(x[:9], 3), strict=True):
            np.testing.assert_array_equal(got, want)
        assert copy.add(x) == range(400, 800)
        assert len(original) == 400


def test_the_format_is_the_documented_one(tmp_path):
    """Read with struct, json and zlib alone."""
    index, x = small_index(50)
    index.save(tmp_path / "index")
    data = (tmp_path / "index").read_bytes()
    magic, version, length, checksum = struct.unpack_from("<8sIII", data)
    assert (magic, version) == (b"SLIPLSH\n", 1)
    assert (20 + length) % 64 == 0
    assert zlib.crc32(data[:16] + data[20 : 20 + length]) == checksum
    header = json.loads(data[20 : 20 + length])
    assert header["config"] == {
        "n_features": 20,
        "kind": "simhash",
        "n_tables": 3,
        "n_hashes": 5,
        "seed": 7,
        "metric": "cosine",
    }
    assert header["size"] == len(data)
    assert list(header["sections"]) == ["vectors", "keys", "rows"]
    offset = 20 + length
    for section in header["sections"].values():
        assert section["offset"] == offset
        size = math.prod(section["shape"]) * np.dtype(section["dtype"]).itemsize
        offset += -(-size // 64) * 64
        assert f"{zlib.crc32(data[section['offset'] : offset]):08x}" == section["crc32"]
    assert offset == len(data)
    section = header["sections"]["vectors"]
    assert section["dtype"] == "<f4"
    stored = np.frombuffer(data, "<f4", 50 * 20, section["offset"])
    np.testing.assert_array_equal(stored.reshape(50, 20), x)
    keys = header["sections"]["keys"]
    codes = np.unpackbits(lsh.SimHash(15, seed=7).hash(x), axis=1, count=15, bitorder="little")
    expected = np.sort(codes.reshape(50, 3, 5) @ (1 << np.arange(5)), axis=0).T
    np.testing.assert_array_equal(
        np.frombuffer(data, "<u8", 150, keys["offset"]).reshape(3, 50), expected
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("index") / "index"
    small_index(30, 5)[0].save(path)
    return path.read_bytes()


def refusal(path, data: bytes, **arguments) -> str:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^Index\.load: `path` must be ") as caught:
        lsh.Index.load(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message.split(f", got {str(path)!r} ")[1]


def test_every_flipped_bit_is_seen(tmp_path, saved):
    """One bit of every byte of the file, header, arrays and the zeros between them."""
    path = tmp_path / "index"
    rng = np.random.default_rng(9)
    seen = set()
    for position in range(len(saved)):
        damaged = bytearray(saved)
        damaged[position] ^= 1 << rng.integers(8)
        message = refusal(path, bytes(damaged))
        seen.add("of version" if message.startswith("of version ") else message)
    assert seen == {
        "with another beginning",
        "of version",
        "with a wrong checksum of its header",
        "with a wrong checksum of 'vectors'",
        "with a wrong checksum of 'keys'",
        "with a wrong checksum of 'rows'",
    }


@pytest.mark.parametrize("verify", [True, False])
def test_every_truncation_is_seen(tmp_path, saved, verify):
    path = tmp_path / "index"
    for length in [*range(0, 80), *range(80, len(saved), 61), len(saved) - 1]:
        refusal(path, saved[:length], verify=verify)
    assert refusal(path, b"", verify=verify) == "of 0 bytes"
    assert refusal(path, saved[:-1], verify=verify) == f"of {len(saved) - 1} bytes"
    assert refusal(path, saved + b"\0", verify=verify) == f"of {len(saved) + 1} bytes"


def with_header(saved: bytes, change) -> bytes:
    """The file with another header, whose checksum is right."""
    length = struct.unpack_from("<I", saved, 12)[0]
    header = json.loads(saved[20 : 20 + length])
    text = change(header)
    if not isinstance(text, bytes):
        text = json.dumps(header).encode()
    assert len(text) <= length
    text = text.ljust(length)
    return _file._prefix(text) + text + saved[20 + length :]


def set_config(**changes):
    return lambda header: header["config"].update(changes)


def set_section(name, **changes):
    return lambda header: header["sections"][name].update(changes)


OTHER_FORM = "with a header of another form"
NO_INDEX = "with a header that describes no index"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: b"[1, 2", OTHER_FORM),
        (lambda header: b"[1, 2]", OTHER_FORM),
        (lambda header: b"\xff", OTHER_FORM),
        (lambda header: header.pop("size"), OTHER_FORM),
        (lambda header: header.update(config=3), OTHER_FORM),
        (lambda header: header.update(sections=3), OTHER_FORM),
        (set_section("keys", dtype="<u9"), OTHER_FORM),
        (set_section("keys", shape=["a"]), OTHER_FORM),
        (set_section("keys", dtype="O"), OTHER_FORM),
        (set_section("keys", dtype="<i8"), NO_INDEX),
        (set_section("keys", shape=[1, 90]), NO_INDEX),
        (set_section("vectors", shape=[-30, -5]), "with 'vectors' beyond its end"),
        (set_section("rows", offset=-64), "with 'rows' beyond its end"),
        (set_section("rows", offset=10**9), "with 'rows' beyond its end"),
        (set_section("rows", shape=[2**40, 2**40]), "with 'rows' beyond its end"),
        (lambda header: header["sections"].pop("rows"), NO_INDEX),
        (set_config(kind="e2"), NO_INDEX),
        (set_config(n_tables=0), NO_INDEX),
        (set_config(n_features=6), NO_INDEX),
        (set_config(other=1), NO_INDEX),
        (lambda header: header["config"].pop("kind"), NO_INDEX),
    ],
)
def test_headers_that_describe_no_index(tmp_path, saved, change, message):
    assert refusal(tmp_path / "index", with_header(saved, change), verify=False) == message


def test_versions_and_other_files(tmp_path, saved):
    path = tmp_path / "index"
    future = saved[:8] + struct.pack("<I", 2) + saved[12:]
    assert refusal(path, future) == "of version 2"
    assert refusal(path, b"PK" + saved[2:]) == "with another beginning"
    with pytest.raises(FileNotFoundError):
        lsh.Index.load(tmp_path / "missing")


def test_rows_that_are_not_there_are_refused(tmp_path, saved):
    """Damage that nobody looked for: wrong numbers of vectors must not lead out of the arrays."""
    header = json.loads(saved[20 : 20 + struct.unpack_from("<I", saved, 12)[0]])
    damaged = bytearray(saved)
    offset = header["sections"]["rows"]["offset"]
    damaged[offset : offset + 360] = b"\xff" * 360
    path = tmp_path / "index"
    path.write_bytes(bytes(damaged))
    index = lsh.Index.load(path, verify=False)
    with pytest.raises(ValueError, match="the index must be undamaged") as caught:
        index.query(ramp(40, 5), 2, n_probes=32)
    assert str(caught.value) == "Index.query: the index must be undamaged, got rows beyond its end"


def test_a_failed_save_leaves_the_old_file(tmp_path):
    index, _ = small_index()
    path = tmp_path / "index"
    index.save(path)
    before = path.read_bytes()
    broken, _ = small_index()
    broken._segments[0] = broken._segments[0]._replace(vectors=np.array(["x"]))
    with pytest.raises(ValueError, match="could not convert"):
        broken.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        index.save(tmp_path / "no" / "index")


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_features": 0}, ValueError, "`n_features` must be between 1 and 2**30, got 0"),
        ({"n_features": 2.0}, TypeError, "`n_features` must be an int, got float"),
        ({"kind": "e2"}, ValueError, "`kind` must be 'simhash' or 'cross_polytope', got 'e2'"),
        ({"kind": 3}, TypeError, "`kind` must be a str, got int"),
        ({"n_tables": 0}, ValueError, "`n_tables` must be between 1 and 2**10, got 0"),
        ({"n_hashes": 65}, ValueError, "`n_hashes` must be between 1 and 2**6, got 65"),
        (
            {"kind": "cross_polytope", "n_hashes": 17},
            ValueError,
            "`n_hashes` must be at most 16 for kind 'cross_polytope' and 5 features, got 17",
        ),
        ({"seed": -1}, ValueError, "`seed` must be between 0 and 2**64 - 1, got -1"),
        ({"metric": "l1"}, ValueError, "`metric` must be 'cosine' or 'euclidean', got 'l1'"),
    ],
)
def test_index_refuses(arguments, error, message):
    with pytest.raises(error) as caught:
        lsh.Index(**{"n_features": 5, **arguments})
    assert str(caught.value) == f"Index: {message}"


WRONG_WIDTH = "`x` must have 5 features in its last axis, got shape (2, 6)"


@pytest.mark.parametrize("method", ["add", "query"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((2, 6)), ValueError, WRONG_WIDTH),
        (
            np.float64(1),
            ValueError,
            "`x` must have from 1 to 2**30 features in its last axis, got shape ()",
        ),
        (np.ones((2, 5), complex), TypeError, "`x` must have a real numeric dtype, got complex128"),
        (
            np.diag([1, 2, math.nan, 1, 1]),
            ValueError,
            "`x` must be finite as float32, got row 2 that is not",
        ),
        (np.full((3, 5), 1e39), ValueError, "`x` must be finite as float32, got row 0 that is not"),
    ],
)
def test_vectors_that_are_refused(method, x, error, message):
    index = lsh.Index(5)
    with pytest.raises(error) as caught:
        getattr(index, method)(x)
    assert str(caught.value) == f"Index.{method}: {message}"


def test_other_arguments_that_are_refused():
    index = lsh.Index(5)
    for call, error, message in [
        (
            lambda: index.add(np.ones((2, 3, 5))),
            ValueError,
            "Index.add: `x` must have one or two axes, got shape (2, 3, 5)",
        ),
        (
            lambda: index.query(np.ones(5), 0),
            ValueError,
            "Index.query: `k` must be between 1 and 2**32, got 0",
        ),
        (
            lambda: index.query(np.ones(5), n_probes=0),
            ValueError,
            "Index.query: `n_probes` must be between 1 and 2**16, got 0",
        ),
        (
            lambda: index.query(np.ones(5), n_probes="2"),
            TypeError,
            "Index.query: `n_probes` must be an int, got str",
        ),
    ]:
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value) == message


def test_saved_from_several_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    index = lsh.Index(8, n_tables=2)
    index.add(np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32))
    path = tmp_path / ("n" * 250)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: index.save(path), range(20)))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert len(lsh.Index.load(path)) == 50
