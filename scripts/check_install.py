#!/usr/bin/env python3
"""Proves that a package works alone: python scripts/check_install.py tokenizer|infer FOLDER

Builds wheels, installs them into an empty virtual environment (siblings from the built wheels
only), looks at what came with them, and uses the result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# package -> (wheels it needs, siblings that must not come with it)
NEEDS = {
    "tokenizer": (["tokenizer"], ["model", "optim", "infer", "train"]),
    "infer": (["tokenizer", "model", "infer"], ["optim", "train"]),
}

LISTING = """
import importlib.metadata, json
print(json.dumps(sorted(d.name.lower() for d in importlib.metadata.distributions())))
"""

USE = {
    "tokenizer": """
from pathlib import Path
from phi_tokenizer import Tokenizer
text = "One day a cat met a cat. " * 50
tokenizer = Tokenizer.train([text], vocab_size=280, special_tokens=["<|endoftext|>"])
tokenizer.save("tokenizer.json")
again = Tokenizer.load("tokenizer.json")
assert again.decode(again.encode(text)) == text
Path("text.txt").write_text(text)
""",
    "infer": """
from phi_model import ModelConfig, build_model, save_checkpoint
from phi_tokenizer import Tokenizer
text = "One day a cat met a cat. " * 50
tokenizer = Tokenizer.train([text], vocab_size=280, special_tokens=["<|endoftext|>"])
config = ModelConfig.preset("gpt-1k", vocab_size=tokenizer.n_vocab)
save_checkpoint("model.phi", build_model(config), tokenizer=tokenizer.to_bytes())
import phi_infer
from phi_infer.formats import read, write
text = phi_infer.load("model.phi").generate("One", max_tokens=20, temperature=0)
assert len(text) > 0
files = {"phi": "again.phi", "safetensors": "hf", "gguf": "model.gguf", "llama2c": "model.bin"}
for to, name in files.items():
    write(read("model.phi"), name, to)
    assert phi_infer.load(name).generate("One", max_tokens=20, temperature=0) == text, to
""",
}

COMMANDS = {
    "tokenizer": ["phi-tokenizer", "encode", "tokenizer.json", "--text", "a cat"],
    "infer": ["phi-infer", "generate", "model.phi", "--prompt", "One day", "--seed", "1"],
}


def run(*command: str | Path, cwd: Path) -> str:
    """The command's standard output; its failure is ours."""
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, check=False, text=True, capture_output=True
    )
    if result.returncode:
        raise SystemExit(f"{command} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def main() -> None:
    """Build, install, look, use."""
    package, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    wheels, forbidden = NEEDS[package]
    dist = folder / "dist"
    for name in wheels:
        source = ROOT / "packages" / f"phi-{name}"
        run(sys.executable, "-m", "build", "--outdir", dist, source, cwd=folder)
    empty = folder / f"empty-{package}"
    venv.create(empty, with_pip=True, clear=True)
    binaries = empty / ("Scripts" if sys.platform == "win32" else "bin")
    built = [str(path) for path in dist.glob("*.whl")]
    run(binaries / "python", "-m", "pip", "install", "-q", *built, cwd=folder)
    installed = json.loads(run(binaries / "python", "-c", LISTING, cwd=folder))
    unwanted = [f"phi-{name}" for name in forbidden if f"phi-{name}" in installed]
    if unwanted:
        raise SystemExit(f"phi-{package} brought {', '.join(unwanted)}")
    run(binaries / "python", "-c", USE[package], cwd=folder)
    output = run(binaries / COMMANDS[package][0], *COMMANDS[package][1:], cwd=folder)
    if not output.strip():
        raise SystemExit(f"{' '.join(COMMANDS[package])} printed nothing")
    print(f"phi-{package} works alone; installed with it: {', '.join(installed)}")


if __name__ == "__main__":
    main()
