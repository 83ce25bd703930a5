"""The native modules: one list of extensions and one table of directives. Everything else stands in pyproject.toml."""

import os

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

MODULES = [
    "streamcore.aggregate._aggregator",
    "streamcore.disperse._inline",
    "streamcore.disperse._results",
    "streamcore.packets",
    "streamcore.parse._bpf",
    "streamcore.parse._columns",
    "streamcore.parse._flows",
    "streamcore.parse._fragments",
    "streamcore.parse._headers",
    "streamcore.segment._segmenter",
    "streamcore.service._address_table",
    "streamcore.service._address_walk",
    "streamcore.service._anonymise",
    "streamcore.service._count",
    "streamcore.service._dedup",
    "streamcore.service._gather",
    "streamcore.sink._encode",
    "streamcore.sink._send",
    "streamcore.source._records",
    "streamcore.source._ring",
]

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
COMPILE += ["-Wno-sign-compare", "-Wno-discarded-qualifiers"]  # of the C that Cython writes
CORES = os.cpu_count() or 1
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("STREAMCORE_DEBUG", "1" if DEBUG else "0")]

extensions = [
    Extension(
        name,
        [os.path.join("src", *name.split(".")) + ".pyx"],
        include_dirs=[numpy.get_include(), "src"],
        extra_compile_args=COMPILE,
        define_macros=MACROS,
    )
    for name in MODULES
    if NATIVE
]

setup(
    ext_modules=cythonize(
        extensions, compiler_directives=DIRECTIVES, include_path=["src"], build_dir="build/cython", nthreads=CORES
    ),
    options={"build_ext": {"parallel": CORES}},
)
