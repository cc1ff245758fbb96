"""Restore videos of any length in resumable segments, and compare videos."""
