"""How fast is phi-tokenizer beside the others? Writes its section of RESULTS.md.

    python benchmarks/tokenizer.py --stories train.txt

Every figure is a median; all peers of a row are measured in turn, in one process, on one thread,
so that their ratios hold even on a machine that is busy. Exits with 1 when a bar is missed.
Needs: pip install tokenizers tiktoken; measures sentencepiece, gigabpe and snaptokens too where
they are installed.
"""

import argparse
import os

for variable in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gc  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import tokenizer_corpora as corpora  # noqa: E402
import tokenizer_peers as peers  # noqa: E402

from phi_tokenizer import Tokenizer  # noqa: E402

RESULTS = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- tokenizer:begin -->", "<!-- tokenizer:end -->"
OURS = "phi-tokenizer"
SENTENCE = "Once upon a time there was a little girl called Lucy."

TRAIN_BARS = {
    ("stories", 1024): 6.0,
    ("stories", 8192): 5.0,
    ("hard", 1024): 3.0,
    ("hard", 8192): 2.0,
}
ENCODE_BARS = {("stories", 1024): 2.5, ("hard", 8192): 1.2}
"""Against tiktoken, on documents not seen before; the slower of cold and primed counts."""
ENCODED = (("stories", 1024), ("stories", 8192), ("hard", 8192))

SLOW = ("tokenizers", "sentencepiece")
"""Far from any bar, and slow enough to be measured once only when encoding."""

PEAK = """
import resource, sys, time
from phi_tokenizer import Tokenizer
begin = time.perf_counter()
Tokenizer.train_from_files(sys.argv[1], vocab_size=8192)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - begin, peak)
"""


