"""YAML files: a reader that notes duplicate keys, which YAML readers accept silently, and a fast one.

Rule of this module: it knows no keys. `mlflow_grpc.config` decides what a duplicate key means.
"""

import contextlib
from typing import IO, Any

import yaml

MAX_LIBYAML_DEPTH = 100
"""Maximum number of nested collections that libyaml reads."""


class _Loader(yaml.SafeLoader):
    """Notes duplicate keys in a mapping, of which YAML readers silently drop the first.

    It looks at the text of the file, because a key that `<<` merges in may exist already.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicate_keys: list[str] = []
        """A line for each duplicate key."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                self.duplicate_keys.append(
                    f"the key {key.value} occurs twice in one mapping, in lines {first} and {line}"
                )
            lines[key.tag, key.value] = line
        return node


def parse_yaml(text: str) -> tuple[Any, list[str]]:
    """Parses the text of a file.

    Returns:
        Its content, and a line for each duplicate key.

    Raises:
        yaml.YAMLError: It is not YAML.
        ValueError: It has an invalid date.
        RecursionError: It is nested too deep.

    """
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.duplicate_keys
    finally:
        loader.dispose()


class LibyamlFirst:
    """PyYAML, except that `safe_load` uses libyaml, which takes a thirtieth of the time.

    PyYAML's own parser reads what libyaml refuses, so that errors are the same. Without libyaml it reads everything.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(yaml, name)

    @staticmethod
    def safe_load(file: IO[str]) -> Any:
        """Returns the content of a file.

        Raises:
            yaml.YAMLError: It is not YAML.

        """
        if yaml.__with_libyaml__:
            with contextlib.suppress(yaml.YAMLError):
                if not _is_deep(file):
                    file.seek(0)
                    return yaml.load(file, Loader=yaml.CSafeLoader)
            file.seek(0)
        return yaml.safe_load(file)


def _is_deep(file: IO[str]) -> bool:
    """Returns True if a file is nested so deep that libyaml might overflow the stack, which ends the process."""
    depth = 0
    for event in yaml.parse(file, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_LIBYAML_DEPTH:
            return True
    return False
