"""The reviewed table of system calls: what is refused, and why. Numbers on x86_64 and aarch64; None: not there.

Reviewed up to the last call of Linux 6.10. What is newer, and the numbers that no call has, do not exist for a worker,
so that the next way to reach the outside is closed until somebody has looked at it.
"""

from __future__ import annotations

from typing import Final

LAST: Final = 462  # mseal(2)
# Numbers below LAST that no call of Linux 6.10 has.
GAPS: Final = (((335, 423),), ((244, 259), (295, 423)))

_Row = tuple[int | None, int | None]

# No socket of any family: AF_UNIX reaches resolvers, proxies and agents that have a network. No use of one that was
# inherited, either. io_uring makes and uses sockets without these calls.
_NETWORK: Final[dict[str, _Row]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmmsg": (307, 269),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "setsockopt": (54, 208),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}

# Another program or process would not be under our eyes; another one that runs could be made to act for us.
_PROCESSES: Final[dict[str, _Row]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "tkill": (200, 130),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
}

# Shared with all processes of the user.
_SHARED: Final[dict[str, _Row]] = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184),
    "mq_getsetattr": (245, 185),
}

# Parts of the kernel that act on behalf of a process, and those with many faults in the past. The key type
# "dns_resolver" of request_key(2) resolves names through a helper of the system.
_KERNEL: Final[dict[str, _Row]] = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "unshare": (272, 97),
    "capset": (126, 91),
    "lsm_set_self_attr": (460, 460),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "lookup_dcookie": (212, 18),
    "uselib": (134, None),
    "_sysctl": (156, None),
    "nfsservctl": (180, 42),
}

# What is said of a file, which others can see or have noted there (Landlock does not cover it), and files that are no
# files.
_METADATA: Final[dict[str, _Row]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "fgetxattr": (193, 10),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "flistxattr": (196, 13),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "mknod": (133, None),
    "mknodat": (259, 33),
}

REFUSED: Final[dict[str, _Row]] = {**_NETWORK, **_PROCESSES, **_SHARED, **_KERNEL, **_METADATA}

# Refused by the second filter, since handing the first one's reports to the app needs them.
REFUSED_AFTER: Final[dict[str, _Row]] = {"sendmsg": (46, 211), "seccomp": (317, 277)}

# Its flags lie in memory, where a filter cannot look; told that it is not there, the C library takes clone(2).
ABSENT: Final[dict[str, _Row]] = {"clone3": (435, 435)}

# Looked at more closely by `filter`.
CONDITIONAL: Final[dict[str, _Row]] = {
    "clone": (56, 220),
    "prctl": (157, 167),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "personality": (135, 92),
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}

LANDLOCK: Final = (444, 445, 446)  # create_ruleset, add_rule, restrict_self; on every machine


def number(name: str, column: int) -> int:
    """The number of a call that is in the tables and exists on this machine."""
    for table in (REFUSED, REFUSED_AFTER, ABSENT, CONDITIONAL):
        if name in table:
            found = table[name][column]
            assert found is not None
            return found
    raise KeyError(name)


def numbers(table: dict[str, _Row], column: int) -> list[int]:
    """All that exist on this machine, sorted."""
    return sorted(found for row in table.values() if (found := row[column]) is not None)
