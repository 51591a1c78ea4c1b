"""How XLA hands a kernel its buffers: the memory layout of its foreign function interface, and the code that reads it.

XLA calls `handler(frame)`. The frame points at the arguments' and the results' buffers and at a table of XLA's own
functions. Numbers are bytes from the start of the struct named. jaxlib brings the header that they come from,
`xla/ffi/api/c_api.h`; `mismatch` reads it, so that a jaxlib with another layout is noticed before a kernel runs.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path

import jax

from jaxrnn.native.vectors import Fn, Index

__all__ = [
    "LAYOUT",
    "argument",
    "begin",
    "compare",
    "data",
    "dim",
    "header",
    "mismatch",
    "result",
    "schedule",
    "version",
]

# Most structs
EXTENSION = 8  # not null in a frame where XLA asks for the metadata instead of a run
# XLA_FFI_CallFrame
FRAME_API = 16  # XLA's functions
FRAME_CONTEXT = 24  # of this run, which XLA's functions want to see
FRAME_ARGUMENTS = 72  # an array of pointers to buffers
FRAME_RESULTS = 112
# XLA_FFI_Buffer
BUFFER_DATA = 24
BUFFER_DIMS = 40  # an array of int64
# XLA_FFI_Metadata_Extension and the XLA_FFI_Metadata that a handler fills in
EXTENSION_METADATA = 24
METADATA_MAJOR = 24  # of the version of the interface, int32
METADATA_MINOR = 28
METADATA_TRAITS = 32  # int32
# XLA_FFI_Api
API_SCHEDULE = 136  # runs a task on a thread of XLA's pool
# XLA_FFI_ThreadPool_Schedule_Args
SCHEDULE_CONTEXT = 16
SCHEDULE_TASK = 24
SCHEDULE_DATA = 32
SCHEDULE_SIZE = 40

LAYOUT = {
    ("XLA_FFI_CallFrame", "extension_start"): EXTENSION,
    ("XLA_FFI_ThreadPool_Schedule_Args", "extension_start"): EXTENSION,
    ("XLA_FFI_CallFrame", "api"): FRAME_API,
    ("XLA_FFI_CallFrame", "ctx"): FRAME_CONTEXT,
    ("XLA_FFI_CallFrame", "args.args"): FRAME_ARGUMENTS,
    ("XLA_FFI_CallFrame", "rets.rets"): FRAME_RESULTS,
    ("XLA_FFI_Buffer", "data"): BUFFER_DATA,
    ("XLA_FFI_Buffer", "dims"): BUFFER_DIMS,
    ("XLA_FFI_Metadata_Extension", "metadata"): EXTENSION_METADATA,
    ("XLA_FFI_Metadata", "api_version.major_version"): METADATA_MAJOR,
    ("XLA_FFI_Metadata", "api_version.minor_version"): METADATA_MINOR,
    ("XLA_FFI_Metadata", "traits"): METADATA_TRAITS,
    ("XLA_FFI_Api", "XLA_FFI_ThreadPool_Schedule"): API_SCHEDULE,
    ("XLA_FFI_ThreadPool_Schedule_Args", "ctx"): SCHEDULE_CONTEXT,
    ("XLA_FFI_ThreadPool_Schedule_Args", "task"): SCHEDULE_TASK,
    ("XLA_FFI_ThreadPool_Schedule_Args", "data"): SCHEDULE_DATA,
    ("XLA_FFI_ThreadPool_Schedule_Args", ""): SCHEDULE_SIZE,
}


# Code of a handler, whose one argument is `%frame`.


def begin(f: Fn) -> None:
    """Writes the answer to XLA's question for the metadata; what is written next runs at a call."""
    extension = f.field("%frame", EXTENSION)
    asked = f.val(f"icmp ne ptr {extension}, null")
    f.do(f"br i1 {asked}, label %metadata, label %execute")
    f.label("metadata")
    metadata, (major, minor) = f.field(extension, EXTENSION_METADATA), version()
    for offset, number in ((METADATA_MAJOR, major), (METADATA_MINOR, minor), (METADATA_TRAITS, 0)):
        f.do(f"store i32 {number}, ptr {f.byte_ptr(metadata, offset)}")
    f.do("ret ptr null")
    f.label("execute")


def argument(f: Fn, index: int) -> str:
    """Returns a pointer to the buffer of an argument."""
    return f.field(f.field("%frame", FRAME_ARGUMENTS), 8 * index)


