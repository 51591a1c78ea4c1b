"""Docstrings as they stand, which are Markdown with Google's sections, made into what autodoc reads."""

import ast
import dataclasses
import inspect
import re
import textwrap
from typing import Any

import equations

SECTION = re.compile(r"(Args|Returns|Yields|Raises|Example|Examples|Reference):$")
COLUMNS = re.compile(r"\S {3,}\S")
CODE = re.compile(r" *(def |class |@|>>>)")


def words(line: str) -> str:
    """A line of text: names between backticks may become links, other code is literal, the rest has no markup."""
    parts = re.split(r"(`[^`]+`)", line)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            # Emphasis stays, stars that stand alone are none.
            part = re.sub(r"(\*\*?[^\s*](?:[^*]*[^\s*])?\*\*?)|\*", lambda star: star[1] or r"\*", part)
            part = part.replace("|", r"\|")
            parts[i] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
            continue
        code = part[1:-1]
        parts[i] = f":py:obj:`{code}`" if re.fullmatch(r"[^\W\d_][\w.]*\w", code) else f"``{code}``"
        if parts[i - 1] and parts[i - 1][-1].isalnum():
            parts[i - 1] += r"\ "
        if parts[i + 1] and parts[i + 1][0].isalnum():
            parts[i + 1] = r"\ " + parts[i + 1]
    return "".join(parts)


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Groups of lines between blank lines."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return [part for part in found if part]


def typeset(block: list[str]) -> list[str]:
    """An indented block of equations as a directive."""
    return [".. raw:: html", "", *(f"    {line}" for line in equations.html(block))]


def converted(lines: list[str], with_equations: bool = False) -> list[str]:
    """The lines of a docstring as reStructuredText; sections stay for napoleon.

    Indented blocks are typeset where they are equations, and else, as columns, become literal blocks.
    """
    result: list[str] = []
    in_section = literal = False
    for part in paragraphs(lines):
        first = part[0]
        if first == "Params:":
            continue  # on the page of a cell a table has them, with the shapes in a toy
        if not first.startswith(" "):
            in_section, literal = bool(SECTION.match(first)), False
        if in_section:
            # "size: M." is no item of a list that begins with a number in Roman letters.
            texts = [re.sub(r"^( +\w+: \w)\.", r"\1\\.", line) for line in map(words, part)]
            result += [a if ">>>" in a or "..." in a[:11] else b for a, b in zip(part, texts, strict=True)]
        elif first.startswith(">>>"):
            result += part
        elif first.startswith("    ") and with_equations and not CODE.match(first):
            result += typeset(part)
        elif first.startswith("    ") or (len(part) > 1 and all(map(COLUMNS.search, part))):
            if not literal:
                result += ["::", ""]
            literal = True
            result += [f"    {line if first.startswith(' ') else line.replace('`', '')}" for line in part]
        else:
            text = [words(line) for line in part]
            follow = [i for i, line in enumerate(part) if line.startswith("    ") and not part[0].startswith("- ")]
            if follow:  # a block right after its sentence
                block = part[follow[0] :]
                text[follow[0] :] = ["", *(typeset(block) if with_equations else ["::", "", *block])]
            result += text
        result.append("")
    return result


def fields_of(cls: type) -> list[tuple[str, str, str, str]]:
    """Name, type, default and comment of each annotated field of a class, as its source has them."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return []
    lines, found = source.splitlines(), []
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            _, _, comment = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")
            default = ast.unparse(node.value) if node.value else ""
            found.append((node.target.id, ast.unparse(node.annotation), default, comment.strip()))
    return found


def shaped(comment: str) -> str:
    """A comment on a field with the shapes in it as code."""
    return re.sub(r"(\[[^\]]*\])", r"`\1`", comment)


def is_own(thing: Any) -> bool:
    """Whether it is defined in jaxrnn, whose docstrings have equations in one form."""
    return getattr(thing, "__module__", "").partition(".")[0] == "jaxrnn"


def is_named_tuple(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, tuple) and hasattr(thing, "_fields")


def process_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """For the event `autodoc-process-docstring`, before napoleon's turn; named tuples list their fields."""
    lines[:] = converted(lines, with_equations=what != "module" and is_own(thing))
    if is_named_tuple(thing):
        for field, kind, _, comment in fields_of(thing):
            about = words(shaped(comment))
            lines.append(f"- ``{field}``" + (f": {about}" if comment else f": ``{kind}``"))
        lines.append("")


def process_signature(app: Any, what: str, name: str, thing: Any, options: Any, args: Any, returns: Any) -> Any:
    """For the event `autodoc-process-signature`: types and defaults as the source writes them."""
    if what == "class" and dataclasses.is_dataclass(thing):
        known = {
            field: (kind, default) for base in reversed(thing.__mro__) for field, kind, default, _ in fields_of(base)
        }
        fields = [f for f in dataclasses.fields(thing) if f.init and f.name in known]
        parts = {
            f.name: f"{f.name}: {known[f.name][0]}" + (f" = {known[f.name][1]}" if known[f.name][1] else "")
            for f in fields
        }
        positional = [parts[f.name] for f in fields if not f.kw_only]
        named = [parts[f.name] for f in fields if f.kw_only]
        return f"({', '.join([*positional, *['*'] * bool(named), *named])})", None
    if is_named_tuple(thing):
        return f"({', '.join(thing._fields)})", None
    function = inspect.unwrap(thing) if callable(thing) else thing
    if not inspect.isroutine(function):
        return None
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    if not isinstance(node, ast.FunctionDef):
        return None
    if what == "method" and node.args.args[:1] and node.args.args[0].arg in ("self", "cls"):
        node.args.args.pop(0)
    return f"({ast.unparse(node.args)})", ast.unparse(node.returns) if node.returns else None


def skip_member(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """For the event `autodoc-skip-member`: fields of named tuples are listed already."""
    return True if type(thing).__name__ == "_tuplegetter" else None
