"""Files outside: reading what is private, and leaving text where something else will carry it away."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat

from ondevice_sdk.privacy.attempts import raw
from ondevice_sdk.privacy.attempts.attempt import Group, Outcome, Reach

GROUP = Group("files")
_HERE = -100 & 0xFFFFFFFF  # AT_FDCWD


def _write(path: str, reach: Reach, mode: str = "xb") -> None:
    with open(path, mode) as file:
        file.write(reach.message)


def _private(name: str) -> str:
    """A path in the worker's own directory."""
    return os.path.join(os.environ["HOME"], name)


@GROUP("content", layer="landlock")
def read_ssh_key(reach: Reach) -> Outcome:
    """A private key."""
    return raw.read(f"{reach.home}/.ssh/id_ed25519")


@GROUP("content", layer="landlock")
def read_etc_passwd(reach: Reach) -> Outcome:
    """The list of users."""
    return raw.read("/etc/passwd")


@GROUP("content", layer="landlock")
def read_machine_id(reach: Reach) -> Outcome:
    """The number that names this installation."""
    return raw.read("/etc/machine-id")


@GROUP("content", layer="landlock")
def list_home(reach: Reach) -> Outcome:
    """The names of the user's files."""
    return "\n".join(os.listdir(reach.home))


@GROUP("content", layer="landlock")
def openat2_secret(reach: Reach) -> Outcome:
    """A file opened by the newest of the calls for it."""
    with open(raw.call("openat2", _HERE, reach.secret.encode(), bytes(24), 24), "rb") as file:
        return file.read()


@GROUP("content", layer="landlock")
def climb_out(reach: Reach) -> Outcome:
    """From its own directory up again and to the secret."""
    directory = os.open(os.environ["HOME"], os.O_RDONLY | os.O_DIRECTORY)
    up = "../" * 32
    with open(os.open(up + reach.secret.lstrip("/"), os.O_RDONLY, dir_fd=directory), "rb") as file:
        return file.read()


@GROUP("file", layer="landlock")
def write_home(reach: Reach) -> Outcome:
    """A file in the home directory, such as those that a shell runs."""
    _write(f"{reach.home}/.profile", reach)
    return None


@GROUP("file", layer="landlock")
def write_tmp(reach: Reach) -> Outcome:
    """A file where everybody finds it."""
    _write(f"/tmp/ondevice-{reach.token}", reach)  # noqa: S108
    return None


@GROUP("file", layer="landlock")
def write_model_dir(reach: Reach) -> Outcome:
    """A file beside the model, which the next worker may read."""
    _write(f"{reach.model}/notes", reach)
    return None


@GROUP("file", layer="landlock")
def append_model(reach: Reach) -> Outcome:
    """The model itself, changed."""
    _write(f"{reach.model}/model.gguf", reach, "ab")
    return None


@GROUP("content", layer="landlock")
def symlink_escape(reach: Reach) -> Outcome:
    """A secret read through a link in its own directory."""
    link = _private("link")
    os.symlink(reach.secret, link)
    return raw.read(link)


@GROUP("content", layer="landlock")
def hardlink_escape(reach: Reach) -> Outcome:
    """A secret moved in reach by a second name for it."""
    link = _private("second")
    os.link(reach.secret, link)
    return raw.read(link)


@GROUP("content", layer="landlock")
def path_descriptor(reach: Reach) -> Outcome:
    """A file opened by name only (O_PATH), and then in full through /proc."""
    descriptor = os.open(reach.secret, os.O_PATH)
    return raw.read(f"/proc/self/fd/{descriptor}")


@GROUP("file", layer="landlock")
def unnamed_file(reach: Reach) -> Outcome:
    """A file outside, made without a name (O_TMPFILE) and named afterwards."""
    descriptor = os.open(reach.outside, os.O_TMPFILE | os.O_WRONLY, 0o600)
    os.write(descriptor, reach.message)
    here, there = f"/proc/self/fd/{descriptor}".encode(), f"{reach.outside}/named".encode()
    raw.call("linkat", _HERE, here, _HERE, there, 0x400)  # AT_SYMLINK_FOLLOW
    return None


