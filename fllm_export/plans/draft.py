"""The plans of one call, built aside and moved into the bundle together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fllm_export.engines.tensorrt.library import Library
from fllm_export.engines.tensorrt.plan import RECORDS, RECORDS_VERSION, Plan
from fllm_export.errors import BundleError
from fllm_export.files import publish, publish_json, sync_directory
from fllm_export.manifest import FileEntry, describe_files
from fllm_export.plans.builder import Built, Profile, build_plan
from fllm_export.progress import Progress


class Draft:
    """New files of a bundle, under the names that they get in the end.

    Attributes:
        bundle: directory of the bundle.
        library: what builds.

    Args:
        bundle: directory of the bundle.
        folder: where the new files are kept meanwhile, on the same file system.
        library: what builds.
        progress: told of the builder's phases.
    """

    def __init__(self, bundle: Path, folder: Path, library: Library, progress: Progress) -> None:
        self.bundle, self.library = bundle, library
        self._folder, self._progress = folder, progress

    def path(self, name: str) -> Path:
        """Return where a new file of the bundle lies until it is published."""
        return self._folder / name

    def build(self, model: Path, profiles: Sequence[Profile], target: str, *, tf32: bool = True) -> Built:
        """Build with the timing cache that earlier builds on this GPU left, where the library has one."""
        name = f"head/plans/timing-{self.library.name}-{self.library.version}-{target}.cache"
        caches = [folder / name for folder in (self._folder, self.bundle)]
        known = next((cache.read_bytes() for cache in caches if cache.is_file()), b"")
        built = build_plan(
            self.library, model, profiles, target, timing_cache=known, tf32=tf32, progress=self._progress
        )
        if built.timing_cache:
            self.write(name, built.timing_cache)
        return built

    def write(self, name: str, content: bytes) -> None:
        """Put a file into the draft."""
        with publish(self.path(name)) as file:
            file.write(content)

    def record(self, part: str, known: list[Plan], plans: list[Plan]) -> None:
        """Write the records of a folder; those of plans with other names are kept."""
        names = {plan.file for plan in plans}
        records = sorted([*(plan for plan in known if plan.file not in names), *plans], key=lambda plan: plan.file)
        document = {"format_version": RECORDS_VERSION, "plans": [plan.to_dict() for plan in records]}
        publish_json(self.path(f"{part}/plans/{RECORDS}"), document)

    def publish(self) -> dict[str, FileEntry]:
        """Move everything into the bundle, the records of plans last, and return what the manifest shall say of it.

        Raises:
            BundleError: a file stands where a folder belongs.
        """
        written = describe_files(self._folder)
        for name in sorted(written, key=lambda name: name.endswith(RECORDS)):
            target = self.bundle / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise BundleError(f"{target.parent} is a file", expected="a folder", fix="Remove it") from None
            self.path(name).replace(target)
            sync_directory(target.parent)
        return written
