"""Restores films of any length, in segments that survive an interruption, and compares videos."""
