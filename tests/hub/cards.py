"""The metadata at the top of a README, checked as far as the Hub's own messages are public."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

LICENSES = Path(__file__).with_name("licenses.txt").read_text().split()
"""As the Hub listed them in an error of May 2026 (quoted in huggingface_hub 4218)."""

SIZES = "n<1K 1K<n<10K 10K<n<100K 100K<n<1M 1M<n<10M 10M<n<100M 100M<n<1B 1B<n<10B 10B<n<100B"
"""Of a dataset, from the Hub's documentation; more than 1T exists too."""

_BLOCK = re.compile(r"^\s*---[\r\n]+(?P<yaml>[\S\s]*?)[\r\n]+---(\r\n|\n|$)")


class _OneOfEach(yaml.SafeLoader):
    """Refuses a key that stands twice, as the Hub's parser does and Python's does not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for seen, (key, _) in enumerate(node.value):
            if key.value in keys[:seen]:
                raise yaml.YAMLError(f"duplicated mapping key {key.value!r}{key.start_mark}")
        return super().construct_mapping(node, deep)


def metadata(readme: str) -> dict[str, Any]:
    """Return the metadata of a README; nothing where it has none or none that can be read."""
    block = _BLOCK.search(readme)
    try:
        found = yaml.safe_load(block["yaml"]) if block else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def warnings(readme: str) -> list[str]:
    """Return what the Hub would rather see."""
    return [] if _BLOCK.search(readme) else ["empty or missing yaml metadata in repo card"]


@lru_cache  # tests of faults commit the same README a hundred times
def errors(readme: str) -> list[str]:
    """Return why the Hub refuses a README, at the check and in a commit alike."""
    block = _BLOCK.search(readme)
    if block is None:
        return []
    try:
        found = yaml.load(block["yaml"], _OneOfEach)
    except yaml.YAMLError as error:
        return [f"Invalid YAML in README.md: {error}"]
    if not isinstance(found, dict):
        return ["Invalid YAML in README.md: the metadata is no mapping"]
    return [*_license(found.get("license")), *_languages(found), *_sizes(found), *_configs(found)]


def _license(given: object) -> list[str]:
    names = given if isinstance(given, list) else [given] if given is not None else []
    if all(name in LICENSES for name in names):
        return []
    return [f'"license" must be one of [{", ".join(LICENSES)}, array]']


def _languages(found: dict[str, Any]) -> list[str]:
    given = found.get("language")
    codes = given if isinstance(given, list) else [given] if given is not None else []
    wrong = [i for i, code in enumerate(codes) if not isinstance(code, str) or code != code.lower()]
    return [f'"language[{i}]" must only contain lowercase characters' for i in wrong]


def _sizes(found: dict[str, Any]) -> list[str]:
    given = found.get("size_categories", [])
    sizes = given if isinstance(given, list) else [given]
    wrong = [i for i, size in enumerate(sizes) if size not in [*SIZES.split(), "100B<n<1T", "n>1T"]]
    return [f'"size_categories[{i}]" must be one of [{", ".join(SIZES.split())}]' for i in wrong]


def _configs(found: dict[str, Any]) -> list[str]:
    configs = found.get("configs", [])
    if not isinstance(configs, list):
        return ['"configs" must be an array']
    named = [isinstance(config, dict) and "config_name" in config for config in configs]
    return [f'"configs[{i}].config_name" is required' for i, has in enumerate(named) if not has]
