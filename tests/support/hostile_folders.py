"""Model folders and checkpoints that lie about themselves, each loaded as an extraction would.

Goal: `python -m tests.support.hostile_folders FOLDER` makes them and says what came of each.
Conventions: a case changes a copy of a good folder. For each, one line of JSON: case, error (its type, "" for none),
message, seconds. Memory is limited to what the libraries take up and MAX_BYTES more, time to MAX_SECONDS a case.
"""

import json
import math
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from otoscope.extract.models.registry import load_encoder
from otoscope.extract.plan import origin_of

from ..extract.models.test_spectrogram_transformers import write_ast, write_whisper
from ..extract.models.test_speech import write
from .m2d_in_numpy import encoder_state

MAX_BYTES, MAX_SECONDS = 1_000_000_000, 20
M2D = "m2d_vit_tiny-80x112p16x16-230101"
STATE = encoder_state(depth=2, width=48, hidden=64, n_patches=35, patch=(16, 16))
Change = Callable[[Path], object]


def config(name: str = "config.json", **changes: Any) -> Change:
    """Settings replaced in one of the JSON files; those of None are left out."""

    def change(folder: Path) -> None:
        content = {**json.loads((folder / name).read_text()), **changes}
        (folder / name).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def front_end(**changes: Any) -> Change:
    return config("preprocessor_config.json", **changes)


def header(change: Callable[[dict[str, Any]], Any], size: int | None = None) -> Change:
    """The header of model.safetensors replaced, its stated size too."""

    def write_header(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        n = struct.unpack("<Q", data[:8])[0]
        content = change(json.loads(data[8 : 8 + n]))
        new = content if isinstance(content, bytes) else json.dumps(content).encode()
        stated = struct.pack("<Q", len(new) if size is None else size)
        (folder / "model.safetensors").write_bytes(stated + new + data[8 + n :])

    return write_header


def first_tensor(**changes: Any) -> Change:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        name = next(name for name in content if name != "__metadata__")
        return {**content, name: {**content[name], **changes}}

    return header(change)


def sharded(weight_map: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return change


def torch_file(make: Callable[[dict[str, torch.Tensor]], Any], **how: Any) -> Change:
    """pytorch_model.bin in place of model.safetensors."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(make(tensors), folder / "pytorch_model.bin", **how)

    return change


def as_one_value(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of their shapes, with nothing behind them."""
    return {name: torch.zeros(1).expand(value.shape) for name, value in tensors.items()}


def compressed(folder: Path) -> None:
    """A zip file whose pickle is a gigabyte of zeros."""
    (folder / "model.safetensors").unlink()
    file = zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED)
    with file as archive, archive.open("archive/data.pkl", "w") as entry:
        for _ in range(1000):
            entry.write(bytes(1_000_000))


def text_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps("x" * 100, protocol=2))


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("ran",)


