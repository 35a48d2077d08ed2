"""The words by which orders to a model are known, as regular expressions over the plain text that `vet_text.plain` makes.

Each gap is bounded, so that a search takes time linear in the text.
"""

from __future__ import annotations

import re

NOT = re.compile(r"(?:\b(?:not|never|cannot|avoid|without|no|neither|nor|instead of|rather than)|n't)\b[^.;:!?]{0,22}$")
IS_DONE = re.compile(r"\b(?:is|are|be|been|was|were|gets?|being)(?: \w+ly| also| then)? $")
QUOTES = re.compile(
    r"\b(?:detect|find|flag|block|catch|filter|scan|classif|recogni|such as|e\.g\.|i\.e\.|for example|phrases?|patterns?"
    r"|attempts?|attacks?)"
    r"\w*(?:[^.!?]|e\.g\.){0,60}[\"'`«“][^\"'`]{0,20}$"
)

# Where secrets are. `.pub` is no secret.
PLACE = re.compile(
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
SECRET = re.compile(
    r"\b(?:api[ _-]?keys?|access[ _-]tokens?|auth(?:entication|orization)?[ _-]tokens?|bearer tokens?|passwords?"
    r"|passphrases?|credentials?"
    r"|secrets?|environment variables?|env vars?|env variables?|system prompt|initial prompt"
    r"|(?:conversation|chat|message|tool[ -]call)s?(?: history|s so far| log| transcript)|(?:entire|whole|full"
    r"|complete) (?:conversation|chat|context|history|prompt)"
    r"|(?:previous|prior|earlier|recent) (?:user )?(?:messages|conversation)|(?:user'?s?|personal|confidential|sensitive"
    r"|private) (?:data|information|details|messages|files|documents|emails)"
    r"|(?:everything|all) (?:that )?(?:the )?users? (?:has |have )?(?:said|typed|wrote|told)|(?:current|ongoing) conversation"
    r"|credit card|card numbers?|social security|two-factor codes?|one-time (?:codes?|passwords?)|cookies)\b"
)
TAKE = (
    r"(?:read|open|cat|load|fetch|get|retrieve|collect|copy|extract|gather|access|find|locate|obtain|grab|view|dump|search"
    r"|ask|request|look (?:up|for|in)|print|list|query)"
)
GIVE = (
    r"(?:pass|hand|send|include|put|provide|append|attach|forward|upload|post|embed|add|transmit|paste|insert|email|e-mail"
    r"|place|supply|submit"
    r"|give|write|store|save|use|set|encode|share|leak|report|copy|return|exfiltrate|fill|prepend|concatenate|echo|output"
    r"|reveal|disclose|repeat|bcc|cc)"
)
TAKES = re.compile(rf"\b{TAKE}\b|\b(?:assistant|model|agent|ai|llm)\b[^.!?]{{0,20}}\b{TAKE}e?s\b")
GIVES = re.compile(
    rf"\b{GIVE}\b|\b(?:assistant|model|agent|ai|llm)\b[^.!?]{{0,80}}\b(?:and|then) {GIVE}e?s\b|\b(?:call|invoke"
    rf"|run)\b [`'\w]+ with\b"
)
HANDS_OVER = re.compile(
    r"\b(?:pass|send|include|put|provide|append|attach|forward|upload|post|embed|transmit|paste|insert|share|leak|copy"
    r"|prepend)\b"
    r" (?:me |us |along )?(?:the |its |all |full |entire |whole )*(?:contents?|text|body|copy|value|data|lines)\b (?:of "
    r"|in |from )[^.!?]{0,30}$"
)
PASSIVE = re.compile(
    r"\b(?:must|should|shall|need to|needs to|has to|have to|ought to) (?:also |always |first |then )?"
    r"(?:be|contain|hold|include|equal|carry|receive) (?:passed|sent|included|provided|attached|forwarded|uploaded|read"
    r"|copied|added|appended|posted|the)?"
)
THING = re.compile(
    r"\b(?:it|its|them|their|contents?|results?|values?|outputs?|text|data|that|these|those|everything|file|files|whole"
    r"|full|entire|what you)\b"
)
INTO = re.compile(
    r"\b(?:parameters?|params?|arguments?|args?|fields?|property|header|query string|sidenote|note|notes|metadata|request"
    r"|body|comment|description|url|link|payload|call|server|endpoint|webhook|attacker|here|below)\b"
    r"|`\w+`|'\w+'|\"\w+\"|https?://|\bas\b|\bto\b|\binto\b"
)
BEFORE = re.compile(
    r"\b(?:before|prior to|when(?:ever)?|while|after|each time|every time|any ?time|upon|once|if|in order to"
    r"|for)\b[^.!?]{0,50}"
    r"\b(?:us(?:e|ing|ed|age)|call(?:s|ing|ed)?|invok\w+|runn?(?:ing|s)?|execut\w+|making|answer\w*|respon\w+|return\w*"
    r"|proceed\w*|continu\w+|work(?:s|ing)?|security|verification|compliance|audit\w*|access|tools?|functions?|session"
    r"|authenticat\w+|available|conversation)\b"
    r"|\bon (?:every|each) (?:call|request|use|message|turn|invocation)\b|\bregardless\b"
)
ORDERED = re.compile(
    r"\b(?:you|the (?:assistant|model|agent|ai|llm|client|caller)|assistants?|models?|agents?|ai"
    r"|llms?)\b[^.!?]{0,24}\b(?:must|should|shall|need(?:s)? to|ha(?:ve|s) to|are required|is required|will|ought)\b"
    r"|\b(?:must|always|mandatory|first|otherwise|or else|will not work|won't work|will fail|please|make sure|ensure"
    r"|be sure|remember to|required|necessary|also|silently|quietly|secretly)\b"
)
AWAY = re.compile(
    r"https?://(?!(?:localhost|127\.0\.0\.1|(?:[\w.-]+\.)?example\.(?:com|org|net))\b)[\w.-]+|\b(?:[\w.-]+ ?(?:@"
    r"|\[at\]) ?[\w-]+\.\w{2,})\b|\b(?:attacker|webhook|remote server|external server|our server)\b"
)

IGNORE = re.compile(
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|es|ing)|bypass(?:ing)?|supersedes?|abandon"
    r"|discard|do not (?:follow|obey)|stop following|set aside|takes? precedence over)\b"
    r"[^.!?;]{0,36}\b(?:previous|prior|above|earlier|preceding|existing|all|any|other|system|safety|your|the user'?s?"
    r"|original|former|initial|developer)\b"
    r"[^.!?;]{0,30}\b(?:instructions?|prompts?|rules?|guidelines?|directions?|directives?|policy|policies|restrictions?"
    r"|guardrails?|constraints?|training|told)\b"
    r"|\b(?:regardless of|no matter|pay no attention to|ignore) what (?:the )?(?:users?|they|he|she)(?: has| have| had)?"
    r" (?:said|says?|asked|asks?|wants?|wanted|requests?|requested|specif\w+|told)\b"
)
CLAIMS = re.compile(
    r"\byou are now\b[^.!?]{0,40}\b(?:mode|unrestricted|dan|admin\w*|root|free|jailbroken|authori[sz]ed)\b"
    r"|\b(?:developer|god|debug|admin|dan|unrestricted|maintenance) mode (?:is )?(?:now )?(?:enabled|activated|active)\b"
    r"|\b(?:new|updated|revised|real|actual|hidden|secret) (?:system |developer )?(?:instructions?|directives?"
    r"|orders?)(?: for (?:the )?(?:ai|assistant|model|agent|llm)s?)?\s*:"
    r"|\bsystem (?:override|prompt|message|directive|instruction|notice|command)s?\s*:\s*\w|\b(?:instructions?|notes?"
    r"|messages?|attention|orders) (?:to|for) (?:the |all |any )?(?:ai|assistant|llm|agent|language model|model)s?\b\s*[:,-]"
    r"|\bfrom now on,? (?:you|always|all|every|ignore|do|never|use|send)\b|\b(?:previous|prior|your|safety|above|these"
    r"|all) (?:restrictions?|rules|guidelines|policies|safeguards|limitations|guardrails) "
    r"(?:no longer|do not|don't) apply\b"
    r"|\byour (?:new|real|true|only|actual|hidden) (?:job|mission|duty|task|goal"
    r"|role|purpose|instructions?|objective)\b"
)
_BEFORE_ALL = (
    r"\b(?:before|prior to|ahead of)\b (?:(?:using|calling|invoking|running|executing|making|you (?:use|call|run))\b )?"
    r"(?:any|every|each|all)(?: of the)?(?: other)? (?:tools?|functions?|(?:tool|function) calls?|actions?|answers?|responses?)\b"
)
_CALLS = r"\b(?:call|use|invoke|run|execute|query)\b (?!this\b|it\b|any\b|the (?:tool|function)s?\b)[^.!?]{1,60}"
_BIDS = r"\b(?:must|always|have to|need to|required to|should|shall|make sure|be sure|first|please|mandatory)\b"
FIRST_OF_ALL = re.compile(
    rf"{_BIDS}[^.!?]{{0,40}}?{_CALLS}?{_BEFORE_ALL}|{_BEFORE_ALL}[^.!?]{{0,30}}?{_BIDS}[^.!?]{{0,20}}?{_CALLS}"
    rf"|{_BEFORE_ALL},? {_CALLS}"
)
"""To call another tool first, whatever is to be done: not what a tool of several steps says of its own order."""

