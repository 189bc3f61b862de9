"""Answer several questions at once from async code; they share one model and are batched inside."""

import anyio

from ondevice_sdk import AsyncClient

QUESTIONS = ["Name a sea bird.", "Name a river in Europe.", "Name a musical instrument."]


async def main() -> None:
    async with AsyncClient() as ai:

        async def ask(question: str) -> None:
            answer = await ai.generate(question, max_tokens=12, temperature=0)
            print(question, answer.text.strip())

        async with anyio.create_task_group() as group:
            for question in QUESTIONS:
                group.start_soon(ask, question)


if __name__ == "__main__":
    anyio.run(main)
