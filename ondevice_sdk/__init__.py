"""Private AI inside your app: summarise, analyse and generate on the user's own device, with no network.

```python
from ondevice_sdk import Client, models

models.pull("smollm2-135m-instruct")  # the only call that may open a connection
with Client() as ai:
    print(ai.summarise(open("letter.txt").read()).text)
```
"""

from ondevice_sdk import errors, models
from ondevice_sdk._version import __version__
from ondevice_sdk.aio import AsyncChat, AsyncClient, AsyncStream
from ondevice_sdk.chat import Chat
from ondevice_sdk.client import Client
from ondevice_sdk.errors import *  # noqa: F403  # every error is public
from ondevice_sdk.errors import __all__ as _errors
from ondevice_sdk.prefix_cache import PrefixCache
from ondevice_sdk.privacy.vault import CallerKey, KeyringKey, MemoryKey
from ondevice_sdk.stream import Stream
from ondevice_sdk.tasks.forms import Entities, KeyPhrases, Languages, PersonalData, Sentiment, Topics
from ondevice_sdk.types import (
    Analysis,
    Availability,
    Candidate,
    Completed,
    Coverage,
    DeviceProfile,
    Embeddings,
    Evidence,
    Generation,
    JsonValue,
    Mechanism,
    Message,
    ModelInfo,
    Point,
    PrivacyReport,
    Progress,
    PromptProgress,
    Receipt,
    Redaction,
    Replacement,
    Selection,
    Span,
    Summary,
    TextDelta,
    Tool,
    ToolCall,
    Usage,
)

__all__ = [
    "Analysis",
    "AsyncChat",
    "AsyncClient",
    "AsyncStream",
    "Availability",
    "CallerKey",
    "Candidate",
    "Chat",
    "Client",
    "Completed",
    "Coverage",
    "DeviceProfile",
    "Embeddings",
    "Entities",
    "Evidence",
    "Generation",
    "JsonValue",
    "KeyPhrases",
    "KeyringKey",
    "Languages",
    "Mechanism",
    "MemoryKey",
    "Message",
    "ModelInfo",
    "PersonalData",
    "Point",
    "PrefixCache",
    "PrivacyReport",
    "Progress",
    "PromptProgress",
    "Receipt",
    "Redaction",
    "Replacement",
    "Selection",
    "Sentiment",
    "Span",
    "Stream",
    "Summary",
    "TextDelta",
    "Tool",
    "ToolCall",
    "Topics",
    "Usage",
    "__version__",
    "errors",
    "models",
    *_errors,
]
