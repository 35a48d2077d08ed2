"""One tool on its way to a vendor: its schema, its name there, and what had to be changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.catalog.render.mapping import NameRule, renamed_properties
from orchestrator.catalog.render.schemas import Notes, Schema, modern, object_root, plain
from orchestrator.models.tool import ToolDefinition, ToolExample


@dataclass(slots=True)
class Draft:
    """`schema` is the input's as 2020-12; `renamed` gives our name of a property by the vendor's."""

    tool: ToolDefinition
    name: str
    schema: Schema
    notes: Notes
    renamed: dict[str, str] = field(default_factory=dict)
    loose: Schema | None = None  # of a strict tool, when all its properties are required: the schema before that

    @classmethod
    def of(cls, tool: ToolDefinition, name: str, keys: NameRule | None = None) -> Draft:
        """A draft with a schema that every vendor takes, but for keywords of its own dislike."""
        notes: Notes = {}
        schema = object_root(modern(tool.input_schema, notes), notes)
        schema, renamed = renamed_properties(schema, keys, notes) if keys else (schema, {})
        return cls(tool, name, schema, notes, renamed)

    def note(self, text: str) -> None:
        """Writes down what was changed and why."""
        self.notes[text] = None

    def examples(self) -> tuple[ToolExample, ...]:
        """The tool's examples under the vendor's names of its properties."""
        if not self.renamed:
            return self.tool.examples
        names = {old: new for new, old in self.renamed.items()}
        given = [{names.get(k, k): v for k, v in e.input.items()} for e in self.tool.examples]
        return tuple(e.model_copy(update={"input": i}) for e, i in zip(self.tool.examples, given, strict=True))

    def described(self, *, examples: bool, longest: int | None = None) -> dict[str, str]:
        """The description as a request's field, none when there is none; as many examples as its length allows."""
        shown = len(self.tool.examples) if examples else 0
        text = self._text(shown)
        while longest and len(text) > longest and shown:
            shown -= 1
            text = self._text(shown)
        if examples and shown < len(self.tool.examples):
            self.note(f"examples: {shown} of {len(self.tool.examples)} fit into {longest} characters of description")
        if longest and len(text) > longest:
            self.note(f"description: cut, the vendor takes {longest} characters")
            text = f"{text[: longest - 3].rstrip()}..."
        return {"description": text} if text else {}

    def _text(self, examples: int) -> str:
        tool = self.tool.model_copy(update={"examples": self.examples()[:examples]}) if self.renamed else self.tool
        said = tool.to_llm_format(include_examples=examples > 0, max_examples=examples)
        return plain(said["description"])
