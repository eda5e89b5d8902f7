"""Check answers against TGI's own OpenAPI document."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

OPENAPI = Path(__file__).parents[2] / "shared" / "facts" / "tgi_openapi_3.3.6.json"


def load() -> Any:
    """Return TGI's schemas as JSON schemas; skip the test where they are not at hand."""
    if not OPENAPI.exists():
        pytest.skip(f"{OPENAPI} is not here")
    return translated(json.loads(OPENAPI.read_text())["components"]["schemas"])


def translated(node: Any) -> Any:
    """Turn an OpenAPI 3.0 schema into a JSON schema: there, null is a keyword and not a type."""
    if isinstance(node, list):
        return [translated(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: translated(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


def check(answer: object, schema: str, schemas: Any) -> None:
    """Fail unless an answer fits a schema."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": schemas}}
    jsonschema.Draft202012Validator(root).validate(answer)
