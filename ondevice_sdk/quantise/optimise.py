"""The copy of an installed model that is fastest on this processor by measurement, and loses nothing that matters.

Layouts that are predicted to be faster are written one after the other, compared with the source for exactness and
speed, and deleted again but for the best. All of it happens in sealed workers: a model file is parsed by native code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice_sdk import calibration
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.call import ProgressCallback
from ondevice_sdk.errors import LoadFailed, StoreError, Unsupported, WorkerCrashed
from ondevice_sdk.quantise import layouts
from ondevice_sdk.quantise.results import Optimised, Tried
from ondevice_sdk.quantise.runtimes import usable
from ondevice_sdk.quantise.search import Copy, Runtime, Search
from ondevice_sdk.quantise.workers import percent
from ondevice_sdk.store import ModelFile, Store
from ondevice_sdk.store.derived import Derived, MeasuredOn
from ondevice_sdk.store.files import hash_file, store_errors
from ondevice_sdk.store.store import now
from ondevice_sdk.types import DeviceProfile

if TYPE_CHECKING:
    from ondevice_sdk.backends.registry import Registration


def runtime_for(model: LocalModel, installed: Mapping[str, Registration], device: DeviceProfile) -> Runtime:
    """The backend that can make copies of a model.

    Raises:
        Unsupported: there is none, or the model lies in several files.
    """
    if len(model.files) > 1:
        raise Unsupported(f"{model.name}:{model.variant} lies in several files", capability="layouts")
    for backend, entry, relayer in usable(installed, device, lambda each: each.relayer()):
        if relayer.model_format == model.format:
            return Runtime(backend, entry, relayer)
    raise Unsupported(f"no usable backend writes {model.format} models in other layouts", capability="layouts")


def _known(store: Store, model: LocalModel, where: MeasuredOn) -> Optimised | None:
    """What was found on this processor before."""
    found = store.copies.find(model.name, model.variant)
    if found is None or found.measured_on != where:
        return None
    if found.file is None:
        return _as_it_is(model, found.layout, "nothing faster was found before; measure again with again=True", ())
    copy = store.copies.resolve(model)
    return None if copy is None else _with_copy(model, found, copy.path, made=False, tried=())


def optimise(
    store: Store,
    model: LocalModel,
    runtime: Runtime,
    device: DeviceProfile,
    *,
    again: bool = False,
    on_progress: ProgressCallback | None = None,
) -> Optimised:
    """Search for the fastest layout of a resolved model and keep it; see `models.optimise`."""
    where = runtime.measured_on(device)
    if not again and (before := _known(store, model, where)) is not None:
        return before
    source = layouts.read_source(model.path)
    if source is None:
        raise Unsupported(f"the metadata of {model.name}:{model.variant} is unusual", capability="layouts")
    # Not a lock that begins with the model's name: those say that it is being downloaded.
    with store.space.lock(f"optimise.{model.name}--{model.variant}"), store.space.session() as work:
        if not again and (before := _known(store, model, where)) is not None:  # another process was quicker
            return before
        measured = _calibration(store, runtime, device, on_progress)
        search = Search(model, source, runtime, device, work, on_progress)
        best = search.run(layouts.candidates(source, runtime.relayer.formats, measured))
        return _keep(store, search, best, work)


def _keep(store: Store, search: Search, best: Copy | None, work: Path) -> Optimised:
    model, tried = search.model, tuple(search.tried)
    file: ModelFile | None = None
    if best is not None:
        with store_errors("hash a file", work):
            file = ModelFile(hash_file(best.path), best.path.stat().st_size, f"{model.name}.{model.format}")
    made = Derived(
        name=model.name,
        variant=model.variant,
        made_from=model.sha256,
        measured_on=search.runtime.measured_on(search.device),
        layout=(layouts.unchanged(search.source) if best is None else best.layout).name,
        made_at=now(),
        file=file,
        kl=None if best is None else best.kl,
        speed_up=None if best is None else best.speed_up,
    )
    # What did not fit into memory now may do so another time: that nothing is faster is not known then.
    if (best is not None or not search.crowded) and not store.copies.keep(
        made, None if best is None else best.path, work
    ):
        raise StoreError(f"{model.name}:{model.variant} was replaced meanwhile", hint="optimise it again")
    if file is None:
        return _as_it_is(model, made.layout, search.why_nothing(), tried)
    return _with_copy(model, made, str(store.space.blob(file.digest)), made=True, tried=tried)


def _as_it_is(model: LocalModel, layout: str, reason: str, tried: tuple[Tried, ...]) -> Optimised:
    return Optimised(
        name=model.name,
        variant=model.variant,
        layout=layout,
        path=model.path,
        sha256=model.sha256,
        size=model.size(),
        source_sha256=model.sha256,
        made=False,
        reason=reason,
        tried=tried,
    )


def _with_copy(model: LocalModel, found: Derived, path: str, *, made: bool, tried: tuple[Tried, ...]) -> Optimised:
    assert found.file is not None
    assert found.speed_up is not None
    reason = f"{found.layout} is {found.speed_up.score.value:.2f} times as fast here" + (
        "" if made else ", made before"
    )
    return Optimised(
        name=model.name,
        variant=model.variant,
        layout=found.layout,
        path=path,
        sha256=found.file.digest,
        size=found.file.size,
        source_sha256=model.sha256,
        made=made,
        reason=reason if made else f"{reason}; it was made before",
        kl=found.kl,
        speed_up=found.speed_up,
        tried=tried,
    )


def _calibration(
    store: Store, runtime: Runtime, device: DeviceProfile, on_progress: ProgressCallback | None
) -> Calibration | None:
    """What was measured of the formats on this device, else measured now; None: everything is tried."""
    calibrator = runtime.backend.calibrator()
    if calibrator is None:
        return None
    folder = store.root / "calibration"
    try:
        return calibration.kept(folder, calibrator, device) or calibration.measure(
            folder, runtime.entry, calibrator, device, on_progress=percent("calibrating", on_progress)
        )
    except (LoadFailed, WorkerCrashed):
        return None
