"""The CMake package for C++ users: what is installed, what it asks of them, and what it computes.

The programs are built against the package that is installed with the Python module; nothing of the
library is compiled again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slipstick
from slipstick import _cpu, cli

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "cpp"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
# Beside Python lie those programs that came as Python packages.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def program(*names: str) -> str:
    for name in names:
        if (found := shutil.which(name, path=PATH)) is not None:
            return found
    pytest.skip(f"no {' or '.join(names)} on this machine")


def run(*command: str | Path, check: bool = True, **environment: str):
    own = ("SLIPSTICK_ISA", "SLIPSTICK_NUM_THREADS", "OMP_NUM_THREADS")
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    result = subprocess.run(
        [str(word) for word in command],
        env=inherited | {"PATH": PATH} | environment,
        capture_output=True,
        text=True,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def configure(source: Path, build: Path, *options: str, check: bool = True):
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=PATH) else []
    command = [program("cmake"), "-S", source, "-B", build, *generator, *options]
    return run(*command, check=check)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Return the folder that CMake is told; of a module that is not installed, install it here."""
    try:
        return Path(slipstick.cmake_dir())
    except FileNotFoundError:
        folders = Path(_cpu.__file__).resolve().parents
    prefix = tmp_path_factory.mktemp("prefix")
    for tree in (folder for folder in folders if (folder / "CMakeCache.txt").is_file()):
        component = ["--component", "development", "--prefix", prefix]
        run(program("cmake"), "--install", tree, *component)
    found = sorted(prefix.rglob("slipstickConfig.cmake"))
    if not found:
        pytest.skip("the module is neither installed nor beside the tree that built it")
    return found[0].parent


@pytest.fixture(scope="module")
def build(package, tmp_path_factory):
    """Return a function that builds a project against the package, as strictly as this one is."""
    program("c++", "g++", "clang++")

    def build(source: Path) -> Path:
        folder = tmp_path_factory.mktemp(source.name)
        # Headers of an imported target count as the system's, whose warnings are not shown.
        strict = ["-DCMAKE_NO_SYSTEM_FROM_IMPORTED=ON", f"-DCMAKE_CXX_FLAGS={' '.join(WARNINGS)}"]
        commands = "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"
        configure(source, folder, f"-Dslipstick_DIR={package}", commands, *strict)
        run(program("cmake"), "--build", folder, "--parallel", str(len(os.sched_getaffinity(0))))
        return folder

    return build


@pytest.fixture(scope="module")
def example(build) -> Path:
    return build(EXAMPLE)


def eighths(*shape: int) -> np.ndarray:
    i = np.arange(np.prod(shape))
    return ((i * 5 % 17 - 8) / 8).astype(np.float32).reshape(shape)


def refusal(function, *arguments) -> str:
    with pytest.raises((TypeError, ValueError)) as error:
        function(*arguments)
    return str(error.value)


def expected() -> list[str]:
    """Return what the example prints, as Python has it."""
    tokens = eighths(1, 2, 3, 4)
    left, right = np.uint8([3, 5, 100, 200]), np.uint8([3, 5, 7, 3])
    results = {
        "attention": slipstick.attention(tokens, tokens, tokens, causal=True),
        "mitchell": slipstick.mitchell.multiply(left, right),
        "drum": slipstick.mitchell.multiply(left, right, method=slipstick.mitchell.DRUM(3)),
        "projection": slipstick.projection.project(eighths(2, 1000), 4, seed=7),
    }
    lines = [f"level: {slipstick.get_isa()}", f"threads: {slipstick.get_num_threads()}"]
    for name, values in results.items():
        lines.append(f"{name}: " + " ".join(f"{value:.9g}" for value in values.ravel().tolist()))
    a, b = np.zeros((2, 3), np.float32), np.zeros((3, 2))
    lines += [refusal(slipstick.mitchell.matmul, a, other) for other in (a, b)]
    return lines


def test_the_example_computes_what_python_does(example, isa, threads):
    """Bit for bit: nine digits tell float32 numbers apart."""
    result = run(example / "example", SLIPSTICK_ISA=isa, SLIPSTICK_NUM_THREADS=str(threads))
    assert result.stdout.splitlines() == expected()
    assert result.stderr == ""


@pytest.mark.parametrize("variable", ["SLIPSTICK_ISA", "SLIPSTICK_NUM_THREADS"])
def test_the_example_ends_with_the_sentence_of_an_error(example, variable):
    result = run(example / "example", check=False, **{variable: "many"})
    assert result.returncode == 1
    message = rf"slipstick: the environment variable {variable} must be .*, got 'many'\n"
    assert re.fullmatch(message, result.stderr)


