"""Evaluates functions equation by equation, so that an equation can be carried out in a better way, or looked at."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import (
    ClosedJaxpr,
    DebugInfo,
    Jaxpr,
    Literal,
    Primitive,
    concrete_or_error,
    jaxpr_as_fun,
    jaxprs_in_params,
)
from jax.interpreters import ad, batching, mlir

from jaxrnn.typing import Array

__all__ = [
    "CALLS",
    "IDENTITIES",
    "JIT",
    "LENGTH",
    "NUMBER",
    "RESHAPES",
    "any_equation",
    "as_function",
    "bind",
    "clip_cotangent",
    "control_flow",
    "count_loop_products",
    "depends",
    "evaluate",
    "flat_products",
    "has_products",
    "inline",
    "interpret",
    "is_known",
    "is_matrix_product",
    "is_product",
    "mixer",
    "new_primitive",
    "operation",
    "part",
    "sliced",
    "sources",
    "split",
    "tags_of",
    "variables",
    "without_closure",
]

_DEBUG_INFO = DebugInfo("jaxrnn", "one equation", None, None)
JIT = frozenset({"jit", "pjit"})
CALLS = JIT | {"closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat", "remat2"}
"""Primitives that carry out a jaxpr once; all but `JIT` say something about its derivative or memory."""
IDENTITIES = frozenset({"copy", "name", "optimization_barrier", "stop_gradient"})
"""Primitives whose results are their operands; the derivative of a "stop_gradient" is zero."""
RESHAPES = frozenset({"broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose"})
RESHAPES |= {"pcast", "pvary", "reshard", "sharding_constraint"}
"""Primitives that give the numbers of their operand another shape, dtype or place on a mesh."""
Rule = Callable[[Any, list[Any], list[Any]], tuple[Iterable[Any], Iterable[Any]]]


def interpret(
    closed: ClosedJaxpr, values: Iterable[Any], tags: Iterable[Any], rule: Rule, inlined: frozenset[str] = JIT
) -> tuple[list[Any], list[Any]]:
    """Evaluates a jaxpr with a tag beside every value: `(results, their tags)`. Calls in `inlined` are inlined.

    `rule(equation, values, tags)` returns the results of an equation and their tags. Values may be placeholders if the
    rule only looks at tags. Constants and literals have the tag None.
    """
    jaxpr = closed.jaxpr
    found = dict(zip(jaxpr.constvars, ((c, None) for c in closed.consts), strict=True))
    found |= zip(jaxpr.invars, zip(values, tags, strict=True), strict=True)

    def read(variables: list[Any]) -> tuple[list[Any], list[Any]]:
        pairs = [(v.val, None) if isinstance(v, Literal) else found[v] for v in variables]
        return [value for value, _ in pairs], [tag for _, tag in pairs]

    for eqn in jaxpr.eqns:
        is_call = operation(eqn) in inlined
        given = read(eqn.invars)
        pair: Any = interpret(_callee(eqn), *given, rule, inlined) if is_call else rule(eqn, *given)
        found |= zip(eqn.outvars, zip(*pair, strict=True), strict=True)
    return read(jaxpr.outvars)


def is_known(value: Any) -> bool:
    """Returns whether a value is there: it is no part of a program that is being made, and no row of a `jax.vmap`."""
    try:
        concrete_or_error(None, value)
    except jax.errors.ConcretizationTypeError:
        return False
    return True


def operation(eqn: Any) -> str:
    """Returns the name of an equation's primitive, or of a function of JAX's own that works on bits: "exp_neg_sq".

    From JAX 0.12 on it is called in the derivatives of erf and erfc: exp(-x²), exact where it is small, too.
    """
    name = eqn.primitive.name
    source = eqn.params["call_jaxpr"].jaxpr.debug_info.func_src_info if name == "custom_jvp_call" else ""
    return "exp_neg_sq" if source.startswith("exp_neg_sq at ") and "_src" in source else name


def _callee(eqn: Any) -> ClosedJaxpr:
    """Returns the jaxpr that a call carries out."""
    found = next(p for p in eqn.params.values() if isinstance(p, Jaxpr | ClosedJaxpr))
    return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, [])


def evaluate(closed: ClosedJaxpr, args: Iterable[Any], rule: Callable[[Any, list[Any]], Iterable[Any]]) -> list[Any]:
    """Evaluates a jaxpr where `rule(equation, values)` returns the results of an equation."""
    args = list(args)
    return interpret(closed, args, [None] * len(args), lambda e, v, _: (rule(e, v), [None] * len(e.outvars)))[0]


def as_function(closed: ClosedJaxpr) -> Callable[..., list[Any]]:
    """Returns the jaxpr as a function of its leaves."""
    return jaxpr_as_fun(closed)


def inline(closed: ClosedJaxpr) -> ClosedJaxpr:
    """Returns the jaxpr with the equations of calls in place of the calls, and of equal equations only the first."""
    found: dict[Any, tuple[list[Any], list[Any]]] = {}  # with what an equation read, so that no other value has its id

    def name(value: Any) -> Any:
        if np.ndim(value) or isinstance(value, jax.Array):  # tracers, too
            return id(value)
        number = np.asarray(value)
        return type(value), number.dtype, number.tobytes()

    def rule(eqn: Any, values: list[Any], _: Any) -> tuple[list[Any], list[None]]:
        key = eqn.primitive, *map(name, values), *eqn.params.items(), *(v.aval for v in eqn.outvars)
        try:
            known = found.get(key)
        except TypeError:  # parameters that do not hash
            return bind(eqn, values), [None] * len(eqn.outvars)
        _, results = known or found.setdefault(key, (values, bind(eqn, values)))
        return results, [None] * len(results)

    def flat(*args: Any) -> list[Any]:
        return interpret(closed, args, [None] * len(args), rule, CALLS)[0]

    return jax.make_jaxpr(flat)(*closed.in_avals)


def part(
    closed: ClosedJaxpr, results: list[Any], given: Callable[[Any], bool]
) -> tuple[list[Any], Callable[..., list[Any]]]:
    """Returns a part of a jaxpr as `(reads, function)`: `function(*values of reads)` gives the values of `results`.

    The part goes back from the variables `results` to those for which `given` holds, or that no equation computes.
    """
    needed = dict.fromkeys(variables(results))
    equations: list[Any] = []
    for eqn in reversed(closed.jaxpr.eqns):
        if any(v in needed and not given(v) for v in eqn.outvars):
            equations.insert(0, eqn)
            needed |= dict.fromkeys(variables(eqn.invars))
    computed = {v for eqn in equations for v in eqn.outvars if not given(v)}
    reads = [v for v in needed if v not in computed]
    jaxpr = closed.jaxpr.replace(constvars=[], invars=reads, outvars=results, eqns=equations, debug_info=_DEBUG_INFO)
    return reads, jaxpr_as_fun(ClosedJaxpr(jaxpr, []))


def tags_of(
    closed: ClosedJaxpr, tags: Iterable[Any], kind: Callable[[Any, list[Any]], Any], inlined: frozenset[str] = JIT
) -> list[Any]:
    """Returns tags of a jaxpr's results; `kind(equation, tags of what it reads)` is that of an equation's results."""
    tags = list(tags)

    def rule(eqn: Any, _: Any, tags: list[Any]) -> tuple[list[None], list[Any]]:
        return [None] * len(eqn.outvars), [kind(eqn, tags)] * len(eqn.outvars)

    return interpret(closed, tags, tags, rule, inlined)[1]


def depends(closed: ClosedJaxpr, flags: Iterable[Any]) -> list[bool]:
    """Returns which results of a jaxpr depend on flagged arguments."""
    return [bool(flag) for flag in tags_of(closed, flags, lambda eqn, flags: any(flags))]


def sources(closed: ClosedJaxpr) -> list[int | None]:
    """Returns for each result of a jaxpr which argument it is, None if it is computed."""
    return tags_of(closed, range(len(closed.jaxpr.invars)), lambda eqn, numbers: None)


def control_flow(closed: ClosedJaxpr, flags: Iterable[Any]) -> str:
    """Returns the name of a loop or a branch that depends on flagged arguments, empty if there is none."""
    found: list[str] = []

    def kind(eqn: Any, flags: list[Any]) -> bool:
        if (flag := any(flags)) and eqn.primitive.name in ("scan", "while", "cond"):
            found.append(eqn.primitive.name)
        return flag

    tags_of(closed, flags, kind, CALLS)
    return found[0] if found else ""


LENGTH = 997
"""Of an axis, as hardly another one has it."""

NUMBER = "how many there are"
"""What `mixer` names where no operation mixes places, but a number or an array depends on their number."""


def mixer(program: Callable[..., ClosedJaxpr]) -> str:
    """Returns what mixes places along leading axes of the arguments of a program, empty if places are kept apart.

    `program(*lengths)` is the program for such axes. What mixes is an operation, by its name, or `NUMBER`. An operation
    keeps places apart if what it makes of them has one such axis as well, along which it does not go on from place to
    place. One that makes such an axis of nothing, but by repeating what it has, may give each place something else.
    """
    # Some other axis might be as long as the leading one, but not for two lengths.
    name = _mixes(program(LENGTH), LENGTH)
    if name and _mixes(program(LENGTH + 12), LENGTH + 12):
        return name
    return "" if _numbers(program(LENGTH)) == _numbers(program(1, LENGTH + 12)) else NUMBER


def _mixes(closed: ClosedJaxpr, size: int) -> str:
    """Returns the name of an operation that mixes places along the axes of length `size`, empty if there is none."""
    found: list[str] = []

    def rule(eqn: Any, _: Any, tags: list[Any]) -> tuple[list[None], list[None]]:
        name = eqn.primitive.name
        given = any(size in v.aval.shape for v in eqn.invars)
        if given:
            along = np.atleast_1d(eqn.params[_ALONG[name]]) if name in _ALONG else ()
            lost = any(v.aval.shape.count(size) != 1 for v in eqn.outvars)
            mixes = lost or any(eqn.invars[0].aval.shape[axis] == size for axis in along)
        elif name == "iota":
            mixes = eqn.params["shape"][eqn.params["dimension"]] == size
        else:
            mixes = name != "broadcast_in_dim" and any(size in v.aval.shape for v in eqn.outvars)
        if mixes:
            found.append(name)
        return [None] * len(eqn.outvars), [None] * len(eqn.outvars)

    nothing = [None] * len(closed.jaxpr.invars)
    interpret(closed, nothing, nothing, rule, CALLS)
    return found[0] if found else ""


def _numbers(closed: ClosedJaxpr) -> set[Any]:
    """The numbers that a program computes with, and its constant arrays."""
    found = set[Any]()

    def add(value: Any) -> None:
        shape, known = np.shape(value), None
        if not isinstance(value, jax.core.Tracer) and np.size(value) <= MOST_NUMBERS:
            known = np.asarray(value).tobytes()
            one = known[: jnp.result_type(value).itemsize]
            if known == one * np.size(value):  # one number, however often
                shape, known = (), one
        found.add((shape, jnp.result_type(value), known))

    def look(closed: ClosedJaxpr) -> None:
        for value in closed.consts:
            add(value)
        for eqn in closed.jaxpr.eqns:
            for v in eqn.invars:
                if isinstance(v, Literal):
                    add(v.val)
            for inner in jaxprs_in_params(eqn.params):
                look(ClosedJaxpr(inner, []))

    look(closed)
    return found


MOST_NUMBERS = 2**20
"""Of a constant whose values are compared; of larger ones the shape is."""

_ALONG = dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), "axis") | {
    "rev": "dimensions",
    "sort": "dimension",
}
"""Operations that go on from place to place, and the parameter that names the axes."""


def split(
    closed: ClosedJaxpr, tags: list[Any], kind: Callable[[Any, list[Any]], Any], early: Any, late: Any
) -> tuple[Callable[[list[Any]], list[Array]], Callable[[list[Any], list[Array]], list[Array]]] | None:
    """Divides a jaxpr in two: `rest(args, ahead(args))` are its results, with args None where a part reads none.

    `kind(equation, tags of what it reads)` is the tag of an equation's results. `ahead` computes all but those of the
    kind `late`, and returns those of the kind `early` that the rest reads, arguments with this tag included; None if
    there are none.
    """

    def run(values: list[Any], rule: Callable[..., list[Any]]) -> tuple[list[Any], list[Any]]:
        """Interprets by `rule(eqn, values, tags, kind, numbers)`; arguments and results of equations have numbers."""
        count = itertools.count(len(tags))

        def numbered(eqn: Any, values: list[Any], tags: list[Any]) -> tuple[list[Any], list[Any]]:
            found, numbers = kind(eqn, tags), [next(count) for _ in eqn.outvars]
            return rule(eqn, values, tags, found, numbers), [found] * len(numbers)

        return interpret(closed, values, tags, numbered)

    needed: dict[int, None] = {}

    def look(eqn: Any, values: list[Any], tags: list[Any], found: Any, numbers: list[int]) -> list[Any]:
        if found != early:
            needed.update((v, None) for v, tag in zip(values, tags, strict=True) if tag == early)
        return numbers

    results, found = run(list(range(len(tags))), look)
    needed |= {number: None for number, tag in zip(results, found, strict=True) if tag == early}
    if not needed:
        return None

    def ahead(args: list[Any]) -> list[Array]:
        known: dict[int, Any] = dict(enumerate(args))

        def compute(eqn: Any, values: list[Any], tags: list[Any], found: Any, numbers: list[int]) -> list[Any]:
            results: list[Any] = [None] * len(numbers) if found == late else bind(eqn, values)
            known.update(zip(numbers, results, strict=True))
            return results

        run(args, compute)
        return [known[number] for number in needed]

    def rest(args: list[Any], given: list[Array]) -> list[Array]:
        known = dict(zip(needed, given, strict=True))
        args = [known.get(i) if tag == early else a for i, (a, tag) in enumerate(zip(args, tags, strict=True))]

        def compute(eqn: Any, values: list[Any], tags: list[Any], found: Any, numbers: list[int]) -> list[Any]:
            return [known.get(number) for number in numbers] if found == early else bind(eqn, values)

        return run(args, compute)[0]

    return ahead, rest


def variables(atoms: Iterable[Any]) -> list[Any]:
    """Returns those of an equation's operands, or of a jaxpr's results, that are not literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def bind(eqn: Any, values: list[Any]) -> list[Any]:
    """Returns the results of one equation, as it stands."""
    inputs = {v: value for v, value in zip(eqn.invars, values, strict=True) if not isinstance(v, Literal)}
    jaxpr = Jaxpr(
        constvars=[], invars=list(inputs), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects, debug_info=_DEBUG_INFO
    )
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, []))(*inputs.values())


