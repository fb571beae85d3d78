"""Where the CMake package for C++ users lies."""

from __future__ import annotations

from pathlib import Path

from slipstick import _cpu

__all__ = ["cmake_dir"]


def cmake_dir() -> str:
    """Return the folder of the CMake package that was installed with this one.

    It holds the headers and the static library of the same version for C++ programs:
    ``find_package(slipstick)`` finds it with ``-Dslipstick_DIR=$(python -m slipstick cmakedir)``.

    Returns
    -------
    str
        The folder of slipstickConfig.cmake.

    Raises
    ------
    FileNotFoundError
        Where Python runs the sources beside a module that was built but not installed.

    Examples
    --------
    ::

        cmake -S . -B build -Dslipstick_DIR="$(python -m slipstick cmakedir)"
    """
    # Beside the compiled module, which an editable install keeps apart from the sources.
    folder = Path(_cpu.__file__).parent / "lib" / "cmake" / "slipstick"
    if not (folder / "slipstickConfig.cmake").is_file():
        raise FileNotFoundError(
            f"cmake_dir: slipstick must be installed with its CMake package, got a module without "
            f"one in {folder}; `pip install .` and `cmake --install` both install it"
        )
    return str(folder)
