"""Summarise a document and show what each point stands on."""

from pathlib import Path

from ondevice_sdk import Client

DOCUMENT = Path(__file__).parent / "data" / "harbour_bridge.txt"


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    with Client() as ai:
        summary = ai.summarise(text, style="key_points", length="short")
    for point in summary.points:
        print(f"* {point.text}  [{point.status}]")
        for span in point.sources:
            assert text[span.start : span.end] == span.text
            print(f"    characters {span.start} to {span.end}")
    print(f"read {summary.coverage.fraction:.0%} of the document")


if __name__ == "__main__":
    main()
