"""Who may include whom: the layers are acyclic, and each sees only what lies below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CPP = ROOT / "cpp"
FAMILIES = sorted(
    path.name for path in CPP.iterdir() if path.is_dir() and path.name not in ("core", "bind")
)
SOURCES = sorted(p for p in CPP.rglob("*") if p.suffix in (".hpp", ".cpp", ".cu", ".cuh"))
PYTHON = sorted((ROOT / "python" / "slipstick").rglob("*.py"))


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#include\s+[<"]([^">]+)[">]', path.read_text(), re.M)


def layer(include: str) -> str:
    return include.partition("/")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CPP)))
def test_includes(path):
    owner = path.relative_to(CPP).parts[0]
    for include in includes(path):
        if owner != "bind":
            assert layer(include) != "pybind11", f"{path} sees pybind11"
            assert layer(include) != "bind", f"{path} includes the layer above it"
        if owner == "core":
            assert layer(include) not in FAMILIES, f"core includes the family {include}"
        if owner in FAMILIES:
            others = [family for family in FAMILIES if family != owner]
            assert layer(include) not in others, f"{path} includes another family"
        for_cuda = path.suffix in (".cu", ".cuh")
        if include.startswith("cuda"):
            assert for_cuda or path.name == "cuda_module.cpp", f"{path} sees CUDA"
        if include.endswith(".cuh"):
            assert for_cuda, f"{path} sees CUDA"


@pytest.mark.parametrize("path", sorted(CPP.rglob("*.simd.cpp")), ids=lambda p: p.parent.name)
def test_level_sources_use_no_containers_or_algorithms(path):
    """What they instantiate would be a weak symbol, one level's copy for everybody.

    <utility> is there for std::integer_sequence, a type.
    """
    allowed = {"cstdint", "type_traits", "limits", "utility"}
    standard = [include for include in includes(path) if "/" not in include and "." not in include]
    assert set(standard) <= allowed


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: p.stem)
def test_only_the_public_api_imports_the_module(path):
    """Bridges and programs stand on the public functions."""
    bridges = {"dask", "sklearn", "torch", "transformers", "distributed"}
    above = {"demo", "cli", "bench", "selftest", "reference", "scales"} | bridges
    if path.stem in above or path.parent.name in above:
        allowed = {"cli"}  # `slipstick info` shows what the module knows of itself
        uses = re.search(r"\b_(cpu|cuda)\b", path.read_text()) is not None
        assert not uses or path.stem in allowed


@pytest.mark.parametrize(
    "path", [p for p in PYTHON if p.parent.name == "reference"], ids=lambda p: p.stem
)
def test_reference_stands_alone(path):
    imported = set(re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), re.M))
    own = {name for name in imported if name.startswith("slipstick.reference.")}
    assert {name for name in imported - own if name.startswith("slipstick")} <= {
        "slipstick.scales",
        "slipstick._chi2",
        "slipstick._gaussian",
        "slipstick._philox",
    }


def test_kernels_start_in_one_place():
    """An emulation of CUDA replaces core/launch.cuh and what holds instructions, nothing else."""
    instructions = {CPP / "core" / "ptx.cuh", CPP / "core" / "hopper.cuh"}
    for path in SOURCES:
        if path.suffix in {".cu", ".cuh"} and path not in instructions:
            assert not re.search(r"\basm\b|__shfl|__syncwarp", path.read_text())
        if path != CPP / "core" / "launch.cuh":
            assert "<<<" not in path.read_text()
            assert "extern __shared__" not in path.read_text()


def test_no_cuda_switches():
    """_cuda exists or it does not: no source asks whether CUDA is there."""
    for path in SOURCES:
        assert "USE_CUDA" not in path.read_text()
