"""Kernels of native loops: the layout of XLA's buffers, machines, object files that are kept, registration."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.native import abi, store
from jaxrnn.native import compile as native
from jaxrnn.native.elementary import FUNCTIONS, define
from jaxrnn.native.vectors import Fn, Types, declarations

pytestmark = pytest.mark.skipif(bool(native.obstacle()), reason=native.obstacle())

ROOT = Path(__file__).parent.parent
ARM = native.Machine("aarch64-linux-gnu", "neoverse-n1", "", vector_bits=128, registers=32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("JAXRNN_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def scaled(factor, machine, tasks=3):
    """A handler of [N, M] that scales by a constant, after XLA's threads have counted to `tasks`."""
    t = Types("float32", machine.lanes("float32"))
    worker = Fn("define internal void @worker(ptr %counter) nounwind #0", t)
    worker.val("atomicrmw add ptr %counter, i64 1 release")
    worker.do("ret void")
    f = Fn("define ptr @handler(ptr %frame) nounwind #0", t)
    abi.begin(f)
    x, y = abi.argument(f, 0), abi.result(f, 0)
    source, target, count = abi.data(f, x), abi.data(f, y), f.mul(abi.dim(f, x, 0), abi.dim(f, x, 1))
    counter = f.val("call ptr @malloc(i64 8)")
    f.do(f"store i64 0, ptr {counter}")
    abi.schedule(f, "@worker", counter, tasks)
    f.do(f"call void @huge_pages(ptr {target}, i64 {f.mul(count, 4)})")
    with f.loop(count, 0, t.w) as i:
        mask = f.below(f.sub(count, i))
        f.store(f.f("fmul", f.load(f.ptr(source, i), mask), t.splat(factor)), f.ptr(target, i), mask)
    f.do("br label %wait")
    f.label("wait")
    done = f.val(f"load atomic i64, ptr {counter} acquire, align 8")
    f.do("call void @pause()")
    f.do("call void @yield()")
    f.do(f"br i1 {f.val(f'icmp sge i64 {done}, {tasks}')}, label %end, label %wait")
    f.label("end")
    f.do(f"call void @free(ptr {counter})")
    f.do("ret ptr null")
    return "\n\n".join([declarations(t), worker.text(), f.text()])


def call(name, x):
    return jax.ffi.ffi_call(name, jax.ShapeDtypeStruct(x.shape, x.dtype))(x)


# The layout of XLA's structs


def test_jaxlib_has_the_layout_that_kernels_need():
    assert abi.mismatch() == ""
    assert abi.version() >= (0, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "const XLA_FFI_Api* api;",
            "const XLA_FFI_Api* api; int64_t extra;",
            "XLA_FFI_CallFrame.ctx: got byte 32, needs 24",
        ),
        ("int64_t rank;", "int64_t rank; int32_t extra;", "XLA_FFI_Buffer.dims: got byte 48, needs 40"),
        (
            "_XLA_FFI_API_STRUCT_FIELD(XLA_FFI_Error_Create);",
            "",
            "XLA_FFI_ThreadPool_Schedule: got byte 128, needs 136",
        ),
        ("XLA_FFI_Task* task;", "", "XLA_FFI_ThreadPool_Schedule_Args: task is not known"),
        ("XLA_FFI_ArgType* types;", "XLA_FFI_Unheard types;", "XLA_FFI_Unheard is not known"),
        ("struct XLA_FFI_Buffer {", "struct XLA_FFI_Tensor {", "XLA_FFI_Buffer is not known"),
    ],
)
def test_another_layout_is_noticed(old, new, message):
    assert old in abi.header()
    assert message in abi.compare(abi.header().replace(old, new))


