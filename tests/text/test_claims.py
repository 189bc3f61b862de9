from __future__ import annotations

import time

import pytest

from ondevice_sdk.text.claims import DOUBTFUL_FROM, Doubt, doubt_of
from ondevice_sdk.text.lexicon import opposites, synonyms
from ondevice_sdk.text.spans import Document

MINUTES = (
    "Ilse Brandt from NorthWind Energy called the dairy on Tuesday. She offers to put 40 solar panels on the roof of "
    "the cheese hall. The panels would cost 32 million crowns and reduce the energy bill by 30 percent. The dairy's "
    "manager asked about storms. Brandt answered that the panels had not failed in ten years, and that the guarantee "
    "lasts for 20 years. The European Chemicals Agency permits the coating. The manager did not sign the contract. "
    "They will meet again in three weeks, in the office in Aarhus."
)

FAITHFUL = [
    "A representative of NorthWind Energy contacted the dairy and proposed solar panels.",
    "The panels would decrease energy expenses by 30%.",
    "The price of the panels is 32 million crowns.",
    "The manager inquired about storms.",
    "The manager has not signed the contract.",
    "The ECA allows the coating.",
    "The guarantee lasts twenty years.",
]
WRONG = [
    ("The panels would cost 33 million crowns.", "number"),
    ("They will meet again in three months.", "unit"),
    ("They will meet again in the office in Odense.", "name"),
    ("SouthWind Energy called the dairy.", "name"),
    ("The dairy did not ask about storms.", "negation"),
    ("The European Chemicals Agency does not permit the coating.", "negation"),
    ("The manager signed the contract.", "denied"),
    ("The panels would increase the energy bill.", "opposite"),
    ("The panels would save 32 million crowns.", "opposite"),
    ("The agency forbids the coating.", "opposite"),
]


@pytest.mark.parametrize("claim", FAITHFUL)
def test_retellings_are_faithful(claim: str) -> None:
    support = Document(MINUTES).support(claim)
    assert support.faithful
    assert support.spans


@pytest.mark.parametrize(("claim", "kind"), WRONG)
def test_errors_are_doubted_for_the_right_reason(claim: str, kind: str) -> None:
    support = Document(MINUTES).support(claim)
    assert kind in {doubt.kind for doubt in support.doubts}
    assert not support.faithful
    assert support.contradicted
    assert not support.supported


def test_sentences_of_the_text_itself_are_faithful_and_supported() -> None:
    document = Document(MINUTES)
    for span in document.sentences:
        support = document.support(span.text)
        assert support.supported
        assert support.doubt == 0
        assert span in support.spans


def test_doubts_add_up_and_weak_ones_do_not_refute() -> None:
    assert doubt_of([]) == 0
    assert doubt_of([Doubt("contrast", "but")]) < DOUBTFUL_FROM
    assert doubt_of([Doubt("contrast", "but"), Doubt("modifier", "dental")] * 5) < DOUBTFUL_FROM
    number = doubt_of([Doubt("number", "5")])
    assert DOUBTFUL_FROM < number < doubt_of([Doubt("number", "5"), Doubt("name", "Eve")]) < 1
    assert "Eve" not in repr(Doubt("name", "Eve"))


@pytest.mark.parametrize(
    ("text", "faithful", "wrong"),
    [
        (
            "Der Rat der Stadt Husum hat am Dienstag 12 Millionen Euro für den Hafen bewilligt. Alle sind froh.",
            "Der Hafen von Husum bekommt 12 Millionen Euro.",
            "Der Hafen von Husum bekommt 14 Millionen Euro.",
        ),
        (
            "Le conseil de Brest a voté 12 millions pour le port. Les travaux de Claire Le Goff commencent en mars.",
            "Les travaux commencent en mars, selon Claire.",
            "Les travaux commencent en mars, selon Pauline.",
        ),
        (
            "市議会は火曜日に港の再建を決めた。費用は32億円である。工事は3月に始まる。",
            "港の再建の費用は32億円である。",
            "港の再建の費用は35億円である。",
        ),
    ],
    ids=["German", "French", "Japanese"],
)
def test_numbers_and_names_are_checked_in_other_languages(text: str, faithful: str, wrong: str) -> None:
    document = Document(text)
    assert document.support(faithful).faithful
    assert not document.support(wrong).faithful


def test_a_sentence_found_by_other_means_than_words_may_be_the_source() -> None:
    document = Document("The firm put up its charges in May. Clients of the bank protested. The weather was cold.")
    alone = document.support("The corporation boosted its fees.")
    assert not alone.spans
    told = document.support("The corporation boosted its fees.", near=document.sentences[:1])
    assert told.spans == (document.sentences[0],)
    assert told.score > alone.score
    assert document.support("The weather was cold.", near=document.sentences[:1]).spans == (document.sentences[2],)


def test_what_is_set_aside_is_no_source() -> None:
    document = Document(MINUTES)
    apart = document.sentences[2]
    less = Document(MINUTES, [apart])
    assert apart not in less.sentences
    assert not less.support("The panels would cost 32 million crowns.").supported
    assert less.nearest(apart.text) != apart
    assert Document("One.", document.sentences).sentences  # never nothing at all


def test_the_thesaurus_contradicts_itself_nowhere_that_matters() -> None:
    assert "customer" in synonyms()
    assert "cost" in opposites()["save"]
    assert "save" in opposites()["cost"]
    assert not any(word in against for word, against in opposites().items())


@pytest.mark.parametrize("unit", ["increase reduce ", "not ", "Not. ", "A1 ", "5 days ", "“", "never no "])
def test_hostile_texts_stay_linear(unit: str) -> None:
    started = time.perf_counter()
    document = Document(unit * (30_000 // len(unit)))
    for _ in range(5):
        document.support((unit * 40)[:300] + " and it will save 5 weeks, but not decrease")
    assert time.perf_counter() - started < 4  # 0.2 s at most where it was measured
