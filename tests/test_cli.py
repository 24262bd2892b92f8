"""The command as a new user meets it: what it says, what it refuses and how that is mended, what it leaves alone."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from strategies import assert_equal, checkpoints
from typer.main import get_command

import adamerging_lib as am
from adamerging_lib import cli
from adamerging_lib import state as st
from adamerging_lib.checkpoints import KINDS
from adamerging_lib.cli import main
from adamerging_lib.methods import registry
from adamerging_study.book import build, rerun
from adamerging_study.book import pictures as drawing


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with base, a and b as safetensors files."""
    pretrained, experts = checkpoints(0, 2, torch.float32)
    for name, state in zip(("base", "a", "b"), (pretrained, *experts.values()), strict=True):
        st.save(tmp_path / f"{name}.safetensors", state)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merge(*more, method="ties", experts=("a=a.safetensors", "b=b.safetensors"), out="m.safetensors"):
    named = [word for expert in experts for word in ("--expert", expert)]
    return ["merge", "--method", method, "--pretrained", "base.safetensors", *named, "--out", out, *more]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, capsys, arguments, *told):
    """Exit code 2, these words on stderr, no traceback, every file as it was."""
    before = contents(folder)
    code = main(arguments)
    error = capsys.readouterr().err
    assert code == 2 and "Traceback" not in error
    for words in told:
        assert words in error
    assert contents(folder) == before


def test_merge_says_what_it_did(folder, capsys):
    assert main(merge("--set", "keep=0.5", "--set", "reduction=mean")) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Ties-Merging (ties) of 2 experts: keep=0.5, reduction='mean', scaling=0.3\n")
    assert "4 tensors, 19 parameters, float32; 1 buffer copied from pretrained" in said.out
    lines = said.out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("expert"))
    assert lines[start].split() == ["expert", "distance", "relative", "changed", "conflict", "nearest"]
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["a", "b"]
    assert lines[-1].startswith("wrote m.safetensors, ")
    assert "memory at the peak" in said.err and "is not what all experts began from" in said.err  # it is not
    loaded = am.TaskVectors.from_state_dicts(
        st.load("base.safetensors"), {name: st.load(f"{name}.safetensors") for name in "ab"}
    )
    assert_equal(st.load("m.safetensors"), am.merge("ties", loaded, keep=0.5, reduction="mean").state_dict())


def test_dry_run_says_what_it_would_do_and_does_nothing(folder, capsys):
    before = contents(folder)
    assert main(merge("--dry-run", out="deep/m.safetensors")) == 0
    said = capsys.readouterr().out
    assert (
        "nothing was written" in said
        and "tensor by tensor" in said
        and "would write deep/m.safetensors, 100 bytes" in said
    )
    assert contents(folder) == before and not (folder / "deep").exists()
    (folder / "m.safetensors").write_text("mine")
    assert main(merge("--dry-run", "--force")) == 0
    assert "would replace m.safetensors" in capsys.readouterr().out
    assert (folder / "m.safetensors").read_text() == "mine"


def test_one_expert_and_a_warning(folder, capsys):
    shutil.copy("base.safetensors", "same.safetensors")
    assert main(merge(method="weight_averaging", experts=["same=same.safetensors"])) == 0
    said = capsys.readouterr()
    assert "of 1 expert: no hyper-parameters" in said.out and "nearest" not in said.out
    assert "warning: expert 'same' equals pretrained" in said.err


def test_a_text_model(folder, capsys):
    """Names as in a language model, half precision, an index buffer, and tied embeddings stored twice."""
    generator = torch.Generator().manual_seed(0)

    def model():
        draw = {"model.embed_tokens.weight": torch.randn(11, 6, generator=generator).bfloat16()}
        for n in range(2):
            for name, shape in (("self_attn.q_proj", (6, 6)), ("mlp.up_proj", (8, 6)), ("mlp.down_proj", (6, 8))):
                draw[f"model.layers.{n}.{name}.weight"] = torch.randn(shape, generator=generator).bfloat16()
            draw[f"model.layers.{n}.input_layernorm.weight"] = torch.ones(6).bfloat16()
        return draw | {"lm_head.weight": draw["model.embed_tokens.weight"], "position_ids": torch.arange(4)}

    for name in ("base", "a", "b"):
        st.save(f"{name}.safetensors", model())
    for method in am.methods().index:
        row = registry.find(method)
        if row.takes == "task_vectors":
            out = f"{method}" + ("" if row.task_id else ".safetensors")
            assert main(merge(method=method, out=out)) == 0, capsys.readouterr().err
            for name in ("a", "b"):
                merged = st.load(f"{out}/{name}.safetensors" if row.task_id else out)
                assert merged.keys() == model().keys() and merged["lm_head.weight"].dtype == torch.bfloat16
                assert torch.equal(merged["position_ids"], torch.arange(4))


