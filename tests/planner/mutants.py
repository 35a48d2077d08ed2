"""Broken plans made from good ones, and good ones made from good ones: plain data, seeded, and blind to the product.

Nothing of the planner is imported: what is wrong with a mutant is known from how it was made, and where a value or a type
decides, `jsonschema` and the few lines at the end say so.
"""

from __future__ import annotations

import copy
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

Json = dict[str, Any]
KINDS = ("missing tool", "wrong type", "bad reference", "cycle", "rights", "size")
NAMES = ("pear", "kiwi", "plum", "fig", "lime", "date", "nut", "berry", "melon", "olive", "grape", "mango")
LONG_MAP, LONG_PLAN, MANY_STEPS, DEEP = 100_001, (1 << 20) + 1, 5_001, 66  # one beyond each limit of docs/reference/plan.md
_HEAD = re.compile(r"^(step|input):([A-Za-z][\w-]*)|^item(?=$|[.\[])")
_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Mutant:
    """A plan, what was done to it, and how it shows when it is run unchecked.

    `proof`: `fails` (it cannot be entered, or a call fails), `answer` (it ends, and what it answers is null or has a
    placeholder left), `limit` (it breaks a limit of the documentation), `schema` (what the tool publishes refuses it, though a
    lenient tool may read a quoted number all the same), `none` (a good plan).
    """

    kind: str
    base: str
    what: str
    plan: Json
    proof: str = "fails"
    inputs: Json = field(default_factory=dict)
    rules: Json | None = None
    same_answer: bool = False


