"""The options that attention, its gradients and its packed form are tried with; packed inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from attention_oracle import INF, bool_mask, float_mask
from slipstick.scales import ClippedLogN, SSMax, Su, Temperature

Options = dict[str, dict[str, Any]]

# For 4 heads and any number of sequences, queries and keys.
OF_ANY_LENGTH: Options = {
    "full": {},
    "causal": {"causal": True},
    "window": {"window": (5, 3)},
    "window narrower than a tile, causal": {"window": (5, 3), "causal": True},
    "window, causal": {"window": (40, 3), "causal": True},
    "window left": {"window": (7, None)},
    "window left, causal": {"window": (7, None), "causal": True},
    "window right": {"window": (-1, 2)},
    "window of one": {"window": (0, 0)},
    "window wide": {"window": (10**9, 2**40)},
    "softcap": {"softcap": 0.7},
    "softcap, causal": {"softcap": 0.7, "causal": True},
    "Su": {"scale": Su(1.3), "causal": True},
    "Su 0": {"scale": Su(0.0)},
    "Su negative": {"scale": Su(-1.3), "causal": True},
    "ClippedLogN": {"scale": ClippedLogN(100), "causal": True},
    "ClippedLogN, short": {"scale": ClippedLogN(20), "causal": True},
    "SSMax": {"scale": SSMax(0.3), "causal": True},
    "SSMax a head": {"scale": SSMax([0.3, -0.2, 0.0, 0.5], b=0.1), "causal": True},
    "SSMax b a head": {"scale": SSMax(0.2, b=[0.3, -0.2, 0.0, 0.5])},
    "Temperature": {"scale": Temperature(0.4, 50, offset=1), "causal": True},
    "float": {"scale": 0.25},
    "int": {"scale": 1},
    "zero": {"scale": 0.0, "causal": True},
    "negative": {"scale": -0.4},
    "tiny": {"scale": 1e-30},
    "n_keys": {"n_keys": 5000, "causal": True},
    "n_keys, Su": {"n_keys": 5000, "causal": True, "scale": Su(0.5)},
    "n_keys 0": {"n_keys": 0},
    "n_keys 1": {"n_keys": 1, "causal": True},
}


def rows_hidden(mask, *rows):
    mask = mask.copy()
    mask[..., list(rows), :] = False if mask.dtype == bool else -INF
    return mask


def options_for(keys: int) -> Options:
    """Return the grid for 2 sequences of 4 heads, 37 queries and so many keys, more than 31."""
    whole = (2, 4, 37, keys)
    per_row = 0.4 * np.random.default_rng(2).standard_normal((2, 4, 37))
    masked = {
        "lengths": {"key_lengths": [keys - 1, 7]},
        "lengths 0 and 1": {"key_lengths": np.int32([0, 1])},
        "lengths, causal": {"key_lengths": [keys - 11, keys - 31], "causal": True},
        "lengths, window beyond them": {"key_lengths": [keys, 20], "window": (3, 3)},
        "bool mask": {"mask": bool_mask(*whole)},
        "bool mask over heads": {"mask": bool_mask(2, 1, 37, keys), "causal": True},
        "bool mask of keys": {"mask": bool_mask(2, 1, 1, keys)},
        "bool mask of keys, causal, lengths": {
            "mask": bool_mask(keys),
            "causal": True,
            "key_lengths": [keys - 11, keys - 21],
        },
        "left padding": {"mask": np.arange(keys) >= np.array([0, keys - 21])[:, None, None, None]},
        "middle padding": {"mask": (np.arange(keys) < 20) | (np.arange(keys) >= keys - 11)},
        "mask with empty rows": {"mask": rows_hidden(bool_mask(2, 1, 37, keys), 0, 5, 36)},
        "mask of rows": {"mask": bool_mask(37, 1)},
        "nothing visible": {"mask": np.zeros((1, 1), bool)},
        "float mask": {"mask": float_mask(*whole)},
        "float mask, causal, window": {
            "mask": float_mask(37, keys),
            "causal": True,
            "window": (40, 1),
        },
        "float64 mask with huge numbers": {
            "mask": np.where(bool_mask(37, keys), 0.0, np.finfo(np.float64).min)
        },
        "float32 lowest number hides nothing": {
            "mask": np.where(bool_mask(37, keys), 0.0, np.finfo(np.float32).min).astype(np.float32)
        },
        "float16 mask": {"mask": float_mask(1, 4, 37, keys, dtype=np.float16)},
        "softcap, causal, float mask": {"softcap": 3, "causal": True, "mask": float_mask(*whole)},
        "Su negative, masked": {"scale": Su(-1.3), "mask": bool_mask(*whole)},
        "Su negative, causal, masked": {
            "scale": Su(-1.3),
            "causal": True,
            "mask": bool_mask(*whole),
        },
        "negative, masked": {"scale": -0.4, "mask": bool_mask(*whole)},
    }
    by_row = {
        "array": {"scale": per_row, "causal": True},
        "array of a head": {"scale": per_row[0, :, :1].astype(np.float32)},
        "array, masked": {"scale": per_row[:, :1], "mask": float_mask(*whole)},
        "n_keys a batch": {"n_keys": np.int64([17, 5000]), "causal": True},
        "n_keys a row": {
            "n_keys": np.arange(74, dtype=np.uint16).reshape(2, 37),
            "window": (9, 0),
            "scale": SSMax(0.4),
        },
        "n_keys, empty rows": {
            "n_keys": 100,
            "mask": rows_hidden(bool_mask(2, 1, 37, keys), 3),
        },
    }
    return {**OF_ANY_LENGTH, **masked, **by_row}


# Queries and keys of each sequence: one alone, decoding, a chunk, more queries than keys, without
# queries, without keys, without both, more than a tile of either, equal ones.
LENGTHS = [(1, 1), (1, 300), (17, 90), (9, 4), (0, 12), (5, 0), (0, 0), (150, 310), (33, 33)]


def starts(lengths):
    """Where each sequence begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def packed(lengths, heads, kv_heads, dim, dim_v, dtype, seed=0):
    """Return query, key, value, cu_seqlens_q, cu_seqlens_k."""
    rng = np.random.default_rng(seed)
    cu_q, cu_k = (starts([pair[i] for pair in lengths]) for i in range(2))

    def draw(*shape):
        return rng.standard_normal(shape).astype(dtype)

    return (
        draw(cu_q[-1], heads, dim),
        draw(cu_k[-1], kv_heads, dim),
        draw(cu_k[-1], kv_heads, dim_v),
        cu_q,
        cu_k,
    )
