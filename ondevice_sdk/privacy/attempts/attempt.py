"""What an escape attempt is: a function that really tries, in a throw-away worker, to get text out of it.

Imported inside the worker too: standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Proof = Literal["claim", "contact", "content", "victim", "file", "object", "terminal"]
Layer = Literal["seccomp", "landlock", "none"]

# The one list of what gets through strict privacy and is documented as such (docs/explanation/privacy.md, "Existence"):
# the kernel has no rule for looking up names. Whatever else gets through is an escape.
KNOWN_GAPS: Final = frozenset({"access_secret", "disk_space", "process_lookup", "readlink_secret", "stat_secret"})


class Untestable(Exception):
    """The attempt cannot be made on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A process of the same user that the attempts may steer: it stands for the app."""

    pid: int
    secret_address: int
    canary_address: int
    size: int  # bytes at each of the two addresses
    socket: int  # its descriptor of a connected UDP socket
    file: int  # its descriptor of the secret file


@dataclass(frozen=True, slots=True)
class Reach:
    """What there is to reach. All of it belongs to the app's side, which sees for itself what was reached.

    `token` is new for each try and no secret; what the attempts are after (the content of `secret`, ...) is not here.
    `control` is True in the unsandboxed try, where care is needed that nothing leaves the machine.
    """

    token: str
    control: bool
    tcp4: int
    tcp6: int  # ports on the loopback address; 0 where there is no IPv6
    udp4: int
    udp6: int
    unix_stream: str
    unix_abstract: str
    unix_datagram: str
    unix_giver: str  # passes a descriptor of the secret file to whoever connects
    victim: Victim
    outside: str  # a directory that is none of the worker's business; the paths below lie in it
    secret: str
    home: str  # with `letter-<secret>.txt` and `.ssh/id_ed25519`
    link: str  # a symbolic link whose target is a secret
    model: str  # stands for the model's directory
    terminal: str  # a pseudo terminal, "" where there is none
    key: int  # for System V objects

    @property
    def message(self) -> bytes:
        """What shall arrive."""
        return f"ondevice-token:{self.token}\n".encode()


Outcome = bool | str | bytes | None
Function = Callable[[Reach], Outcome]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out.

    `proof` is what shows that it worked: what the function claims, or better what the app's side saw (the token at a
    listener, a secret in what was returned, a change of the victim or of a file, an object, a typed key).
    `layer` names the layer that has to stop it; "none": it is one of `KNOWN_GAPS`, and reported as such.
    `full`: the control costs more than a moment or touches the machine (it may make the kernel load a module).
    """

    id: str
    group: str
    about: str
    run: Function
    proof: Proof
    layer: Layer
    full: bool


class Group:
    """Collects the attempts of one module: the name of a function is the id, its docstring says what it tries."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.attempts: Final[list[Attempt]] = []

    def __call__(
        self, proof: Proof = "claim", *, layer: Layer = "seccomp", full: bool = False
    ) -> Callable[[Function], Function]:
        """Add the decorated function."""

        def add(function: Function) -> Function:
            about = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            name = function.__name__
            stopped_by: Layer = "none" if name in KNOWN_GAPS else layer
            self.attempts.append(Attempt(name, self.name, about, function, proof, stopped_by, full))
            return function

        return add
