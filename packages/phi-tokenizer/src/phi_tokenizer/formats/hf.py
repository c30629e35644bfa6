"""HF tokenizers' `tokenizer.json`: the project's own format, and what most tools read.

Read: byte-level BPE with a ByteLevel pre-tokenizer, or a Split by a regular expression and then
ByteLevel; merges as pairs and as "a b" strings. Refused, because the ids would differ:
normalizers, `add_prefix_space`, byte fallback, dropout, subword prefixes and suffixes, added
tokens that strip or that are not special. A post-processor is left aside: `encode` adds no token.
"""

import json
from typing import Any

from phi_tokenizer.errors import FormatError
from phi_tokenizer.formats.byte_alphabet import to_bytes, to_text
from phi_tokenizer.splitter import Splitter
from phi_tokenizer.vocabulary import Vocabulary

__all__ = ["from_hf", "read_merge", "read_tokens", "to_hf"]


def to_hf(vocabulary: Vocabulary) -> bytes:
    """The content of a `tokenizer.json`: UTF-8, one line, the same bytes every time.

    Raises:
        FormatError: a special token has the name by which the file would call an ordinary one.
    """
    texts = {index: to_text(token) for token, index in vocabulary.ids.items()}
    names = {index: name for name, index in vocabulary.special.items()}
    if both := set(texts.values()) & set(names.values()):
        raise FormatError(
            f"a tokenizer.json cannot tell the special token {min(both)!r} from an ordinary one "
            f"that is written so in it; choose another name, such as '<|{min(both)}|>'"
        )
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": names[index],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in sorted(names)
        ],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(vocabulary.pattern),
        "post_processor": None,
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.whole_pieces_first,
            "vocab": {text: index for index, text in sorted((texts | names).items())},
            "merges": [[texts[a], texts[b]] for a, b in vocabulary.merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _pre_tokenizer(pattern: str) -> dict[str, Any]:
    if pattern == "gpt2":
        return _byte_level(use_regex=True)
    if pattern == "none":
        return _byte_level(use_regex=False)
    split = {
        "type": "Split",
        "pattern": {"Regex": Splitter(pattern).regex},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


def from_hf(document: Any) -> Vocabulary:
    """The vocabulary in a parsed `tokenizer.json`.

    Raises:
        FormatError: something is missing, of the wrong kind, or not supported.
    """
    model = _get(document, "model", dict)
    if model.get("type", "BPE") != "BPE":
        raise FormatError(f"a model of type {model.get('type')!r}; only BPE can be read")
    if document.get("normalizer") is not None:
        raise FormatError("the file has a normalizer, which is not supported; remove it")
    for key in (
        "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"
    ):  # fmt: skip
        if model.get(key):
            raise FormatError(f"the model sets {key} = {model[key]!r}, which is not supported")
    special = dict(_added_token(entry) for entry in _get(document, "added_tokens", list, []))
    texts = dict(_get(model, "vocab", dict))
    for name, index in special.items():
        if texts.setdefault(name, index) != index:
            raise FormatError(f"the special token {name!r} has two ids")
    tokens = read_tokens(texts, special)
    ids = {text: index for text, index in texts.items() if text not in special}
    return Vocabulary(
        tokens=tokens,
        merges=[read_merge(entry, ids) for entry in _get(model, "merges", list)],
        special=special,
        pattern=_pattern(document.get("pre_tokenizer")),
        whole_pieces_first=bool(model.get("ignore_merges")),
    )


def _get(document: Any, key: str, kind: type, default: Any = None) -> Any:
    value = document.get(key, default) if isinstance(document, dict) else None
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        raise FormatError(f"not a tokenizer.json: {key!r} is missing or not a {kind.__name__}")
    return value


def _added_token(entry: Any) -> tuple[str, int]:
    name, index = _get(entry, "content", str), _get(entry, "id", int)
    flags = [flag for flag in ("single_word", "lstrip", "rstrip") if entry.get(flag)]
    if flags:
        raise FormatError(f"the added token {name!r} sets {flags[0]}, which is not supported")
    if not entry.get("special"):
        raise FormatError(f"the added token {name!r} is not a special one: not supported")
    return name, index


def read_tokens(texts: dict[str, Any], special: dict[str, int]) -> list[bytes | None]:
    """The bytes of each id, from a mapping of texts in GPT-2's alphabet to ids."""
    size = len(texts)
    tokens: dict[int, bytes] = {}
    for text, index in texts.items():
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise FormatError(f"the token {text!r} has no valid id, but {index!r}")
        if index in tokens:
            raise FormatError(f"two tokens have the id {index}")
        try:
            tokens[index] = text.encode() if text in special else to_bytes(text)
        except KeyError as error:
            raise FormatError(
                f"the token {text!r} holds {error.args[0]!r}, which is no byte; not byte-level"
            ) from None
        except UnicodeEncodeError:
            raise FormatError(f"the token {text!r} holds a lone surrogate") from None
    if max(tokens, default=0) >= 2 * size + 1024:
        raise FormatError(f"the largest id is {max(tokens)}, but there are only {size} tokens")
    return [tokens.get(index) for index in range(max(tokens, default=-1) + 1)]


def read_merge(entry: Any, ids: dict[str, int]) -> tuple[int, int]:
    """The ids of a merge, which is a pair of texts or one text with a space in it."""
    parts = entry.split(" ") if isinstance(entry, str) else entry
    if not isinstance(parts, list) or len(parts) != 2:
        raise FormatError(f"a merge must be a pair of tokens, not {str(entry)[:60]!r}")
    for part in parts:
        if not isinstance(part, str) or part not in ids:
            raise FormatError(f"the merge {str(entry)[:60]!r} names an unknown token")
    return ids[parts[0]], ids[parts[1]]


def _pattern(pre_tokenizer: Any) -> str:
    """The split pattern that a pre-tokenizer stands for."""
    if pre_tokenizer is None:
        raise FormatError("the file has no pre-tokenizer; only ByteLevel is supported")
    steps = (
        _get(pre_tokenizer, "pretokenizers", list)
        if _get(pre_tokenizer, "type", str) == "Sequence"
        else [pre_tokenizer]
    )
    *splits, last = steps or [{}]
    if not isinstance(last, dict) or last.get("type") != "ByteLevel":
        raise FormatError("the pre-tokenizer does not end with ByteLevel; not supported")
    if last.get("add_prefix_space", True):
        raise FormatError("the pre-tokenizer sets add_prefix_space, which is not supported")
    if not splits:
        return "gpt2" if last.get("use_regex", True) else "none"
    split = splits[0]
    if len(splits) > 1 or last.get("use_regex", True) or _get(split, "type", str) != "Split":
        raise FormatError("the pre-tokenizer has more steps than one Split and ByteLevel")
    if split.get("behavior") != "Isolated" or split.get("invert"):
        raise FormatError("the pre-tokenizer's Split is not of the kind 'Isolated'")
    return Splitter(_get(_get(split, "pattern", dict), "Regex", str)).name
