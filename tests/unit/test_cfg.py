"""Reading a `.cfg`: everything that occurs in public files, everything that is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.cfg import LARGEST_CFG_BYTES, parse_cfg, read_cfg
from workbench.errors import CfgError, OptionError
from workbench.network import Network, build_network
from workbench.options import Options

NET = "[net]\nwidth=8\nheight=8\nchannels=3\n"
CONV = "[convolutional]\nfilters=2\nactivation=linear\n"


def options(line: str) -> Options:
    """Of a section with one option, on line 6."""
    return Options(parse_cfg(NET + "[maxpool]\n" + line, "a.cfg").sections[0])


def build(text: str) -> Network:
    return build_network(parse_cfg(text, "a.cfg"))


def notes_of(text: str) -> list[str]:
    return [str(note) for note in build(text).notes]


def file(folder: Path, data: bytes) -> Path:
    path = folder / "a.cfg"
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------------------------------- what is read


def test_sections_know_their_lines() -> None:
    cfg = parse_cfg("# a net\n\n[net]\nwidth=8\n\n; comment\n[convolutional]\nfilters=2\n\n[yolo]\n", "a.cfg")
    assert [(s.kind, s.line) for s in (cfg.net, *cfg.sections)] == [("net", 3), ("convolutional", 7), ("yolo", 10)]
    assert cfg.sections[0].options["filters"].line == 8
    assert cfg.sections[0].where("filters") == "a.cfg:8"
    assert cfg.sections[0].where("size") == "a.cfg:7"
    assert cfg.notes == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(end: str) -> None:
    cfg = parse_cfg((NET + CONV).replace("\n", end), "a.cfg")
    assert [(key, o.value, o.line) for key, o in cfg.sections[0].options.items()] == [
        ("filters", "2", 6),
        ("activation", "linear", 7),
    ]
    assert cfg.notes == ()


def test_a_form_feed_is_no_line_end() -> None:
    assert parse_cfg("[net]\nwidth=8\x0c\nheight=8\n[maxpool]", "a.cfg").net.options["height"].line == 3


def test_byte_order_mark_and_other_encodings(tmp_path: Path) -> None:
    cfg = read_cfg(file(tmp_path, b"\xef\xbb\xbf" + (NET + "# caf\xe9\n" + CONV).encode("latin-1")))
    assert cfg.net.line == 1
    assert cfg.source == "a.cfg"
    assert cfg.path == tmp_path / "a.cfg"


def test_blanks_vanish_everywhere() -> None:
    cfg = parse_cfg(" [ net ] \nwidth = 8\n\theight=\t8 \n[max pool]\nlayers = - 1 , 8\n")
    assert {key: o.value for key, o in cfg.net.options.items()} == {"width": "8", "height": "8"}
    assert cfg.sections[0].kind == "maxpool"
    assert Options(cfg.sections[0]).integers("layers") == (-1, 8)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("conv", "convolutional"), ("max", "maxpool"), ("avg", "avgpool"), ("conn", "connected"), ("soft", "softmax"),
        ("lrn", "normalization"), ("deconv", "deconvolutional"), ("yolo", "yolo"),
    ],
)  # fmt: skip
def test_short_section_names(name: str, kind: str) -> None:
    assert parse_cfg(f"[network]\n[{name}]").sections[0].kind == kind


def test_upper_case_is_read_and_mentioned() -> None:
    cfg = parse_cfg("[Net]\nWidth=8\n[Convolutional]\nfilters=2\n[Gaussian_yolo]\n", "a.cfg")
    assert [s.kind for s in (cfg.net, *cfg.sections)] == ["net", "convolutional", "gaussian_yolo"]
    assert [str(note) for note in cfg.notes] == [
        "a.cfg:1: [Net] is read as [net]; Darknet knows only the lower case name",
        "a.cfg:2: Width= is read as width=; Darknet would not find it",
        "a.cfg:3: [Convolutional] is read as [convolutional]; Darknet knows only the lower case name",
    ]


def test_keys_that_darknet_spells_with_capitals_are_not_mentioned() -> None:
    cfg = parse_cfg("[net]\nB1=.9\nB2=.999\nworkspace_size_limit_MB=9\n[maxpool]")
    assert list(cfg.net.options) == ["b1", "b2", "workspace_size_limit_mb"]
    assert cfg.notes == ()


def test_the_first_of_two_equal_keys_wins() -> None:
    cfg = parse_cfg(NET + "[convolutional]\nstride=2\nfilters=4\nstride=1\n", "a.cfg")
    assert cfg.sections[0].options["stride"].value == "2"
    assert [str(note) for note in cfg.notes] == [
        "a.cfg:8: stride=1 is ignored: line 6 says stride=2, and the first one wins, as in Darknet"
    ]


def test_junk_after_a_section_name_is_mentioned() -> None:
    cfg = parse_cfg("[net] # size\n[maxpool]x\n", "a.cfg")
    assert [s.kind for s in (cfg.net, *cfg.sections)] == ["net", "maxpool"]
    assert str(cfg.notes[0]) == (
        "a.cfg:1: '#size' after the section header is ignored here; Darknet does not know such a section"
    )
    assert str(cfg.notes[1]).startswith("a.cfg:2: 'x' after the section header")


# ---------------------------------------------------------------------------------------------- values of options


@pytest.mark.parametrize(
    ("text", "value", "junk"),
    [("3", 3, None), ("+3", 3, None), ("-3", -3, None), ("40#32", 40, "#32"), ("180 ###P6", 180, "###P6"),
     ("1.5", 1, ".5"), ("0x10", 0, "x10"), ("007", 7, None)],
)  # fmt: skip
def test_integers_as_atoi_reads_them(text: str, value: int, junk: str | None) -> None:
    o = options(f"stride={text}")
    assert o.integer("stride", 9) == value
    assert o.integer("stride", 9) == value  # asked twice, mentioned once
    text = text.replace(" ", "")
    wanted = (
        [f"a.cfg:6: stride={text} is read as {text.removesuffix(junk)}; '{junk}' is ignored, as Darknet does"]
        if junk
        else []
    )
    assert [str(note) for note in o.notes] == wanted
    assert o.integer("size", 9) == 9


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.", 1),
        ("1e-3", 1e-3),
        ("1E3", 1000),
        ("+2.5e+1", 25),
        ("3;x", 3),
        ("1e", 1),
    ],
)
def test_numbers_as_atof_reads_them(text: str, value: float) -> None:
    assert options(f"stride={text}").number("stride", 9) == value
    assert options("size=1").number("stride", 9) == 9


def test_lists() -> None:
    assert options("layers=-1, 8").integers("layers") == (-1, 8)
    assert options("anchors=10,14,  23.5,27,").numbers("anchors") == (10, 14, 23.5, 27)
    assert options("size=1").integers("layers") == ()
    o = options("layers = -1, 180 ###P6")
    assert o.integers("layers") == (-1, 180)
    assert str(o.notes[0]) == "a.cfg:6: layers=180###P6 is read as 180; '###P6' is ignored, as Darknet does"


def test_words_lose_case_and_comment_with_a_note() -> None:
    o = options("activation=leaky")
    assert o.text("activation", "logistic") == "leaky"
    assert o.notes == []
    for written in ("Leaky", "leaky#0.1", "leaky;x"):
        o = options(f"activation={written}")
        assert o.text("activation", "logistic") == "leaky"
        # Darknet compares the whole word and computes relu for one it does not know.
        assert [str(n) for n in o.notes] == [
            f"a.cfg:6: activation={written} is read as leaky; Darknet would not know it"
        ]
    assert options("size=1").text("activation", "logistic") == "logistic"


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_c_int_is_read(value: int) -> None:
    assert options(f"stride={value}").integer("stride", 0) == value
    assert options(f"stride={value}").integers("stride") == (value,)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_c_float_is_read(value: float) -> None:
    if abs(value) <= 3.4e38:
        assert options(f"scale={value!r}").number("scale", 0) == value
        assert options(f"scale={value!r}").numbers("scale") == (value,)


@given(st.text())
def test_no_text_ends_in_anything_but_a_cfg_error(text: str) -> None:
    for whole in (text, NET + text, NET + CONV + text):
        try:
            cfg = parse_cfg(whole)
            build_network(cfg)
        except CfgError as error:
            assert str(error).startswith("cfg")


def test_keys_that_nobody_reads_are_mentioned_and_training_keys_are_not() -> None:
    text = NET + "momentum=.9\nwidht=8\n[convolutional]\nfilters=2\nstrid=2\nactivation=linear\nstopbackward=1\n"
    assert notes_of(text) == [
        "a.cfg:6: widht=8 in [net] is read by nobody; a typing error, or a key of another fork",
        "a.cfg:9: strid=2 in [convolutional] is read by nobody; a typing error, or a key of another fork",
    ]


def test_notes_of_values_reach_the_network() -> None:
    text = NET.replace("channels=3", "channels=3#rgb") + "[convolutional]\nfilters=40#32\npad=1;x\nactivation=linear\n"
    assert sorted(notes_of(text)) == [
        "a.cfg:4: channels=3#rgb is read as 3; '#rgb' is ignored, as Darknet does",
        "a.cfg:6: filters=40#32 is read as 40; '#32' is ignored, as Darknet does",
        "a.cfg:7: pad=1;x is read as 1; ';x' is ignored, as Darknet does",
    ]


def test_a_net_may_give_inputs_instead_of_a_size() -> None:
    assert build("[net]\ninputs=256\n[softmax]\n").layers[0].output_shape == (256, 1, 1)


def test_another_size_than_the_cfg_s() -> None:
    network = build_network(parse_cfg(NET + "[maxpool]\nsize=2\nstride=2\n"), 32, 16)
    assert (network.width, network.height, network.layers[0].output_shape) == (32, 16, (3, 8, 16))


# -------------------------------------------------------------------------------------------- what is refused, and how

REFUSED = [
    ("", "a.cfg: no section in the file; expected [net] and layers, found 0 characters."),
    ("# only\n", "a.cfg: no section in the file; expected [net] and layers, found 7 characters."),
    ("width=8\n[net]", "a.cfg:1: text before the first section; expected [net], found 'width=8'."),
    ("\n[yolo]\n[net]", "a.cfg:2: the first section must be [net]; expected [net] or [network], found [yolo]. "
     "Add a [net] section with width=, height= and channels=."),
    ("#x\n[net]\n", "a.cfg:2: no layer follows [net]; expected at least one layer section."),
    ("[net]\n[maxpool]\n[net]", "a.cfg:3: a second [net]; expected one. Two cfgs joined into one file?"),
    ("[net]\n[maxpool]\n\n[network]", "a.cfg:4: a second [net]; expected one. Two cfgs joined into one file?"),
    ("[net]\n[max\n", "a.cfg:2: not a section header; expected [name], found '[max'."),
    ("[]\n", "a.cfg:1: not a section header; expected [name], found '[]'."),
    ("[net]\nwidth 8\n", "a.cfg:2: neither a section, a comment nor key=value; expected key=value, found 'width 8'. "
     "Darknet skips such a line with a message; mend or remove it."),
    ("[net]\n=8\n", "a.cfg:2: neither a section, a comment nor key=value; expected key=value, found '=8'. "
     "Darknet skips such a line with a message; mend or remove it."),
    ("[net]\nheight=8\nchannels=3\n[maxpool]", "a.cfg:1: [net] needs width=; "
     "expected width=, height= and channels=, or inputs=."),
    ("[net]\nwidth=8\nheight=8\nchannels=0\n[maxpool]", "a.cfg:4: [net] needs channels=; "
     "expected width=, height= and channels=, or inputs=."),
    ("[net]\nwidth=99999\nheight=8\nchannels=3\n[maxpool]", "a.cfg:2: width= is out of range; "
     "expected 0 to 16384, found 99999."),
    ("[net]\nwidth=-8\nheight=8\nchannels=3\n[maxpool]", "a.cfg:2: width= is out of range; "
     "expected 0 to 16384, found -8."),
    (NET + "[flatten]\n", "a.cfg:5: [flatten] is a layer the workbench does not know; expected "),
    (NET + "[convolutional]\nfilters=many\n", "a.cfg:6: filters= needs a whole number; found 'many'. "
     "Darknet's atoi would read it as 0."),
    (NET + "[convolutional]\nfilters=\n", "a.cfg:6: filters= needs a whole number; found ''. "
     "Darknet's atoi would read it as 0."),
    (NET + "[convolutional]\nfilters=0\n", "a.cfg:6: filters= is out of range; expected 1 to 1048576, found 0."),
    (NET + "[convolutional]\nfilters=99999999999999999999\n", "a.cfg:6: filters= is out of range; "
     "expected 1 to 1048576, found 99999999999999999999."),
    (NET + "[convolutional]\nfilters=" + "9" * 5000 + "\n", "a.cfg:6: filters= is out of range; "
     "expected 1 to 1048576, found " + "9" * 59 + "…."),
    (NET + "[upsample]\nstride=64\nscale=big\n", "a.cfg:7: scale= needs a number; found 'big'. "
     "Darknet's atof would read it as 0."),
    (NET + "[upsample]\nscale=nan\n", "a.cfg:6: scale= needs a number; found 'nan'. "
     "Darknet's atof would read it as 0."),
    (NET + "[upsample]\nscale=-1e39\n", "a.cfg:6: scale= is out of range; expected at most 3.4e+38, found -1e39."),
    (NET + "[route]\nlayers=-1,x\n", "a.cfg:6: layers= needs numbers between commas; found '-1,x'. 'x' is none."),
    (NET + "[route]\nlayers=9999999999\n", "a.cfg:6: layers= is out of range; "
     "expected -2147483648 to 2147483647, found 9999999999."),
    (NET + "[convolutional]\nfilters=1048576\n" + "[upsample]\nstride=64\n" * 2, "a.cfg:7: layer 1 puts out "
     "1048576 x 512 x 512 values; expected at most 2147483647, as Darknet counts them."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[words[:60] for _, words in REFUSED])
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(CfgError) as caught:
        build(text)
    assert str(caught.value) == words or (words.endswith("expected ") and str(caught.value).startswith(words))


def test_an_anchor_must_be_finite() -> None:
    with pytest.raises(
        CfgError, match=r"^a\.cfg:6: anchors= is out of range; expected at most 3\.4e\+38, found 1e999\.$"
    ):
        options("anchors=10,1e999").numbers("anchors")


def test_sizes_that_no_network_has() -> None:
    cfg = parse_cfg(NET + "[maxpool]")
    for size in ((0, 8), (8, -8), (16385, 8)):
        with pytest.raises(
            OptionError, match=r"^size: out of range; expected 1 to 16384 pixels, found (0|-8|16385)\.$"
        ):
            build_network(cfg, *size)


def test_weights_given_as_cfg(tmp_path: Path) -> None:
    path = file(tmp_path, bytes([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]))
    with pytest.raises(CfgError) as caught:
        read_cfg(path)
    assert str(caught.value) == (
        "a.cfg: holds zero bytes; expected text, found a zero byte at 0x0. "
        "A .weights file given as cfg? The order is: cfg first, weights second."
    )


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = file(tmp_path, b"#" * (LARGEST_CFG_BYTES + 1))
    with pytest.raises(CfgError, match=r"^a\.cfg: too large for a cfg; expected at most 1048576 bytes, found more\.$"):
        read_cfg(path)


@pytest.mark.parametrize(
    ("name", "reason"), [("no.cfg", "No such file or directory"), (".", "Is a directory"), ("\0", "embedded null byte")]
)
def test_no_file(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(CfgError) as caught:
        read_cfg(tmp_path / name)
    assert str(caught.value).endswith(f": cannot read the cfg; found {reason}. Check the path.")
    assert str(caught.value).startswith(str(tmp_path / name).replace("\0", "\\x00"))


def test_real_cfgs_are_read_without_an_error_of_syntax(shared: Path) -> None:
    paths = sorted((shared / "oracle" / "cfgs").rglob("*.cfg"))
    assert len(paths) == 226
    counted = [len(read_cfg(path).sections) for path in paths]
    # A section is a line that starts with a bracket, whatever else the file holds.
    lines = [[line for line in path.read_bytes().splitlines() if line.strip().startswith(b"[")] for path in paths]
    assert counted == [len(found) - 1 for found in lines]
