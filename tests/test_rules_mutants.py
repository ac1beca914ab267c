"""Every comparison of every rule matters: changed, some case of the tables notices.

A mutant is the whole package of rules with one thing changed: a comparison, an `and` or `or`, a
`not`, a whole number, or which of two ends is taken. The tables are played with it in this process.
"""

import ast
import copy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

import pytest

from tests.rulecases import CASES, STANDINGS, STATUSES, Rulebook
from tests.test_rules import summed_up_wrongly, told_wrongly

FOLDER = Path(__file__).parents[1] / "pipeline" / "rules"
#: In the order in which they import one another.
MODULES = (
    "rule",
    "listed",
    "standing",
    "restorable",
    "parts",
    "times",
    "absence",
    "recovery",
    "shards",
)
PACKAGE = "mutated_rules"

#: What a mutant may raise; it is caught by that as well.
ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)

#: Mutants that no case can catch, because they judge the same; each with the reason.
SAME: dict[str, str] = {
    "listed._ends: 0 -> -1": "where all dates are equal, any of them will do",
    "listed.shards: 2 -> 1": "the quick test leaves more to the exact naming",
    "parts.duplicate_part: 2 -> 1": "the quick test passes fewer on to the exact one",
    "times._has_later: max(latest) > limit -> max(latest) >= limit": (
        "the quick test passes more on to the exact one"
    ),
}

OPPOSITES: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ENDS = {"min": "max", "max": "min"}


class Mutant(NamedTuple):
    """`name` tells module, function, and what became of which expression."""

    name: str
    module: str
    tree: ast.Module


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((FOLDER / f"{module}.py").read_text("utf-8"))


def mutated(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that an expression could have been by mistake."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                for other in OPPOSITES[type(operator)]:
                    changed = copy.deepcopy(node)
                    changed.ops[place] = other()
                    yield changed
        case ast.BoolOp():
            other_op: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield ast.BoolOp(other_op, node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Constant(value=int(number)) if not isinstance(node.value, bool):
            yield ast.Constant(number + 1)
            yield ast.Constant(number - 1)
        case ast.Name(id=name) if name in ENDS:
            yield ast.Name(ENDS[name], node.ctx)


def mutants_of(module: str) -> Iterator[Mutant]:
    tree = tree_of(module)
    for node, where in places(tree, "module"):
        for change in mutated(node):
            text = f"{ast.unparse(node)} -> {ast.unparse(change)}"
            yield Mutant(f"{module}.{where}: {text}", module, replaced(tree, node, change))


def places(node: ast.AST, where: str) -> Iterator[tuple[ast.AST, str]]:
    """Every expression below a node, with the function that it stands in."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef | ast.ClassDef) else where
        yield child, inside
        yield from places(child, inside)


def replaced(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    """A copy of the tree with one node in place of another."""
    memo = {id(old): ast.copy_location(new, old)}
    return ast.fix_missing_locations(copy.deepcopy(tree, memo))


def code_of(module: str, mutant: Mutant | None) -> CodeType:
    if mutant is None or mutant.module != module:
        return compiled(module)
    return compile(renamed(mutant.tree), module, "exec")


@cache
def compiled(module: str) -> CodeType:
    return compile(renamed(tree_of(module)), module, "exec")


def renamed(tree: ast.Module) -> ast.Module:
    """A copy of the tree that imports the mutated package's modules instead of the real ones."""
    changed = copy.deepcopy(tree)
    for node in ast.walk(changed):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline.rules."):
            node.module = f"{PACKAGE}.{(node.module or '').rpartition('.')[2]}"
    return changed


def rulebook(mutant: Mutant | None, monkeypatch: pytest.MonkeyPatch) -> Rulebook:
    """The whole package, one of its modules mutated."""
    made: dict[str, ModuleType] = {}
    monkeypatch.setitem(sys.modules, PACKAGE, ModuleType(PACKAGE))
    for name in MODULES:
        made[name] = ModuleType(f"{PACKAGE}.{name}")
        monkeypatch.setitem(sys.modules, f"{PACKAGE}.{name}", made[name])
        exec(code_of(name, mutant), made[name].__dict__)  # noqa: S102 - our own code
    rules = [rule for name in MODULES[3:] for rule in made[name].RULES]
    return Rulebook(
        {rule.rule_id: rule for rule in rules},
        made["listed"].Listed,
        made["standing"].Standing,
        made["standing"].standing,
        made["recovery"].rpo_status,
        made["rule"].listing,
    )


def first_wrong(book: Rulebook) -> str | None:
    """The first case that comes out otherwise than it should."""
    for case in CASES:
        if book.objects(case) != case.objects:
            return f"{case.rule_id}: {case.what}"
    for standing in STANDINGS:
        if book.objects_to_cluster(standing) is not standing.objects:
            return f"{standing.rule_id}: {standing.what}"
    for what, status, fields in STATUSES:
        if book.rpo_status(book.standing(**fields)) is not status:
            return f"status: {what}"
    return summed_up_wrongly(book) or told_wrongly(book)


def is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as patched:
        try:
            return first_wrong(rulebook(mutant, patched)) is not None
        except ERRORS:
            return True


def test_the_package_as_it_is_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else every mutant would be caught by nothing but the way it is made."""
    assert first_wrong(rulebook(None, monkeypatch)) is None


def test_every_module_of_rules_is_mutated() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*MODULES, "__init__"}


@pytest.mark.parametrize("module", MODULES)
def test_every_mutant_is_caught(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutants = list(mutants_of(module))
    survivors = {one.name for one in mutants if not is_caught(one, monkeypatch)}

    assert len(mutants) >= 3
    assert survivors == {name for name in SAME if name.startswith(f"{module}.")}
