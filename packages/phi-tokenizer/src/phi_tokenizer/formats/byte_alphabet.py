"""GPT-2's way of writing any bytes as visible text: `Ġ` is a space, `Ċ` a newline.

    >>> to_text(b" caf\\xc3\\xa9")
    'ĠcafÃ©'

Radford et al. (2019), `bytes_to_unicode` in GPT-2's encoder.py: bytes with a visible Latin-1
character stand for themselves, the other 68 take U+0100 and up, in ascending order.
"""

from phi_tokenizer.vocabulary import BYTE_ORDER

__all__ = ["to_bytes", "to_text"]

_CHARACTERS = {
    byte: chr(byte) if position < 188 else chr(256 + position - 188)
    for position, byte in enumerate(BYTE_ORDER)
}
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
_TABLE = [_CHARACTERS[byte] for byte in range(256)]


def to_text(data: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    return "".join([_TABLE[byte] for byte in data])


def to_bytes(text: str) -> bytes:
    """The bytes that a text in GPT-2's alphabet stands for.

    Raises:
        KeyError: a character is not in the alphabet.
    """
    return bytes([_BYTES[character] for character in text])
