"""The native modules, found where they lie, and one table of directives. Everything else is in pyproject.toml."""

import os
from pathlib import Path

from setuptools import Extension, setup

try:
    import numpy
    from Cython.Build import cythonize
except ImportError as error:  # a build without isolation and without the build requirements
    raise SystemExit(
        f"{error.name} is missing: type 'pip install cython numpy', or build with 'pip install .'"
    ) from None

# One build switch turns bounds checks and assertions on everywhere: STREAMCORE_DEBUG=1, as `make debug` sets it.
DEBUG = os.environ.get("STREAMCORE_DEBUG", "0") == "1"

# STREAMCORE_NATIVE=0: `make build` installs the package first, and compiles in a step of its own, which keeps objects.
NATIVE = os.environ.get("STREAMCORE_NATIVE", "1") == "1"

# Every .pyx under src/ is a native module, named as it lies there.
ROOT = Path(__file__).parent
SOURCES = sorted(path.relative_to(ROOT) for path in (ROOT / "src").rglob("*.pyx")) if NATIVE else []

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "overflowcheck": False,
    "embedsignature": True,
    "freethreading_compatible": False,
}

# No -march: the wheels run on every x86-64 and aarch64. What a wider instruction set would gain is found at run time.
COMPILE = ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0", "-DNDEBUG", "-fno-plt"]

# STREAMCORE_SANITIZE=1, as `make fuzz` sets it: every access of native code is checked by AddressSanitizer.
SANITIZE = (
    ["-fsanitize=address", "-fno-omit-frame-pointer", "-O1", "-g1"]
    if os.environ.get("STREAMCORE_SANITIZE") == "1"
    else []
)
COMPILE += SANITIZE
COMPILE += ["-Wno-sign-compare", "-Wno-discarded-qualifiers"]  # of the C that Cython writes
CORES = os.cpu_count() or 1
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("STREAMCORE_DEBUG", "1" if DEBUG else "0")]

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts[1:]),
        [str(source)],
        include_dirs=[numpy.get_include(), "src"],
        extra_compile_args=COMPILE,
        extra_link_args=SANITIZE[:1],
        define_macros=MACROS,
    )
    for source in SOURCES
]

setup(
    ext_modules=cythonize(
        extensions, compiler_directives=DIRECTIVES, include_path=["src"], build_dir="build/cython", nthreads=CORES
    ),
    options={"build_ext": {"parallel": CORES}},
)
