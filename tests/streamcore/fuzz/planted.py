"""A step of the walk that reads one byte too many, built on the spot: what a target must find. Not in the package.

`build(directory)` compiles it, `TARGET` names the target, and with PLANTED in the environment of a run that target has
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
LINK = 501  # a link type that there is not
PLANTED = "STREAMCORE_FUZZ_PLANTED"  # the folder of the module

STEP = '''
from streamcore.headers._walk cimport LAYER_CAPTURE, OUTCOME_UNKNOWN, Walk, ends, has, here, register_link, take

cdef void too_far(Walk *walk) noexcept nogil:
    """Looks at the byte behind the packet where the packet's first is 0x45."""
    if has(walk, 1) and here(walk)[0] == 0x45 and here(walk)[walk.end - walk.at] == 0x45:
        ends(walk, OUTCOME_UNKNOWN)
    elif take(walk, LAYER_CAPTURE, 1):
        ends(walk, OUTCOME_UNKNOWN)

register_link(501, too_far)
'''

BUILD = """
import sys, numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
sys.argv = ["setup.py", "-q", "build_ext", "--inplace"]
extension = Extension("planted_step", ["planted_step.pyx"], extra_compile_args={compile!r}, extra_link_args={link!r})
setup(ext_modules=cythonize([extension], include_path=[{source!r}], compiler_directives={{"language_level": 3}}),
      include_dirs=[numpy.get_include(), {source!r}])
"""


def build(directory: Path, sanitize: bool) -> None:
    """Compile the step into directory; sanitize: with AddressSanitizer."""
    (directory / "planted_step.pyx").write_text(STEP)
    flags = ["-O0", "-g0", *["-fsanitize=address"][: int(sanitize)]]  # soon compiled; it runs for a moment
    words = BUILD.format(source=str(SOURCE), compile=flags, link=flags[2:])
    done = subprocess.run([sys.executable, "-c", words], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def plant() -> bool:
    """Import the step if the environment says where it is."""
    folder = os.environ.get(PLANTED)
    if folder:
        sys.path.insert(0, folder)
        import planted_step  # type: ignore[import-not-found]  # noqa: F401
    return bool(folder)
