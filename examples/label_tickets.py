"""Sort messages of customers into folders, with probabilities; several at a time."""

from typing import Literal

from ondevice_sdk import Client

Folder = Literal["delivery", "payment", "praise"]

TICKETS = [
    "My parcel was due on Monday and has still not arrived.",
    "You charged my card twice for the same order.",
    "Just wanted to say thank you, the new lamp is wonderful!",
]


def main() -> None:
    with Client() as ai:
        for ticket, answer in zip(TICKETS, ai.analyse_many(TICKETS, Folder), strict=True):
            print(f"{answer.output:9} {answer.confidence or 0:4.0%}  {ticket}")


if __name__ == "__main__":
    main()
