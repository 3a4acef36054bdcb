"""The command `ablate serve`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..serve.security import LOOPBACK, TOKEN, Limits, host_of, read_token, token_digest
from .options import within
from .printing import echo, log_progress

ANYWHERE = ("0.0.0.0", "::")


@click.command()
@click.argument("store")
@click.option("--encoder", required=True, metavar="SPEC", help="As for extract; the one that the store was made with.")
@click.option(
    "--corpus", "manifests", required=True, multiple=True, metavar="[TASK=]MANIFEST",
    help="Manifest of a task that may be asked for; TASK where the store has several.",
)  # fmt: skip
@click.option(
    "--audio-root", "roots", multiple=True, metavar="[TASK=]DIR", help="Folder of its audio [the manifest's]."
)
@click.option("--state", required=True, metavar="DIR", help="Folder of jobs and results; replicas share it.")
@click.option("--device", metavar="D", help="cpu, cuda, cuda:1, ... [cuda where there is one].")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to bind; others than loopback need a token."
)
@click.option("--port", default=8765, show_default=True, callback=within(0, 65_535), help="0 is any free one.")
@click.option(
    "--allow-host", "names", multiple=True, metavar="NAME", help="Name under which clients call it [localhost]."
)
@click.option("--token-file", metavar="FILE", help=f"File that holds the token [the environment's {TOKEN}].")
@click.option(
    "--queue", "max_queued", default=64, show_default=True, callback=within(1), metavar="N", help="Jobs that may wait."
)
@click.option("--ray", "on_ray", is_flag=True, help="Replicas on Ray Serve, instead of this one process.")
@click.option("--replicas", default=1, show_default=True, callback=within(1), metavar="N", help="With --ray.")
@click.option(
    "--cpus-per-replica", "cpus", default=1.0, show_default=True, callback=within(0), metavar="F", help="With --ray."
)
@click.option(
    "--gpus-per-replica", "gpus", default=0.0, show_default=True, callback=within(0), metavar="F", help="With --ray."
)
@click.option("--address", metavar="A", help="With --ray: a cluster that runs, or auto [one on this machine].")
def serve(
    store: str,
    encoder: str,
    manifests: tuple[str, ...],
    roots: tuple[str, ...],
    state: str,
    device: str | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    token_file: str | None,
    max_queued: int,
    on_ray: bool,
    address: str | None,
    **replicas: Any,
) -> None:
    """Submit, follow, fetch, cancel; see /openapi.json there."""
    from ..store.group import open_root, task_names

    try:
        from ..serve.app import Settings, run_on_ray, run_process
    except ImportError as error:
        raise ImportError(
            f"{error}; expected the service's packages: pip install -e '.[serve]' in otoscope's checkout"
        ) from error
    token = read_token(token_file)
    bare = f"[{host}]" if ":" in host else host
    if not token and (bare not in LOOPBACK or address):
        raise ValueError(
            f"no token for a service at {address or host}; expected one anywhere but on loopback: put it into "
            f"{TOKEN}, or give --token-file"
        )
    if not on_ray and (address or replicas["replicas"] > 1):
        raise ValueError("--replicas and --address were given without --ray; expected --ray for them")
    tasks = task_names(open_root(store, mode="r"))
    manifest_of = by_task(manifests, tasks, "--corpus")
    root_of = by_task(roots, tasks, "--audio-root")
    for task in sorted(set(root_of) - set(manifest_of)):
        raise ValueError(f"--audio-root for task {task} without --corpus; expected both")
    lost = [root for root in root_of.values() if not Path(root).is_dir()]
    if lost:
        raise FileNotFoundError(f"no folder {lost[0]}; expected the one that --audio-root means")
    hosts = (*LOOPBACK, *map(host_of, names), *(() if host in ANYWHERE else (host_of(bare),)))
    log_progress()
    settings = Settings(
        store=store, encoder=encoder, device=device, state=str(Path(state).absolute()), max_queued=max_queued,
        corpora={task: (manifest, root_of.get(task)) for task, manifest in manifest_of.items()},
        limits=Limits(hosts=hosts, token=token and token_digest(token)),
    )  # fmt: skip

    def ready(url: str) -> None:
        echo(f"serving at {url}")

    try:
        if on_ray:
            run_on_ray(settings, host, port, address=address, ready=ready, **replicas)
        else:
            run_process(settings, host, port, ready)
    except KeyboardInterrupt:
        pass
    echo("stopped; whatever is unfinished stays queued", err=True)


def by_task(given: Sequence[str], tasks: Sequence[str], option: str) -> dict[str, str]:
    """[TASK=]VALUE by task. Raises ValueError where it is not clear which task is meant."""
    found: dict[str, str] = {}
    for text in given:
        task, _, value = text.partition("=")
        if task not in tasks or not value:
            if len(tasks) != 1:
                raise ValueError(f"{option} {text} names no task; expected one of {', '.join(tasks)} before a =")
            task, value = tasks[0], text
        if task in found:
            raise ValueError(f"{option} was given twice for task {task}; expected once")
        found[task] = value
    return found
