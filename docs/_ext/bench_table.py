"""Directives that show committed results: ``bench-table`` and ``bench-machine``."""

from __future__ import annotations

from typing import Any, ClassVar

import bench_results
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size or unit == "µs":
            return f"{value / size:.3g} {unit}"
    raise AssertionError


def _row(texts: list[str]) -> nodes.row:
    row = nodes.row()
    for text in texts:
        row += nodes.entry("", nodes.paragraph(text=text))
    return row


def _table(header: list[str], body: list[list[str]]) -> nodes.container:
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=3 if column == 0 else 1) for column in range(len(header))]
    group += nodes.thead("", _row(header))
    group += nodes.tbody("", *map(_row, body))
    return nodes.container("", nodes.table("", group), classes=["bench-table"])


class BenchTable(SphinxDirective):
    """A table of the cases of a result: slipstick's time, and how many times that a peer takes."""

    required_arguments = 1
    option_spec: ClassVar[Any] = {"only": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        name = self.arguments[0]
        self.env.note_dependency(str(bench_results.path_of(name)))
        timings = bench_results.timings(name, self.options.get("only", ""))
        peers = list(dict.fromkeys(peer for timing in timings for peer in timing.others))
        body = []
        for timing in timings:
            ratios = [
                f"{timing.others[peer] / timing.own:.2f}" if peer in timing.others else ""
                for peer in peers
            ]
            body.append([timing.case, str(timing.threads), _seconds(timing.own), *ratios])
        return [_table(["case", "threads", "slipstick", *peers], body)]


class BenchFigures(SphinxDirective):
    """A table of the figures of a result that are no times of a case."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        name = self.arguments[0]
        self.env.note_dependency(str(bench_results.path_of(name)))
        body = [[what, f"{value:.3g}"] for what, value in bench_results.figures(name).items()]
        return [_table(["figure", "value"], body)]


class BenchMachine(SphinxDirective):
    """A line that names the machine, the versions and the commit of a result."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the paragraph."""
        name = self.arguments[0]
        path = bench_results.path_of(name)
        self.env.note_dependency(str(path))
        paragraph = nodes.paragraph()
        paragraph += nodes.Text("Measured on an ")
        paragraph += nodes.Text(bench_results.machine(name) + ". All figures: ")
        paragraph += nodes.literal(text=f"bench/results/{path.name}")
        paragraph += nodes.Text(".")
        return [paragraph]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("bench-table", BenchTable)
    app.add_directive("bench-figures", BenchFigures)
    app.add_directive("bench-machine", BenchMachine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
