"""Sources of settings: arguments first, then the environment.

Rule of this module: it knows no setting and no name of a variable.
"""

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource


class SourcedSettings(BaseSettings):
    """Settings from arguments and environment alone.

    Pydantic would also look at `.env` files and directories of secrets, of which this server has none. These two
    sources take a quarter of the time.
    """

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_args: Any, **_sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources; the first one that has a value decides."""
        return init_settings, _SetVariables(settings_cls)


class _SetVariables(EnvSettingsSource):
    """The variables that are set. A field whose variables are not set needs no look at its type."""

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        return None if value is None else super().prepare_field_value(field_name, field, value, value_is_complex)