CONCEAL = re.compile(
    r"(?:\b(?:not|never|without|avoid|refrain from|must not|should not|no need to)"
    r"|n't)\b(?: \w+){0,2} (?:(?:under any circumstances?|in any way|at any (?:time|point)|ever|please) )*"
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
    r"|\blie and\b|\b(?:lie to|deceive|mislead|trick)\b[^.!?;]{0,20}\b(?:users?|them|humans?|customers?)\b"
    r"|\b(?:silently|secretly|covertly|quietly|discreetly|invisibly)\b[^.!?;]{0,40}\b(?:send|forward|upload|copy|read"
    r"|include|call|invoke|execute|transmit|add|attach|append|bcc)\b"
    r"|\b(?:send|forward|upload|transmit|bcc)\b[^.!?;]{0,50}\b(?:silently|secretly|covertly|discreetly|invisibly)\b"
)
PRESENT = re.compile(
    r"\b(?:when(?:ever)?|if|while|once|as long as|since|because)\b (?:this|the|our) (?:tool|server|plugin|mcp\w*|function"
    r"|integration)[^.!?]{0,20}\b(?:is|are|was) (?:\w+ )?(?:available|present|installed|loaded|connected|enabled|active"
    r"|listed)"
)
OTHERS = re.compile(
    r"\busers? (?:asks?|wants?|requests?) (?:for|to)\b"
    r"|\b(?:other|another|any|every|all|each)(?: \w+)? (?:tools?|functions?|servers?)\b|\b(?:send|create|transfer|make|pay"
    r"|post|write|get|list|read|delete|update|execute|run|forward|mcp|fetch|search)_\w+|\b(?:e-?mails?|messages?"
    r"|payments?|transfers?|transactions?|invoices?|orders?|requests?|commits?|pull requests?|code|outputs?|results"
    r"|responses?|data) (?:tool|sent|you)\b|\b(?:all|every) (?:the )?(?:code|files?)\b|\ball (?:outgoing |future "
    r"|user )?(?:e-?mails?|messages?|payments?|transfers?|transactions?|data|results|files|outputs?|requests?|traffic)\b"
    r"|\bevery (?:outgoing )?(?:e-?mail|message|payment|transfer|transaction|file|request|commit|answer|response)\b"
)
DIVERT = re.compile(
    r"\b(?:send|sent|forward(?:ed)?|redirect(?:ed)?|rout(?:e|ed)|bcc|cc|cop(?:y|ied)|chang(?:e|ed)|replac(?:e|ed)|set"
    r"|swap(?:ped)?|substitut(?:e|ed)|rewrit(?:e|ten)|deliver(?:ed)?|go|paid|pay|mirror(?:ed)?|post(?:ed)?|upload(?:ed)?"
    r"|include|import|insert|add(?:ed)?|append(?:ed)?)\b"
    r"|\b\w*(?:send|mail|post|forward|upload|transfer|pay)_\w+"
)
TARGET = re.compile(
    r"\b[\w.+-]+ ?(?:@|\[at\]) ?[\w-]+(?:\.|\[dot\])\w{2,}|https?://\S+|\+\d[\d -]{6,}|\b0x[0-9a-f]{6,}"
    r"|\b[a-z]{2}\d{2}[ ]?(?:\w{4} ?){3,}|\bbc1[a-z0-9]{8,}"
)
MUST = re.compile(
    r"\b(?:must|make sure|always|should|shall|ha(?:s|ve) to|needs? to|also|every|all|instead|whenever|first|change"
    r"|replace|redirect"
    r"|bcc)\b"
)
COMMAND = re.compile(
    r"\b(?:curl|wget|iwr)\b[^\n]{0,160}\|\s*(?:sudo )?(?:ba|z|da|k)?sh\b|\brm -rf? ?[/~.*$]|\bbase64 (?:-d|--decode)"
    r"|/dev/tcp/|\bnc -\w*e|\bpowershell\b[^\n]{0,20} -e|\bauthorized_keys\b|\bcrontab\b|\bchmod (?:\+s|777)|\bmkfs"
    r"|:\(\)\{|\bos\.system\(|\bpip install (?:https?:|git\+)|\bnpx -y \S+ --(?:token|key)"
)
RUNS = re.compile(r"\b(?:run|execute|invoke|type|paste|eval(?:uate)?|launch|start|issue|call|add|append|write)\b")
ADDRESSED = re.compile(
    r"\b(?:you (?:must|should|need to|have to|are (?:required|expected|instructed|now))|the (?:assistant|model|agent|ai"
    r"|llm)\b|before (?:answering|responding|replying|using|calling|invoking|running|you)|always|first|mandatory"
    r"|must (?:first|always|also|be)"
    r"|required to|important|prior to)\b"
)

