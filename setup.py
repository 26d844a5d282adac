"""Build the C++ engine; all else about the package is in setup.cfg.

The engine is a shared library that knows nothing of Python, one for all versions of it. The network
is compiled once for every instruction set and precision. Where there is no compiler that can do
it, the package is installed without the engine, and runs students in ONNX Runtime.
"""

import configparser
import os
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES = Path("ase_student", "engine", "src")
# Fused multiply-adds change no result by more than rounding; nothing else is left to the compiler.
FLAGS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-pthread",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",
]
# Namespace, name in messages, bytes of a vector, flags.
X86 = [
    ("x86_64_v4", "x86-64-v4", 64, ["-march=x86-64-v4"]),
    ("x86_64_v3", "x86-64-v3", 32, ["-march=x86-64-v3"]),
    ("x86_64_v2", "x86-64-v2", 16, ["-march=x86-64-v2"]),
]
OTHERS = [("baseline", platform.machine(), 16, [])]


class BuildEngine(build_ext):
    """Compile the network several times, and all else once."""

    def get_export_symbols(self, ext):
        """Return none: the library is no Python module, and marks what it exports itself."""
        return []

    def build_extension(self, ext):
        """Compile and link the engine."""
        if self.compiler.compiler_type == "msvc":
            raise CompileError("the C++ engine needs GCC or Clang")
        network = str(SOURCES / "network.cpp")
        others = sorted(str(path) for path in SOURCES.glob("*.cpp") if str(path) != network)
        is_x86 = platform.machine().lower() in ("x86_64", "amd64")
        # Folder, source, macros and flags of each object; those that take longest come first.
        tasks = []
        for namespace, name, width, flags in X86 if is_x86 else OTHERS:
            for precision, real in (("single", "float"), ("double", "double")):
                folder = f"{namespace}_{precision}"
                macros = [
                    ("ASE_NAMESPACE", folder),
                    ("ASE_NAME", f'"{name}"'),
                    ("ASE_REAL", real),
                    ("ASE_VECTOR_BYTES", str(width)),
                ]
                tasks.append((folder, network, macros, [*FLAGS, *flags]))
        tasks += [("common", source, [], FLAGS) for source in others]
        # The compiler runs in processes of its own: threads are enough to wait for them.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            compiled = threads.map(self._compile, *zip(*tasks, strict=True))
            objects = [path for paths in compiled for path in paths]
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        static = ["-static"] if sys.platform == "win32" else []
        self.compiler.link_shared_object(
            objects, str(library), extra_postargs=["-pthread", *static], target_lang="c++"
        )

    def _compile(self, folder, source, macros, flags):
        """Compile one source into a folder of its own, and return the object's path in a list."""
        return self.compiler.compile(
            [source],
            output_dir=str(Path(self.build_temp, folder)),
            macros=macros,
            extra_postargs=flags,
        )


def described():
    """Return the README with absolute links, to files as they are in this version.

    Package indexes show it without the files beside it.
    """
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    url, version = (config["metadata"][key] for key in ("url", "version"))

    def absolute(match):
        target = match[1]
        if "://" in target or target.startswith("#"):
            return match[0]
        kind = "raw" if target.endswith((".png", ".svg")) else "blob"
        return f"]({url}/{kind}/v{version}/{target})"

    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(([^)\s]+)\)", absolute, text)


engine = Extension(
    "ase_student.engine._library",
    sources=sorted(str(path) for path in SOURCES.glob("*.cpp")),
    depends=[str(SOURCES.parent / "ase_student.h"), *map(str, SOURCES.glob("*.h"))],
    language="c++",
    py_limited_api=True,
    # Wheels for others must not lack it because something went wrong.
    optional=os.environ.get("ASE_STUDENT_ENGINE") != "1",
)

# ASE_STUDENT_ENGINE=0 leaves the engine out, for a wheel that any platform can take; with 1, there
# is no wheel without it.
if os.environ.get("ASE_STUDENT_ENGINE") == "0":
    setup(long_description=described())
else:
    setup(
        long_description=described(),
        ext_modules=[engine],
        cmdclass={"build_ext": BuildEngine},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
