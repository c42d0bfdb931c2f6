#!/usr/bin/env python3
"""Writes tests/data/wire and tests/fuzz/corpus/wire: messages as openpi's client and server exchange them, made by Python's
msgpack (1.1.0) and numpy with the convention of openpi's msgpack_numpy, and some that are broken on purpose. The tests know
what is in them.

    python3 -m venv venv && venv/bin/pip install msgpack numpy && venv/bin/python tests/make_wire_fixtures.py
"""
import pathlib
import struct

import msgpack
import numpy as np

here = pathlib.Path(__file__).parent


def encode(x):
    """numpy's values as maps whose keys are bytes; float64 scalars are Python floats, msgpack writes them itself."""
    if isinstance(x, np.ndarray):
        return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}
    if isinstance(x, np.generic):
        return {b"__npgeneric__": True, b"data": x.item(), b"dtype": x.dtype.str}
    return x


def pack(message, **options):
    return msgpack.packb(message, default=encode, **options)


def picture(h, w, seed):
    return ((np.arange(h * w * 3) * 7 + seed) % 256).astype(np.uint8).reshape(h, w, 3)


def array(data, dtype, shape):
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


good = {
    "golden": pack({"a": np.float32([[1.5]])}),
    "empty": pack({}),
    "libero": pack({
        "observation/image": picture(4, 5, 0),
        "observation/wrist_image": picture(3, 2, 1),
        "observation/state": np.arange(8) / 8,
        "prompt": "put the bowl on the plate",
    }),
    "droid": pack({
        "observation/exterior_image_1_left": picture(2, 3, 2),
        "observation/wrist_image_left": picture(2, 3, 3),
        "observation/joint_position": np.arange(7, dtype=np.float32),
        "observation/gripper_position": np.float32(0.25),
        "prompt": b"open the drawer",
    }),
    "aloha": pack({
        "state": np.ones(14),
        "images": {name: np.full((3, 2, 2), i, np.uint8) for i, name in
                   enumerate(["cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"])},
        "prompt": "unzip the bag \u2764",
    }),
    "dtypes": pack({
        "u1": np.array([1, 255], np.uint8), "i4": np.array([-5], np.int32), "i8": np.array([[2**40, -1]]),
        "f4": np.array([0.1], np.float32), "f8": np.array([0.1]), "b1": np.array([True, False]),
        "point": np.array(2.5), "deep": np.zeros((1, 2, 3, 4), np.float32),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }),
    "scalars": pack({
        "f4": np.float32(1.5), "f8": np.float64(0.1), "i8": np.int64(-3), "u1": np.uint8(200), "b1": np.bool_(True),
        "text": np.str_("so"), "int": 70000, "negative": -200, "large": 2**40, "float": 0.5, "true": True, "list": [1, 2.5, -3],
        "single": [0.25],
    }),
    "text_keys": pack({"a": {"shape": [2, 1], "dtype": "<f4", "data": struct.pack("<2f", 3, 4), "__ndarray__": True}}),
    "long": pack({"prompt": "x" * 300, "image": picture(160, 150, 0)[:, :, :1] * 0, **{f"field {i}": i for i in range(20)}}),
    "reply": pack({
        "actions": np.arange(6.0).reshape(2, 3) / 4,
        "policy_timing": {"infer_ms": 1.5},
        "server_timing": {"infer_ms": 2.5, "prev_total_ms": 3.5},
    }),
    "reply_f32": pack({"actions": np.arange(400, dtype=np.float32).reshape(200, 2)}),
    "metadata": pack({"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}),
}

bad = { # and a word of what is said about it
    "no_bytes": b"",
    "no_map": pack([1, 2]),
    "twice_over": pack({}) + pack({}),
    "nil": pack({"a": None}),
    "twice": b"\x82\xa1a\x01\xa1a\x02",
    "twice_nested": pack({"a": {"b": 1}, "a/b": 2}),
    "number_key": pack({1: 2}),
    "empty_key": pack({"": 2}),
    "zero_key": pack({"a\0b": 2}),
    "long_key": pack({"k" * 129: 2}),
    "no_utf8": b"\x81\xa1a\xa2\xc3\x28",
    "zero_text": pack({"prompt": "a\0b"}),
    "beyond": pack({"a": 2**63}),
    "extension": b"\x81\xa1a\xd4\x01\x00",
    "list_huge": b"\xdd\xff\xff\xff\xff",
    "map_huge": b"\xdf\xff\xff\xff\xff",
    "list_huge_inside": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "bytes_huge": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "text_huge": b"\x81\xa1a\xdb\xff\xff\xff\xff",
    "shape_huge": b"\x81\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x01x\xc4\x05dtype\xa3|u1\xc4\x05shape\xdd\xff\xff\xff\xff",
    "deep_maps": b"\x81\xa1a" * 100 + b"\x01",
    "deep_lists": b"\x81\xa1a" + b"\x91" * 100000 + b"\x01",
    "deep_numpy": b"\x81\xa1a" + b"\x83\xa1b" * 1000 + b"\x01",
    "list_of_text": pack({"a": ["x"]}),
    "list_empty": pack({"a": []}),
    "list_long": pack({"a": [0] * 4097}),
    "fields_many": pack({f"{i}": i for i in range(65)}),
    "big_endian": pack({"a": np.array([1.0], ">f4")}),
    "half": pack({"a": np.array([1.0], np.float16)}),
    "words": pack({"a": np.array(["ab"])}),
    "objects": pack({"a": array(b"x", "|O", [1])}),
    "dtype_number": pack({"a": array(b"x", 3, [1])}),
    "no_data": pack({"a": {b"__ndarray__": True, b"dtype": "|u1", b"shape": [1]}}),
    "mark_false": pack({"a": {b"__ndarray__": False, b"data": b"x", b"dtype": "|u1", b"shape": [1]}}),
    "data_text": pack({"a": array("x", "|u1", [1])}),
    "shape_short": pack({"a": array(b"xx", "|u1", [1])}),
    "shape_long": pack({"a": array(b"x", "|u1", [2])}),
    "shape_zero": pack({"a": np.zeros((2, 0))}),
    "shape_negative": pack({"a": array(b"x", "|u1", [-1])}),
    "shape_wraps": pack({"a": array(b"xxxx", "<f4", [2**32, 2**32, 1])}),
    "shape_float": pack({"a": array(b"x", "|u1", [1.0])}),
    "shape_five": pack({"a": np.zeros((1, 1, 1, 1, 1))}),
    "shape_number": pack({"a": array(b"x", "|u1", 1)}),
    "truth_two": pack({"a": array(b"\x02", "|b1", [1])}),
    "mark_twice": b"\x81\xa1a\x84\xab__ndarray__\xc3\xab__ndarray__\xc3\xa4data\xc4\x01x\xa5dtype\xa3|u1",
    "scalar_shape": pack({"a": {b"__npgeneric__": True, b"data": 1, b"dtype": "|u1", b"shape": []}}),
    "scalar_nil": pack({"a": {b"__npgeneric__": True, b"data": None, b"dtype": "<f4"}}),
    "scalar_list": pack({"a": {b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"}}),
}

for folder, messages in ("data/wire", good), ("data/wire/bad", bad), ("fuzz/corpus/wire", {**good, **bad}):
    (here / folder).mkdir(parents=True, exist_ok=True)
    for name, message in messages.items():
        if not (folder.startswith("fuzz") and len(message) > 4096):
            (here / folder / f"{name}.msgpack").write_bytes(message)
