"""Typesets the equations of docstrings, text in the code's letters, as MathML, which browsers draw without a script.

    h' = φ(x W_x + h W_h + b)        y = h'

A line has columns, three spaces or more apart, of equations, labels and remarks. A single letter is a variable, longer
names are in `NAMES`, every other word is prose. Prose in the place of a name is an error, so that no line goes to the
site half understood.
"""

import html as markup
import itertools
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

FUNCTIONS = {"exp", "log", "tanh", "sign", "max", "min", "softplus", "cumax", "sqrt", "Re", "LN", "BN"}
"""Names that apply to what follows, with or without parentheses."""
PAIRS = {"Δt", "dh", "dt"}
"""Names of two letters that stay letters."""
NAMES = {*FUNCTIONS, *PAIRS}
NAMES |= {"cell", "function", "params", "state", "inner", "heads", "hidden", "table", "context", "attend", "SiLU", "op"}
NAMES |= {"softmax", "abs_diff", "sqr_diff", "sqrt_diff", "merge", "forward", "backward", "max_time"}
NAMES |= {"loss", "target", "score", "tokens", "mean", "averaged_params"}
"""Names of more than one letter; most are prose where they stand among words, as in "the hidden state h"."""

OPENING, CLOSING, BARS = "([", ")]", "|‖"
RELATIONS = ("=", "+=", "~")
BINARY = ("+", "-", "⊙", "*", "·", "/", "<", ">", "≤", "≥", "^", "√", "mod", *RELATIONS[1:])
SHOWN = {"-": "−", "*": "∗", "~": "∼", "...": "…", "Σ": "∑"}
"""Signs that are drawn as others."""
ACCENTS = {"\u0302": "^", "\u0303": "~", "\u0304": "¯"}

LETTER = "A-Za-zα-ωΑ-ΡΤ-Ω"
TOKEN = re.compile(
    rf"""(?P<code> \w+=(?:"[^"]*"|True|False) | "[^"]*" | `[^`]*` | [A-Z]\w+\([A-Z]\w+\) )
    | (?P<prose> \w\w+'s\b | (?:[A-Za-z]{{2,}}-)+[A-Za-z]{{2,}} | (?<=\s)\((?:[A-Za-z]{{3,}}[, ]*)+\) )
    | (?P<number> \d+(?:\.\d+)? )
    | (?P<sign> \+= | \.\.\. | mod\b | [-+=⊙*·/<>≤≥~,;:…^²ᵀ'|‖()\[\]√Σ∂] )
    | (?P<name> [{LETTER}][{LETTER}0-9]*[{"".join(ACCENTS)}]? )""",
    re.VERBOSE,
)
SUBSCRIPT = re.compile(rf"_(?:{{([^}}]*)}}|([{LETTER}0-9]+))")
COLUMN = re.compile(r"\S+(?: {1,2}\S+)*")


class Token(NamedTuple):
    kind: str  # "code", "prose", "number", "sign" or "name"
    text: str
    below: str = ""  # the subscript
    spaces: int = 0  # in front of it


def tokens(text: str) -> list[Token]:
    """The tokens of a column."""
    found, at = [], 0
    while at < len(text):
        start = len(text) - len(text[at:].lstrip())
        match = TOKEN.match(text, start)
        if match is None:
            raise ValueError(f"{text}: no rule for {text[start:]!r}")
        kind, word, below, end = match.lastgroup or "", match[0], "", match.end()
        if kind == "name" or word == "Σ":
            longer = re.compile(r"\w+").match(text, start)
            if longer and longer[0] in NAMES:
                word, end = longer[0], longer.end()
            elif script := SUBSCRIPT.match(text, end):
                below, end = script[1] or script[2], script.end()
        found.append(Token(kind, word, below, start - at))
        at = end
    return found


# Prose among mathematics.


def is_sign(token: Token, signs: Sequence[str]) -> bool:
    return token.kind == "sign" and token.text in signs


