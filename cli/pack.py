"""``fllm-export pack``: a bundle as one file."""

from __future__ import annotations

from pathlib import Path

import click

from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, byte_text, json_option, pass_output


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The new archive, for example bundle.tar."
)
@json_option
@pass_output
def pack(output: Output, bundle: Path, out: Path) -> None:
    """Pack BUNDLE into one tar file, and check the hash of every file.

    The archive includes TensorRT plans, and the ONNX graphs from which they can be built for another GPU. `tar -xf`
    unpacks it.
    """
    from fllm_export.bundle.archive import pack as pack_bundle
    from fllm_export.bundle.bundle import Bundle

    files = pack_bundle(Bundle.load(bundle), out, output.progress)
    size = out.stat().st_size
    output.result({"archive": str(out), "files": files, "bytes": size}, f"{out}: {files} files, {byte_text(size)}")
