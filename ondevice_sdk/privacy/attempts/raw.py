"""System calls without libc's wrappers, and machine code: what native code could do. x86_64 and aarch64."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Final

from ondevice_sdk.privacy.attempts.attempt import Untestable

# Numbers of x86_64 and aarch64, from the tables of Linux.
NUMBERS: Final[dict[str, tuple[int, int]]] = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "exit": (60, 93),
    "fanotify_init": (300, 262),
    "fcntl": (72, 25),
    "init_module": (175, 105),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "io_uring_enter": (426, 426),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "memfd_create": (319, 279),
    "linkat": (265, 37),
    "mount": (165, 40),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "mq_timedsend": (242, 182),
    "mq_unlink": (241, 181),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "seccomp": (317, 277),
    "semctl": (66, 191),
    "semget": (64, 190),
    "sendmmsg": (307, 269),
    "sendto": (44, 206),
    "setns": (308, 268),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmget": (29, 194),
    "socket": (41, 198),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
HIGH: Final = 1 << 32  # a bit that the kernel drops from arguments of 32 bits, and that a filter may stumble over
_COLUMNS: Final = {"x86_64": 0, "aarch64": 1}

# f(number, a, b, c, d, e): arguments of the C convention moved to those of a system call
_SYSCALL_CODE: Final = {
    "x86_64": bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 4d89c8 0f05 c3"),
    "aarch64": struct.pack(
        "<8I", 0xAA0003E8, 0xAA0103E0, 0xAA0203E1, 0xAA0303E2, 0xAA0403E3, 0xAA0503E4, 0xD4000001, 0xD65F03C0
    ),
}
# f(number, a, b, c) by the interrupt of 32-bit programs: their numbers, their registers
_INT80_CODE: Final = bytes.fromhex("53 89f8 89f3 4189c8 89d1 4489c2 cd80 5b 4898 c3")


def machine() -> str:
    """This machine.

    Raises:
        Untestable: there are no numbers for it.
    """
    name = os.uname().machine
    if name not in _COLUMNS:
        raise Untestable(f"no system-call numbers for {name}")
    return name


def number(name: str) -> int:
    """The number of a system call here."""
    return NUMBERS[name][_COLUMNS[machine()]]


def libc() -> ctypes.CDLL:
    """The C library with errno kept."""
    return ctypes.CDLL(None, use_errno=True)


Word = int | bytes | ctypes.Array[ctypes.c_char] | ctypes.Structure | None


def _word(value: Word) -> object:
    if isinstance(value, int):
        return ctypes.c_long(value)
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


def numbered(number: int, *words: Word) -> int:
    """Make a system call by its number.

    Raises:
        OSError: as the kernel says.
    """
    call = libc().syscall
    call.restype = ctypes.c_long
    ctypes.set_errno(0)
    result: int = call(ctypes.c_long(number), *map(_word, words))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(name: str, *words: Word) -> int:
    """Make a system call by its name."""
    return numbered(number(name), *words)


class Code:
    """A page of machine code; called with whole numbers it gives what the kernel gave, -errno included."""

    def __init__(self, code: bytes, *, low: bool = False) -> None:
        """Write it. `low`: below 4 GB, as 32-bit calls need it for what they point to."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x40 if low else 0)  # MAP_32BIT
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(code)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def __call__(self, *words: int) -> int:
        """Run it."""
        function = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * len(words))(self.address)
        result: int = function(*words)
        return result


def syscall_code() -> Code:
    """Machine code that makes the system call it is asked for, past every library."""
    return Code(_SYSCALL_CODE[machine()])


def int80_code() -> Code:
    """Machine code that makes a 32-bit system call from a 64-bit program, with half a page free for arguments.

    Raises:
        Untestable: not x86.
    """
    if machine() != "x86_64":
        raise Untestable("only x86 has this way into the kernel")
    return Code(_INT80_CODE, low=True)


def checked(result: int) -> int:
    """The result of machine code.

    Raises:
        OSError: it was -errno.
    """
    if -4096 < result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def read(path: str) -> bytes:
    """The beginning of a file."""
    with open(path, "rb") as file:
        return file.read(1 << 16)


def loopback4(port: int) -> bytes:
    """`struct sockaddr_in` of a port on 127.0.0.1."""
    return struct.pack("=H", 2) + struct.pack("!H4s8x", port, bytes((127, 0, 0, 1)))


def iovec(buffers: Sequence[tuple[int, int]]) -> bytes:
    """`struct iovec[]` of addresses and sizes."""
    return b"".join(struct.pack("=QQ", address, size) for address, size in buffers)
