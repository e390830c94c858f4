"""A small AMQP codec whose methods come from the machine-readable specifications.

It is deliberately literal: what a test asks for is what goes out, and what comes in is decoded
strictly (no trailing bytes, no unknown method), so that nothing is repaired on the way.

Strings are decoded as UTF-8 with surrogateescape: every byte sequence survives the round trip.
"""

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

SPEC_DIRECTORY = Path(__file__).resolve().parent / ".." / ".." / "spec"

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
# Type, channel, size and end octet: what frame_max counts besides the payload.
FRAME_OVERHEAD = 8

REPLY_NAMES = {
    311: "CONTENT_TOO_LARGE",
    312: "NO_ROUTE",
    313: "NO_CONSUMERS",
    320: "CONNECTION_FORCED",
    402: "INVALID_PATH",
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}


class CodecError(Exception):
    """The bytes are not what the specification says they must be."""


class Frame(NamedTuple):
    type: int
    channel: int
    payload: bytes

    def encode(self, end=FRAME_END):
        return frame(self.type, self.channel, self.payload, end)


def frame(kind, channel, payload, end=FRAME_END):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


# Field tables -------------------------------------------------------------------------------


class Field(NamedTuple):
    """A field value with its type tag, so that `s` 5 and `I` 5 are different values."""

    tag: str
    value: object


NUMBERS = {
    "b": "b",
    "B": "B",
    "s": "h",
    "u": "H",
    "I": "i",
    "i": "I",
    "l": "q",
    "L": "q",
    "f": "f",
    "d": "d",
    "T": "Q",
}


def field(value):
    """The field a plain Python value stands for."""
    if isinstance(value, Field):
        return value
    if isinstance(value, bool):
        return Field("t", value)
    if isinstance(value, int):
        return Field("I" if -(2**31) <= value < 2**31 else "l", value)
    if isinstance(value, (str, bytes)):
        return Field("S", value)
    if isinstance(value, float):
        return Field("d", value)
    if isinstance(value, dict):
        return Field("F", value)
    if isinstance(value, list):
        return Field("A", value)
    if value is None:
        return Field("V", None)
    raise TypeError(f"no field type for {value!r}")


def to_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def to_text(data):
    return data.decode("utf-8", "surrogateescape")


def shortstr(text):
    data = to_bytes(text)
    return struct.pack(">B", len(data)) + data


def longstr(text):
    data = to_bytes(text)
    return struct.pack(">I", len(data)) + data


def encode_field(value):
    tag, content = field(value)
    if tag in NUMBERS:
        body = struct.pack(">" + NUMBERS[tag], content)
    elif tag == "t":
        body = bytes([1 if content else 0])
    elif tag == "D":
        body = struct.pack(">BI", *content)
    elif tag in ("S", "x"):
        body = longstr(content)
    elif tag == "F":
        body = table(content)
    elif tag == "A":
        body = longstr(b"".join(encode_field(item) for item in content))
    elif tag == "V":
        body = b""
    else:
        raise TypeError(f"no encoding for field type {tag!r}")
    return tag.encode() + body


def table_pairs(pairs):
    """A table from (name, value) pairs: the order is kept and names may repeat."""
    return longstr(b"".join(shortstr(name) + encode_field(value) for name, value in pairs))


def table(entries):
    return table_pairs(entries.items())


