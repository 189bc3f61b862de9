"""The contract of a backend, as tests.

Subclass `BackendContract` in a test module of the plugin and override two fixtures:

```python
class TestMyBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return MyBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> LocalModel:
        return LocalModel("small", "int4", "my_format", "/path/to/model", "")
```

What a backend does not claim as a capability has to be refused with `Unsupported`; what it claims has to work. Tests of
the contract can neither be overridden nor skipped one by one; what a backend cannot keep is declared, with the reason,
in `exemptions`.
"""

from __future__ import annotations

import pytest

_PARTS = ("cancelling", "capabilities", "crowds", "generation", "loading", "parity", "probing", "schemas", "sealed")
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("base", *_PARTS)))  # failures show values

from ondevice_sdk.testing.contract.cancelling import Cancelling  # noqa: E402 - after the line above
from ondevice_sdk.testing.contract.capabilities import Capabilities  # noqa: E402
from ondevice_sdk.testing.contract.crowds import Crowds  # noqa: E402
from ondevice_sdk.testing.contract.generation import Generation  # noqa: E402
from ondevice_sdk.testing.contract.loading import Loading  # noqa: E402
from ondevice_sdk.testing.contract.probing import Probing  # noqa: E402
from ondevice_sdk.testing.contract.schemas import Schemas  # noqa: E402
from ondevice_sdk.testing.contract.sealed import Sealed  # noqa: E402

__all__ = ["BackendContract"]


class BackendContract(Probing, Loading, Generation, Crowds, Cancelling, Capabilities, Schemas, Sealed):
    """Tests that hold for every backend."""
