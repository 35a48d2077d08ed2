"""Code that nobody vouches for, each in a container of its own, from Python alone: no platform, but Docker (docs/sandbox.md)."""

from workers import CodeExecutor

FIBONACCI = """
def fibonacci(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a

print(f"fibonacci({input}) = {fibonacci(input)}")
"""

if __name__ == "__main__":
    with CodeExecutor(timeout=1, max_memory_mb=128) as executor:
        result = executor.execute(FIBONACCI, 10)
        print(result.stdout, end="")
        print(f"took {result.execution_time_ms:.1f} ms")
        for code in ("1 / 0", "import os\nos.remove('/etc/passwd')", "while True: pass"):
            result = executor.execute_safe(code)
            print(f"{result.status}: {result.error}")
