"""Settings in words: what a value may be, and a default as it is written in a study file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

KINDS = {"string": "text", "boolean": "true or false", "integer": "whole number", "number": "number", "object": "mapping", "null": "null"}


class _AnythingElse(GenerateJsonSchema):
    """A type that JSON does not know (a function, a class of another package) has a schema that says nothing."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {}


def described_settings(settings: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """{setting: {"type": in words, "default": value}} of a settings model; a required setting has no default."""
    schemas = settings.model_json_schema(schema_generator=_AnythingElse).get("properties", {})
    return {
        name: {"type": type_words(schemas[name])} | ({} if field.is_required() else {"default": field.default})
        for name, field in settings.model_fields.items()
    }


def type_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words.

    >>> type_words({"type": "number", "exclusiveMinimum": 0})
    'number above 0'
    >>> type_words({"anyOf": [{"enum": ["hard", "soft"], "type": "string"}, {"type": "null"}]})
    'hard, soft or null'
    >>> type_words({"type": "array", "items": {"type": "integer"}, "minItems": 1})
    'list of at least 1 (whole number)'
    """
    return joined(list(dict.fromkeys(_choices(schema))), "or")


def default_words(value: Any) -> str:
    """A default as a study file has it.

    >>> default_words((4.0, 0.5)), default_words("hard"), default_words(None), default_words(False)
    ('[4.0, 0.5]', 'hard', 'null', 'false')
    """
    return value if isinstance(value, str) else json.dumps(value, default=str)


def joined(words: Sequence[str], last: str) -> str:
    """Words as a sentence has them.

    >>> joined(["a", "b", "c"], "or"), joined(["a"], "or"), joined([], "or")
    ('a, b or c', 'a', '')
    """
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _choices(schema: Mapping[str, Any]) -> list[str]:
    if "anyOf" in schema:
        return [words for choice in schema["anyOf"] for words in _choices(choice)]
    if "enum" in schema:
        return [default_words(value) for value in schema["enum"]]
    if "const" in schema:
        return [default_words(schema["const"])]
    if schema.get("type") == "array":
        return [_list_words(schema)]
    if schema.get("format") == "path":
        return ["path"]
    return [" ".join(filter(None, [KINDS.get(schema.get("type", ""), "anything"), _bounds(schema)]))]


def _list_words(schema: Mapping[str, Any]) -> str:
    places = [type_words(item) for item in schema.get("prefixItems", [])]
    if places:
        return f"list of {len(places)} ({', '.join(dict.fromkeys(places))})"
    at_least = f" of at least {schema['minItems']}" if schema.get("minItems") else ""
    return f"list{at_least} ({type_words(schema.get('items', {}))})"


def _bounds(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"from {schema['minimum']} to {schema['maximum']}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return " and ".join(f"{said} {schema[name]}" for name, said in words.items() if name in schema)
