"""Running a command-line program so that a user's mistake is one line, not a traceback.

    def main() -> None:
        console.run(app, "phi-tokenizer", errors=(TokenizerError,))

phi-infer and phi-train run their programs through the same function. What it promises:

- a wrong option, an error of the package's own, a missing file, a full disk: one line on
  stderr, `phi-tokenizer: error: <thing>: <what is wrong; what to do>`, and an exit code
  that is not 0 (2 for a wrong command line, 1 for the rest);
- standard output is flushed inside the guard, so that `... > /dev/full` counts as an error;
- Ctrl-C gives one line and exit code 130; a reader that goes away (`... | head`) ends the
  program quietly with exit code 141, as the shell's own tools end;
- anything else is a bug in the program and keeps its traceback; `PHI_TRACEBACK=1` shows
  the traceback of the other errors too.

typer is imported only when `run` is called.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

if TYPE_CHECKING:
    import typer

__all__ = ["describe_os_error", "run"]

_REMEDIES = {
    errno.ENOENT: "no such file or folder; check the path",
    errno.EACCES: "permission denied; check who may read or write it",
    errno.EPERM: "permission denied; check who may read or write it",
    errno.EISDIR: "is a folder, not a file; name a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EEXIST: "exists already; choose another name",
    errno.ENOSPC: "no space left on the device; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EFBIG: "the file would grow past the allowed size (ulimit -f); raise the limit",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.EADDRINUSE: "the address is in use; choose another port",
    errno.ENOMEM: "out of memory; use less of it, or close other programs",
}


def run(
    app: typer.Typer,
    program_name: str,
    *,
    errors: tuple[type[Exception], ...] = (),
    args: list[str] | None = None,
) -> NoReturn:
    """Run `app` and leave the process with `SystemExit`.

    Args:
        app: the typer application; a command's return value is not used.
        program_name: the name in usage texts and in front of each message.
        errors: exception types that are the user's mistake; `str(error)` is shown as one line.
        args: the arguments, `sys.argv[1:]` if None.
    """
    import typer  # noqa: PLC0415 (only the programs need it)

    warnings.showwarning = _one_line_warnings(program_name)
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    show_traceback = os.environ.get("PHI_TRACEBACK", "") not in ("", "0")
    code = 0
    try:
        command = typer.main.get_command(app)
        code = _exit_code(command.main(args=args, prog_name=program_name, standalone_mode=False))
        if code == 130:
            _say(program_name, "interrupted")
        if sys.stdout is not None:
            sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        _say(program_name, "interrupted")
        code = 130
    except BrokenPipeError:
        code = 141
    except SystemExit as leave:
        # typer leaves this way, with a code of 1, only for a pipe that was closed
        code = 141 if leave.code == 1 else _exit_code(leave.code)
    except Exception as error:
        if show_traceback:
            raise
        message = _message(error, errors)
        if message is None:
            raise
        text, code = message
        if text:
            _say(program_name, f"error: {text}")
    _leave(code)


def describe_os_error(error: OSError) -> str:
    """One line for an error of the operating system: the file, what is wrong, what to do.

    >>> describe_os_error(FileNotFoundError(errno.ENOENT, "No such file", "corpus.txt"))
    'corpus.txt: no such file or folder; check the path'
    """
    text = _REMEDIES.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__
    if isinstance(error.filename, (str, bytes)):
        return f"{os.fsdecode(error.filename)}: {text}"
    return text


def _message(error: Exception, errors: tuple[type[Exception], ...]) -> tuple[str, int] | None:
    """The line to show and the exit code, or None for what is not the user's mistake."""
    if isinstance(error, errors):
        return str(error) or type(error).__name__, 1
    if isinstance(error, OSError):
        return describe_os_error(error), 1
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); use less of it" if str(error) else "out of memory", 1
    if hasattr(error, "format_message"):  # a wrong command line; typer keeps the class private
        return _usage(error), getattr(error, "exit_code", 2)
    return None


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        help_text = error.format_message()  # empty where rich has printed it already
        if help_text:
            print(help_text, file=sys.stderr)
        return ""
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    return f"{error.format_message().rstrip('.')}{hint}"


def _exit_code(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _say(program_name: str, text: str) -> None:
    line = " ".join(text.split())
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stdout is not None:
            sys.stdout.flush()  # keep the order of what was written before
    with contextlib.suppress(OSError, ValueError):
        print(f"{program_name}: {line}", file=sys.stderr, flush=True)


def _one_line_warnings(program_name: str) -> Any:
    def show(message: Warning | str, *_args: object, **_kwargs: object) -> None:
        _say(program_name, f"warning: {message}")

    return show


def _never_fail_to_encode(stream: TextIO | None) -> None:
    """A terminal that cannot show a character shows its escape instead of ending the program."""
    if stream is not None and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> NoReturn:
    """Exit; output that cannot be written any more must not fail a second time at shutdown."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    sys.exit(code)
