"""Words that the project does not use in names, and where they are: `python tests/vocabulary.py` lists them.

Goal: one word for one thing. Names that we define are looked at part by part (split at underscores and capitals, the
plural too): of modules, classes, functions, arguments, variables, fields and options of the command line. Words that
have a proper use beside the one that is not wanted (columns, block, frame, named) are left to the reader's eye.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "store",
    "cluster",
    "extract",
    "analysis",
    "sae",
    "ablate",
    "serve",
    "src",
    "tests",
    "benchmarks",
    "examples",
)
INSTEAD = {
    "decode, load, loader; failed": ("hear", "heard", "listen", "listener", "unheard"),
    "uncertainty": ("sureness", "sure"),
    "check_x, validate_x": ("refuse",),
    "max": ("most",),
    "min": ("least",),
    "report, log, message, output": ("say", "said", "tell", "told"),
    "X_SECONDS, timeout": ("knock", "quiet", "patience"),
    "path, url, location; to_device": ("place", "placed"),
    "staged change, lock": ("draft", "claim"),
    "job, worker loop, heartbeat": ("errand", "engine", "beat"),
    "splits, test_fold, train_digest": ("division", "tested_by", "taught"),
    "bisection of crashing clips": ("poison", "suspect", "condemn", "condemned", "sparing"),
    "run, recorder, preflight, throughput": ("course", "tally", "survey", "findings", "pace"),
    "target margin": ("pull",),
    "actor, worker": ("seat",),
    "record of pieces": ("ledger",),
}
WORDS = {word: ours for ours, words in INSTEAD.items() for word in words}
SENTENCES = ("say", "said", "tell", "told", "refuse")  # plain verbs, which names of tests may have
ALLOWED = {
    "at_least": "the English phrase, in sentences",
    "at_most": "the English phrase, in sentences",
    "in_place": "what numpy calls an operation that overwrites its operand",
    "its_place": "a position in an order",
    "their_places": "positions in an order",
    "extract/audio/corpora/sounds.py: engine": "a sound",
    "extract/audio/corpora/sounds.py: knock": "a sound",
}
"""Phrase, whole name, or name in a file -> why it may stay."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    path: Path
    line: int
    name: str
    word: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} has {self.word!r}; we say {WORDS[self.word]}"


def unwanted(name: str) -> str | None:
    """The word in a name that is not ours, if there is one."""
    if name in ALLOWED:
        return None
    parts = "_".join(part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))
    for phrase in ALLOWED:
        parts = re.sub(rf"(^|_){phrase}(?=_|$)", "", parts)
    for word in WORDS:
        if not (name.startswith("test_") and word in SENTENCES) and re.search(rf"(^|_){word}s?(_|$)", parts):
            return word
    return None


def defined(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of what a module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                yield from ((node.lineno, alias.asname) for alias in aliases if alias.asname)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(attr="option"), args=arguments):
                options = (str(item.value) for item in arguments if isinstance(item, ast.Constant))
                yield from ((node.lineno, option.strip("-").replace("-", "_")) for option in options)


def unwanted_names(folder: str) -> list[Finding]:
    """What one folder of the repository holds of them, in order."""
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if any(parent.is_symlink() for parent in path.parents):
            continue  # a room is looked at where it lies
        names = [(1, part) for part in path.relative_to(ROOT).with_suffix("").parts]
        names += sorted(defined(ast.parse(path.read_text("utf-8"))))
        for line, name in names:
            if f"{path.relative_to(ROOT)}: {name}" not in ALLOWED and (word := unwanted(name)):
                found.append(Finding(path=path.relative_to(ROOT), line=line, name=name, word=word))
    return found


def main() -> None:
    """List them; exit status 1 where there are any."""
    count: Counter[str] = Counter()
    for folder in FOLDERS:
        for finding in unwanted_names(folder):
            count[folder] += 1
            sys.stdout.write(f"{finding}\n")
    sys.exit(f"{count.total()} in all: {dict(count)}" if count else 0)


if __name__ == "__main__":
    main()
