"""What the reference shows: signatures of classes, which `equinox` makes of their fields, and functions
rather than the files that they are named after."""

import ast

import griffe

_FIELDS = ("number", "field")


class Signatures(griffe.Extension):
    """Adds `__init__` where a class has fields and does not write it itself."""

    def on_package(self, *, pkg, **_):
        """Once all modules are read, so that bases are known."""
        self._visit(pkg)
        for name, member in list(pkg.members.items()):
            ours = member.is_alias and member.target_path.startswith(f"{pkg.name}.")
            if ours and not name.startswith("_") and member.target.is_module:
                inside = member.target.members.get(name)
                if inside is not None:
                    pkg.set_member(name, griffe.Alias(name, inside, parent=pkg))

    def _visit(self, part):
        for member in list(part.members.values()):
            if member.is_alias:
                continue
            if member.is_module:
                self._visit(member)
            elif member.is_class:
                fields = list(_fields(member).values())
                written = "__init__" in member.all_members or member.name.startswith("Abstract")
                if fields and not written:
                    member.set_member("__init__", _made_of(fields, member))


def _fields(kind):
    """Its own and its bases', in the order in which they are asked for."""
    found = {}
    for base in [*reversed(kind.mro()), kind]:
        for name, member in base.members.items():
            if member.is_attribute and member.annotation is not None and not _computed(member):
                value = "" if member.value is None else str(member.value)
                if not name.startswith("_") and "init=False" not in value.replace(" ", ""):
                    found[name] = member
    return found


def _computed(member):
    return "property" in member.labels or "AbstractVar" in str(member.annotation)


def _made_of(fields, kind):
    keyword = griffe.ParameterKind.positional_or_keyword
    parameters = [griffe.Parameter("self", kind=keyword)]
    for field in fields:
        parameters.append(
            griffe.Parameter(
                field.name, annotation=field.annotation, kind=keyword, default=_default(field.value)
            )
        )
    return griffe.Function("__init__", parameters=griffe.Parameters(*parameters), parent=kind)


def _default(value):
    """What a user leaves out, of a call that makes a field."""
    if value is None:
        return None
    call = ast.parse(str(value), mode="eval").body
    if not (isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in _FIELDS):
        return str(value)
    named = {word.arg: word.value for word in call.keywords}
    if "default_factory" in named:
        return f"{ast.unparse(named['default_factory'])}()"
    given = [*call.args, *(named[name] for name in ("default",) if name in named)]
    return ast.unparse(given[0]) if given else None
