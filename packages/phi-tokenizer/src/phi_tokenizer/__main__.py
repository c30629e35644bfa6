"""`python -m phi_tokenizer`: the same as the command `phi-tokenizer`."""

from phi_tokenizer.cli import main

main()
