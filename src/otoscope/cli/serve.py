"""The command `serve`."""

import secrets
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from ..serve.settings import LOOPBACK, MAX_QUEUED, TOKEN
from . import options
from .printing import echo, log_progress


@click.command(epilog=f"Encoders: {options.ENCODERS}")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--encoder", default="", metavar="SPEC", help="The one that the stores were made with [a bundled one by itself]."
)
@click.option(
    "--corpus", "manifests", multiple=True, metavar="[TASK=]MANIFEST",
    help="Manifest of a task that ablations may be asked for; TASK where there are several.",
)  # fmt: skip
@click.option(
    "--audio-root", "roots", multiple=True, metavar="[TASK=]DIR|URL",
    help="Where the audio of a task, or of all, lies, to play it [that of its --corpus].",
)  # fmt: skip
@click.option("--no-audio", is_flag=True, help="Show no sounds, pictures and traces: speech is personal data.")
@click.option(
    "--group", "columns", multiple=True, metavar="[TASK=]COLUMN",
    help="Label column that clips share, as speaker: they move together in intervals and bands.",
)  # fmt: skip
@click.option(
    "--state", metavar="DIR", help="Folder of jobs and results, on a local disk [one that goes with the server]."
)
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one].")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to bind; others than loopback need a token."
)
@click.option("--port", default=8766, show_default=True, callback=options.within(0, 65_535), help="0 is any free one.")
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME", help="Name under which clients call it [localhost]."
)
@click.option("--token-file", metavar="FILE", help="File that holds the token [OTOSCOPE_TOKEN; on loopback, drawn].")
@click.option("--write-token", metavar="FILE", help="Write the token that is drawn there, for clients.")
@click.option("--no-token", is_flag=True, help="Answer everybody on this machine; on loopback alone.")
@click.option(
    "--queue", "max_queued", default=MAX_QUEUED, show_default=True, callback=options.within(1), metavar="N",
    help="Jobs that may wait.",
)  # fmt: skip
@options.on_workers
def serve(
    stores: Sequence[str], manifests: Sequence[str], roots: Sequence[str], no_audio: bool, columns: Sequence[str],
    state: str | None, host: str, port: int, names: Sequence[str], token_file: str | None, write_token: str | None,
    no_token: bool, workers: Any, **chosen: Any,
) -> None:  # fmt: skip
    """Open the printed link in a browser. For programs, see /api/openapi.json there."""
    from ..files import check_target
    from ..serve.app import run_server
    from ..serve.security import bracketed, host_of, read_token, token_digest, write_secret
    from ..serve.settings import Settings
    from ..store.group import open_root, open_task, task_names
    from ..store.location import absolute, is_url

    if manifests and not chosen["encoder"]:
        raise ValueError("--corpus was given without --encoder; expected both, for ablations, or neither")
    labels = {
        task: list(open_task(root, task)[1].labels)
        for root in (open_root(store, mode="r") for store in stores)
        for task in task_names(root)
    }
    manifest_of = by_task(manifests, [*labels], "--corpus")
    root_of = by_task(roots, [*labels], "--audio-root", for_all=True)
    group_of = by_task(columns, [*labels], "--group", for_all=True)
    for task, root in root_of.items():
        if not is_url(root) and not Path(root).is_dir():
            raise FileNotFoundError(f"no folder {root}; expected the one that --audio-root means")
        root_of[task] = absolute(root)
    for task, column in group_of.items():
        if column not in labels[task]:
            raise LookupError(
                f"no label column {column!r} in task {task}, which --group names; expected one of "
                f"{', '.join(labels[task]) or 'none'}"
            )
    with workers():  # what is wrong with its options is known before anything is written
        pass
    for name in names:
        if not host_of(name):
            raise ValueError(f"--allow-host is {name!r}; expected a name or an address alone, as gpu7.example.org")
    own = host_of(bracketed(host))
    given = read_token(token_file)
    if (no_token or write_token) and (given or own not in LOOPBACK or (no_token and write_token)):
        raise ValueError(
            f"--no-token or --write-token at {host}, with another token; expected one of them alone, on loopback: "
            f"leave it out, or --token-file and {TOKEN}"
        )
    if not given and own not in LOOPBACK:
        raise ValueError(f"no token for a server at {host}; expected one except on loopback: {TOKEN} or --token-file")
    if write_token:
        check_target(write_token)
    drawn = "" if given or no_token else secrets.token_urlsafe(32)

    def announce(url: str) -> None:
        if write_token:  # not before: another server may be using folder, port and file
            write_secret(drawn, write_token)
        echo(f"serving at {url}{f'/?token={drawn}' if drawn else ''}")

    log_progress()
    with nullcontext(state) if state else TemporaryDirectory(prefix="otoscope-") as folder:
        settings = Settings(
            stores=tuple(map(absolute, stores)), state=Path(folder).absolute(), workers=workers, **chosen,
            corpora={task: (absolute(path), root_of.get(task)) for task, path in manifest_of.items()},
            audio_roots=root_of, groups=group_of, sound=not no_audio,
            hosts=(*LOOPBACK, *map(host_of, names), *(() if host in ("", "0.0.0.0", "::") else (own,))),
            token=token_digest(given or drawn) if given or drawn else "", prepare=log_progress,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):
            run_server(settings, host, port, announce)
    echo("stopped" + ("; whatever is unfinished stays queued" if state else ""), err=True)


def by_task(given: Sequence[str], tasks: Sequence[str], option: str, *, for_all: bool = False) -> dict[str, str]:
    """[TASK=]VALUE by task. for_all: whether a value without a task is one for all tasks that have none of their own.

    Raises ValueError where it is not clear which task is meant.
    """
    found: dict[str, str] = {}
    rest: list[str] = []
    for text in given:
        task, _, value = text.partition("=")
        if task not in tasks or not value:
            if for_all:
                rest.append(text)
                continue
            if len(tasks) != 1:
                raise ValueError(f"{option} {text} names no task; expected one of {', '.join(tasks)} before a =")
            task, value = tasks[0], text
        if task in found:
            raise ValueError(f"{option} was given twice for task {task}; expected once")
        found[task] = value
    if len(rest) > 1:
        raise ValueError(f"{option} was given twice without a task ({rest[0]}, {rest[1]}); expected once for all tasks")
    return {**({task: rest[0] for task in tasks} if rest else {}), **found}
