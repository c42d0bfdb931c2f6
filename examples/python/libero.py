"""A LIBERO client with the policy in its own process, in place of openpi's server: its pictures, its state, its replanning
(openpi, examples/libero/main.py).

    python examples/python/libero.py --model synth:tiny
    python examples/python/libero.py --model pi05_libero_pytorch --tokenizer paligemma_tokenizer.model

The environment here is a stand-in without a simulator, so that the loop runs anywhere. LIBERO's OffScreenRenderEnv has the
same three methods and the same keys, and takes its place in `main`.
"""

import argparse
import collections
import math

import numpy as np

import pivot

REPLAN_STEPS = 5  # of a chunk, how many actions are carried out before the policy is asked again
WAIT_STEPS = 10  # objects fall into place first
STAND_STILL = [0.0] * 6 + [-1.0]


class StandIn:
    """Pictures of noise and an arm that goes where it is told."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)

    def reset(self):
        self.position = np.array([0.0, 0.0, 0.9])
        self.fingers = np.array([0.03, -0.03])
        return self.observe()

    def observe(self):
        return {
            "agentview_image": self.random.integers(0, 256, (256, 256, 3), np.uint8),
            "robot0_eye_in_hand_image": self.random.integers(0, 256, (256, 256, 3), np.uint8),
            "robot0_eef_pos": self.position,
            "robot0_eef_quat": np.array([1.0, 0.0, 0.0, 0.0]),  # x, y, z, w: the hand points down
            "robot0_gripper_qpos": self.fingers,
        }

    def step(self, action):
        if len(action) != 7:
            raise ValueError(f"7 numbers make an action, came {len(action)}")
        self.position = np.clip(self.position + 0.01 * np.array(action[:3]), [-0.5, -0.5, 0.5], [0.5, 0.5, 1.3])
        self.fingers = np.array([0.03, -0.03]) if action[6] < 0 else np.array([0.0, 0.0])
        return self.observe(), 0.0, False, {}


def axis_angle(quat):
    """Of a quaternion x, y, z, w, as robosuite does it."""
    w = min(max(quat[3], -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return quat[:3] * 2.0 * math.acos(w) / sine


def observation_of(seen, task):
    """What openpi's policy is shown. The training data has both pictures turned by 180 degrees."""
    return {
        "observation/image": seen["agentview_image"][::-1, ::-1],
        "observation/wrist_image": seen["robot0_eye_in_hand_image"][::-1, ::-1],
        "observation/state": np.concatenate(
            [seen["robot0_eef_pos"], axis_angle(seen["robot0_eef_quat"]), seen["robot0_gripper_qpos"]]
        ),
        "prompt": task,
    }


def episode(policy, environment, task, steps):
    """One try at a task. True when the environment says that it is done."""
    plan = collections.deque()
    policy.reset()
    seen = environment.reset()
    for step in range(WAIT_STEPS + steps):
        if step < WAIT_STEPS:
            action = STAND_STILL
        else:
            if not plan:
                result = policy.infer(observation_of(seen, task))
                plan.extend(result["actions"][:REPLAN_STEPS])
                print(f"step {step - WAIT_STEPS}: {result['timing']['total_ms']:.1f} ms")
            action = plan.popleft().tolist()
        seen, _, done, _ = environment.step(action)
        if done:
            return True
    return False


def main():
    parser = argparse.ArgumentParser(description="A LIBERO client with the policy in its own process")
    parser.add_argument("--model", default="synth:tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--tokenizer", help="PaliGemma's SentencePiece model, unless it lies in the folder")
    parser.add_argument("--task", default="put the bowl on the plate")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    # LIBERO's policies are not told their state, which openpi's configuration says and its checkpoint does not
    how = {"robot": "libero", "tokenizer": given.tokenizer, "discrete_state": False}
    with pivot.load(given.model, given.backend, **how) as policy:
        print(f"{policy.device.backend}: {policy.device.name}")
        done = episode(policy, StandIn(), given.task, given.steps)
        print("done" if done else f"not done after {given.steps} steps")


if __name__ == "__main__":
    main()
