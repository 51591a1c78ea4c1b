"""Reads a function of one row as a graph of vectors.

`trace` runs a function of one row of a batch (one example at one time step) symbolically. Every value is then one of:

    Known     depends on the constants alone: JAX computes it once a run, and the loop reads it
    Node      a vector, or a scalar (size 0), that the loop computes for every row and step
    Outers    a sum of outer products of vectors: the derivative of a product with respect to its matrix

An equation whose inputs are all known gives known results, so weights are transposed, normalized and divided into heads
outside of the loop. What the loop has no code for raises `Unsupported`.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.jaxprs import CALLS, IDENTITIES, bind, interpret, operation
from jaxrnn.native.equations import EQUATIONS, MOST_TERMS, NAMES, is_vector
from jaxrnn.native.graph import Matrix, Node, Outer, Outers, Row, Spec, Unsupported
from jaxrnn.native.pointwise import POINTWISE
from jaxrnn.native.vectors import Kind
from jaxrnn.places import INDICES, PLACES, named
from jaxrnn.typing import Array, PyTree

__all__ = ["Tracer", "trace"]

LANES = 16  # of the longest vector


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
    return Tracer().row(fun, consts, carry, xs)


@dataclass(frozen=True)
class _Known:
    """The `number`-th known value; `fill`: the number that it has in every place; `flipped`: what it transposes."""

    number: int
    fill: Any = None
    flipped: "_Known | None" = None


_Value = Node | _Known | Outers


class Tracer:
    """Makes the nodes of a row."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.memo: dict[Any, Node] = {}
        self.dtype: Any = None
        self.count = 0  # of known values
        self.made: dict[int, tuple[Any, list[Any], int]] = {}  # which result of which equation, of what, a known one is
        self.operands: list[int | Array | np.ndarray] = []  # known values, by number, and arrays of the program
        self.indices: dict[Any, int] = {}  # of the operands
        self.specs: list[Spec] = []

    def row(self, fun: Callable[..., Any], consts: PyTree, carry: PyTree, xs: PyTree) -> Row:
        """Traces a function of one row into a graph."""
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
        # An output that is kept for the derivative, too, such as a state, is written once.
        ys = tuple(dict.fromkeys(rows[ends[0] :]))
        return Row(
            nodes=tuple(self.nodes),
            carry=tuple(rows[: ends[0]]),
            ys=ys,
            places=tuple(map(ys.index, rows[ends[0] :])),
            sums=sums,
            dtype=str(self.dtype or np.dtype("float32")),  # type: ignore[arg-type]
            constants=functools.partial(_constants, closed, len(given), self.needed(), self.operands),
            given=(self.specs, leaves[1], leaves[2]),
            results=results,
        )

    # values

    def known(self, **more: Any) -> _Known:
        """Makes a new known value."""
        self.count += 1
        return _Known(self.count - 1, **more)

    def needed(self) -> set[int]:
        """Returns the known values that the operands depend on."""
        needed, todo = set[int](), [o for o in self.operands if isinstance(o, int)]
        while todo:
            number = todo.pop()
            if number not in needed:
                needed.add(number)
                _, values, _ = self.made.get(number, (None, [], 0))
                todo += [v.number for v in values if isinstance(v, _Known)]
        return needed

    def numbers(self, value: Any) -> np.ndarray | None:
        """Returns indices that the program computes of its own arrays alone; None of other values."""
        if not isinstance(value, Node | _Known | tuple):
            return np.asarray(value)
        if not isinstance(value, _Known) or value.number not in self.made:
            return None
        eqn, values, i = self.made[value.number]
        rule, found = INDICES.get(eqn.primitive.name), [self.numbers(v) for v in values]
        if rule is None or any(array is None for array in found):
            return None
        results = rule(eqn, *found)
        return results[i] if isinstance(results, list) else results

    def node(self, op: str, args: tuple[Node, ...], attr: Any, size: int, kind: Kind) -> Node:
        """Returns the node, made once."""
        key = (op, args, repr(attr), size, kind)
        if key not in self.memo:
            self.memo[key] = Node(op, args, attr, size, kind, len(self.nodes))
            self.nodes.append(self.memo[key])
        return self.memo[key]

    def literal(self, number: Any, size: int, kind: Kind) -> Node:
        """Returns a number that stands in the program."""
        return self.node("lit", (), {"f": float, "i": int, "b": bool}[kind](number), size, kind)

    def form(self, aval: Any) -> tuple[int, Kind]:
        """Returns the size and kind of a node."""
        if (size := math.prod(aval.shape)) == 0:
            raise Unsupported(f"an empty array, of the shape {tuple(aval.shape)}")
        size = 0 if size == 1 else size
        if aval.dtype == bool or aval.dtype == np.int32:
            return size, "b" if aval.dtype == bool else "i"
        if aval.dtype not in (np.float32, np.float64):
            raise Unsupported(f"the dtype {aval.dtype}")
        if self.dtype not in (None, aval.dtype):
            raise Unsupported("float32 beside float64")
        self.dtype = aval.dtype
        return size, "f"

    def operand(self, value: Any, aval: Any) -> int:
        """Returns the index of an operand that holds a known value, or an array that stands in the program."""
        key: tuple[str, Any] = ("array", id(value))
        source = value
        if isinstance(value, _Known):
            source, key = value.number, ("known", value.number)
        elif isinstance(value, np.ndarray):
            key = ("numbers", (value.shape, value.dtype.str, value.tobytes()))
        if key not in self.indices:
            self.indices[key] = len(self.specs)
            self.operands.append(source)
            self.specs.append(Spec(aval.shape, aval.dtype))
        return self.indices[key]

    def read(self, value: Any, aval: Any) -> Node:
        """Returns a value as a node."""
        if isinstance(value, Node):
            return value
        if isinstance(value, tuple):
            raise Unsupported("an outer product that is not summed")
        size, kind = self.form(aval)
        if (fill := _fill_of(value)) is not None:
            return self.literal(fill, size, kind)
        return self.node("const", (), self.operand(value, aval), size, kind)

    def total(self, value: Any, aval: Any) -> Outers | Node | None:
        """Returns what is added up to a sum; None: nothing."""
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
        """Returns the results of an equation, for `interpret`: known ones stay known."""
        results: list[Any]
        if eqn.primitive.name in IDENTITIES:
            results = values
        elif any(isinstance(v, Node | tuple) for v in values):
            results = self.equation(eqn, values)
        else:
            flips = eqn.primitive.name == "transpose" and eqn.params["permutation"] == (1, 0)
            flipped = values[0] if flips else None
            results = [self.known(fill=_fill(eqn, values), flipped=flipped) for _ in eqn.outvars]
            self.made |= {known.number: (eqn, values, i) for i, known in enumerate(results)}
        return results, [None] * len(results)

    def equation(self, eqn: Any, values: list[Any]) -> list[_Value]:
        """Returns the results of an equation that the loop computes."""
        name = _SYNONYMS.get(operation(eqn), operation(eqn))
        avals = [v.aval for v in eqn.invars]
        if any(math.prod(v.aval.shape) == 0 for v in eqn.outvars):
            raise Unsupported(f"primitive {name!r} that gives an empty array")
        if any(isinstance(v, tuple) for v in values):
            return [self.of_outers(name, values, avals)]
        if name == "dot_general":
            return [self.dot(eqn, values)]
        if name == "dynamic_slice":
            return [self.look_up(eqn, values)]
        if name == "dynamic_update_slice":
            return [self.one_row(eqn, values)]
        if name in ("gather", "scatter", "scatter-add") and (at := self.numbers(values[1])) is not None:
            return [self.at_places(eqn, values, at)]
        args = [self.read(v, a) for v, a in zip(values, avals, strict=True)]
        if name in PLACES:
            places = np.split(np.arange(sum(a.size for a in avals)), np.cumsum([a.size for a in avals])[:-1])
            given = [p.reshape(a.shape) for p, a in zip(places, avals, strict=True)]
            results = PLACES[name](eqn, *given)
            return [self.arrange(args, r.ravel()) for r in (results if isinstance(results, list) else [results])]
        result = eqn.outvars[0].aval
        if rule := EQUATIONS.get(name):
            return [rule(self, eqn, args, *self.form(result))]
        if (name, args[-1].kind) in POINTWISE:
            args = [self.spread(a, v, result) for a, v in zip(args, avals, strict=True)]
        return [self.pointwise(name, args, *self.form(result))]

    def pointwise(self, name: str, args: list[Node], size: int, kind: Kind) -> Node:
        """Returns the node of a primitive that acts place by place."""
        if name in ("mul", "div") and args[1].op == "lit" and args[1].attr == 1 and args[0].size == size:
            return args[0]
        if name == "mul" and args[0].op == "lit" and args[0].attr == 1 and args[1].size == size:
            return args[1]
        if (name, args[-1].kind) not in POINTWISE:
            raise Unsupported(f"primitive {name!r}" + (kind != "f") * f" of {NAMES[args[-1].kind]}")
        if not all(a.size in (0, size) for a in args):
            raise Unsupported(f"primitive {name!r} of arrays of several sizes")
        if name == "add" and kind == "f" and all(a.op == "concat" for a in args) and (joined := self.joined(*args)):
            return joined
        return self.node(name, tuple(args), None, size, kind)

    def joined(self, left: Node, right: Node) -> Node | None:
        """Adds vectors that are zero by turns, such as the gates' derivatives, each padded to all gates' size, as one.

        None: where neither is zero, their pieces don't have the same ends.
        """
        (of_left, at_left), (of_right, at_right) = _pieces(left), _pieces(right)
        ends = sorted({*at_left, *at_right})
        pieces: list[Node] = []
        for start, end in itertools.pairwise([0, *ends]):
            a, b = (of[bisect.bisect(at, start)] for of, at in ((of_left, at_left), (of_right, at_right)))
            if _is_zero(a) and _is_zero(b):
                pieces.append(self.part(a, 0, end - start))
                continue
            whole = b if _is_zero(a) else a
            if any(max(n.size, 1) != end - start for n in (a, b) if not _is_zero(n)):
                return None
            pieces.append(whole if _is_zero(a) or _is_zero(b) else self.pointwise("add", [a, b], a.size, "f"))
        return self.node("concat", tuple(pieces), None, left.size, "f")

    def arrange(self, sources: list[Node], table: np.ndarray) -> Node:
        """Returns the vector of the places in `table`, counted over all sources, which follow each other.

        It is made of a few pieces, each a part of a source or one number many times, or place by place.
        """
        starts = np.cumsum([0, *[max(n.size, 1) for n in sources]])
        sources = sources[: int(np.searchsorted(starts, table.max(), "right"))]
        if len({n.attr if n.op == "lit" else n for n in sources}) == 1 and sources[0].op == "lit":
            return self.sized(sources[0], len(table))
        pieces: list[Node] = []
        place, kind = 0, sources[0].kind
        ends = [np.append(np.flatnonzero(np.diff(table) != step) + 1, len(table)) for step in (0, 1)]
        while place < len(table) and len(pieces) <= len(sources) + 4:
            first = table[place]
            index = int(np.searchsorted(starts, first, "right")) - 1
            alike, rising = (int(end[np.searchsorted(end, place, "right")]) - place for end in ends)
            rising = min(rising, int(starts[index + 1] - first))
            piece = self.part(sources[index], int(first - starts[index]), rising if rising >= alike else 1)
            pieces.append(piece if rising >= alike else self.sized(piece, alike))
            place += max(alike, rising)
        if place == len(table) and (len(pieces) <= len(sources) or len(table) >= 8 * len(pieces)):
            size = 0 if len(table) == 1 else len(table)
            return pieces[0] if len(pieces) == 1 else self.node("concat", tuple(pieces), None, size, kind)
        source = sources[0]
        if len(sources) > 1:
            source = self.node("concat", tuple(sources), None, int(starts[len(sources)]), kind)
        # Behind the table there is room for a vector that begins in its last place.
        padded = np.append(table, np.zeros(LANES, table.dtype)).astype(np.int32)
        return self.node("take", (self.stored(source),), self.operand(padded, padded), len(table), kind)

    def at_places(self, eqn: Any, values: list[Any], at: np.ndarray) -> Node:
        """Reads, writes or adds to places that the program names."""
        name, aval = eqn.primitive.name, eqn.invars[0].aval
        size, kind = self.form(aval)
        array, *new = (self.read(v, e.aval) for v, e in zip(values[::2], eqn.invars[::2], strict=True))
        places = named(eqn, at).ravel()
        order = np.flatnonzero(places >= 0)
        if name == "gather":
            fill = eqn.params["fill_value"]
            fill = {"f": math.nan, "i": -(2**31), "b": True}[kind] if fill is None else fill
            return self.arrange([array, self.literal(fill, 0, kind)], np.where(places < 0, aval.size, places))
        if name == "scatter":
            if eqn.params["update_jaxpr"]:
                raise Unsupported(f"primitive {name!r} of a function")
            table = np.arange(aval.size)
            table[places[order]] = aval.size + order
            return self.arrange([array, *new], table)
        if kind != "f" or np.bincount(places[order], minlength=1).max() > MOST_TERMS:
            raise Unsupported(f"primitive {name!r} of {NAMES[kind]}, {len(order)} at {len(set(places[order]))} places")
        while order.size:  # where a place is named several times, one number after the other
            at_once, first = np.unique(places[order], return_index=True)
            table = np.full(aval.size, len(places))
            table[at_once] = order[first]
            more = self.arrange([*new, self.literal(0, 0, kind)], table)
            array = more if _is_zero(array) else self.pointwise("add", [array, more], size, kind)
            order = np.delete(order, first)
        return array

    def spread(self, node: Node, aval: Any, result: Any) -> Node:
        """An argument of a primitive that acts place by place, for which axes of length one are as long as needed."""
        if not node.size or aval.shape == result.shape:
            return node
        places = np.broadcast_to(np.arange(node.size).reshape(aval.shape), result.shape)
        return self.arrange([node], places.ravel())

    def part(self, vector: Node, start: int, count: int) -> Node:
        """Returns so many places of a vector from `start` on."""
        size = 0 if count == 1 else count
        if vector.op == "lit":
            return self.literal(vector.attr, size, vector.kind)
        if vector.size in (0, size):
            return vector
        vector = vector if size else self.stored(vector)
        return self.node("slice" if size else "pick", (vector,), start, size, vector.kind)

    def stored(self, vector: Node) -> Node:
        """Returns a vector that lies in memory as it is."""
        return self.node("copy", (vector,), None, vector.size, vector.kind) if vector.op == "take" else vector

    def sized(self, node: Node, count: int) -> Node:
        """Repeats a scalar in so many places."""
        size = 0 if count == 1 else count
        if node.op == "lit":
            return self.literal(node.attr, size, node.kind)
        return node if node.size == size else self.node("splat", (node,), None, size, node.kind)

    def dot(self, eqn: Any, values: list[Any]) -> _Value:
        """Computes a product of floats: of a vector with a known matrix, of two vectors, or an outer product."""
        if any(self.form(v.aval)[1] != "f" for v in (*eqn.invars, *eqn.outvars)):
            raise Unsupported(f"primitive 'dot_general' of {eqn.invars[0].aval.dtype}")
        (left_axes, right_axes), batch = eqn.params["dimension_numbers"]
        left, right = (v.aval for v in eqn.invars)
        if any(batch):
            raise Unsupported("primitive 'dot_general' over a batch")
        for (value, aval, axes), (vector, row) in (
            ((values[1], right, right_axes), (values[0], left)),
            ((values[0], left, left_axes), (values[1], right)),
        ):
            if not isinstance(value, Node) and aval.ndim == 2 and min(aval.shape) > 1:
                if not is_vector(row) or len(axes) != 1:
                    break
                matrix = self.matrix(value, aval, transposed=axes[0] == 1)
                left_side = self.stored(self.read(vector, row))
                return self.node("dot", (left_side,), matrix, *self.form(eqn.outvars[0].aval))
        if not (is_vector(left) and is_vector(right)):
            raise Unsupported(f"a product of the shapes {left.shape} and {right.shape}")
        a, b = self.read(values[0], left), self.read(values[1], right)
        contracted = math.prod(left.shape[axis] for axis in left_axes)
        if contracted > 1:
            product = self.node("mul", (a, b), None, a.size, "f")
            return self.node("reduce_sum", (product,), None, 0, "f")
        if a.size and b.size:
            return (Outer(a, b),)
        return self.pointwise("mul", [a, b], a.size or b.size, "f")

    def look_up(self, eqn: Any, values: list[Any]) -> Node:
        """Returns a row of a matrix."""
        aval, sizes = eqn.invars[0].aval, eqn.params["slice_sizes"]
        if isinstance(values[0], Node) or aval.ndim != 2 or sizes != (1, aval.shape[1]):
            raise Unsupported("primitive 'dynamic_slice' but of a row of a constant")
        matrix = Matrix(self.operand(values[0], aval), aval.shape, transposed=False)
        return self.node("row", (self.read(values[1], eqn.invars[1].aval),), matrix, *self.form(eqn.outvars[0].aval))

    def one_row(self, eqn: Any, values: list[Any]) -> Outers:
        """Zeros but for a row: the derivative of `look_up`."""
        (zeros, row, *_), avals = values, [v.aval for v in eqn.invars]
        zero = not isinstance(zeros, Node | tuple) and _fill_of(zeros) == 0
        if not zero or avals[0].ndim != 2 or avals[1].shape != (1, avals[0].shape[1]):
            raise Unsupported("primitive 'dynamic_update_slice' but of a row of zeros")
        return (Outer(self.read(values[2], avals[2]), self.read(row, avals[1])),)

    def matrix(self, value: Any, aval: Any, transposed: bool) -> Matrix:
        """Returns a known matrix; one that is a transpose is read from what it transposes."""
        shape = aval.shape
        if isinstance(value, _Known) and value.flipped is not None:
            value, shape, transposed = value.flipped, shape[::-1], not transposed
        self.form(Spec((), aval.dtype))
        return Matrix(self.operand(value, Spec(shape, aval.dtype)), shape, transposed)

    def of_outers(self, name: str, values: list[Any], avals: list[Any]) -> Outers:
        """Applies linear functions to sums of outer products."""

        def scaled(outers: Outers, name: str, *by: Node) -> Outers:
            return tuple(Outer(o.left, self.pointwise(name, [o.right, *by], o.right.size, "f")) for o in outers)

        sums = [isinstance(v, tuple) for v in values]
        if name == "transpose" and all(o.left.size for o in values[0]):
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
        if eqn.primitive.name in IDENTITIES:
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


def _pieces(concat: Node) -> tuple[tuple[Node, ...], list[int]]:
    """What a vector is made of, and where each piece ends."""
    return concat.args, list(itertools.accumulate(max(n.size, 1) for n in concat.args))


def _is_zero(node: Node) -> bool:
    return node.op == "lit" and node.attr == 0


_OF_ROWS = object()  # stands for a value that is no constant
_SYNONYMS = {"add_any": "add"}


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