class Report:
    """Collects the lines of the section, and the bars."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[tuple[str, float, str, float, bool]] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)

    def bar(self, what: str, value: float, least: float) -> None:
        self.bars.append((what, value, "at least", least, value >= least))

    def limit(self, what: str, value: float, most: float) -> None:
        self.bars.append((what, value, "at most", most, value <= most))


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, all functions in turn, in another order each time."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            begin = time.perf_counter()
            result = functions[name]()
            times[name].append(time.perf_counter() - begin)
            del result
    return times


def train_section(report: Report, texts: dict[str, list[str]], repeats: int) -> None:
    report.say("### Training, seconds")
    report.say()
    report.say("| corpus | vocabulary | " + OURS + " | tokenizers | others | times tokenizers |")
    report.say("|---|---|---|---|---|---|")
    for (name, vocab_size), least in TRAIN_BARS.items():
        documents = texts[name]
        with peers.scratch() as folder:
            functions = peers.trainers(documents, vocab_size, Path(folder))
            merges = json.loads(Tokenizer.train(documents, vocab_size=vocab_size).to_bytes())
            if merges["model"]["merges"] != peers.hf_merges(documents, vocab_size):
                raise SystemExit(f"{name}/{vocab_size}: the merges differ from HF tokenizers'")
            times = {n: median(t) for n, t in interleaved(functions, repeats).items()}
        ratio = times["tokenizers"] / times[OURS]
        report.bar(f"train {name}/{vocab_size}, times HF tokenizers", ratio, least)
        others = ", ".join(
            f"{n} {t:.3f}" for n, t in times.items() if n not in (OURS, "tokenizers")
        )
        report.say(
            f"| {name} | {vocab_size} | {times[OURS]:.3f} | {times['tokenizers']:.3f} | "
            f"{others} | {ratio:.1f} |"
        )
    report.say()
    report.say(
        "Merges equal to those of HF tokenizers, in order, in each row. gigabpe and sentencepiece "
        "read the corpus as one file; sentencepiece splits it in its own way."
    )
    report.say()


def encode_section(report: Report, texts: dict[str, list[str]], repeats: int) -> None:
    report.say("### Encoding documents to one uint16 array, MB/s")
    report.say()
    report.say(
        "The vocabulary comes from one half of the documents; the other half is encoded. Cold: "
        "nothing was encoded before. Primed: the first half was. Warm: these very documents "
        "were. Cold and primed are documents not seen before. One run of tokenizers and "
        "sentencepiece."
    )
    report.say()
    report.say(
        "| corpus | vocabulary | cache | " + OURS + " | tiktoken | others | times tiktoken |"
    )
    report.say("|---|---|---|---|---|---|---|")
    for name, vocab_size in ENCODED:
        seen, unseen = texts[name][::2], texts[name][1::2]
        megabytes = sum(len(document.encode()) for document in unseen) / 1e6
        with peers.scratch() as folder:
            if "sentencepiece" in peers.versions():
                peers.trainers(seen, vocab_size, Path(folder))["sentencepiece"]()
            tokenizer = Tokenizer.train(seen, vocab_size=vocab_size)
            load = peers.encoders(tokenizer, Path(folder))
            check_ids(load, unseen)
            worst = float("inf")
            for cache in ("cold", "primed", "warm"):
                speeds = {
                    peer: megabytes / seconds
                    for peer, seconds in encode_times(load, cache, seen, unseen, repeats).items()
                }
                ratio = speeds[OURS] / speeds["tiktoken"]
                if cache != "warm":
                    worst = min(worst, ratio)
                others = ", ".join(
                    f"{n} {s:.1f}" for n, s in speeds.items() if n not in (OURS, "tiktoken")
                )
                report.say(
                    f"| {name} | {vocab_size} | {cache} | {speeds[OURS]:.1f} | "
                    f"{speeds['tiktoken']:.1f} | {others} | {ratio:.2f} |"
                )
        if (name, vocab_size) in ENCODE_BARS:
            least = ENCODE_BARS[name, vocab_size]
            report.bar(f"encode unseen {name}/{vocab_size}, times tiktoken", worst, least)
    report.say()


def check_ids(load: dict[str, Callable[[], peers.Encoder]], documents: list[str]) -> None:
    expected = load[OURS]().to_array(documents)
    for peer, fresh in load.items():
        encoder = fresh()
        if encoder.same_ids and not np.array_equal(encoder.to_array(documents), expected):
            raise SystemExit(f"{peer} gives other ids; the comparison would mean nothing")


def encode_times(
    load: dict[str, Callable[[], peers.Encoder]],
    cache: str,
    seen: list[str],
    unseen: list[str],
    repeats: int,
) -> dict[str, float]:
    """Median seconds for the unseen documents; each turn begins with an encoder just loaded."""
    times: dict[str, list[float]] = {name: [] for name in load}
    for turn in range(repeats):
        for name, fresh in load.items():
            if turn and name in SLOW:
                continue
            encoder = fresh()
            if cache != "cold":
                encoder.to_array(seen if cache == "primed" else unseen)
            gc.collect()
            begin = time.perf_counter()
            encoder.to_array(unseen)
            times[name].append(time.perf_counter() - begin)
    return {name: median(values) for name, values in times.items()}


def small_section(report: Report, texts: dict[str, list[str]], repeats: int) -> None:
    tokenizer = Tokenizer.train(texts["stories"], vocab_size=1024)
    tiktoken = peers.tiktoken_encoding(tokenizer)
    with peers.scratch() as folder:
        load = peers.encoders(tokenizer, Path(folder))
        encode = {n: fresh().to_list for n, fresh in load.items() if n != "sentencepiece"}
    for function in encode.values():
        function(SENTENCE)

    def thousand(function: Callable[[str], Any]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(1000):
                function(SENTENCE)

        return call

    times = {
        n: median(t) * 1000
        for n, t in interleaved({n: thousand(f) for n, f in encode.items()}, 9 * repeats).items()
    }
    report.say("### A sentence, and decoding (stories/1024)")
    report.say()
    report.say("| | " + OURS + " | tiktoken | others | times tiktoken |")
    report.say("|---|---|---|---|---|")
    ratio = times["tiktoken"] / times[OURS]
    others = ", ".join(f"{n} {t:.2f}" for n, t in times.items() if n not in (OURS, "tiktoken"))
    report.say(
        f"| encode a sentence of {len(SENTENCE)} characters to a list, µs, warm | "
        f"{times[OURS]:.2f} | {times['tiktoken']:.2f} | {others} | {ratio:.2f} |"
    )
    report.bar("encode one sentence, times tiktoken", ratio, 1.0)

    text = "\n".join(texts["stories"])[:4_000_000]
    array = tokenizer.encode_to_numpy(text)
    ids = array.tolist()
    if not tokenizer.decode(array) == tokenizer.decode(ids) == tiktoken.decode(ids) == text:
        raise SystemExit("decoding does not give the text back")
    decode = interleaved(
        {
            "array": lambda: tokenizer.decode(array),
            "list": lambda: tokenizer.decode(ids),
            "tiktoken": lambda: tiktoken.decode(ids),
        },
        5 * repeats,
    )
    speed = {n: len(text.encode()) / 1e6 / median(t) for n, t in decode.items()}
    for kind, least in (("array", 1.0), ("list", 0.7)):
        ratio = speed[kind] / speed["tiktoken"]
        report.bar(f"decode: {kind} of ids, times tiktoken (a list)", ratio, least)
        report.say(
            f"| decode {len(ids):,} ids, {kind}, MB/s | {speed[kind]:.0f} | "
            f"{speed['tiktoken']:.0f} | | {ratio:.2f} |"
        )
    report.say()


def extreme_section(report: Report, texts: dict[str, list[str]]) -> None:
    tokenizer = Tokenizer.train(texts["stories"], vocab_size=8192)
    rng = np.random.default_rng(0)
    letters = "".join(
        c for c in "".join(texts["stories"])[:2_000_000] if c.isascii() and c.isalpha()
    )
    cases: dict[str, str | bytes] = {
        "one letter": "a" * 1_000_000,
        "spaces": " " * 1_000_000,
        "newlines": "\n" * 1_000_000,
        "random bytes": rng.bytes(1_000_000),
        "CJK": "".join(map(chr, rng.integers(0x4E00, 0x9FFF, 333_333))),
        "emoji": "".join(map(chr, rng.integers(0x1F600, 0x1F64F, 250_000))),
        "English without spaces": letters[:1_000_000],
    }
    report.say("### A megabyte of (stories/8192), seconds to a list of ids")
    report.say()
    report.say("| " + " | ".join(cases) + " |")
    report.say("|" + "---|" * len(cases))
    seconds = []
    for name, case in cases.items():
        encode: Any = tokenizer.encode_bytes if isinstance(case, bytes) else tokenizer.encode
        tokenizer = Tokenizer(tokenizer.vocabulary)
        begin = time.perf_counter()
        ids = encode(case)
        seconds.append(time.perf_counter() - begin)
        raw = case if isinstance(case, bytes) else case.encode()
        if tokenizer.decode_bytes(ids) != raw:
            raise SystemExit(f"{name}: does not come back")
        report.limit(f"1 MB of {name}, s", seconds[-1], 1.0)
    report.say("| " + " | ".join(f"{s:.2f}" for s in seconds) + " |")
    report.say()


def memory_section(report: Report, texts: dict[str, list[str]], size: int) -> None:
    if not size:
        return
    with peers.scratch() as folder:
        path = Path(folder) / "large.txt"
        documents = texts["hard"] + texts["stories"]
        block = "<|endoftext|>".join(documents).encode() + b"<|endoftext|>"
        with path.open("wb") as file:
            for _ in range(-(-size // len(block))):
                file.write(block)
        size = path.stat().st_size
        run = subprocess.run(
            [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
        )
    seconds, peak = map(float, run.stdout.split())
    report.say(
        f"Training on a file of {size / 1e9:.2f} GB (the two corpora again and again), vocabulary "
        f"8192: {seconds:.1f} s, peak memory of the process {peak:.0f} MB."
    )
    report.say()
    report.limit("peak memory, training on a large file, MB", peak, 1000.0)


def machine() -> list[str]:
    """What the figures were taken on."""
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x.split(":")[1].strip() for x in info.read_text().split("\n") if "model name" in x]
        cpu = names[0] if names else cpu
    named = ", ".join(f"{name} {version}" for name, version in peers.versions().items())
    return [
        f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, numpy "
        f"{np.__version__}; {named}.",
        "One thread each (RAYON_NUM_THREADS=1). Encoding and training call no BLAS.",
    ]


def write_section(lines: list[str]) -> None:
    """Replace this benchmark's part of RESULTS.md."""
    section = "\n".join([BEGIN, *lines, END])
    old = RESULTS.read_text("utf-8") if RESULTS.exists() else "# Results\n"
    if BEGIN in old and END in old:
        head, rest = old.split(BEGIN, 1)
        new = head + section + rest.split(END, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    RESULTS.write_text(new, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stories", type=Path, required=True, help="documents, <|endoftext|>")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large-file", type=int, default=1_000_000_000, help="bytes; 0: skip it")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    missing = {"tokenizers", "tiktoken"} - peers.versions().keys()
    if missing:
        print(f"missing: pip install {' '.join(sorted(missing))}", file=sys.stderr)
        return 2

    texts = {"stories": corpora.stories(options.stories), "hard": corpora.hard()}
    report = Report()
    report.say("## Tokenizer")
    report.say()
    for line in machine():
        report.say(line)
    for name, documents in texts.items():
        size = sum(len(document.encode()) for document in documents)
        report.say(f"Corpus {name}: {len(documents):,} documents, {size / 1e6:.1f} MB.")
    absent = [package for package in peers.PACKAGES if package not in peers.versions()]
    if absent:
        report.say(f"Not installed, not measured: {', '.join(absent)}.")
    report.say()
    train_section(report, texts, options.repeats)
    encode_section(report, texts, options.repeats)
    small_section(report, texts, options.repeats)
    extreme_section(report, texts)
    memory_section(report, texts, options.large_file)
    report.say("### Bars")
    report.say()
    report.say("| | measured | bar | |")
    report.say("|---|---|---|---|")
    for what, value, relation, limit, met in report.bars:
        report.say(
            f"| {what} | {value:.2f} | {relation} {limit:g} | {'met' if met else '**missed**'} |"
        )
    command = "python benchmarks/tokenizer.py --stories TinyStories-train.txt"
    report.say()
    report.say(f"Written by `{command}`.")
    if not options.no_write:
        write_section(report.lines)
    return 0 if all(met for *_, met in report.bars) else 1


if __name__ == "__main__":
    sys.exit(main())