def is_letter(token: Token) -> bool:
    return token.kind == "name" and len(token.text.rstrip("".join(ACCENTS))) == 1


def depths(line: Sequence[Token]) -> list[int]:
    """How many brackets each token stands in."""
    found, depth = [], 0
    for token in line:
        depth -= is_sign(token, CLOSING)
        found.append(depth)
        depth += is_sign(token, OPENING)
    return found


def prose(line: Sequence[Token]) -> list[bool]:
    """Which tokens are prose: code, words that are no names, names in the place of a word."""
    end = Token("end", "")
    found: list[bool] = []
    for before, token, after, depth in zip([end, *line[:-1]], line, [*line[1:], end], depths(line), strict=True):
        called = is_sign(after, OPENING) and not after.spaces
        in_formula = depth > 0 or called or is_sign(before, BINARY) or is_sign(after, (*BINARY, *RELATIONS))
        if token.kind != "name":
            punctuation = is_sign(token, ",;:") and bool(found) and found[-1]
            found.append(token.kind in ("code", "prose") or punctuation)
        elif is_letter(token):  # "a" is an article between words
            words = [one.kind in ("name", "prose") and not is_letter(one) for one in (before, after)]
            found.append(token.text == "a" and words[1] and (words[0] or before is end or is_sign(before, ",")))
        elif token.text in NAMES:
            first = is_sign(before, "=") and after.kind != "prose"
            found.append(not (in_formula or first or token.below or token.text in FUNCTIONS or is_sign(after, "'")))
        elif in_formula:
            raise ValueError(f"{spelled(line)}: {token.text!r} is in the place of a name, and not in NAMES")
        else:
            found.append(True)
    return found


def spelled(line: Sequence[Token]) -> str:
    return "".join(" " * token.spaces + token.text + ("_" + token.below if token.below else "") for token in line)


# Mathematics.


def element(tag: str, *parts: str, **attributes: str) -> str:
    given = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<{tag}{given}>{''.join(parts)}</{tag}>"


def operator(sign: str, **attributes: str) -> str:
    return element("mo", markup.escape(SHOWN.get(sign, sign)), **attributes)


def space(width: str) -> str:
    return element("mspace", width=width)


def named(text: str) -> str:
    """A variable or a function: letters are slanted, words upright."""
    if text in PAIRS:
        return element("mrow", *(element("mi", letter) for letter in text))
    letter = text.rstrip("".join(ACCENTS))
    accent = "".join(operator(ACCENTS[mark], stretchy="false") for mark in text[len(letter) :])
    return element("mover", element("mi", letter), accent, accent="true") if accent else element("mi", letter)


def scripted(base: str, below: str, above: str) -> str:
    """A base with what stands below and above it, each of which may be empty."""
    scripts = [one for one in (below, above) if one]
    tag = "msubsup" if below and above else "msub" if below else "msup"
    return element(tag, base, *scripts) if scripts else base


def subscript(text: str) -> str:
    """Letters and sums of them; a longer word is upright."""
    if not text or re.fullmatch(rf"[{LETTER}]{{3,}}", text):
        return element("mi", text) if text else ""
    return element("mrow", Reader(tokens(re.sub(rf"(?<=[{LETTER}])(?=[{LETTER}])", " ", text)), gap="0").row())


class Item(NamedTuple):
    """A part of a row."""

    xml: str
    inner: str | None = None  # of a group in parentheses, what stands between them
    is_operand: bool = True

    @property
    def bare(self) -> str:
        """Without its parentheses."""
        return self.xml if self.inner is None else self.inner


SLASH = Item(operator("/"), is_operand=False)


