"""Disassembles the library's objects: only the files of one instruction set may hold its instructions.

A library that is to load on every x86-64 processor must run nothing else before it has looked at the processor. So the
other objects may hold no VEX or EVEX instruction, and the objects of an instruction set no code that runs or is linked
without being asked for: no static initialiser, and no symbol that the linker could pick for another file's.

Usage: baseline_objects_test.py OBJECT...
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ISA_OBJECT = re.compile(r"/kernels/[a-z0-9]+_(?!scalar)\w+\.cpp\.o$")
VECTOR = re.compile(r"v(?!err$|erw$)\w+|k(mov|and|or|x|not|shift|unpck|add|test)\w+")
BIT_MANIPULATION = re.compile(r"andn|bextr|blsi|blsmsk|blsr|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx")
WIDE_OPERAND = re.compile(r"%[yz]mm\d|%k[1-7]\b")
INITIALISER = re.compile(r"\s\.(init_array|ctors|preinit_array)\S*\s")


def output(*command: str) -> list[str]:
    """Return the lines that a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def is_beyond_baseline(mnemonic: str, operands: str) -> bool:
    """Tell whether an instruction needs AVX, AVX-512 or BMI."""
    names = VECTOR.fullmatch(mnemonic) or BIT_MANIPULATION.fullmatch(mnemonic)
    return bool(names or WIDE_OPERAND.search(operands))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return (mnemonic, operands) of every instruction of an object."""
    parts = (line.split("\t") for line in output("objdump", "-d", "--no-show-raw-insn", "--wide", str(path)))
    texts = (part[1].split(maxsplit=1) for part in parts if len(part) > 1 and part[1].strip())
    return [(text[0], text[1] if len(text) > 1 else "") for text in texts]


def faults_of_baseline(path: Path) -> list[str]:
    """Say which instructions an object of all processors should not hold."""
    found = {f"{name} {operands}" for name, operands in instructions(path) if is_beyond_baseline(name, operands)}
    return [f"{path}: '{each}' needs more than the baseline processor" for each in sorted(found)[:3]]


def faults_of_isa(path: Path) -> list[str]:
    """Say what an object of one instruction set should not hold."""
    sections = output("objdump", "-h", str(path))
    faults = [f"{path}: has a static initialiser" for line in sections if INITIALISER.search(line)]
    for line in output("nm", "--defined-only", "--extern-only", "--demangle", str(path)):
        _, kind, name = line.split(maxsplit=2)
        if kind != "T":  # two strong definitions of a function would not link
            faults.append(f"{path}: '{name}' could be linked into other code")
    if not any(is_beyond_baseline(*each) for each in instructions(path)):
        faults.append(f"{path}: holds no instruction beyond the baseline; were its flags lost?")
    return faults


def main(objects: list[Path]) -> int:
    """Print every fault; return the exit code."""
    isa = [path for path in objects if ISA_OBJECT.search(str(path))]
    baseline = [path for path in objects if path not in isa]
    faults = [fault for path in baseline for fault in faults_of_baseline(path)]
    faults += [fault for path in isa for fault in faults_of_isa(path)]
    if not isa or not baseline:
        faults.append(f"found {len(isa)} objects of an instruction set and {len(baseline)} others; expected both")
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
