"""Writes unicode_tables.inc: what the `tokenizers` package itself does to every code point.

Its parts were built with several versions of Unicode (regular expressions, normaliser, lower case), none of them
Python's. So the package is asked, code point by code point, and ids stay equal for the newest scripts too.

Run: python generate_unicode_tables.py unicode_tables.inc
"""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODES = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
HANGUL = range(0xAC00, 0xD7A4)
ASIDE = "\u0e01"
"""A letter that nothing composes with, lowers, decomposes or removes."""

Normalize = Callable[[str], str]


def bert(*, clean: bool = False, chinese: bool = False, accents: bool = False, lower: bool = False) -> Normalize:
    """Return a BertNormalizer with these parts of it switched on."""
    return normalizers.BertNormalizer(clean, chinese, accents, lower).normalize_str


def matched(pattern: str) -> list[int]:
    """Return the code points that match a pattern of one character."""
    remove = normalizers.Replace(Regex(pattern), "").normalize_str
    return [code for code in CODES if not remove(chr(code))]


def isolated(splitter: pre_tokenizers.PreTokenizer) -> list[int]:
    """Return the code points that the splitter cuts out as pieces of their own."""
    return [c for c in CODES if len(splitter.pre_tokenize_str(ASIDE + chr(c) + ASIDE)) == 3]


def removed(splitter: pre_tokenizers.PreTokenizer) -> list[int]:
    """Return the code points that the splitter cuts at and drops."""
    return [c for c in CODES if len(splitter.pre_tokenize_str(ASIDE + chr(c) + ASIDE)) == 2]


def lower_case() -> tuple[list[tuple[int, int]], list[int]]:
    """Return (code, lower code) pairs, and the codes that become more than one."""
    pairs, longer = [], []
    lower = bert(lower=True)
    for code in CODES:
        text = lower(chr(code))
        if len(text) != 1:
            longer.append(code)
        elif ord(text) != code:
            pairs.append((code, ord(text)))
    return pairs, longer