def test_mistakes_in_the_call(folder, capsys):
    refused(folder, capsys, merge(method="teis"), "method 'teis' is unknown: did you mean 'ties'?")
    refused(folder, capsys, merge("--set", "kep=0.2"), "no parameter 'kep'. Did you mean 'keep'?", "keep: float = 0.2")
    refused(folder, capsys, merge("--set", "keep=much"), "keep='much' should be of type float")
    refused(folder, capsys, merge("--set", "keep=20"), "keep=20 is not a share in (0, 1]: 20 % is 0.2")
    refused(folder, capsys, merge("--set", "keep"), "'keep' should read name=value")
    refused(folder, capsys, merge("--set", "reduction=median"), "reduction 'median' is unknown")
    refused(
        folder, capsys, merge(experts=["a.safetensors"]), "should read name=file", "--expert mnist=mnist.safetensors"
    )
    refused(folder, capsys, merge(experts=["a=a.safetensors", "a=b.safetensors"]), "two experts are named 'a'")
    refused(folder, capsys, merge(experts=["a=a.safetensors", "b=a.safetensors"]), "are the same file", "give it once")
    refused(folder, capsys, merge(experts=["a=none.safetensors"]), "no checkpoint at none.safetensors: check the path")
    refused(folder, capsys, merge(out="m.bin"), "output m.bin should be a file *.safetensors")
    refused(folder, capsys, ["merge", "--method", "ties"], "adamerging merge: Missing option '--pretrained'")
    refused(folder, capsys, ["mrege"], "No such command 'mrege'", "'merge'")


def test_a_method_that_needs_images(folder, capsys):
    told = "am.run_method('layer_wise_adamerging', suite)", "notebooks/performance.ipynb", "unlabelled test images"
    refused(folder, capsys, merge(method="layer_wise_adamerging"), *told)


def test_broken_files(folder, capsys):
    whole = (folder / "a.safetensors").read_bytes()
    (folder / "a.safetensors").write_bytes(whole[:-10])
    refused(folder, capsys, merge(), "a.safetensors is not a readable safetensors file", "cut short: fetch it again")
    state = {key: t.clone() for key, t in st.load("base.safetensors").items()}
    state["scale"].fill_(float("nan"))
    st.save("a.safetensors", state)
    refused(folder, capsys, merge(), "'scale' of 'a' holds NaN or Inf: the checkpoint is broken, save it again")
    st.save("a.safetensors", {"other.weight": torch.zeros(2)})
    refused(
        folder, capsys, merge(), "expert 'a' and pretrained have different keys: missing", "unexpected other.weight"
    )
    torch.save(state, "a.pt")
    mend = "adamerging convert --kind state_dict a.pt a.safetensors"
    refused(folder, capsys, merge(experts=["a=a.pt"]), "a.pt is a pickle", mend)


def test_outputs_in_the_way(folder, capsys):
    (folder / "m.safetensors").write_text("mine")
    refused(folder, capsys, merge(), "m.safetensors exists", "--force")
    refused(folder, capsys, merge("--force", out="./b.safetensors"), "is the file of expert 'b' and is never replaced")
    refused(folder, capsys, merge("--force", out="base.safetensors"), "is the file of pretrained and is never replaced")
    assert main(merge("--force")) == 0
    assert st.load_metadata("m.safetensors")["method"] == "ties"


