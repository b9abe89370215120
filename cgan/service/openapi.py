"""What /openapi.json says of each address."""

from __future__ import annotations

from typing import Any

from cgan.service.question import MAX_DRAWINGS, MAX_TEXT
from cgan.serving.generator import MAX_SEED
from cgan.serving.picture import MAX_SCALE

DESCRIPTION = (
    "Draws classes of images. Equal seeds draw equal pictures, as `cgan draw` does. Errors are "
    '`{"detail": "…"}`: where, what was expected, what was found, what to do.'
)
_ERROR = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"detail": {"type": "string"}}},
            "example": {
                "detail": "the body: `text`: 'x', character 1 of the text to draw, is not a class. "
                "The classes are 0 to 9."
            },
        }
    }
}
_DRAWN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The drawings, in the form that the header Accept asks for.",
        "headers": {
            "Cgan-Model-Digest": {"schema": {"type": "string"}},
            "Cgan-Model-Version": {"schema": {"type": "string"}},
        },
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "labels": [2],
                    "seed": 7,
                    "shape": [28, 28],
                    "model": {"digest": "9f86d0…", "version": 3},
                    "drawings": [{"label": 2, "png_base64": "iVBORw0KGgo…"}],
                },
            },
            "text/csv": {"schema": {"type": "string"}, "example": "label,pixel0,…\n2,0,…\n"},
            "application/x-npz": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    400: {"description": "Not readable.", **_ERROR},
    406: {"description": "No form that is accepted.", **_ERROR},
    421: {"description": "The header Host names another machine.", **_ERROR},
    422: {"description": "Asks for what there is not, or for too much.", **_ERROR},
    429: {"description": "Too much is on; Retry-After says when to ask again.", **_ERROR},
    503: {"description": "Nothing is served yet.", **_ERROR},
}
_FIELDS: dict[str, dict[str, Any]] = {
    "text": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "description": 'Classes, as in `cgan draw`: "2024"; of more than 10 classes "12,3 40".',
    },
    "labels": {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_DRAWINGS,
        "items": {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]},
        "description": "Classes one by one, in place of `text`.",
    },
    "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0},
    "count": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_DRAWINGS,
        "default": 1,
        "description": f"Variants of each; drawings in all: at most {MAX_DRAWINGS:,}.",
    },
    "scale": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_SCALE,
        "description": "Enlarges each pixel so many times. Of pictures only.",
    },
}
_EXAMPLES = {
    "a number": {"value": {"text": "2024", "seed": 7}},
    "variants": {"value": {"labels": [3, 1, 4], "seed": 1, "count": 5, "scale": 2}},
}

PAGE: dict[str, Any] = {
    "summary": "A page to play with the generator, for a browser",
    "responses": {200: {"description": "HTML", "content": {"text/html": {}}}},
}
POST_DRAW: dict[str, Any] = {
    "summary": "Draw",
    "responses": {
        **_DRAWN,
        408: {"description": "The body comes too slowly.", **_ERROR},
        413: {"description": "The body is too large.", **_ERROR},
        415: {"description": "The body is no JSON.", **_ERROR},
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": _FIELDS,
                        "oneOf": [{"required": ["text"]}, {"required": ["labels"]}],
                    },
                    "examples": _EXAMPLES,
                }
            },
        }
    },
}
GET_DRAW: dict[str, Any] = {
    "summary": "Draw, as an address that an <img> can have",
    "responses": {
        **_DRAWN,
        403: {"description": "Too much for a page of another site.", **_ERROR},
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name == "text",
                "schema": schema,
                **({"example": "2024"} if name == "text" else {}),
            }
            for name, schema in _FIELDS.items()
            if name != "labels"
        ]
    },
}
MODEL: dict[str, Any] = {
    "summary": "What is served: facts, metrics and their passport, version, digest",
    "responses": {503: {"description": "Nothing is served yet.", **_ERROR}},
}
HEALTH: dict[str, Any] = {
    "summary": "Does the process live, and can it draw?",
    "responses": {503: {"description": "The thread that draws has ended."}},
}
READY: dict[str, Any] = {
    "summary": "Is there a model, which, since when; does the registry answer?",
    "responses": {503: {"description": "Nothing is served yet."}},
}
METRICS: dict[str, Any] = {
    "summary": "For Prometheus",
    "responses": {200: {"description": "Text", "content": {"text/plain": {}}}},
}