def result(f: Fn, index: int) -> str:
    """Returns a pointer to the buffer of a result."""
    return f.field(f.field("%frame", FRAME_RESULTS), 8 * index)


def data(f: Fn, buffer: str) -> str:
    """Returns a pointer to the first number of a buffer."""
    return f.field(buffer, BUFFER_DATA)


def dim(f: Fn, buffer: str, axis: int) -> str:
    """Returns the size of an axis of a buffer."""
    return f.field(f.field(buffer, BUFFER_DIMS), 8 * axis, "i64")


def schedule(f: Fn, task: str, argument: str, times: Index) -> None:
    """Has XLA's threads call `task(argument)` so many times; a thread that is busy comes late, maybe after the run."""
    api, context = f.field("%frame", FRAME_API), f.field("%frame", FRAME_CONTEXT)
    function = f.field(api, API_SCHEDULE)
    args = f.alloca("i8", SCHEDULE_SIZE, 8)
    fields = (
        ("i64", SCHEDULE_SIZE, 0),
        ("ptr", "null", EXTENSION),
        ("ptr", context, SCHEDULE_CONTEXT),
        ("ptr", task, SCHEDULE_TASK),
        ("ptr", argument, SCHEDULE_DATA),
    )
    for type, value, offset in fields:
        f.do(f"store {type} {value}, ptr {f.byte_ptr(args, offset)}")
    with f.loop(times):
        f.val(f"call ptr {function}(ptr {args})")


# The header


@functools.cache
def header() -> str:
    """Returns the header of the interface without comments, "" if jaxlib does not bring it."""
    path = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    text = path.read_text() if path.exists() else ""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


@functools.cache
def version() -> tuple[int, int]:
    """Returns the version (major, minor) of the interface."""
    major, minor = (re.search(rf"#define XLA_FFI_API_{part}\s+(\d+)", header()) for part in ("MAJOR", "MINOR"))
    return (int(major[1]), int(minor[1])) if major and minor else (0, 0)


def mismatch() -> str:
    """Returns what in jaxlib's layout is not as kernels need it, "" if nothing."""
    return compare(header())


def compare(header: str) -> str:
    """Returns the first field that does not lie where kernels look for it, "" if all do."""
    find = _layouts(header)
    for (struct, path), offset in LAYOUT.items():
        try:
            found = find(struct, path)
        except KeyError as missing:
            return f"jaxlib's XLA FFI header: {struct}: {missing.args[0]} is not known"
        if found != offset:
            return f"jaxlib's XLA FFI header: {struct}.{path}: got byte {found}, needs {offset}"
    return ""


def _layouts(header: str) -> Callable[[str, str], int]:
    """The offset of a field by struct and dotted path, the struct's size for an empty path, by the rules of C."""
    sizes = {"size_t": 8, "int64_t": 8, "int": 4, "int32_t": 4, "uint32_t": 4}
    sizes |= dict.fromkeys(re.findall(r"typedef enum \{[^}]*\} (\w+);", header), 4)
    sizes |= {name: sizes[known] for known, name in re.findall(r"typedef (\w+) (\w+);", header) if known in sizes}
    bodies = dict(re.findall(r"struct (\w+) \{([^}]*)\}", header))

    def fields(struct: str) -> list[tuple[str, str]]:
        """(type, name) of each; the type of a pointer is "*"."""
        found = []
        for line in filter(None, map(str.strip, bodies[struct].split(";"))):
            if pointer := re.search(r"\*+\s*(\w+)|_XLA_FFI_API_STRUCT_FIELD\((\w+)\)", line):
                found.append(("*", pointer[1] or pointer[2]))
            else:
                type, name = line.split()
                found.append((type, name))
        return found

    def measure(type: str) -> tuple[int, int]:
        """(size, alignment)."""
        if type == "*":
            return 8, 8
        if type in sizes:
            return sizes[type], sizes[type]
        return offset(type, ""), max(measure(t)[1] for t, _ in fields(type))

    def offset(struct: str, path: str) -> int:
        head, _, rest = path.partition(".")
        at, alignments = 0, [1]
        for type, name in fields(struct):
            size, alignment = measure(type)
            at = -(-at // alignment) * alignment
            if name == head:
                return at + (offset(type, rest) if rest else 0)
            at += size
            alignments.append(alignment)
        if path:
            raise KeyError(head)
        return -(-at // max(alignments)) * max(alignments)

    return offset
