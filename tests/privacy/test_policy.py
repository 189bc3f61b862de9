from __future__ import annotations

import pytest

from ondevice_sdk.errors import PrivacyUnavailable
from ondevice_sdk.privacy import policy
from ondevice_sdk.privacy.sandbox import kernel


def test_available_here_at_every_level() -> None:
    policy.check_available("strict")
    policy.check_available("guarded")
    policy.check_available("off")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"system": "darwin"}, "Linux"),
        ({"machine": None}, "machine"),
        ({"seccomp": False}, "kernel"),
        ({"actions": "kill_process trap log allow"}, "kernel"),
        ({"proc": False}, "/proc"),
    ],
)
def test_what_stands_in_the_way_is_named(changed: dict[str, object], words: str) -> None:
    good: dict[str, object] = {"system": "linux", "machine": "x86_64", "seccomp": True, "actions": None, "proc": True}
    assert policy.obstacles(**good) == ()  # type: ignore[arg-type]
    (reason,) = policy.obstacles(**{**good, **changed})  # type: ignore[arg-type]
    assert words in reason


def test_strict_is_refused_and_never_downgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "machine", lambda: None)
    with pytest.raises(PrivacyUnavailable) as caught:
        policy.check_available("strict")
    assert caught.value.reasons == ("no system-call filter for this machine",)
    assert caught.value.hint
    policy.check_available("guarded")
