"""Let the model ask for a function of the app. It proposes a call; the app decides, runs it, and tells the result."""

from typing import Literal

from ondevice_sdk import Client

STOCK = {"lamp": 4, "chair": 0}


def stock_level(product: Literal["lamp", "chair", "table"]) -> int:
    """Look up how many pieces of a product are in stock.

    Args:
        product: The product to look up.
    """
    return STOCK.get(product, 0)


def send_reminder(customer: str, days: int) -> None:
    """Send a customer a reminder of an unpaid invoice.

    Args:
        customer: The name of the customer.
        days: In how many days the invoice has to be paid.
    """
    raise AssertionError(f"nobody approved this: {customer}, {days}")


ALLOWED = {"stock_level"}  # what may run without asking the user


def main() -> None:
    with Client() as ai:
        chat = ai.chat("You help in a shop.")
        for question in (
            "How many pieces of the lamp are in stock?",
            "Send Anna Berg a reminder: she has 10 days to pay.",
        ):
            answer = chat.send(question, tools=[stock_level, send_reminder], max_tokens=60, temperature=0)
            for call in answer.tool_calls:
                print(f"the model asks for {call.name}({dict(call.arguments)})")
                if call.name in ALLOWED:
                    answer = chat.send(call.reply(call.run()), max_tokens=40, temperature=0)
                else:
                    answer = chat.send(call.reply("the user has not allowed this"), max_tokens=40, temperature=0)
            print(answer.text.strip() or "(no answer)")


if __name__ == "__main__":
    main()
