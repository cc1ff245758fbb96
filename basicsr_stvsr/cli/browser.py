"""Open a page in the browser of the user."""
import sys
import webbrowser


def open_in_browser(address: str) -> None:
    """Open an address; say so if there is no browser."""
    if not webbrowser.open(address):
        print(f'warning: no browser found; open {address} yourself', file=sys.stderr)
