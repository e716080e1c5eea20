"""Reading a suite's YAML: what goes wrong is one line with the file and the line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from clbench.errors import UserError

LARGEST_FILE = 1_000_000


def read_yaml(path: Path) -> Any:
    """The content of a file. Raises UserError, also for keys given twice, anchors, and files too large for a suite."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"suite {path}: larger than {LARGEST_FILE:,} bytes; this is no suite")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"no such suite: {path}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"suite {path}{line}: {' '.join(str(error.problem or error).split())}") from None
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read suite {path}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"suite {path}: nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """YAML without what a suite has no use for: a key given twice, and anchors (a block does that, by name)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, f"*{event.anchor}: anchors are not used in suites: name a block and extend it",
                event.start_mark,
            )  # fmt: skip
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "<<: is not used in suites: name a block and extend it", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # 1e-3, which YAML 1.1 takes for text
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
