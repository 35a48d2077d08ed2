"""What tools there are, found where they are: functions, MCP servers, OpenAPI documents, programs, and what pools announced."""
