"""The catalog of a server's models: their states, and which model a call is for.

Rule of this module: used from the event loop only. A name in a call is looked up and never loads a model.

It has more than 300 lines, because a swap changes names, versions and challengers together.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Self

from _mlflow_grpc_protocol.metadata import MODEL_KEY, VERSION_KEY
from packaging.version import InvalidVersion, Version

from mlflow_grpc.config import ChallengerModel, ModelConfig
from mlflow_grpc.engine.admission import Stage
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import ModelNotLoaded, ModelNotNamed, NotReady, ServingError, StartError, UnknownModel
from mlflow_grpc.naming import name_from_uri

STILL_LOADING = "The models are still being loaded. Try again in a moment."


class State(Enum):
    """State of a model."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass
class Entry:
    """One model of the server."""

    config: ModelConfig
    engine: Engine
    state: State = State.LOADING
    name: str = ""
    """Name for callers; empty until it is known."""
    version: str = ""
    """Empty if the model has none."""
    error: str = ""
    """Why loading failed, or why a newer version is not served; empty otherwise."""
    loaded: ServableModel | None = field(default=None, repr=False)
    directory: Path | None = None
    """Temporary copy of the model's files, which is deleted with the model; None if there is none."""
    version_trailers: tuple[tuple[str, str], ...] = ()
    """Trailer with the version that answers; empty if the model has none."""
    accepted_contracts: frozenset[str] = frozenset()
    """Fingerprints of earlier typed contracts whose calls this version takes too."""
    unfit: str = ""
    """Why a challenger that is loaded gets no calls of its champion; empty if it may."""
    challenger: "Entry | None" = field(default=None, repr=False, compare=False)
    """The challenger that may get calls of this model; None if there is none, or it is not loaded or does not fit."""
    champion: "Entry | None" = field(default=None, repr=False, compare=False)
    """The model that this one is the challenger of; None for all others."""
    is_kept: bool = False
    """True if another version has replaced it, and calls that name its version still get it."""

    @property
    def callers_name(self) -> str:
        """The name under which callers know the model: that of the champion if it is a challenger."""
        return self.name if self.champion is None else self.champion.name

    @property
    def is_shadow(self) -> bool:
        """True for a challenger that only runs behind the calls of its champion."""
        rule = None if self.champion is None else self.champion.config.challenger
        return rule is not None and rule.shadow

    @property
    def takes_calls(self) -> bool:
        """True while the model is open, and its threads are not all held by calls that do not end."""
        return self.engine.admission.stage is Stage.OPEN and not self.engine.threads.is_exhausted

    @property
    def label(self) -> str:
        """Name and version as a call names them: `name`, or `name/version`."""
        return f"{self.name}/{self.version}" if self.version else self.name


