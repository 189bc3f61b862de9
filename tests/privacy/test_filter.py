"""The filters, run by an interpreter of classic BPF: for both machines, on any machine."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from ondevice_sdk.privacy.sandbox import calls
from ondevice_sdk.privacy.sandbox.filter import (
    ABSENT,
    ALLOW,
    REFUSE,
    TELL,
    Instruction,
    Program,
    assemble,
    first_filter,
    offline_filter,
    second_filter,
)
from ondevice_sdk.privacy.sandbox.kernel import MACHINES

X86_64, AARCH64, I386, ARM, RISCV64 = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028, 0xC00000F3
PID = 4711
ARCHES = sorted(MACHINES)

# Written down again from the kernel's tables, so that a slip in one of the two lists is seen.
NUMBERS = {
    "x86_64": {
        *(29, 30, 31, 41, 42, 43, 44, 45, 47, 49, 50, 53, 54, 57, 58, 59, 64, 65, 66, 67, 68, 69, 70, 71),
        *(90, 91, 92, 93, 94, 101, 103, 109, 112, 126, 132, 133, 134, 141, 153, 154, 155, 156, 159, 161, 163, 164),
        *(
            165,
            166,
            167,
            168,
            169,
            170,
            171,
            172,
            173,
            175,
            176,
            179,
            180,
            188,
            189,
            190,
            191,
            192,
            193,
            194,
            195,
            196,
            197,
            198,
            199,
            200,
        ),
        *(212, 220, 227, 235, 240, 241, 242, 243, 244, 245, 246, 248, 249, 250, 251, 253, 254, 259, 260, 261, 268),
        *(272, 280, 288, 294, 298, 299, 300, 301, 303, 304, 305, 307, 308, 310, 311, 312, 313, 320, 321, 322, 323),
        *(424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 443, 448, 452, 457, 458, 460),
    },
    "aarch64": {
        *(
            5,
            6,
            7,
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            15,
            16,
            18,
            26,
            27,
            30,
            33,
            39,
            40,
            41,
            42,
            51,
            52,
            53,
            54,
            55,
            58,
            60,
            88,
            89,
            91,
            97,
        ),
        *(104, 105, 106, 112, 116, 117, 130, 140, 142, 154, 157, 161, 162, 170, 171, 180, 181, 182, 183, 184, 185),
        *(186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200, 201, 202, 203, 206, 207, 208),
        *(212, 217, 218, 219, 221, 224, 225, 241, 242, 243, 262, 263, 264, 265, 266, 268, 269, 270, 271, 272, 273),
        *(280, 281, 282, 294, 424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 443, 448),
        *(452, 457, 458, 460),
    },
}
GAPS = {"x86_64": {*range(335, 424)}, "aarch64": {*range(244, 260), *range(295, 424)}}
# Depend on their arguments: clone, prctl, ioctl, fcntl, personality, kill and the like, prlimit64, sched_set*, ...
DEPEND = {
    "x86_64": {16, 56, 62, 72, 129, 135, 142, 144, 157, 203, 234, 256, 279, 297, 302, 314},
    "aarch64": {25, 29, 92, 118, 119, 122, 129, 131, 138, 167, 220, 238, 239, 240, 261, 274},
}
HIGH = 1 << 32


def interpret(program: Sequence[Instruction], number: int, arch: int, *arguments: int) -> int:
    """Run the instructions that the filter uses, as linux/filter.h defines them."""
    words = [value & (2**64 - 1) for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
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
            case 0x35:
                at += jump_true if accumulator >= value else jump_false
            case 0x45:
                at += jump_true if accumulator & value else jump_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def ask(machine: str, name: str, *arguments: int, tell: bool = False) -> int:
    arch, column = MACHINES[machine]
    return interpret(first_filter(machine, PID, tell=tell), calls.number(name, column), arch, *arguments)


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(("tell", "no"), [(False, REFUSE), (True, TELL)])
def test_every_number(machine: str, tell: bool, no: int) -> None:
    program, arch = first_filter(machine, PID, tell=tell), MACHINES[machine].arch
    answers = {number: interpret(program, number, arch, PID) for number in range(calls.LAST + 1)}
    assert {n for n, answer in answers.items() if answer == no} - DEPEND[machine] == NUMBERS[machine]
    assert {n for n, answer in answers.items() if answer == ABSENT} == {435} | GAPS[machine]
    assert set(answers.values()) == {ALLOW, no, ABSENT}


@pytest.mark.parametrize("machine", ARCHES)
def test_the_second_filter(machine: str) -> None:
    program, arch = second_filter(machine), MACHINES[machine].arch
    refused = {number for number in range(600) if interpret(program, number, arch) == REFUSE}
    assert refused == {"x86_64": {46, 317}, "aarch64": {211, 277}}[machine]


@pytest.mark.parametrize("machine", ARCHES)
def test_the_filter_of_makers_refuses_new_sockets_and_nothing_else(machine: str) -> None:
    program, arch = offline_filter(machine), MACHINES[machine].arch
    answers = {number: interpret(program, number, arch) for number in range(calls.LAST + 1)}
    sockets = {"x86_64": {41, 425}, "aarch64": {198, 425}}[machine]
    assert {number for number, answer in answers.items() if answer == REFUSE} == sockets
    assert {answer for number, answer in answers.items() if number not in sockets} == {ALLOW}
    assert {interpret(program, 0x40000000 | number, arch) for number in range(1024)} == {ABSENT}  # x32


@pytest.mark.parametrize("machine", ARCHES)
def test_numbers_that_nobody_has_reviewed_do_not_exist(machine: str) -> None:
    program = first_filter(machine, PID, tell=True)
    newer = [*range(463, 5000), 2**16, 2**30 - 1, 2**31 - 1, 2**31, 2**32 - 1]
    assert {interpret(program, number, MACHINES[machine].arch) for number in newer} == {ABSENT}


def test_x32_numbers_do_not_exist() -> None:
    program = first_filter("x86_64", PID, tell=True)
    assert {interpret(program, 0x40000000 | number, X86_64) for number in range(1024)} == {ABSENT}


@pytest.mark.parametrize("machine", ARCHES)
def test_a_foreign_abi_is_refused_whatever_the_number(machine: str) -> None:
    programs: list[tuple[Program, int]] = [
        (first_filter(machine, PID, tell=False), REFUSE),
        (first_filter(machine, PID, tell=True), TELL),
        (second_filter(machine), REFUSE),
        (offline_filter(machine), REFUSE),
    ]
    for arch in {X86_64, AARCH64, I386, ARM, RISCV64, 0, 2**32 - 1} - {MACHINES[machine].arch}:
        for program, no in programs:
            assert {interpret(program, number, arch) for number in [*range(1024), 2**30, 2**32 - 1]} == {no}


THREAD = 0x3D0F00  # what the C library passes for a thread
NAMESPACES = (0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000)


@pytest.mark.parametrize("machine", ARCHES)
def test_threads_may_be_made_and_processes_not(machine: str) -> None:
    assert ask(machine, "clone", THREAD) == ALLOW
    for flags in (0, 17, 0x01200011, 0x4111, THREAD & ~0x10000, HIGH << 16, 17 | HIGH):
        assert ask(machine, "clone", flags) == REFUSE
    for new in NAMESPACES:
        assert ask(machine, "clone", THREAD | new) == REFUSE
    assert ask(machine, "clone3", 0, 88) == ABSENT


@pytest.mark.parametrize("machine", ARCHES)
def test_options_of_this_process(machine: str) -> None:
    for option in (22, 0x59616D61, 35, 62):
        for value in (option, option | HIGH, option | 0xFFFFFFFF << 32):
            assert ask(machine, "prctl", value, 1) == REFUSE
    assert ask(machine, "prctl", 4, 0) == ALLOW
    for value in (1, 2, 1 | HIGH, 2**32 - 1):
        assert ask(machine, "prctl", 4, value) == REFUSE
        assert ask(machine, "prctl", 4 | HIGH, value) == REFUSE
    for harmless in (15, 16, 38, 39, 0x53564D41):  # names, no new privileges, names of memory
        assert ask(machine, "prctl", harmless, 1) == ALLOW


@pytest.mark.parametrize("machine", ARCHES)
def test_nothing_is_typed_into_a_terminal_and_nobody_signalled_by_a_descriptor(machine: str) -> None:
    for command in (0x5412, 0x541C, 0x541D, 0x8901, 0x8902):
        for value in (command, command | HIGH, command | 0xFFFFFFFF << 32):
            assert ask(machine, "ioctl", 0, value) == REFUSE
    assert ask(machine, "ioctl", 0, 0x5401) == ALLOW
    for command in (8, 10, 15):
        assert ask(machine, "fcntl", 0, command | HIGH) == REFUSE
    for command in (0, 1, 2, 3, 4, 1030):
        assert ask(machine, "fcntl", 0, command) == ALLOW


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize("name", ["kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"])
def test_signals_go_to_this_process_only(machine: str, name: str) -> None:
    assert ask(machine, name, PID, 6) == ALLOW
    assert ask(machine, name, PID | HIGH, 6) == ALLOW  # the kernel sees the low half only
    for pid in (0, 1, -1, -PID, PID + 1, PID << 32):
        assert ask(machine, name, pid, 6) == REFUSE


@pytest.mark.parametrize("machine", ARCHES)
@pytest.mark.parametrize(
    "name",
    [
        "prlimit64",
        "sched_setaffinity",
        "sched_setscheduler",
        "sched_setparam",
        "sched_setattr",
        "migrate_pages",
        "move_pages",
    ],
)
def test_limits_and_schedules_of_this_process_only(machine: str, name: str) -> None:
    assert ask(machine, name, 0) == ALLOW
    assert ask(machine, name, PID) == ALLOW
    for pid in (1, -1, PID + 1, 1 | HIGH):
        assert ask(machine, name, pid) == REFUSE


@pytest.mark.parametrize("machine", ARCHES)
def test_sockets_whatever_the_arguments(machine: str) -> None:
    for family in [*range(64), 2 | HIGH, -1]:
        assert ask(machine, "socket", family, 1, 0, tell=True) == TELL
    assert ask(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert ask(machine, "personality", 0x0040000) == REFUSE


# What an inference library cannot do without: read, write, mmap, mprotect, futex, openat, exit_group, sched_yield.
NEEDED = {"x86_64": (0, 1, 9, 10, 202, 257, 231, 24), "aarch64": (63, 64, 222, 226, 98, 56, 94, 124)}


@pytest.mark.parametrize("machine", ARCHES)
def test_what_is_needed_is_allowed(machine: str) -> None:
    program = first_filter(machine, PID, tell=True)
    assert {interpret(program, number, MACHINES[machine].arch) for number in NEEDED[machine]} == {ALLOW}


@pytest.mark.parametrize("machine", ARCHES)
def test_the_programs_are_well_formed(machine: str) -> None:
    for program in (first_filter(machine, PID, tell=True), second_filter(machine), offline_filter(machine)):
        assert len(assemble(program)) == 8 * len(program)
        assert len(program) < 4096
        for at, instruction in enumerate(program):
            assert 0 <= instruction.jump_true < 256
            assert 0 <= instruction.jump_false < 256
            if instruction.code & 7 == 5:
                assert at + 1 + max(instruction.jump_true, instruction.jump_false) < len(program)
        assert program[-1].code == 6


def test_no_call_is_in_two_tables_and_no_number_twice() -> None:
    tables = (calls.REFUSED, calls.REFUSED_AFTER, calls.ABSENT, calls.CONDITIONAL)
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    for column in range(2):
        numbers = [number for table in tables for number in calls.numbers(table, column)]
        assert len(numbers) == len(set(numbers))
        assert max(numbers) <= calls.LAST
