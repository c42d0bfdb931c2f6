"""openpi's own client code around a policy of ours, unchanged."""

import pytest

import pivot
from conftest import observation

broker = pytest.importorskip("openpi_client.action_chunk_broker")


def test_action_chunk_broker(policy):
    """Hands out a chunk action by action, then asks for the next one; reset reaches the policy."""
    chunks = [policy.infer(observation(), seed=n)["actions"] for n in range(2)]
    one_at_a_time = broker.ActionChunkBroker(policy, action_horizon=4)
    given = [one_at_a_time.infer(observation()) for _ in range(6)]
    for i, result in enumerate(given):
        assert set(result) == {"actions", "policy_timing", "timing"}
        assert result["actions"].tobytes() == chunks[i // 4][i % 4].tobytes()
    one_at_a_time.reset()
    assert one_at_a_time.infer(observation())["actions"].tobytes() == chunks[0][0].tobytes()


def test_methods():
    """Whatever its BasePolicy has, ours has."""
    from openpi_client.base_policy import BasePolicy

    theirs = {name for name in vars(BasePolicy) if not name.startswith("_")}
    assert theirs and theirs <= set(dir(pivot.Policy))
