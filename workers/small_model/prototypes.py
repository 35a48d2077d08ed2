"""The categories and what stands for each: a description, examples, and words that are certain; bundled or a file of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path

import yaml

from orchestrator.errors import ToolError
from workers.small_model.wording import words_of

OTHER, DISCOUNT = "other", "discount"
_KEYS = ("description", "words", "examples")
_NEXT = "The bundled file shows the form: `python -m workers.small_model.prototypes` prints it."
_MOST = 20_000  # examples; each is compared with each item


@dataclass(frozen=True)
class Category:
    """One category; `words` decide alone, `examples` by likeness."""

    name: str
    description: str = ""
    words: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prototypes:
    """All categories, in the order of their file."""

    categories: tuple[Category, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names, with `other`, which every choice has."""
        names = [c.name for c in self.categories]
        return tuple(names if OTHER in names else [*names, OTHER])

    @cached_property
    def known(self) -> frozenset[str]:
        """Every word that stands in an example."""
        return frozenset(w for c in self.categories for text in (*c.words, *c.examples) for w in words_of(text).split())

    @cached_property
    def examples(self) -> tuple[tuple[str, str], ...]:
        """All examples as (words, category), each once."""
        pairs = ((words_of(t, self.known) or t.casefold(), c.name) for c in self.categories for t in (*c.examples, *c.words))
        return tuple(dict.fromkeys(pairs))

    @cached_property
    def category_of(self) -> dict[str, str]:
        """The words that decide alone; one that stands in two categories decides nothing."""
        found: dict[str, set[str]] = {}
        for category in self.categories:
            for text in category.words:
                found.setdefault(words_of(text) or text.casefold(), set()).add(category.name)
        return {words: names.pop() for words, names in found.items() if len(names) == 1}


@lru_cache(maxsize=1)
def bundled() -> Prototypes:
    """The categories that ship with ToolWeaver."""
    return parse(bundled_text(), "prototypes.yaml")


def bundled_text() -> str:
    """The bundled file, for copying."""
    return files("workers.small_model").joinpath("prototypes.yaml").read_text(encoding="utf-8")


def load(path: Path | None) -> Prototypes:
    """The categories of the user's file, or the bundled ones. The file is read anew when it has changed.

    Raises:
        ToolError: `bad_categories_file`, with the line.
    """
    if path is None:
        return bundled()
    try:
        path = path.expanduser()
        return _load(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise _broken(str(path), 0, f"the file of categories cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4)
def _load(path: Path, changed: int) -> Prototypes:  # noqa: ARG001  # a part of the cache's key
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _broken(str(path), 0, "the file of categories is not UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Prototypes:
    """The categories in a YAML or JSON text.

    Raises:
        ToolError: `bad_categories_file`, with the line.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except RecursionError:
        raise _broken(name, 1, "the file of categories cannot be read: it is nested too deeply") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise _broken(name, line, f"the file of categories cannot be read: {error.reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "it is no YAML"
        raise _broken(name, mark.line + 1 if mark else 0, f"the file of categories cannot be read: {what}") from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise _broken(name, 1, "the file of categories holds no categories")
    made = tuple(_category(key, value, name) for key, value in root.value)
    _check(made, root, name)
    return Prototypes(made)


def _category(key: yaml.Node, value: yaml.Node, file: str) -> Category:
    name = _text(key, file, "a category's name")
    if not isinstance(value, yaml.MappingNode):
        raise _broken(file, _line(value), f"`{name}` needs a description and examples")
    fields = {_text(k, file, "a key"): (k, v) for k, v in value.value}
    if len(fields) < len(value.value):
        raise _broken(file, _line(value), f"`{name}` has one of its keys twice")
    for unknown, (node, _) in fields.items():
        if unknown not in _KEYS:
            raise _broken(file, _line(node), f"`{name}` has a key `{unknown}`; a category has {', '.join(_KEYS)}")
    description = _text(fields["description"][1], file, "the description") if "description" in fields else ""
    lists = {k: _texts(fields[k][1], file, f"`{k}` of `{name}`") if k in fields else () for k in _KEYS[1:]}
    return Category(name, description, lists["words"], lists["examples"])


def _check(made: tuple[Category, ...], root: yaml.MappingNode, file: str) -> None:
    seen: set[str] = set()
    for category, (key, _) in zip(made, root.value, strict=True):
        if category.name in seen:
            raise _broken(file, _line(key), f"the category `{category.name}` stands there twice")
        if category.name not in (OTHER, DISCOUNT) and not (category.words or category.examples):
            raise _broken(file, _line(key), f"`{category.name}` has no examples")
        seen.add(category.name)
    if not (count := sum(len(c.words) + len(c.examples) for c in made)):
        raise _broken(file, 1, "the file of categories holds no examples")
    if count > _MOST:
        raise _broken(file, 1, f"the file of categories holds {count} examples; {_MOST} are the limit")


def _texts(node: yaml.Node, file: str, what: str) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise _broken(file, _line(node), f"{what} is a list, such as [coffee, green tea]")
    return tuple(_text(item, file, f"each of {what}") for item in node.value)


def _text(node: yaml.Node, file: str, what: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise _broken(file, _line(node), f"{what} is a text")
    return " ".join(str(node.value).split())


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _broken(file: str, line: int, what: str) -> ToolError:
    return ToolError(what, code="bad_categories_file", path=f"{file}:{line}" if line else file, next=_NEXT)


if __name__ == "__main__":
    print(bundled_text(), end="")  # noqa: T201
