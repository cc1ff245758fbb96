"""Support for training: batches, training states, the log, and curves."""
