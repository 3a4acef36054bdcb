"""The files in cluster/deploy: they parse, they say what docs/cluster.md says, and their commands are real ones."""

import re
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from otoscope.cli.main import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
GUIDE = (ROOT / "docs" / "cluster.md").read_text()


def lines_of(text: str) -> list[str]:
    """Commands that begin with `otoscope extract`, each without the quote or the ampersand that ends it."""
    found = re.findall(r"(?<![`\w])(otoscope extract .*)", text)
    return [
        line.removesuffix(" &").removesuffix('"') if line.count('"') % 2 else line.removesuffix(" &") for line in found
    ]


def parsed(line: str) -> dict[str, Any]:
    """The options of a command as the real one understands them. Raises click.UsageError where it does not."""
    _, name, *words = shlex.split(line)
    context = click.Context(cli, **cli.context_settings)  # commands keep the help option of their first context
    command = cli.get_command(context, name)
    assert command is not None
    return dict(command.make_context(name, words, parent=context).params)


def on_ray(line: str, gpus: float) -> dict[str, Any]:
    options = parsed(line)
    assert options["executor"] == "ray"
    assert options["address"]
    assert options["gpus_per_actor"] == gpus
    assert options["task"] == "speech"
    return options


def test_ray_cluster() -> None:
    text = (DEPLOY / "ray-cluster.yaml").read_text()
    cluster = yaml.safe_load(text)
    assert {"cluster_name", "max_workers", "provider", "auth", "available_node_types", "head_node_type"} <= set(cluster)
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    (worker,) = types.values()
    assert worker["max_workers"] == cluster["max_workers"]
    assert any("--head" in line for line in cluster["head_start_ray_commands"])
    assert any("--address=$RAY_HEAD_IP:6379" in line for line in cluster["worker_start_ray_commands"])
    assert any(f"ray[default]=={version('ray')}" in line for line in cluster["setup_commands"])
    (line,) = lines_of(text)
    options = on_ray(line, gpus=worker["resources"]["GPU"])
    assert options["actors"] == worker["max_workers"]  # a cluster that grows on demand is told how many
    assert options["cpus_per_actor"] == worker["resources"]["CPU"]


def test_kuberay_job() -> None:
    job = yaml.safe_load((DEPLOY / "kuberay-rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] >= 1
    assert spec["rayClusterSpec"]["rayVersion"] == version("ray")
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    options = on_ray(spec["entrypoint"], gpus=float(limits["nvidia.com/gpu"]))
    assert options["actors"] == workers["replicas"]
    assert options["cpus_per_actor"] == float(limits["cpu"])
    mounts = [*head["template"]["spec"]["containers"][0]["volumeMounts"], *container["volumeMounts"]]
    assert {mount["mountPath"] for mount in mounts} == {"/data"}  # one file system on all nodes
    assert options["store"].startswith("/data/")
    assert options["report"].startswith("/data/")


def test_slurm_script() -> None:
    script = DEPLOY / "slurm.sh"
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    text = script.read_text()
    given = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, flags=re.MULTILINE))
    assert {"nodes", "gpus-per-node", "cpus-per-task", "time", "requeue", "signal"} <= set(given)
    (line,) = lines_of(text)
    options = on_ray(line, gpus=1.0)
    assert options["cpus_per_actor"] * int(given["gpus-per-node"]) <= int(given["cpus-per-task"])
    assert "$SLURM_JOB_ID" in options["report"]


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.iterdir()))
def test_each_file_is_explained(name: str) -> None:
    assert f"`{name}`" in GUIDE
    assert name in {"ray-cluster.yaml", "kuberay-rayjob.yaml", "slurm.sh"}


def test_commands_of_the_guide_are_real() -> None:
    lines = [line.strip() for line in GUIDE.splitlines() if line.startswith("    otoscope ")]
    assert len(lines) > 3
    for line in lines:
        assert parsed(line)["executor"] == "ray"
