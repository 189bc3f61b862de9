"""What could be a name: found by the shape of the words, without a model, with what speaks for and against it.

Latin, Cyrillic, Greek and Armenian names are runs of capitalised words; Japanese ones are runs of kanji and katakana.
A candidate is no finding: most capitalised words at the beginning of a sentence are none.
"""

# ruff: noqa: RUF001, SIM905  (apostrophes and marks of other scripts; word lists read best as words)

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ondevice_sdk.text.split import sentences
from ondevice_sdk.types import Span

__all__ = ["Candidate", "candidates"]

_LONGEST_RUN = 8  # words

_TITLES = frozenset(
    "mr mrs ms miss mx dr prof professor sir dame lord lady madam mister president senator sen governor gov mayor "
    "minister chancellor secretary ambassador judge justice captain capt colonel col general gen lieutenant lt "
    "major maj sergeant sgt officer king queen prince princess duke pope father sister brother rabbi imam sheikh "
    "reverend rev uncle aunt coach herr frau monsieur madame señor señora sr sra administrator director chairman "
    "ceo congressman congresswoman rep spokesman spokeswoman leader executive vice".split()
)
_HONORIFICS = frozenset("mr mrs ms miss mx dr prof professor sir madam mister herr frau monsieur madame".split())
_AFTER_COMPANY = frozenset(
    "inc ltd llc llp plc corp co company gmbh ag kg sa srl spa bv nv oy ab as group bank university college "
    "school institute foundation association society union committee commission council ministry department "
    "agency church club party team hospital museum library press times news post journal services systems "
    "partners holdings industries enterprises technologies airlines restaurant cafe hotel court league federation "
    "organization organisation authority bureau office army navy police".split()
)
_AFTER_PLACE = frozenset(
    "street st road rd avenue ave lane drive boulevard blvd square island islands river lake bay mountain "
    "mountains mount valley beach park county city town village province state district region republic kingdom "
    "airport bridge canyon coast desert forest harbour harbor hill hills ocean sea strait peninsula".split()
)
_LOCATING = frozenset(
    "in at from near to around across through toward towards outside inside throughout via within visit visited "
    "visiting в из на под".split()
)
_PARTICLES = frozenset(
    "of de del della di da do dos das du des la le les van von der den ter bin ibn al el zu y".split()
)
_NO_NAMES = frozenset(  # capitalised for other reasons than being a name
    "i i'm i'd i'll i've ok okay lol omg pm am tv dvd cd pc usb faq asap re fw fwd ps nb id url http https www "
    "email mail tel fax phone ph mobile cell attn subject cc bcc date sent to from page fig table chapter section "
    "part no yes p.s hi hello hey dear thanks thank please regards sincerely best cheers sorry well oh wow yeah "
    "mon tue wed thu fri sat sun january february march april may june july august september october november "
    "december jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday "
    "sunday today tomorrow yesterday christmas easter thanksgiving halloween apt suite box unit po p.o ssn iban "
    "psc apo dpo fpo январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь".split()
)
_FUNCTION = frozenset(
    "a an the and or but nor so yet if then than that this these those there here it its he she they we you i him "
    "her them us me my your his our their who whom whose which what when where why how is are was were be been "
    "being am do does did done has have had having will would shall should can could may might must of in on at "
    "by for with from to into onto about over under as also just only very more most some any each all both such "
    "own same other another not no never none after before during while because since until although though "
    "however therefore thus moreover meanwhile instead according among between against without within through "
    "across toward towards upon per via like unlike despite every either neither can't don't doesn't didn't won't "
    "isn't aren't wasn't weren't it's that's there's what's he's she's we're they're you're let's и в во не на он "
    "она оно они мы вы я ты что это как так но а по из за от до для при с со к ко у о об над под без его ее её их "
    "наш ваш мой твой свой этот эта эти тот та те весь вся все который которая которые если когда где уже еще ещё "
    "также однако потом после перед более менее можно нужно был была было были быть есть нет да или либо der die "
    "das ein eine und oder aber nicht ist sind war waren le la les un une et ou mais est sont el los las una y o "
    "pero es son il lo gli e".split()
)

_STARTERS = frozenset(  # no names at the beginning of a sentence, but often a part of one amid it
    "let get got go going make see come take give say said ask tell use find try need want know think perhaps "
    "maybe now once again always often sometimes still even ever too quite rather really actually first second "
    "third last next one two three four five six seven eight nine ten many much few several good great nice bad "
    "new old big small long short high low best worst better worse more less least patient patients doctor nurse "
    "dentist teacher customer customers user users manager employee student students owner driver waiter staff "
    "friend friends mother father son daughter wife husband man woman boy girl people everyone everybody someone "
    "somebody anyone nobody".split()
)
_LEADING_NAMES = frozenset("new great long first big old high last little".split())  # New York, Great Britain