class Reader:
    """Reads a formula from left to right: rows of items; an item may hold rows in brackets."""

    def __init__(self, line: Sequence[Token], gap: str = "0.2em"):
        self.line, self.gap, self.at, self.bars = line, gap, 0, [""]

    def formula(self) -> str:
        """The whole line as one element."""
        row = self.row()
        if self.at < len(self.line):
            raise ValueError(f"{spelled(self.line)}: {self.line[self.at].text!r} has no beginning")
        return element("math", row, displaystyle="true")

    def next(self) -> Token:
        return self.line[self.at] if self.at < len(self.line) else Token("end", "")

    def touches(self, signs: str) -> bool:
        """Whether one of these signs comes next, without a space."""
        return is_sign(self.next(), signs) and not self.next().spaces

    def row(self) -> str:
        """Up to the end of the bracket or of the line."""
        items: list[Item] = []
        while self.at < len(self.line):
            token, follows = self.next(), bool(items) and items[-1].is_operand
            if is_sign(token, CLOSING) or (follows and is_sign(token, (self.bars[-1],))):
                break
            if token.kind == "sign" and token.text not in (*OPENING, *BARS, "√", "Σ", "∂"):
                self.at += 1
                prefix = {"form": "prefix"} if token.text in "+-" and not follows else {}
                items.append(Item(operator(token.text, **prefix), is_operand=False))
                continue
            if token.spaces and follows:
                items.append(Item(space(self.gap), is_operand=False))
            elif token.spaces > 1 and items:  # the next of several equations
                items.append(Item(space("1em"), is_operand=False))
            items.append(self.item())
        return "".join(item.xml for item in fractions(items))

    def item(self) -> Item:
        """A number, a name, a bracket, a root or a sum, with its arguments and scripts."""
        token = self.next()
        if is_sign(token, (*OPENING, *BARS)):
            base = self.bracket()
            above = self.scripts()
            return Item(scripted(base.xml, "", above)) if above else base
        self.at += 1
        if token.text in ("√", "sqrt"):
            return Item(element("msqrt", self.item().bare))
        below = subscript(token.below)
        if token.text == "Σ":
            return Item(element("munder", operator("Σ"), below) if below else operator("Σ"))
        if token.kind == "number":
            return Item(scripted(element("mn", token.text), "", self.scripts()))
        xml = scripted(self.primed(named(token.text)), below, self.scripts())
        if self.touches(OPENING):
            xml = element("mrow", xml, self.bracket().xml)
            xml = scripted(xml, "", self.scripts())
        elif token.text in FUNCTIONS and self.next().kind in ("name", "number"):
            xml = element("mrow", xml, space(self.gap), self.item().xml)
        return Item(xml)

    def bracket(self) -> Item:
        opening = self.next().text
        self.at += 1
        self.bars.append(opening if opening in BARS else "")
        inner = self.row()
        self.bars.pop()
        closing = self.next().text
        if not closing:
            raise ValueError(f"{spelled(self.line)}: {opening!r} has no end")
        self.at += 1
        high = {} if "<mfrac" in inner or "<munder" in inner else {"stretchy": "false"}
        ends = operator(opening, form="prefix", **high), operator(closing, form="postfix", **high)
        xml = element("mrow", ends[0], inner, ends[1])
        return Item(xml, inner if opening + closing == "()" else None)

    def primed(self, xml: str) -> str:
        """With the primes that follow; fonts raise them already, so they are no scripts."""
        start = self.at
        while self.touches("'"):
            self.at += 1
        prime = operator("′", lspace="0", rspace="0", form="postfix")
        return element("mrow", xml, *[prime] * (self.at - start)) if self.at > start else xml

    def scripts(self) -> str:
        """What stands above: a power, a transpose."""
        if not self.touches("²ᵀ^"):
            return ""
        sign = self.next().text
        self.at += 1
        return element("mn", "2") if sign == "²" else UPRIGHT_T if sign == "ᵀ" else self.power()

    def power(self) -> str:
        if self.next() == Token("name", "T"):
            self.at += 1
            return UPRIGHT_T
        return element("mrow", self.item().bare)


UPRIGHT_T = element("mi", "T", mathvariant="normal")


