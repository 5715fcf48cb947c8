"""Reading what W&B keeps of a run that is not uploaded: a log of LevelDB's format with one protocol buffer a record."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768
HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbFile:
    """A run as its file has it."""

    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    host: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def curve(self, name: str) -> list[tuple[int, float]]:
        """What was logged under a name, with its steps, in the order of the file."""
        return [(row["_step"], row[name]) for row in self.history if name in row]


def read(path: Path) -> WandbFile:
    run = WandbFile()
    for data in _records(path.read_bytes()):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                own = record.run
                run.id, run.project, run.name = own.run_id, own.project, own.display_name
                run.group, run.job_type, run.host = own.run_group, own.job_type, own.host
                run.config |= _items(own.config.update)
            case "history":
                run.history.append(_items(record.history.item))
            case "summary":
                run.summary |= _items(record.summary.update)
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    place, parts = 7, b""
    while place < len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER.size:
            place += left
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size
        parts = (b"" if kind in (FULL, FIRST) else parts) + content[place : place + length]
        place += length
        if kind in (FULL, LAST):
            yield parts
