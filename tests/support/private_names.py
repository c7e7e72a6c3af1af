"""Private names of other packages in this project's code: those that the next release of a package may take away.

A name is private if a part of its path begins with an underscore (`ray._private`, `torch._C`; `__version__` is not
private), or if it lies in a module that its package does not document. Found are imports, attributes, `getattr` with a
literal, keyword arguments, methods of a superclass, and the same in strings: code for another process, `-m` modules.
An attribute of an object of unknown type (`?._x`) is private unless this project itself defines one of that name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
OURS = ("fbp_ray", "service", "sweeps", "benchmarks")
PACKAGES = (
    "ray",
    "torch",
    "numba",
    "llvmlite",
    "fastapi",
    "starlette",
    "uvicorn",
    "pydantic",
    "pydantic_settings",
    "h5py",
    "httpx",
)
INTERNAL = (
    "ray.core",
    "ray.dashboard",
    "ray.experimental",
    "ray.includes",
    "ray.scripts",
    "ray.train.v2",
    "ray.tune.execution",
    "ray.tune.experiment",
    "ray.tune.impl",
    "numba.core",
    "numba.cpython",
    "numba.misc",
    "numba.np",
    "uvicorn.protocols",
)
"""Modules without an underscore that are not part of the documented interface of their packages."""

_TUPLE = ("_asdict", "_fields", "_make", "_replace")  # what a NamedTuple documents
_IN_TEXT = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")


class Private(NamedTuple):
    """A private name, and where it is used."""

    file: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}"


def private_names(parts: Iterable[str] = OURS, root: Path = ROOT) -> list[Private]:
    """The private names in the Python files of some folders (or files), in order."""
    files = [
        file for part in parts for file in ([root / part] if (root / part).is_file() else (root / part).rglob("*.py"))
    ]
    texts = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in sorted(files)}
    own = set().union(*(_defined(ast.parse(text)) for text in texts.values()))
    return [Private(name, line, path) for name, text in texts.items() for line, path in names_in(text, own)]


def names_in(source: str, own: Collection[str] = ()) -> list[tuple[int, str]]:
    """The private names in a file's text: line and dotted path, each once.

    Args:
        source: the text.
        own: names that other files of this project define.
    """
    tree = ast.parse(source)
    found = set(_Scope(tree, {}, {*own, *_defined(tree), *_TUPLE}).private())
    # `ray._private.worker` contains `ray._private`, and `?._x` is less than `ray.Base._x`: one use, not two.
    return sorted(
        (line, path)
        for line, path in found
        if not any(
            other == line and (more.startswith(f"{path}.") or (more != path and more.endswith(path.removeprefix("?"))))
            for other, more in found
        )
    )


def is_private(path: str) -> bool:
    """Whether a dotted path that begins with one of the packages is private."""
    parts = path.split(".")
    if parts[0] not in PACKAGES:
        return False
    return any(map(_underscored, parts)) or any(path == name or path.startswith(f"{name}.") for name in INTERNAL)


def _underscored(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _defined(tree: ast.AST) -> set[str]:
    """The underscored names that a file gives to functions, variables and attributes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return set(filter(_underscored, names))


_Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class _Scope:
    """A module or a function, and what the names in it stand for.

    Args:
        node: which.
        outer: what the names around it stand for, as dotted paths.
        own: the underscored names that are this project's.
    """

    def __init__(self, node: ast.Module | _Function, outer: Mapping[str, str], own: Collection[str]) -> None:
        self.own = own
        self.nodes = list(_within(node))
        self.meaning = dict(outer)
        if isinstance(node, _FUNCTION):
            for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
                self.meaning.pop(argument.arg, None)
                self._bind(argument.arg, argument.annotation)
        for item in self.nodes:
            if isinstance(item, ast.Import):
                for alias in item.names:
                    top = alias.name.split(".")[0]
                    self.meaning[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(item, ast.ImportFrom) and item.module and not item.level:
                for alias in item.names:
                    self.meaning[alias.asname or alias.name] = f"{item.module}.{alias.name}"
        for _ in range(3):  # an alias of an alias of an alias
            for item in self.nodes:
                self._learn(item)

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.AnnAssign):
            self._bind(node.target, node.value)
            self._bind(node.target, node.annotation)
        elif isinstance(node, ast.NamedExpr):
            self._bind(node.target, node.value)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self._bind(item.optional_vars, item.context_expr)

    def _bind(self, target: ast.expr | str | None, value: ast.expr | None) -> None:
        name = target.id if isinstance(target, ast.Name) else target
        path = self.resolve(value)
        if isinstance(name, str) and path is not None:
            self.meaning.setdefault(name, path)

    def resolve(self, node: ast.expr | None) -> str | None:
        """The dotted path of an expression that begins with one of the packages; of a call, the path that is called."""
        if isinstance(node, ast.Name):
            path = self.meaning.get(node.id)
            return path if path is not None and path.split(".")[0] in PACKAGES else None
        if isinstance(node, ast.Attribute):
            value = self.resolve(node.value)
            return None if value is None else f"{value}.{node.attr}"
        if isinstance(node, ast.Call):
            by_name = _by_name(node)
            if by_name is None:
                return self.resolve(node.func)
            value = self.resolve(by_name[0])
            return None if value is None else f"{value}.{by_name[1]}"
        if isinstance(node, ast.Await | ast.Subscript):
            return self.resolve(node.value)
        return None

    def private(self) -> Iterator[tuple[int, str]]:
        """The private names in the scope and in those within it, with their lines."""
        statements = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}  # docstrings among them
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names if is_private(alias.name))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                paths = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((node.lineno, path) for path in paths if is_private(path))
            elif isinstance(node, ast.Attribute | ast.Call):
                yield from ((node.lineno, path) for path in self._used(node))
            elif isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in statements:
                yield from ((node.lineno, path) for path in _in_text(_text(node)))
            elif isinstance(node, ast.ClassDef):
                yield from self._inherited(node)
            elif isinstance(node, _FUNCTION):
                yield from _Scope(node, self.meaning, self.own).private()

    def _used(self, node: ast.Attribute | ast.Call) -> Iterator[str]:
        """The private names of an attribute or a call, beyond those that its first name stands for."""
        path = self.resolve(node)
        if path is None:
            by_name = _by_name(node)
            name = node.attr if isinstance(node, ast.Attribute) else by_name[1] if by_name else ""
            if _underscored(name) and name not in self.own:
                yield f"?.{name}"
            return
        words = [word.arg for word in node.keywords if word.arg] if isinstance(node, ast.Call) else []
        yield from (f"{path}.{word}" for word in words if _underscored(word))
        known = self.resolve(_root(node)) or ""
        rest = path.removeprefix(known).split(".")
        if is_private(path) and (not is_private(known) or any(map(_underscored, rest))):
            yield path

    def _inherited(self, node: ast.ClassDef) -> Iterator[tuple[int, str]]:
        """What the methods of a class with a base of one of the packages call by `super()`."""
        base = next((path for base in node.bases if (path := self.resolve(base)) is not None), None)
        for item in ast.walk(node) if base is not None else ():
            match item:
                case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name) if _underscored(name):
                    yield item.lineno, f"{base}.{name}"


def _by_name(node: ast.expr) -> tuple[ast.expr, str] | None:
    """The object and the attribute of `getattr(thing, "name")`, and of its kin."""
    match node:
        case ast.Call(
            func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr"),
            args=[thing, ast.Constant(value=str(name)), *_],
        ):
            return thing, name
    return None


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes in a scope, with the functions in it but not what is inside of them."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, _FUNCTION):
            for part in (*child.decorator_list, child.args, *([child.returns] if child.returns else [])):
                yield part
                yield from _within(part)
        else:
            yield from _within(child)


def _root(node: ast.expr) -> ast.expr:
    """What an expression begins with."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Await | ast.Subscript):
        called = _by_name(node)
        follow = node.func if isinstance(node, ast.Call) else node.value
        node = follow if called is None else called[0]
    return node


def _text(node: ast.expr) -> str:
    """What a string says; what an f-string is filled with is not known."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _in_text(text: str) -> Iterator[str]:
    """The private names in a string: those that it spells out, and, if it is code, those in the code."""
    yield from filter(is_private, _IN_TEXT.findall(text))
    if "import" in text:
        try:
            yield from (path for _, path in names_in(text))
        except (SyntaxError, ValueError):
            return


if __name__ == "__main__":
    for use in private_names():
        print(use)
