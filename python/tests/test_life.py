"""Made, shared, closed and thrown away in any order, by any thread, also across a fork. A wrong order would be a crash, so
what may crash runs in a process of its own."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

import pivot
from conftest import observation, resident


def chunk(policy, seed=0):
    return policy.infer(observation(), seed=seed)["actions"].tobytes()


def test_close(policy):
    assert not policy.closed
    policy.close()
    policy.close()
    assert policy.closed and "closed" in repr(policy)
    for use in (lambda: policy.infer(observation()), policy.memory, policy.twin):
        with pytest.raises(pivot.ArgumentError, match="closed"):
            use()
    assert policy.info.horizon == 10 and policy.device.backend == "cpu"  # what is known stays known


def test_with():
    with pivot.load("synth:tiny", "cpu") as policy:
        assert len(chunk(policy)) == 560
    assert policy.closed


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_twins_in_any_order(order):
    policies = [pivot.load("synth:tiny", "cpu")]
    policies += [policies[0].twin(), policies[0].twin()]
    expected = chunk(policies[0])
    for closed, i in enumerate(order):
        for left in order[closed:]:
            assert chunk(policies[left]) == expected
        policies[i].close()
    with pytest.raises(pivot.ArgumentError):
        policies[order[-1]].twin()


def test_garbage():
    """Nothing keeps a policy that nobody has, and the one that is left goes on; cycles too."""
    policy = pivot.load("synth:tiny", "cpu")
    twin, expected = policy.twin(), chunk(policy)
    policy.myself = policy
    gone = weakref.ref(policy)
    del policy
    gc.collect()
    assert gone() is None
    assert chunk(twin) == expected


def test_memory_returns():
    """200 policies one after the other do not grow the process."""

    def one():
        with pivot.load("synth:tiny", "cpu", threads=1) as policy, policy.twin() as twin:
            chunk(twin)

    for _ in range(20):
        one()
    before = resident()
    for _ in range(200):
        one()
    assert resident() - before < 24 << 20  # one policy's weights and plans are 5 MiB


def test_two_policies():
    with pivot.load("synth:tiny", "cpu") as one, pivot.load("synth:tiny", "cpu", recipe="bf16", steps=3) as other:
        first, second = chunk(one), chunk(other)
        assert first != second
        assert (chunk(one), chunk(other)) == (first, second)


@pytest.mark.parametrize("shared", [True, False])
def test_threads(shared):
    """A policy that is shared takes turns, twins run side by side; each gets the answer to its own question."""
    with pivot.load("synth:tiny", "cpu", threads=1) as policy:
        expected = [chunk(policy, seed) for seed in range(4)]
        wrong = []

        def work(mine, seed):
            for _ in range(25):
                if chunk(mine, seed) != expected[seed]:
                    wrong.append(seed)

        policies = [policy if shared else policy.twin() for _ in expected]
        threads = [threading.Thread(target=work, args=(p, i)) for i, p in enumerate(policies)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_errors_of_threads():
    """Each thread has the words of its own failure."""
    policies = [pivot.load("synth:tiny", "cpu", threads=1) for _ in range(2)]
    wrong = []

    def work(policy, token):
        for _ in range(200):
            with pytest.raises(pivot.ArgumentError) as raised:
                policy.infer(observation(tokens=[token]))
            if str(token) not in str(raised.value):
                wrong.append(str(raised.value))

    threads = [threading.Thread(target=work, args=(p, 600 + i)) for i, p in enumerate(policies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_close_while_others_infer():
    """Closing waits for the inference at work; those that come later are refused."""
    for _ in range(5):
        policy, begun, ends = pivot.load("synth:tiny", "cpu", threads=1), threading.Event(), []

        def work():
            try:
                while True:
                    chunk(policy)
                    begun.set()
            except pivot.ArgumentError as refused:
                ends.append(str(refused))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        policy.close()
        for thread in threads:
            thread.join()
        assert ends == ["the policy is closed"] * 3


def test_progress():
    calls = []
    pivot.load("synth:tiny", "cpu", progress=lambda *call: calls.append(call)).close()
    assert calls and all(0 <= done <= total for _, done, total in calls) and calls[-1][1] == calls[-1][2]


def test_progress_raises():
    """What the caller's function raises comes out of load, once C is done."""

    def stop(*_):
        raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        pivot.load("synth:tiny", "cpu", progress=stop)


# ---- in a process of its own ----

HEAD = """
import os, signal, sys, threading
sys.path.insert(0, {tests!r})
import pivot
from conftest import observation
policy = pivot.load("synth:tiny", "cpu", threads=2)
"""


def in_process(body):
    code = HEAD.format(tests=os.path.dirname(__file__)) + textwrap.dedent(body)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]  # 3.12 and newer warn of forks
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


def test_end_of_the_interpreter():
    """Policies that are alive when it ends, also at work in a thread that nobody waits for."""
    assert in_process("twin = policy.twin(); policy.infer(observation()); print('done')") == "done\n"
    body = """
    begun = threading.Event()
    def work():
        while True:
            policy.infer(observation())
            begun.set()
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    print("done")
    """
    assert in_process(body) == "done\n"


def test_fork():
    """The child is refused, frees nothing, ends; the parent goes on; the child can load its own."""
    body = """
    before = policy.infer(observation(), seed=1)["actions"].tobytes()
    child = os.fork()
    if not child:
        try:
            policy.infer(observation())
        except pivot.ArgumentError as refused:
            assert "fork" in str(refused)
            policy.close()
            with pivot.load("synth:tiny", "cpu", threads=1) as own:
                assert own.infer(observation(), seed=1)["actions"].tobytes() == before
            sys.exit(7)
        sys.exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert policy.infer(observation(), seed=1)["actions"].tobytes() == before
    print("done")
    """
    assert in_process(body) == "done\n"


def test_closed_by_a_signal():
    """A handler runs between two steps of the interpreter, also within infer."""
    body = """
    signal.signal(signal.SIGALRM, lambda *_: policy.close())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        while True:
            policy.infer(observation())
    except pivot.ArgumentError:
        print("closed" if policy.closed else "open")
    """
    assert in_process(body) == "closed\n"
