"""Byte-level BPE, trained and run in pure Python and numpy."""

__version__ = "0.1.0"