def test_no_header_is_noticed():
    assert "XLA_FFI_CallFrame is not known" in abi.compare("")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_offsets_are_those_of_a_c_compiler(tmp_path):
    lines = "".join(
        f'printf("%zu ", {f"offsetof({struct}, {path})" if path else f"sizeof({struct})"});'
        for struct, path in abi.LAYOUT
    )
    header = "xla/ffi/api/c_api.h"
    (tmp_path / "a.c").write_text(f'#include <stdio.h>\n#include "{header}"\nint main(void) {{ {lines} }}')
    subprocess.run(["cc", "-I", jax.ffi.include_dir(), "a.c", "-o", "a"], cwd=tmp_path, check=True)
    printed = subprocess.run(["./a"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert list(map(int, printed.split())) == list(abi.LAYOUT.values())


# Machines


@pytest.mark.parametrize(
    ("triple", "features", "lanes", "registers"),
    [
        ("x86_64-unknown-linux-gnu", {"avx2": True, "fma": True}, 8, 16),
        ("x86_64-pc-windows-msvc", {"avx2": True, "fma": True, "avx512f": True, "avx512vl": True}, 16, 32),
        ("x86_64-unknown-linux-gnu", {"avx2": True, "fma": False}, None, None),
        ("aarch64-unknown-linux-gnu", {}, 4, 32),
        ("arm64-apple-darwin23", None, 4, 32),
        ("riscv64-unknown-linux-gnu", {}, None, None),
    ],
)
def test_vectors_fit_the_processor(monkeypatch, triple, features, lanes, registers):
    class Features(dict):
        def flatten(self):
            return ",".join(f"+{name}" for name in self if self[name])

    def found():
        if features is None:
            raise RuntimeError("not known")
        return Features(features)

    llvm = SimpleNamespace(
        get_process_triple=lambda: triple,
        get_host_cpu_name=lambda: "some",
        get_host_cpu_features=found,
        FeatureMap=Features,
    )
    monkeypatch.setattr(native, "_llvm", lambda: llvm)
    machine = native.host.__wrapped__()
    if lanes is None:
        assert machine is None
    else:
        assert (machine.lanes("float32"), machine.lanes("float64"), machine.registers) == (lanes, lanes // 2, registers)


def test_obstacles_are_named(monkeypatch):
    assert native.obstacle() == ""

    def missing():
        raise ModuleNotFoundError("No module named 'llvmlite'")

    def reason(target, name, value):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            return native.obstacle.__wrapped__()

    assert reason(jax, "default_backend", lambda: "gpu") == "JAX runs on 'gpu', native loops on 'cpu'"
    assert "pip install 'jaxrnn[cpu]'" in reason(native, "_llvm", missing)
    assert "got LLVM 15, needs 20" in reason(native, "_llvm", lambda: SimpleNamespace(llvm_version_info=(15, 0, 7)))
    assert "neither AVX2 with FMA nor NEON" in reason(native, "host", lambda: None)
    with pytest.warns(UserWarning, match="runs are scans, not native loops: jaxlib's XLA FFI header"):
        assert "XLA_FFI_CallFrame" in reason(abi, "header", lambda: "")
    with pytest.warns(UserWarning, match="has no 'unheardof'"):
        assert "has no 'unheardof'" in reason(native, "_MATHEMATICS", ("sin", "unheardof"))
    monkeypatch.setattr(native, "obstacle", lambda: "it rains")
    with pytest.raises(RuntimeError, match="native: it rains"):
        native.machine()


@pytest.mark.parametrize(
    ("target", "magic", "advises"),
    [
        (ARM, b"\x7fELF", True),
        (dataclasses.replace(ARM, triple="arm64-apple-darwin23", cpu="apple-m1"), b"\xcf\xfa\xed\xfe", False),
        (native.Machine("x86_64-pc-windows-msvc", "haswell", "", 256, 16), b"\x64\x86", False),
    ],
    ids=["linux-arm", "macos-arm", "windows"],
)
def test_other_machines_code_is_made(target, magic, advises):
    """All elementary functions and a handler, for machines that aren't there: compiled, not run."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    t = Types("float32", target.lanes("float32"))
    exported = [define(name, t).replace("internal", "").replace("alwaysinline", "") for name in FUNCTIONS]
    code = native.emit_object("\n\n".join([scaled(2.0, target), *exported]), target)
    assert code.startswith(magic)
    if target is ARM:
        assert int.from_bytes(code[18:20], "little") == 183  # of AArch64, in ELF's list of machines
    assert (b"madvise" in code) == advises
    assert (b"SwitchToThread" in code) == ("windows" in target.triple)


# Kernels


def test_one_kernel_serves_all_shapes():
    """Sizes are read from the buffers, and XLA's threads take tasks."""
    text = scaled(3.0, native.machine())
    name = native.compile_handler(text)
    before = native.counts.copy()
    assert native.compile_handler(text) == name
    assert native.counts == before
    double = jax.jit(lambda x: call(name, x))
    for shape in ((1, 1), (3, 5), (7, 33), (1500, 1500)):
        x = jnp.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        np.testing.assert_array_equal(double(x), 3 * np.asarray(x))


def test_threads_may_ask_for_the_same_kernel():
    text = scaled(13.0, native.machine())
    before = native.counts["compiled"]
    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(lambda _: native.compile_handler(text), range(4)))
    assert len(names) == 1
    assert native.counts["compiled"] == before + 1


def test_longer_vectors_than_the_processor_has():
    """LLVM splits them: so code for AVX-512 runs where there is none."""
    with native.on(dataclasses.replace(native.machine(), vector_bits=512, registers=32)):
        name = native.compile_handler(scaled(5.0, native.machine()))
    assert native.machine() == native.host()
    x = jnp.arange(35, dtype=np.float32).reshape(5, 7)
    np.testing.assert_array_equal(call(name, x), 5 * np.asarray(x))


def test_names_tell_kernels_apart():
    here, text = native.machine(), scaled(2.0, native.machine())
    other = dataclasses.replace(here, features="")
    assert len({native.target_name(t, m) for t in (text, text + "\n") for m in (here, other)}) == 4


# Kept object files


WRITER = """
import sys
import jax.numpy as jnp
import numpy as np
import jaxrnn.native.compile as native
assert not any(name.startswith("llvmlite") for name in sys.modules)
from tests.test_native_compile import call, scaled
print("ready", flush=True)
sys.stdin.readline()
name = native.compile_handler(scaled(7.0, native.machine()))
np.testing.assert_array_equal(call(name, jnp.ones((3, 5))), np.full((3, 5), 7))
print(name, dict(native.counts))
"""


@pytest.mark.exhaustive
def test_a_second_process_loads_what_the_first_compiled(folder, monkeypatch):
    """Two processes write the same kernel at the same time; this one, the third, finds it and needs no LLVM."""
    options = {"cwd": ROOT, "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {**os.environ}}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER], **options) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    text = scaled(7.0, native.machine())
    name = native.target_name(text, native.machine())
    for writer in writers:
        printed, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        assert printed.startswith(name)
        assert "1}" in printed
    assert [path.name for path in folder.iterdir()] == [f"{name}.kernel"]
    monkeypatch.setattr(native, "emit_object", None)
    before = native.counts["loaded"]
    assert native.compile_handler(text) == name
    assert native.counts["loaded"] == before + 1
    np.testing.assert_array_equal(call(name, jnp.ones((3, 5))), np.full((3, 5), 7))


DAMAGES = {
    "cut": lambda content: content[:-9],
    "empty": lambda content: b"",
    "changed": lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
}


def test_a_damaged_file_is_made_anew(folder):
    here = native.machine()
    text = scaled(11.0, here)
    code = native.object_file("name", text, here)
    path = folder / "name.kernel"
    store.write("other", b"code")
    another = (folder / "other.kernel").read_bytes()
    for what, damage in (DAMAGES | {"another's": lambda _: another}).items():
        path.write_bytes(damage(path.read_bytes()))
        before = native.counts.copy()
        assert native.object_file("name", text, here) == code, what
        assert native.object_file("name", text, here) == code, what
        assert native.counts - before == {"compiled": 1, "loaded": 1}, what


def test_a_folder_that_cannot_be_used_costs_only_time(folder, monkeypatch):
    monkeypatch.setattr(native, "emit_object", lambda text, target: b"code")
    folder.write_text("a file where the folder should be")
    assert native.object_file("name", "", ARM) == b"code"
    folder.unlink()
    (folder / "name.kernel").mkdir(parents=True)
    assert native.object_file("name", "", ARM) == b"code"
    assert [path.name for path in folder.iterdir()] == ["name.kernel"]
    with monkeypatch.context() as patch:

        def denied(*args, **options):
            raise PermissionError("read-only")

        patch.setattr(store.tempfile, "mkstemp", denied)
        assert native.object_file("other", "", ARM) == b"code"
    assert store.read("other") is None
    native.object_file("other", "", ARM)
    assert store.read("other") == b"code"


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXRNN_CACHE_DIR", "")
    assert store.folder() is None
    store.write("name", b"code")
    assert store.read("name") is None
    monkeypatch.delenv("JAXRNN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.folder() == tmp_path / "jaxrnn"
    store.write("name", b"code")
    assert store.read("name") == b"code"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.folder() == Path.home() / ".cache" / "jaxrnn"


def test_what_was_not_used_for_longest_is_dropped(folder, monkeypatch):
    monkeypatch.setattr(store, "LIMIT", 3 * (32 + 100))
    for age, name in enumerate(("d", "c", "b", "a")):
        store.write(name, bytes(100))
        os.utime(folder / f"{name}.kernel", (1e9 - age, 1e9 - age))
    # "d" is the newest of the four; "a", the oldest, is read and so the newest now.
    assert store.read("a") is not None
    store.write("e", bytes(100))
    assert sorted(path.stem for path in folder.iterdir()) == ["a", "d", "e"]


def test_readers_never_see_half_a_file(folder):
    """Threads that write the same name, and readers between them: always one of the contents, whole."""
    contents = {bytes([i]) * 50_000 for i in range(3)}
    store.write("name", bytes([0]) * 50_000)
    stop, seen = threading.Event(), []

    def write(content):
        while not stop.is_set():
            store.write("name", content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for _ in range(300):
        seen.append(store.read("name"))
    stop.set()
    for writer in writers:
        writer.join()
    assert set(seen) <= contents
    assert [path.name for path in folder.iterdir()] == ["name.kernel"]