class Reader:
    """Takes values off a payload; running out of bytes is a CodecError."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise CodecError(f"{count} bytes wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]

    def shortstr(self):
        return to_text(self.take(self.number("B")))

    def longstr(self):
        return to_text(self.take(self.number("I")))

    def table(self):
        inner = Reader(self.take(self.number("I")))
        entries = {}
        while not inner.done():
            name = inner.shortstr()
            entries[name] = inner.field()
        return entries

    def field(self):
        tag = self.take(1).decode("latin-1")
        if tag in NUMBERS:
            return Field(tag, self.number(NUMBERS[tag]))
        if tag == "t":
            return Field(tag, self.number("B") != 0)
        if tag == "D":
            return Field(tag, (self.number("B"), self.number("I")))
        if tag == "S":
            return Field(tag, self.longstr())
        if tag == "x":
            return Field(tag, self.take(self.number("I")))
        if tag == "F":
            return Field(tag, self.table())
        if tag == "A":
            inner = Reader(self.take(self.number("I")))
            items = []
            while not inner.done():
                items.append(inner.field())
            return Field(tag, items)
        if tag == "V":
            return Field(tag, None)
        raise CodecError(f"unknown field type {tag!r}")

    def done(self):
        return self.at == len(self.data)

    def value(self, kind):
        """An argument or property of a specification type other than bit."""
        forms = {"octet": "B", "short": "H", "long": "I", "longlong": "Q", "timestamp": "Q"}
        if kind in forms:
            return self.number(forms[kind])
        return {"shortstr": self.shortstr, "longstr": self.longstr, "table": self.table}[kind]()


def encode_value(kind, value):
    forms = {"octet": "B", "short": "H", "long": "I", "longlong": "Q", "timestamp": "Q"}
    if kind in forms:
        return struct.pack(">" + forms[kind], value)
    if kind == "table":
        # Bytes stand for a table encoded by hand, length prefix included.
        return value if isinstance(value, bytes) else table(value)
    return {"shortstr": shortstr, "longstr": longstr}[kind](value)


# Methods ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    name: str
    arguments: dict

    def __getattr__(self, name):
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(name) from None

    def __str__(self):
        inside = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.name}({inside})"


@dataclass(frozen=True)
class Argument:
    name: str
    kind: str
    default: object


@dataclass(frozen=True)
class Signature:
    name: str
    class_id: int
    method_id: int
    arguments: tuple
    content: bool


class Dialect:
    """The methods and basic properties of one protocol version."""

    def __init__(self, name, specification, header, version):
        self.name = name
        self.header = header
        self.version = version
        kinds = dict(specification["domains"])
        self.by_name = {}
        self.by_id = {}
        for group in specification["classes"]:
            for method in group["methods"]:
                arguments = tuple(
                    Argument(
                        argument["name"].replace("-", "_"),
                        kinds[argument.get("type") or argument["domain"]],
                        argument.get("default-value"),
                    )
                    for argument in method["arguments"]
                )
                signature = Signature(
                    f"{group['name']}.{method['name']}",
                    group["id"],
                    method["id"],
                    arguments,
                    method.get("content", False),
                )
                self.by_name[signature.name] = signature
                self.by_id[group["id"], method["id"]] = signature
        basic = next(group for group in specification["classes"] if group["name"] == "basic")
        self.properties = [(entry["name"].replace("-", "_"), entry["type"]) for entry in basic["properties"]]

    def ids(self, name):
        """Class and method id as connection.close and channel.close name the failing method."""
        if name is None:
            return 0, 0
        signature = self.by_name[name]
        return signature.class_id, signature.method_id

    def encode(self, name, **given):
        """The payload of a method frame. A trailing underscore frees Python's keywords."""
        given = {key.rstrip("_"): value for key, value in given.items()}
        signature = self.by_name[name]
        out = struct.pack(">HH", signature.class_id, signature.method_id)
        bits = []
        for argument in signature.arguments:
            value = given.pop(argument.name, argument.default)
            if argument.kind == "bit":
                bits.append(bool(value))
                continue
            out += pack_bits(bits)
            bits = []
            out += encode_value(argument.kind, value)
        if given:
            raise TypeError(f"{name} has no argument {', '.join(given)}")
        return out + pack_bits(bits)

    def decode(self, payload):
        reader = Reader(payload)
        ids = reader.number("H"), reader.number("H")
        if ids not in self.by_id:
            raise CodecError(f"method {ids} does not exist in {self.name}")
        signature = self.by_id[ids]
        values = {}
        bits = []
        for argument in signature.arguments:
            if argument.kind == "bit":
                if len(bits) % 8 == 0:
                    octet = reader.number("B")
                values[argument.name] = bool(octet & 1 << len(bits) % 8)
                bits.append(argument.name)
            else:
                bits = []
                values[argument.name] = reader.value(argument.kind)
        if not reader.done():
            raise CodecError(f"{len(payload) - reader.at} bytes follow {signature.name}")
        return Method(signature.name, values)

    def encode_properties(self, given):
        flags = 0
        values = b""
        given = dict(given)
        for position, (name, kind) in enumerate(self.properties):
            if name in given:
                flags |= 1 << 15 - position
                values += encode_value(kind, given.pop(name))
        if given:
            raise TypeError(f"no property {', '.join(given)}")
        return struct.pack(">H", flags) + values

    def decode_properties(self, data):
        reader = Reader(data)
        flags = reader.number("H")
        if flags & 3:
            raise CodecError(f"property flags {flags:#06x} name properties that do not exist")
        values = {
            name: reader.value(kind)
            for position, (name, kind) in enumerate(self.properties)
            if flags & 1 << 15 - position
        }
        if not reader.done():
            raise CodecError("bytes follow the properties")
        return values


def pack_bits(bits):
    octets = bytearray((len(bits) + 7) // 8)
    for position, bit in enumerate(bits):
        octets[position // 8] |= bit << position % 8
    return bytes(octets)


def content_header(size, properties=b"\0\0", class_id=60, weight=0):
    return struct.pack(">HHQ", class_id, weight, size) + properties


@lru_cache
def dialect(name):
    # 0-9 differs from 0-9-1 only in the header and in the version connection.start carries:
    # the methods that both have are laid out identically.
    files = {
        "0-9-1": ("amqp-rabbitmq-0.9.1.json", b"AMQP\0\0\x09\x01", (0, 9)),
        "0-9": ("amqp-rabbitmq-0.9.1.json", b"AMQP\x01\x01\0\x09", (0, 9)),
        "0-8": ("amqp-rabbitmq-0.8.json", b"AMQP\x01\x01\x08\0", (8, 0)),
    }
    file_name, header, version = files[name]
    specification = json.loads((SPEC_DIRECTORY / file_name).read_text())
    return Dialect(name, specification, header, version)
