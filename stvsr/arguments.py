"""The parser class of all commands: short usage errors that suggest the nearest flag."""
import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Parser that replaces @FILE by the lines of a file, without empty ones, and suggests flags for unknown ones."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        line = arg_line.strip()
        return [line] if line else []

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with the usage and a message about arguments that no option takes."""
        flags = [text.partition('=')[0] for text in unknown if text.startswith('-')]
        near = [found for flag in flags for found in get_close_matches(flag, self._option_string_actions, n=1)]
        hint = f'; did you mean {" and ".join(near)}?' if near else ''
        self.error(f'unrecognized arguments: {" ".join(unknown)}{hint}')

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown)
        return parsed