class Broken:
    """Makes plans that are broken in one place, each known to be so."""

    def __init__(self, bases: Mapping[str, Json], tools: Mapping[str, Json], seed: int) -> None:
        self.bases, self.tools, self.rng = bases, tools, random.Random(seed)

    def plans(self, each: int) -> list[Mutant]:
        """So many mutants of each kind, every way of making one in turn, all different."""
        return [m for kind in KINDS for m in self._of(kind, each)]

    def _of(self, kind: str, number: int) -> list[Mutant]:
        ways = [getattr(self, name) for name in dir(self) if name.startswith(kind.replace(" ", "_") + "__")]
        found: list[Mutant] = []
        seen: set[str] = set()
        for round in range(number * 20):
            base = self.rng.choice(list(self.bases))
            made = self._try(kind, ways[round % len(ways)], base)
            if made is not None and made.what + base not in seen:
                seen.add(made.what + base)
                found.append(made)
            if len(found) == number:
                return found
        raise AssertionError(f"only {len(found)} mutants of kind {kind}")

    def _try(self, kind: str, way: Callable[[Json, Json], Json | None], base: str) -> Mutant | None:
        plan = copy.deepcopy(self.bases[base])
        told = way(plan, {})
        return None if told is None else Mutant(kind, base, **{"plan": plan, **told})

    def _step(self, plan: Json) -> Json:
        return self.rng.choice(plan["steps"])

    # missing tool

    def missing_tool__slip(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        return self._named(step, "tool", _slip(step["tool"], self.rng))

    def missing_tool__other_case(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        words = step["tool"].split("_")
        return self._named(
            step, "tool", self.rng.choice(["".join(w.title() for w in words), "-".join(words), step["tool"].upper()])
        )

    def missing_tool__added_word(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        return self._named(step, "tool", self.rng.choice(["{}_v2", "my_{}", "{}s", "tools.{}", "{}_async"]).format(step["tool"]))

    def missing_tool__invented(self, plan: Json, _: Json) -> Json | None:
        return self._named(self._step(plan), "tool", self.rng.choice(["send_fax", "web_search", "gpt", "x", "ask_human", "python"]))

    def missing_tool__wrapped(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        name = _slip(step["tool"], self.rng)
        if name in self._known():
            return None
        step["input"] = {"name": name, "args": step["input"]}
        step["tool"] = "function_call"
        return {"what": f"{step['id']}: function_call of {name}"}

    def _named(self, step: Json, key: str, name: str) -> Json | None:
        if name in self._known():
            return None
        step[key] = name
        return {"what": f"{step['id']}: {key} {name}"}

    def _known(self) -> set[str]:
        return {n for name, t in self.tools.items() for n in (name, *t["aliases"])}

    # wrong type

    def wrong_type__literal(self, plan: Json, _: Json) -> Json | None:
        step, name, schema = self._argument(plan)
        if name is None or schema is None:
            return None
        wrong = [
            v
            for v in ("many", 3.7, True, [], {}, ["x", 1], {"a": 1}, None, -4000000, "", "step", [[["x"]]])
            if not self._fits(v, schema)
        ]
        if not wrong:
            return None
        step["input"][name] = (value := self.rng.choice(wrong))
        return {"what": f"{step['id']}.{name} = {value!r}"}

    def wrong_type__quoted(self, plan: Json, _: Json) -> Json | None:
        step, name, schema = self._argument(plan)
        if name is None or isinstance(step["input"].get(name), str | dict | list | None):
            return None
        step["input"][name] = (text := str(step["input"][name]))
        return None if self._fits(text, schema) else {"what": f"{step['id']}.{name} = {text!r}", "proof": "schema"}

    def wrong_type__missing(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        required = [n for n in self.tools[step["tool"]]["input"].get("required", ()) if n in step["input"]]
        if not required:
            return None
        del step["input"][(name := self.rng.choice(required))]
        return {"what": f"{step['id']}: {name} left out"}

    def wrong_type__unknown(self, plan: Json, _: Json) -> Json | None:
        step, name, _schema = self._argument(plan)
        if name is None:
            return None
        other = _slip(name, self.rng)
        if other in self.tools[step["tool"]]["input"]["properties"]:
            return None
        step["input"][other] = step["input"].pop(name) if self.rng.random() < 0.5 else 1
        return {"what": f"{step['id']}: argument {other}"}

    def wrong_type__reference(self, plan: Json, _: Json) -> Json | None:
        """A reference that is good in itself, to a value of a type that the argument does not take."""
        at = self._reference(plan, arguments=True)
        if at is None:
            return None
        step, way, text = at
        asked = self._asked(step, way)
        if asked is None:
            return None
        sources = [(t, s, r) for t, s, r in self._offers(plan, step) if not _types(s, r) & _types(*asked)]
        if not sources:
            return None
        other = self.rng.choice(sources)[0]
        _put(step["input"], way, other)
        return {"what": f"{step['id']}.{_spell(way)} = {other} for {text}"}

    def wrong_type__in_list(self, plan: Json, _: Json) -> Json | None:
        """One element of a list, or one field of an object, of the wrong type."""
        places = [
            (s, [n, k])
            for s in plan["steps"]
            for n, v in s["input"].items()
            if isinstance(v, list | dict) and "$literal" not in v
            for k in (range(len(v)) if isinstance(v, list) else list(v))
        ]
        if not places:
            return None
        step, way = self.rng.choice(places)
        value = self.rng.choice([{"deep": [1]}, [[["x"]]], None, False])
        _put(step["input"], way, value)
        whole = step["input"][way[0]]
        bare = _without_references(whole)
        return None if self._fits(bare, self._schema(step, way[0])) else {"what": f"{step['id']}.{_spell(way)} = {value!r}"}

    def wrong_type__input(self, plan: Json, _: Json) -> Json | None:
        """A default of an input, of a type that the argument it becomes does not take."""
        uses = [
            (s, n, v[6:]) for s in plan["steps"] for n, v in s["input"].items() if isinstance(v, str) and re.match(r"input:\w+$", v)
        ]
        if not uses:
            return None
        step, argument, name = self.rng.choice(uses)
        wrong = [v for v in ({"odd": 1}, ["odd"], True, "odd", 12.5, None) if not self._fits(v, self._schema(step, argument))]
        if not wrong:
            return None
        value = self.rng.choice(wrong)
        if self.rng.random() < 0.5:
            plan["inputs"][name] = value
            return {"what": f"inputs.{name} = {value!r}"}
        return {"what": f"given {name} = {value!r}", "inputs": {name: value}}

    def wrong_type__element(self, plan: Json, _: Json) -> Json | None:
        """One item of a list that a map runs over, of the wrong type."""
        maps = [s for s in plan["steps"] if re.match(r"input:\w+$", s.get("map", "")) and "item" in s["input"].values()]
        if not maps:
            return None
        step = self.rng.choice(maps)
        argument = next(n for n, v in step["input"].items() if v == "item")
        wrong = [v for v in ({"odd": 1}, ["odd"], True, "odd", None) if not self._fits(v, self._schema(step, argument))]
        items = plan["inputs"][step["map"][6:]]
        items[(at := self.rng.randrange(len(items)))] = (value := self.rng.choice(wrong))
        return {"what": f"{step['map']}[{at}] = {value!r}"}

    def wrong_type__map(self, plan: Json, _: Json) -> Json | None:
        """A map over what is no list."""
        maps = [s for s in plan["steps"] if "map" in s]
        if not maps:
            return None
        step = self.rng.choice(maps)
        sources = [t for t, s, r in self._offers(plan, step) if not _types(s, r) & {"array", "null"}]
        if not sources:
            return None
        step["map"] = (text := self.rng.choice(sources))
        return {"what": f"{step['id']}: map {text}"}

    def wrong_type__condition(self, plan: Json, _: Json) -> Json | None:
        """A condition that compares what cannot be compared."""
        step = self._step(plan)
        sources = [(t, _types(s, r)) for t, s, r in self._offers(plan, step)]
        text = [t for t, types in sources if types == {"string"}]
        other = [t for t, types in sources if types and types <= {"object", "array"}]
        op = self.rng.choice(["lt", "ge"])
        if text and self.rng.random() < 0.5:
            step["when"] = {"ref": self.rng.choice(text), "op": op, "value": 3}
        elif other:
            step["when"] = {"ref": self.rng.choice(other), "op": op, "value": self.rng.choice([3, "three"])}
        else:
            return None
        return {"what": f"{step['id']}: when {step['when']}"}

    # bad reference

    def bad_reference__step(self, plan: Json, _: Json) -> Json | None:
        at = self._reference(plan, head="step:")
        if at is None:
            return None
        step, way, text = at
        name = re.match(r"step:([\w-]+)", text)[1]  # type: ignore[index]
        other = self.rng.choice([_slip(name, self.rng), name + "2", "nowhere", "step1"])
        if other in {s["id"] for s in plan["steps"]}:
            return None
        _put(step["input"], way, text.replace(name, other, 1))
        return {"what": f"{step['id']}.{_spell(way)}: step {other}"}

    def bad_reference__field(self, plan: Json, _: Json) -> Json | None:
        """A field that the tool does not give."""
        at = self._reference(plan)
        if at is None or at[2].startswith("input:"):
            return None
        step, way, text = at
        known = {t: s for t, s, _ in self._offers(plan, step)}
        heads = [t for t, s, r in self._offers(plan, step) if _types(s, r) == {"object"} and not _free(s, r)]
        if not heads:
            return None
        head = self.rng.choice(heads)
        fields = [t for t in known if t.startswith(head + ".")]
        name = _slip(self.rng.choice(fields).rpartition(".")[2], self.rng) if fields and self.rng.random() < 0.5 else "result"
        if f"{head}.{name}" in known:
            return None
        _put(step["input"], way, f"{head}.{name}")
        return {"what": f"{step['id']}.{_spell(way)} = {head}.{name} for {text}"}

    def bad_reference__into_plain(self, plan: Json, _: Json) -> Json | None:
        """A field or an element of text or of a number."""
        at = self._reference(plan, arguments=True)
        if at is None:
            return None
        step, way, _text = at
        plain = [
            t for t, s, r in self._offers(plan, step) if (k := _types(s, r)) and k <= {"string", "number", "integer", "boolean"}
        ]
        if not plain:
            return None
        other = self.rng.choice(plain) + self.rng.choice([".value", ".text", "[0].x"])
        _put(step["input"], way, other)
        return {"what": f"{step['id']}.{_spell(way)} = {other}"}

    def bad_reference__malformed(self, plan: Json, _: Json) -> Json | None:
        at = self._reference(plan, head="step:")
        if at is None:
            return None
        step, way, text = at
        other = self.rng.choice(
            [text + "..x", text + "[x]", "step:", text.replace("step:", "step: "), text + ".", text + "[", "step:9" + text[5:]]
        )
        _put(step["input"], way, other)
        return {"what": f"{step['id']}.{_spell(way)} = {other!r}"}

    def bad_reference__item(self, plan: Json, _: Json) -> Json | None:
        """`item` where there is no map."""
        plain = [s for s in plan["steps"] if "map" not in s and s["input"]]
        step = self.rng.choice(plain)
        name = self.rng.choice(list(step["input"]))
        step["input"][name] = (text := self.rng.choice(["item", "item.total", "item[0]"]))
        return {"what": f"{step['id']}.{name} = {text}"}

    def bad_reference__map_gone(self, plan: Json, _: Json) -> Json | None:
        """The map taken away from a step that refers to its item."""
        maps = [
            s for s in plan["steps"] if "map" in s and "when" not in s and any(t.startswith("item") for _, t in _texts(s["input"]))
        ]
        if not maps:
            return None
        step = self.rng.choice(maps)
        del step["map"]
        return {"what": f"{step['id']}: no map"}

    def bad_reference__input(self, plan: Json, _: Json) -> Json | None:
        """An input without a value."""
        used = {m[1] for s in plan["steps"] for _, t in _texts([s["input"], s.get("map")]) if (m := re.match(r"input:([\w-]+)", t))}
        names = [n for n in plan["inputs"] if n in used]
        del plan["inputs"][(name := self.rng.choice(names))]
        return {"what": f"input {name} gone"}

    def bad_reference__input_name(self, plan: Json, _: Json) -> Json | None:
        at = self._reference(plan, head="input:", arguments=True)
        if at is None:
            return None
        step, way, text = at
        name = re.match(r"input:([\w-]+)", text)[1]  # type: ignore[index]
        other = text.replace(name, _slip(name, self.rng), 1)
        _put(step["input"], way, other)
        return {"what": f"{step['id']}.{_spell(way)} = {other}"}

    def bad_reference__depends_on(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        name = self.rng.choice(["nobody", _slip(self._step(plan)["id"], self.rng)])
        if name in {s["id"] for s in plan["steps"]}:
            return None
        step["depends_on"] = [*step.get("depends_on", ()), name]
        return {"what": f"{step['id']}: depends_on {name}"}

    def bad_reference__output(self, plan: Json, _: Json) -> Json | None:
        name = re.match(r"step:([\w-]+)", plan["output"])[1]  # type: ignore[index]
        other = self.rng.choice([f"step:{_slip(name, self.rng)}", name, f"step:{name}.nothing_there", "the answer", "input:x"])
        step = next(s for s in plan["steps"] if s["id"] == name)
        if other.removeprefix("step:") in {s["id"] for s in plan["steps"]} and other.startswith("step:"):
            return None
        output = self.tools[step["tool"]]["output"]
        if other.endswith("nothing_there") and "map" not in step and _free(output, output):
            return None
        plan["output"] = other
        return {"what": f"output {other}", "proof": "answer"}

    def bad_reference__synthesis(self, plan: Json, _: Json) -> Json | None:
        inside = self.rng.choice(["steps.nobody", "ocr.text", "step.x", "steps.nobody.total", "result", "answer"])
        plan["final_synthesis"] = {"prompt_template": f"The answer: {{{{{inside}}}}}"}
        return {"what": f"template {inside}", "proof": "answer"}

    def bad_reference__twice(self, plan: Json, _: Json) -> Json | None:
        """Two steps of one name: no reference to it means one of them."""
        one, other = self.rng.sample(plan["steps"], 2)
        other["id"] = one["id"]
        return {"what": f"two steps {one['id']}"}

    # cycle

    def cycle__depends_on(self, plan: Json, _: Json) -> Json | None:
        early, late = self._ordered(plan)
        early["depends_on"] = [*early.get("depends_on", ()), late["id"]]
        return {"what": f"{early['id']} depends_on {late['id']}"}

    def cycle__when(self, plan: Json, _: Json) -> Json | None:
        early, late = self._ordered(plan)
        early["when"] = {"ref": f"step:{late['id']}", "op": "exists"}
        return {"what": f"{early['id']} when {late['id']}"}

    def cycle__input(self, plan: Json, _: Json) -> Json | None:
        early, late = self._ordered(plan)
        if not early["input"]:
            return None
        name = self.rng.choice(list(early["input"]))
        early["input"][name] = f"step:{late['id']}"
        return {"what": f"{early['id']}.{name} = step:{late['id']}"}

    def cycle__map(self, plan: Json, _: Json) -> Json | None:
        early, late = self._ordered(plan)
        if "map" not in early:
            return None
        early["map"] = f"step:{late['id']}"
        return {"what": f"{early['id']} map {late['id']}"}

    def cycle__itself(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        step["depends_on"] = [*step.get("depends_on", ()), step["id"]]
        return {"what": f"{step['id']} depends_on itself"}

    def cycle__added(self, plan: Json, _: Json) -> Json | None:
        """A new circle of two or three steps beside the plan, or through one of its steps."""
        ids = [f"ring{n}" for n in range(self.rng.choice([2, 3, 7]))]
        for n, name in enumerate(ids):
            plan["steps"].append({"id": name, "tool": "count", "input": {"items": [f"step:{ids[n - 1]}"]}})
        self.rng.shuffle(plan["steps"])
        return {"what": f"a ring of {len(ids)} at {[s['id'] for s in plan['steps']]}"}

    def _ordered(self, plan: Json) -> tuple[Json, Json]:
        """A step, and one that waits for it, perhaps by others."""
        pairs = [(a, b) for a in plan["steps"] for b in plan["steps"] if a is not b and a["id"] in _ancestors(plan, b)]
        return self.rng.choice(pairs)

    # rights

    def rights__forbidden(self, plan: Json, _: Json) -> Json | None:
        tool = self._step(plan)["tool"]
        return {
            "what": f"forbidden {tool}",
            "rules": {"forbidden_tools": [self.rng.choice([tool, tool[:-1] + "*", tool[0] + "*"])]},
        }

    def rights__not_listed(self, plan: Json, _: Json) -> Json | None:
        used = sorted({s["tool"] for s in plan["steps"]})
        left_out = self.rng.choice(used)
        return {"what": f"only others than {left_out}", "rules": {"tools": [t for t in used if t != left_out] or ["nothing"]}}

    def rights__caller(self, plan: Json, _: Json) -> Json | None:
        """The tenant may, this caller may not."""
        tool = self._step(plan)["tool"]
        return {"what": f"caller may not {tool}", "rules": {"callers": {"dir*": {"forbidden_tools": [tool]}}}}

    def rights__action(self, plan: Json, _: Json) -> Json | None:
        """A tool that needs what the tenant is not granted."""
        name, given, need = self.rng.choice(
            [("write_file", {"path": "a", "text": "b"}, "filesystem"), ("run_shell", {"text": "ls"}, "shell")]
        )
        self._append(plan, name, given)
        return {
            "what": f"{name} without {need} {len(plan['steps'])}",
            "rules": {"actions": {"filesystem": ["read"], "network": ["https"]}},
        }

    def rights__programs_only(self, plan: Json, _: Json) -> Json | None:
        self._append(plan, "from_programs", {"text": "x"})
        return {"what": f"from_programs as {plan['steps'][-1]['id']}"}

    def rights__other_tenant(self, plan: Json, _: Json) -> Json | None:
        self._append(plan, "acme_only", {"text": "x"})
        return {"what": f"acme_only as {plan['steps'][-1]['id']}"}

    def _append(self, plan: Json, tool: str, given: Json) -> None:
        plan["steps"].append({"id": self.rng.choice(NAMES) + "_more", "tool": tool, "input": given})

    # size

    def size__map(self, plan: Json, _: Json) -> Json | None:
        maps = [s for s in plan["steps"] if re.match(r"input:\w+$", s.get("map", ""))]
        if not maps:
            return None
        name = self.rng.choice(maps)["map"][6:]
        items = [plan["inputs"][name][0]] * (LONG_MAP + self.rng.randrange(9))
        if self.rng.random() < 0.5:
            return {"what": f"{name} given {len(items)} long", "inputs": {name: items}, "proof": "limit"}
        plan["inputs"][name] = [0] * (LONG_MAP + self.rng.randrange(9))
        return {"what": f"{name} {len(plan['inputs'][name])} long", "proof": "limit"}

    def size__steps(self, plan: Json, _: Json) -> Json | None:
        number = MANY_STEPS - len(plan["steps"]) + self.rng.randrange(3)
        plan["steps"] += [{"id": f"more{n}", "tool": "rates"} for n in range(number)]
        return {"what": f"{len(plan['steps'])} steps", "proof": "limit"}

    def size__bytes(self, plan: Json, _: Json) -> Json | None:
        where = self.rng.choice(["description", "input", "step"])
        text = "x" * (LONG_PLAN + self.rng.randrange(1000))
        if where == "description":
            plan["description"] = text
        elif where == "input":
            plan["inputs"]["long"] = text
        else:
            self._append(plan, "note", {"text": text})
        return {"what": f"{len(text)} bytes in {where}", "proof": "limit"}

    def size__deep(self, plan: Json, _: Json) -> Json | None:
        value: Any = "x"
        for _ in range(DEEP + (more := self.rng.randrange(9))):
            value = [value]
        self._append(plan, "count", {"items": value})
        return {"what": f"nested {DEEP + more} deep as {plan['steps'][-1]['id']}", "proof": "limit"}

    def size__setting(self, plan: Json, _: Json) -> Json | None:
        step = self._step(plan)
        key, value = self.rng.choice(
            [
                ("timeout_s", 86_401), ("timeout_s", 1e9), ("timeout_s", 0), ("retry", {"max": 101}), ("retry", {"max": -1}),
                ("retry", {"backoff_s": 3601}), ("retry", {"max_backoff_s": 90_000}), ("id", "x" * 65), ("tool", "t" * 257),
            ]
        )  # fmt: skip
        step[key] = value
        return {"what": f"{step['id'][:9]}: {key} {str(value)[:20]}"}

    def size__long_list(self, plan: Json, _: Json) -> Json | None:
        """A literal list longer than the tool takes, or shorter."""
        tool, name, value = self.rng.choice(
            [("join_texts", "texts", ["x"] * 21), ("join_texts", "texts", []), ("sum_list", "numbers", [1.5] * 26)]
        )
        value = value + value[:1] * self.rng.randrange(4)
        self._append(plan, tool, {name: value})
        return {"what": f"{tool} of {len(value)} as {plan['steps'][-1]['id']}"}

    def size__long_text(self, plan: Json, _: Json) -> Json | None:
        tool, given = self.rng.choice(
            [
                ("split_text", {"text": "x" * 201}),
                ("split_text", {"text": ""}),
                ("join_texts", {"texts": ["a", "b"], "separator": "-----"}),
            ]
        )
        self._append(plan, tool, given)
        return {"what": f"{tool} {str(given)[:40]} as {plan['steps'][-1]['id']}"}

    def size__bounds(self, plan: Json, _: Json) -> Json | None:
        tool, given = self.rng.choice(
            [
                ("matrix", {"rows": 7, "columns": 2}), ("matrix", {"rows": 1, "columns": 2}), ("tree", {"depth": 4}),
                ("grade", {"score": 100.5}), ("grade", {"score": -1}), ("read_value", {"value": 1, "parts": 6}),
                ("draw", {"kind": "circle", "size": 0}), ("compute_tax", {"amount": 1, "tax_rate": 1.01}),
            ]
        )  # fmt: skip
        self._append(plan, tool, given)
        return {"what": f"{tool} {given} as {plan['steps'][-1]['id']}"}

    def size__whole_map(self, plan: Json, _: Json) -> Json | None:
        """All results of a map, more of them than the tool takes; or a result beyond the last."""
        name, number = self.rng.choice(NAMES) + "_list", self.rng.randrange(26, 40)
        plan["inputs"][name] = [1.5] * number
        plan["steps"].append({"id": "many", "tool": "read_value", "input": {"value": "step:odd"}, "map": f"input:{name}"})
        plan["steps"][-1]["input"]["value"] = 3
        if self.rng.random() < 0.5:
            plan["steps"].append({"id": "costs", "tool": "sum_matrix", "input": {"cells": [["item"]]}, "map": f"input:{name}"})
            plan["steps"].append(
                {"id": "summed", "tool": "sum_list", "input": {"numbers": self.rng.choice(["step:costs", "step:costs[*]"])}}
            )
            return {"what": f"sum of {number} results of {name}"}
        plan["steps"].append({"id": "last", "tool": "note", "input": {"text": f"step:many[{number}].text"}})
        return {"what": f"result {number} of {name}"}

    def size__index(self, plan: Json, _: Json) -> Json | None:
        """An element beyond the end of an input's list."""
        lists = [n for n, v in plan["inputs"].items() if isinstance(v, list)]
        if not lists:
            return None
        name = self.rng.choice(lists)
        at = len(plan["inputs"][name]) + self.rng.randrange(3)
        self._append(plan, "count", {"items": [f"input:{name}[{at}]"]})
        return {"what": f"{name}[{at}] as {plan['steps'][-1]['id']}"}

    # what can be chosen from

    def _argument(self, plan: Json) -> tuple[Json, str | None, Json | None]:
        step = self._step(plan)
        name = self.rng.choice(list(step["input"])) if step["input"] else None
        return step, name, self._schema(step, name) if name is not None else None

    def _schema(self, step: Json, name: str) -> Json:
        whole = self.tools[step["tool"]]["input"]
        return {**whole["properties"][name], "$defs": whole.get("$defs", {})}

    def _fits(self, value: Any, schema: Json | None) -> bool:
        return schema is None or Draft202012Validator(schema).is_valid(value)

    def _reference(self, plan: Json, *, head: str = "", arguments: bool = False) -> tuple[Json, list[str | int], str] | None:
        """A reference in the arguments of a step; `arguments`: at the top of one."""
        found = [
            (s, way, text)
            for s in plan["steps"]
            for way, text in _texts(s["input"])
            if _HEAD.match(text) and text.startswith(head) and not (arguments and len(way) > 1)
        ]
        return self.rng.choice(found) if found else None

    def _asked(self, step: Json, way: list[str | int]) -> tuple[Json, Json] | None:
        schema = self.tools[step["tool"]]["input"]
        return _down(schema, schema, way)

    def _offers(self, plan: Json, step: Json) -> list[tuple[str, Json, Json]]:
        """References to values of known type that the step may use without a circle: the reference, its schema, its document."""
        later = {s["id"] for s in plan["steps"] if step["id"] in _ancestors(plan, s)} | {step["id"]}
        found = []
        for other in plan["steps"]:
            output = self.tools[other["tool"]]["output"]
            if other["id"] in later or output is None or "map" in other or "when" in other:
                continue
            found += [(f"step:{other['id']}{p}", s, output) for p, s in _places(output, output, 2)]
        return found


class Good:
    """Makes plans that mean the same, or something else that is as good."""

    def __init__(self, bases: Mapping[str, Json], tools: Mapping[str, Json], seed: int) -> None:
        self.bases, self.tools, self.rng = bases, tools, random.Random(seed)

    def plans(self, number: int) -> list[Mutant]:
        """So many good plans, each changed in two to five ways."""
        ways = [name for name in dir(self) if name.startswith("vary__")]
        return [self._one(list(self.bases)[n % len(self.bases)], ways, n) for n in range(number)]

    def _one(self, base: str, ways: list[str], number: int) -> Mutant:
        plan, inputs, told = copy.deepcopy(self.bases[base]), {}, []
        for name in [ways[number % len(ways)], *self.rng.sample(ways, self.rng.randint(1, 4))]:
            what = getattr(self, name)(plan, inputs)
            told += [what] if what else []
        return Mutant("good", base, "; ".join(told), plan, "none", inputs, None, not any("literal" in t for t in told))

    def vary__ids(self, plan: Json, _: Json) -> str:
        names = {s["id"]: f"{self.rng.choice(NAMES)}{n}{self.rng.choice(['', '-b', '_C'])}" for n, s in enumerate(plan["steps"])}
        _rename(plan, names)
        return "other ids"

    def vary__order(self, plan: Json, _: Json) -> str:
        self.rng.shuffle(plan["steps"])
        return "other order"

    def vary__literals(self, plan: Json, _: Json) -> str | None:
        """Other numbers within what the tool takes."""
        places = [
            (s, n, schema)
            for s in plan["steps"]
            for n, v in s["input"].items()
            if s["tool"] in self.tools and isinstance(v, int | float) and not isinstance(v, bool)
            if (schema := self.tools[s["tool"]]["input"]["properties"].get(n)) and _numbers(schema)
        ]  # fmt: skip
        if not places:
            return None
        step, name, schema = self.rng.choice(places)
        step["input"][name] = self.rng.choice(_numbers(schema))
        return f"literal {step['id']}.{name}"

    def vary__options(self, plan: Json, _: Json) -> str | None:
        """Another one of the options."""
        places = [
            (s, n, schema["enum"])
            for s in plan["steps"] if s["tool"] in self.tools
            for n, v in s["input"].items()
            if isinstance(v, str) and v in (schema := self.tools[s["tool"]]["input"]["properties"].get(n, {})).get("enum", ())
        ]  # fmt: skip
        if not places:
            return None
        step, name, options = self.rng.choice(places)
        if step["tool"] == "convert" and any(s.get("when", {}).get("op") == "in" for s in plan["steps"]):
            return None
        step["input"][name] = self.rng.choice([o for o in options if step["tool"] != "convert" or o in ("EUR", "GBP")])
        return f"literal {step['id']}.{name}"

    def vary__map(self, plan: Json, _: Json) -> str | None:
        """A single call becomes a map of one; what refers to it means its first result."""
        read = plan.get("output", "") + str(plan.get("final_synthesis"))
        single = [
            s for s in plan["steps"]
            if "map" not in s and f":{s['id']}" not in read and f".{s['id']}" not in read and "steps}}" not in read
            and not any(s["id"] in t.get("depends_on", ()) or f"step:{s['id']}" in str(t.get("map")) for t in plan["steps"])
            and not any("map" in t and f"step:{s['id']}" in str(t) for t in plan["steps"])
            and any(isinstance(v, int | float) and not isinstance(v, bool) for v in s["input"].values())
        ]  # fmt: skip
        if not single:
            return None
        step = self.rng.choice(single)
        name = next(n for n, v in step["input"].items() if isinstance(v, int | float) and not isinstance(v, bool))
        made = f"{step['id']}_list"
        plan["inputs"][made] = [step["input"][name]]
        step["input"][name], step["map"] = "item", f"input:{made}"
        _rewrite(plan, lambda t: re.sub(rf"^step:{re.escape(step['id'])}(?=$|[.\[])", f"step:{step['id']}[0]", t))
        return f"map for {step['id']}"

    def vary__added(self, plan: Json, _: Json) -> str:
        """Steps that have nothing to do with the others."""
        for _n in range(self.rng.randint(1, 3)):
            name = f"{self.rng.choice(NAMES)}_{''.join(self.rng.sample(string.ascii_lowercase, 4))}"
            text = self.rng.choice(["all done", "step by step: done", "item. Next", "an input: this", "{curly}"])
            plan["steps"].insert(
                self.rng.randint(0, len(plan["steps"])), {"id": name, "tool": "note", "input": {"text": text, "level": "warn"}}
            )
        return "more steps"

    def vary__condition(self, plan: Json, inputs: Json) -> str | None:
        """A condition that holds."""
        free = [s for s in plan["steps"] if "when" not in s]
        if not free:
            return None
        step = self.rng.choice(free)
        if "run_it" in plan["inputs"] or self.rng.random() < 0.5:
            inputs["run_it"] = plan["inputs"]["run_it"] = True
            step["when"] = self.rng.choice(
                [
                    {"ref": "input:run_it"},
                    {"ref": "input:run_it", "op": "eq", "value": True},
                    {"ref": "input:run_it", "op": "exists"},
                ]
            )
            return f"condition at {step['id']}"
        texts = [t for _, t in _texts(step["input"]) if t.startswith("step:") and "[*]" not in t]
        if not texts:
            return None
        step["when"] = {"ref": self.rng.choice(texts), "op": "exists"}
        return f"condition at {step['id']}"

    def vary__alias(self, plan: Json, _: Json) -> str | None:
        steps = [s for s in plan["steps"] if s["tool"] in self.tools and self.tools[s["tool"]]["aliases"]]
        if not steps:
            return None
        step = self.rng.choice(steps)
        step["tool"] = self.rng.choice(self.tools[step["tool"]]["aliases"])
        return f"alias {step['tool']}"

    def vary__waits(self, plan: Json, _: Json) -> str | None:
        """A wait that is there already, said once more; or one for an earlier step."""
        step = self.rng.choice(plan["steps"])
        before = sorted(_ancestors(plan, step))
        if not before:
            return None
        name = self.rng.choice(before)
        step["depends_on"] = list(dict.fromkeys([*step.get("depends_on", ()), name]))
        return f"{step['id']} waits for {name}"

    def vary__escaped(self, plan: Json, _: Json) -> str | None:
        places = [
            (s, n)
            for s in plan["steps"]
            for n, v in s["input"].items()
            if s["tool"] != "function_call" and v is not None and not list(_references(v))
            and not (isinstance(v, dict) and "$literal" in v)
        ]  # fmt: skip
        if not places:
            return None
        step, name = self.rng.choice(places)
        step["input"][name] = {"$literal": step["input"][name]}
        return f"escaped {step['id']}.{name}"

    def vary__input(self, plan: Json, inputs: Json) -> str | None:
        """A literal becomes an input, with a default or given beside the plan."""
        places = [
            (s, n)
            for s in plan["steps"]
            for n, v in s["input"].items()
            if s["tool"] != "function_call" and isinstance(v, int | float | str) and not (isinstance(v, str) and _HEAD.match(v))
        ]
        if not places:
            return None
        step, name = self.rng.choice(places)
        made = f"in_{len(plan['inputs'])}_{name}"
        (plan["inputs"] if self.rng.random() < 0.5 else inputs)[made] = step["input"][name]
        step["input"][name] = f"input:{made}"
        return f"input {made}"

    def vary__given(self, plan: Json, inputs: Json) -> str:
        """Defaults given beside the plan too, or in their place."""
        for name in list(plan["inputs"]):
            if self.rng.random() < 0.5:
                inputs[name] = plan["inputs"][name] if self.rng.random() < 0.5 else plan["inputs"].pop(name)
        return "inputs given"

    def vary__wrapped(self, plan: Json, _: Json) -> str | None:
        steps = [s for s in plan["steps"] if s["tool"] != "function_call"]
        if not steps:
            return None
        step = self.rng.choice(steps)
        step["input"], step["tool"] = {"name": step["tool"], "args": step["input"]}, "function_call"
        return f"wrapped {step['id']}"

    def vary__settings(self, plan: Json, _: Json) -> str:
        step = self.rng.choice(plan["steps"])
        step |= self.rng.choice(
            [
                {"timeout_s": 60}, {"timeout_s": 0.9e4}, {"retry": {"max": 0}}, {"retry": {"max": 100, "backoff_s": 0}},
                {"on_error": "fail_fast"}, {"on_error": "continue"}, {"on_skip": "skip"}, {"effect": "once"},
                {"retry": {"max": 3, "backoff_s": 1, "max_backoff_s": 9}},
            ]
        )  # fmt: skip
        plan["request_id"] = "r-1"
        return f"settings of {step['id']}"

    def vary__whole(self, plan: Json, _: Json) -> str | None:
        """`[*]` where the whole list is meant anyway."""
        mapped = {s["id"] for s in plan["steps"] if "map" in s}
        plain = [s for s in plan["steps"] if "map" not in s]
        for step in plain:
            for way, text in _texts(step["input"]):
                if text.startswith("step:") and text[5:] in mapped:
                    _put(step["input"], way, text + "[*]")
                    return f"whole {text}"
        return None


# plans


def _texts(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[list[str | int], str]]:
    if isinstance(value, str):
        yield list(way), value
    elif isinstance(value, dict) and set(value) != {"$literal"}:
        for key, inner in value.items():
            yield from _texts(inner, (*way, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _texts(inner, (*way, at))


def _references(value: Any) -> Iterator[str]:
    return (text for _, text in _texts(value) if _HEAD.match(text))


def _put(holder: Any, way: list[str | int], value: Any) -> None:
    for part in way[:-1]:
        holder = holder[part]
    holder[way[-1]] = value


def _spell(way: list[str | int]) -> str:
    return ".".join(map(str, way))


def _named(step: Json) -> set[str]:
    texts = [t for _, t in _texts([step["input"], step.get("map"), step.get("when", {}).get("ref")])]
    return {m[1] for t in texts if (m := re.match(r"step:([\w-]+)", t))} | set(step.get("depends_on", ()))


def _ancestors(plan: Json, step: Json) -> set[str]:
    steps = {s["id"]: s for s in plan["steps"]}
    found: set[str] = set()
    todo = list(_named(step))
    while todo:
        name = todo.pop()
        if name in steps and name not in found:
            found.add(name)
            todo += _named(steps[name])
    return found


def _rewrite(plan: Json, change: Callable[[str], str]) -> None:
    """Every reference of the steps and of the output anew."""
    for step in plan["steps"]:
        for way, text in list(_texts(step["input"])):
            _put(step["input"], way, change(text))
        for holder, key in ((step, "map"), (step.get("when", {}), "ref")):
            if key in holder:
                holder[key] = change(holder[key])
    if "output" in plan:
        plan["output"] = change(plan["output"])


def _rename(plan: Json, names: Mapping[str, str]) -> None:
    _rewrite(plan, lambda t: re.sub(r"^step:([\w-]+)", lambda m: f"step:{names[m[1]]}", t))
    for step in plan["steps"]:
        step["id"] = names[step["id"]]
        if "depends_on" in step:
            step["depends_on"] = [names[n] for n in step["depends_on"]]
    if "final_synthesis" in plan:
        text = plan["final_synthesis"]["prompt_template"]
        plan["final_synthesis"] = {"prompt_template": re.sub(r"\{\{steps\.([\w-]+)", lambda m: "{{steps." + names[m[1]], text)}


def _without_references(value: Any) -> Any:
    """A value whose references are left out, so that what remains is judged."""
    if isinstance(value, dict):
        return {k: _without_references(v) for k, v in value.items() if not (isinstance(v, str) and _HEAD.match(v))}
    return (
        [_without_references(v) for v in value if not (isinstance(v, str) and _HEAD.match(v))] if isinstance(value, list) else value
    )


def _slip(name: str, rng: random.Random) -> str:
    """A name with a slip of the pen."""
    at = rng.randrange(1, max(2, len(name) - 1))
    return rng.choice(
        [
            name[:at] + name[at + 1 :],
            name[:at] + name[at] + name[at:],
            name[: at - 1] + name[at : at + 1] + name[at - 1] + name[at + 1 :],
            name + "x",
        ]
    )


# schemas


def _plain(schema: Any, root: Json) -> list[Any]:
    """The alternatives of a schema without `$ref`, `anyOf` and `oneOf`."""
    if not isinstance(schema, dict):
        return [{}]
    if "$ref" in schema:
        return _plain(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    options = schema.get("anyOf") or schema.get("oneOf")
    return [p for o in options for p in _plain(o, root)] if options else [schema]


def _types(schema: Any, root: Json) -> set[str]:
    """The JSON types of a schema's values; empty: anything."""
    found: set[str] = set()
    for plain in _plain(schema, root):
        if "type" not in plain:
            return set()
        named = plain["type"]
        found |= {named} if isinstance(named, str) else set(named)
    return found | ({"integer"} if "number" in found else set()) | ({"number"} if "integer" in found else set())


def _free(schema: Any, root: Json) -> bool:
    """Whether an object may have fields of any name."""
    return any("properties" not in p or p.get("additionalProperties") for p in _plain(schema, root))


def _down(schema: Any, root: Json, way: list[str | int]) -> tuple[Json, Json] | None:
    for part in way:
        options = [p["properties"][part] for p in _plain(schema, root) if part in p.get("properties", {})]
        options += [p["items"] for p in _plain(schema, root) if isinstance(part, int) and "items" in p]
        if len(options) != 1:
            return None
        schema = options[0]
    return schema, root


def _places(schema: Any, root: Json, deep: int) -> Iterator[tuple[str, Any]]:
    """What lies inside a value, with its path; nothing beneath what may be null."""
    yield "", schema
    plain = _plain(schema, root)
    if deep and len(plain) == 1:
        for name, inner in plain[0].get("properties", {}).items():
            if re.fullmatch(r"\w+", name) and name in plain[0].get("required", ()):
                yield from ((f".{name}{p}", s) for p, s in _places(inner, root, deep - 1))


def _numbers(schema: Json) -> list[Any]:
    """Other values for a plain number within its bounds."""
    if schema.get("type") not in ("number", "integer"):
        return []
    low, high = schema.get("minimum", schema.get("exclusiveMinimum", 0)), schema.get("maximum", 9)
    whole = schema["type"] == "integer"
    return [low + 1, high] if whole else [low + (high - low) * share for share in (0.25, 0.5, 0.75)]


def broken(bases: Mapping[str, Json], tools: Mapping[str, Json], *, each: int = 50, seed: int = 8) -> list[Mutant]:
    """`each` broken plans of each kind."""
    return Broken(bases, tools, seed).plans(each)


def good(bases: Mapping[str, Json], tools: Mapping[str, Json], *, number: int = 300, seed: int = 8) -> list[Mutant]:
    """So many good plans."""
    return Good(bases, tools, seed).plans(number)
