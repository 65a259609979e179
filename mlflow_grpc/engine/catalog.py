"""The models of a server: which there are, how far each one is, and which of them a call is for.

Rule of this module: it is used from the event loop only. A model that is named by a caller is looked up, never loaded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from packaging.version import InvalidVersion, Version

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.execution import Engine
from mlflow_grpc.engine.loading import Loaded
from mlflow_grpc.errors import ModelNotLoaded, ModelNotNamed, NotReady, ServingError, StartError, UnknownModel
from mlflow_grpc.naming import name_from_uri

MODEL_KEY = "mlflow-model"
"""The metadata key by which a call names its model: `name` or `name/version`."""

STILL_LOADING = "The models are still being loaded. Try again in a moment."


class State(Enum):
    """How far a model is."""

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
    """As callers know it; empty until it is known."""
    version: str = ""
    """Empty if the model has none."""
    error: str = ""
    """Why it could not be loaded."""
    loaded: Loaded | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """Name and version as a call writes them."""
        return f"{self.name}/{self.version}" if self.version else self.name


class Catalog:
    """The models of a server, in the order of the configuration."""

    def __init__(
        self, models: tuple[ModelConfig, ...], make_engine: Callable[[], Engine], *, reserved: tuple[str, ...] = ()
    ) -> None:
        """Args:
        models: What is to be hosted.
        make_engine: Makes what runs the calls to one of them.
        reserved: Names that no model may have, because health checks use them.
        """
        self._reserved = reserved
        self._found: dict[str | None, Entry] = {}  # What calls have asked for, as long as nothing changes.
        self.entries = [
            Entry(
                config,
                make_engine(),
                name=config.name or (name_from_uri(config.uri) if config.uri else ""),
                version=config.version or "",
            )
            for config in models
        ]

    def place(self, entry: Entry, loaded: Loaded) -> None:
        """Takes a model that has been loaded.

        Raises:
            StartError: There is another one of its name and version.

        """
        name = entry.config.name or loaded.model.name
        version = entry.config.version or loaded.model.version
        loaded_entries = [other for other in self.entries if other is not entry and other.loaded is not None]
        twin = next((other for other in loaded_entries if (other.name, other.version) == (name, version)), None)
        if twin is not None:
            raise StartError(
                f"more than one model is called {twin.label}: {twin.config.source} and {entry.config.source}; "
                "give each a name or a version in the configuration"
            )
        if name in self._reserved:
            raise StartError(f"{entry.config.source}: {name} is the name of a service; give the model another name")
        entry.name, entry.version, entry.loaded, entry.state = name, version, loaded, State.READY
        self._found.clear()
        entry.engine.host(loaded.model, loaded.codec, loaded.plain, loaded.context)

    def give_up(self, entry: Entry, error: str) -> None:
        """Lists a model as one that cannot be loaded, or is not to be served as it is."""
        taken = {other.name for other in self.entries if other is not entry}
        if not entry.name or (entry.config.name is None and entry.name in taken):
            entry.name = entry.config.source
        entry.error, entry.state, entry.loaded = error, State.FAILED, None
        self._found.clear()

    def find(self, wanted: str | None) -> Entry:
        """The model that a call is for.

        Args:
            wanted: The value of its `mlflow-model`: `name` or `name/version`; None or empty if it has none.

        Raises:
            NotReady: It may be one that is still being loaded.
            UnknownModel: There is no such model, or it is not to be called.
            ModelNotNamed: There are several, and none is the default.
            ModelNotLoaded: It could not be loaded.

        """
        if (known := self._found.get(wanted)) is not None:
            return known
        entry = self._named(wanted) if wanted else self._default()
        if entry.state is State.FAILED:
            # Not its own name: one that was given none is known by where it was to come from.
            which = f"The model {wanted}" if wanted else "The default model"
            raise ModelNotLoaded(f"{which} could not be loaded. The server's log says why.")
        self._found[wanted] = entry  # As many at the most as there are ways to name the models.
        return entry

    def get(self, name: str, version: str) -> Entry:
        """A model, whether or not it can be called.

        Args:
            name: Its name; empty for the one that calls reach which name none.
            version: Its version; empty for the default one.

        Raises:
            UnknownModel: There is no such model.
            ModelNotNamed: The name is empty, and it would not do for a call either.

        """
        if not name:
            return self._default()
        found = [entry for entry in self.entries if entry.name == name and version in ("", entry.version)]
        if not found:
            raise UnknownModel("There is no such model here. ListModels tells which there are.")
        return _preferred(found)

    def is_reached_without_name(self, entry: Entry) -> bool:
        """Whether calls that name no model are for this one."""
        try:
            return self._default() is entry
        except ServingError:
            return False

    def is_settled(self, entry: Entry) -> bool:
        """Whether a model is loaded, and no other version of it is still being loaded.

        Until then it is not certain which version a call means that names none.
        """
        return entry.loaded is not None and not any(
            other.state is State.LOADING and other.name == entry.name for other in self.entries
        )

    @property
    def names(self) -> list[str]:
        """The models that can be called, as a call writes them."""
        return [entry.label for entry in self._callable() if entry.state is not State.FAILED]

    def _callable(self) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.config.endpoint and entry.name)

    def _named(self, wanted: str) -> Entry:
        name, slash, version = wanted.partition("/")
        found = [entry for entry in self._callable() if entry.name == name and (not slash or entry.version == version)]
        if found:
            return _preferred(found)
        # The name of an MLModel class is known once it is loaded, and so is the version that an alias means.
        if any(entry.state is State.LOADING and entry.name in ("", name) for entry in self.entries):
            raise NotReady(STILL_LOADING)
        raise UnknownModel(f"There is no such model here; {self._choice()}")

    def _default(self) -> Entry:
        candidates = [entry for entry in self.entries if entry.config.endpoint]
        if len(candidates) == 1:
            return candidates[0]
        if defaults := [entry for entry in candidates if entry.config.default]:
            return _preferred(defaults)
        if any(not entry.name for entry in candidates):
            raise NotReady(STILL_LOADING)
        if not candidates or len({entry.name for entry in candidates}) > 1:
            raise ModelNotNamed(f"This server has several models; {self._choice()}")
        return _preferred(candidates)

    def _choice(self) -> str:
        names = ", ".join(self.names) or "none"
        return f"name one in the call's metadata, {MODEL_KEY}: name or name/version. There are: {names}."


def _preferred(entries: list[Entry]) -> Entry:
    """The one that is marked as default, or the one of the highest version."""
    return max(entries, key=lambda entry: (entry.config.default, _order(entry.version)))


def _order(version: str) -> tuple[bool, Version, str]:
    """Versions as numbers count more than those that are only words."""
    try:
        return True, Version(version), version
    except InvalidVersion:
        return False, Version("0"), version
