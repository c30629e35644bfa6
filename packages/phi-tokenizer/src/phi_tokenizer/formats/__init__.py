"""Tokenizer files: one module for each format, and the function that tells them apart."""
