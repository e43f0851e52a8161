"""What happens to files: bytes that get lost or altered, and mistakes in text."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

Damage = Callable[[bytes, Random], bytes]

VALUES = ("-1", "0", "nan", ".inf", "1e400", "many", "[]", "{}", "null", "''", "true", "[1, [2]]", "9" * 40, "../../..")
"""What a value of a configuration is replaced by."""

MARKER = "ROBUSTNESS_EXECUTED"
"""File that hostile input makes where it is run."""


def cut(data: bytes, random: Random) -> bytes:
    """The file ends early; sometimes at once."""
    return data[: random.randrange(len(data) + 1) if random.random() < 0.9 else 0]


def flip(data: bytes, random: Random) -> bytes:
    """A few bytes are others."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        changed[random.randrange(len(data))] ^= random.randint(1, 255)
    return bytes(changed)


def head(data: bytes, random: Random) -> bytes:
    """A byte of the header is another."""
    return flip(data[:32], random) + data[32:]


def hole(data: bytes, random: Random) -> bytes:
    """A piece is zeros, as after a crash."""
    start = random.randrange(len(data) + 1)
    length = min(random.randint(1, 4096), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def surplus(data: bytes, random: Random) -> bytes:
    """Something is there that does not belong there."""
    start = random.randrange(len(data) + 1)
    return data[:start] + random.randbytes(random.randint(1, 64)) + data[start:]


BYTES: tuple[Damage, ...] = (cut, flip, head, hole, surplus)


def misspelt(data: bytes, random: Random) -> bytes:
    """A letter of a key is another."""
    return _in_line(data, random, lambda line: re.sub(r"(\w)(\w*:)", rf"{random.choice('xqz')}\2", line, count=1))


def wrong_value(data: bytes, random: Random) -> bytes:
    """A value is of another kind, or out of range."""
    value = random.choice(VALUES)
    return _in_line(data, random, lambda line: re.sub(r":\s*[^:,{}\s][^,}]*", lambda _: f": {value}", line, count=1))


def lost_line(data: bytes, random: Random) -> bytes:
    """A line is gone."""
    return _in_line(data, random, lambda line: "")


def twice(data: bytes, random: Random) -> bytes:
    """A line stands there twice."""
    return _in_line(data, random, lambda line: f"{line}\n{line}")


def indented(data: bytes, random: Random) -> bytes:
    """A line is further in, by a tab or blanks."""
    return _in_line(data, random, lambda line: random.choice(["\t", " ", "   "]) + line)


def tagged(data: bytes, random: Random) -> bytes:
    """A value asks for code to be run."""
    command = f"!!python/object/apply:os.system ['touch {MARKER}']"
    return _in_line(data, random, lambda line: re.sub(r":.*", lambda _: f": {command}", line, count=1))


def nested(data: bytes, random: Random) -> bytes:
    """Lists in lists in lists, or names that stand for ever more."""
    depth = random.randint(10, 2000)
    names = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]" for n in range(12))
    return data + random.choice([f"\nzz: {'[' * depth}{']' * depth}\n", f"\n{names}\n"]).encode()


TEXT: tuple[Damage, ...] = (misspelt, wrong_value, wrong_value, lost_line, twice, indented, tagged, nested, cut, flip)


def _in_line(data: bytes, random: Random, change: Callable[[str], str]) -> bytes:
    lines = data.decode(errors="replace").split("\n")
    places = [n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    if places:
        place = random.choice(places)
        lines[place] = change(lines[place])
    return "\n".join(lines).encode()


def hostile_pickle() -> bytes:
    """A pickle (protocol 0) that runs a command where it is loaded."""
    return f"cposix\nsystem\n(S'touch {MARKER}'\ntR.".encode()
