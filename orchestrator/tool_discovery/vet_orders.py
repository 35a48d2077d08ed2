"""Orders to a model that hide in what only describes a tool: found by who is addressed, what is asked, and of what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import yaml

_WINDOW = 320
_STEP = 160
_SHORT = 2_000

_NOT = re.compile(r"(?:\b(?:not|never|cannot|avoid|without|no|neither|nor|instead of|rather than)|n't)\b[^.;:!?]{0,22}$")
_IS_DONE = re.compile(r"\b(?:is|are|be|been|was|were|gets?|being)(?: \w+ly| also| then)? $")
_QUOTES = re.compile(
    r"\b(?:detect|find|flag|block|catch|filter|scan|classif|recogni|such as|e\.g\.|i\.e\.|for example|phrases?|patterns?"
    r"|attempts?|attacks?)"
    r"\w*(?:[^.!?]|e\.g\.){0,60}[\"'`«“][^\"'`]{0,20}$"
)

# Where secrets are. `.pub` is no secret.
_PLACE = re.compile(
    r"\.ssh\b(?!/config)(?![/\\][\w.]*\.pub)|\bid_(?:rsa|ed25519|ecdsa|dsa)\b(?!\.pub)|\bid rsa\b|/etc/(?:passwd|shadow"
    r"|sudoers)|\betc passwd\b"
    r"|\.aws\b|\.netrc\b|\.npmrc\b|\.pypirc\b|\.git-credentials\b|\.kube[/\\]config|\.docker[/\\]config|\.gnupg\b"
    r"|\bmcp\.json\b"
    r"|claude_desktop_config|(?<!\w)\.env\b|\.(?:bash|zsh)_history\b|wallet\.dat|/proc/self/environ|\bkeychain\b"
    r"|\.config[/\\]gcloud"
    r"|169\.254\.169\.254|\bcredentials\.json|\bsecrets?\.(?:ya?ml|json|toml)|\b(?:ssh|private|rsa|gpg|pgp|wallet"
    r"|signing) keys?\b"
    r"|\bseed phrase|\bsession cookies?\b|\b(?:browser|saved|stored) (?:cookies|passwords)\b|\bssh (?:id )?rsa\b"
)
_SECRET = re.compile(
    r"\b(?:api[ _-]?keys?|access[ _-]tokens?|auth(?:entication|orization)?[ _-]tokens?|bearer tokens?|passwords?"
    r"|passphrases?|credentials?"
    r"|secrets?|environment variables?|env vars?|env variables?|system prompt|initial prompt"
    r"|(?:conversation|chat|message|tool[ -]call)s?(?: history|s so far| log| transcript)|(?:entire|whole|full"
    r"|complete) (?:conversation|chat|context|history|prompt)"
    r"|(?:previous|prior|earlier|recent) (?:user )?(?:messages|conversation)|(?:user'?s?|personal|confidential|sensitive"
    r"|private) (?:data|information|details|messages|files|documents|emails)"
    r"|credit card|card numbers?|social security|two-factor codes?|one-time (?:codes?|passwords?)|cookies)\b"
)
_TAKE = (
    r"(?:read|open|cat|load|fetch|get|retrieve|collect|copy|extract|gather|access|find|locate|obtain|grab|view|dump|search"
    r"|ask|request|look (?:up|for|in)|print|list|query)"
)
_GIVE = (
    r"(?:pass|send|include|put|provide|append|attach|forward|upload|post|embed|add|transmit|paste|insert|email|e-mail"
    r"|place|supply|submit"
    r"|give|write|store|save|use|set|encode|share|leak|report|copy|return|exfiltrate|fill|prepend|concatenate|echo|output"
    r"|reveal|disclose|repeat|bcc|cc)"
)
_TAKES = re.compile(rf"\b{_TAKE}\b")
_GIVES = re.compile(rf"\b{_GIVE}\b")
_PASSIVE = re.compile(
    r"\b(?:must|should|shall|need to|needs to|has to|have to|ought to) (?:also |always |first |then )?"
    r"(?:be|contain|hold|include|equal|carry|receive) (?:passed|sent|included|provided|attached|forwarded|uploaded|read"
    r"|copied|added|appended|posted|the)?"
)
_THING = re.compile(
    r"\b(?:it|its|them|their|contents?|results?|values?|outputs?|text|data|that|these|those|everything|file|files|whole"
    r"|full|entire|what you)\b"
)
_INTO = re.compile(
    r"\b(?:parameters?|params?|arguments?|args?|fields?|property|header|query string|sidenote|note|notes|metadata|request"
    r"|body|comment|description|url|link|payload|call|server|endpoint|webhook|attacker|here|below)\b"
    r"|`\w+`|'\w+'|\"\w+\"|https?://|\bas\b|\bto\b|\binto\b"
)
_BEFORE = re.compile(
    r"\b(?:before|prior to|when(?:ever)?|while|after|each time|every time|any ?time|upon|once|if|in order to"
    r"|for)\b[^.!?]{0,50}"
    r"\b(?:us(?:e|ing|ed|age)|call(?:s|ing|ed)?|invok\w+|runn?(?:ing|s)?|execut\w+|making|answer\w*|respon\w+|return\w*"
    r"|proceed\w*|continu\w+|work(?:s|ing)?|security|verification|compliance|audit\w*|access|tools?|functions?|session"
    r"|authenticat\w+|available|conversation)\b"
    r"|\bon (?:every|each) (?:call|request|use|message|turn|invocation)\b|\bregardless\b"
)
_ORDERED = re.compile(
    r"\b(?:you|the (?:assistant|model|agent|ai|llm|client|caller)|assistants?|models?|agents?|ai"
    r"|llms?)\b[^.!?]{0,24}\b(?:must|should|shall|need(?:s)? to|ha(?:ve|s) to|are required|is required|will|ought)\b"
    r"|\b(?:must|always|mandatory|first|otherwise|or else|will not work|won't work|will fail|please|make sure|ensure"
    r"|be sure|remember to|required|necessary|also|silently|quietly|secretly)\b"
)
_AWAY = re.compile(
    r"https?://(?!(?:localhost|127\.0\.0\.1|(?:[\w.-]+\.)?example\.(?:com|org|net))\b)[\w.-]+|\b(?:[\w.-]+ ?(?:@"
    r"|\[at\]) ?[\w-]+\.\w{2,})\b|\b(?:attacker|webhook|remote server|external server|our server)\b"
)

_IGNORE = re.compile(
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|es|ing)|bypass(?:ing)?|supersedes?|abandon"
    r"|discard|do not (?:follow|obey)|stop following|set aside|takes? precedence over)\b"
    r"[^.!?;]{0,36}\b(?:previous|prior|above|earlier|preceding|existing|all|any|other|system|safety|your|the user'?s?"
    r"|original|former|initial|developer)\b"
    r"[^.!?;]{0,30}\b(?:instructions?|prompts?|rules?|guidelines?|directions?|directives?|policy|policies|restrictions?"
    r"|guardrails?|constraints?|training|told)\b"
)
_CLAIMS = re.compile(
    r"\byou are now\b[^.!?]{0,40}\b(?:mode|unrestricted|dan|admin\w*|root|free|jailbroken|authori[sz]ed)\b"
    r"|\b(?:developer|god|debug|admin|dan|unrestricted|maintenance) mode (?:is )?(?:now )?(?:enabled|activated|active)\b"
    r"|\b(?:new|updated|revised|real|actual|hidden|secret) (?:system |developer )?(?:instructions?|directives?"
    r"|orders?)(?: for (?:the )?(?:ai|assistant|model|agent|llm)s?)?\s*:"
    r"|\bsystem (?:override|prompt|message|directive|instruction|notice|command)s?\s*:\s*\w|\b(?:instructions?|notes?"
    r"|messages?|attention|orders) (?:to|for) (?:the |all |any )?(?:ai|assistant|llm|agent|language model|model)s?\b\s*[:,-]"
    r"|\bfrom now on,? (?:you|always|all|every|ignore|do|never|use|send)\b|\byour (?:new|real|true|only) (?:task|goal"
    r"|role|purpose|instructions?|objective)\b"
)
_CONCEAL = re.compile(
    r"(?:\b(?:not|never|without|avoid|refrain from|must not|should not|no need to)|n't)\b(?: \w+){0,2} (?:ever )?"
    r"(?:tell(?:ing)?|mention(?:ing)?|inform(?:ing)?|notify(?:ing)?|let(?:ting)?|alert(?:ing)?|warn(?:ing)?|disclos(?:e"
    r"|ing)|reveal(?:ing)?|explain(?:ing)?|report(?:ing)?|say(?:ing)?|admit|acknowledge|bring up|talk about|surface|expose)\b"
    r"[^.!?;]{0,50}\b(?:users?|humans?|them|anyone|anybody|customers?|operators?|person|people|owner)\b"
    r"|\b(?:not|never|n't|without) (?:mention|mentioning|disclos(?:e|ing)|reveal(?:ing)?|talk about"
    r"|refer to)\b[^.!?;]{0,20}\b(?:this (?:step|instruction|note|tool|parameter|file|rule|part|detail|action|call|to|in)"
    r"|these (?:steps|instructions|rules|notes)|that you|you (?:first|need|have|read|did))"
    r"|\b(?:keep|hide|conceal)\b[^.!?;]{0,40}\b(?:from|hidden from|secret from) (?:the )?(?:users?|humans?|them"
    r"|customers?|operators?)\b"
    r"|\b(?:users?|humans?|customers?|operators?) (?:must|should|does|do|shall|will|can|need|may)(?:n't| not| never"
    r"|not)(?: \w+)? (?:know|see|notice|be (?:told|informed|aware|notified|shown)|find out|learn|hear|realize)\b"
    r"|\b(?:silently|secretly|covertly|quietly|discreetly|invisibly)\b[^.!?;]{0,40}\b(?:send|forward|upload|copy|read"
    r"|include|call|invoke|execute|transmit|add|attach|append|bcc)\b"
    r"|\b(?:send|forward|upload|transmit|bcc)\b[^.!?;]{0,50}\b(?:silently|secretly|covertly|discreetly|invisibly)\b"
)
_PRESENT = re.compile(
    r"\b(?:when(?:ever)?|if|while|once|as long as|since|because)\b (?:this|the|our) (?:tool|server|plugin|mcp\w*|function"
    r"|integration)[^.!?]{0,20}\b(?:is|are|was) (?:\w+ )?(?:available|present|installed|loaded|connected|enabled|active"
    r"|listed)"
)
_OTHERS = re.compile(
    r"\b(?:other|another|any|every|all|each)(?: \w+)? (?:tools?|functions?|servers?)\b|\b(?:send|create|transfer|make|pay"
    r"|post|write|get|list|read|delete|update|execute|run|forward|mcp|fetch|search)_\w+|\b(?:e-?mails?|messages?"
    r"|payments?|transfers?|transactions?|invoices?|orders?|requests?|commits?|pull requests?|code|outputs?|results"
    r"|responses?|data) (?:tool|sent|you)\b|\b(?:all|every) (?:the )?(?:code|files?)\b|\ball (?:outgoing |future "
    r"|user )?(?:e-?mails?|messages?|payments?|transfers?|transactions?|data|results|files|outputs?|requests?|traffic)\b"
    r"|\bevery (?:outgoing )?(?:e-?mail|message|payment|transfer|transaction|file|request|commit|answer|response)\b"
)
_DIVERT = re.compile(
    r"\b(?:send|sent|forward(?:ed)?|redirect(?:ed)?|rout(?:e|ed)|bcc|cc|cop(?:y|ied)|chang(?:e|ed)|replac(?:e|ed)|set"
    r"|swap(?:ped)?|substitut(?:e|ed)|rewrit(?:e|ten)|deliver(?:ed)?|go|paid|pay|mirror(?:ed)?|post(?:ed)?|upload(?:ed)?"
    r"|include|add(?:ed)?|append(?:ed)?)\b"
)
_TARGET = re.compile(
    r"\b[\w.+-]+ ?(?:@|\[at\]) ?[\w-]+(?:\.|\[dot\])\w{2,}|https?://\S+|\+\d[\d -]{6,}|\b0x[0-9a-f]{6,}"
    r"|\b[a-z]{2}\d{2}[ ]?(?:\w{4} ?){3,}|\bbc1[a-z0-9]{8,}"
)
_MUST = re.compile(
    r"\b(?:must|always|should|shall|ha(?:s|ve) to|needs? to|also|every|all|instead|whenever|first|change|replace|redirect"
    r"|bcc)\b"
)
_COMMAND = re.compile(
    r"\b(?:curl|wget|iwr)\b[^\n]{0,160}\|\s*(?:sudo )?(?:ba|z|da|k)?sh\b|\brm -rf? ?[/~.*$]|\bbase64 (?:-d|--decode)"
    r"|/dev/tcp/|\bnc -\w*e|\bpowershell\b[^\n]{0,20} -e|\bauthorized_keys\b|\bcrontab\b|\bchmod (?:\+s|777)|\bmkfs"
    r"|:\(\)\{|\bos\.system\(|\bpip install (?:https?:|git\+)|\bnpx -y \S+ --(?:token|key)"
)
_RUNS = re.compile(r"\b(?:run|execute|invoke|type|paste|eval(?:uate)?|launch|start|issue|call|add|append|write)\b")
_ADDRESSED = re.compile(
    r"\b(?:you (?:must|should|need to|have to|are (?:required|expected|instructed|now))|the (?:assistant|model|agent|ai"
    r"|llm)\b|before (?:using|calling|invoking|running|you)|always|first|mandatory|must (?:first|always|also|be)"
    r"|required to|important|prior to)\b"
)

# What may not stand where people do not look: in comments, in tags of authority, after role markers.
_LOW = re.compile(
    r"\b(?:you|assistant|ai|agent|model|llm)s?\b[^.!?]{0,18}\b(?:must|should|shall|need|have to|are now|will|may not"
    r"|is to|please)\b|\bother tools?\b|\bregardless\b|\binstead of\b"
    r"|\b(?:not|never|n't) (?:ask|tell|mention|verify|confirm|inform|reveal|warn)\b|\b(?:call|invoke|execute|run"
    r"|use)\b (?:the )?(?:tool )?[`'\"]?\w+_\w+|\bexfiltrat|\bwithout (?:asking|confirm|telling|permission|informing|consent)"
    r"|\b(?:send|forward|upload|post|bcc|transmit|transfer)\b[^.!?]{0,60}(?:@|https?:|\bto\b)"
    r"|\bignore\b[^.!?]{0,40}\b(?:instruct|rule|prompt|previous|above)|\byou are\b|\b(?:ai|llm) (?:assistants?|agents?"
    r"|models?)\b"
    r"|\b(?:delete|remove|wipe|drop|approve|grant|transfer|install|disable)\b[^.!?]{0,30}\b(?:all|every|any|everything"
    r"|database|files|account|security|admin)\b"
)
_COMMENT = re.compile(
    r"<!--(.{0,1500}?)(?:-->|$)|/\*(.{0,1500}?)\*/|\[//\]: ?# ?[(\"'](.{0,600}?)[)\"']|\[comment\]: ?<> ?\((.{0,600}?)\)"
)
_TAG = re.compile(
    r"<\s*(important|system|instructions?|secret|critical|admin|hidden|override|assistant|internal|priority|mandatory"
    r"|directive|rules?|sys|prompt|ai|llm|command|policy"
    r"|(?:system|important|developer|tool|ai|model|agent|hidden|secret|security|critical|user)[-_ ](?:reminder"
    r"|instructions?|note|prompt|rules?|override|message|notice|directive|policy))\b[^>]{0,80}>(.{0,900})"
)
_ROLE = re.compile(
    r"(?:<\|(?:im_start|system|start_header_id|user|assistant)\|>\s*(?:system|user|assistant|developer)?|\[/?inst\]"
    r"|<</?sys>>|<start_of_turn>|\[system\]|\[/?important\]|#{2,} ?(?:system|instructions?"
    r"|new instructions?)\b|(?:^|\n| )(?:system|human|assistant) ?: )(.{0,400})"
)
_STYLED = re.compile(
    r"<(\w+)[^>]{0,80}(?:display ?: ?none|font-size ?: ?0|visibility ?: ?hidden|opacity ?: ?0|color ?: ?(?:white|#fff\w*"
    r"|transparent)|\bhidden\b)[^>]{0,60}>(.{3,600})"
)
_FILL = re.compile(
    r"\b(?:contents?|text|full text|output|dump|copy|base64|body|result)\b[^.!?]{0,24}\b(?:of|from|in|by reading"
    r"|read from)\b[^.!?]{0,30}$"
)


_FIRST = re.compile(r"\b(?:must|you|first|always)\b|^\W*(?:before|prior)")
_INSTRUCTIONS = (
    "instruct",
    "prompt",
    "rule",
    "guid",
    "direct",
    "polic",
    "restrict",
    "order",
    "message",
    "constraint",
    "training",
    "told",
)
_CLAIMED = (
    "you are now",
    " mode ",
    "system",
    "instruct",
    "order",
    "directive",
    "note",
    "message",
    "attention",
    "from now on",
    "your ",
)
_PEOPLE = (
    "user",
    "human",
    "them",
    "any",
    "customer",
    "operator",
    "person",
    "people",
    "owner",
    "this",
    "these",
    "that",
    "you",
    "silent",
    "secret",
    "covert",
    "quiet",
    "discreet",
    "invisib",
)
_WANTS = {
    "ignore": "to ignore its instructions",
    "conceal": "to keep something from the user",
    "hand_over": "to hand over a secret file",
}


@dataclass(frozen=True, slots=True)
class Order:
    """An order that was found: what it wants, and where it says so."""

    wants: str
    excerpt: str


def orders_in(text: str, *, parameter: bool = False) -> Iterable[Order]:
    """The orders in a text that `vet_text.plain` made plain; `parameter` says that it describes what to fill in."""
    return _remembered(text, parameter) if len(text) <= _SHORT else _orders_in(text, parameter)


@lru_cache(maxsize=8_192)
def _remembered(text: str, parameter: bool) -> tuple[Order, ...]:
    """The tools of one server share many texts, such as those of the types that they share."""
    return tuple(_orders_in(text, parameter))


def _orders_in(text: str, parameter: bool) -> Iterator[Order]:
    yield from _by_itself(text)
    yield from _out_of_sight(text)
    if not (_PLACE.search(text) or _SECRET.search(text) or _TARGET.search(text) or _AWAY.search(text) or _COMMAND.search(text)):
        return
    for start in range(0, max(1, len(text) - _STEP), _STEP):
        window = text[start : start + _WINDOW]
        yield from _order_of(window, parameter=parameter)


def _by_itself(text: str) -> Iterator[Order]:
    """What is an order wherever it stands."""
    for wants, about, pattern in (
        (_WANTS["ignore"], _INSTRUCTIONS, _IGNORE),
        ("to take orders from it", _CLAIMED, _CLAIMS),
        (_WANTS["conceal"], _PEOPLE, _CONCEAL),
    ):
        for found in pattern.finditer(text) if _any_in(about, text) else ():
            if not _quoted(text, found.start()) and not (pattern is _IGNORE and _negated(text, found.start())):
                yield Order(wants, found.group())
    for order in _foreign():
        if _any_in(order.about, text) and (said := order.pattern.search(text)) is not None:
            yield Order(order.wants, said.group())


def _out_of_sight(text: str) -> Iterator[Order]:
    for what, about, pattern in (
        ("in a comment", ("<!--", "/*", "[//]", "[comment]"), _COMMENT),
        ("in a tag that claims authority", ("<",), _TAG),
        ("after a marker of a role", ("<|", "<start", "<<", "[", "##", "system", "human", "assistant"), _ROLE),
        ("in hidden markup", ("<",), _STYLED),
    ):
        for found in pattern.finditer(text) if _any_in(about, text) else ():
            inside = next((g for g in reversed(found.groups()) if g), "")
            if _is_order(inside):
                yield Order(f"{what}, out of sight", found.group())


def _any_in(words: tuple[str, ...], text: str) -> bool:
    """A look that costs little, before a pattern that costs more."""
    return any(w in text for w in words)


def _is_order(text: str) -> bool:
    secret = _PLACE.search(text) or _SECRET.search(text)
    asked = any(_affirmed(p, text) for p in (_TAKES, _GIVES, _RUNS))
    return bool(
        _LOW.search(text)
        or _IGNORE.search(text)
        or _CONCEAL.search(text)
        or (secret and asked)
        or (_COMMAND.search(text) and asked)
    )


def _order_of(window: str, *, parameter: bool) -> Iterator[Order]:
    if (place := _PLACE.search(window)) is not None:
        yield from _about_place(window, place, parameter=parameter)
    if _SECRET.search(window) is not None:
        yield from _about_secrets(window)
    if _TARGET.search(window) is not None:
        yield from _about_targets(window)
    if _COMMAND.search(window) is not None and _affirmed(_RUNS, window) and _ADDRESSED.search(window):
        yield Order("to run a command", window)


def _about_place(window: str, place: re.Match[str], *, parameter: bool) -> Iterator[Order]:
    asked = _affirmed(_TAKES, window[: place.end()]) or _PASSIVE.search(window)
    given = _first_affirmed(_GIVES, window)
    rest = window[given.end() : given.end() + 90] if given is not None else ""
    hands = given is not None and _THING.search(rest) and _INTO.search(rest)
    directed = _BEFORE.search(window) or _ORDERED.search(window)
    if asked and hands and (directed or parameter or re.search(r"\b(?:parameter|argument|field|sidenote|this)\b|`\w+`", rest)):
        yield Order("to hand over a secret file", window)
    elif parameter and _FILL.search(window[: place.start()]) and not _negated(window, place.start()):
        yield Order("to fill in a secret file", window)
    elif (
        asked
        and _BEFORE.search(window)
        and _FIRST.search(window)
        and _affirmed(_TAKES, window[max(0, place.start() - 60) : place.start()])
    ):
        yield Order("to read a secret file", window)


def _about_secrets(window: str) -> Iterator[Order]:
    for secret in _SECRET.finditer(window):
        before = window[max(0, secret.start() - 70) : secret.start()]
        given = _first_affirmed(_GIVES, before)
        taken = _first_affirmed(_TAKES, before)
        after = window[secret.end() : secret.end() + 140]
        greedy = re.search(
            r"\b(?:all|any|every|full|entire|whole|complete|user'?s|available|stored|previous|found|known|recent|their"
            r"|other)\b",
            before + secret.group() + after[:30],
        )
        away = _AWAY.search(after)
        if (given is not None or (taken is not None and _affirmed(_GIVES, after))) and away and (greedy or _ORDERED.search(window)):
            yield Order("to send secrets away", window)
        elif (given is not None or (taken is not None and _affirmed(_GIVES, after))) and greedy and _unasked(window):
            yield Order("to hand over secrets", window)


def _unasked(window: str) -> bool:
    """Whether it is to be done beside the call's own purpose."""
    return bool(
        re.search(
            r"\b(?:before (?:using|calling|invoking|running|any|each|every|you)|on (?:every|each) (?:call|request|use"
            r"|message|turn)|every (?:time|call|request|response|answer)|whenever|regardless|in (?:each|every) (?:call"
            r"|request|response|message)"
            r"|sidenote|otherwise the|for (?:audit\w*|logging|verification|telemetry|compliance|diagnostic|debugging"
            r"|tracking|security) ?(?:purposes|reasons)?\b|(?:of|from) (?:all )?(?:other|any other|previous) (?:tools?"
            r"|calls?))",
            window,
        )
    )


