"""Freed memory is taken again without the kernel's help."""

import platform
import subprocess
import sys

import pytest

ROUNDS, MEBIBYTES = 20, 24

# Tells the pages that the kernel had to bring in while large blocks were taken, written to and freed again and again.
PROGRAM = f"""
import ctypes, resource, sys
from generative.allocator import keep_freed_memory

if "keep" in sys.argv:
    assert keep_freed_memory()
libc, size = ctypes.CDLL(None), {MEBIBYTES} * 2**20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def once():
    blocks = [libc.malloc(size) for _ in range(3)]
    for block in blocks:
        libc.memset(block, 1, size)
    for block in blocks:
        libc.free(block)

for _ in range(3):
    once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_come_back_without_page_faults():
    assert faults("keep") < ROUNDS
    # Without it each round fetches what it had: the test would otherwise tell nothing.
    assert faults() > ROUNDS