def fractions(items: list[Item]) -> list[Item]:
    """A slash beside parentheses becomes a fraction; others stay."""
    found: list[Item] = []
    for item in items:
        above = found[-2] if len(found) > 1 and found[-1] == SLASH else None
        if above and (above.inner is not None or item.inner is not None):
            parts = [element("mrow", part.bare) for part in (above, item)]
            found[-2:] = [Item(element("mfrac", *parts))]
        else:
            found.append(item)
    return found


# Lines.


def shown(line: Sequence[Token], flags: Sequence[bool]) -> str:
    """A part of a column as HTML: words, code, formulas."""
    parts, at = [], 0
    while at < len(line):
        end = next((n for n in range(at, len(line)) if flags[n] != flags[at]), len(line))
        run = line[at:end]
        gap = " " * bool(at and run[0].spaces)
        parts.append(gap + (words(run) if flags[at] else Reader(run).formula()))
        at = end
    return "".join(parts)


def words(run: Sequence[Token]) -> str:
    parts = []
    for n, token in enumerate(run):
        text = markup.escape(token.text.strip("`"), quote=False)
        parts.append(" " * bool(n and token.spaces) + (element("code", text) if token.kind == "code" else text))
    return "".join(parts)


class Row(NamedTuple):
    """A line of a block, its parts as HTML."""

    left: str
    relation: str  # empty in a line that goes on, and in one of labels
    columns: list[str]  # what stands to the right of the relation, and remarks
    is_equation: bool


def is_equation(column: str) -> bool:
    """Of a column as HTML."""
    return operator("=") in column


def rows(lines: Sequence[str]) -> Iterator[Row]:
    """The rows of a block; a remark may go on in the next line."""
    block: list[list[tuple[int, str]]] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        columns = [(m.start(), m[0]) for m in COLUMN.finditer(unicodedata.normalize("NFD", line))]
        if block and columns[0][0] >= block[-1][-1][0] > 0:
            start, remark = block[-1][-1]
            block[-1][-1] = (start, f"{remark} {columns[0][1]}")
        else:
            block.append(columns)
    yield from map(row, block)


def row(columns: Sequence[tuple[int, str]]) -> Row:
    """A row of columns, each with the place where it begins."""
    parts = [tokens(text) for _, text in columns]
    flags = [prose(part) for part in parts]
    first, is_word = parts[0], flags[0]
    others = [shown(part, flag) for part, flag in zip(parts[1:], flags[1:], strict=True)]
    if columns[0][0]:
        return Row("", "", [shown(first, is_word), *others], True)
    at = next((n for n, depth in enumerate(depths(first)) if not depth and is_sign(first[n], RELATIONS)), None)
    if at is None or any(is_word[:at]):
        return Row("", "", [first[0].text if len(first) == 1 else shown(first, is_word), *others], False)
    right = shown(first[at + 1 :], is_word[at + 1 :])
    for (start, text), (place, _) in itertools.pairwise(columns):  # equations four spaces apart stand side by side
        if place - start - len(text) > 4 or not is_equation(others[0]):
            break
        right += "&emsp;" + others.pop(0)
    return Row(Reader(first[:at]).formula(), Reader(first[at : at + 1]).formula(), [right, *others], True)


def html(lines: Sequence[str]) -> list[str]:
    """A block of a docstring as lines of HTML: equations in a table with their relations one below the other."""
    block = list(rows(lines))
    result, before = ['<div class="equations">'], None
    for one in block:
        heading = not one.is_equation and not any(map(is_equation, one.columns)) and any(r.is_equation for r in block)
        apart = not one.is_equation and not heading  # rows with labels, in a table of their own
        if apart != before:
            result += [*["</table>"] * (before is not None), "<table>"]
            before = apart
        if one.is_equation:
            cells = [("left", one.left), ("relation", one.relation), ("right", one.columns[0])]
        else:
            cells = [('label" colspan="3' if heading else "label", one.columns[0])]
        cells += [("column" if is_equation(column) else "remark", column) for column in one.columns[1:]]
        result.append("<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in cells) + "</tr>")
    return [*result, "</table>", "</div>"]
