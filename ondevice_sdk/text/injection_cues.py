"""What instructions to a language model look like: cues with weights, none of which is an alarm on its own unless plain.

A cue is looked for only in sentences that hold one of its literals, which a text is scanned for once, so that the cost
of many cues is that of many substring searches. All gaps in the patterns are bounded.
"""

# ruff: noqa: E501, RUF001  (one cue a paragraph reads best; other scripts and apostrophes of all kinds)

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Final, Literal

__all__ = ["PLAIN", "Cue", "SteeringKind", "cues"]

SteeringKind = Literal["override", "address", "answer", "role", "markup", "action", "secret", "hidden", "encoded"]

_OR = " | "  # between literals: a bare bar may be one
PLAIN: Final = 1.0  # a weight, or a sum of them, from which a passage is held to steer


@dataclass(frozen=True, slots=True)
class Cue:
    """A pattern in lower-case text, and how much it says."""

    kind: SteeringKind
    weight: float
    literals: tuple[str, ...]
    pattern: re.Pattern[str] = field(repr=False)


@cache
def cues() -> tuple[Cue, ...]:
    """All cues, compiled when they are first needed: most programs never look."""
    return tuple(
        Cue(kind, weight, tuple(literals.split(_OR)), re.compile(pattern)) for kind, weight, literals, pattern in _CUES
    )


def _cue(kind: SteeringKind, weight: float, literals: str, pattern: str) -> tuple[SteeringKind, float, str, str]:
    return kind, weight, literals, pattern


def _near(left: str, right: str, gap: int = 6) -> str:
    """The one before the other, with a few words between."""
    return rf"(?:{left})\w*(?:[^\w.;:!?\n]{{1,3}}[\w'’-]{{1,24}}){{0,{gap}}}?[^\w.;:!?\n]{{1,3}}(?:{right})"


_GIVEN = r"(?:previous|prior|above|earlier|preceding|former|foregoing|initial|original|existing|current|other|system|these|those|all|any|your|my|the)"
_EARLIER_ONES = r"(?:previous|prior|above|earlier|preceding|former|foregoing|initial|original|existing|all|any|your|my|system|those|these)"
_TOLD = (  # where an order begins
    r"(?:\A\W*|[.:;!?,>*\"'“\n-]\W{0,3}|\b(?:please|must|now|and|then|should|shall|you|just|instead|immediately|completely|always|simply|can|"
    r"will|(?:need|have|instructed|required|told|you|asked)[ ]to)\W{1,3})"
)
_ORDERS = r"(?:\w{0,3}structions?|i\w{1,3}s\w{0,2}ructions?|directions?|directives?|prompts?|rules?|guidelines?|orders?|commands?|guidance|programming|policies|restrictions?|training)"
_UNDO = r"(?:ignor|disregard|forget|overrid|bypass|neglect|overlook|discard|abandon|circumvent|stop[ ]follow|cease[ ]follow|(?:do[ ]not|don['’]t|never)[ ](?:follow|obey|heed))"
_ANSWER = r"(?:answers?|responses?|repl(?:y|ies)|outputs?|summar(?:y|ies)|completions?)"
_SHAPE = (
    r"(?:begin|start|end|finish|conclude|close|open|include|add|append|prepend|insert|embed|write|provide|give|modify|"
    r"enhance|integrate|incorporate|weave|replace|substitute|swap|translate|encode|encrypt|convert|transform|render|"
    r"format|phrase|craft|create|compose|present|make|use|change|alter|adjust|rewrite|rephrase|reverse|deliver|express|"
    r"remove|omit|exclude|limit|keep|shorten|prefix|infuse|introduce|mention|promote|recommend|advertise|utili[sz]e|"
    r"employ|implement|apply|offer|share|generate|produce|sprinkle|mask|camouflage|jumble|scramble|rearrange|respond|"
    r"state|claim|say|supply|highlight|emphasi[sz]e|suggest|direct|link|attach|explain|discuss|ensure|turn)"
)
_MODEL = (
    r"(?:ai|a\.i\.|llm|llms|(?:large[ ])?language[ ]models?|chat-?bots?|chatgpt|gpt(?:-?\d\w*)?|"
    r"(?:ai|virtual|digital|automated)[ -](?:assistants?|agents?|models?|systems?|tools?|reviewers?)|assistants?)"
)
_EARLIER = r"(?:based|depending|from|for|after|until|upon|about|regarding|thanks?)\b"
_FORM = (
    r"(?:french|german|spanish|italian|russian|chinese|japanese|korean|arabic|hindi|portuguese|dutch|turkish|polish|swedish|latin|greek|"
    r"base[ -]?\d\d|hex\w*|binary|morse|emojis?|pig[ ]latin|leet\w*|rot-?13|reverse|rhym\w+|all[ ]caps|upper-?[ ]?case|verse|code[ ]words)\b"
)
_CALL = (
    r"(?:\A\W*|\b(?:dear|hey|hello|hi|attention|note[ ]to|notice[ ]to|message[ ](?:to|for)|instructions?[ ](?:to|for)|important[ ]for|listen)\W{1,3}"
    r"(?:(?:the|all|any|every|you)\W{1,3}){0,2})"
)
_CALLED = r"(?:\s*[:,!—–]|\W{1,3}(?:reading|processing|summari[sz]ing|analy[sz]ing|that|who|please|must|should|you)\b)"
_WHO = r"(?:me|us|the[ ]user|anyone|anybody|everyone)"