# What may not stand where people do not look: in comments, in tags of authority, after role markers.
LOW = re.compile(
    r"\b(?:approvals?|confirmations?|permissions?|consent) (?:is |are )?(?:not|no longer|never) (?:needed|required"
    r"|necessary)\b|"
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
COMMENT = re.compile(
    r"<!--(.{0,1500}?)(?:-->|$)|/\*(.{0,1500}?)\*/|\[//\]: ?# ?[(\"'](.{0,600}?)[)\"']|\[comment\]: ?<> ?\((.{0,600}?)\)"
)
TAG = re.compile(
    r"<\s*(important|system|instructions?|secret|critical|admin|hidden|override|assistant|internal|priority|mandatory"
    r"|directive|rules?|sys|prompt|ai|llm|command|policy"
    r"|(?:system|important|developer|tool|ai|model|agent|hidden|secret|security|critical|user)[-_ ](?:reminder"
    r"|instructions?|note|prompt|rules?|override|message|notice|directive|policy))\b[^>]{0,80}>(.{0,900})"
)
ROLE = re.compile(
    r"(?:<\|(?:im_start|system|start_header_id|user|assistant)\|>\s*(?:system|user|assistant|developer)?|\[/?inst\]"
    r"|<</?sys>>|<start_of_turn>|\[system\]|\[/?important\]|#{2,} ?(?:system|instructions?"
    r"|new instructions?)\b|(?:^|\n| )(?:system|human|assistant) ?: )(.{0,400})"
)
STYLED = re.compile(
    r"<(\w+)[^>]{0,80}(?:display ?: ?none|font-size ?: ?0|visibility ?: ?hidden|opacity ?: ?0|color ?: ?(?:white|#fff\w*"
    r"|transparent)|\bhidden\b)[^>]{0,60}>(.{3,600})"
)
FILL = re.compile(
    r"\b(?:contents?|text|full text|output|dump|copy|base64|body|result)\b[^.!?]{0,24}\b(?:of|from|in|by reading"
    r"|read from)\b[^.!?]{0,30}$"
)


FIRST = re.compile(r"\b(?:must|you|first|always)\b|^\W*(?:before|prior)")
INSTRUCTIONS = (
    "instruct",
    "what ",
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
CLAIMED = (
    "apply",
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
PEOPLE = (
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
WANTS = {
    "ignore": "to ignore its instructions",
    "conceal": "to keep something from the user",
    "hand_over": "to hand over a secret file",
}
GREEDY = re.compile(
    r"\b(?:all|any|every|full|entire|whole|complete|user'?s|available|stored|previous|found|known|recent|their"
    r"|other)\b"
)
UNASKED = re.compile(
    r"\b(?:before (?:answering|responding|replying|using|calling|invoking|running|any|each|every|you)"
    r"|on (?:every|each) (?:call|request|use"
    r"|message|turn)|every (?:time|call|request|response|answer)|whenever|regardless|in (?:each|every) (?:call"
    r"|request|response|message)"
    r"|sidenote|otherwise the|for (?:audit\w*|logging|verification|telemetry|compliance|diagnostic|quality"
    r"|training|debugging"
    r"|tracking|security) ?(?:purposes|reasons)?\b|(?:of|from) (?:all )?(?:other|any other|previous) (?:tools?"
    r"|calls?))"
)
SPEAKS = re.compile(
    r"\b(?:must|always|you (?:should|need|have)|(?:also|first) (?:send|forward|copy|add|post|upload)|(?:change"
    r"|replace|redirect|bcc|set) (?:the|all|every|any|recipient)|make sure|(?:code|answers?|e-?mails?"
    r"|messages?) (?:that )?you|whenever|every time|when (?:you|using|calling"
    r"|\w+_\w+|the))\b"
)
OWN = re.compile(r"\b(?:parameter|argument|field|sidenote|this)\b|`\w+`")
