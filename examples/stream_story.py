"""Show a text as it is written, and stop it early."""

from ondevice_sdk import Client


def main() -> None:
    with Client() as ai, ai.stream("Tell me a story about a lighthouse.", max_tokens=80, seed=7) as stream:
        for number, delta in enumerate(stream):
            print(delta, end="", flush=True)
            if number == 40:
                stream.cancel()
        print(f"\n[{stream.result().finish_reason}]")


if __name__ == "__main__":
    main()
