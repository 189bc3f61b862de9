"""How far a model in fewer bits strays from its source, by method, at the same file size.

The source is written in 32 bits, without and with pre-SINQ, and each is quantised with and without an importance
matrix: plain, imatrix, presinq, presinq+imatrix. All read texts side by side with the source in 32 bits. The figure is
the mean KL(source || made) over tokens, in nats, by that of the plain file; windows are paired. The calibration text is
the one that ships with the package, and none of those that are read.

Where the source's own weights are quantised (those of the small model here are Q4_1), its figures say how near a file
comes to them, not to the weights that were trained: the first line says so.

Run: `python scripts/bench_quantise.py --data DIR`, with other texts `--texts FILE FILE`; on two cores each of the eight
files takes a minute for each text.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import figures

from ondevice_sdk import ConfigurationError, calibration
from ondevice_sdk.backends import registry
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.bench.goals import Goal, Row
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufTensor
from ondevice_sdk.device import detect
from ondevice_sdk.evaluate.data import data_folder, read_records
from ondevice_sdk.evaluate.perplexity import joined
from ondevice_sdk.intervals import Interval, bootstrap
from ondevice_sdk.quantise import preserving, workers
from ondevice_sdk.quantise.divergence import figures_of, mean, read_windows
from ondevice_sdk.quantise.logits import WindowSums
from ondevice_sdk.quantise.recipe import CHARACTERS_PER_TOKEN, EXACT, TOKENS, WINDOW
from ondevice_sdk.quantise.runtimes import Compressing, compressing
from ondevice_sdk.store import Store, originals
from ondevice_sdk.types import JsonValue

METHODS: Final = ("plain", "imatrix", "presinq", "presinq+imatrix")
# The sizes that are compared, and what the best method's KL is to be by that of the plain file.
GOALS: Final = {"Q4_0": Goal(0.5, at_least=False), "Q3_K_S": Goal(0.6, at_least=False)}
SETS: Final = {"stories": "summ_squality_stories.jsonl", "meetings": "summ_meeting_full.jsonl"}  # of the data
EXACT_BYTES: Final = 4  # of a weight


@dataclass(frozen=True, slots=True)
class Made:
    """A file in fewer bits."""

    quantisation: str
    method: str
    model: LocalModel

    def size(self) -> str:
        """For people: the file, and what a weight of the layers really takes."""
        inner = [each for each in gguf.read_tensors(self.model.path) if each.name.startswith("blk.") and each.rows > 1]
        values = sum(each.values for each in inner)
        bits = 8 * sum(each.size for each in inner) / values
        return f"{self.model.size() / 1e6:.2f} MB, {bits:.2f} bits a weight in layers ({_formats(inner, values)})"


def _formats(tensors: Sequence[GgufTensor], values: int) -> str:
    counted: Counter[str] = Counter()
    for each in tensors:
        counted[layout.NUMBERS.get(each.kind, f"format {each.kind}")] += each.values
    return ", ".join(f"{count / values:.0%} {name}" for name, count in counted.most_common())


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes files of one model in a directory."""

    runtime: Compressing
    source: LocalModel
    work: Path
    text: str  # for the calibration
    threads: int

    def exact(self) -> LocalModel:
        """The source in 32 bits."""
        values = sum(each.values for each in gguf.read_tensors(self.source.path))
        room = EXACT_BYTES * values + self.source.size()
        return self._quantised(self.source, EXACT, None, "exact", room)

    def scaled(self, exact: LocalModel) -> LocalModel:
        """The same function by pre-SINQ, which is proved."""
        target = self.work / "scaled" / "model.gguf"
        arguments: dict[str, JsonValue] = {"source": exact.path, "order": preserving.ORDER, "block": preserving.BLOCK}
        workers.write(preserving.WRITER, target, arguments, read=(exact.path,), room=exact.size())
        difference = preserving.check(
            self.runtime.entry, Path(exact.path), target, self.text, self.threads, on_progress=None
        )
        figures.tell(f"pre-SINQ: the logits differ by {difference:.1e} of the largest one")
        return self._local(target)

    def importance(self, exact: LocalModel, name: str) -> Path:
        """Its importance matrix."""
        target = self.work / f"importance-{name}" / "matrix.gguf"
        arguments: dict[str, JsonValue] = {
            "source": exact.path,
            "text": self.text,
            "tokens": TOKENS,
            "window": WINDOW,
            "threads": self.threads,
        }
        workers.write(
            self.runtime.compressor.importance,
            target,
            arguments,
            read=(exact.path,),
            room=exact.size(),
        )
        return target

    def made(self, exact: LocalModel, quantisation: str, method: str, importance: Path | None) -> Made:
        """The file of one method."""
        folder = f"{quantisation}-{method}"
        return Made(quantisation, method, self._quantised(exact, quantisation, importance, folder, exact.size()))

    def _quantised(
        self, source: LocalModel, quantisation: str, importance: Path | None, folder: str, room: int
    ) -> LocalModel:
        target = self.work / folder / "model.gguf"
        workers.write(
            self.runtime.compressor.writer,
            target,
            {
                "source": source.path,
                "quantisation": quantisation,
                "importance": None if importance is None else str(importance),
                "threads": self.threads,
            },
            read=[source.path, *([] if importance is None else [importance])],
            room=room,
        )
        return self._local(target)

    def _local(self, path: Path) -> LocalModel:
        return dataclasses.replace(self.source, path=str(path), sha256="", files=(str(path),))


