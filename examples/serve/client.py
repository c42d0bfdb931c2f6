"""A client of `pivot serve`, or of openpi's own server: the same bytes either way. It needs no pivot, only what
`pip install msgpack numpy websockets` brings; openpi's client does the same with more around it.

    pivot serve --model synth:tiny --robot libero
    python examples/serve/client.py --robot libero

Pictures of noise and a robot that stands still take the place of cameras and arms.
"""

import argparse
import time

import msgpack
import numpy as np
from websockets.sync.client import connect


def encode(x):
    if isinstance(x, np.ndarray):
        return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}
    if isinstance(x, np.generic):
        return {b"__npgeneric__": True, b"data": x.item(), b"dtype": x.dtype.str}
    raise TypeError(f"{type(x).__name__} does not travel")


def decode(x):
    if b"__ndarray__" in x:
        return np.ndarray(buffer=x[b"data"], dtype=np.dtype(x[b"dtype"]), shape=x[b"shape"])
    return x


class Policy:
    """openpi's BasePolicy at the other end of a websocket."""

    def __init__(self, socket):
        self.socket = socket
        self.metadata = self.receive()

    def receive(self):
        message = self.socket.recv()
        if isinstance(message, str):  # an error; the server then closes
            raise RuntimeError(message)
        return msgpack.unpackb(message, object_hook=decode)

    def infer(self, observation):
        self.socket.send(msgpack.packb(observation, default=encode))
        return self.receive()


def observe(robot, random):
    """What each robot's clients send (docs/robots.md)."""
    rows = random.integers(0, 256, (2, 480, 640, 3), np.uint8)
    if robot == "aloha":  # channels first
        return {"images": {"cam_high": rows[0].transpose(2, 0, 1)}, "state": np.full(14, 0.1)}
    if robot == "droid":
        return {"observation/exterior_image_1_left": rows[0], "observation/wrist_image_left": rows[1],
                "observation/joint_position": np.zeros(7), "observation/gripper_position": np.zeros(1)}
    return {"observation/image": rows[0], "observation/wrist_image": rows[1], "observation/state": np.zeros(8)}


def main():
    parser = argparse.ArgumentParser(description="Asks a server for actions")
    parser.add_argument("--robot", choices=("libero", "droid", "aloha"), default="libero")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key")
    parser.add_argument("--task", default="pick up the red block")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    headers = {"Authorization": f"Api-Key {given.api_key}"} if given.api_key else None
    url = f"ws://{given.host}:{given.port}"
    with connect(url, compression=None, max_size=None, additional_headers=headers) as socket:
        policy = Policy(socket)
        for _ in range(given.times):
            begun = time.monotonic()
            reply = policy.infer({**observe(given.robot, random), "prompt": given.task})
            print(f"actions {reply['actions'].shape} after {1e3 * (time.monotonic() - begun):.1f} ms, "
                  f"{reply['server_timing']['infer_ms']:.1f} of them in the policy; the first: {np.round(reply['actions'][0], 3)}")


if __name__ == "__main__":
    main()
