"""Text for a terminal."""


def printable(text: str) -> str:
    """Return text with escape sequences and other control characters, but line ends and tabs, as in Python source."""
    return ''.join(letter if letter.isprintable() or letter in '\n\t' else repr(letter)[1:-1] for letter in text)


def counted(number: int, word: str) -> str:
    """Return a number with its noun: 1 frame, 2 frames."""
    return f'{number:,} {word}{"s" * (number != 1)}'
