"""Parameters with the description of their cell in one file of the safetensors format, which holds no code.

Arrays have the names of the parameters, "w_x", "0.forward.w_h" in a network. The metadata have the cell as JSON under
"jaxrnn". PyTorch's and Hugging Face's tools read the arrays as they read any.
"""

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrnn.checks import check_installed, check_params
from jaxrnn.convert.arrays import to_jax
from jaxrnn.convert.description import Known, build, check_sizes, describe
from jaxrnn.engine.layer import Layer, check_layer
from jaxrnn.typing import Params

__all__ = ["from_safetensors", "to_safetensors"]

_KEY, _VERSION = "jaxrnn", 1


def to_safetensors(
    cell: Layer,
    params: Params,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    known: Known = (),
) -> None:
    """Writes parameters and the description of their cell to a file.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        cell: any cell or network.
        params: its parameters, or a tree of them such as an average.
        path: of the file, by convention "….safetensors".
        metadata: further strings by name, such as a vocabulary.
        known: classes and functions of one's own that the cell has; `from_safetensors` needs them, too.

    Raises:
        ModuleNotFoundError: the package safetensors is not installed.
        TypeError: `cell` is no cell, or `params` are not its parameters.
        ValueError: the cell has a function or a class without a name for the file.

    Example:
        >>> import tempfile
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> path = Path(tempfile.mkdtemp()) / "gru.safetensors"
        >>> to_safetensors(cell, cell.init(jax.random.key(0)), path)
        >>> from_safetensors(path)[0]
        GRU(input_size=3, hidden_size=4)
    """
    check_installed("safetensors")
    from safetensors.numpy import save

    check_layer(cell)
    check_params(cell, params)
    if metadata and (reserved := {_KEY, "format"} & metadata.keys()):
        raise ValueError(f"metadata: got {sorted(reserved)}, which the file has itself")
    header = json.dumps({"version": _VERSION, "cell": describe(cell, known)})
    arrays = {name: np.ascontiguousarray(array) for name, array in _by_name(params).items()}
    data = save(arrays, {**(metadata or {}), "format": "flax", _KEY: header})
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def from_safetensors(path: str | os.PathLike[str], *, known: Known = ()) -> tuple[Layer, Params]:
    """Reads a cell and its parameters from a file of `to_safetensors`.

    Nothing in a file is executed: the description names cells and functions, and what is neither jaxrnn's nor in
    `known` is an error. Arrays are checked against the cell before they are made, and sizes against the file before the
    cell is.

    Args:
        path: of the file.
        known: classes and functions of one's own that the cell may have.

    Raises:
        ModuleNotFoundError: the package safetensors is not installed.
        OSError: the file cannot be read.
        ValueError: the file is cut off or damaged, has no description or one that is not known, or arrays of other
            names, shapes or dtypes.
    """
    check_installed("safetensors")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise ValueError(f"{path}: got a file without the description of a cell, needs one of to_safetensors")
            elements = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
            cell = _cell(path, metadata[_KEY], known, elements)
            spec = _spec(path, cell)
            needed, found = _by_name(spec), set(file.keys())
            if found != needed.keys():
                raise ValueError(f"{path}: got the names {sorted(found)}, {cell} needs {sorted(needed)}")
            for name, want in needed.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != want.shape:
                    raise ValueError(f"{path}: {name}: got the shape {shape}, {cell} needs {want.shape}")
            arrays = {name: to_jax(name, file.get_tensor(name)) for name in needed}
        params = jax.tree.unflatten(jax.tree.structure(spec), list(arrays.values()))
        try:
            check_params(cell, params)
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from error
    except SafetensorError as error:
        raise ValueError(f"{path}: got no whole file of the safetensors format: {error}") from error
    except RecursionError as error:  # from the methods of a cell around a cell around a cell …
        raise ValueError(f"{path}: the description of the cell: got cells that are nested too deep") from error
    return cell, params


def _cell(path: Any, text: str, known: Known, elements: int) -> Layer:
    try:
        header = json.loads(text)
        if not isinstance(header, dict) or header.keys() != {"version", "cell"}:
            raise ValueError(f"got {text[:80]!r}, needs a version and a cell")
        if header["version"] != _VERSION:
            raise ValueError(f"got version {header['version']}, this jaxrnn reads version {_VERSION}")
        check_sizes(header["cell"], elements)
        return build(header["cell"], known)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the description of the cell: {error}") from error


def _spec(path: Any, cell: Layer) -> Params:
    """Returns the shapes of the cell's parameters; nothing of these sizes is made."""
    try:
        return jax.eval_shape(cell.init, jax.random.key(0))
    except Exception as error:  # of sizes that no cell expects
        raise ValueError(f"{path}: {cell} has no parameters: {error}") from error


def _by_name(params: Params) -> dict[str, Any]:
    """Returns the leaves by path: `{"w_x": ..., "0.forward.w_h": ...}`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "params": leaf for path, leaf in leaves}