_CUES: Final = (
    # turning what was said before
    _cue("override", 0.6, "ignor | disregard | forget | overrid | bypass | neglect | overlook | discard | abandon | circumvent | follow | obey | heed",
         r"\b" + _near(_UNDO, _GIVEN + r"(?:\W{1,3}\w{1,16}){0,3}?\W{1,3}" + _ORDERS) + r"\b"),
    _cue("override", 0.4, "ignor | disregard | forget | overrid | bypass | neglect | discard | abandon | circumvent | follow | obey",
         _TOLD + _near(_UNDO, _EARLIER_ONES + r"(?:\W{1,3}\w{1,16}){0,3}?\W{1,3}" + _ORDERS) + r"\b"),
    _cue("override", 0.4, "you | above | earlier | user | system", rf"\b{_ORDERS}\W{{1,3}}(?:that\W)?(?:you[ ](?:were|have|had|got|received|are)|(?:given|written|stated|told)\b|above|earlier|"
         r"from[ ](?:the[ ])?(?:user|system|developer))\b"),
    _cue("override", 1.0, "ignor | disregard | forget",
         r"\b(?:ignor\w*|disregard\w*|forget\w*)\W{1,3}(?:about\W)?(?:everything|anything|all|what(?:ever)?)"
         r"(?:\W{1,3}\w{1,16}){0,4}?\W{1,3}(?:above|before|previous\w*|prior|earlier|preced\w*|so[ ]far|told|said[ ]before)\b"),
    _cue("override", 0.7, "ignor | disregard | forget",
         r"\b(?:ignore|disregard|forget)\W{1,3}(?:the\W|all\W|everything\W)?(?:above|previous|preceding)\b"),
    _cue("override", 0.4, "ignor | disregard | forget", r"(?:\A|[.!?:]\W{0,3}|\bplease\W)(?:ignore|disregard|forget)\b[^\n.]{3,60}?\b(?:and|then|instead)\W(?:\w{1,12}\W)?"
         r"(?:say|state|write|tell|give|print|output|do|reply|respond|answer|repeat|show|send|start|act)\b"),
    _cue("override", 1.0, "ignor | olvid | oubli | vergiss | esque | dimentic", r"\b(?:ignor\w{1,7}|olvid\w{1,4}|oubli\w{1,4}|vergiss|esque\w{1,4}|dimentic\w{1,4})\W(?:sie\W)?(?:todo\W|tudo\W|tutto\W|tout\W|alles\W)?"
         r"(?:lo[ ]anterior|o[ ](?:que[ ]foi[ ]dito|anterior|acima)|das[ ]obige|obige\w?|bisherige|ce[ ]qui[ ]précède|quanto[ ]sopra|ciò[ ]che[ ]precede)"),
    _cue("override", 0.9, "instruction | task | orders | goal | objective | directive | prompt",
         r"\b(?:new|updated?|revised|real|true|actual|only|next|special|hidden|secret|additional)\W"
         r"(?:and\W\w{1,12}\W)?(?:\w{0,3}structions?|orders|directives?|system[ ]prompt)\W{0,2}(?::|follow|are\b|is\b|for\b)"),
    _cue("override", 0.3, "your", r"\byour\W(?:real|true|actual)\W(?:tasks?|goals?|jobs?|objectives?|missions?|instructions?|purposes?)\W(?:is|are)\b"),
    _cue("override", 0.8, "your", r"\byour\W(?:new|real|true|actual|only|sole)\W(?:tasks?|goals?|jobs?|"
         r"objectives?|missions?|instructions?|roles?|purposes?|persona)\b"),
    _cue("override", 0.8, "instruction | order | command",
         r"\b(?:strictly|only|must|always|exactly|instead)\W(?:adhere[ ]to|follow|obey|execute|carry[ ]out|comply[ ]with)"
         r"(?:\W\w{1,12}){0,3}?\W(?:\w{0,3}structions?|orders?|commands?)\b"),
    # speaking to a model
    _cue("address", 0.8, "you", rf"\b(?:if[ ]you[ ]are|if[ ]you['’]re|(?:to|for)[ ]you|you[ ]are|you['’]re|as)\W{{1,3}}(?:reading[ ]this[ ]as\W)?"
         rf"(?:now\W)?(?:an?\W|the\W|my\W)?(?:\w{{1,16}}\W){{0,3}}?{_MODEL}\b"),
    _cue("address", 0.6, "ai | assistant | llm | model | gpt | bot", _CALL + _MODEL + _CALLED),
    _cue("address", 0.4, "ai | llm | model | gpt | bot", _CALL + r"(?!assistant)" + _MODEL + _CALLED),
    _cue("address", 0.5, "ai | assistant | llm | model | gpt | bot", rf"\b{_MODEL}\W{{1,3}}(?:that\W|which\W|who\W)?(?:reads?|reading|process\w{{0,3}}|summari[sz]\w{{1,3}}|"
         r"analy[sz]\w{1,3})\W(?:this|the)\W"),
    _cue("address", 0.6, "ai | assistant | llm | model | gpt | bot", rf"\b{_MODEL}\W{{1,3}}(?:\w{{1,16}}\W{{1,3}}){{0,6}}?(?:must|shall|needs?[ ]to|"
         r"(?:is|are)[ ](?:instructed|required|ordered|told|asked|directed|requested)[ ]to)\b"),
    _cue("address", 0.7, "summari | processing | answering | translating | analy | reading | asked",
         r"\b(?:when|while|before|after|if)\W(?:you[ ](?:are\W)?)?(?:summari[sz]\w{1,3}|processing|answering|translating|"
         r"analy[sz]ing|(?:are[ ])?asked[ ](?:about|to)|read(?:ing)?)\W(?:\w{1,16}\W){0,4}?(?:this|the|above|following)\W"
         r"(?:text|document|e-?mail|message|page|article|file|review|content|report|passage|letter)\b"),
    _cue("address", 0.6, "user", r"\b(?:message|note|instructions?|request|command)[ ]from[ ](?:me|us|your|the)\W{1,3}(?:the[ ]|your[ ])?(?:users?|developers?|creators?|owners?|operators?|administrators?|admin|system|maintainers?)\b"),
    _cue("address", 0.8, "before you | after you", r"\b(?:before|after)\Wyou\W(?:can\W|do\W|continue\W)?(?:solve|answer|respond|reply|summari[sz]e|"
         r"do[ ]that|complete[ ](?:the|this|your)[ ]task)\b"),
    # shaping the answer
    _cue("answer", 1.0, "your", rf"\b{_SHAPE}\W{{1,3}}(?:(?!{_EARLIER})[\w'’\"-]{{1,24}}\W{{1,3}}){{0,12}}?your\W(?:\w{{1,14}}\W){{0,2}}?{_ANSWER}\b"),
    _cue("answer", 1.0, "your", rf"\A\W*(?:please\W)?{_SHAPE}\b[^\n]{{3,200}}?\b(?:to|in|into|of)[ ]your[ ](?:\w{{1,14}}[ ]){{0,2}}?{_ANSWER}\W*\Z"),
    _cue("answer", 0.6, "your", rf"\b(?:in|to|of|throughout|within)[ ]your[ ](?:\w{{1,14}}[ ]){{0,2}}?{_ANSWER}\b"),
    _cue("answer", 0.4, "your", rf"\A\W*[a-z]{{3,16}}[ ][^\n]{{3,120}}?\b(?:in|of)[ ]your[ ](?:\w{{1,14}}[ ]){{0,2}}?(?:{_ANSWER}|message)\b"),
    _cue("answer", -2.0, "your", r"\b(?:order|booking|reference|case|customer|ticket|invoice|account|phone|tracking)[ ](?:number|id|no\b)|\bby[ ](?:mon|tues|wednes|thurs|fri|satur|sun)day|"
         r"\b(?:in[ ]the[ ](?:box|space|field)|on[ ](?:the|your)[ ](?:sheet|form|paper|answer)|survey|questionnaire|deadline|in[ ]advance|examiner|to[ ]the[ ]nearest|show[ ]your[ ]work|\bink\b|capital[ ]letters\b)"),
    _cue("answer", 1.0, "respond | reply | answer | translate | write", rf"(?:\A\W*|\b(?:please|can[ ]you|could[ ]you|must|should|always)\W)(?:respond|reply|answer|(?:translate|write)\W(?:your|everything|all|the[ ]summary))\W(?:\w{{1,14}}\W){{0,4}}?"
         rf"(?:in|into|to|using|with)\W(?:only\W)?{_FORM}"),
    _cue("answer", 0.7, "your", r"\b(?:translate|encode|encrypt|convert|reverse|rewrite|scramble|write|convey|transform)\Wyour\W"
         r"(?:\w{1,14}\W){0,2}?(?:message|text|words|sentences?|content|writing)\b"),
    _cue("answer", 1.0, "your", rf"\byour\W(?:\w{{1,14}}\W){{0,2}}?{_ANSWER}\W(?:\w{{1,14}}\W){{0,2}}?(?:must|should|shall|needs?[ ]to|has[ ]to|"
         r"(?:only|always)|in[ ](?:reverse|french|german|spanish|italian|russian|chinese|base\d\d|morse))\b"),
    _cue("answer", 1.0, "respond | reply | answer | output | print | say | write | return",
         r"(?:\A\W*|[.:;!,]\W{1,3}|\b(?:please|only|just|and|then|must|always|instead|should|to)\W)"
         r"(?:only\W|always\W|just\W|simply\W)?(?:respond|reply|answer|output|print|return)\W(?:only\W|just\W|exactly\W|solely\W|back\W)?"
         r"(?:with|in)\W(?:the\W(?:word|phrase|text|string|sentence|following)|only|just|exactly|nothing|[\"'“‘«]|yes\b|no\b)"),
    _cue("answer", 0.6, "respond | reply | answer", r"\b(?:can|could|would|will)\Wyou\W(?:please\W)?(?:respond|reply|answer)\W(?:\w{1,14}\W){0,3}?"
         r"(?:in|with|using|by)\b"),
    _cue("answer", 0.6, "respond | reply | answer", r"(?:\A\W*|\bplease\W)(?:respond|reply|answer)\W(?:\w{1,14}\W){0,2}?(?:in|with|using|by|only|as)\b"),
    _cue("answer", 0.7, "say | print | output | repeat | write | state | include | type",
         r"(?:\A\W*|[.:;!,]\W{1,3}|\b(?:please|and|then|instead|must|just)\W)(?:say|print|output|repeat|state|type)\W"
         r"(?:only\W|exactly\W|the\W(?:word|phrase|words|text|string|sentence|following)\W){0,2}[\"'“‘«]"),
    _cue("answer", 0.8, "word | phrase | string | sentence | token", r"\b(?:begin|start|end|finish|respond|reply|answer|include|print|output|say|write|use|mention|repeat)\W"
         r"(?:\w{1,14}\W){0,4}?(?:the|this|these)\W(?:exact\W|single\W|following\W|secret\W|magic\W)?(?:words?|phrases?|strings?|tokens?)\b"
         r"(?=\W{1,4}\w)"),
    # another role
    _cue("role", 0.7, "you", r"\b(?:you[ ]are|you['’]re|you[ ]will|you[ ]shall|you[ ]must)[ ]now\b|\bnow[ ]you[ ]are\b"),
    _cue("role", 0.5, "act as | pretend | roleplay | role-play | simulate | imagine",
         r"(?:\A\W*|[.:;!,]\W{1,3}|\b(?:please|to|must|will|and|now|should)\W)(?:act[ ]as\W(?:an?|if|though|my|the)\b|pretend\W(?:to[ ]be|that|you)\b|"
         r"role-?play\b|simulate\Wan?\b)"),
    _cue("role", 0.4, "from now on | henceforth", r"\b(?:from[ ]now[ ]on|henceforth)\b"),
    _cue("role", 0.9, "mode | jailbreak | dan", r"\b(?:developer|debug|god|admin(?:istrator)?|sudo|root|system|maintenance|unrestricted|dan|jailbreak|override|superuser)"
         r"[ -]mode\W{0,3}(?:\w{1,12}\W{1,3}){0,2}?(?:activ\w*|enabl\w*|engag\w*|on\b|start\w*|engaged|unlocked|initiated)"),
    _cue("role", 0.7, "mode", r"\b(?:enter|switch|activate|enable|engage|start|you[ ]are[ ]in|we[ ]are[ ]in|go)\W(?:\w{1,12}\W){0,3}?"
         r"(?:developer|debug|god|admin(?:istrator)?|sudo|root|system|unrestricted|jailbreak|superuser)[ -]mode\b"),
    _cue("role", 0.8, "do anything now | jailbr", r"\bdo[ ]anything[ ]now\b|\bjailbr(?:eak|oken)\b"),
    _cue("role", 0.5, "restriction | filter | limitation | censor", r"\b(?:without|no|free[ ]of|ignore|remove|bypass)\W(?:\w{1,12}\W){0,3}?(?:restrictions|content[ ]filters?|"
         r"limitations|censorship|safety[ ]\w{1,12})\b"),
    # markup of prompts and false turns
    _cue("markup", 1.0, "<|", r"<\|\s*(?:im_start|im_end|system|user|assistant|endoftext|end|begin_of_text|start_header_id|end_header_id|eot_id|eom_id)\s*\|>"),
    _cue("markup", 1.0, "[inst | [/inst | <<sys | <</sys | <start_of_turn | <end_of_turn", r"\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>"),
    _cue("markup", 1.0, "###", r"#{2,}\s*\(?\s*(?:system|instructions?|assistant|human|user|new)[ _-]?(?:message|prompt|instructions?|note|task)?\s*[:)]"),
    _cue("markup", 0.9, "system", r"(?:\A|[\n>*\[({])\W{0,4}system(?:[ _](?:message|prompt|override|instruction|notice|note|alert|update))?\s*[\])}>*]{0,3}\s*[:>]"),
    _cue("markup", 0.9, "<system | </system | <instruction | <assistant | </assistant | </user | <prompt | </prompt | <information | <important | <secret | <admin | <hidden",
         r"</?(?:system|instructions?|assistant|user|prompt|information|important|secret|admin|hidden)(?:[ _-]?(?:message|prompt|instructions?|note))?\s*/?>"),
    _cue("markup", 0.8, "assistant: | ai: | chatbot: | human:", r"(?:\A|\n)\W{0,4}(?:assistant|ai|chatbot|ai assistant|human)\s*:"),
    _cue("markup", 0.9, "prompt | instruction | document | context | text | data | content",
         r"\b(?:begin|start|end)(?:ning)?\W{1,2}(?:of\W)?(?:the\W)?(?:new\W|system\W|user\W|hidden\W|secret\W|previous\W){0,2}(?:prompts?|instructions?)\b"),
    # asking for deeds
    _cue("action", 0.6, "todo", r"\A\W*to-?do\s*:\s*(?:please\W)?[a-z]{3,}"),
    _cue("action", 0.5, "@ | http | www. | iban | account", r"\b(?:send|forward|e-?mail|mail|transfer|post|upload|submit|share|invite|wire|report|leak|copy|concatenate)\b"
         r"[^\n]{0,120}?\b(?:to|at|on)\b[^\n]{0,60}?(?:[\w.-]@[\w-]|https?://|www\.|\b[a-z]{2}\d{10,}|\baccount\b)"),
    _cue("action", 0.5, "transfer | transaction | reservation | delete | schedule | invite | calendar | password | book | reserve | make | create | cancel | buy | purchase | post | upload | visit | go to",
         r"(?:\A\W*(?:to-?do\s*:\W*)?|\bplease\W|\bdo\W)(?:transfer|send|make|delete|schedule|invite|create|book|reserve|cancel|change|update|upload|post|"
         r"visit|go[ ]to|check|get|give|buy|purchase|add)\W(?:\w{1,16}\W{1,3}){0,8}?(?:transactions?|transfer|reservations?|accounts?|calendar|passwords?|inbox|"
         r"e-?mails?|files?|channels?|messages?|workspace|website|rooms?|events?|hotels?|user(?:'s)?|cloud)\b"),
    _cue("action", 0.7, "without asking | without confirm | without telling | without inform | without mention | without notif | without permission",
         r"\bwithout\W(?:asking|confirm\w*|telling|inform\w*|mention\w*|notif\w*|permission)\b(?=\W(?:\w{1,12}\W){0,3}?(?:me|user|anyone|anybody|first|confirmation|this|it|them|of)\b)"),
    _cue("action", 0.8, "tell | mention | reveal | inform | disclose | show | warn", r"\b(?:do[ ]not|don['’]t|never)\W(?:tell|inform|warn|alert|notify|reveal|mention|disclose)\W"
         r"(?:\w{1,12}\W){0,5}?(?:the[ ]user|this[ ](?:instruction|prompt|message|note)|these[ ]instructions)\b"),
    _cue("action", 0.7, "instead", r"\A\W*do\W[^\n]{3,400}\binstead\W*\Z"),
    # asking for what the model keeps
    _cue("secret", 1.0, "prompt | instruction | rules | guidelines", r"\b(?:reveal|show|print|repeat|output|tell|disclose|give|display|share|leak|list|summari[sz]e|translate|what[ ](?:is|are|were))\W"
         r"(?:\w{1,12}\W){0,4}?(?:your|the|its)\W(?:\w{1,12}\W){0,2}?(?:system[ ]prompt|initial[ ]prompt|original[ ]prompt|hidden[ ]prompt|(?:system|initial|original|hidden|secret|previous)[ ]\w{0,3}structions?)\b"),
    _cue("secret", 1.0, "instruction | prompt", r"\b(?:what|which|repeat|print|reveal|show)\W(?:\w{1,12}\W){0,4}?\w{0,3}(?:structions?|prompts?)\W(?:were|was|did|have|has|had)?\W?(?:you|been)\b"),
    _cue("secret", 0.7, "password | secret | api key | credential | confidential | passcode | pass phrase | passphrase",
         rf"\b(?:tell|give|reveal|share|send|show|disclose|print|output|spell|provide|say|write)\W{{1,3}}(?:{_WHO}\W{{1,3}})?(?:\w{{1,14}}\W{{1,3}}){{0,6}}?"
         r"(?:passwords?|secrets?|api[ ]keys?|credentials|confidential|passcodes?|pass-?phrases?|credit[ ]card)\b"),
    _cue("secret", 0.4, "password | secret | api key | passcode | credential", r"\b(?:tell|give|send|show|reveal[ ]to|read)\W(?:me|us)\W(?:\w{1,14}\W){0,4}?(?:passwords?|secrets?|api[ ]keys?|passcodes?|credentials)\b"),
    _cue("secret", 0.7, "password | secret | passcode", r"\bwhat(?:[ ]is|['’]s|[ ]was|[ ]would)\W(?:be\W)?(?:your|the)\W(?:\w{1,12}\W){0,2}?(?:passwords?|secrets?|passcodes?|passphrases?)\b"),
    _cue("secret", 0.4, "your password | your secret | the password | the secret", r"\b(?:your|the)\W(?:secret\W|system\W)?(?:passwords?|secrets?)\b[^.!?]{0,60}\?"),
    # the same in other languages: an order to leave orders, before or behind
    _cue("override", 1.0, "ignorier | vergiss | vergess | missacht | übergeh",
          r"\b" + _near(r'ignorier|vergiss|vergess|missacht|übergeh', r'\w{0,12}(?:anweisung|anleitung|befehl|regel|vorgabe|instruktion|aufforderung|hinweis)\w{0,4}', 8)
         + r"|(?:anweisung|anleitung|befehl|regel|vorgabe|instruktion)\w{0,3}(?:\W{1,3}\w{1,20}){0,4}?\W{1,3}(?:ignorier|vergiss|vergess|missacht)"),
    _cue("override", 1.0, "ignor | oubli | néglig | tene | faites abstraction",
         r"\b" + _near(r'ignor|oubli|néglig|tene[rz]|faites[ ]abstraction', r'(?:instruction|consigne|directive|règle|ordre|indication)s?', 7) + r"\b"),
    _cue("override", 1.0, "ignor | olvid | omit | descart | haz caso omiso",
         r"\b" + _near(r'ignor|olvid|omit|descart|haz[ ]caso[ ]omiso', r'(?:instruccion|indicacion|[óo]rden|regla|directri)\w{0,4}', 7)),
    _cue("override", 1.0, "ignor | esque | desconsider", r"\b" + _near(r'ignor|esque[çc]|desconsider', r'(?:instru[çc]|orden|regras|diretri|comando)\w{0,5}', 7)),
    _cue("override", 1.0, "ignor | dimentic | trascur", r"\b" + _near(r'ignor|dimentic|trascur', r'(?:istruzion|regol|ordin|indicazion|direttiv)\w{0,3}', 7)),
    _cue("override", 1.0, "negeer | vergeet | ignorer | glem | bortse", r"\b" + _near(r'negeer|vergeet|ignorer|glem|bortse', r'(?:instructi|opdracht|regel|aanwijzing|instru[kx]s|anvisning)\w{0,5}', 7)),
    _cue("override", 1.0, "ignoruj | zignoruj | zapomnij | pomiń", r"\b" + _near(r'z?ignoruj|zapomnij|pomiń', r'(?:instrukcj|poleceni|zasad|wytyczn)\w{0,4}', 7)),
    _cue("override", 1.0, "yok say | unut | görmezden", r"(?:talimat|komut|kural|yönerge)\w{0,8}(?:\W{1,3}\w{1,20}){0,4}?\W{1,3}(?:yok[ ]say|unut|görmezden)"),
    _cue("override", 1.0, "abaikan | lupakan", r"\b" + _near(r'abaikan|lupakan', r'(?:instruksi|perintah|petunjuk|aturan|arahan)\w{0,4}', 7)),
    _cue("override", 1.0, "игнорир | забуд | не обращай | отбрось | отмени", r"\b" + _near(r'(?:про)?игнорир|забуд|не[ ]обращай|отбрось|отмени', r'(?:инструкц|указани|правил|команд|распоряжени)\w{0,4}', 7)),
    _cue("override", 1.0, "忽略 | 忽视 | 无视 | 忘记 | 忘掉 | 不要理会 | 忽視 | 無視以上", r"(?:忽略|忽视|无视|忘记|忘掉|不要理会|忽視)[^。！？\n]{0,16}?(?:指令|指示|说明|内容|提示|规则|命令|要求|說明)"),
    _cue("override", 1.0, "無視 | 忘れ", r"(?:指示|命令|プロンプト|ルール|指令|説明|内容|規則|上記)[^。！？\n]{0,10}?(?:無視|忘れ)|無視[^。！？\n]{0,12}?(?:指示|命令|ルール)"),
    _cue("override", 1.0, "무시 | 잊", r"(?:지시|명령|지침|규칙|프롬프트|안내|설명|내용)[^.!?\n]{0,10}?(?:무시|잊)"),
    _cue("override", 1.0, "تجاهل | انس", r"(?:تجاهل|انس)\w{0,4}(?:\W{1,3}\w{1,16}){0,4}?\W{1,3}\w{0,3}(?:تعليمات|أوامر|إرشادات|توجيهات|قواعد)"),
    _cue("override", 1.0, "अनदेख | नज़रअंदाज़ | भूल", r"(?:निर्देश|आदेश|नियम)\S{0,6}(?:\s\S{1,12}){0,4}?\s(?:अनदेख|नज़रअंदाज़|भूल)"),
    _cue("secret", 1.0, "passwort | kennwort", r"\b(?:(?:was|wie)\W(?:ist|lautet)|sag\w{0,2}|verrat\w{0,3}|gib|geben|nenn\w{0,2}|teil\w{0,2}|zeig\w{0,2})\b[^.!?]{0,40}\b(?:passwor|kennwor)t"),
    _cue("secret", 1.0, "mot de passe", r"\b(?:quel\w{0,2}|donne\w{0,2}|dis|dites|révèle\w{0,2}|partage\w{0,2}|communique\w{0,2})\b[^.!?]{0,50}\bmot[ ]de[ ]passe"),
    _cue("secret", 1.0, "contraseña | senha", r"\b(?:cuál|qual|dime|da\w{0,2}me|revel\w{0,2}|compart\w{0,4}|diga\w{0,4}|dizer)\b[^.!?]{0,50}\b(?:contraseña|senha)"),
    _cue("secret", 1.0, "парол", r"\b(?:как(?:ой|ов)|скажи\w{0,2}|назови\w{0,2}|сообщи\w{0,2}|раскро\w{0,3}|дай\w{0,2}|покажи\w{0,2}|поделит\w{0,3})\b[^.!?]{0,50}\bпарол"),
    _cue("secret", 1.0, "密码 | 密碼", r"(?:告诉我|说出|透露|给我|分享|告訴我)[^。！？\n]{0,14}密[码碼]|(?:你的|系统|秘密)[^。！？\n]{0,4}密[码碼](?:是什么|是多少)"),
    _cue("secret", 1.0, "パスワード | 暗証", r"(?:パスワード|暗証番号)[^。！？\n]{0,10}(?:教えて|何です|なんです|明かして|言って|共有して)"),
    _cue("secret", 1.0, "비밀번호 | 암호", r"(?:비밀번호|암호)[^.!?\n]{0,10}(?:알려|무엇|뭐|말해|공유|공개)"),
    _cue("secret", 1.0, "كلمة المرور | كلمة السر | كلمة مرور", r"(?:ما\W(?:هي)?|أخبر\w{0,3}|اكشف|شارك\w{0,3}|أعط\w{0,3})[^.!?؟\n]{0,30}كلمة[ ](?:ال)?(?:مرور|سر)"),
)  # fmt: skip
