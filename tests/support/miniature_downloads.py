"""Miniature downloads: the folders, file names and metadata of the real ones, with a few empty audio files each."""

import json
from collections.abc import Iterable
from pathlib import Path

ESC50 = """airplane breathing brushing_teeth can_opening car_horn cat chainsaw chirping_birds church_bells clapping
clock_alarm clock_tick coughing cow crackling_fire crickets crow crying_baby dog door_wood_creaks door_wood_knock
drinking_sipping engine fireworks footsteps frog glass_breaking hand_saw helicopter hen insects keyboard_typing laughing
mouse_click pig pouring_water rain rooster sea_waves sheep siren sneezing snoring thunderstorm toilet_flush train
vacuum_cleaner washing_machine water_drops wind""".split()  # noqa: SIM905
TECHNIQUES = "belt breathy inhaled lip_trill spoken straight trill trillo vibrato vocal_fry".split()  # noqa: SIM905
MORE_TECHNIQUES = ["fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano"]


def touch(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def esc50(root: Path) -> None:
    rows = [
        f"{1 + i % 5}-{1000 + i // 2}-A-{i // 2}.wav,{1 + i % 5},{i // 2},{ESC50[i // 2]},True,{1000 + i // 2},A"
        for i in range(100)
    ]
    touch(root, [f"ESC-50-master/audio/{row.split(',')[0]}" for row in rows])
    (root / "ESC-50-master/meta").mkdir()
    header = "filename,fold,target,category,esc10,src_file,take"
    (root / "ESC-50-master/meta/esc50.csv").write_text("\n".join([header, *rows, ""]))


def gise51(root: Path, categories: Iterable[str]) -> None:
    for i, category in enumerate(categories):
        touch(
            root, [f"isolated_events/{split}/{category}/{100 * i + j}.wav" for j, split in enumerate(["train", "val"])]
        )
    touch(root, ["isolated_events/eval/Dog/9000.wav", "isolated_events/eval/.DS_Store", "__MACOSX/eval/Dog/._9000.wav"])


def voxforge(root: Path, *, server_folders: bool, each: int = 3) -> None:
    host = "www.repository.voxforge1.org/downloads"
    addresses = []
    for language in ["de", "en", "es", "fr", "it", "ru"]:
        for speaker in ["anonymous", "ralf"]:
            submission = f"{speaker}-20080102-{language}x"
            folder = f"{host}/{language}/Trunk/Audio/Main/16kHz_16bit/"
            addresses.append(f'"{folder}{submission}.tgz"')
            touch(root, [f"{folder if server_folders else ''}{submission}/wav/{language}{i}.wav" for i in range(each)])
            touch(root, [f"{folder if server_folders else ''}{submission}/etc/PROMPTS"])
    if not server_folders:
        (root / "voxforge_urls.txt").write_text("\n".join(addresses))


def voxceleb1(root: Path) -> None:
    speakers = ["id10001\tA.J._Buckley\tm\tIreland\tdev", "id10002\tA.R._Rahman\tm\tIndia\tdev",
                "id10003\tAamir_Khan\tf\tIreland\tdev", "id10270\tEartha_Kitt\tf\tUSA\ttest"]  # fmt: skip
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
    (root / "vox1_meta.csv").write_text("\n".join([header, *speakers, ""]))
    lines = []
    for speaker in speakers:
        name, _, _, _, part = speaker.split("\t")
        for i in range(3):
            lines.append(f"{i + 1} {name}/1zcIwhmdeo4/0000{i + 1}.wav")
            touch(root, [f"vox1_{part}_wav/wav/{lines[-1].split()[1]}"])
    (root / "iden_split.txt").write_text("\n".join([*lines, ""]))


def cremad(root: Path) -> None:
    (root / "VideoDemographics.csv").write_text(
        "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n1002,21,Female,Caucasian,Not Hispanic\n"
    )
    emotions = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
    touch(root, [f"AudioWAV/{actor}_DFA_{e}_XX.wav" for actor in (1001, 1002) for e in emotions])
    touch(root, ["AudioWAV/._1001_DFA_ANG_XX.wav"])


GENRES = ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"]


def gtzan(root: Path, ending: str = "wav", *, lists: bool = False) -> None:
    touch(root, [f"genres/{genre}/{genre}.0000{i}.{ending}" for genre in GENRES for i in range(4)])
    if lists:  # the fourth of each genre is in none
        for i, split in enumerate(["train", "valid", "test"]):
            names = [f"{genre}/{genre}.0000{i}.wav" for genre in GENRES]
            (root / f"{split}_filtered.txt").write_text("\n".join([*names, ""]))


def surge(root: Path, notes: Iterable[str], tones: int = 3) -> None:
    for note in notes:
        touch(root, [f"Tone {tone}/{note}.ogg" for tone in range(tones)])


FAMILIES = "bass brass flute guitar keyboard mallet organ reed string synth_lead vocal".split()  # noqa: SIM905


def nsynth(root: Path) -> None:
    for split, pitches in [("train", [9, 21, 59, 60]), ("valid", [108]), ("test", [109])]:
        notes = {
            f"{family}_acoustic_{i:03}-{pitch:03}-075": {
                "instrument_family_str": family, "pitch": pitch, "instrument_str": f"{family}_acoustic_{i:03}",
                "velocity": 75, "sample_rate": 16000,
            }
            for i, family in enumerate(FAMILIES)
            for pitch in pitches
        }  # fmt: skip
        touch(root, [f"nsynth-{split}/audio/{name}.wav" for name in notes])
        (root / f"nsynth-{split}/examples.json").write_text(json.dumps(notes))


SINGERS = [*(f"female{i}" for i in range(1, 10)), *(f"male{i}" for i in range(1, 12))]


def vocalset(root: Path, top: str = "data_by_singer") -> None:
    for singer in SINGERS:
        short = singer[0] + singer.rpartition("male")[2]
        for technique in [*TECHNIQUES, *MORE_TECHNIQUES]:
            stem = f"{top}/{singer}/arpeggios/{technique}/{short}_arpeggios_{technique}"
            touch(root, [f"{stem}_{vowel}.wav" for vowel in "aeiou"] if technique != "spoken" else [f"{stem}.wav"])
        touch(root, [f"{top}/{singer}/excerpts/straight/{short}_row_straight.wav"])
    touch(root, [f"{top}/male1/scales/straight/m1_scales_straight_c.wav"])
    touch(root, [f"{top}/male1/long_tones/vibrado/m1_long_vibrado_a.wav"])
