"""Text from files on its way to a terminal."""


def printable(text: str) -> str:
    """Return text with escape sequences and other control characters, but line ends and tabs, as in Python source."""
    return ''.join(letter if letter.isprintable() or letter in '\n\t' else repr(letter)[1:-1] for letter in text)
