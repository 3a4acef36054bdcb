"""The command line: the list of all commands, each loaded when it is called.

Goal: `otoscope --help` is there at once and shows every command whole.
Conventions: a command parses, calls, prints. A user's mistake is one line on standard error and exit status 2; tables
without -o go to standard output; progress and notes go to standard error. The line of a command here is the first of
its own help, so that its function has a docstring only where there is more to say.
"""

import gc
from functools import cache
from importlib import import_module
from inspect import cleandoc
from typing import Any

import click

from .errors import COMMAND, as_one_line
from .interrupts import catch_signals, stop_repeating

COMMANDS = {
    "Make a store": {
        "quickstart": ("make:quickstart", "The whole method on bundled parts, without a download."),
        "corpus build": ("make:build", "Write the manifest of a public data set, from its download."),
        "corpus cross": ("make:cross", "Every chosen clip with every prompt, for audio language models."),
        "corpus list": ("make:list_data_sets", "The data sets that are known, and what each must hold."),
        "extract": ("make:extract", "Run an encoder over a corpus; store what every neuron did."),
        "status": ("make:status", "How far each task has come."),
        "info": ("make:info", "What made a store and what is in it, as JSON."),
        "verify": ("make:verify", "Read everything back; exit status 2 on damage."),
        "label": ("make:label", "Add label columns to a task."),
    },
    "Ask it": {
        "neurons": ("ask:neurons", "Class-specific neurons, with probability and AAPE."),
        "table": ("ask:table", "Tables of selections, overlaps, probabilities, depth."),
        "figure": ("ask:figure", "Figures of overlaps, depth, selectivity, and of results."),
        "null": ("ask:null", "A selection and its overlaps against shuffled labels."),
        "selectors": ("ask:selectors", "How far other selectors agree with the selection."),
        "exemplars": ("ask:exemplars", "The clips that drive a neuron most."),
        "compare": ("ask:compare", "Models side by side, or what each neuron of one serves."),
    },
    "Dictionaries": {
        "sae train": ("sae:train", "Train sparse autoencoders on the hidden states of a task."),
        "sae table": ("sae:table", "Every setting and measure of the SAEs of a folder."),
        "sae encode": ("sae_encode:encode", "Make a task of latents of stored hidden states."),
        "sae probe": ("sae_probe:probe", "What can be read off each hidden state, and off latents."),
        "sae compare": ("sae_probe:compare", "Latents against neurons, with controls, on equal terms."),
        "sae factors": ("sae_factors:factors", "Measure acoustic features (eGeMAPS) of a corpus' clips."),
        "sae stability": ("sae_measure:stability", "Which latents come back in another training."),
        "sae disentangle": ("sae_measure:disentangle", "How well and by how few codes factors are told."),
        "sae export": ("sae_files:export", "Write an SAE as another library keeps it."),
        "sae import": ("sae_files:import_", "Make an SAE of another library's files."),
    },
    "Audio language models": {
        "grounding": ("grounding:grounding", "Does a neuron respond to the sound or to the words?"),
    },
    "What breaks when neurons are silenced": {
        "ablate run": ("ablate:run", "Rerun a task's test clips without some neurons."),
        "ablate swap": ("swap:swap", "Swap neurons between clips: is it the sound, or the words?"),
        "ablate set": ("ablate:neuron_set", "List a set of neurons by its name, or write it to a file."),
        "ablate table": ("ablate:table", "All numbers of the result of an ablation."),
    },
    "Serve": {
        "serve": ("serve:serve", "See and hear in a browser what neurons listen to; ablations over HTTP."),
    },
    "The papers' own files": {
        "export": ("papers:export", "Write a labelling as over_zero.pt, classes.txt and so on."),
        "import": ("papers:import_", "Make a table of probabilities of published files."),
    },
}
"""By group: name, where it is ("module:attribute" of this folder), and what it does, in a line that fits a terminal."""

GROUPS = {
    "corpus": "Manifests: of public data sets, from their downloads, and of sounds crossed with prompts.",
    "sae": "Sparse autoencoders of stored states, and their latents as neurons.",
    "ablate": "Rerun an encoder with some of its neurons edited, and compare with chance.",
}


class Commands(click.Group):
    """The commands of `COMMANDS` whose names begin with `prefix`."""

    def __init__(self, *args: Any, prefix: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The first words of what comes after the prefix."""
        names = [name for group in COMMANDS.values() for name in group if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.removeprefix(self.prefix).split()[0] for name in names))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command by its name, or None."""
        return load(self.prefix + name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All commands, in their groups, with their whole lines."""
        for title, group in COMMANDS.items():
            rows = [(n.removeprefix(self.prefix), line) for n, (_, line) in group.items() if n.startswith(self.prefix)]
            if rows:
                with formatter.section("Commands" if self.prefix else title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the errors that our functions raise for users become one line each."""
        if self.prefix:
            try:
                return super().invoke(ctx)
            finally:
                ctx.meta[COMMAND] = f"{self.prefix}{ctx.invoked_subcommand}"
        try:
            with as_one_line(ctx.params["debug"]):
                return super().invoke(ctx)
        finally:
            stop_repeating()


@cache
def load(name: str) -> click.Command | None:
    """The command of a name, or the group of commands that begin with it, or None."""
    if name in GROUPS:
        return Commands(name, prefix=f"{name} ", help=GROUPS[name])
    for group in COMMANDS.values():
        if name in group:
            target, line = group[name]
            module, _, attribute = target.partition(":")
            command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
            command.help = f"{line}\n\n{cleandoc(command.help or '')}"
            return command
    return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="otoscope")
def cli(debug: bool) -> None:
    """What the neurons of audio models listen to.

    Extract what every neuron did on every clip into a store, then ask it which neurons belong to which category.
    Start with `otoscope quickstart DIR`.
    """


def main() -> None:
    """Entry point of the `otoscope` command."""
    catch_signals()
    try:
        cli(prog_name="otoscope")
    finally:
        gc.freeze()  # or the interpreter looks through all that torch and pandas made before it ends: most of a second
