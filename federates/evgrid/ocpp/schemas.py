"""Messages as text, checked against the JSON schemas of the standard.

The schemas are those that the package ``ocpp`` ships. They are compiled by ``fastjsonschema``, each
once, when it is first needed: the package's own validators take twenty times as long for a meter value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import fastjsonschema

Version = Literal["2.1", "2.0.1", "1.6"]
VERSIONS: tuple[Version, ...] = ("2.1", "2.0.1", "1.6")
CALL, CALL_RESULT, CALL_ERROR = 2, 3, 4
MAX_MESSAGE_BYTES = 1 << 20
"""Largest message that is read or sent: a charging profile of three full schedules has about half of it."""

Payload = dict[str, Any]


class MessageError(ValueError):
    """A message that breaks the protocol.

    ``code``: the error code of OCPP-J, such as ``FormatViolation``; ``unique_id``: of the message, where it
    has one, else ``"-1"``, as OCPP-J says.
    """

    def __init__(self, code: str, text: str, unique_id: str = "-1") -> None:
        super().__init__(text)
        self.code, self.unique_id = code, unique_id


def subprotocol(version: Version) -> str:
    """The websocket's subprotocol of a version, such as ``ocpp2.1``."""
    return f"ocpp{version}"


@cache
def _check(kind: int, action: str, version: Version) -> Callable[[Any], Any] | None:
    """What checks a payload; None where the version has no such message."""
    request = "" if version == "1.6" else "Request"
    name = f"{action}{request if kind == CALL else 'Response'}.json"
    file = files("ocpp") / f"v{version.replace('.', '')}" / "schemas" / name
    try:
        schema = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError:
        return None
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema, use_default=False, use_formats=False)
    return compiled


def known(action: str, version: Version) -> bool:
    """Whether a version has a request of a name."""
    return action.isalnum() and _check(CALL, action, version) is not None


def fault(kind: int, action: str, payload: object, version: Version) -> MessageError | None:
    """What is wrong with a payload by its schema; None: nothing."""
    check = _check(kind, action, version) if action.isalnum() else None
    if check is None:
        return MessageError("NotImplemented", f"OCPP {version} has no {action}")
    given = _tenths(payload) if version == "1.6" else payload
    try:
        check(given)
    except fastjsonschema.JsonSchemaValueException as error:
        code = _CODES.get(error.rule, "PropertyConstraintViolation")
        if version == "1.6" and code == "OccurrenceConstraintViolation":
            code = "OccurenceConstraintViolation"  # the spelling of OCPP 1.6
        return MessageError(code, error.message.replace("data", action, 1))
    return None


_CODES = {
    "type": "TypeConstraintViolation",
    "required": "OccurrenceConstraintViolation",
    "minItems": "OccurrenceConstraintViolation",
    "maxItems": "OccurrenceConstraintViolation",
    "additionalProperties": "FormatViolation",
}


def _tenths(value: Any) -> Any:
    """A payload of OCPP 1.6 in which limits and rates that are tenths are whole numbers, for its schema.

    It asks for multiples of 0.1, of which 0.3 is none in floating point.
    """
    if isinstance(value, list):
        return [_tenths(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: round(item)
        if key in _TENTHS and isinstance(item, float) and math.isfinite(item) and round(item, 1) == item
        else _tenths(item)
        for key, item in value.items()
    }


_TENTHS = ("limit", "minChargingRate")


def text_of(message: list[Any]) -> str:
    """A message as JSON; NaN and infinities are refused by ValueError, as JSON has none."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False)


def message_of(text: str | bytes) -> list[Any]:
    """A message from JSON: a call ``[2, id, action, payload]``, its result ``[3, id, payload]``, or an error
    ``[4, id, code, text, details]``.

    Raises
    ------
    MessageError
        If it is none.

    """
    try:
        message = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        raise MessageError("RpcFrameworkError", "the message is no JSON") from None
    lengths = {CALL: 4, CALL_RESULT: 3, CALL_ERROR: 5}
    if not isinstance(message, list) or not message:
        raise MessageError("RpcFrameworkError", "the message is no JSON array")
    kind, unique_id = message[0], message[1] if len(message) > 1 else None
    if not isinstance(unique_id, str) or len(unique_id) > 36:
        raise MessageError("RpcFrameworkError", "the message has no id of at most 36 characters")
    if type(kind) is not int or kind not in lengths:
        raise MessageError(
            "MessageTypeNotSupported", f"the message type is {kind!r}: must be 2, 3 or 4", unique_id
        )
    texts = message[2:3] if kind == CALL else message[2:4] if kind == CALL_ERROR else []
    if (
        len(message) != lengths[kind]
        or not isinstance(message[-1], dict)
        or not all(isinstance(text, str) for text in texts)
    ):
        raise MessageError("RpcFrameworkError", f"the message of type {kind} has not its elements", unique_id)
    return message


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
