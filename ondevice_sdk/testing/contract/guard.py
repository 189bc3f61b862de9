"""Nobody is let off quietly: what a subclass of the contract may not change, and how it is noticed when it does."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import pytest

__all__ = ["Guarded", "part"]

T = TypeVar("T", bound=type)


def part(*fixtures: str) -> Callable[[T], T]:
    """Make the tests of a class, and the fixtures that are named, a part of the contract."""

    def decorate(cls: T) -> T:
        for name, value in list(vars(cls).items()):
            if name.startswith("test_") and callable(value):
                setattr(cls, name, _counted(value))
        kept = {name: value for name, value in vars(cls).items() if name.startswith("test_") or name in fixtures}
        setattr(cls, "_contract", kept)  # noqa: B010 - of a class that is only known as a type
        return cls

    return decorate


def _counted(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)
    def counted(self: Guarded, *args: Any, **kwargs: Any) -> None:
        type(self)._ran[test.__name__] += 1
        test(self, *args, **kwargs)

    return counted


class Guarded:
    """Refuses subclasses that override a test of the contract, and fails where one was skipped from outside.

    Attributes:
        exemptions: by the name of a test (with the `[parameter]`, if only that is meant) the reason why this backend
            does not pass it. The test runs all the same, and is reported as an expected failure with the reason; once
            it passes, that is an error: an exemption does not outlive its reason.
    """

    exemptions: ClassVar[Mapping[str, str]] = {}

    _contract: ClassVar[dict[str, object]] = {}
    _ran: ClassVar[Counter[str]] = Counter()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if faults := cls.contract_faults():
            raise TypeError(f"{cls.__qualname__} changes the contract: {'; '.join(faults)}")

    @classmethod
    def contract_tests(cls) -> dict[str, object]:
        """The tests of the contract by name."""
        return {name: test for name, test in cls._kept().items() if name.startswith("test_")}

    @classmethod
    def _kept(cls) -> dict[str, object]:
        return {name: kept for base in cls.__mro__ for name, kept in vars(base).get("_contract", {}).items()}

    @classmethod
    def contract_faults(cls) -> list[str]:
        """What is not as it has to be, in words."""
        tests = cls.contract_tests()
        originals = {**cls._kept(), **{name: vars(Guarded)[name] for name in _OWN}}
        faults = [
            f"{name} is overridden" for name, kept in originals.items() if inspect.getattr_static(cls, name) is not kept
        ]
        for name, reason in cls.exemptions.items():
            if name.partition("[")[0] not in tests:
                faults.append(f"the exemption {name!r} names no test of the contract")
            elif not (isinstance(reason, str) and reason.strip()):
                faults.append(f"the exemption of {name} has no reason")
        return faults

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _no_test_is_missing(cls, request: pytest.FixtureRequest) -> Iterator[None]:
        """Fail at the end if a test that was collected never ran: marks, hooks and fixtures can skip one."""
        cls._ran = Counter()
        yield
        session = request.session
        if session.shouldstop or session.shouldfail or hasattr(request.config, "workerinput") or not cls._ran:
            return  # the run was ended, is shared with other processes, or all of it is skipped, which everybody sees
        if faults := cls.contract_faults():
            pytest.fail(f"{cls.__qualname__} changes the contract: {'; '.join(faults)}", pytrace=False)
        names = [item.originalname for item in session.items if isinstance(item, pytest.Function) and item.cls is cls]
        collected = Counter(name for name in names if name in cls.contract_tests())
        if skipped := sorted(name for name, count in collected.items() if cls._ran[name] < count):
            pytest.fail(
                f"{cls.__qualname__} skips tests of the contract ({', '.join(skipped)}): declare an exemption instead",
                pytrace=False,
            )

    @pytest.fixture(autouse=True)
    def _exemption(self, request: pytest.FixtureRequest) -> None:
        """Report a declared exemption as an expected failure."""
        name = request.node.originalname
        reason = self.exemptions.get(request.node.name) or self.exemptions.get(name)
        if reason and name in self.contract_tests():
            request.node.add_marker(pytest.mark.xfail(reason=f"exempt: {reason}", strict=True))


_OWN = ("__init_subclass__", "contract_faults", "contract_tests", "_kept", "_no_test_is_missing", "_exemption")
