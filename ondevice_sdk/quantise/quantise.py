"""A model in fewer bits, made of an installed one or of a file on this machine, with what that cost.

Each step runs in a sealed worker and leaves a file in a temporary directory of the store; only what is whole and was
compared with its source becomes a model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.errors import ModelCorrupt, ModelNotInstalled, StoreError, Unsupported
from ondevice_sdk.quantise import preserving, quality
from ondevice_sdk.quantise.hugging_face import adding
from ondevice_sdk.quantise.recipe import EXACT, Plan, Wanted, plan, trial_quantisation, without
from ondevice_sdk.quantise.results import Quantised
from ondevice_sdk.quantise.runtimes import Compressing
from ondevice_sdk.quantise.workers import percent, write
from ondevice_sdk.store import InstalledModel, Store, formats, originals
from ondevice_sdk.store.elsewhere import digest_of, is_path
from ondevice_sdk.store.files import private_dir, require_room, slug, store_errors
from ondevice_sdk.store.originals import Original
from ondevice_sdk.store.recipes import Quality, Recipe, Trial
from ondevice_sdk.types import DeviceProfile, JsonValue

_MATRIX_BYTES = 1 << 28  # of an importance matrix at least; for larger models a quarter of their weights in 32 bits


def quantise(
    store: Store,
    source: str,
    runtime: Compressing,
    device: DeviceProfile,
    wanted: Wanted,
    *,
    again: bool = False,
    on_progress: ProgressCallback | None = None,
) -> Quantised:
    """Make a model in fewer bits and install it; see `models.quantise`. `source` is a name or a path."""
    with store.space.session() as work:
        original = _original(store, source, runtime, work, on_progress)
        planned = plan(original, runtime.compressor, wanted)
        if not again and (here := _made_before(store, planned)) is not None:
            return _result(here, made=False)
        _require_free(store, planned)
        quality.check_memory(runtime, original.model, planned.size, device)
        # Not a lock that begins with the model's name: those say that it is being downloaded.
        with store.space.lock(f"quantise.{planned.name}--{planned.variant}"):
            if not again and (here := _made_before(store, planned)) is not None:  # another process was quicker
                return _result(here, made=False)
            made, recipe, cost = _Run(original.model, planned, runtime, device.threads, work, on_progress).make()
            return _result(_install(store, original, planned, (made, recipe, cost), work), made=True)


def _original(
    store: Store, source: str, runtime: Compressing, work: Path, on_progress: ProgressCallback | None
) -> Original:
    """The model that is quantised, in one file; a folder with safetensors is made into one first."""
    form = runtime.compressor.model_format
    files = adding.files_of(Path(source)) if is_path(source) and Path(source).is_dir() and form == "gguf" else None
    if files is None:
        original = originals.find(store, source, [form], capability="quantise")
        if len(original.model.files) > 1:
            raise Unsupported(f"{original.label} lies in several files", capability="quantise")
        return original
    with store_errors("make a folder", work):
        path = private_dir(work / "converted") / "model.gguf"
    name = slug(Path(source).absolute().name)
    made = adding.convert(files, path, name=name, on_progress=on_progress)
    digests = tuple(digest_of(store.space, files[each]) for each in sorted(files))
    model = LocalModel(name, made.variant, form, str(path), "", (str(path),))
    return Original(model, digests, made.licence or "unknown")


def _install(
    store: Store, original: Original, planned: Plan, found: tuple[Path, Recipe, Quality], work: Path
) -> InstalledModel:
    path, recipe, cost = found
    with store.space.lock(f"{planned.name}--{planned.variant}"):
        return store.install(
            {f"{planned.name}-{planned.variant}.{original.model.format}": path},
            work,
            name=planned.name,
            variant=planned.variant,
            source=f"quantised by {recipe.library}: {recipe.words}",
            licence=original.licence,
            replace=_require_free(store, planned),
            quantised=(recipe, cost),
        )


def _made_before(store: Store, planned: Plan) -> InstalledModel | None:
    """The model of that recipe, if it is here and whole."""
    here = store.whole(planned.name, planned.variant)
    known = None if here is None else here.quantised
    return here if known is not None and known.recipe.asks_for_the_same(planned.recipe) else None


def _require_free(store: Store, planned: Plan) -> bool:
    """Whether it takes the place of a model that was quantised here.

    Raises:
        StoreError: of another one.
    """
    try:
        here = store.manifest(planned.name, planned.variant)
    except (ModelNotInstalled, ModelCorrupt):
        return False
    if here.recipe is None:
        label = f"{planned.name}:{planned.variant}"
        raise StoreError(
            f"another model is installed as {label}",
            hint=f"choose another name, or first: ondevice models remove {label}",
        )
    return True


def _result(model: InstalledModel, *, made: bool) -> Quantised:
    known = model.quantised
    assert known is not None
    recipe = known.recipe
    return Quantised(
        name=model.name,
        variant=model.variant,
        path=model.path,
        sha256=model.sha256,
        size=model.size,
        source=f"{recipe.source.name}:{recipe.source.variant}",
        method=recipe.method,
        used=recipe.used,
        quantisation=recipe.quantisation,
        requantised=recipe.requantised,
        recipe=known.digest,
        quality=known.quality,
        made=made,
    )


@dataclass(slots=True)
class _Run:
    """The steps from a model's file to another one, which lie in `work`."""

    model: LocalModel
    plan: Plan
    runtime: Compressing
    threads: int
    work: Path
    on_progress: ProgressCallback | None

    def make(self) -> tuple[Path, Recipe, Quality]:
        """The file, how it was made in the end, and what that cost."""
        recipe, source = self.plan.recipe, Path(self.model.path)
        self._require_room()
        trial: Trial | None = None
        difference: float | None = None
        made: Path | None = None
        if recipe.scaled:
            scaled, difference = self._scaled()
            plain, with_it = self._rounded(source, "as it is"), self._rounded(scaled, "scaled")
            trial = quality.trial(
                self.runtime,
                self.model,
                self._local(with_it),
                self._local(plain),
                self.plan.text,
                self.threads,
                self._telling("comparing with and without pre-SINQ"),
            )
            made, other = (with_it, plain) if trial.kept else (plain, with_it)
            source = scaled if trial.kept else source
            recipe = replace(recipe, used=recipe.method if trial.kept else without(recipe.method))
            shutil.rmtree(other.parent, ignore_errors=True)
        if recipe.calibration is not None or made is None:
            made = self._compressed(source)
        if recipe.scaled:
            shutil.rmtree(scaled.parent, ignore_errors=True)
        cost = quality.report(
            self.runtime,
            self.model,
            self._local(made),
            self.threads,
            requantised=recipe.requantised,
            self_check=difference,
            trial=trial,
            on_progress=self._telling("quality report"),
        )
        return made, recipe, cost

    def _require_room(self) -> None:
        """For all that lies on the disk at a time, before anything is begun: to scale a model, twice it in 32 bits."""
        scaled = self.plan.recipe.scaled
        require_room(self.work, (2 * self.plan.exact if scaled else 0) + self.plan.size * (1 + 2 * scaled))

    def _rounded(self, source: Path, what: str) -> Path:
        """In fewer bits, and no more done to it."""
        recipe = self.plan.recipe
        kind = recipe.quantisation if recipe.calibration is None else trial_quantisation(recipe.quantisation)
        return self._write_bits(source, kind, None, what)

    def _compressed(self, source: Path) -> Path:
        """In fewer bits as the recipe has it, each weight rounded by how much it matters where that is wanted."""
        calibration, recipe = self.plan.recipe.calibration, self.plan.recipe
        if calibration is None:
            return self._write_bits(source, recipe.quantisation, None, "plain")
        importance = self.work / "importance" / "importance.gguf"
        arguments: dict[str, JsonValue] = {
            "source": str(source),
            "text": self.plan.text,
            "tokens": calibration.tokens,
            "window": calibration.window,
            "threads": self.threads,
        }
        room = max(_MATRIX_BYTES, self.plan.exact // 4)
        self._write(self.runtime.compressor.importance, importance, arguments, [source], room, "reading")
        return self._write_bits(source, recipe.quantisation, importance, "by importance")

    def _write_bits(self, source: Path, quantisation: str, importance: Path | None, what: str) -> Path:
        target = self.work / what.replace(" ", "-") / f"made.{self.model.format}"
        self._write(
            self.runtime.compressor.writer,
            target,
            {
                "source": str(source),
                "quantisation": quantisation,
                "importance": None if importance is None else str(importance),
                "threads": self.threads,
            },
            [source, *([] if importance is None else [importance])],
            self.plan.size,
            f"writing {quantisation}, {what}",
        )
        formats.inspect(target)
        return target

    def _scaled(self) -> tuple[Path, float]:
        """The same function in 32 bits, easier to round; and by how much its logits differ, relatively."""
        source, recipe = Path(self.model.path), self.plan.recipe
        if recipe.requantised:  # what is scaled has to be in 16 or 32 bits
            source = self.work / "exact" / f"exact.{self.model.format}"
            arguments: dict[str, JsonValue] = {
                "source": self.model.path,
                "quantisation": EXACT,
                "importance": None,
                "threads": self.threads,
            }
            self._write(
                self.runtime.compressor.writer, source, arguments, [Path(self.model.path)], self.plan.exact, "32 bits"
            )
        target = self.work / "whole" / f"scaled.{self.model.format}"
        self._write(
            preserving.WRITER,
            target,
            {"source": str(source), "order": recipe.order, "block": recipe.block},
            [source],
            self.plan.exact,
            "scaling (pre-SINQ)",
        )
        telling = self._telling("checking that it computes the same")
        difference = preserving.check(self.runtime.entry, source, target, self.plan.text, self.threads, telling)
        shutil.rmtree(self.work / "exact", ignore_errors=True)
        return target, difference

    def _write(
        self,
        writer: str,
        target: Path,
        arguments: dict[str, JsonValue],
        read: list[Path],
        room: int,
        stage: str,
    ) -> None:
        write(
            writer,
            target,
            arguments,
            read=read,
            room=room,
            most=max(room, self.plan.exact),
            on_progress=self._telling(stage),
        )

    def _local(self, path: Path) -> LocalModel:
        return replace(self.model, path=str(path), sha256="", files=(str(path),))

    def _telling(self, stage: str) -> Callable[[float], None] | None:
        return percent(stage, self.on_progress)