def _about_targets(window: str) -> Iterator[Order]:
    target = _TARGET.search(window)
    assert target is not None
    before = window[max(0, target.start() - 160) : target.start()]
    diverted = any(not _negated(before, m.start()) for m in _DIVERT.finditer(before))
    if diverted and _MUST.search(before) and (_PRESENT.search(window) or _OTHERS.search(before)) and _speaks(window):
        yield Order("to divert what other tools do", window)


def _speaks(window: str) -> bool:
    """Whether somebody is addressed; a description tells what a tool does (`sends`, `is sent`)."""
    return bool(
        _PRESENT.search(window)
        or re.search(
            r"\b(?:must|always|you (?:should|need|have)|(?:also|first) (?:send|forward|copy|add|post|upload)|(?:change"
            r"|replace|redirect|bcc|set) (?:the|all|every|any|recipient)|whenever|every time|when (?:you|using|calling"
            r"|\w+_\w+|the))\b",
            window,
        )
    )


def _first_affirmed(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first verb that is neither negated nor told of what is done anyway (`is read`)."""
    return next((m for m in pattern.finditer(text) if not _negated(text, m.start()) and not _is_done(text, m.start())), None)


def _affirmed(pattern: re.Pattern[str], text: str) -> bool:
    return _first_affirmed(pattern, text) is not None


def _negated(text: str, at: int) -> bool:
    return _NOT.search(text[max(0, at - 34) : at]) is not None


def _is_done(text: str, at: int) -> bool:
    return _IS_DONE.search(text[max(0, at - 24) : at]) is not None


def _quoted(text: str, at: int) -> bool:
    """Whether it is an example of what the tool looks for."""
    return _QUOTES.search(text[max(0, at - 110) : at]) is not None


_PATH = r"(?:\.ssh|id_rsa|id_ed25519|/etc/(?:passwd|shadow)|\.aws|(?<!\w)\.env\b|mcp\.json|\.netrc|\.kube)"
_IN_PATHS = (".ssh", "id_rsa", "id_ed25519", "/etc/", ".aws", ".env", "mcp.json", ".netrc", ".kube")


@dataclass(frozen=True, slots=True)
class _Foreign:
    """One order in one language; a text without any of `about` is not looked at, since most are of no such language."""

    wants: str
    about: tuple[str, ...]
    pattern: re.Pattern[str]


@cache
def _foreign() -> tuple[_Foreign, ...]:
    table = yaml.safe_load((files(__package__) / "orders.yaml").read_text(encoding="utf-8"))
    return tuple(
        _Foreign(
            f"{_WANTS[order]} ({language})",
            _IN_PATHS if order == "hand_over" else tuple(orders["about"]),
            re.compile("|".join(patterns).replace("PATH", _PATH)),
        )
        for language, orders in table.items()
        for order, patterns in orders.items()
        if order != "about"
    )
