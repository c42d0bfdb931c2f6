"""An ALOHA client with the policy in its own process: both arms, their cameras, actions one at a time at the robot's rate, a
new chunk when half of the last one is carried out (openpi, examples/aloha_real).

    python examples/python/aloha.py --model synth:tiny
    python examples/python/aloha.py --model pi05_aloha_pytorch --tokenizer paligemma_tokenizer.model

The robot here is a stand-in without hardware, so that the loop runs anywhere: joints that go where they are told, pictures
of noise. A real one has the same two methods and takes its place in `main`.
"""

import argparse
import time

import numpy as np

import pivot

RATE_HZ = 50
CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
REST = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.5] * 2)  # six joints in radians and a gripper, 0 shut to 1 open, each arm


class StandIn:
    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.joints = REST.copy()

    def observe(self):
        pictures = {name: self.random.integers(0, 256, (3, 480, 640), np.uint8) for name in CAMERAS}  # channels first
        return {"state": self.joints.copy(), "images": pictures}

    def act(self, action):
        if action.shape != (14,):
            raise ValueError(f"14 numbers make an action, came {action.shape}")
        self.joints += np.clip(action - self.joints, -0.05, 0.05)


def run(policy, robot, task, steps):
    chunk = []
    for step in range(steps):
        begun = time.monotonic()
        if step % (policy.info.horizon // 2) == 0:
            result = policy.infer({**robot.observe(), "prompt": task})
            chunk = list(result["actions"])
            print(f"step {step}: {result['timing']['total_ms']:.1f} ms")
        robot.act(chunk.pop(0))
        time.sleep(max(0.0, 1 / RATE_HZ - (time.monotonic() - begun)))


def main():
    parser = argparse.ArgumentParser(description="An ALOHA client with the policy in its own process")
    parser.add_argument("--model", default="synth:tiny")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--tokenizer", help="PaliGemma's SentencePiece model, unless it lies in the folder")
    parser.add_argument("--norm-stats", help="norm_stats.json, unless it lies in the folder")
    parser.add_argument("--task", default="fold the towel")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    files = {"tokenizer": given.tokenizer, "norm_stats": given.norm_stats}
    with pivot.load(given.model, given.backend, robot="aloha", **files) as policy:
        print(f"{policy.device.backend}: {policy.device.name}; {policy.robot.about}")
        run(policy, StandIn(), given.task, given.steps)


if __name__ == "__main__":
    main()
