"""The equations of the site are those of the docstrings: read back from MathML, each says what its text says."""

import importlib
import inspect
import re
import sys
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

DOCS = Path(__file__).parent.parent / "docs"
sys.path.append(str(DOCS))

import catalog  # noqa: E402
import docstrings  # noqa: E402
import equations  # noqa: E402

WRITTEN = {"−": "-", "∗": "*", "∼": "~", "∑": "Σ", "′": "'"}
ACCENTS = {"^": "\u0302", "∼": "\u0303", "¯": "\u0304"}


def documented():
    """Every class, function and method that the site shows."""
    things = [kind.cls for kind in catalog.kinds()]
    for name, (_, names) in catalog.MODULES.items():
        module = importlib.import_module(name)
        things += [getattr(module, one) for one in names or module.__all__]
    for thing in dict.fromkeys(thing for thing in things if callable(thing) and docstrings.is_own(thing)):
        yield thing
        if inspect.isclass(thing):
            yield from (method for method in vars(thing).values() if inspect.isfunction(method))


@pytest.fixture(scope="module")
def blocks():
    """The blocks of equations, under the names of what they describe."""
    found, kept = {}, docstrings.typeset
    try:
        for thing in documented():
            docstrings.typeset = lambda block, name=thing.__qualname__: found.setdefault(name, []).append(block) or []
            docstrings.converted((inspect.getdoc(thing) or "").splitlines(), with_equations=True)
    finally:
        docstrings.typeset = kept
    return found


def elements(lines):
    return ET.fromstring("".join(lines).replace("&emsp;", " "))


def grouped(*parts):
    """Parts of a fraction, of a root or of a power, in parentheses if they are more than one factor."""
    children = [child for part in parts for child in (part if part.tag == "mrow" else [part])]
    whole = children[0].text in ("|", "(") or not any(child.tag in ("mo", "mspace") for child in children)
    text = "".join(map(read, parts))
    return text if whole else f"({text})"


def read(node):
    """The text that an element stands for."""
    parts = list(node)
    match node.tag:
        case "msub" | "munder":
            text = f"{read(parts[0])}_{read(parts[1])}"
        case "msup":
            text = f"{read(parts[0])}^{grouped(parts[1])}"
        case "msubsup":
            text = f"{read(parts[0])}_{read(parts[1])}^{grouped(parts[2])}"
        case "mover":
            text = read(parts[0]) + ACCENTS[parts[1].text]
        case "mfrac":
            text = "/".join(map(grouped, parts))
        case "msqrt":
            text = "√" + grouped(*parts)
        case "mo":
            text = WRITTEN.get(node.text, node.text)
        case _:
            text = (node.text or "") + "".join(read(part) + (part.tail or "") for part in parts)
    return text


def plain(text):
    """Without what equations are free to change: spaces, braces, two spellings of one thing."""
    for spelling, other in (("sqrt(|h - v|)", "√|h - v|"), ("^T", "ᵀ"), ("^2", "²"), ("...", "…")):
        text = text.replace(spelling, other)
    text = re.sub(r"_(\w)'", r"'_\1", text)  # a prime stands before or behind what stands below
    return re.sub(r"[\s{}`]", "", unicodedata.normalize("NFD", text))


def test_every_equation_says_what_its_text_says(blocks):
    compared = 0
    for name, texts in blocks.items():
        for text in texts:
            assert plain(read(elements(equations.html(text)))) == plain("".join(text)), name
            compared += 1
    assert compared >= 60


def test_every_cell_has_equations_in_mathml(blocks):
    for kind in catalog.kinds():
        html = "".join(line for block in blocks[kind.name] for line in equations.html(block))
        assert equations.is_equation(html), kind.name


def test_the_font_of_the_site_has_every_letter(blocks):
    """Slanted letters are characters of their own."""
    known = TTFont(DOCS / "_static/fonts/STIXTwoMath-subset.woff").getBestCmap()
    places = [0x210E, *range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C)]
    slanted = {unicodedata.normalize("NFKC", chr(place)): place for place in places}
    for name, texts in blocks.items():
        for text in texts:
            for node in [node for math in elements(equations.html(text)).iter("math") for node in math.iter()]:
                letters = node.text or ""
                italic = node.tag == "mi" and len(letters) == 1 and not node.get("mathvariant")
                places = [slanted[a] if italic and a in slanted else ord(a) for a in letters]
                assert known.keys() >= set(places), (name, letters)


def test_the_docstring_of_a_class_is_typeset_and_of_a_module_is_not():
    doc = "Does it.\n\n    h' = x W\n\n    def step(x):\n        return x\n"
    assert "    <tr>" in "\n".join(docstrings.converted(doc.splitlines(), with_equations=True))
    assert "        def step(x):" in docstrings.converted(doc.splitlines(), with_equations=True)
    assert "        h' = x W" in docstrings.converted(doc.splitlines())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("h' = tnah(x W_x)", "'tnah' is in the place of a name"),
        ("h' = x + weights", "'weights' is in the place of a name"),
        ("gate = x W", "'gate' is in the place of a name"),
        ("h' = x (W h", "'(' has no end"),
        ("h' = x W) h", "')' has no beginning"),
        ("h' = x ∘ W", "no rule for '∘ W'"),
    ],
)
def test_a_line_that_is_not_understood_is_an_error(line, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        equations.html([line])
