"""Lists the examples: `python -m examples`."""

import ast
from pathlib import Path

from rich.console import Console
from rich.table import Table

# About how long each takes by default on two cores, in minutes.
MINUTES = {
    "sine": 7,
    "sorting": 3,
    "char_lm": 6,
    "seq2seq": 5,
    "memory": 4,
    "recurrent_ppo": 1,
    "time_series": 1,
    "classify_series": 1,
    "music": 1,
    "classify_text": 2,
    "language_model": 8,
    "nce_lm": 4,
    "bidirectional_lm": 6,
    "sequential_digits": 2,
    "visual_attention": 2,
    "variants": 6,
    "demo": 3,
}


def listed() -> Table:
    """Each program with the first line of what it says of itself."""
    table = Table("command", "what it does", "about, minutes", title="each has --help, and all but demo --quick")
    for name, minutes in MINUTES.items():
        said = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))) or ""
        table.add_row(f"python -m examples.{name}", said.splitlines()[0], str(minutes))
    return table


if __name__ == "__main__":
    Console().print(listed())
