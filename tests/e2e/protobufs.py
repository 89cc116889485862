"""Protobuf by Google's own compiler and library: `.proto` texts to message classes, and messages framed for Kafka."""

from __future__ import annotations

import pathlib
import tempfile

import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from produce import framed


class Proto:
    """A `.proto` text compiled with its imports: `Proto(text)["pkg.Message"]` is a class."""

    def __init__(self, text: str, imports: dict[str, str] | None = None):
        self.text = text
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, content in {**(imports or {}), "schema.proto": text}.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(content)
            out = root / "set.bin"
            known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
            status = protoc.main(
                [
                    "protoc",
                    f"-I{root}",
                    f"-I{known}",
                    "--include_imports",
                    f"--descriptor_set_out={out}",
                    "schema.proto",
                ]
            )
            assert status == 0, "protoc refuses the schema"
            self.files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in self.files.file:
            self.pool.Add(file)

    def __getitem__(self, name: str):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))


def zigzag(number: int) -> bytes:
    out, rest = bytearray(), number << 1
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out + bytes([rest]))


def message_indexes(path: tuple[int, ...]) -> bytes:
    """As Confluent's serializers write them: one zero byte for the first message, else a count and the path."""
    return b"\0" if path == (0,) else zigzag(len(path)) + b"".join(map(zigzag, path))


def framed_message(schema_id: int, message, path: tuple[int, ...] = (0,)) -> bytes:
    return framed(schema_id, message_indexes(path) + message.SerializeToString())
