"""The filter, run by an interpreter of classic BPF: for both machines, on any machine."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import pytest

from ondevice_sdk.privacy import seccomp
from ondevice_sdk.privacy.seccomp import ALLOW, MACHINES, REFUSE, REFUSED, UNKNOWN, Instruction

X86_64, AARCH64, I386, ARM, RISCV64 = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028, 0xC00000F3

# Written down again from the kernel's tables, so that a slip in one of the two lists is seen.
NUMBERS = {
    "x86_64": {41, 53, 59, 101, 248, 249, 250, 310, 311, 322, 425, 426, 427, 438},
    "aarch64": {117, 198, 199, 217, 218, 219, 221, 270, 271, 281, 425, 426, 427, 438},
}
# What an inference library cannot do without: read, write, mmap, clone, futex, openat, exit_group.
NEEDED = {"x86_64": (0, 1, 9, 56, 202, 257, 231), "aarch64": (63, 64, 222, 220, 98, 56, 94)}


def interpret(program: Sequence[Instruction], number: int, arch: int) -> int:
    """Run the four instructions that the filter uses, as linux/filter.h defines them."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *([0] * 6))
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, value = program[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += jump_true if accumulator == value else jump_false
            case 0x25:
                at += jump_true if accumulator > value else jump_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize("machine", MACHINES)
def test_every_reviewed_number(machine: str) -> None:
    program = seccomp.build_filter(machine)
    refused = {
        number
        for number in range(seccomp.LAST_REVIEWED + 1)
        if interpret(program, number, MACHINES[machine].arch) != ALLOW
    }
    assert refused == NUMBERS[machine]
    assert all(interpret(program, number, MACHINES[machine].arch) == REFUSE for number in refused)
    assert all(interpret(program, number, MACHINES[machine].arch) == ALLOW for number in NEEDED[machine])


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_that_nobody_has_reviewed_do_not_exist(machine: str) -> None:
    program = seccomp.build_filter(machine)
    newer = [*range(463, 5000), 2**16, 2**30 - 1, 2**31 - 1, 2**31, 2**32 - 1]
    assert {interpret(program, number, MACHINES[machine].arch) for number in newer} == {UNKNOWN}


def test_x32_numbers_do_not_exist() -> None:
    program = seccomp.build_filter("x86_64")
    assert {interpret(program, 0x40000000 | number, X86_64) for number in range(1024)} == {UNKNOWN}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_abi_is_refused_whatever_the_number(machine: str) -> None:
    program = seccomp.build_filter(machine)
    for arch in {X86_64, AARCH64, I386, ARM, RISCV64, 0, 2**32 - 1} - {MACHINES[machine].arch}:
        assert {interpret(program, number, arch) for number in [*range(1024), 2**30, 2**32 - 1]} == {REFUSE}


def test_the_answers_are_errors_with_the_right_number() -> None:
    assert REFUSE & 0xFFFF == errno.EPERM
    assert UNKNOWN & 0xFFFF == errno.ENOSYS
    assert REFUSE >> 16 == UNKNOWN >> 16 == 5


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_well_formed(machine: str) -> None:
    program = seccomp.build_filter(machine)
    data = seccomp.assemble(program)
    assert len(data) == 8 * len(program)
    assert struct.unpack("=HBBI", data[8:16]) == (0x15, 1, 0, MACHINES[machine].arch)
    assert all(0 <= i.jump_true < 256 and 0 <= i.jump_false < 256 for i in program)
    assert len(seccomp.digest(program)) == 64
    assert len(REFUSED) == len(NUMBERS[machine])


def test_nothing_is_refused_here_without_a_filter() -> None:
    """The positive control of `prove`: unsealed, at least the plain sockets can be had."""
    attempts = dict(seccomp.prove())
    assert attempts["socket AF_INET"] is False
    assert attempts["socket AF_UNIX"] is False
    assert attempts["execve"] is False
