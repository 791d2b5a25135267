"""Turn the indexes of a Debian archive into a data set directory for `fllm-export train`.

Items are source packages, users are their maintainers and uploaders (people and teams). The question is: to which
maintainers would a new package be interesting?

    pip install 'fllm-export[train]'
    python examples/debian_packages.py debian
    fllm-export train debian --out debian.ckpt
    fllm-export evaluate debian.ckpt debian

The indexes are those of apt, as plain text. Without ``--lists`` they are read from /var/lib/apt/lists. To fetch them
without a change to the system, put a `deb` line and a `deb-src` line of your mirror into sources.list in a new folder:

    mkdir -p lists/partial cache/archives/partial
    apt-get -o Dir::Etc::SourceList=$PWD/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$PWD/lists \
      -o Dir::Cache=$PWD/cache -o Acquire::GzipIndexes=false update
    python examples/debian_packages.py debian --lists lists

Names and addresses of people are not written: users are integers. An address is one user, so that a person with two
addresses is two users. Packages whose text contains an address or the name of a maintainer are left out. So are, until
none is left, users with fewer than five packages and packages with fewer than two users.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from movielens_100k import DROPPED, split  # the script beside this one
from pyarrow import parquet

from fllm_export.files import publish

LISTS = Path("/var/lib/apt/lists")
FEWEST_PACKAGES, FEWEST_MAINTAINERS = 5, 2
DESCRIPTIONS = 3
NOBODY = "Debian QA Group"
"""The maintainer of packages that have none."""

PERSON = re.compile(r"\s*,?\s*([^<>]*?)\s*<([^<>]+)>")
ADDRESS = re.compile(r"\S@\S+\.\S")
WORD = re.compile(r"[^\W_]+")


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """Yield the stanzas of an index, their fields by name.

    Indexes use the simplest form of the syntax (no comments, no signatures), so a few lines do without a package.
    """
    fields: dict[str, str] = {}
    name = ""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.strip():
                if fields:
                    yield fields
                fields = {}
            elif line[0] in " \t":
                fields[name] += "\n" + line.strip()
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
    if fields:
        yield fields


def people(source: dict[str, str]) -> dict[str, str]:
    """Return the names of a source package's maintainer and uploaders by address."""
    found = PERSON.findall(f"{source['Maintainer']}, {source.get('Uploaders', '')}")
    return {address.lower(): name.strip('" ') for name, address in found if name.strip('" ') != NOBODY}


def text(source: dict[str, str], binaries: dict[str, dict[str, str]]) -> str:
    """Return the words of the name, up to three short descriptions of binary packages, and the section of the first.

    The binary package of the same name comes first, then those with the shortest names: -dev, -doc and -dbg are last.
    The section of a source package is often only "misc", therefore that of the binary package is used.
    """
    package = source["Package"]
    names = sorted(re.split(r"[,\s]+", source["Binary"]), key=lambda name: (name != package, len(name), name))
    known = [binaries[name] for name in names if name in binaries]
    if not known:
        return ""
    lines = list(dict.fromkeys(binary["Description"].partition("\n")[0].rstrip(".") for binary in known))
    section = known[0].get("Section", "").rpartition("/")[2]
    ending = f". Section: {section}" if section else ""
    return f"{' '.join(WORD.findall(package))}: {'; '.join(lines[:DESCRIPTIONS])}{ending}"


def words(line: str) -> tuple[str, ...]:
    """Return the words of a line in lower case."""
    return tuple(WORD.findall(line.lower()))


def names_somebody(line: str, names: set[tuple[str, ...]], longest: int) -> bool:
    """Tell whether a text contains one of the names, given as words."""
    found = words(line)
    return any(
        found[first : first + length] in names
        for first in range(len(found))
        for length in range(1, min(longest, len(found) - first) + 1)
    )


def read(lists: Path) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Return the text and the maintainers' addresses of each source package."""
    indexes = {kind: sorted(lists.glob(f"*{kind}")) for kind in ("Sources", "Packages")}
    if not all(indexes.values()):
        sys.exit(f"{lists} needs files *Sources and *Packages; the top of this script shows how to fetch them")
    binaries = {
        binary["Package"]: {key: binary[key] for key in ("Description", "Section") if key in binary}
        for path in indexes["Packages"]
        for binary in stanzas(path)
        if "Description" in binary
    }
    sources = {
        source["Package"]: source
        for path in indexes["Sources"]
        for source in stanzas(path)
        if source.get("Extra-Source-Only") != "yes"
    }
    by_package = {package: people(source) for package, source in sources.items()}
    # A name of one word, such as that of a language, says something else in a text of somebody else's package.
    full = {words(name) for found in by_package.values() for name in found.values() if len(words(name)) > 1}
    longest = max(map(len, full), default=1)
    texts, maintainers = {}, {}
    for package, source in sources.items():
        line, found = text(source, binaries), by_package[package]
        names = full | {words(name) for name in found.values()}
        if line and not ADDRESS.search(line) and not names_somebody(line, names, longest):
            texts[package], maintainers[package] = line, set(found)
    return texts, maintainers


def core(maintainers: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out users with too few packages and packages with too few users until there are none."""
    while True:
        counts = Counter(address for found in maintainers.values() for address in found)
        users = {address for address, count in counts.items() if count >= FEWEST_PACKAGES}
        kept = {package: found & users for package, found in maintainers.items()}
        kept = {package: found for package, found in kept.items() if len(found) >= FEWEST_MAINTAINERS}
        if kept == maintainers:
            return kept
        maintainers = kept


def pairs(maintainers: dict[str, set[str]]) -> list[tuple[int, str]]:
    """Return each pair of a user and a package, in order; the ids of users are drawn, so that they say nothing."""
    addresses = sorted(set().union(*maintainers.values()))
    ids = dict(zip(addresses, np.random.default_rng(0).permutation(len(addresses)).tolist(), strict=True))
    return sorted((ids[address], package) for package, found in maintainers.items() for address in found)


def main() -> None:
    """Write ``items.parquet`` and ``interactions.parquet``."""
    parser = argparse.ArgumentParser(description="Write a Debian archive as a data set directory.")
    parser.add_argument("out", type=Path, help="the directory to write")
    parser.add_argument("--lists", type=Path, default=LISTS, help=f"the folder of the indexes; by default {LISTS}")
    options = parser.parse_args()
    texts, maintainers = read(options.lists)
    found = pairs(core(maintainers))
    if not found:
        sys.exit(f"too few maintainers in {options.lists} have {FEWEST_PACKAGES} packages in common with others")
    packages = sorted({package for _, package in found})
    numbers = {package: number for number, package in enumerate(packages)}
    users = np.array([user for user, _ in found])
    items = np.array([numbers[package] for _, package in found])
    names = split(users, items)
    kept = names != DROPPED
    items_table = {"item_id": range(len(packages)), "title": packages, "text": [texts[name] for name in packages]}
    pairs_table = {"user_id": users[kept], "item_id": items[kept], "split": names[kept].tolist()}
    for name, columns in (("items", items_table), ("interactions", pairs_table)):
        with publish(options.out / f"{name}.parquet") as file:
            parquet.write_table(pa.table({key: pa.array(column) for key, column in columns.items()}), file)
    counts = dict(sorted(Counter(names[kept].tolist()).items()))
    print(f"{len(packages)} packages, {len(np.unique(users))} users, {counts} in {options.out}")


if __name__ == "__main__":
    main()
