"""The sets of the development data: what each is, and how much work a row of it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.evaluate.measures.aspects import AspectMeasure
from ondevice_sdk.evaluate.measures.claims import ClaimMeasure
from ondevice_sdk.evaluate.measures.entities import EntityMeasure
from ondevice_sdk.evaluate.measures.extraction import ObjectMeasure, RecipeMeasure
from ondevice_sdk.evaluate.measures.injection import InjectionMeasure, WarningMeasure
from ondevice_sdk.evaluate.measures.instructions import ArithmeticMeasure, InstructionMeasure
from ondevice_sdk.evaluate.measures.labels import LabelMeasure
from ondevice_sdk.evaluate.measures.measure import Measure
from ondevice_sdk.evaluate.measures.missing import Missing
from ondevice_sdk.evaluate.measures.needles import NeedleMeasure
from ondevice_sdk.evaluate.measures.prediction import PredictionMeasure
from ondevice_sdk.evaluate.measures.questions import QuestionMeasure
from ondevice_sdk.evaluate.measures.schemas import SchemaMeasure
from ondevice_sdk.evaluate.measures.summaries import SummaryMeasure
from ondevice_sdk.evaluate.measures.tools import ToolMeasure

QUICK: Final = 40  # rows of a set unless said otherwise


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A file of the folder, `<name>.jsonl`, and what is measured on it.

    `weight` is how many times as much work a row is as a sentence with a label; `spread` names the field of what rows
    were made from, so that a few of them are not all from one source. `beside` names the files that its rows refer to.
    """

    name: str
    measure: Measure
    weight: int = 1
    spread: str | None = None
    beside: tuple[str, ...] = ()


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
    EvalSet("tools_bfcl", ToolMeasure(), 2),
    EvalSet("instr_ifeval", InstructionMeasure(), 2),
    EvalSet("math_gsm8k", ArithmeticMeasure(), 2),
    EvalSet("text_state_union", PredictionMeasure()),
    EvalSet("inject_bipia_text", InjectionMeasure()),
    EvalSet("inject_agentdojo", InjectionMeasure()),
    # long texts last: they take minutes
    EvalSet("sentiment_movie_reviews_long", LabelMeasure("sentiment"), 4),
    EvalSet("summ_meeting_full", SummaryMeasure(60, query="query", group="meeting_id"), 40),
    EvalSet("inject_benign_notinject", WarningMeasure(harmless=True)),
    EvalSet("inject_cyberseceval", WarningMeasure()),
    EvalSet("inject_cyberseceval_multi", WarningMeasure()),
    EvalSet("instr_mt_bench", Missing("instructions", "answers", _NO_JUDGE)),
    EvalSet("instr_user_oriented", Missing("instructions", "answers", _NO_JUDGE)),
    EvalSet(
        "faith_squality_human", Missing("faithfulness", "agreement with people", "its documents are in another set")
    ),
    EvalSet(
        "summ_squality_stories",
        Missing("summarise", "ROUGE-1", "stories take minutes each; summ_meeting_full is long too"),
    ),
    EvalSet("qa_fairytale", QuestionMeasure(), 2),
    EvalSet("qa_xquad", QuestionMeasure(questions="qas"), 4),
    EvalSet("qa_jsquad", QuestionMeasure(questions="qas"), 4),
    EvalSet("long_qa", QuestionMeasure("doc_id", documents="long_docs"), beside=("long_docs",)),
    EvalSet("long_needles", NeedleMeasure(), beside=("long_docs",)),
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
