"""Find passages by meaning: neither the questions nor the answers share many words."""

from ondevice_sdk import Client, models

PASSAGES = [
    "Parcels are delivered between eight and six on working days.",
    "You can send anything back within thirty days, free of charge.",
    "Our workshop repairs lamps of all makers, also old ones.",
    "Invoices are due two weeks after the goods have arrived.",
]
QUESTIONS = ["How do I return an item that I do not like?", "When must I pay?", "Can you fix my grandmother's light?"]


def main() -> None:
    models.pull("all-minilm-l6-v2")  # contacts nobody when it is here already
    with Client() as ai:
        library = ai.embed(PASSAGES)
        for question, vector in zip(QUESTIONS, ai.embed(QUESTIONS).vectors, strict=True):
            place, similarity = library.nearest(vector)[0]
            print(f"{question}\n  {similarity:.2f}  {PASSAGES[place]}")


if __name__ == "__main__":
    main()