def test_users_inherit_an_include_directory_and_the_standard(example, package):
    """Neither our warnings nor our -ffp-contract, and no folder with common names in it."""
    (entry,) = json.loads((example / "compile_commands.json").read_text())
    words = [word for word in entry["command"].split() if word not in WARNINGS]
    options = [word for word in words if word.startswith("-") and word not in ("-o", "-c")]
    folders = [Path(word[2:]) for word in options if word.startswith("-I")]
    others = [word for word in options if not word.startswith("-I")]
    assert [folder.name for folder in folders] == ["include"]
    assert [path.name for path in folders[0].glob("*")].count("slipstick") == 1
    assert not {"core", "attention"} & {path.name for path in folders[0].glob("*")}
    assert all(re.fullmatch(r"-std=(c|gnu)\+\+(20|2a)|-pthread", word) for word in others)


def test_headers_give_no_warnings_and_bad_input_is_refused(build):
    folder = build(ROOT / "tests" / "cpp")
    lines = run(folder / "array_view").stdout.splitlines()
    assert lines == [
        "float32 of shape (1, 2, 3), strides 6 3 1",
        "float32 of shape (1, 2, 3), strides 6 3 1",
        "float64 of shape (3, 2), strides 2 1",
        "int8 of shape (4,), strides 1",
        "float32 of shape (), strides",
        "float32 of shape (2, 0, 3), strides 0 3 1",
        "float32 of shape (2, 3), strides 3 1",
        "1 1",
        *[
            "invalid_argument: ArrayView: `elements` must be as many as `shape` "
            f"{shape} stands for, got 6"
            for shape in ("(2, 4)", "(-2, -3)", "(4294967296, 4294967296)")
        ],
        "invalid_argument: ArrayView: `shape` must have at most 64 axes, got 65",
        "invalid_argument: ArrayView: `elements` must be as many as `shape` (5,) stands for, got 6",
        "TypeError: ArrayView: `elements` must be float64 like the result, got float32",
        *[
            f"invalid_argument: multiply: `method` must have a table, got {method} without one"
            for method in ("Table", "REALM")
        ],
        "invalid_argument: multiply: `method` must have a table of side * side entries, side a "
        "power of two up to 256, got 63 for a side of 8",
    ]


VERSIONS = """
cmake_minimum_required(VERSION 3.24)
project(versions LANGUAGES NONE)
foreach(version IN LISTS VERSIONS)
  find_package(slipstick ${version} QUIET CONFIG PATHS ${PACKAGE} NO_DEFAULT_PATH)
  message("${version}: found ${slipstick_FOUND}, considered ${slipstick_CONSIDERED_VERSIONS}")
endforeach()
"""


def test_other_versions_are_not_found(package, tmp_path):
    """A new minor version may change the API as long as the version is 0.x."""
    text = (EXAMPLE / "CMakeLists.txt").read_text()
    major, minor = map(
        int, re.search(r"find_package\(slipstick (\d+)\.(\d+) CONFIG", text).groups()
    )
    own = slipstick.__version__
    assert own.startswith(f"{major}.{minor}.")
    others = [f"{major + 1}.0", f"{major}.{minor + 1}", f"{major}.{minor - 1}", f"{own}.1"]
    (tmp_path / "CMakeLists.txt").write_text(VERSIONS)
    options = [f"-DPACKAGE={package}", f"-DVERSIONS={';'.join(others)}"]
    printed = configure(tmp_path, tmp_path / "build", *options).stderr
    assert printed.splitlines() == [f"{other}: found 0, considered {own}" for other in others]


def test_the_manual_shows_what_the_example_does():
    manual = (ROOT / "docs" / "cpp.md").read_text()
    blocks = re.findall(r"^```(cpp|cmake)\n(.*?)^```$", manual, re.M | re.S)
    assert {language for language, _ in blocks} == {"cpp", "cmake"}
    for language, text in blocks:
        source = EXAMPLE / ("main.cpp" if language == "cpp" else "CMakeLists.txt")
        lines = [line.strip() for line in source.read_text().splitlines()]
        shown = [line.strip() for line in text.splitlines()]
        assert any(lines[i : i + len(shown)] == shown for i in range(len(lines))), text
    same = np.zeros((2, 3), np.float32)
    assert f"\n    {refusal(slipstick.mitchell.matmul, same, same)}\n" in manual


def test_the_program_prints_the_folder(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "lib" / "cmake" / "slipstick"
    folder.mkdir(parents=True)
    (folder / "slipstickConfig.cmake").touch()
    monkeypatch.setattr(_cpu, "__file__", str(tmp_path / "_cpu.so"))
    assert cli.main(["cmakedir"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert slipstick.cmake_dir() == str(folder)


def test_a_module_without_the_package_says_how_to_get_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(_cpu, "__file__", str(tmp_path / "_cpu.so"))
    message = (
        "cmake_dir: slipstick must be installed with its CMake package, got a module without one "
        f"in {tmp_path}/lib/cmake/slipstick; `pip install .` and `cmake --install` both install it"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        slipstick.cmake_dir()
    with pytest.raises(SystemExit) as stop:
        cli.main(["cmakedir"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