@GROUP("file", layer="landlock")
def rename_out(reach: Reach) -> Outcome:
    """A file of its own moved outside."""
    made = _private("made")
    _write(made, reach)
    os.rename(made, f"{reach.outside}/moved")
    return None


@GROUP("file", layer="landlock")
def make_directory(reach: Reach) -> Outcome:
    """A directory outside, whose name tells something."""
    os.mkdir(f"{reach.outside}/{reach.token}")
    return None


@GROUP("file", layer="landlock")
def remove_file(reach: Reach) -> Outcome:
    """A file outside, removed."""
    os.unlink(reach.secret)
    return None


@GROUP(layer="landlock")
def mkfifo_cache(reach: Reach) -> Outcome:
    """A named pipe in its own directory, at which another process could wait."""
    os.mkfifo(_private("pipe"))
    os.unlink(_private("pipe"))
    return True


@GROUP(layer="landlock")
def make_device(reach: Reach) -> Outcome:
    """A device file of its own for the machine's memory; never opened."""
    os.mknod(_private("memory"), stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.unlink(_private("memory"))
    return True


@GROUP("file", layer="landlock")
def truncate_secret(reach: Reach) -> Outcome:
    """A file outside, emptied by its path."""
    os.truncate(reach.secret, 0)
    return None


@GROUP("file")
def chmod_secret(reach: Reach) -> Outcome:
    """A file outside, opened to everybody."""
    os.chmod(reach.secret, 0o644)
    return None


@GROUP("file")
def utime_secret(reach: Reach) -> Outcome:
    """The time of a file outside, in which a word of text has room."""
    os.utime(reach.secret, (1, 1))
    return None


@GROUP("file")
def attribute_secret(reach: Reach) -> Outcome:
    """A note on a file outside (an extended attribute)."""
    os.setxattr(reach.secret, "user.ondevice", reach.message)
    return None


@GROUP("content")
def read_attribute(reach: Reach) -> Outcome:
    """A note on a file outside, read: file systems keep where a file was downloaded from in it."""
    return os.getxattr(reach.secret, "user.origin")


@GROUP()
def stat_secret(reach: Reach) -> Outcome:
    """Whether a file exists, how large it is and when it changed."""
    return os.stat(reach.secret).st_size > 0


@GROUP()
def access_secret(reach: Reach) -> Outcome:
    """Whether a file exists and could be read."""
    return os.access(reach.secret, os.R_OK)


@GROUP("content")
def readlink_secret(reach: Reach) -> Outcome:
    """Where a symbolic link leads."""
    return os.readlink(reach.link)


@GROUP()
def disk_space(reach: Reach) -> Outcome:
    """How full a disk is, by which files grow visibly."""
    return shutil.disk_usage(reach.outside).total > 0


@GROUP("content", layer="landlock")
def proc_root_bypass(reach: Reach) -> Outcome:
    """A secret by the path of this process's root."""
    return raw.read(f"/proc/self/root{reach.secret}")


@GROUP("content", layer="landlock")
def proc_host_root(reach: Reach) -> Outcome:
    """A secret by the path of another process's root."""
    return raw.read(f"/proc/{reach.victim.pid}/root{reach.secret}")


@GROUP("content", layer="landlock")
def mapped_secret(reach: Reach) -> Outcome:
    """A file opened and mapped by the C library."""
    library = raw.libc()
    descriptor = library.open(reach.secret.encode(), os.O_RDONLY)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    library.mmap.restype = ctypes.c_void_p
    address = library.mmap(None, ctypes.c_size_t(4096), 1, 2, descriptor, ctypes.c_long(0))
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return ctypes.string_at(address, os.fstat(descriptor).st_size)
