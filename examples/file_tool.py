"""A tool that takes a file and makes one: `toolweaver up --tools examples/file_tool.py`."""

from orchestrator.catalog.context import ToolContext
from orchestrator.catalog.files import File, Lazy
from orchestrator.catalog.register import register_function


@register_function("shout", effect="none")
def shout(text: File, context: ToolContext) -> str:
    """A text file in capital letters.

    Args:
        text: The text.
    """
    loud = text.read().decode().upper()
    return context.save_file(loud.encode(), name=f"loud-{text.name}")


@register_function("preview", effect="none")
def preview(rows: Lazy[list[str]], wanted: bool = False) -> list[str]:
    """The first three rows, if they are wanted.

    Args:
        rows: All rows; they are fetched only if they are wanted.
    """
    return rows.load()[:3] if wanted else []