class Catalog:
    """Models of a server, in the order of the configuration."""

    def __init__(
        self, models: tuple[ModelConfig, ...], make_engine: Callable[[], Engine], *, reserved: tuple[str, ...] = ()
    ) -> None:
        """Adds an entry for each model of the configuration, in the state LOADING.

        Args:
            models: Models of the configuration.
            make_engine: Makes the engine of one model.
            reserved: Names that no model may have, because health checks use them.

        """
        self.stage = Stage.LOADING
        """Stage of the server. A model may be open before, once it is ready."""
        self.names_models = True
        """True if errors list the models; False if rules say who may see which model."""
        self.replaced: list[Entry] = []
        """Versions that others have replaced, until they are closed. Calls that began with them end with them."""
        self.revision = 0
        """Number of changes of the models so far."""
        self.equip: Callable[[Entry], None] = lambda _: None
        """Adds what the configuration of a loaded model asks for to its engine, such as a cache."""
        self._reserved = reserved
        self._resolved: dict[str | None, Entry] = {}  # By the names in calls, until the catalog changes.
        self.entries = [
            Entry(
                config,
                make_engine(),
                name=config.name or (name_from_uri(config.uri) if config.uri else ""),
                version=config.version or "",
            )
            for config in models
        ]
        self._link()

    def set_stage(self, stage: Stage) -> None:
        """Sets the stage of the server and of all models."""
        self.stage = stage
        for engine in self.engines:
            engine.admission.stage = stage

    @property
    def engines(self) -> list[Engine]:
        """Engines of all models, and those of replaced versions."""
        return [entry.engine for entry in (*self.entries, *self.replaced)]

    @property
    def is_exhausted(self) -> bool:
        """True if calls that do not end hold all threads of all models that are ready, challengers aside."""
        ready = [entry for entry in self.entries if entry.state is State.READY and entry.champion is None]
        return bool(ready) and all(entry.engine.threads.is_exhausted for entry in ready)

    def register(self, entry: Entry, loaded: ServableModel) -> None:
        """Adds a loaded model to its entry.

        Raises:
            StartError: Another model has the same name and version, or the name is reserved.

        """
        self._identify(entry, loaded, entry)
        self._changed()

    def _identify(self, entry: Entry, loaded: ServableModel, predecessor: Entry) -> None:
        """Gives an entry its model, name and version; raises the errors of `register`."""
        name = entry.config.name or loaded.model.name
        version = entry.config.version or loaded.model.version
        ready = [other for other in self.entries if other is not predecessor and other.loaded is not None]
        twin = next((candidate for candidate in ready if (candidate.name, candidate.version) == (name, version)), None)
        if twin is not None:
            raise StartError(
                f"several models are called {twin.label}: {twin.config.source} and {entry.config.source}; "
                "give each a name or a version in the configuration"
            )
        if name in self._reserved:
            raise StartError(f"{entry.config.source}: {name} is the name of a service; give the model another name")
        entry.name, entry.version, entry.loaded, entry.state = name, version, loaded, State.READY
        served = loaded.model.version or version
        entry.version_trailers = ((VERSION_KEY, served),) if served else ()
        entry.engine.host(loaded)
        self.equip(entry)

    def _changed(self) -> None:
        self._resolved.clear()
        self.revision += 1
        self._link()

    def _link(self) -> None:
        """Links champions and challengers, as they are now."""
        for champion, challenger in self.pairs:
            is_ready = challenger.loaded is not None and not challenger.unfit
            champion.challenger, challenger.champion = challenger if is_ready else None, champion

    @property
    def pairs(self) -> list[tuple[Entry, Entry]]:
        """Champions with their challengers, which follow them in the configuration, loaded or not."""
        return [
            (champion, challenger)
            for champion, challenger in itertools.pairwise(self.entries)
            if isinstance(challenger.config, ChallengerModel)
        ]

    def set_unfit(self, challenger: Entry, reason: str) -> None:
        """Notes why a challenger gets no calls of its champion; an empty reason gives it calls again."""
        challenger.unfit = reason
        self._changed()

    def successor(self, entry: Entry, loaded: ServableModel, engine: Engine, directory: Path | None) -> Entry:
        """Returns an entry with another version of a model, which is not in the catalog yet.

        Args:
            entry: The version that is served.
            loaded: The other version.
            engine: Engine of the other version.
            directory: Temporary copy of its files.

        Raises:
            StartError: As in `register`.

        """
        successor = Entry(entry.config, engine, directory=directory)
        self._identify(successor, loaded, entry)
        return successor

    def with_successor(self, entry: Entry, successor: Entry) -> Self:
        """Returns a copy of the catalog in which another version has replaced an entry; this one is unchanged."""
        catalog = copy.copy(self)
        catalog.entries = [successor if other is entry else other for other in self.entries]
        catalog._resolved = {}  # noqa: SLF001 - of the same class
        return catalog

    def replace(self, entry: Entry, successor: Entry) -> None:
        """Serves another version in place of an entry, which keeps the calls that began with it."""
        successor.engine.admission.stage = self.stage
        entry.is_kept, successor.is_kept = entry.loaded is not None, False
        self.entries = [successor if other is entry else other for other in self.entries]
        entry.challenger = None  # It may be replaced while the entry has calls.
        self.replaced = [entry, *(other for other in self.replaced if other is not successor)]
        self._changed()

    def release(self, entry: Entry) -> None:
        """Makes calls that name a replaced version NOT_FOUND."""
        entry.is_kept = False
        self._changed()

    def forget(self, entry: Entry) -> None:
        """Removes a replaced version that has no calls any more."""
        self.replaced = [other for other in self.replaced if other is not entry]

    def mark_failed(self, entry: Entry, error: str) -> None:
        """Marks a model that cannot be loaded, or must not be served."""
        taken = {candidate.name for candidate in self.entries if candidate is not entry}
        if not entry.name or (entry.config.name is None and entry.name in taken):
            entry.name = entry.config.source
        entry.error, entry.state, entry.loaded = error, State.FAILED, None
        self._changed()

    def resolve(self, name: str | None) -> Entry:
        """Returns the model that a call is for.

        Args:
            name: Value of the call's `mlflow-model`: `name` or `name/version`; None or empty for the default model.

        Raises:
            NotReady: The model may be one that is still being loaded.
            UnknownModel: There is no such model, or it has no endpoint.
            ModelNotNamed: There are several models, and none is the default.
            ModelNotLoaded: The model could not be loaded.

        """
        if (resolved := self._resolved.get(name)) is not None:
            return resolved
        entry = self._find(name) if name else self._default()
        if entry.state is State.FAILED:
            # The entry's own name may be its source, with a path in it.
            which = f"The model {name}" if name else "The default model"
            raise ModelNotLoaded(f"{which} could not be loaded. The server's log says why.")
        self._resolved[name] = entry  # Bounded by the number of ways to name the models.
        return entry

    def get(self, name: str, version: str) -> Entry:
        """Returns a model, whether or not it can be called.

        Args:
            name: Its name; empty for the default model.
            version: Its version; empty for the default version.

        Raises:
            UnknownModel: There is no such model.
            ModelNotNamed: The name is empty, and there is no default model.

        """
        if not name:
            return self._default()
        entries = [entry for entry in self.entries if entry.name == name and version in ("", entry.version)]
        if not entries:
            raise self._unknown_model(name, version)
        return _preferred(entries)

    def is_default(self, entry: Entry) -> bool:
        """Returns True if calls without a model's name are for this model."""
        try:
            return self._default() is entry
        except ServingError:
            return False

    def is_settled(self, entry: Entry) -> bool:
        """Returns True if a model is loaded, and no version of it is still being loaded.

        Until then it is not certain which version is the default.
        """
        return entry.loaded is not None and not any(
            candidate.state is State.LOADING and candidate.name == entry.name for candidate in self.entries
        )

    @property
    def labels(self) -> list[str]:
        """Labels of the models that can be called."""
        return [entry.label for entry in self._callable() if entry.state is not State.FAILED]

    def _callable(self) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.config.endpoint and entry.name)

    def _find(self, label: str) -> Entry:
        name, slash, version = label.partition("/")
        named = [entry for entry in self._callable() if entry.name == name]
        kept = (entry for entry in self.replaced if entry.is_kept and entry.name == name)
        if entries := [entry for entry in (*named, *kept) if entry.version == version] if slash else named:
            return _preferred(entries)
        # The name of an MLModel class is unknown until it is loaded, and so is the version behind an alias.
        if any(entry.state is State.LOADING and entry.name in ("", name) for entry in self.entries):
            raise NotReady(STILL_LOADING)
        raise self._unknown_model(name, version)

    def _default(self) -> Entry:
        candidates = [entry for entry in self.entries if entry.config.endpoint]
        if len(candidates) == 1:
            return candidates[0]
        if defaults := [entry for entry in candidates if entry.config.default]:
            return _preferred(defaults)
        if any(not entry.name for entry in candidates):
            raise NotReady(STILL_LOADING)
        if not candidates or len({entry.name for entry in candidates}) > 1:
            advice = f"name one in the metadata or header {MODEL_KEY}: name or name/version."
            raise ModelNotNamed(f"This server has several models; {advice} {self._names()}")
        return _preferred(candidates)

    def _unknown_model(self, name: str, version: str) -> UnknownModel:
        known = [entry.version for entry in self._callable() if entry.name == name] if self.names_models else []
        if not known:
            return UnknownModel(f"There is no such model here. {self._names()}")
        versions = ", ".join(filter(None, known))
        others = f"It has: {versions}." if versions else f"It has no versions: call it as {name}."
        return UnknownModel(f"The model {name} has no version {version} here. {others}")

    def _names(self) -> str:
        if not self.names_models:
            return "ListModels, or GET /models, shows those that you may see."
        return f"There are: {', '.join(self.labels) or 'none'}."


def _preferred(entries: list[Entry]) -> Entry:
    """Returns the entry that is marked as default, or the one with the highest version."""
    return max(entries, key=lambda entry: (entry.config.default, _order(entry.version)))


def _order(version: str) -> tuple[bool, Version, str]:
    """Sort key of a version: numbers come after other text."""
    try:
        return True, Version(version), version
    except InvalidVersion:
        return False, Version("0"), version
