"""Builds the native encoder once and gives it to tests by ctypes."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fllm_export import Runtime
from fllm_export.bundle.bundle import Bundle

SOURCE = Path(__file__).parents[2] / "engines" / "libfllm"
EXAMPLES = Path(__file__).parents[2] / "examples"


class NativeError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ErrorText(ctypes.Structure):
    _fields_ = (("message", ctypes.c_char * 1024),)


class EncoderOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_uint32),
        ("onnxruntime", ctypes.c_char_p),
        ("provider", ctypes.c_char_p),
        ("gpu", ctypes.c_int32),
    )


class Native:
    """libfllm_encoder."""

    Error = NativeError

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.library = ctypes.CDLL(str(prefix / "lib" / "libfllm_encoder.so"))
        self.library.fllm_tokenizer_max_length.restype = ctypes.c_size_t
        self.library.fllm_encoder_tokenizer.restype = ctypes.c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        error = ErrorText()
        status = getattr(self.library, name)(*arguments, ctypes.byref(error))
        if status:
            raise NativeError(status, error.message.decode())

    def tokenizer(self, bundle: Path) -> NativeTokenizer:
        handle = ctypes.c_void_p()
        self.call("fllm_tokenizer_open", os.fsencode(bundle), ctypes.byref(handle))
        return NativeTokenizer(self, handle)

    def encoder(self, bundle: Path, onnxruntime: str, provider: bytes | None = None) -> NativeEncoder:
        handle = ctypes.c_void_p()
        options = EncoderOptions(ctypes.sizeof(EncoderOptions), 1, os.fsencode(onnxruntime), provider, 0)
        self.call("fllm_encoder_open", os.fsencode(bundle), ctypes.byref(options), ctypes.byref(handle))
        return NativeEncoder(self, handle)


def pointers(texts: Sequence[str | bytes]) -> tuple[Any, Any]:
    """The arguments `texts` and `bytes` of the C interface."""
    raw = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return (ctypes.c_char_p * len(raw))(*raw), (ctypes.c_size_t * len(raw))(*map(len, raw))


class NativeTokenizer:
    def __init__(self, native: Native, handle: ctypes.c_void_p) -> None:
        self._native, self._handle = native, handle

    def encode(self, texts: Sequence[str | bytes], stride: int | None = None) -> list[list[int]]:
        stride = stride or self._native.library.fllm_tokenizer_max_length(self._handle)
        ids = np.zeros((len(texts), stride), np.int64)
        lengths = np.zeros(len(texts), np.uintp)
        places = (ctypes.c_void_p(ids.ctypes.data), ctypes.c_void_p(lengths.ctypes.data))
        sizes = (ctypes.c_size_t(len(texts)), ctypes.c_size_t(stride))
        self._native.call("fllm_tokenizer_encode", self._handle, *pointers(texts), *sizes, *places)
        return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]

    def __del__(self) -> None:
        self._native.library.fllm_tokenizer_release(self._handle)


class NativeEncoder:
    def __init__(self, native: Native, handle: ctypes.c_void_p) -> None:
        self._native, self._handle = native, handle

    def encode_texts(self, texts: Sequence[str], dim: int) -> np.ndarray:
        z = np.empty((len(texts), dim), np.float32)
        place = (ctypes.c_size_t(len(texts)), ctypes.c_void_p(z.ctypes.data))
        self._native.call("fllm_encoder_encode_texts", self._handle, *pointers(texts), *place)
        return z

    def encode(self, ids: np.ndarray, lengths: np.ndarray, dim: int) -> np.ndarray:
        z = np.empty((len(ids), dim), np.float32)
        ids, lengths = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(lengths, np.uintp)
        arrays = (ctypes.c_void_p(ids.ctypes.data), ctypes.c_void_p(lengths.ctypes.data))
        sizes = (ctypes.c_size_t(len(ids)), ctypes.c_size_t(ids.shape[1]))
        self._native.call("fllm_encoder_encode", self._handle, *arrays, *sizes, ctypes.c_void_p(z.ctypes.data))
        return z

    def __del__(self) -> None:
        self._native.library.fllm_encoder_release(self._handle)


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="session")
def native_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libfllm and its encoder, built and installed as a distributor would; FLLM_TEST_PREFIX names a finished one."""
    if "FLLM_TEST_PREFIX" in os.environ:
        return Path(os.environ["FLLM_TEST_PREFIX"])
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no cmake or no C++ compiler")
    folder = tmp_path_factory.mktemp("native")
    configure = ["cmake", "-S", SOURCE, "-B", folder / "build", "-DFLLM_ENCODER=ON"]
    configured = subprocess.run(
        [*map(str, configure), f"-DPython_EXECUTABLE={sys.executable}", *header_options()],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "OnnxRuntimeHeaders" in configured.stderr:
        pytest.skip("the headers of ONNX Runtime are not found; set ONNXRUNTIME_INCLUDE_DIR")
    assert configured.returncode == 0, configured.stderr[-3000:]
    run("cmake", "--build", folder / "build", "-j2")
    run("cmake", "--install", folder / "build", "--prefix", folder / "prefix")
    return folder / "prefix"


def header_options() -> list[str]:
    folder = os.environ.get("ONNXRUNTIME_INCLUDE_DIR")
    return [] if folder is None else [f"-DONNXRUNTIME_INCLUDE_DIR={folder}"]


def build(example: str, prefix: Path, folder: Path) -> Path:
    """Build an example against the installed library; skip where it needs a header that is not here."""
    options = [f"-DCMAKE_PREFIX_PATH={prefix}"]
    if example == "cpp_server":
        nlohmann = Path(sys.prefix).glob("lib/python*/site-packages/nlohmann_json/include")
        options += [f"-DNLOHMANN_JSON_INCLUDE_DIR={path}" for path in nlohmann]
    configure = ["cmake", "-S", str(EXAMPLES / example), "-B", str(folder), *options]
    configured = subprocess.run(configure, capture_output=True, text=True, timeout=300, check=False)
    if "HTTPLIB_INCLUDE_DIR" in configured.stderr or "NLOHMANN_JSON_INCLUDE_DIR" in configured.stderr:
        pytest.skip("cpp-httplib or nlohmann-json is not installed (Debian: libcpp-httplib-dev nlohmann-json3-dev)")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(
        ["cmake", "--build", str(folder), "-j2"], capture_output=True, text=True, timeout=900, check=False
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    assert "warning:" not in built.stdout + built.stderr
    return folder


@pytest.fixture(scope="session")
def build_example(native_prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds an example by its folder's name, and gives the folder of its program."""
    return lambda example: build(example, native_prefix, tmp_path_factory.mktemp(example))


@pytest.fixture(scope="session")
def server_program(build_example: Callable[[str], Path]) -> Path:
    return build_example("cpp_server") / "fllm_server"


@pytest.fixture(scope="session")
def runtime(tiny_bundle: Bundle) -> Runtime:
    return Runtime.open(tiny_bundle.path, threads=1)


@pytest.fixture(scope="session")
def native(native_prefix: Path) -> Native:
    return Native(native_prefix)


@pytest.fixture(scope="session")
def onnxruntime_library() -> str:
    """The shared library inside the Python package, so that both sides run the same build."""
    found = importlib.util.find_spec("onnxruntime")
    if found is None or found.origin is None:
        pytest.skip("the package onnxruntime is not installed")
    libraries = sorted((Path(found.origin).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the package onnxruntime holds no shared library")
    return str(libraries[0])
