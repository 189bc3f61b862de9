"""Sockets by native code: past Python, past libc, past the usual numbers and the usual machine mode."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from typing import Final

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach, Untestable

GROUP = Group("native")
_INET: Final = 2
_STREAM: Final = 1
_KNOWN: Final = range(463, 470)  # newer than the reviewed table, and known to do nothing when all arguments are 0
_UNREVIEWED: Final = range(463, 1100)
_OP_SOCKET, _OP_CONNECT, _OP_SEND = 45, 16, 26


def _close(descriptor: int) -> bool:
    """Whether it was a descriptor; closed."""
    os.close(raw.checked(descriptor))
    return True


def _failed(result: int) -> int:
    """The result of a function of libc.

    Raises:
        OSError: it was -1.
    """
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@GROUP()
def ctypes_socket(reach: Reach) -> Outcome:
    """`socket` of the C library."""
    return _close(_failed(raw.libc().socket(_INET, _STREAM, 0)))


@GROUP("contact")
def ctypes_connect(reach: Reach) -> Outcome:
    """`socket`, `connect` and `send` of the C library."""
    library = raw.libc()
    descriptor = _failed(library.socket(_INET, _STREAM, 0))
    _failed(library.connect(descriptor, raw.loopback4(reach.tcp4), 16))
    _failed(library.send(descriptor, reach.message, len(reach.message), 0))
    os.close(descriptor)
    return None


@GROUP("contact")
def libc_syscall(reach: Reach) -> Outcome:
    """System calls by their numbers."""
    descriptor = raw.call("socket", _INET, _STREAM, 0)
    raw.call("connect", descriptor, raw.loopback4(reach.tcp4), 16)
    os.write(descriptor, reach.message)
    os.close(descriptor)
    return None


@GROUP("contact")
def sendmmsg_udp(reach: Reach) -> Outcome:
    """Datagrams in bulk by sendmmsg."""
    descriptor = raw.call("socket", _INET, 2, 0)
    name = ctypes.create_string_buffer(raw.loopback4(reach.udp4), 16)
    text = ctypes.create_string_buffer(reach.message, len(reach.message))
    vector = ctypes.create_string_buffer(raw.iovec([(ctypes.addressof(text), len(reach.message))]), 16)
    header = struct.pack("=QI4xQQQQi4xI4x", ctypes.addressof(name), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
    raw.call("sendmmsg", descriptor, header, 1, 0)
    os.close(descriptor)
    return None


@GROUP()
def machine_code_syscall(reach: Reach) -> Outcome:
    """A system call by machine code written into memory."""
    return _close(raw.syscall_code()(raw.number("socket"), _INET, _STREAM, 0, 0, 0))


@GROUP()
def high_bits_number(reach: Reach) -> Outcome:
    """The number of `socket` with a bit above the 32 that the kernel looks at."""
    if platform.machine() != "x86_64":
        raise Untestable("a trick of x86")
    code = raw.Code(bytes.fromhex("48b8") + struct.pack("<Q", 41 | raw.HIGH) + bytes.fromhex("31d2 0f05 c3"))
    return _close(code(_INET, _STREAM))


@GROUP()
def int80_socket(reach: Reach) -> Outcome:
    """`socket` by the interrupt of 32-bit programs, where it has another number."""
    return _close(raw.int80_code()(359, _INET, _STREAM, 0))


@GROUP()
def int80_socketcall(reach: Reach) -> Outcome:
    """`socketcall`, the one door to all socket calls of 32-bit programs."""
    code = raw.int80_code()
    code.memory[2048 : 2048 + 12] = struct.pack("=3I", _INET, _STREAM, 0)
    return _close(code(102, 1, code.address + 2048, 0))


@GROUP()
def x32_socket(reach: Reach) -> Outcome:
    """`socket` with the number of the x32 programs."""
    if platform.machine() != "x86_64":
        raise Untestable("a trick of x86")
    return _close(raw.numbered(0x40000000 | 41, _INET, _STREAM, 0))


@GROUP()
def high_bits_domain(reach: Reach) -> Outcome:
    """A family with a bit above the 32 that the kernel looks at."""
    return _close(raw.syscall_code()(raw.number("socket"), _INET | raw.HIGH, _STREAM, 0, 0, 0))


@GROUP()
def io_uring(reach: Reach) -> Outcome:
    """A ring through which the kernel opens sockets with no call to `socket`."""
    return _close(raw.call("io_uring_setup", 8, ctypes.create_string_buffer(120)))


@GROUP("contact")
def io_uring_socket(reach: Reach) -> Outcome:
    """Socket, connection and sending, all of it by ring."""
    parameters = ctypes.create_string_buffer(120)
    ring = raw.call("io_uring_setup", 8, parameters)
    submission = struct.unpack_from(
        "=10I", parameters, 40
    )  # head, tail, ring_mask, ring_entries, flags, dropped, array
    completion = struct.unpack_from("=10I", parameters, 80)  # head, tail, ring_mask, ring_entries, overflow, cqes
    entries = struct.unpack_from("=2I", parameters, 0)
    shared = mmap.MAP_SHARED
    queue = mmap.mmap(ring, submission[6] + 4 * entries[0], shared, offset=0)
    answers = mmap.mmap(ring, completion[5] + 16 * entries[1], shared, offset=0x8000000)
    slots = mmap.mmap(ring, 64 * entries[0], shared, offset=0x10000000)
    address = ctypes.create_string_buffer(raw.loopback4(reach.tcp4), 16)
    text = ctypes.create_string_buffer(reach.message, len(reach.message))

    def ask(operation: int, descriptor: int, offset: int, where: int, length: int) -> int:
        slots[0:64] = struct.pack("=BBHiQQI", operation, 0, 0, descriptor, offset, where, length).ljust(64, b"\0")
        (tail,) = struct.unpack_from("=I", queue, submission[1])
        struct.pack_into("=I", queue, submission[6] + 4 * (tail & (entries[0] - 1)), 0)
        struct.pack_into("=I", queue, submission[1], tail + 1)
        raw.call("io_uring_enter", ring, 1, 1, 1, None, 0)  # wait for one
        (head,) = struct.unpack_from("=I", answers, completion[0])
        (result,) = struct.unpack_from("=i", answers, completion[5] + 16 * (head & (entries[1] - 1)) + 8)
        struct.pack_into("=I", answers, completion[0], head + 1)
        return raw.checked(result)

    made = ask(_OP_SOCKET, _INET, _STREAM, 0, 0)
    ask(_OP_CONNECT, made, 16, ctypes.addressof(address), 0)
    ask(_OP_SEND, made, 0, ctypes.addressof(text), len(reach.message))
    os.close(made)
    os.close(ring)
    return None


@GROUP()
def native_ext_thread(reach: Reach) -> Outcome:
    """A socket on a thread that native code started and Python knows nothing of."""
    if platform.machine() == "x86_64":  # socket(AF_INET, SOCK_STREAM, 0), and return
        words = bytes.fromhex("bf02000000 be01000000 31d2 b829000000 0f05 c3")
    else:
        words = struct.pack("<6I", 0xD2800040, 0xD2800021, 0xD2800002, 0xD28018C8, 0xD4000001, 0xD65F03C0)
        raw.machine()
    code = raw.Code(words)
    library = raw.libc()
    thread, result = ctypes.c_ulong(), ctypes.c_long()
    failed = library.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(code.address), None)
    if failed:
        raise OSError(failed, os.strerror(failed))
    library.pthread_join(thread, ctypes.byref(result))
    return _close(result.value)


@GROUP()
def unreviewed_syscalls(reach: Reach) -> Outcome:
    """Every system call newer than the reviewed table, with empty arguments; unsandboxed only those that are known."""
    answered = []
    for number in _KNOWN if reach.control else _UNREVIEWED:
        try:
            raw.numbered(number, 0, 0, 0, 0, 0, 0)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EPERM):
                continue
        answered.append(number)
    return bool(answered)
