"""The attempts as a catalogue, and the range: what it sees is what happened, whatever an attempt says of itself."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the attempts are written for Linux")

if sys.platform == "linux":
    from ondevice_sdk.privacy.attempts.attempt import Reach
    from ondevice_sdk.privacy.attempts.catalogue import ATTEMPTS, GROUPS
    from ondevice_sdk.privacy.attempts.range import Range

# Each is a class of ways out that was found open, in the past, in some sandbox.
REQUIRED = {
    "net": "py_tcp4 py_tcp6 py_udp4 py_listen py_raw_icmp py_ping_socket py_packet py_netlink py_vsock py_alg "
    "all_families mptcp_sctp_udplite http_client asyncio_conn",
    "dns": "dns_getaddrinfo dns_raw_udp53 dns_resolved_varlink dns_kernel_keyring",
    "native": "ctypes_socket ctypes_connect libc_syscall machine_code_syscall int80_socket int80_socketcall x32_socket "
    "high_bits_domain io_uring native_ext_thread unreviewed_syscalls",
    "execute": "subprocess_curl os_system fork_socket posix_spawn memfd_exec clone_newnet_user setns_parent_net",
    "unix": "unix_path unix_abstract unix_dgram_syslog socketpair_inet scm_rights_recv inherited_socket_fd",
    "process": "ptrace_host vm_write_host proc_mem_host proc_environ_host pidfd_getfd kill_host pidfd_signal "
    "prlimit_host sysv_shm posix_mq dev_shm_file tty_TIOCSTI tty_TIOCSTI_highbits",
    "kernel": "bpf perf_event userfaultfd keyctl mount_nfs_like open_by_handle tun_device core_pattern",
    "undo": "undo_dumpable undo_nnp stack_filter stack_filter_prctl own_listener_left regain_caps",
    "files": "read_ssh_key read_etc_passwd list_home write_home write_tmp write_model_dir symlink_escape "
    "hardlink_escape mkfifo_cache truncate_secret chmod_secret stat_secret proc_net_tcp "
    "proc_root_bypass proc_host_root",
}


def test_the_catalogue_has_every_known_way_and_more() -> None:
    required = {name for names in REQUIRED.values() for name in names.split()}
    assert len(required) == 84
    assert required <= set(ATTEMPTS)
    assert len(set(ATTEMPTS) - required) >= 20
    assert len(ATTEMPTS) == sum(len(group.attempts) for group in GROUPS), "ids are unique"


def test_every_attempt_says_what_it_is() -> None:
    assert all(attempt.about and len(attempt.about) < 120 for attempt in ATTEMPTS.values())
    assert {name for name, attempt in ATTEMPTS.items() if attempt.layer == "none"} == {
        "stat_secret", "access_secret", "readlink_secret", "disk_space", "process_lookup",
    }, "a new known gap has to be documented"  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[Range]:
    with Range([sys.executable]) as made:
        yield made


def test_nothing_done_is_nothing_seen(place: Range) -> None:
    with place.shot(control=True) as shot:
        assert shot.evidence("some text", claim=False) == frozenset()


def _secret(reach: Reach) -> str:
    return Path(reach.secret).read_text(encoding="ascii")


def test_a_secret_in_what_was_read_is_seen(place: Range) -> None:
    with place.shot(control=True) as shot:
        assert shot.evidence(f"...{_secret(shot.reach)}...", claim=False) == {"content"}


def test_a_contact_is_seen_at_every_listener(place: Range) -> None:
    with place.shot(control=True) as shot:
        reach = shot.reach
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", reach.tcp4)),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", reach.udp4)),
            (socket.AF_UNIX, socket.SOCK_STREAM, reach.unix_stream),
            (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + reach.unix_abstract),
            (socket.AF_UNIX, socket.SOCK_DGRAM, reach.unix_datagram),
        ):
            with socket.socket(family, kind) as sock:
                sock.connect(address)
                sock.sendall(reach.message)
            assert shot.evidence("", claim=False) == {"contact"}
        assert shot.evidence("", claim=False) == frozenset(), "each is seen once"


def test_the_contact_of_another_shot_is_no_contact(place: Range) -> None:
    with place.shot(control=True) as first, socket.create_connection(("127.0.0.1", first.reach.tcp4)) as sock:
        sock.sendall(first.reach.message)
    with place.shot(control=True) as second:
        assert second.evidence("", claim=False) == frozenset()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_to_the_victim_is_seen_and_mended(place: Range, number: signal.Signals) -> None:
    with place.shot(control=True) as shot:
        os.kill(shot.reach.victim.pid, number)
        assert shot.evidence("", claim=False) == {"victim"}
    with place.shot(control=True) as again:
        assert again.reach.victim.pid != shot.reach.victim.pid
        assert again.evidence("", claim=False) == frozenset()


def test_a_changed_file_is_seen_and_mended(place: Range) -> None:
    with place.shot(control=True) as shot:
        os.utime(shot.reach.secret, (1, 1))
        assert shot.evidence("", claim=False) == {"file"}
    with place.shot(control=True) as again:
        assert again.evidence("", claim=False) == frozenset()
        Path(again.reach.home, "new").touch()
        assert again.evidence("", claim=False) == {"file"}


def test_loose_objects_are_seen_and_removed(place: Range) -> None:
    with place.shot(control=True) as shot:
        everywhere = Path("/dev/shm", f"ondevice-{shot.reach.token}")
        everywhere.touch()
        assert shot.evidence("", claim=False) == {"object"}
    assert not everywhere.exists()


def test_a_range_leaves_nothing() -> None:
    with Range([sys.executable]) as made, made.shot(control=True) as shot:
        root, victim = made.root, shot.reach.victim.pid
        assert root.stat().st_mode & 0o077 == 0
    assert not root.exists()
    assert not Path("/proc", str(victim)).exists()
