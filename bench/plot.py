"""Draws what `bench.unroll` measured: ours, every other library, and the machine's limit.

    python -m bench.plot bench/results.json bench/speed.png

The results are what `bench.unroll --json` or `bench.all` wrote.
"""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import tyro

from bench.records import Record, load
from bench.unroll import LIMIT

MARKERS = "osD^v<>P*X"


@dataclass(frozen=True)
class Settings:
    """Draw the figures of `bench.unroll`."""

    results: tyro.conf.Positional[pathlib.Path]
    """What `bench.unroll --json` or `bench.all` wrote."""
    picture: tyro.conf.Positional[pathlib.Path]
    """The picture to write."""


def draw(records: Sequence[Record], path: pathlib.Path) -> None:
    """One panel for each table that has a limit: the share of the machine's product rate that each library reaches."""
    limits = {(r.table, r.row): r.value for r in records if r.column == LIMIT}
    titles = list(dict.fromkeys(table for table, _ in limits))
    if not titles:
        raise ValueError("records: got none of bench.unroll, needs some")
    shown = [r for r in records if (r.table, r.row) in limits and r.column != LIMIT]
    names = list(dict.fromkeys(r.column for r in shown))
    figure, axes = plt.subplots(len(titles), 1, figsize=(9, 2.6 * len(titles) + 1), squeeze=False, layout="constrained")
    for ax, title in zip(axes[:, 0], titles, strict=True):
        sizes = list(dict.fromkeys(row for table, row in limits if table == title))
        for i, name in enumerate(names):
            found = {r.row: limits[title, r.row] / r.value for r in shown if (r.table, r.column) == (title, name)}
            places = [k for k, size in enumerate(sizes) if size in found]
            line = {"color": f"C{i % 10}", "linewidth": 0.7}
            if name == "jaxrnn":
                line = {"color": "black", "linewidth": 2, "zorder": 3}
            marker = MARKERS[i % len(MARKERS)]
            ax.plot(places, [found[sizes[k]] for k in places], marker=marker, markersize=4, label=name, **line)
        ax.axhline(1.0, color="black", linestyle="--", linewidth=1, label="the products alone, at the machine's rate")
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_ylabel("share of the product rate", fontsize=8)
        ax.set_ylim(bottom=0)
        ax.grid(axis="y", alpha=0.3)
        ax.set_xticks(range(len(sizes)), [size.replace(",", "\n") for size in sizes], fontsize=8)
    axes[-1, 0].set_xlabel("B, T, I, H")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    plt.switch_backend("agg")
    settings = tyro.cli(Settings)
    draw(load(settings.results), settings.picture)
