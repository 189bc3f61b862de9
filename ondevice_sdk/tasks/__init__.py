"""Tasks as pure generator flows over an engine's requests."""

from ondevice_sdk.tasks.analyse import analyse
from ondevice_sdk.tasks.counting import count_tokens, prewarm
from ondevice_sdk.tasks.embed import embed
from ondevice_sdk.tasks.forms import (
    Entities,
    Entity,
    KeyPhrase,
    KeyPhrases,
    Languages,
    PersonalData,
    PersonalItem,
    Sentiment,
    Topics,
)
from ondevice_sdk.tasks.generate import generate
from ondevice_sdk.tasks.redact import redact
from ondevice_sdk.tasks.summarise import summarise

__all__ = [
    "Entities",
    "Entity",
    "KeyPhrase",
    "KeyPhrases",
    "Languages",
    "PersonalData",
    "PersonalItem",
    "Sentiment",
    "Topics",
    "analyse",
    "count_tokens",
    "embed",
    "generate",
    "prewarm",
    "redact",
    "summarise",
]