def fifo(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def link(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def sparse(folder: Path) -> None:
    """40 GB of nothing behind a header that claims them."""
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(40_000_000_000)


HUGE = 10**9
DEEP = "[" * 100_000
SPEECH: dict[str, Change] = {
    "layers 10^7": config(num_hidden_layers=10**7),
    "layers 10^30": config(num_hidden_layers=10**30),
    "layers -1": config(num_hidden_layers=-1),
    "layers 0": config(num_hidden_layers=0),
    "layers text": config(num_hidden_layers="many"),
    "layers NaN": config(num_hidden_layers=math.nan),
    "width 10^9": config(hidden_size=HUGE),
    "width 10^6": config(hidden_size=10**6),
    "width -32": config(hidden_size=-32),
    "width 0": config(hidden_size=0),
    "width 32.5": config(hidden_size=32.5),
    "width list": config(hidden_size=[32]),
    "width nested": config(hidden_size=[[[32]]]),
    "width object": config(hidden_size={"a": 32}),
    "neurons 10^9": config(intermediate_size=HUGE),
    "neurons -40": config(intermediate_size=-40),
    "heads 0": config(num_attention_heads=0),
    "heads 5": config(num_attention_heads=5),
    "heads -4": config(num_attention_heads=-4),
    "activation unknown": config(hidden_act="os.system"),
    "activation list": config(hidden_act=["gelu"]),
    "norm unknown": config(feat_extract_norm="x\x1b[31m\ny"),
    "eps infinite": config(layer_norm_eps=math.inf),
    "kernels of lists": config(conv_kernel=[[10]] * 7),
    "kernels few": config(conv_kernel=[10]),
    "kernels many": config(conv_kernel=[3] * 10**5, conv_stride=[1] * 10**5, conv_dim=[8] * 10**5),
    "kernels 10^9": config(conv_kernel=[HUGE] * 7),
    "strides 10^6": config(conv_stride=[10**6] * 7),
    "strides 0": config(conv_stride=[0] * 7),
    "strides negative": config(conv_stride=[-5] * 7),
    "strides text": config(conv_stride="5222222"),
    "channels 10^9": config(conv_dim=[HUGE] * 7),
    "positions 10^9": config(num_conv_pos_embeddings=HUGE),
    "position groups 0": config(num_conv_pos_embedding_groups=0),
    "config null": text("config.json", "null"),
    "config deep": text("config.json", DEEP),
    "config deep objects": text("config.json", '{"a":' * 50_000),
    "config long": text("config.json", '{"model_type": "' + "x" * 20_000_000 + '"}'),
    "config digits": text("config.json", '{"hidden_size": ' + "9" * 10_000 + "}"),
    "config bytes": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{"),
    "config fifo": fifo("config.json"),
    "config zeros": link("config.json", "/dev/zero"),
    "type of 10^6 letters": config(model_type="x" * 10**6),
    "type list": config(model_type=["hubert"]),
    "rate 10^9": front_end(sampling_rate=HUGE),
    "rate 0": front_end(sampling_rate=0),
    "rate -1": front_end(sampling_rate=-1),
    "rate true": front_end(sampling_rate=True),
    "rate text": front_end(sampling_rate="16k"),
    "normalise text": front_end(do_normalize="yes"),
    "front end fifo": fifo("preprocessor_config.json"),
    "tensor type unknown": first_tensor(dtype="F99"),
    "tensor of integers": first_tensor(dtype="I32"),
    "tensor huge": first_tensor(shape=[2**40, 2**20]),
    "tensor negative": first_tensor(shape=[-1, 3]),
    "tensor of text": first_tensor(shape="big"),
    "tensor overflowing": first_tensor(shape=[2**63, 2**63]),
    "offsets outside": first_tensor(data_offsets=[0, 2**50]),
    "offsets reversed": first_tensor(data_offsets=[400, 0]),
    "offsets of text": first_tensor(data_offsets=["a", "b"]),
    "header list": header(lambda _: []),
    "header deep": header(lambda _: DEEP.encode()),
    "header 2^62": header(lambda content: content, size=2**62),
    "header 80 MB": header(lambda content: json.dumps(content).encode() + b" " * 80_000_000),
    "names odd": header(lambda content: {f"\x1b[2J\n{name}" * 40: value for name, value in content.items()}),
    "weights sparse": sparse,
    "weights fifo": fifo("model.safetensors"),
    "weights zeros": link("model.safetensors", "/dev/zero"),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "index list": sharded(["model-00001-of-00001.safetensors"]),
    "index of numbers": sharded({"a": 1}),
    "index of lists": sharded({"a": ["model-00001-of-00001.safetensors"]}),
    "index null": sharded(None),
    "index elsewhere": sharded({"a": "../../etc/passwd"}),
    "index absolute": sharded({"a": "/etc/passwd"}),
    "index parent": sharded({"a": ".."}),
    "index of folders": sharded({"a": "."}),
    "index long name": sharded({"a": "x" * 10**6}),
    "index NUL": sharded({"a": "a\0b"}),
    "torch list": torch_file(list),
    "torch code": torch_file(lambda tensors: {**tensors, "a": Malice()}),
    "torch code, old": torch_file(lambda tensors: {**tensors, "a": Malice()}, _use_new_zipfile_serialization=False),
    "torch one value": torch_file(as_one_value),
    "torch one value, old": torch_file(as_one_value, _use_new_zipfile_serialization=False),
    "torch meta": torch_file(lambda tensors: {name: value.to("meta") for name, value in tensors.items()}),
    "torch sparse": torch_file(lambda tensors: {k: v.to_sparse() if v.ndim == 2 else v for k, v in tensors.items()}),
    "torch complex": torch_file(lambda tensors: {k: v.to(torch.complex64) for k, v in tensors.items()}),
    "torch integers": torch_file(lambda tensors: {k: v.to(torch.int8) for k, v in tensors.items()}),
    "torch compressed": compressed,
    "torch text": text_pickle,
}
OTHERS: dict[str, dict[str, Change]] = {
    "data2vec": {"positions 10^6": config(num_conv_pos_embeddings=10**6)},
    "wav2vec2": {"adapters 10^8": config(add_adapter=True, num_adapter_layers=10**8)},
    "wavlm": {"buckets 10^9": config(num_buckets=HUGE), "buckets -1": config(num_buckets=-1)},
    "whisper": {
        "layers 10^7": config(encoder_layers=10**7),
        "window 10^9": config(max_source_positions=HUGE),
        "window -1": config(max_source_positions=-1),
        "bands 10^9": lambda folder: (config(num_mel_bins=HUGE)(folder), front_end(feature_size=HUGE)(folder)),
        "heads 0": config(encoder_attention_heads=0),
        "dither list": front_end(dither=[0.0] * 10**5),
        "length of 10^9 s": front_end(chunk_length=HUGE),
    },
    "ast": {
        "bands 10^9": lambda folder: (config(num_mel_bins=HUGE)(folder), front_end(num_mel_bins=HUGE)(folder)),
        "frames 10^9": lambda folder: (config(max_length=HUGE)(folder), front_end(max_length=HUGE)(folder)),
        "frames -96": lambda folder: (config(max_length=-96)(folder), front_end(max_length=-96)(folder)),
        "patch 0": config(patch_size=0),
        "patch 10^9": config(patch_size=HUGE),
        "strides 0": config(frequency_stride=0),
        "mean NaN": front_end(mean=math.nan),
        "deviation infinite": front_end(std=math.inf),
        "deviation 0": front_end(std=0.0),
    },
}
# Names of folders, and what is in the file; metadata for safetensors.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any], dict[str, str] | None]] = {
    "patch 0": ("m2d-80x112p0x0", STATE, None),
    "patch larger than input": ("m2d-80x112p500x500", STATE, None),
    "input 0": ("m2d-0x0p16x16", STATE, None),
    "input 999999 x 999999": ("m2d-999999x999999p1x1", STATE, None),
    "input of a hundred digits": (f"m2d-{'9' * 100}x112p16x16", STATE, None),
    "bands 10^5": ("m2d-100000x16p100000x16", STATE, None),
    "rate 0": (f"{M2D}-0", STATE, {"geometry": "m2d-80x112p16x16p0k"}),
    "heads text": (M2D, STATE, {"heads": "many"}),
    "heads 0": (M2D, STATE, {"heads": "0"}),
    "heads of a hundred digits": (M2D, STATE, {"heads": "9" * 100}),
    "geometry long": (M2D, STATE, {"geometry": "m2d-" + "9" * 100_000 + "x112p16x16", "heads": "-1"}),
    "block 10^9": (M2D, {**STATE, "blocks.1000000000.mlp.fc1.weight": torch.zeros(1)}, None),
    "block of text": (M2D, {**STATE, "blocks.x.mlp.fc1.weight": torch.zeros(1)}, None),
    "block alone": (M2D, {**STATE, "blocks.": torch.zeros(1)}, None),
    "cls a number": (M2D, {**STATE, "cls_token": torch.zeros(())}, None),
    "cls empty": (M2D, {**STATE, "cls_token": torch.zeros(1, 1, 0)}, None),
    "neurons a number": (M2D, {**STATE, "blocks.0.mlp.fc1.weight": torch.zeros(())}, None),
    "neurons none": (M2D, {**STATE, "blocks.0.mlp.fc1.weight": torch.zeros(0, 48)}, None),
    "deviation 0": (M2D, {**STATE, "norm_stats": torch.tensor([-7.0, 0.0])}, None),
    "statistics NaN": (M2D, {**STATE, "norm_stats": torch.tensor([math.nan, 1.0])}, None),
    "weights NaN": (M2D, {**STATE, "norm.weight": torch.full((48,), math.nan)}, None),
    "weights of integers": (M2D, {**STATE, "norm.weight": torch.ones(48, dtype=torch.int64)}, None),
    "positions wide": (M2D, {**STATE, "pos_embed": torch.zeros(1, 36, 4800)}, None),
    "names odd": (M2D, {"\x1b[2J\nname" * 50: torch.zeros(1)}, None),
}


def cases(folder: Path) -> Iterator[tuple[str, str]]:
    """(case, name of the encoder), the folder written just before."""
    good = {kind: write(folder / "good", kind)[1] for kind in ("hubert", "wav2vec2", "wavlm", "data2vec")}
    good |= {"whisper": write_whisper(folder / "good")[1], "ast": write_ast(folder / "good")[1]}
    for family, changes in {"hubert": SPEECH, **OTHERS}.items():
        yield f"{family}, good", f"{family}:{good[family]}"
        for i, (name, change) in enumerate(changes.items()):
            copy = folder / f"{family}{i}"
            shutil.copytree(good[family], copy)
            change(copy)
            yield f"{family}, {name}", f"{family}:{copy}"
    for name, (called, state, metadata) in {"good": (M2D, STATE, None), **CHECKPOINTS}.items():
        copy = folder / name.replace(" ", "_") / called
        copy.mkdir(parents=True)
        save_file(state, copy / "model.safetensors", metadata)
        yield f"m2d, {name}", f"m2d:{copy}"


def late(*_: object) -> None:
    raise TimeoutError(f"took {MAX_SECONDS} s")


def main(folder: Path) -> None:
    """Load them all and say what came of it."""
    torch.set_num_threads(1)
    for reached in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(reached, late)
    limited = False
    for case, spec in cases(folder):
        # Of the processor; by the clock six times as long, for a machine may be busy.
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        signal.alarm(6 * MAX_SECONDS)
        began, error, message = time.process_time(), "", ""
        try:
            origin_of(load_encoder(spec), "audio")
        except Exception as raised:
            error, message = type(raised).__name__, str(raised)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        sys.stdout.write(
            json.dumps({"case": case, "error": error, "message": message, "seconds": time.process_time() - began})
            + "\n"
        )
        if not limited:  # the libraries are in memory after the first
            status = Path("/proc/self/status").read_text()
            used = int(status.split("VmSize:")[1].split()[0]) * 1024 + MAX_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (used, used))
            limited = True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
