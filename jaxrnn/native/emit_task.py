"""Writes what surrounds the loops: the handler that XLA calls, the workers on its threads, and the task they share.

A *task* is a small block of memory: counters, sizes, and the pointers of the call's buffers. The handler fills it, asks
XLA's thread pool for workers, and works itself. Packing, parts and the turns of a team are claimed by counters, so a
worker that comes late, or never, is not waited for. Whoever leaves a task last frees it.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxrnn.native import abi
from jaxrnn.native.emit_products import round_up
from jaxrnn.native.vectors import Fn, Types

__all__ = ["SETTINGS", "Operands", "Task", "handler", "next_turn", "wait", "worker"]

NEXT, DONE, USERS, NEXT_PACK, PACKED = range(0, 320, 64)  # counters, a cache line each
SETTINGS = ("chunk", "parts", "team", "stride", "packed")
"""What Python chooses: steps of a chunk, ranges of rows, threads that share a range; in units of 64 bytes the memory of
a range, and where the packed weights begin."""
SIZES = ("steps", "batch", *SETTINGS)


class Operands(NamedTuple):
    """How many buffers of each sort a call has, in this order after the settings; `shifted` ones are pairs."""

    consts: int
    carry: int
    shifted: tuple[bool, ...]
    ys: int
    sums: int

    def names(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Returns the names of the arguments and of the results."""
        args = [("settings", 0)]
        args += [("const", i) for i in range(self.consts)] + [("carry", i) for i in range(self.carry)]
        for i, pair in enumerate(self.shifted):
            args += [("first", i)] * pair + [("xs", i)]
        results = [
            (name, i) for name, n in (("final", self.carry), ("ys", self.ys), ("sums", self.sums)) for i in range(n)
        ]
        return args, [*results, ("scratch", 0)]


class Task:
    """Where things lie in a task, in bytes."""

    def __init__(self, operands: Operands) -> None:
        self.args, self.results = operands.names()
        self.names = [*self.args, *self.results]
        self.sizes = {name: 320 + 8 * i for i, name in enumerate(SIZES)}
        start = 320 + 8 * len(SIZES)
        self.pointers = {name: start + 8 * i for i, name in enumerate(self.names)}
        self.claims = round_up(start + 8 * len(self.names), 64)  # a line for each turn of a team

    def size(self, f: Fn, name: str) -> str:
        """Returns one of `SIZES`."""
        return f.field("%task", self.sizes[name], "i64")

    def pointer(self, f: Fn, name: str, index: int = 0) -> str:
        """Returns the pointer of a buffer."""
        return f.field("%task", self.pointers[name, index])


def _count(f: Fn, counter: int, order: str) -> str:
    """Adds one to a counter of a task; returns what it was."""
    return f.val(f"atomicrmw add ptr {f.byte_ptr('%task', counter)}, i64 1 {order}")


def wait(t: Types) -> str:
    """Returns a function that waits until a counter has reached a goal; after some turns it lets other threads run."""
    f = Fn("define internal void @wait(ptr %counter, i64 %goal) noinline nounwind", t)
    turns = f.alloca("i64", 1, 8)
    f.do(f"store i64 0, ptr {turns}")
    f.do("br label %look")
    f.label("look")
    count = f.val("load atomic i64, ptr %counter acquire, align 8")
    f.do(f"br i1 {f.test('sge', count, '%goal')}, label %end, label %turn")
    f.label("turn")
    turn = f.add(f.val(f"load i64, ptr {turns}"), 1)
    f.do(f"store i64 {turn}, ptr {turns}")
    f.do(f"br i1 {f.test('slt', turn, 2000)}, label %spin, label %yield")
    f.label("spin")
    f.do("call void @pause()")
    f.do("br label %look")
    f.label("yield")
    f.do("call void @yield()")
    f.do("br label %look")
    f.label("end")
    f.do("ret void")
    return f.text()


def next_turn(t: Types, task: Task) -> str:
    """Returns a function that gives a member of a team its next turn of a stage, or -1 where the stage has ended.

    Turns are claimed: a stage's number is put into the turn's line where the number of the stage before stands. Members
    begin with different turns. The end waits until all turns are done. A member's state is the stage's number, how many
    turns it has looked at, and whether it has a turn to report as done.
    """
    f = Fn("define internal i64 @next_turn(ptr %task, i64 %member, ptr %state) noinline nounwind", t)
    stage_at, looked_at, has_at = (f.byte_ptr("%state", 8 * i) for i in range(3))
    team, stage = task.size(f, "team"), f.field(stage_at, 0, "i64")
    following = f.add(stage, 1)
    f.do(f"br i1 {f.test('eq', team, 1)}, label %alone, label %together")
    f.label("alone")
    looked = f.field(looked_at, 0, "i64")
    f.do(f"store i64 {f.sub(1, looked)}, ptr {looked_at}")
    f.do(f"ret i64 {f.sub(0, looked)}")

    f.label("together")
    has = f.field(has_at, 0, "i64")
    f.do(f"br i1 {f.test('eq', has, 1)}, label %report, label %look")
    f.label("report")
    _count(f, DONE, "release")
    f.do(f"store i64 0, ptr {has_at}")
    f.do("br label %look")
    f.label("look")
    looked = f.field(looked_at, 0, "i64")
    f.do(f"br i1 {f.test('slt', looked, team)}, label %claim, label %end")
    f.label("claim")
    f.do(f"store i64 {f.add(looked, 1)}, ptr {looked_at}")
    turn = f.val(f"srem i64 {f.add('%member', looked)}, {team}")
    line = f.byte_ptr("%task", f.add(f.mul(turn, 64), task.claims))
    pair = f.val(f"cmpxchg ptr {line}, i64 {stage}, i64 {following} monotonic monotonic")
    f.do(f"br i1 {f.val(f'extractvalue {{i64, i1}} {pair}, 1')}, label %take, label %look")
    f.label("take")
    f.do(f"store i64 1, ptr {has_at}")
    f.do(f"ret i64 {turn}")
    f.label("end")
    f.do(f"store i64 0, ptr {looked_at}")
    f.do(f"store i64 {following}, ptr {stage_at}")
    f.do(f"call void @wait(ptr {f.byte_ptr('%task', DONE)}, i64 {f.mul(following, team)})")
    f.do("ret i64 -1")
    return f.text()


