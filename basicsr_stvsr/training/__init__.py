"""What a training needs beside its model: batches, training states, the log, and curves."""
