"""``fllm-export pack``: a bundle as one file, as a Docker build context, or as a model repository for Triton."""

from __future__ import annotations

from pathlib import Path

import click

from fllm_export.cli.options import DIRECTORY
from fllm_export.cli.output import Output, byte_text, json_option, pass_output
from fllm_export.counted import counted

_NEW = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=DIRECTORY)
@click.option("-o", "--out", type=_NEW, help="The new archive, for example bundle.tar.")
@click.option("--docker", type=_NEW, help="The new directory of a Docker build context: one Dockerfile per server.")
@click.option("--source", type=DIRECTORY, help="With --docker: a checkout of fllm-export (default: the installed one).")
@click.option("--triton", type=_NEW, help="The new directory of a Triton model repository with the Python backend.")
@click.option("--name", default="users", show_default=True, help="With --triton: the name of the model.")
@json_option
@pass_output
def pack(
    output: Output,
    bundle: Path,
    out: Path | None,
    docker: Path | None,
    source: Path | None,
    triton: Path | None,
    name: str,
) -> None:
    """Pack BUNDLE for another machine, and check the hash of every file.

    Specify one of --out, --docker and --triton. The archive of --out is one tar file; `tar -xf` unpacks it. It includes
    TensorRT plans, and the ONNX graphs from which they can be built for another GPU.
    """
    from fllm_export.bundle.bundle import Bundle

    if sum(target is not None for target in (out, docker, triton)) != 1:
        raise click.UsageError("exactly one of --out, --docker and --triton must be specified.")
    opened = Bundle.load(bundle)
    if out is not None:
        from fllm_export.bundle.archive import pack as pack_bundle

        files = pack_bundle(opened, out, output.progress)
        size = out.stat().st_size
        told = f"{counted(files, 'file')}, {byte_text(size)}"
        output.result({"archive": str(out), "files": files, "bytes": size}, f"{out}: {told}")
    elif docker is not None:
        from fllm_export.packing.docker import DOCKERFILES, pack_docker

        pack_docker(opened, docker, source, output.progress)
        commands = [f"docker build --file {docker / file} {docker}" for file in DOCKERFILES]
        output.result({"docker": str(docker), "dockerfiles": DOCKERFILES}, "\n".join([f"{docker}:", *commands]))
    elif triton is not None:
        from fllm_export.packing.triton import pack_triton

        pack_triton(opened, triton, name=name, progress=output.progress)
        output.result({"triton": str(triton), "model": name}, f"{triton}: tritonserver --model-repository={triton}")
