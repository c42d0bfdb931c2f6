"""The package's mirror of pivot.h is the header: sizes, offsets and kinds of every field, constants, every function.

A C compiler is asked for what the header says; nothing is read off by hand."""

import ctypes
import os
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import SOURCE
from pivot import _library as c
from pivot import errors

HEADER = SOURCE / "include" / "pivot.h"
# Structs and functions that Python has no use for: the log stays on stderr, memory comes from the C library, the clock is
# time.monotonic().
NO_STRUCTS = {"pv_allocator"}
NO_FUNCTIONS = {"pv_clock_ms", "pv_set_log", "pv_set_allocator", "pv_backend_name", "pv_status_text"}

compiler = shlex.split(os.environ.get("CC", "cc"))
pytestmark = pytest.mark.skipif(not shutil.which(compiler[0]), reason="no C compiler")

mirrored = {name: kind for name, kind in vars(c).items() if name.startswith("pv_")}


def preprocessed() -> str:
    return subprocess.run([*compiler, "-E", "-P", HEADER], check=True, capture_output=True, text=True).stdout


def run_c(body: str, folder) -> list[str]:
    source, program = folder / "ask.c", folder / "ask"
    source.write_text(f'#include "{HEADER}"\n#include <stdio.h>\n{body}')
    subprocess.run([*compiler, "-std=c11", "-o", program, source], check=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()


def kind(field_type) -> str:
    """What C's _Generic says of a field of this type."""
    if issubclass(field_type, ctypes.Array):
        return kind(field_type._type_) + "[]"
    if field_type is ctypes.c_char_p:
        return "text"
    if field_type is ctypes.c_void_p or issubclass(field_type, (ctypes._Pointer, ctypes._CFuncPtr)):
        return "pointer"
    names = {
        ctypes.c_bool: "bool",
        ctypes.c_char: "char",
        ctypes.c_double: "double",
        ctypes.c_float: "float",
        ctypes.c_int: "int",
        ctypes.c_int64: "int64",
        ctypes.c_size_t: "uint64",
        ctypes.c_uint64: "uint64",
    }
    return names[field_type]


KIND = """
#define KIND(x) _Generic((x), bool: "bool", char: "char", double: "double", float: "float", int: "int", \\
    unsigned: "int", int64_t: "int64", uint64_t: "uint64", char *: "char[]", const char *: "text", \\
    const char **: "text[]", int64_t *: "int64[]", bool *: "bool[]", int *: "int[]", default: "pointer")
"""  # an enum is an unsigned int to the compiler; arrays become pointers


def test_structs(tmp_path):
    lines = []
    for name, struct in mirrored.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field in struct._fields_:
            of = f"(({name} *)0)->{field[0]}"
            lines.append(
                f'printf("{name}.{field[0]} %zu %zu %s\\n", offsetof({name}, {field[0]}), sizeof({of}), KIND({of}));'
            )
    said = run_c(KIND + "int main(void)\n{\n" + "\n".join(lines) + "\n}\n", tmp_path)
    expected = []
    for name, struct in mirrored.items():
        expected.append(f"{name} {ctypes.sizeof(struct)}")
        for field, of_type, *_ in struct._fields_:
            at = getattr(struct, field)
            expected.append(f"{name}.{field} {at.offset} {at.size} {kind(of_type)}")
    assert said == expected


def test_every_struct_and_field():
    """None is missing: not a struct, not a field, not even one that would fit into padding."""
    found = {}
    for name, body in re.findall(r"typedef struct (pv_\w+) \{(.*?)\} \1;", preprocessed(), re.S):
        fields = []
        for declaration in body.split(";"):
            if "(*" in declaration:
                fields += re.findall(r"\(\*(\w+)\)", declaration)
            else:
                fields += [re.findall(r"\w+", part.split("[")[0])[-1] for part in declaration.split(",") if part.strip()]
        found[name] = fields
    assert set(found) - NO_STRUCTS == set(mirrored)
    for name, struct in mirrored.items():
        assert found[name] == [field[0] for field in struct._fields_], name


def ctype_of(declared: str) -> object:
    """The ctypes class for a type of the header, less `const`."""
    plain = " ".join(declared.replace("const ", "").replace("*", " *").split()).replace("* *", "**")
    simple = {
        "void": None,
        "void *": ctypes.c_void_p,
        "char *": ctypes.c_char_p,
        "int": ctypes.c_int,
        "int *": ctypes.POINTER(ctypes.c_int),
        "float *": ctypes.POINTER(ctypes.c_float),
        "double": ctypes.c_double,
        "double *": ctypes.POINTER(ctypes.c_double),
        "uint32_t": ctypes.c_uint32,
        "uint64_t": ctypes.c_uint64,
        "pv_status": ctypes.c_int,
    }
    if plain in simple:
        return simple[plain]
    name, _, stars = plain.partition(" ")
    if name in mirrored:
        assert stars == "*", declared
        return ctypes.POINTER(mirrored[name])
    return {"*": ctypes.c_void_p, "**": ctypes.POINTER(ctypes.c_void_p)}[stars]


def types_of(arguments: str) -> list:
    """Of a declaration's arguments, which all have names."""
    return [ctype_of(re.match(r"(.*?)\w+$", a.strip()).group(1)) for a in arguments.split(",") if a.strip() != "void"]


def test_progress():
    arguments = re.search(r"typedef void \(\*pv_progress_fn\)\(([^;]*)\);", re.sub(r"\s+", " ", preprocessed())).group(1)
    assert types_of(arguments) == list(c.progress_fn._argtypes_)


def test_every_function():
    text = re.sub(r"\s+", " ", preprocessed())
    text = text.replace('__attribute__((visibility("default")))', "\n@")
    found = {}
    for result, name, arguments in re.findall(r"^@ ([\w *]+?)(pv_\w+)\(([^;]*)\);", text, re.M):
        if name not in NO_FUNCTIONS:
            found[name] = (ctype_of(result), types_of(arguments))
    assert found == c.FUNCTIONS


def test_constants(tmp_path):
    mirrored = {name: value for name, value in vars(c).items() if re.fullmatch(r"[A-Z]\w*", name) and type(value) is int}
    assert len(mirrored) > 10
    printed = "".join(f'printf("%d\\n", PV_{name});\n' for name in mirrored)
    assert run_c(f"int main(void)\n{{\n{printed}}}\n", tmp_path) == [str(value) for value in mirrored.values()]


def test_statuses(tmp_path):
    """Each has a class of its own."""
    said = run_c(
        '#define X(name, text) #name "\\n"\nint main(void) { printf("%s", PV_STATUS_LIST(X)); }\n',
        tmp_path,
    )
    assert said[0] == "OK"
    assert said[1:] == [kind.status for kind in errors.Error.__subclasses__()]
    for i, name in enumerate(said):
        assert c.lib.pv_status_name(i) == name.encode()
