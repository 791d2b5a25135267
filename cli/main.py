"""The ``fllm-export`` command: its verbs, and the exit code of each kind of failure."""

from __future__ import annotations

from typing import Any

import click

from fllm_export import __version__
from fllm_export.cli.bench import bench
from fllm_export.cli.build import build
from fllm_export.cli.estimate import estimate
from fllm_export.cli.evaluate import evaluate
from fllm_export.cli.info import info
from fllm_export.cli.inspect import inspect
from fllm_export.cli.onboard import onboard
from fllm_export.cli.output import JSON_FLAG, Output
from fllm_export.cli.pack import pack
from fllm_export.cli.plan import plan
from fllm_export.cli.publish import publish
from fllm_export.cli.query import query
from fllm_export.cli.score import score
from fllm_export.cli.serve import serve
from fllm_export.cli.sweep import sweep
from fllm_export.cli.train import train
from fllm_export.cli.users import users
from fllm_export.cli.verify import verify
from fllm_export.errors import BudgetError, BundleError, FllmError, HardwareError, ParityError, UsageError
from fllm_export.system_errors import limit_error, path_error

EXIT_CODES: dict[type[FllmError], int] = {
    UsageError: 2,
    ParityError: 3,
    BundleError: 4,
    BudgetError: 5,
    HardwareError: 6,
}
INTERRUPTED = 130


class Verbs(click.Group):
    """A group that turns every expected failure into one line and its exit code."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options before the verb, and whether failures are to be printed as JSON, those of click included."""
        own = args[: args.index("--")] if "--" in args else args
        output = Output(json=JSON_FLAG in own)
        try:
            return super().make_context(info_name, args, parent, obj=output, **extra)
        except click.UsageError as error:
            _refuse(output, error)
            raise click.exceptions.Exit(error.exit_code) from None

    def invoke(self, context: click.Context) -> Any:
        """Run the verb; a failure that is not expected keeps its traceback and exits with 1."""
        output = context.ensure_object(Output)
        try:
            return super().invoke(context)
        except FllmError as error:
            code = _report(output, error)
        except click.UsageError as error:
            code = error.exit_code
            _refuse(output, error)
        except KeyboardInterrupt:
            code = INTERRUPTED
            fix = "train, build, sweep, score, onboard and evaluate --recommender continue where they stopped"
            output.error("Interrupted", f"interrupted; {fix}", code)
        except Exception as error:
            refused = _refused_by_system(error)
            if refused is None:
                raise
            code = _report(output, refused)
        context.exit(code)


def _report(output: Output, error: FllmError) -> int:
    """Print a failure under the name of the error that it is a kind of, and return that error's exit code."""
    kind = next(base for base in type(error).__mro__ if base in EXIT_CODES)
    output.error(kind.__name__, str(error), EXIT_CODES[kind])
    return EXIT_CODES[kind]


def _refused_by_system(error: Exception) -> FllmError | None:
    """Return the error that stands for a limit of the system, or for a path that it does not take, if one is behind."""
    found = limit_error(error, getattr(error, "filename", None) or "the command")
    return path_error(error) if found is None and isinstance(error, OSError) else found


def _refuse(output: Output, error: click.UsageError) -> None:
    """Print what click says of a command line that it cannot read; without ``--json`` that includes the usage."""
    if not output.json:
        raise error
    output.error("UsageError", error.format_message(), error.exit_code)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fllm-export")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")
@click.pass_context
def main(context: click.Context, quiet: bool) -> None:
    """Serve models whose output vocabulary is every user of a platform.

    `build` makes a bundle from a trained FilterLLM checkpoint. `query` searches the bundle.
    """
    context.ensure_object(Output).quiet = quiet


for verb in (
    estimate,
    build,
    plan,
    query,
    score,
    serve,
    inspect,
    verify,
    pack,
    publish,
    bench,
    sweep,
    info,
    train,
    evaluate,
    onboard,
    users,
):
    main.add_command(verb)
