"""A tool with a worker pool of its own: run it by `toolweaver worker --pool counting --tools examples/pool_tool.py`."""

from pydantic import BaseModel

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.register import tool
from orchestrator.errors import ToolError


class Count(BaseModel):
    """How often each word occurs."""

    words: dict[str, int]
    total: int


@tool(pool="counting", effect="none", timeout_s=30)
def count_words(lines: list[str], context: ToolContext) -> Count:
    """Counts the words of a text.

    Args:
        lines: The text, line by line.
    """
    if not lines:
        raise ToolError("there is no text to count", code="no_text", next="Give at least one line.")
    words: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        context.check()  # a cancelled call stops here
        for word in line.lower().split():
            words[word] = words.get(word, 0) + 1
        context.log("counted", line=number)
    return Count(words=words, total=sum(words.values()))
