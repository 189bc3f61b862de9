"""The sets of the development data: what each is, and how much work a row of it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.evaluate.measures.aspects import AspectMeasure
from ondevice_sdk.evaluate.measures.claims import ClaimMeasure
from ondevice_sdk.evaluate.measures.entities import EntityMeasure
from ondevice_sdk.evaluate.measures.extraction import ObjectMeasure, RecipeMeasure
from ondevice_sdk.evaluate.measures.injection import InjectionMeasure
from ondevice_sdk.evaluate.measures.instructions import ArithmeticMeasure, InstructionMeasure
from ondevice_sdk.evaluate.measures.labels import LabelMeasure
from ondevice_sdk.evaluate.measures.measure import Measure
from ondevice_sdk.evaluate.measures.missing import Missing
from ondevice_sdk.evaluate.measures.prediction import PredictionMeasure
from ondevice_sdk.evaluate.measures.schemas import SchemaMeasure
from ondevice_sdk.evaluate.measures.summaries import SummaryMeasure

QUICK: Final = 40  # rows of a set unless said otherwise


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A file of the folder, `<name>.jsonl`, and what is measured on it.

    `weight` is how many times as much work a row is as a sentence with a label; `spread` names the field of what rows
    were made from, so that a few of them are not all from one source.
    """

    name: str
    measure: Measure
    weight: int = 1
    spread: str | None = None


_NO_ANSWERS = Missing("questions", "answers", "there is no task that answers questions about a document")
_NO_JUDGE = "what counts as right needs a judge that is better than the model"

SETS: Final = (
    EvalSet("sentiment_movie_sentences", LabelMeasure("sentiment")),
    EvalSet("sentiment_product_sentences", LabelMeasure("sentiment")),
    EvalSet("sentiment_aspects_products", AspectMeasure()),
    EvalSet("topic_sib200_en", LabelMeasure("topics")),
    EvalSet("topic_sib200_multi", LabelMeasure("topics", group="index_id")),
    EvalSet("intent_banking77", LabelMeasure("intents"), 2),
    EvalSet("intent_clinc150", LabelMeasure("intents", label="domain", outside="oos")),
    EvalSet("text_udhr_langid", LabelMeasure("languages", label="lang")),
    EvalSet("ner_wnut17", EntityMeasure()),
    EvalSet("ner_uner_en_ewt", EntityMeasure()),
    EvalSet("ner_uner_ru_pud", EntityMeasure(), 2),
    EvalSet("ner_ja_wikipedia", EntityMeasure(), 2),
    EvalSet("pii_presidio_synth", EntityMeasure("pii", group="template_id"), spread="template_id"),
    EvalSet("summ_scitldr", SummaryMeasure(20), 2),
    EvalSet("summ_meeting_query", SummaryMeasure(60, query="query", group="meeting_id"), 4, "meeting_id"),
    EvalSet("faith_summedits", ClaimMeasure(), 8),
    EvalSet("extract_snips_slots", ObjectMeasure(values="slots", kind="intent")),
    EvalSet("extract_e2e_restaurants", ObjectMeasure(values="data")),
    EvalSet("extract_recipes", RecipeMeasure(), 2),
    EvalSet("schema_jsonschemabench", SchemaMeasure(), 4),
    EvalSet("schema_schemastore_instances", SchemaMeasure(), 4),
    EvalSet("schema_testsuite_2020_12", SchemaMeasure(), 2),
    EvalSet("instr_ifeval", InstructionMeasure(), 2),
    EvalSet("math_gsm8k", ArithmeticMeasure(), 2),
    EvalSet("text_state_union", PredictionMeasure()),
    EvalSet("inject_bipia_text", InjectionMeasure()),
    EvalSet("inject_agentdojo", InjectionMeasure()),
    # long texts last: they take minutes
    EvalSet("sentiment_movie_reviews_long", LabelMeasure("sentiment"), 4),
    EvalSet("summ_meeting_full", SummaryMeasure(60, query="query", group="meeting_id"), 40),
    EvalSet("inject_benign_notinject", Missing("injection", "false alarms", "nothing warns of injected instructions")),
    EvalSet("inject_cyberseceval", Missing("injection", "attacks resisted", _NO_JUDGE)),
    EvalSet("inject_cyberseceval_multi", Missing("injection", "attacks resisted", _NO_JUDGE)),
    EvalSet("instr_mt_bench", Missing("instructions", "answers", _NO_JUDGE)),
    EvalSet("instr_user_oriented", Missing("instructions", "answers", _NO_JUDGE)),
    EvalSet("tools_bfcl", Missing("tools", "right calls", "generate does not support tools yet")),
    EvalSet(
        "faith_squality_human", Missing("faithfulness", "agreement with people", "its documents are in another set")
    ),
    EvalSet(
        "summ_squality_stories",
        Missing("summarise", "ROUGE-1", "stories take minutes each; summ_meeting_full is long too"),
    ),
    EvalSet("long_needles", _NO_ANSWERS),
    EvalSet("long_qa", _NO_ANSWERS),
    EvalSet("qa_fairytale", _NO_ANSWERS),
    EvalSet("qa_xquad", _NO_ANSWERS),
    EvalSet("qa_jsquad", _NO_ANSWERS),
)


def families() -> tuple[str, ...]:
    """The words that `--only` takes beside the names of sets."""
    return tuple(dict.fromkeys(each.measure.family for each in SETS))


def chosen(only: tuple[str, ...]) -> list[EvalSet]:
    """The sets of some families or names; all without any.

    Raises:
        ConfigurationError: a word is neither.
    """
    known = {*families(), *(each.name for each in SETS)}
    for word in only:
        if word not in known:
            raise ConfigurationError(
                f"{word!r} is neither a family nor a set", hint=f"families: {', '.join(families())}"
            )
    return [each for each in SETS if not only or each.name in only or each.measure.family in only]