def worker(t: Types, task: Task, packs: bool) -> str:
    """Returns what each thread does with a task: its share of the packing, then parts."""
    f = Fn("define internal void @worker(ptr %task) nounwind #0", t)
    team = task.size(f, "team")
    members = f.mul(task.size(f, "parts"), team)
    f.do("br label %claim_pack" if packs else "br label %claim")
    if packs:
        f.label("claim_pack")
        i = _count(f, NEXT_PACK, "monotonic")
        f.do(f"br i1 {f.test('slt', i, members)}, label %pack, label %packed")
        f.label("pack")
        f.do(f"call void @pack(ptr %task, i64 {i}, i64 {members})")
        _count(f, PACKED, "release")
        f.do("br label %claim_pack")
        f.label("packed")
        f.do(f"call void @wait(ptr {f.byte_ptr('%task', PACKED)}, i64 {members})")
        f.do("br label %claim")
    f.label("claim")
    i = _count(f, NEXT, "monotonic")
    f.do(f"br i1 {f.test('slt', i, members)}, label %go, label %out")
    f.label("go")
    f.do(f"call void @part(ptr %task, i64 {i})")
    f.do(f"br i1 {f.test('eq', team, 1)}, label %count, label %out")
    f.label("count")
    _count(f, DONE, "release")
    f.do("br label %claim")
    f.label("out")
    _leave(f)
    f.do("ret void")
    return f.text()


def _leave(f: Fn) -> None:
    """Leaves a task; the last one frees it."""
    left = f.val(f"atomicrmw sub ptr {f.byte_ptr('%task', USERS)}, i64 1 acq_rel")
    f.do(f"br i1 {f.test('eq', left, 1)}, label %free, label %left")
    f.label("free")
    f.do("call void @free(ptr %task)")
    f.do("br label %left")
    f.label("left")


def handler(t: Types, task: Task, prepare: Callable[[Fn], None], finish: Callable[[Fn], None]) -> str:
    """Returns the function that XLA calls; `prepare` and `finish` write what comes before the parts, and after them."""
    f = Fn("define ptr @handler(ptr %frame) nounwind #0", t)
    abi.begin(f)
    buffers = {name: abi.argument(f, i) for i, name in enumerate(task.args)}
    buffers |= {name: abi.result(f, i) for i, name in enumerate(task.results)}
    settings = abi.data(f, buffers["settings", 0])
    sizes = {name: f.val(f"sext i32 {f.field(settings, 4 * i, 'i32')} to i64") for i, name in enumerate(SETTINGS)}
    # The first array over time has the axes [steps, batch, ...].
    whole = next(buffers[name] for name in task.names if name[0] in ("xs", "ys"))
    sizes |= {"steps": abi.dim(f, whole, 0), "batch": abi.dim(f, whole, 1)}
    members = f.mul(sizes["parts"], sizes["team"])

    size = f.add(f.mul(sizes["team"], 64), task.claims)
    f.do(f"%task = call ptr @malloc(i64 {size})")
    f.do(f"call void @llvm.memset.p0.i64(ptr %task, i8 0, i64 {size}, i1 false)")
    f.do(f"store i64 {f.add(members, 1)}, ptr {f.byte_ptr('%task', USERS)}")
    for name, offset in task.sizes.items():
        f.do(f"store i64 {sizes[name]}, ptr {f.byte_ptr('%task', offset)}")
    for operand, offset in task.pointers.items():
        f.do(f"store ptr {abi.data(f, buffers[operand])}, ptr {f.byte_ptr('%task', offset)}")

    prepare(f)
    abi.schedule(f, "@worker", "%task", f.sub(members, 1))
    f.do("call void @worker(ptr %task)")
    f.do(f"call void @wait(ptr {f.byte_ptr('%task', DONE)}, i64 {sizes['parts']})")
    # A member of a team that comes now finds nothing to do.
    f.do(f"store atomic i64 {members}, ptr {f.byte_ptr('%task', NEXT)} monotonic, align 8")
    finish(f)
    _leave(f)
    f.do("ret ptr null")
    return f.text()