def texts_of(options: argparse.Namespace) -> dict[str, str]:
    """What is read, by a name for it."""
    if options.texts:
        return {Path(name).name: Path(name).read_text(encoding="utf-8") for name in options.texts}
    folder, most = data_folder(options.data), CHARACTERS_PER_TOKEN * options.tokens
    return {
        name: joined([record.string("text") for record in read_records(folder / file)], most)
        for name, file in SETS.items()
    }


def against_plain(
    made: Sequence[tuple[Made, Sequence[WindowSums]]], text: str, goal: Goal | None, model: str
) -> list[Row]:
    """The rows of one quantisation and one text; the plain file comes first."""
    plain, base = made[0]
    rows = []
    for each, windows in made:
        own, other = figures_of(windows), figures_of(base)
        if each is not plain:
            rows.append(
                Row(
                    f"KL {each.quantisation}, {each.method} / plain, {text}",
                    model,
                    ratio_of(windows, base),
                    len(windows),
                    goal if each.method == METHODS[-1] else None,
                    f"{own.kl} nats",
                    f"plain {other.kl} nats",
                )
            )
        rows.append(
            Row(
                f"perplexity {each.quantisation}, {each.method} / source, {text}",
                model,
                own.perplexity_ratio,
                len(windows),
                None,
                f"{own.perplexity}",
                f"source {own.source_perplexity}",
            )
        )
    return rows


def ratio_of(ours: Sequence[WindowSums], plain: Sequence[WindowSums]) -> Interval:
    """The ratio of mean KL; both read the same windows, which are drawn in pairs."""
    pairs = list(zip(ours, plain, strict=True))
    return bootstrap(
        pairs,
        lambda drawn: mean([mine for mine, _ in drawn], _kl) / mean([other for _, other in drawn], _kl),
    )


def _kl(window: WindowSums) -> float:
    return window.kl


def sizes(made: Sequence[Made], model: str) -> list[Row]:
    """That the files of all methods are of one size, and how many bits that is."""
    plain = made[0]
    return [
        Row(
            f"size {each.quantisation}, {each.method} / plain",
            model,
            Interval(*(3 * (each.model.size() / plain.model.size(),))),
            1,
            Goal(1.0, at_least=False),
            each.size(),
            f"plain {plain.model.size() / 1e6:.2f} MB",
        )
        for each in made[1:]
    ]


def measure(options: argparse.Namespace, table: figures.Table, work: Path) -> None:
    """Make all files, and read all texts with each."""
    device = detect()
    runtime = compressing(registry.installed(), device)
    source = originals.find(
        Store.open(), options.model, (runtime.compressor.model_format,), capability="quantise"
    ).model
    texts = texts_of(options)
    text = (resources.files("ondevice_sdk.quantise") / "calibration.txt").read_text(encoding="utf-8")
    if any(text.strip() in each or each.strip() in text for each in texts.values()):
        raise ConfigurationError("a text that is read is the calibration text", hint="give others with --texts")
    kinds = Counter(layout.NUMBERS.get(each.kind, "?") for each in gguf.read_tensors(source.path) if each.rows > 1)
    held = ", ".join(kinds)
    full = set(kinds) <= {"F32", "F16", "BF16"}
    about = "" if full else "; its weights were quantised before, so that no file can come nearer to the trained ones"
    figures.tell(f"reference: {source.name}:{source.variant} ({held}) in 32 bits{about}")
    maker = Maker(runtime, source, work, text, device.threads)
    exact = maker.exact()
    bases = {"": exact, "presinq": maker.scaled(exact)}
    matrices = {name: maker.importance(each, name or "source") for name, each in bases.items()}
    for quantisation in options.quantisations:
        made = []
        for method in METHODS:
            figures.tell(f"{quantisation}, {method}: writing")
            name = "presinq" if "presinq" in method else ""
            made.append(maker.made(bases[name], quantisation, method, matrices[name] if "imatrix" in method else None))
        table.add(*sizes(made, source.name))
        for name, read in texts.items():
            windows = []
            for each in made:
                figures.tell(f"{quantisation}, {each.method}: reading {name}")
                windows.append(
                    (
                        each,
                        read_windows(
                            [(runtime.entry, each.model), (runtime.entry, exact)],
                            read[: CHARACTERS_PER_TOKEN * options.tokens],
                            tokens=options.tokens,
                            window=options.window,
                            threads=device.threads,
                            privacy=calibration.best_privacy(),
                        ),
                    )
                )
            table.add(*against_plain(windows, name, GOALS.get(quantisation), source.name))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", nargs="?", default=figures.SMALL, help="an installed model, or the path of a GGUF file")
    made.add_argument("--data", metavar="DIR", help="the folder of evaluation data")
    made.add_argument("--texts", nargs="+", metavar="FILE", help="texts to read in the place of those of the data")
    made.add_argument("--quantisations", nargs="+", metavar="Q", default=list(GOALS), help="in llama.cpp's words")
    made.add_argument(
        "--tokens", type=figures.at_least(2), default=8192, help="of each text (8192), of which half count"
    )
    made.add_argument("--window", type=figures.at_least(16), default=512, help="tokens read with one context (512)")
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    options = made.parse_args()
    table = figures.Table(as_json=options.json)
    with tempfile.TemporaryDirectory(prefix="ondevice-quantise-") as folder:
        measure(options, table, Path(folder))
    table.close()


if __name__ == "__main__":
    figures.run(main)
