"""Which language a text is in, as far as its script and its commonest words tell. No data files, no model.

Scripts that one language has to itself decide alone; between the languages of one script, common short words do.
"""

# ruff: noqa: RUF001  (letters of many scripts; word lists read best as words)

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from ondevice_sdk.text.split import words

_READ = 20_000  # characters; more tell nothing new
_HEARD = 0.15  # part of the words that a language has in its list at least, in a text of that language; by eye
_SCRIPTS: Mapping[str, tuple[str, ...]] = {
    r"[Ͱ-Ͽἀ-῿]": ("el",),
    r"[Ѐ-ӿ]": ("ru", "uk"),
    r"[֐-׿]": ("he",),
    r"[؀-ۿ]": ("ar",),
    r"[ऀ-ॿ]": ("hi",),
    r"[฀-๿]": ("th",),
    r"[぀-ヿ]": ("ja",),
    r"[가-힣ᄀ-ᇿ]": ("ko",),
    r"[一-鿿㐀-䶿]": ("zh",),
}
_PATTERNS = {re.compile(script): languages for script, languages in _SCRIPTS.items()}
_LATIN = re.compile(r"[A-Za-zÀ-ɏẠ-ỹ]")

_COMMON: Mapping[str, frozenset[str]] = {
    language: frozenset(common.split())
    for language, common in {
        "cs": "a se v na je že s z do o k i to jako za by ale jsou který která které byl být nebo jeho podle při má "
        "každý jen není jsem také však až",
        "da": "og i at det en er på til af de for med den som der har et ikke vi kan om men var sig eller han fra blev "
        "også hvor skal ved jeg hun efter",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus "
        "er hat dass sie nach wird bei einer um am sind noch wie einem über so hatte oder ich hier",
        "en": "the of and to in a is that for it as was with be on by at are this have from or an which not but had "
        "his they i you were their has he she we all been one if will would",
        "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si "
        "sin sobre este ya toda entre cuando muy también hay",
        "fi": "ja on ei se että oli hän en ovat mutta ole kun myös kuin tai sen joka niin mitä hänen "
        "olla ne minä sekä vain voi jos siitä kaikki ollut jo",
        "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec son "
        "aux ou cette mais ont été comme nous être je elle leur",
        "hu": "a az és hogy nem is egy van meg ez volt de csak már mint még minden azt vagy ha sem mert ki nagy kell "
        "lehet ezt amely után én olyan",
        "id": "yang dan di dengan untuk dari pada ini itu dalam adalah tidak akan oleh ke atau juga "
        "telah bahwa sebagai ada saya tersebut mereka karena lebih dapat",
        "it": "di e che la il un a per in è una non sono i con si da del le al come dei più della alla ha gli nel lo "
        "anche ad o questo delle nella se suo io",
        "nl": "de het een van en in is dat op te zijn met voor niet aan er die als om ook maar door bij naar uit hij "
        "wordt heeft werd dan wat nog ik zich deze hebben haar kan",
        "no": "og i det er på til som en å for av at med de har ikke den et om vi kan var men seg eller han fra ble "
        "også hvor skal ved jeg hun etter noe nå bare",
        "pl": "w i z na do nie się jest to o że a od za po jak przez dla oraz są ale tym jego czy może ma który które "
        "co tak już był być lub ich",
        "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas ao ele das à seu sua ou "
        "quando muito nos já também só pelo pela até isso é são foi",
        "ro": "de și în a la cu pe că nu este un o din care pentru mai sau sunt al să ca au fi lui prin dar orice "
        "are se ale după foarte fost într",
        "sv": "och i att det som en på är av för med till den har de inte om ett han men var jag sig från vi så kan "
        "eller när vid också efter hade ska vara hon nu",
        "tr": "ve bir bu da de için ile olarak çok daha olan gibi en kadar ne her o var ama ya veya değil şey ben "
        "olduğu sonra kendi mi ise göre",
        "vi": "và của là có các được cho không với trong một những này đã để từ khi đến về vào ra như "
        "tôi hay theo hoặc cũng đó bị nhiều phải",
        "ru": "и в не на что я с он как это по но они к у из за от то все так его же вы для мы или о при "
        "имеет быть был если только ее бы",
        "uk": "і в не на що я з він як це по але вони до у із за від то все так його же ви для ми або про при "
        "має бути був якщо тільки її та й є",
    }.items()
}
_SHARED_BY = Counter(word for common in _COMMON.values() for word in common)
_VIETNAMESE = re.compile(r"[ạ-ỹ]")
_LETTERS: Mapping[str, str] = {  # that one of the languages has almost to itself
    "cs": "ěřů", "de": "ß", "es": "ñ¿¡", "fr": "œ", "hu": "őű", "pl": "łżś", "pt": "ãõ", "ro": "țșă", "ru": "ыэёъ",
    "tr": "ğış", "uk": "іїєґ", "vi": "đơư",
}  # fmt: skip


def language_shares(text: str) -> dict[str, float]:
    """How much of a text speaks for each language (BCP 47 tag): 0 to 1, together at most 1.

    What is missing from 1 are words that tell nothing: nearly all of a text in an unlisted language.
    """
    text = unicodedata.normalize("NFC", text[:_READ])
    counts = {languages: len(pattern.findall(text)) for pattern, languages in _PATTERNS.items()}
    latin = len(_LATIN.findall(text))
    if counts[("ja",)]:  # Japanese writes Chinese characters too
        counts[("ja",)] += counts.pop(("zh",))
    letters = latin + sum(counts.values())
    if not letters:
        return {}
    shares = {own[0]: count / letters for own, count in counts.items() if count and len(own) == 1}
    spaced = (latin + counts[("ru", "uk")]) / letters
    return shares | {language: spaced * share for language, share in _by_words(text).items()}


def _by_words(text: str) -> dict[str, float]:
    """The share of each language in the words that are common somewhere and in the telling letters.

    Smaller where the words that a language does have in its list are few.
    """
    lowered = text.casefold()
    said = Counter(words(text))
    hits: dict[str, float] = {}
    known: dict[str, float] = {}
    for language, common in _COMMON.items():
        found = [word for word in common if word in said]
        telling = float(sum(min(lowered.count(letter), 5) for letter in _LETTERS.get(language, "")))
        if language == "vi":
            telling += min(len(_VIETNAMESE.findall(lowered)), 5)
        hits[language] = telling + sum(said[word] / _SHARED_BY[word] for word in found)
        known[language] = telling + sum(said[word] for word in found)
    heard, least = sum(hits.values()), _HEARD * sum(said.values())
    return {language: count / heard * min(1.0, known[language] / least) for language, count in hits.items() if count}
