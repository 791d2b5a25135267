"""``fllm-export verify``: is every byte as the build left it?"""

from __future__ import annotations

from pathlib import Path

import click

from fllm_export.cli.output import Output, byte_text, json_option, pass_output


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
@pass_output
def verify(output: Output, bundle: Path) -> None:
    """Check every file of BUNDLE against its hash, and the user table against its own rules."""
    from fllm_export.bundle.bundle import Bundle

    opened = Bundle.load(bundle)
    count = opened.verify()
    files = len(opened.manifest.files)
    output.result(
        {"bundle": str(bundle), "files": files, "bytes": count, "intact": True},
        f"{bundle}: {files} files, {byte_text(count)}, all as the manifest says",
    )
