"""Video files in and out: decoding, encoding, and what is needed to restore films of any length."""