def steps(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Pack pairs into runs (first, last, stride, difference) of stride 1 or 2."""
    runs: list[list[int]] = []
    for code, image in pairs:
        difference = image - code
        if runs and runs[-1][3] == difference:
            first, last, stride, _ = runs[-1]
            if code - last == stride or (first == last and code - last in (1, 2)):
                runs[-1][1:3] = [code, code - last]
                continue
        runs.append([code, code, 1, difference])
    return [(first, last, stride, difference) for first, last, stride, difference in runs]


def canonical() -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return the steps (code, first, second) of canonical decomposition: those that compose again, those that do not.

    Raises:
        SystemExit: applied again and again they are not what the package does.
    """
    decompose, compose = normalizers.NFD().normalize_str, normalizers.NFC().normalize_str
    table: dict[int, list[int]] = {}
    for code in CODES:
        fields = unicodedata.decomposition(chr(code)).split()
        if fields and not fields[0].startswith("<") and decompose(chr(code)) != chr(code):
            table[code] = [int(field, 16) for field in fields]

    def full(code: int) -> str:
        return "".join(full(part) for part in table[code]) if code in table else chr(code)

    wrong = [c for c in CODES if c not in HANGUL and decompose(chr(c)) != full(c)]
    if wrong:
        raise SystemExit(f"U+{wrong[0]:04X} decomposes differently")
    both: list[tuple[int, int, int]] = []
    one_way: list[tuple[int, int, int]] = []
    for code, parts in table.items():
        step = (code, parts[0], parts[1] if len(parts) == 2 else 0)
        (both if len(parts) == 2 and compose("".join(map(chr, parts))) == chr(code) else one_way).append(step)
    # What the package composes although it does not take it apart.
    for code in CODES:
        fields = unicodedata.decomposition(chr(code)).split()
        if code in table or len(fields) != 2 or fields[0].startswith("<"):
            continue
        if compose(chr(int(fields[0], 16)) + chr(int(fields[1], 16))) == chr(code):
            raise SystemExit(f"U+{code:04X} composes but does not decompose")
    return both, one_way


def combining_classes() -> list[tuple[int, int]]:
    """Return (code, canonical combining class) where it is not 0, by the order that the package sorts marks into."""
    decompose = normalizers.NFD().normalize_str
    of_class: dict[int, str] = {}
    for code in CODES:
        # The oldest mark of a class, which every version of Unicode knows.
        if unicodedata.decomposition(chr(code)) == "":
            of_class.setdefault(unicodedata.combining(chr(code)), chr(code))
    lowest, highest = of_class[1], of_class[240]
    # Classes whose only mark is younger than the package's Unicode are 0 to it.
    marks = [
        (value, mark)
        for value, mark in sorted(of_class.items())
        if mark == lowest or decompose(mark + lowest) == lowest + mark
    ]
    in_order = "".join(mark for _, mark in marks)
    if decompose(in_order[::-1]) != in_order:
        raise SystemExit("the package sorts marks by other combining classes")
    classes = []
    for code in CODES:
        text = chr(code)
        if decompose(text) != text or text in (lowest, highest):
            continue
        if decompose(text + lowest) == lowest + text or decompose(highest + text) == text + highest:
            # The first class whose mark stays behind this one is its own.
            value = next(value for value, mark in marks if decompose(text + mark) == text + mark)
            classes.append((code, value))
    classes += [(ord(lowest), marks[0][0]), (ord(highest), marks[-1][0])]
    return sorted(classes)


def ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    """Pack codes into runs of neighbours."""
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return [(first, last) for first, last in runs]


def rows_of(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Pack (code, value) pairs into runs (first, last, value)."""
    runs: list[list[int]] = []
    for code, value in pairs:
        if runs and code == runs[-1][1] + 1 and value == runs[-1][2]:
            runs[-1][1] = code
        else:
            runs.append([code, code, value])
    return [(first, last, value) for first, last, value in runs]


def array(kind: str, name: str, rows: Iterable[tuple[int, ...]], comment: str) -> str:
    """Return one C++ array, wrapped at 120 columns."""
    lines, line = [f"// {comment}", f"inline constexpr {kind} {name}[] = {{"], "   "
    for row in rows:
        entry = " {" + ",".join(str(number) for number in row) + "},"
        if len(line) + len(entry) > 120:
            lines.append(line)
            line = "   "
        line += entry
    return "\n".join([*lines, line, "};", ""])


def tables() -> str:
    """Return the file's text."""
    aside = {code: ASIDE + chr(code) + ASIDE for code in CODES}
    clean, strip = bert(clean=True), bert(accents=True)
    decompose = normalizers.NFD().normalize_str
    chinese = bert(chinese=True)
    pairs, longer = lower_case()
    if longer != [0x130]:
        raise SystemExit(f"lower case is longer for {longer}")
    both, one_way = canonical()
    bert_words = pre_tokenizers.BertPreTokenizer()
    removed_codes = [c for c in CODES if clean(aside[c]) == ASIDE * 2]
    ideographs = [c for c in CODES if chinese(chr(c)) == f" {chr(c)} "]
    accents = [c for c in CODES if decompose(chr(c)) == chr(c) and strip(aside[c]) == ASIDE * 2]
    parts = [
        f"// Written by generate_unicode_tables.py from tokenizers {tokenizers.__version__}; do not edit.\n",
        array("CodeRange", "kLetters", ranges(matched(r"\p{L}")), r"\p{L} in regular expressions"),
        array("CodeRange", "kNumbers", ranges(matched(r"\p{N}")), r"\p{N} in regular expressions"),
        array("CodeRange", "kSpaces", ranges(removed(bert_words)), r"white space; also \s in regular expressions"),
        array("CodeRange", "kDigits", ranges(isolated(pre_tokenizers.Digits(True))), "what Digits isolates"),
        array("CodeRange", "kPunctuation", ranges(isolated(bert_words)), "what BertPreTokenizer isolates"),
        array("CodeRange", "kRemoved", ranges(removed_codes), "what clean_text removes"),
        array("CodeRange", "kIdeographs", ranges(ideographs), "what handle_chinese_chars surrounds with spaces"),
        array("CodeRange", "kAccents", ranges(accents), "what strip_accents removes after decomposition"),
        array("CodeStep", "kLowerCase", steps(pairs), "first, last, stride, difference to the lower-case letter"),
        array("CodeValue", "kCombiningClasses", rows_of(combining_classes()), "first, last, canonical combining class"),
        array("CodePair", "kCompositions", both, "canonical decompositions that compose again"),
        array("CodePair", "kDecompositions", one_way, "canonical decompositions that do not (second 0: one character)"),
    ]
    if matched(r"\s") != removed(bert_words):
        raise SystemExit(r"\s and white space are not the same")
    return "\n".join(parts)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.parse_args().output.write_text(tables(), encoding="ascii")


if __name__ == "__main__":
    main()
