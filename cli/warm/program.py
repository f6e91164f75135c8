"""The program that a container of any image can be started with: it waits until it is killed, and does nothing else. Pure.

An image need not have a shell, nor anything that runs for long. So its container is given a program of its own, by a ConfigMap:
an ELF executable (System V ABI, generic and processor supplements) of one segment and some 200 bytes, which needs no library.
"""

from __future__ import annotations

import struct

_X86_64, _AARCH64 = 62, 183
"""e_machine."""
_AMD64_WAITS = bytes.fromhex(
    "b822000000"  # again: mov eax, 34 (pause)
    "0f05"  #              syscall
    "ebf7"  #              jmp again, after a signal
)
_ARM64_WAITS = struct.pack(
    "<7I",
    0xD2800928,  #        mov x8, 73 (ppoll; there is no pause)
    0xD2800000,  # again: mov x0, 0, which the last answer has overwritten: no descriptors,
    0xD2800001,  #        mov x1, 0                                         none of them,
    0xD2800002,  #        mov x2, 0                                         no end in time,
    0xD2800003,  #        mov x3, 0                                         signals as they are
    0xD4000001,  #        svc 0
    0x17FFFFFB,  #        b again
)

_ADDRESS = 0x400000
_HEADER_BYTES, _SEGMENT_BYTES = 64, 56
_READ_EXECUTE, _READ_WRITE = 5, 6
_LOAD, _STACK = 1, 0x6474E551
_PAGE_BYTES = 1 << 16
"""The largest that either processor has."""


def _executable(machine: int, code: bytes) -> bytes:
    begin = _HEADER_BYTES + 2 * _SEGMENT_BYTES
    size = begin + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1])  # 64 bits, little-endian, version 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(identity, 2, machine, 1),  # a program with a fixed address
        *(_ADDRESS + begin, _HEADER_BYTES, 0, 0),
        *(_HEADER_BYTES, _SEGMENT_BYTES, 2, 0, 0, 0),
    )
    everything = struct.pack("<IIQQQQQQ", _LOAD, _READ_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _PAGE_BYTES)
    stack = struct.pack("<IIQQQQQQ", _STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)  # nothing is executed there
    return header + everything + stack + code


PROGRAMS = {"amd64": _executable(_X86_64, _AMD64_WAITS), "arm64": _executable(_AARCH64, _ARM64_WAITS)}
"""By the architecture, as nodes call theirs."""
