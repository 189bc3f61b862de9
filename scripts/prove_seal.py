"""Tries to break the seal as four identities: `python scripts/prove_seal.py [--identity 1 2 3 4] [--quick] [--json]`.

1. this user, as it is;
2. a user without privileges (65534);
3. and 4.: both once more with what a container engine leaves them by default: its system-call filter, 14 capabilities
   at most, own namespaces, /proc and /sys mostly read-only. Emulated by this script, without control groups, AppArmor.

Everything happens in processes and namespaces that end with it. Exit code 1: something escaped, or something was left
behind on the machine. 2: an identity could not be tried here (the others need the administrator).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

NOBODY: Final = 65534
PR_SET_PDEATHSIG: Final = 1
TIMEOUT_S: Final = 900.0
NEEDED: Final = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")


class Identity(NamedTuple):
    """Who tries."""

    name: str
    user: int | None  # to become; None: stay
    container: bool


IDENTITIES: Final = (
    Identity(f"this user ({os.geteuid()})", None, False),
    Identity(f"user {NOBODY}", NOBODY, False),
    Identity(f"user {os.geteuid()} in a container", None, True),
    Identity(f"user {NOBODY} in a container", NOBODY, True),
)


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = range(1, len(IDENTITIES) + 1)
    arguments.add_argument("--identity", nargs="+", type=int, choices=numbers, default=numbers, help="these only")
    arguments.add_argument(
        "--quick", action="store_true", help="leave out attempts that may make the kernel load modules"
    )
    arguments.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments.add_argument("--only", nargs="+", metavar="ID", help="these attempts only")
    chosen = arguments.parse_args()
    before = on_machine()
    with readable() as (python, path):
        wanted = [IDENTITIES[number - 1] for number in chosen.identity]
        results = {who.name: prove(who, python, path, chosen.only, not chosen.quick) for who in wanted}
    left = [*left_behind(before), *(path for result in results.values() for path in result["left_behind"])]
    if chosen.json:
        print(json.dumps({"identities": results, "left_behind": left}, indent=2))
    else:
        show(results, left)
    tried = [result["trials"] for result in results.values() if result["trials"]]
    if left or any(trials["escaped"] for trials in tried):
        return 1
    return 0 if len(tried) == len(results) else 2


def show(results: dict[str, dict[str, Any]], left: Sequence[str]) -> None:
    """One row for each identity, then the names."""
    titles = ("tried", "control succeeded", "refused", "escaped", "known gaps", "not testable", "seconds")
    width = max(map(len, results))
    print(f"{'identity':{width}}  {'  '.join(titles)}")
    for name, result in results.items():
        if not (trials := result["trials"]):
            print(f"{name:{width}}  not tried: {result['reason']}")
            continue
        counts = (
            *(trials[key] for key in ("tried", "control_succeeded", "refused")),
            *(len(trials[key]) for key in ("escaped", "residual", "not_testable")),
            trials["seconds"],
        )
        cells = (f"{count:>{len(title)}}" for title, count in zip(titles, counts, strict=True))
        print(f"{name:{width}}  {'  '.join(cells)}")
    for name, result in results.items():
        for title, key in (("ESCAPED", "escaped"), ("known gaps", "residual"), ("not testable", "not_testable")):
            if result["trials"] and result["trials"][key]:
                print(f"\n{name}, {title}: {', '.join(result['trials'][key])}")
    print(f"\nleft behind: {', '.join(left) or 'nothing'}")


# --- the side that stays as it is -------------------------------------------------------------------------------------


@contextlib.contextmanager
def readable() -> Iterator[tuple[str | None, str]]:
    """A Python that every user can start, None if there is none, and a copy of the modules that every user can read."""
    import ondevice_sdk

    with tempfile.TemporaryDirectory(prefix="prove-seal-") as name:
        folder = Path(name)
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(ondevice_sdk.__file__).parent, folder / "ondevice_sdk", ignore=skip)
        for needed in NEEDED:
            spec = importlib.util.find_spec(needed)
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin)
            if source.name == "__init__.py":
                shutil.copytree(source.parent, folder / needed, ignore=skip)
            else:
                shutil.copy(source, folder)
        shutil.copy(__file__, folder)
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        candidates = (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}")
        yield next(filter(_for_everybody, candidates), None), name


def _for_everybody(python: str) -> bool:
    """Whether everybody can start it, and it is of the version that the modules were compiled for."""
    real = Path(python).resolve()
    if not real.exists() or not all(folder.stat().st_mode & stat.S_IXOTH for folder in (real, *real.parents)):
        return False
    done = subprocess.run(
        [python, "-IS", "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
    )
    return done.stdout.strip() == str(sys.version_info[:2])


def prove(who: Identity, python: str | None, copy: str, only: Sequence[str] | None, full: bool) -> dict[str, Any]:
    """Have an identity try; `trials` is None where it cannot be tried, and `reason` says why."""
    failed: dict[str, Any] = {"trials": None, "left_behind": []}
    script, path = f"{copy}/{Path(__file__).name}", [copy]
    if who.user is None:
        python, script, path = sys.executable, str(Path(__file__).resolve()), sys.path
    elif python is None:
        return {**failed, "reason": f"every Python {sys.version_info[:2]} here is in a private directory"}
    print(f"{who.name} ...", file=sys.stderr, flush=True)
    order = {"user": who.user, "container": who.container, "path": path, "only": only, "full": full}
    with tempfile.TemporaryDirectory(prefix="prove-seal-") as temporary:  # not below what workers may read
        Path(temporary).chmod(0o1777)
        done = subprocess.run(
            [python, "-I", script, "--become", json.dumps(order)],
            env={"PATH": os.defpath, "HOME": temporary, "TMPDIR": temporary},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        left = sorted(str(entry) for entry in Path(temporary).iterdir())
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        return {**failed, "reason": f"exit code {done.returncode}: {' '.join(last)}"}
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "left_behind": left}


def on_machine() -> set[str]:
    """What an attempt could have left or changed."""
    found = {str(path) for folder in ("/tmp", "/dev/shm") for path in Path(folder).iterdir() if _ours(path.name)}
    found |= {f"control group {path}" for path in Path("/sys/fs/cgroup").glob("**/ondevice-*")}
    for kind in Path("/proc/sysvipc").glob("*"):
        keys = (line.split()[0] for line in kind.read_text().splitlines()[1:])
        found |= {f"{kind.name} {key}" for key in keys if int(key) >> 16 == 0x0D0C}
    found.add(f"host name {os.uname().nodename}")
    found.add(f"core pattern {Path('/proc/sys/kernel/core_pattern').read_text().strip()}")
    found |= {f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return found


def _ours(name: str) -> bool:
    """Whether an attempt names what it makes like this; workers and ranges are in a folder of their own."""
    return re.fullmatch(r"ondevice-[0-9a-f]{16}", name) is not None


def left_behind(before: set[str]) -> list[str]:
    """What is new and stays so: what others on this machine made meanwhile comes and goes."""
    new = on_machine() - before
    deadline = time.monotonic() + 20
    while new and time.monotonic() < deadline:
        time.sleep(0.2)
        new &= on_machine()
    return sorted(new)


# --- the side that becomes somebody else ------------------------------------------------------------------------------


def become(order: dict[str, Any]) -> None:
    """Take the identity on, and start anew in it: a process that changed its user is no ordinary one."""
    sys.path[:0] = order["path"]  # before what is installed
    from ondevice_sdk.privacy.sandbox import kernel

    if order["container"]:
        enter_namespaces()
        contained_calls()
        few_capabilities()
    if order["user"] is not None:
        os.setgroups([])
        os.setresgid(*[order["user"]] * 3)
        os.setresuid(*[order["user"]] * 3)
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user unsets it, so as late as this
    os.execv(sys.executable, [sys.executable, "-I", __file__, "--try", json.dumps(order)])


def attempt(order: dict[str, Any]) -> None:
    """Make the attempts; who we are is told by the kernel."""
    sys.path[:0] = order["path"]  # before what is installed
    from ondevice_sdk.errors import OnDeviceError
    from ondevice_sdk.runtime.probe_worker import run_in_worker
    from ondevice_sdk.trials import run_trials

    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    words = ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    told: dict[str, Any] = {"pid": os.getpid(), **{word: status[word] for word in words}, "trials": None, "reason": ""}
    try:
        report = run_in_worker("ondevice_sdk.privacy.attempts.inside:answer", privacy="strict").report
        told["mechanisms"] = {mechanism.name: mechanism.state for mechanism in report.mechanisms}
        told["trials"] = dataclasses.asdict(run_trials(order["only"], full=order["full"]))
    except OnDeviceError as error:
        told["reason"] = " ".join([str(error), *getattr(error, "reasons", ())])
    print(json.dumps(told))


# Capabilities that a container gets: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
# net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap (capabilities(7)).
KEPT: Final = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)
# What a container engine's default filter does not allow, without CAP_SYS_ADMIN and its like. ptrace(2) and
# process_vm_readv(2) it does allow since Linux 4.8; io_uring no more.
REFUSED: Final = (
    "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "delete_module", "fanotify_init", "finit_module",
    "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup",
    "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "migrate_pages", "mount",
    "mount_setattr", "move_mount", "move_pages", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open",
    "pidfd_getfd", "pivot_root", "process_madvise", "quotactl", "quotactl_fd", "reboot", "request_key", "setdomainname",
    "sethostname", "setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "unshare", "uselib",
    "userfaultfd", "vhangup", "_sysctl",
)  # fmt: skip
# The same, of calls that the package's own table does not name; on x86_64 and aarch64.
REFUSED_BESIDES: Final = {
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "get_mempolicy": (239, 236),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
}
SOCKET: Final = (41, 198)
SOCKET_FAMILIES: Final = (38, 40)  # AF_ALG, AF_VSOCK
PERSONALITIES: Final = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
NAMESPACE_FLAGS: Final = 0x7E020000
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET
OWN: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
_NOSUID, _NODEV, _NOEXEC, _READ_ONLY, _REMOUNT, _BIND = 2, 4, 8, 1, 32, 4096
_RECURSIVE_PRIVATE = 0x4000 | 0x40000
MASKED: Final = ("kcore", "keys", "latency_stats", "timer_list", "sched_debug")
READ_ONLY: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")


def enter_namespaces() -> None:
    """Processes, mounts, network, shared memory and name of its own; a /proc and a /sys as a container has them."""
    from ondevice_sdk.privacy.sandbox import calls, kernel

    machine = kernel.MACHINES[os.uname().machine]

    def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        text = (source.encode(), target.encode(), kind.encode())
        kernel.call(calls.number("mount", machine.column), *text, flags, data.encode())

    kernel.unshare(OWN)
    child = os.fork()
    if child:  # stays outside, as the engine does, and passes the end on
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    mount("none", "/", "", _RECURSIVE_PRIVATE)
    quiet = _NOSUID | _NODEV | _NOEXEC
    mount("proc", "/proc", "proc", quiet)
    mount("sysfs", "/sys", "sysfs", quiet | _READ_ONLY)
    mount("shm", "/dev/shm", "tmpfs", quiet, "mode=1777,size=65536k")
    for name in READ_ONLY:
        place = f"/proc/{name}"
        if Path(place).exists():
            mount(place, place, "", _BIND)
            mount("none", place, "", _BIND | _REMOUNT | _READ_ONLY | quiet)
    for name in MASKED:
        if Path(f"/proc/{name}").exists():
            mount("/dev/null", f"/proc/{name}", "", _BIND)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x49))  # SIOCSIFFLAGS: up, loopback, running


def contained_calls() -> None:
    """The filter, put on with privileges instead of `no_new_privs`, as a container engine does."""
    import ctypes

    from ondevice_sdk.privacy.sandbox import calls, kernel
    from ondevice_sdk.privacy.sandbox.filter import ALLOW, Instruction, assemble

    machine = kernel.MACHINES[os.uname().machine]
    column = machine.column
    refuse, absent = (Instruction(0x06, 0, 0, 0x00050000 | code) for code in (errno.EPERM, errno.ENOSYS))
    allow = Instruction(0x06, 0, 0, ALLOW)

    def equal(value: int, then: Sequence[Instruction]) -> list[Instruction]:
        return [Instruction(0x15, 0, len(then), value), *then]

    def argument(position: int) -> Instruction:
        return Instruction(0x20, 0, 0, 16 + 8 * position)

    def among(values: Sequence[int], found: Instruction, otherwise: Instruction) -> list[Instruction]:
        return [*(step for value in values for step in equal(value, [found])), otherwise]

    table = {**calls.REFUSED, **calls.CONDITIONAL, **REFUSED_BESIDES}
    numbers = {name: table[name][column] for name in (*REFUSED, *REFUSED_BESIDES)}
    socket_number = SOCKET[column]
    program = [
        Instruction(0x20, 0, 0, 4),
        Instruction(0x15, 1, 0, machine.arch),
        allow,  # calls of 32-bit programs, which a container may make too
        Instruction(0x20, 0, 0, 0),
        *(step for number in numbers.values() if number is not None for step in equal(number, [refuse])),
        *equal(calls.ABSENT["clone3"][column] or 0, [absent]),
        *equal(calls.number("clone", column), [argument(0), Instruction(0x45, 0, 1, NAMESPACE_FLAGS), refuse, allow]),
        *equal(calls.number("personality", column), [argument(0), *among(PERSONALITIES, allow, refuse)]),
        *equal(socket_number, [argument(0), *among(SOCKET_FAMILIES, refuse, allow)]),
        allow,
    ]
    code = assemble(program)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    request = Program(len(program), code)
    kernel.call(calls.number("seccomp", column), 1, 0, ctypes.addressof(request))


def few_capabilities() -> None:
    """No others, and none of them to be inherited."""
    from ondevice_sdk.privacy.sandbox import calls, kernel

    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        if capability not in KEPT:
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    bits = sum(1 << capability for capability in KEPT)
    number = calls.number("capset", kernel.MACHINES[os.uname().machine].column)
    kernel.call(number, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", bits, bits, 0, 0, 0, 0))


if __name__ == "__main__":
    stages = {"--become": become, "--try": attempt}
    if sys.argv[1:2] and sys.argv[1] in stages:
        stages[sys.argv[1]](json.loads(sys.argv[2]))
    else:
        sys.exit(main())
