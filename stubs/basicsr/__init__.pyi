# Types of the parts of BasicSR 1.4.2 that this package uses. BasicSR has none; mypy reads these instead.
