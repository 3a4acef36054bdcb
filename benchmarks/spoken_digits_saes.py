"""What sparse autoencoders of real speech are worth, from recordings to figures, by the commands alone.

    python -m benchmarks.spoken_digits_saes WAVS FOLDER

WAVS: folder of the Free Spoken Digit Dataset's recordings, {digit}_{speaker}_{take}.wav, which are not part of this
project. FOLDER: where everything goes; commands that ended are listed in its commands.txt, and not run again. Each is
printed before it runs, what it says and the seconds of processor time that it took after it. Of digits, speakers are
never on both sides of anything.

Codes of one state by sparsity; latents against neurons, single dimensions, principal components, SAEs that were never
trained and SAEs whose decoder stays random; what comes back with another seed; 88 eGeMAPS factors of the first takes;
an ablation of what is specific for one speaker. The factors need `pip install 'otoscope[sae]'`.
"""

import argparse
import resource
import shlex
import subprocess
from pathlib import Path

from tests.support.commands import command as otoscope

from .spoken_digits import manifest_of

TAKES = 4  # of each digit and speaker, of which factors are measured
SPARSITIES, SEEDS, COMPARED = ("0.75", "0.9", "0.95"), (0, 1), "0.95"
CONTROLS = ("untrained", "random-decoder")
FOLDERS = ("trained", *CONTROLS)


def commands() -> list[str]:
    """In their order."""
    keep = "--unit-sec 1 --keep active_bits,mean,frame_count,embedding,hidden"
    sweep = f"--state 2 --latents 256 --sparsity {','.join(SPARSITIES)} --seed 0,1 --group speaker"
    every = [(folder, f"{folder}/state2-s{s}-seed{seed}") for folder in FOLDERS for s in SPARSITIES for seed in SEEDS]
    one = f"trained/state2-s{COMPARED}-seed0"
    known = " ".join(f"--saes {folder}" for folder in FOLDERS)
    found = [
        f"extract digits.zarr --encoder tiny-ssl --corpus digits.csv --task speech {keep}",
        f"extract few.zarr --encoder tiny-ssl --corpus few.csv --task speech {keep}",
    ]
    for folder in FOLDERS:
        control = "none" if folder == FOLDERS[0] else folder
        found.append(f"sae train digits.zarr --task speech {sweep} --control {control} -o {folder}")
        own = " ".join(f"--sae {path}" for of, path in every if of == folder)
        found.append(f"sae encode digits.zarr --task speech {own} -o {folder}.zarr")
        seed_0 = " ".join(f"--sae {path}" for of, path in every if of == folder and path.endswith("seed0"))
        found.append(f"sae encode few.zarr --task speech {seed_0} -o few-{folder}.zarr")
        found.append(f"sae stability {folder} -o stability-{folder}.csv")
    latents = " ".join(f"{folder}.zarr" for folder in FOLDERS)
    at = ",".join(str(i) for i, (of, path) in enumerate(every) if of == FOLDERS[0] and f"-s{COMPARED}-" in path)
    beside = " ".join(f"--control {folder}={folder}.zarr@{at}" for folder in CONTROLS)
    few = " ".join(f"few-{folder}.zarr" for folder in FOLDERS)
    asked = "--task speech:digit --group speaker"
    found += [
        f"sae probe digits.zarr {latents} {asked} {known} -o probes.csv",
        "figure probes probes.csv -o probes.png",
        f"sae compare digits.zarr {FOLDERS[0]}.zarr@{at} {beside} {asked} -o compared.csv",
    ]
    found += [
        "sae factors few.csv --unit-sec 1 -o factors.parquet",
        f"sae disentangle few.zarr {few} --task speech --group speaker --folds 3 --factors factors.parquet {known} "
        "-o disentangled.csv",
        *(f"figure {kind} disentangled.csv -o {kind}.png" for kind in ("disentanglement", "families", "entropy")),
        f"sae encode digits.zarr --task speech --sae {one} -o one.zarr",
        "ablate run one.zarr --task speech:speaker --set 'all(theo)' --controls 200 --encoder "
        f"latents:{one}@tiny-ssl --corpus digits.csv -o without.parquet",
        "figure ablation without.parquet -o without.png",
    ]
    return found


def run(command: str, folder: Path) -> None:
    """Run a command there, unless it ended there before."""
    print(f"\n$ otoscope {command}", flush=True)
    ended = folder / "commands.txt"
    if ended.exists() and command in ended.read_text(encoding="utf-8").splitlines():
        return
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(otoscope(*shlex.split(command)), cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with ended.open("a", encoding="utf-8") as file:
        file.write(f"{command}\n")
    print(f"({after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spoken_digits_saes")
    parser.add_argument("wavs", metavar="WAVS", type=Path)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    every = manifest_of(options.wavs)
    take = every["path"].str.extract(r"_(\d+)\.wav$", expand=False).astype(int)
    every.to_csv(options.folder / "digits.csv", index=False)
    every[take < TAKES].to_csv(options.folder / "few.csv", index=False)
    for command in commands():
        run(command, options.folder)


if __name__ == "__main__":
    main()
