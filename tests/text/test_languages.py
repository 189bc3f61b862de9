# ruff: noqa: RUF001  (letters of many scripts)

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.text.languages import language_shares

TEXTS = {
    "en": "The council will decide on the plan in September, and the state pays a part of it.",
    "de": "Der Rat entscheidet im September über den Plan, und das Land zahlt einen Teil davon.",
    "fr": "Le conseil se prononce sur le projet en septembre et l'État en paie une partie.",
    "es": "El consejo decidirá sobre el plan en septiembre y el Estado pagará una parte de los costes.",
    "it": "Il consiglio decide sul piano a settembre e lo Stato ne paga una parte, ma non è sicuro.",
    "pt": "O conselho decide sobre o plano em setembro e o Estado não paga uma parte dos custos.",
    "nl": "De raad beslist in september over het plan en het land betaalt een deel van de kosten.",
    "sv": "Rådet beslutar om planen i september och staten betalar en del av den, men inte allt.",
    "da": "Rådet beslutter om planen i september, og staten betaler en del af den, men ikke det hele.",
    "pl": "Rada zdecyduje o planie we wrześniu, a państwo zapłaci za część, ale nie jest to pewne.",
    "cs": "Rada rozhodne o plánu v září a stát zaplatí část, ale není to jisté, protože se čeká.",
    "tr": "Kurul eylül ayında plan için karar verecek ve devlet bir kısmını ödeyecek, ama çok geç.",
    "vi": "Hội đồng sẽ quyết định về kế hoạch vào tháng chín và nhà nước trả một phần của nó.",
    "fi": "Neuvosto päättää asiasta syyskuussa ja valtio maksaa osan, mutta se ei ole vielä varmaa.",
    "ru": "Совет примет решение о плане в сентябре, и государство оплатит его часть.",
    "uk": "Рада ухвалить рішення про план у вересні, і держава сплатить його частину.",
    "ja": "評議会は九月に計画について決定し、国が費用の一部を支払います。",
    "zh": "委员会将在九月决定该计划，国家将支付部分费用。",
    "ko": "의회는 9월에 계획을 결정하고 국가가 비용의 일부를 부담한다.",
    "el": "Το συμβούλιο θα αποφασίσει τον Σεπτέμβριο.",
    "ar": "سيقرر المجلس بشأن الخطة في سبتمبر.",
    "he": "המועצה תחליט על התוכנית בספטמבר.",
    "hi": "परिषद सितंबर में योजना पर निर्णय लेगी।",
    "th": "สภาจะตัดสินใจในเดือนกันยายน",
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_sentence_tells_its_language(language: str) -> None:
    for text in (TEXTS[language], TEXTS[language].upper(), unicodedata.normalize("NFD", TEXTS[language])):
        shares = language_shares(text)
        assert max(shares, key=shares.__getitem__) == language


@given(st.text(max_size=200))
def test_shares_are_shares(text: str) -> None:
    shares = language_shares(text)
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) <= 1 + 1e-9


@pytest.mark.parametrize("text", ["", "42 + 7", "!?", "Guten Morgen"])
def test_where_there_is_no_evidence_nothing_is_claimed(text: str) -> None:
    assert language_shares(text) == {}


def test_a_megabyte_is_not_read_in_full() -> None:
    assert language_shares("the cat and " * 100_000) == language_shares("the cat and " * 50_000)