_LAST_LATIN = "\u024f"
_LETTERS = r"[^\W\d_]"
_WORD = re.compile(
    rf"(?:[A-Z]\.){{1,4}}(?![a-z])|{_LETTERS}{{1,40}}+(?:['’\-&]{_LETTERS}{{1,40}}+){{0,4}}+|\d++|[^\w\s]"
)
_POSSESSIVE = re.compile(r"['’][sS]$")

_KANJI = "々〆ヶ\u3400-\u4dbf\u4e00-\u9fff"
_KATAKANA = "\u30a1-\u30fa\u30fc・＝"
_JAPANESE = re.compile(rf"[{_KANJI}{_KATAKANA}]")
_LATIN_RUN = r"[A-Za-zＡ-Ｚａ-ｚ][A-Za-zＡ-Ｚａ-ｚ0-9&.\-]{0,30}(?: [A-Z][A-Za-z0-9&.\-]{0,30}){0,4}"
_JAPANESE_RUN = re.compile(rf"[{_KANJI}{_KATAKANA}A-Za-zＡ-Ｚａ-ｚ]{{2,40}}|{_LATIN_RUN}")
_JAPANESE_BODY = re.compile(
    r"(?:会社|大学|学校|高校|党|省|庁|委員会|協会|協議会|銀行|新聞社?|放送|連盟|連合|軍|局|部隊|チーム|クラブ|グループ|研究所|病院|"
    r"プロダクション|スタジオ|製作所|製薬|電機|電力|鉄道|航空|出版|書房|書店|組合|機構|財団|政府|議会|裁判所|署|隊|団|会|社|FC|SC)$"
)
_JAPANESE_PLACE = re.compile(
    r"(?:市|県|都|府|区|町|村|駅|島|半島|諸島|山|川|湖|海|湾|国|王国|帝国|共和国|州|郡|通り|公園|空港|城|寺|神社|橋|港|館|ホール|場|"
    r"ビル|タワー|地方|地区|大陸|街|宮殿|教会|トンネル|インターチェンジ)$"
)
_JAPANESE_TITLE = re.compile(
    r"(?:さん|氏|君|様|監督|選手|委員|所長|社長|会長|首相|大統領|知事|市長|議員|教授|博士|大臣|司教|王|皇帝|夫人|先生|容疑者|被告|投手)"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A range that may be a name. `cues` are facts of its shape and surroundings, by name."""

    span: Span
    sentence: Span
    cues: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    text: str

    @property
    def plain(self) -> str:
        return self.text.rstrip(".").casefold()

    @property
    def is_word(self) -> bool:
        return self.text[0].isalpha()

    @property
    def capital(self) -> bool:
        return self.is_word and any(part[:1].isupper() for part in re.split(r"[-'’]", self.text))


def candidates(text: str) -> list[Candidate]:
    """All candidates of a text, in its order, without overlaps."""
    found: list[Candidate] = []
    for sentence in sentences(text):
        japanese = len(_JAPANESE.findall(sentence.text)) > len(sentence.text) // 5
        runs = _japanese_runs(sentence) if japanese else _runs(text, sentence)
        found.extend(Candidate(span, sentence, cues) for span, cues in runs)
    return found


def _runs(text: str, sentence: Span) -> Iterator[tuple[Span, frozenset[str]]]:
    words = _words(sentence)
    capitals = sum(word.capital for word in words)
    letters = sum(word.is_word for word in words)
    shape = set()
    if not any(sign.islower() for sign in sentence.text):
        shape.add("shouted")
    elif letters >= 4 and capitals > 0.6 * letters:
        shape.add("titled")
    first = next((index for index, word in enumerate(words) if word.is_word), 0)
    index = 0
    while index < len(words):
        word = words[index]
        following = words[index + 1] if index + 1 < len(words) else None
        leads = word.plain in _LEADING_NAMES and following is not None and following.capital
        if not _opens(word, index == first and not leads, shape):
            index += 1
            continue
        end = _run_end(text, words, index)
        for low, high in _parted(words, index, end):
            yield _candidate(text, words, low, high, first, shape)
        index = end


def _opens(word: _Word, starts: bool, shape: set[str]) -> bool:
    """Whether a name may begin here."""
    if not word.capital or word.plain in _NO_NAMES:
        return False
    if word.text.isupper() and len(word.text) in (2, 3, 4) and "shouted" not in shape:  # US, WHO, IT
        return True
    return word.plain not in _FUNCTION and not (starts and word.plain in _STARTERS)


def _words(sentence: Span) -> list[_Word]:
    """Words, numbers and marks; a full stop belongs to a title or the form of a company."""
    found: list[_Word] = []
    for match in _WORD.finditer(sentence.text):
        start, end = match.start() + sentence.start, match.end() + sentence.start
        last = found[-1] if found else None
        if match.group() == "." and last is not None and last.end == start and last.plain in _DOTTED:
            found[-1] = _Word(last.start, end, f"{last.text}.")
            continue
        shown = _POSSESSIVE.sub("", match.group())
        found.append(_Word(start, start + len(shown), shown))
        if shown != match.group():
            found.append(_Word(start + len(shown), end, match.group()[len(shown) :]))
    return found


_DOTTED = _TITLES | frozenset("inc ltd corp co st mt ft jr sr bros dept univ ave blvd rd".split())


def _run_end(text: str, words: list[_Word], start: int) -> int:
    """Index after the last word of the run."""
    end = start + 1
    while end < len(words) and end - start < _LONGEST_RUN:
        step = 0
        if _joined(text, words[end - 1], words[end]):
            word = words[end]
            if word.capital and word.plain not in _NO_NAMES:
                step = 1 if word.plain not in _FUNCTION or word.plain in _PARTICLES or len(word.text) == 1 else 0
            elif word.plain in _PARTICLES or word.text == "&":
                step = _over_particles(text, words, end)
        if not step:
            break
        end += step
    return end


def _over_particles(text: str, words: list[_Word], at: int) -> int:
    """How many words to the next capitalised one over "de la", "van der", "&", or "of" after the word for a body."""
    if words[at].plain == "of" and words[at - 1].plain not in _AFTER_COMPANY | _AFTER_PLACE | {"states", "house"}:
        return 0
    end = at
    while end < len(words) and end - at < 3 and (words[end].plain in _PARTICLES or words[end].text == "&"):
        end += 1
        if end == len(words) or not _joined(text, words[end - 1], words[end]):
            return 0
    return end - at + 1 if words[end].capital and words[end].plain not in _NO_NAMES | _FUNCTION else 0


def _joined(text: str, left: _Word, right: _Word) -> bool:
    return right.start == left.end + 1 and text[left.end] in " \t\xa0"


def _parted(words: list[_Word], start: int, end: int) -> Iterator[tuple[int, int]]:
    """A run without titles: "NASA Administrator Mike Griffin" names two."""
    low = start
    for index in range(start, end + 1):
        if index == end or words[index].plain in _TITLES:
            if low < index:
                yield low, index
            low = index + 1


def _candidate(
    text: str, words: list[_Word], start: int, end: int, first: int, shape: set[str]
) -> tuple[Span, frozenset[str]]:
    cues = set(shape)
    parts = words[start:end]
    if start == first:
        cues.add("start")
    elif words[start - 1].plain in _HONORIFICS:
        cues.add("honorific")
    elif words[start - 1].plain in _LOCATING:
        cues.add("located")
    if len(parts) < 3:
        cues.add(("one", "two")[len(parts) - 1])
    if len(parts) == 1 and parts[0].text.isupper() and len(parts[0].text) > 1:
        cues.add("acronym")
    if any(word.plain in _AFTER_COMPANY for word in parts[-1:] + parts[:1]) or any(w.text == "&" for w in parts):
        cues.add("company")
    if end < len(words) and words[end].text.casefold() in ("'s", "’s"):
        cues.add("owner")
    if parts[0].text[0] > _LAST_LATIN:
        cues.add("not_latin")
    low, high = parts[0].start, parts[-1].end
    return Span(low, high, text[low:high]), frozenset(cues)


def _japanese_runs(sentence: Span) -> Iterator[tuple[Span, frozenset[str]]]:
    """Runs of kanji, katakana and Latin letters; what follows a name (a title) is no part of it."""
    text = sentence.text
    for match in _JAPANESE_RUN.finditer(text):
        run, start = match.group(), match.start()
        if run[0] in "年月日位代回第" and text[max(0, start - 1) : start].isdigit():  # of the number before it
            run, start = run[1:], start + 1
        run = run.rstrip("側等内間")
        cues = {"japanese"}
        title = _JAPANESE_TITLE.search(run, 2)
        if title is not None and title.end() == len(run):
            run = run[: title.start()]
            cues.add("japanese_title")
        elif _JAPANESE_TITLE.match(text, start + len(run)):
            cues.add("japanese_title")
        if len(run) < 2:
            continue
        if _JAPANESE_BODY.search(run):
            cues.add("japanese_body")
        elif _JAPANESE_PLACE.search(run):
            cues.add("japanese_place")
        scripts = {
            "katakana" if "\u30a0" <= sign <= "\u30ff" else "latin" if sign < "\u2000" else "kanji" for sign in run
        }
        cues.add(f"japanese_{scripts.pop()}" if len(scripts) == 1 else "japanese_mixed")
        cues.add("japanese_short" if len(run) < 3 else "japanese_long" if len(run) > 6 else "japanese_name")
        if "・" in run.strip("・"):
            cues.add("japanese_dotted")
        if text[max(0, start - 1) : start] in ("「", "『", "（"):
            cues.add("japanese_quoted")
        yield Span(sentence.start + start, sentence.start + start + len(run), run), frozenset(cues)
