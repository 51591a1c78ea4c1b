"""Reads a function of one row as a graph of vectors.

`trace` runs a function of one row of a batch (one example at one time step) symbolically. Every value is then one of:

    Known     depends on the constants alone: JAX computes it once a walk, and the loop reads it
    Node      a vector, or a scalar (size 0), that the loop computes for every row and step
    Outers    a sum of outer products of vectors: the derivative of a product with respect to its matrix

An equation whose inputs are all known gives known results, so weights are transposed, normalized and divided into heads
outside of the loop. What the loop has no code for raises `Unsupported`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.jaxprs import CALLS, bind, interpret
from jaxrnn.native.pointwise import POINTWISE
from jaxrnn.native.vectors import Kind
from jaxrnn.typing import Array, PyTree

__all__ = ["Matrix", "Node", "Outer", "Row", "Unsupported", "trace"]


class Unsupported(Exception):
    """The native loop has no code for a row function; the text says for what."""


@dataclass(frozen=True, eq=False)
class Node:
    """A value of every row and step.

    Attributes:
        op: a name of `POINTWISE`, or one of
            const, carry, xs: an operand, `attr` its index;
            lit: a number, `attr`, in every place;
            dot: a vector times the `Matrix` `attr`;
            slice: the vector that begins at the place `attr`;
            pick: the scalar at the place `attr`;
            splat, copy: a scalar in every place; a vector as it is;
            concat, reduce_sum, reduce_max, reduce_min.
        args: the nodes that it is computed from.
        size: places of a vector, 0 for a scalar.
        kind: float, int32 or bool.
        index: nodes are numbered in an order in which they can be computed.
    """

    op: str
    args: tuple["Node", ...]
    attr: Any
    size: int
    kind: Kind
    index: int

    def __repr__(self) -> str:
        return f"{self.op}{self.index}[{self.size or ''}]"


class Matrix(NamedTuple):
    """A constant operand as the right side of a product, as it lies in memory or transposed."""

    operand: int
    shape: tuple[int, int]
    transposed: bool


class Outer(NamedTuple):
    """A term of a sum over rows and steps: the outer product of two vectors."""

    left: Node
    right: Node


Outers = tuple[Outer, ...]
Spec = jax.ShapeDtypeStruct


@dataclass(frozen=True, eq=False)
class Row:
    """A row function as a graph.

    Attributes:
        nodes: all of them, in order.
        carry, ys: the nodes of the results.
        sums: for each leaf, the outer products or the one node that is added up.
        dtype: of the floating-point numbers.
        constants: from the constants' leaves to the operands that `const` nodes and matrices name.
        given: specs of the operands, of the carry and of `xs`.
        results: specs of `(carry, ys, sums)`, as trees.
        fun: the function itself.
    """

    nodes: tuple[Node, ...]
    carry: tuple[Node, ...]
    ys: tuple[Node, ...]
    sums: tuple[Outers | Node | None, ...]
    dtype: Literal["float32", "float64"]
    constants: Callable[[list[Any]], list[Array]]
    given: tuple[list[Spec], list[Spec], list[Spec]]
    results: tuple[PyTree, PyTree, PyTree]
    fun: Callable[..., Any]


def trace(fun: Callable[..., Any], consts: PyTree, carry: PyTree, xs: PyTree) -> Row:
    """Returns the graph of a function of one row.

    Args:
        fun: `fun(consts, carry, x) -> (carry, y, sums)` for one row of a batch; `sums` are terms that are added up over
            all steps and rows, such as gradients of constants.
        consts: specs of what all rows share, arrays of any shape.
        carry: specs of a row's state, vectors or scalars of floats, bools or int32.
        xs: specs of a row's input at a step, likewise.

    Raises:
        Unsupported: the loop has no code for it.
    """
    return _Tracer().row(fun, consts, carry, xs)


@dataclass(frozen=True)
class _Known:
    """The `number`-th known value; `fill`: the number that it has in every place; `flipped`: what it transposes."""

    number: int
    fill: Any = None
    flipped: "_Known | None" = None


_Value = Node | _Known | Outers


class _Tracer:
    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.memo: dict[Any, Node] = {}
        self.dtype: Any = None
        self.count = 0  # of known values
        self.parents: dict[int, list[int]] = {}
        self.operands: list[int | Array | np.ndarray] = []  # known values, by number, and arrays of the program
        self.places: dict[int, int] = {}  # from a number, or an array's id, to the place in the list
        self.specs: list[Spec] = []

    def row(self, fun: Callable[..., Any], consts: PyTree, carry: PyTree, xs: PyTree) -> Row:
        leaves = [jax.tree.leaves(tree) for tree in (consts, carry, xs)]
        closed, results = jax.make_jaxpr(fun, return_shape=True)(consts, carry, xs)
        if any(isinstance(c, jax.core.Tracer) for c in closed.consts):
            raise Unsupported("a traced value that the row function closes over")
        if not leaves[2]:
            raise Unsupported("no input over time")
        given: list[_Value] = [self.known() for _ in leaves[0]]
        given += [
            self.node(op, (), i, *self.form(leaf))
            for op, of in (("carry", leaves[1]), ("xs", leaves[2]))
            for i, leaf in enumerate(of)
        ]
        found, _ = interpret(closed, given, [None] * len(given), self.rule, CALLS)
        avals = [v.aval for v in closed.jaxpr.outvars]
        ends = np.cumsum([len(jax.tree.leaves(tree)) for tree in results])
        values = list(zip(found, avals, strict=True))
        rows = [self.read(*v) for v in values[: ends[1]]]
        sums = tuple(self.total(*v) for v in values[ends[1] :])
        return Row(
            nodes=tuple(self.nodes),
            carry=tuple(rows[: ends[0]]),
            ys=tuple(rows[ends[0] :]),
            sums=sums,
            dtype=str(self.dtype or np.dtype("float32")),  # type: ignore[arg-type]
            constants=functools.partial(_constants, closed, len(given), self.needed(), self.operands),
            given=(self.specs, leaves[1], leaves[2]),
            results=results,
            fun=fun,
        )

    # values

    def known(self, parents: tuple[int, ...] = (), **more: Any) -> _Known:
        self.count += 1
        self.parents[self.count - 1] = list(parents)
        return _Known(self.count - 1, **more)

    def needed(self) -> set[int]:
        """The known values that the operands depend on."""
        needed, todo = set[int](), [o for o in self.operands if isinstance(o, int)]
        while todo:
            number = todo.pop()
            if number not in needed:
                needed.add(number)
                todo += self.parents[number]
        return needed

    def node(self, op: str, args: tuple[Node, ...], attr: Any, size: int, kind: Kind) -> Node:
        """The node, which is made once."""
        key = (op, args, repr(attr), size, kind)
        if key not in self.memo:
            self.memo[key] = Node(op, args, attr, size, kind, len(self.nodes))
            self.nodes.append(self.memo[key])
        return self.memo[key]

    def literal(self, number: Any, size: int, kind: Kind) -> Node:
        return self.node("lit", (), {"f": float, "i": int, "b": bool}[kind](number), size, kind)

    def form(self, aval: Any) -> tuple[int, Kind]:
        """The size and kind of a node."""
        if (size := _size(aval)) is None:
            raise Unsupported(f"an array of the shape {tuple(aval.shape)}")
        if aval.dtype == bool or aval.dtype == np.int32:
            return size, "b" if aval.dtype == bool else "i"
        if aval.dtype not in (np.float32, np.float64):
            raise Unsupported(f"the dtype {aval.dtype}")
        if self.dtype not in (None, aval.dtype):
            raise Unsupported("float32 beside float64")
        self.dtype = aval.dtype
        return size, "f"

    def operand(self, value: Any, aval: Any) -> int:
        """The index of an operand that holds a known value, or an array that stands in the program."""
        known = isinstance(value, _Known)
        key = value.number if known else -id(value)
        if key not in self.places:
            self.places[key] = len(self.specs)
            self.operands.append(value.number if known else value)
            self.specs.append(Spec(aval.shape, aval.dtype))
        return self.places[key]

    def read(self, value: Any, aval: Any) -> Node:
        """A value as a node."""
        if isinstance(value, Node):
            return value
        if isinstance(value, tuple):
            raise Unsupported("an outer product that is not summed")
        size, kind = self.form(aval)
        if (fill := _fill_of(value)) is not None:
            return self.literal(fill, size, kind)
        return self.node("const", (), self.operand(value, aval), size, kind)

    def total(self, value: Any, aval: Any) -> Outers | Node | None:
        """What is added up to a sum; None: nothing."""
        if isinstance(value, tuple):
            return value
        if not isinstance(value, Node) and _fill_of(value) == 0:
            return None
        node = self.read(value, aval)
        if node.kind != "f":
            raise Unsupported(f"a sum of {aval.dtype}")
        return node

    # equations

    def rule(self, eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[None]]:
        results: list[Any]
        if eqn.primitive.name in _SAME:
            results = values
        elif any(isinstance(v, Node | tuple) for v in values):
            results = self.equation(eqn, values)
        else:
            parents = tuple(v.number for v in values if isinstance(v, _Known))
            flips = eqn.primitive.name == "transpose" and eqn.params["permutation"] == (1, 0)
            flipped = values[0] if flips else None
            results = [self.known(parents, fill=_fill(eqn, values), flipped=flipped) for _ in eqn.outvars]
        return results, [None] * len(results)

    def equation(self, eqn: Any, values: list[Any]) -> list[_Value]:
        name = _SYNONYMS.get(eqn.primitive.name, eqn.primitive.name)
        avals = [v.aval for v in eqn.invars]
        if any(isinstance(v, tuple) for v in values):
            return [self.of_outers(name, values, avals)]
        if name == "dot_general":
            return [self.dot(eqn, values)]
        args = [self.read(v, a) for v, a in zip(values, avals, strict=True)]
        if name == "split":
            starts = np.cumsum([0, *eqn.params["sizes"]])
            return [self.part(args[0], int(s), v.aval) for s, v in zip(starts, eqn.outvars, strict=False)]
        form = self.form(eqn.outvars[0].aval)
        if rule := _RULES.get(name):
            return [rule(self, eqn, args, *form)]
        return [self.pointwise(name, args, *form)]

    def pointwise(self, name: str, args: list[Node], size: int, kind: Kind) -> Node:
        if name in ("mul", "div") and args[1].op == "lit" and args[1].attr == 1:
            return args[0]
        if name == "mul" and args[0].op == "lit" and args[0].attr == 1:
            return args[1]
        if (name, args[-1].kind) not in POINTWISE:
            raise Unsupported(f"primitive {name!r}" + (kind != "f") * f" of {_NAMES[args[-1].kind]}")
        return self.node(name, tuple(args), None, size, kind)

    def part(self, vector: Node, start: int, aval: Any) -> Node:
        """The places of a vector from `start` on."""
        size, kind = self.form(aval)
        if vector.op == "lit":
            return self.literal(vector.attr, size, kind)
        if vector.size in (0, size):
            return vector
        return self.node("slice" if size else "pick", (vector,), start, size, kind)

    def sized(self, node: Node, size: int) -> Node:
        """A scalar in every place of a vector."""
        if node.op == "lit":
            return self.literal(node.attr, size, node.kind)
        return node if node.size == size else self.node("splat", (node,), None, size, node.kind)

    def dot(self, eqn: Any, values: list[Any]) -> _Value:
        (left_axes, right_axes), batch = eqn.params["dimension_numbers"]
        left, right = (v.aval for v in eqn.invars)
        if any(batch):
            raise Unsupported("a batched product")
        for (value, aval, axes), (vector, row) in (
            ((values[1], right, right_axes), (values[0], left)),
            ((values[0], left, left_axes), (values[1], right)),
        ):
            if not isinstance(value, Node) and _size(aval) is None:
                if aval.ndim != 2 or len(axes) != 1:
                    raise Unsupported(f"a product of the shapes {left.shape} and {right.shape}")
                matrix = self.matrix(value, aval, transposed=axes[0] == 1)
                return self.node("dot", (self.read(vector, row),), matrix, *self.form(eqn.outvars[0].aval))
        a, b = self.read(values[0], left), self.read(values[1], right)
        contracted = math.prod(left.shape[axis] for axis in left_axes)
        if contracted > 1:
            product = self.node("mul", (a, b), None, a.size, "f")
            return self.node("reduce_sum", (product,), None, 0, "f")
        if a.size and b.size:
            return (Outer(a, b),)
        return self.pointwise("mul", [a, b], a.size or b.size, "f")

    def matrix(self, value: Any, aval: Any, transposed: bool) -> Matrix:
        """A known matrix; one that is a transpose is read from what it transposes."""
        shape = aval.shape
        if isinstance(value, _Known) and value.flipped is not None:
            value, shape, transposed = value.flipped, shape[::-1], not transposed
        self.form(Spec((), aval.dtype))
        return Matrix(self.operand(value, Spec(shape, aval.dtype)), shape, transposed)

    def of_outers(self, name: str, values: list[Any], avals: list[Any]) -> Outers:
        """Linear functions of sums of outer products."""

        def scaled(outers: Outers, name: str, *by: Node) -> Outers:
            return tuple(Outer(o.left, self.pointwise(name, [o.right, *by], o.right.size, "f")) for o in outers)

        sums = [isinstance(v, tuple) for v in values]
        if name == "transpose":
            return tuple(Outer(o.right, o.left) for o in values[0])
        if name == "neg":
            return scaled(values[0], "neg")
        if name in ("add", "sub") and all(sums):
            return (*values[0], *(scaled(values[1], "neg") if name == "sub" else values[1]))
        if name in ("mul", "div") and sums[0] and not avals[1].shape:
            return scaled(values[0], name, self.read(values[1], avals[1]))
        if name == "mul" and sums[1] and not avals[0].shape:
            return scaled(values[1], name, self.read(values[0], avals[0]))
        raise Unsupported(f"primitive {name!r} of an outer product")


def _constants(closed: Any, count: int, needed: set[int], operands: list[Any], leaves: list[Any]) -> list[Array]:
    """The operands, which are made of the constants; `trace` numbered the values in the same order."""
    found = list(leaves)

    def rule(eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[None]]:
        results: list[Any] = [_OF_ROWS] * len(eqn.outvars)
        if eqn.primitive.name in _SAME:
            results = values
        elif not any(v is _OF_ROWS for v in values):
            if any(len(found) + i in needed for i in range(len(results))):
                results = bind(eqn, values)
            else:
                results = [None] * len(results)
            found.extend(results)
        return results, [None] * len(results)

    values = [*leaves, *[_OF_ROWS] * (count - len(leaves))]
    interpret(closed, values, [None] * count, rule, CALLS)
    return [jnp.asarray(found[o] if isinstance(o, int) else o) for o in operands]


_OF_ROWS = object()  # stands for a value that is no constant
_SAME = {"copy", "copy_p", "name", "stop_gradient", "optimization_barrier", "reduce_precision"}
_SYNONYMS = {"add_any": "add", "expand_dims": "reshape", "squeeze": "reshape", "broadcast_in_dim": "reshape"}
_NAMES = {"f": "floats", "i": "int32", "b": "bools"}


def _size(aval: Any) -> int | None:
    """0 for a single number; None for what has several axes, of which those of length one do not count, or is empty."""
    count = math.prod(aval.shape)
    return 0 if count == 1 else count if count and count == max(aval.shape) else None


def _axis(aval: Any) -> int:
    """The axis along which the numbers of a vector lie."""
    return max(range(len(aval.shape)), key=aval.shape.__getitem__)


def _fill(eqn: Any, values: list[Any]) -> Any:
    """The number that a known result has in every place, where that is easily seen."""
    if eqn.primitive.name in ("broadcast_in_dim", "convert_element_type", "reshape") and len(values) == 1:
        fill = _fill_of(values[0])
        return None if fill is None else np.asarray(fill).astype(eqn.outvars[0].aval.dtype).item()
    return None


def _fill_of(value: Any) -> Any:
    if isinstance(value, _Known):
        return value.fill
    # Arrays of JAX are not waited for.
    single = np.size(value) == 1 and not isinstance(value, jax.Array)
    return np.asarray(value).item() if single else None


# Equations that are more than one instruction: `rule(tracer, equation, args, size, kind)` gives the node.

_Rule = Callable[[_Tracer, Any, list[Node], int, Kind], Node]


def _reshape(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    if args[0].size not in (0, size):
        raise Unsupported(f"primitive {eqn.primitive.name!r} to the shape {eqn.outvars[0].aval.shape}")
    return t.sized(args[0], size)


def _slice(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    axis, strides = _axis(eqn.invars[0].aval), eqn.params["strides"]
    if strides is not None and strides[axis] != 1:
        raise Unsupported("primitive 'slice' with strides")
    return t.part(args[0], eqn.params["start_indices"][axis], eqn.outvars[0].aval)


def _pad(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    low, high, inner = map(int, eqn.params["padding_config"][_axis(eqn.outvars[0].aval)])
    if inner or low < 0 or high < 0:
        raise Unsupported("primitive 'pad' between or inside")
    parts = [t.sized(args[1], n if n > 1 else 0) for n in (low, high) if n]
    return t.node("concat", (*parts[: low > 0], args[0], *parts[low > 0 :]), None, size, kind)


def _reduce(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    (a,) = args
    name = eqn.primitive.name
    if a.size == size:
        return a
    if name in ("reduce_or", "reduce_and"):
        number = t.pointwise("to_float", [a], a.size, "f")
        found = t.node("reduce_max" if name == "reduce_or" else "reduce_min", (number,), None, 0, "f")
        return t.pointwise("to_bool", [found], 0, "b")
    if kind != "f":
        raise Unsupported(f"primitive {name!r} of {_NAMES[kind]}")
    return t.node(name, (a,), None, 0, kind)


def _cumsum(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """As a product with a triangle of ones; a number that is not finite reaches all places."""
    if kind != "f" or not size:
        raise Unsupported(f"primitive 'cumsum' of {_NAMES[kind]}")
    ones = np.ones((size, size), eqn.outvars[0].aval.dtype)
    triangle = np.tril(ones) if eqn.params["reverse"] else np.triu(ones)
    return t.node("dot", (args[0],), t.matrix(triangle, triangle, transposed=False), size, kind)


def _integer_pow(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    """By squaring, as XLA does."""
    (base,), y = args, eqn.params["y"]
    result, exponent = t.literal(1, size, kind), abs(y)
    while exponent:
        result = t.pointwise("mul", [result, base], size, kind) if exponent % 2 else result
        exponent //= 2
        base = t.pointwise("mul", [base, base], size, kind) if exponent else base
    return result if y >= 0 else t.pointwise("div", [t.literal(1, size, kind), result], size, kind)


def _clamp(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    low, x, high = args
    return t.pointwise("min", [t.pointwise("max", [low, x], size, kind), high], size, kind)


def _select(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    if len(args) != 3 or args[0].kind != "b":
        raise Unsupported("primitive 'select_n' among more than two")
    return t.node("select", (args[0], args[2], args[1]), None, size, kind)


def _convert(t: _Tracer, eqn: Any, args: list[Node], size: int, kind: Kind) -> Node:
    return args[0] if args[0].kind == kind else t.pointwise(_CONVERSIONS[kind], args, size, kind)


_CONVERSIONS: dict[Kind, str] = {"f": "to_float", "i": "to_int", "b": "to_bool"}

_RULES: dict[str, _Rule] = {
    "clamp": _clamp,
    "concatenate": lambda t, eqn, args, size, kind: t.node("concat", tuple(args), None, size, kind),
    "convert_element_type": _convert,
    "cumsum": _cumsum,
    "integer_pow": _integer_pow,
    "one_minus_square": lambda t, eqn, args, size, kind: t.pointwise(
        "sub", [t.literal(1, size, kind), t.pointwise("mul", [args[0]] * 2, size, kind)], size, kind
    ),
    "pad": _pad,
    "reshape": _reshape,
    "select_n": _select,
    "slice": _slice,
    "square": lambda t, eqn, args, size, kind: t.pointwise("mul", [args[0]] * 2, size, kind),
    "transpose": lambda t, eqn, args, size, kind: args[0],
} | dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_or", "reduce_and"), _reduce)
