"""YAML files, with the duplicate keys that YAML readers accept silently.

Rule of this module: it knows no keys. `mlflow_grpc.config` decides what a duplicate key means.
"""

from typing import Any

import yaml


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
