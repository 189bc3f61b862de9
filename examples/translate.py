"""Translate with the options of the W3C Translator, and check offline that the answer is in the language asked for.

A model of 135M parameters that learned from English texts translates badly; from a billion parameters on it becomes
useful. What an app can always know is the language that came back: an answer in another one is no translation.
"""

from dataclasses import dataclass, field

from ondevice_sdk import Client, Languages

NAMES = {"en": "English", "fr": "French", "de": "German", "es": "Spanish", "it": "Italian", "pt": "Portuguese"}


@dataclass(frozen=True)
class Translation:
    """What the model wrote, and the language it was found to be."""

    text: str = field(repr=False)
    language: str
    right_language: bool


def translate(ai: Client, text: str, *, source_language: str, target_language: str) -> Translation:
    source, target = NAMES[source_language], NAMES[target_language]
    answer = ai.generate(
        f"{source}: {text}\n{target}:",
        instructions=f"Translate from {source} to {target}. Answer with the translation only.",
        temperature=0,
        max_tokens=32 + 4 * len(text.split()),
        stop=[f"\n{source}:"],
    )
    found = ai.analyse(answer.text, Languages).output.value if answer.text.strip() else "und"
    return Translation(answer.text.strip(), found, found == target_language)


def main() -> None:
    sentence = "The library is closed on Sunday, but you can return your books at any time."
    with Client() as ai:
        for target in ("fr", "de"):
            made = translate(ai, sentence, source_language="en", target_language=target)
            verdict = (
                "in the right language; have it checked"
                if made.right_language
                else f"no translation: it is {made.language}"
            )
            print(f"[en to {target}: {verdict}]\n{made.text}")


if __name__ == "__main__":
    main()
