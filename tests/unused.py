"""Finds public functions, classes and methods of src/ that nothing but a test uses. Private names are the linter's.

A use is a name in code, outside the definition itself: an attribute, a word of a string that is no docstring (dispatch
by name), or a word that docs, README, examples or bench have as code. An import alone is no use, except where a
package states what is public. What a decorator enters in a table (REGISTERS) is used by who reads the table.
"""

import ast
import re
from collections import defaultdict
from typing import NamedTuple

REGISTERS = {"command", "query"}
WORD = re.compile(r"[A-Za-z_]\w*")
FENCED = re.compile(r"^```.*?^```|^    .*?$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
NATIVE_QUIET = re.compile(r'"""(?:.|\n)*?"""|#.*')  # docstrings and comments of native code
NATIVE_DEFINITION = re.compile(r"^( *)(?:cdef class|class|cpdef [\w\[\], :]*?|def)\s*\b(\w+)\s*[(:]", re.MULTILINE)


class Definition(NamedTuple):
    """A public name, where it is defined, and on which lines."""

    file: str
    name: str
    first: int
    last: int


def unused(sources: dict[str, str], others: dict[str, str], public: set[str]) -> list[str]:
    """`file name` of what nobody uses. sources: file -> text of .py and .pyx; others: docs, examples, bench; public:
    files whose `__all__` states what a user may import."""
    definitions: list[Definition] = []
    uses: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for file, text in sources.items():
        if file.endswith(".py"):
            tree = ast.parse(text)
            definitions += _definitions(file, tree)
            found = _uses(tree, file in public)
        else:
            definitions += [
                Definition(file, match[2], line, line)
                for match in NATIVE_DEFINITION.finditer(text)
                if not match[2].startswith("_")
                for line in [text.count("\n", 0, match.start(2)) + 1]
            ]
            found = _words(NATIVE_QUIET.sub(lambda match: "\n" * match[0].count("\n"), text))
        for name, line in found:
            uses[name].append((file, line))
    spoken = {word for file, text in others.items() for word in WORD.findall(_code(file, text))}
    return sorted(
        f"{one.file} {one.name}"
        for one in definitions
        if one.name not in spoken
        and all(file == one.file and one.first <= line <= one.last for file, line in uses[one.name])
    )


def _definitions(file: str, tree: ast.Module) -> list[Definition]:
    """The public functions and classes of a module, and the public methods of its classes."""
    found = []
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        for one in [node, *inner]:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and _is_looked_for(one):
                found.append(Definition(file, one.name, one.lineno, one.end_lineno or one.lineno))
    return found


def _is_looked_for(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    marks = [one.func for one in node.decorator_list if isinstance(one, ast.Call)]
    registered = any(isinstance(mark, ast.Name) and mark.id in REGISTERS for mark in marks)
    return node.name[0] != "_" and not registered


def _uses(tree: ast.Module, public: bool) -> list[tuple[str, int]]:
    """Every name in use in a module, and its line."""
    quiet = {id(doc) for node in ast.walk(tree) if (doc := _docstring(node)) is not None}
    if not public:
        quiet |= {id(word) for node in tree.body if _is_all(node) for word in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        if id(node) in quiet:
            continue
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.append((name, node.lineno))
            case ast.Constant(value=str(text)):
                found += [(word, node.lineno) for word in WORD.findall(text)]
            case ast.ImportFrom() if public:
                found += [(name.name, node.lineno) for name in node.names]
    return found


def _docstring(node: ast.AST) -> ast.AST | None:
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return body[0].value
    return None


def _is_all(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _words(text: str) -> list[tuple[str, int]]:
    return [(word, line) for line, row in enumerate(text.split("\n"), 1) for word in WORD.findall(row)]


def _code(file: str, text: str) -> str:
    """What of a text is code: all of a program, the code blocks and spans of a page."""
    return "\n".join(FENCED.findall(text)) if file.endswith(".md") else text
