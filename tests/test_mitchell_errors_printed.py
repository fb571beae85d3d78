"""Error reports as text, dictionary, picture, and from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import slipstick
from mitchell_error_oracle import (
    percent,
)
from slipstick import cli
from slipstick.mitchell import (
    DRUM,
    ILM,
    error_report,
)

# --- What is printed and drawn ---


def test_text_states_the_conventions():
    text = str(error_report("mitchell"))
    assert "Mitchell() on 8-bit unsigned integers, all 65,536 pairs" in text
    assert "-3.7878 %" in text
    assert "percent" in text
    assert "left out (65,025 pairs)" in text
    assert "at 49 pairs: (3, 3), (3, 6)" in text
    assert "count as RE = 0 (65,536 pairs)" in str(error_report("mitchell", count_zeros=True))
    exact = error_report(ILM(7))
    assert "no pair has an error" in str(exact)
    assert exact.worst_pairs == ()


def test_dictionary_is_json():
    report = error_report(DRUM(3), 6, signed=True)
    figures = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert figures["quantiles"]["0.5"] == report.quantiles[2]
    assert figures["worst_pairs"][0] == list(report.worst_pairs[0])
    assert figures["method"] == "DRUM(width=3)"
    assert not any(name.startswith("_") for name in figures)


@pytest.mark.parametrize(
    ("method", "bits", "signed"),
    [("mitchell", 8, False), (ILM(63), 2, True), ("alm-soa", 9, True), ("realm", "float32", False)],
)
def test_plot_draws_and_saves(tmp_path, method, bits, signed):
    path = tmp_path / "errors.png"
    report = error_report(method, bits, signed=signed)
    figure = report.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    picture, histogram, bar = figure.axes
    assert report.method in figure.get_suptitle()
    low, high = picture.images[0].get_clim()
    assert low == -high
    for axis in (histogram, bar):
        assert "%" in axis.get_ylabel()
    # The bars hold all pairs.
    assert sum(patch.get_height() for patch in histogram.patches) == pytest.approx(100)


def test_plot_of_no_pairs():
    error_report("mitchell", operands=(np.zeros(1, int),) * 2).plot()


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"^ErrorReport.plot: the package matplotlib must be installed, got none: run `pip"
    with pytest.raises(ImportError, match=message):
        error_report("mitchell", 4).plot()


# --- The program ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mitchell", "Mitchell()"),
        ("mitchell:0.0625", "Mitchell(bias=0.0625)"),
        ("mitch-w:8", "MitchW(width=8)"),
        ("drum:5", "DRUM(width=5)"),
        ("realm:8", "REALM(segments=8)"),
        ("ilm:0", "ILM(iterations=0)"),
        ("mbm:2", "MBM(truncate=2)"),
        ("lmul:4", "LMul(bits=4)"),
        ("lmul-formula:4", "LMulFormula(bits=4)"),
        ("alm-soa:3", "ALMSOA(width=3)"),
    ],
)
def test_errors_command(capsys, text, shown):
    assert cli.main(["errors", text]) == 0
    assert capsys.readouterr().out.startswith(f"{shown} on 8-bit unsigned integers")


def test_errors_command_with_json_a_table_and_a_picture(tmp_path, capsys):
    table, picture = tmp_path / "table.bin", tmp_path / "errors.png"
    slipstick.mitchell.save_table("mitchell", table)
    assert cli.main(["errors", f"table:{table}", "--json", "--plot", str(picture)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert percent(figures["mred"]) == 3.7878
    assert picture.exists()
    assert cli.main(["errors", "mitchell", "--bits", "bfloat16", "--count-zeros", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits"] == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table:missing.bin"], "No such file"),
        (["foo"], "`method` must be a Method object or one of 'mitchell'"),
        (["foo:3"], "METHOD must be one of mitchell, .* before a colon, got 'foo:3'"),
        (["drum:x"], "METHOD must have an integer after the colon, got 'drum:x'"),
        (["mitchell:x"], "METHOD must have a number after the colon, got 'mitchell:x'"),
        (["realm:7"], "REALM: `segments` must be a power of two from 1 to 64, got 7"),
        (["mitchell", "--bits", "33"], "`bits` must be from 2 to 32, got 33"),
    ],
)
def test_errors_command_refuses(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["errors", *arguments])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_errors_command_shows_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["errors", "mitchell", "--bits", "12"]) == 0
    assert capsys.readouterr().err.endswith("100.0%\n")


def test_interrupt_between_chunks():
    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        error_report("mitchell", 16, progress=stop)


def test_the_package_imports_without_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import slipstick.cli"
    subprocess.run([sys.executable, "-c", code], check=True)