def test_a_full_disk(folder, capsys, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    refused(folder, capsys, merge(), "the disk has 0.00 GB: make room first")
    monkeypatch.undo()
    monkeypatch.chdir(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)  # filled up by others while it ran
    refused(folder, capsys, merge(), "No space left on device")


def test_interruption_leaves_nothing(folder, capsys, monkeypatch):
    before = contents(folder)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    assert main(merge()) == 130
    assert "nothing was written" in capsys.readouterr().err and contents(folder) == before


def test_methods_are_listed_and_described(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(am.methods().index)
    assert main(["methods", "--needs", "nothing"]) == 0
    table = am.methods()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(table.index[table["needs"] == "nothing"])
    for id in table.index:
        assert main(["methods", id]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{id}: ") and "Arguments:" in said
        for name in registry.hyper_parameters(registry.find(id)):
            assert f"  {name}: " in said
    assert main(["methods", "tis"]) == 2
    assert "did you mean 'ties'?" in capsys.readouterr().err


def test_inspect_shows_and_checks(folder, capsys):
    assert main(merge()) == 0
    capsys.readouterr()
    assert main(["inspect", "m.safetensors", "--tensors"]) == 0
    said = capsys.readouterr().out
    for words in ("5 tensors, 22 numbers, 100 bytes", "method: ties", "conv1.weight", "all numbers are finite"):
        assert words in said
    st.save("nan.safetensors", {"a": torch.tensor([float("nan")]), "b": torch.zeros(1)})
    refused(folder, capsys, ["inspect", "nan.safetensors"], "NaN or Inf in a: the checkpoint is broken")
    refused(folder, capsys, ["inspect", "none"], "no checkpoint at none")


def test_choices_are_checked_with_the_nearest(folder, capsys):
    refused(folder, capsys, ["methods", "--needs", "labls"], "--needs 'labls' is unknown", "'labels'")
    refused(folder, capsys, ["fetch", "--profile", "clip-b23"], "profile 'clip-b23' is unknown", "'clip-b32'")
    refused(folder, capsys, ["fetch", "--profile", "mini"], "profile 'mini' takes nothing from the hub", "clip-l14")
    refused(folder, capsys, ["fetch", "--profile", "clip-b32", "--only", "model"], "--only 'model'", "models, datasets")
    refused(folder, capsys, ["zoo", "--profile", "tini"], "profile 'tini' has no zoo", "'tiny'")
    refused(folder, capsys, ["zoo", "--profile", "tiny", "--models", "mnits"], "no model 'mnits'", "'mnist'")
    refused(folder, capsys, ["zoo", "--profile", "mini", "--models", "digits"], "--models is for tiny profiles")
    refused(folder, capsys, ["zoo", "--profile", "tiny", "--install"], "--install is for the profiles mini and")
    refused(folder, capsys, ["zoo", "--profile", "mini-text", "--bfloat16"], "--bfloat16 is for tiny profiles")
    refused(folder, capsys, ["zoo", "--profile", "mini-text", "--workers", "2"], "--workers is for the profile mini,")
    refused(folder, capsys, ["zoo", "--profile", "mini", "--workers", "two"], "'--workers'", "two")
    adapt = ["adapt", "--profile", "mini", "--out", "m.safetensors"]
    refused(folder, capsys, [*adapt, "--method", "ties"], "method 'ties' shares no steps", "layer_wise_adamerging")


@pytest.mark.parametrize(("text", "told"), [('{"steps"', "is not JSON ("), ("3", "is not a JSON object")])
def test_parameters_have_to_be_an_object(text, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["execute", "performance", "out.ipynb", "--results", "out", "--parameters", text]
    assert rerun.main(words) == 2
    assert f"'--parameters': {text!r} {told}" in capsys.readouterr().err and not contents(tmp_path)


def test_the_studys_commands_end_alike(capsys):
    for run, words, name in (
        (rerun, ["parameters", "perfromance"], "'performance'"),
        (rerun, ["add", "performance", "../evil", "steps=3"], "'../evil'"),
        (build, ["check-offline", "nowhere"], "nowhere"),
        (build, ["stgae", "x"], "'stgae'"),
    ):
        assert run.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith(run.PROGRAM) and name in error and "Traceback" not in error
    assert rerun.main(["parameters", "similarity"]) == 0
    assert "  profile: str = 'mini'" in capsys.readouterr().out


COMMANDS = [
    pytest.param(f"{program} {command.name}", command, id=f"{program.split()[-1]} {command.name}")
    for program, app in (
        ("adamerging", cli.app),
        (rerun.PROGRAM, rerun.app),
        (build.PROGRAM, build.app),
    )
    for command in get_command(app).commands.values()
]
COMMANDS.append(pytest.param(drawing.PROGRAM, get_command(drawing.app), id="pictures"))


@pytest.mark.parametrize(("start", "command"), COMMANDS)
def test_every_help_has_examples_that_the_command_takes(start, command):
    lines = (command.epilog + "\n").replace("\\\n", " ").splitlines()
    examples = [line.partition(f"{start} ")[2] for line in lines if f"{start} " in f"{line} "]
    assert examples
    for example in examples:
        command.make_context(start, shlex.split(example))  # TyperException where it does not take them


@pytest.mark.parametrize("command", [[], *([c.name] for c in get_command(cli.app).commands.values())], ids=str)
def test_help_is_quick_and_names_its_choices(command, capsys):
    """It waits for nothing that takes a second to load; what is checked by the library is listed all the same."""
    heavy = "torch", "numpy", "pandas", "scipy", "huggingface_hub"
    code = f"import sys; from adamerging_lib import cli; assert cli.main({[*command, '--help']!r}) == 0; "
    code += f"assert not [name for name in {heavy} if name in sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert main([*command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for choice in {"convert": KINDS, "methods": registry.NEEDS}.get("".join(command), ()):
        assert choice in said


def test_the_name_of_a_function_is_not_taken_by_the_package_of_that_name():
    code = "import adamerging_lib.methods.registry, adamerging_lib.published, adamerging_lib.files.merge; "
    code += "import adamerging_lib as am; assert all(map(callable, (am.methods, am.published, am.merge_files)))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(am.__all__) <= set(dir(am)) and all(hasattr(am, name) for name in am.__all__)
    with pytest.raises(AttributeError, match="mrege"):
        am.mrege  # noqa: B018


def test_it_is_installed_as_a_command():
    """Through a process of its own: exit code, and help that names the parts."""
    run = [sys.executable, "-m", "adamerging_lib.cli"]
    shown = subprocess.run([*run, "merge", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "--dry-run" in shown.stdout and "Example:" in shown.stdout
    wrong = subprocess.run([*run, "methods", "tis"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("adamerging methods: ") and not wrong.stdout
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["adamerging"].partition(":")
    assert getattr(sys.modules[module], name) is main
