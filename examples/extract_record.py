"""Fill a typed record from a letter: the output is forced into the form token by token."""

from pydantic import BaseModel

from ondevice_sdk import Client

LETTER = """Dear Sir or Madam,
the washing machine WM-200 that I bought on 3 May leaks. Please call me at noon.
Yours, Anna Berg"""


class Complaint(BaseModel):
    """What a clerk would note down."""

    customer: str
    product: str
    wants_a_call: bool


def main() -> None:
    with Client() as ai:
        complaint = ai.analyse(LETTER, Complaint).output
    print(complaint.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