def without_closure(fun: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Turns traced values that `fun` closes over into arguments: `fun(*args) = opened(captured, *args)`.

    A custom derivative sees only its arguments, so every traced value must be one of them.
    """
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
    consts, tree = closed.consts, jax.tree.structure(shape)
    traced = [isinstance(c, jax.core.Tracer) for c in consts]
    if not any(traced):
        return lambda captured, *args: fun(*args), []
    known = [None if t else c for t, c in zip(traced, consts, strict=True)]

    def opened(captured: list[Any], *args: Any) -> Any:
        new = iter(captured)
        values = [next(new) if t else k for t, k in zip(traced, known, strict=True)]
        return jax.tree.unflatten(tree, evaluate(ClosedJaxpr(closed.jaxpr, values), jax.tree.leaves(args), bind))

    return opened, [c for t, c in zip(traced, consts, strict=True) if t]


def flat_products(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Merges the row axes of products `[*rows, K] @ [K, N]` in `fun`, and splits by slices; the result is the same.

    The derivative of such a product with respect to the matrix then contracts one axis, which takes two thirds of the
    time of contracting several on the CPU. Other machines gain nothing. Row axes must not be merged where they may be
    sharded, among several devices. Why slices: see `sliced`.
    """
    if jax.default_backend() != "cpu":
        return fun
    merges = jax.device_count() == 1

    def flat(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
        results = evaluate(closed, jax.tree.leaves(args), functools.partial(_flat_rule, merges))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return flat


def _flat_rule(merges: bool, eqn: Any, values: list[Any]) -> list[Any]:
    merges = merges and is_matrix_product(eqn) and values[0].ndim > 2
    if merges and not any(jax.typeof(values[0]).sharding.spec):
        rows, matrix = values
        params = eqn.params | {"dimension_numbers": (((1,), (0,)), ((), ()))}
        product = lax.dot_general(rows.reshape(-1, rows.shape[-1]), matrix, **params)
        return [product.reshape(*rows.shape[:-1], matrix.shape[1])]
    if eqn.primitive.name == "split":
        return sliced(values[0], **eqn.params)
    return bind(eqn, values)


def sliced(x: Array, sizes: Sequence[int], axis: int) -> list[Array]:
    """Splits by slices.

    The transpose of a split concatenates the cotangents of the parts. XLA's CPU compiler up to jaxlib 0.10.2 fills such
    a concatenation with wrong values at some sizes on CPUs with AVX-512, in a loop and outside of one. The transpose of
    a slice pads, and the padded parts add up.
    """
    ends = list(itertools.accumulate(sizes))
    return [lax.slice_in_dim(x, a, b, axis=axis) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def is_matrix_product(eqn: Any) -> bool:
    """Returns whether an equation is a product `[*rows, K] @ [K, N]`."""
    if eqn.primitive.name != "dot_general":
        return False
    rows, matrix = (v.aval.ndim for v in eqn.invars)
    return matrix == 2 and eqn.params["dimension_numbers"] == (((rows - 1,), (0,)), ((), ()))


def is_product(eqn: Any) -> bool:
    """Returns whether an equation is a matrix product or a convolution."""
    return eqn.primitive.name in ("dot_general", "conv_general_dilated")


def has_products(eqn: Any) -> bool:
    """Returns whether an equation, such as a loop, has products inside."""
    return any(any_equation(jaxpr, is_product) for jaxpr in jaxprs_in_params(eqn.params))


def any_equation(jaxpr: Any, holds: Callable[[Any], bool]) -> bool:
    """Returns whether something holds for an equation of a jaxpr, or of those within its equations."""
    return any(holds(e) or any(any_equation(inner, holds) for inner in jaxprs_in_params(e.params)) for e in jaxpr.eqns)


def count_loop_products(closed: ClosedJaxpr) -> int:
    """Returns how many products there are in the bodies of the loops of a program, and of loops within them."""

    def count(eqn: Any, looped: bool) -> int:
        inner = [e for jaxpr in jaxprs_in_params(eqn.params) for e in jaxpr.eqns]
        looped_inner = looped or eqn.primitive.name in ("scan", "while")
        return looped * is_product(eqn) + sum(count(e, looped_inner) for e in inner)

    return sum(count(eqn, False) for eqn in closed.jaxpr.eqns)


def clip_cotangent(x: Array, limit: float) -> Array:
    """Returns `x`; its cotangent is clipped to ±`limit`, while tangents pass unchanged."""
    return _clip_cotangent.bind(x, limit=float(limit))


def new_primitive(name: str) -> Primitive:
    """Returns an operation of several results, without any rule yet."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    return primitive


# The identity, as a linear map whose transpose clips: reverse mode is made of transposes, so it takes a primitive.
_clip_cotangent = Primitive("clip_cotangent")
_clip_cotangent.def_impl(lambda x, *, limit: x)
_clip_cotangent.def_abstract_eval(lambda x, *, limit: x)
ad.deflinear2(_clip_cotangent, lambda ct, x, *, limit: [jnp.clip(ct, -limit, limit)])
batching.defvectorized(_clip_cotangent)
mlir.register_lowering(_clip_cotangent, mlir.lower_fun(lambda x, *, limit: x, multiple_results=False))
