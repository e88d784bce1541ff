"""What the simulated driver exists for: memory outlives its owner, and owners never share it."""

import subprocess

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
    mark = sys.argv[1].encode()
    answer(ready=True)
    sys.stdin.readline()
    held, damaged = [], 0
    for turn in range(int(sys.argv[2])):
        status, address = driver.cuMemAlloc(random.choice((1, 3, 7)) << 16)
        if int(status) == 0:
            write(int(address), mark * (1 << 16))
            held.append(int(address))
        if held and (int(status) != 0 or random.random() < 0.4):
            address = held.pop(random.randrange(len(held)))
            damaged += read(address, 1 << 16) != mark * (1 << 16)
            check(driver.cuMemFree(address))
    damaged += sum(read(address, 1 << 16) != mark * (1 << 16) for address in held)
    answer(damaged=damaged)
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
        machine.start(RACE, "A", 300) as a,
        machine.start(RACE, "B", 300) as b,
        machine.start(RACE, "C", 100_000) as killed,
    ):
        for client in (a, b, killed):
            client.next_answer()
        for client in (a, b, killed):
            client.go_on()
        assert a.next_answer()["damaged"] == 0
        killed.kill()  # somewhere in the middle of an allocation, a copy or a free
        assert b.next_answer()["damaged"] == 0
    assert machine.run(COUNT_SECRET, "-")["size"] == (16 << 20) - (256 << 10) - (512 << 10)


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
