"""A file written before some of the config's fields existed opens as the model it was."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import msgpack
import numpy as np

from phi_model import ModelConfig, load_checkpoint

# 0.1.0 before n_kv_head: a model whose n-th element of each array is (n % 5 - 1.5) / 2
FILE = """
c-qC1y-OoO7{({bAzB3PI!m<?3)kFfDH^c#AFx^`J8!bX?#_%mlZYZ{VIg*kja|fi7g~j&9Cydva*c5P)pw1R*jY
N8C7`ZRgM}{)^Z9$8XPDWo<+<-+bt-H+ZP{Qsf>Wj%-JvXc!G~kx@Ke16zNDNbY8GdCTG*>Nl#!EyP^}WTaL$x;1
5$MftELNVxXw%$uY;ecG1CT2!XCUFNjCJH5&|sIR1`>e^JmlN0?ZtiaGBl8qOclFhcZFP%Z2~9?cIO&O+_jYQ%%J
kVA{+7(eOZFf)(DbD`1lQ@@S{Rum@)zC*aO#KOls%LY1g>0VnhMxvI3WfP+-BYWddemp_wZ&Pv4mors`rYH4H)th
A`oH#Wm0MgddySZBW{bKO}+k<8bAD#of)iscyU37p$YS1$?hqKXM5djjdrU*)F-JXZ{KgNrz?Q3YmEyvDxs1Wx!G
i?fNCbvt77lwo(E%&iCv|I+hs9i-9y`mNh2LfP*KZGY2kL5~*^Dldj>!8m%ULVmc%2cOZP74n&W{{7a1kq7+8$7h
47f&AZ^|GoX+%J+T$JM-vmvH
"""
LOGITS = [
    [-0.748832, 0.356678, 1.060686],
    [0.307234, -0.32871, -0.116034],
    [0.653135, -0.103546, -1.28835],
    [0.490124, -0.364513, -0.464883],
]  # of ids 0, 1, 2, 1


def stored(tmp_path: Path) -> Path:
    path = tmp_path / "old.phi"
    path.write_bytes(zlib.decompress(base64.b85decode(FILE.replace("\n", ""))))
    return path


def test_the_stored_header_has_none_of_the_younger_fields(tmp_path: Path) -> None:
    with stored(tmp_path).open("rb") as file:
        header = next(msgpack.Unpacker(file))
    assert header["version"] == 1
    fields = "kind vocab_size seq_len n_layer n_head n_embd n_hidden tied_head rope_base norm_eps"
    assert list(header["config"]) == fields.split()


def test_missing_fields_take_their_defaults(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(stored(tmp_path))
    assert checkpoint.step == 41
    assert checkpoint.config == ModelConfig(
        vocab_size=3,
        seq_len=8,
        n_layer=1,
        n_head=1,
        n_embd=2,
        n_hidden=1,
        tied_head=False,
        rope_base=500.0,
        n_kv_head=1,
        qk_norm=False,
        rope_scaling=1.0,
        residual_init="small",
    )


def test_its_model_gives_the_logits_it_gave(tmp_path: Path) -> None:
    model = load_checkpoint(stored(tmp_path)).model
    for value in model.parameters.values():
        np.testing.assert_array_equal(value.ravel(), (np.arange(value.size) % 5 - 1.5) / 2)
    np.testing.assert_allclose(model.logits([[0, 1, 2, 1]])[0], LOGITS, atol=1e-5)
