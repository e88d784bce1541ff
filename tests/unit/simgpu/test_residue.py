"""What the simulated driver exists for: memory outlives its owner, and owners never share it."""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.simgpu.fixtures import Machine

WRITE_SECRET = """
    open_gpu()
    secret = sys.argv[1].encode()
    write(allocate(4 << 20), secret * ((4 << 20) // len(secret)))
    answer(written=True)
"""

COUNT_SECRET = """
    open_gpu()
    found = b"".join(read(address, size) for address, size in allocate_all())
    answer(hits=found.count(sys.argv[1].encode()), clear=found.count(0) == len(found), size=len(found))
"""

HOLD = """
    open_gpu()
    data = sys.argv[1].encode() * (1 << 20)
    address = allocate(len(data))
    write(address, data)
    answer(ready=True)
    sys.stdin.readline()
    answer(intact=read(address, len(data)) == data)
"""

RACE = """
    import random
    open_gpu()
    mark, turns = sys.argv[1].encode(), int(sys.argv[2])
    def is_mine(piece):
        address, size = piece
        return read(address, size) == mark * size
    answer(ready=True)
    sys.stdin.readline()
    held, damaged = [], 0
    for turn in range(turns):
        size = random.choice((1, 2, 5)) << 16
        status, address = driver.cuMemAlloc(size)
        if int(status) == 0:
            check(driver.cuMemsetD8(address, mark[0], size))
            held.append((int(address), size))
        if len(held) > 4 or int(status) != 0:
            piece = held.pop(random.randrange(len(held)))
            damaged += not is_mine(piece)
            check(driver.cuMemFree(piece[0]))
    answer(damaged=damaged + sum(not is_mine(piece) for piece in held))
"""


def test_one_client_reads_what_an_earlier_one_left(machine: Machine) -> None:
    machine.run(WRITE_SECRET, "acme-secret-1234")
    assert machine.run(COUNT_SECRET, "acme-secret-1234")["hits"] == (4 << 20) // 16


def test_residue_survives_a_kill(machine: Machine) -> None:
    with machine.start(HOLD, "S") as client:
        client.next_answer()
        client.kill()
    assert machine.run(COUNT_SECRET, "S")["hits"] == 1 << 20


def test_a_driver_that_scrubs_on_free_leaves_nothing(machine: Machine) -> None:
    machine.set_faults(scrub_on_free=1)
    machine.run(WRITE_SECRET, "acme-secret-1234")
    found = machine.run(COUNT_SECRET, "acme-secret-1234")
    assert found["clear"]
    assert found["size"] > 15 << 20


def test_memory_of_the_dead_is_free_and_that_of_the_living_is_not(machine: Machine) -> None:
    with machine.start(HOLD, "A") as dead, machine.start(HOLD, "B") as living:
        dead.next_answer()
        living.next_answer()
        held = machine.run(COUNT_SECRET, "A")["size"]
        dead.kill()
        # The dead one's 1 MiB and its context come back; the living one's data stays its own.
        assert machine.run(COUNT_SECRET, "B") == {"hits": 0, "clear": False, "size": held + (1 << 20) + (512 << 10)}
        living.go_on()
        assert living.next_answer()["intact"]


def test_racing_clients_never_share_a_page(machine: Machine) -> None:
    with (
        machine.start(RACE, "A", 500) as a,
        machine.start(RACE, "B", 500) as b,
        machine.start(RACE, "C", 1_000_000) as killed,
    ):
        for client in (a, b, killed):
            client.next_answer()
        for client in (a, b, killed):
            client.go_on()
        assert a.next_answer()["damaged"] == 0
        killed.kill()  # somewhere in the middle of an allocation, a copy or a free
        assert b.next_answer()["damaged"] == 0
    assert machine.run(COUNT_SECRET, "-")["size"] == (16 << 20) - (256 << 10) - (512 << 10)


def has_waiter(file: Path) -> bool:
    """Whether the kernel lists somebody who waits for a lock on a file."""
    waiters = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f":{file.stat().st_ino} " in line for line in waiters)


def test_pages_are_taken_and_freed_under_the_lock_of_the_gpu(machine: Machine) -> None:
    state = machine.gpus[0].folder / "state"
    program = """
        open_gpu()
        answer(ready=True)
        sys.stdin.readline()
        check(driver.cuMemFree(allocate(1 << 16)))
        answer(done=True)
    """
    with machine.start(program) as client, state.open("r+b") as file:
        client.next_answer()
        lock_gpu(file, fcntl.F_WRLCK)
        client.go_on()
        deadline = time.monotonic() + 30
        while not has_waiter(state):
            assert client.process.poll() is None, "the client did not wait for the lock"
            assert time.monotonic() < deadline
        lock_gpu(file, fcntl.F_UNLCK)
        assert client.next_answer() == {"done": True}


def lock_gpu(state: BinaryIO, kind: int) -> None:
    """Take or leave the lock that clients take around every change: an OFD lock on byte 2^40 of `state`."""
    set_ofd_lock = 37  # F_OFD_SETLK, which the fcntl module of Python 3.11 does not name
    fcntl.fcntl(state, set_ofd_lock, struct.pack("hhqqi4x", kind, os.SEEK_SET, 1 << 40, 1, 0))


def test_a_forked_child_cannot_use_the_driver_of_its_parent(machine: Machine) -> None:
    found = machine.run("""
        import os
        open_gpu()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, error_of(driver.cuMemAlloc(1 << 16)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        answer(child=os.read(reader, 99).decode(), parent=error_of(driver.cuMemAlloc(1 << 16)))
    """)
    assert found == {"child": "CUDA_ERROR_NOT_INITIALIZED", "parent": "CUDA_SUCCESS"}


def test_owners_are_kept_apart_over_pid_namespaces(machine: Machine) -> None:
    own_namespace = ("unshare", "--pid", "--fork", "--kill-child")
    try:
        subprocess.run([*own_namespace, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this machine does not allow new PID namespaces (they need root)")
    with machine.start(HOLD, "A", prefix=own_namespace) as client:
        client.next_answer()
        assert machine.run(COUNT_SECRET, "A")["hits"] == 0
        client.go_on()
        assert client.next_answer()["intact"]
        client.process.wait(timeout=60)
    assert machine.run(COUNT_SECRET, "A")["hits"] == 1 << 20
