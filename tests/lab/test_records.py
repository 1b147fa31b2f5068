"""What a row says of its job."""

from prototokens.lab.job import Job, ModelFacts
from prototokens.lab.records import describe


def test_a_row_names_a_model_without_the_folders_it_lay_in(tmp_path):
    (tmp_path / "mine").mkdir()
    names = (
        "builtin",
        "EleutherAI/pythia-160m",
        f"{tmp_path}/mine",
        f"random:{tmp_path}/mine",
        "random:builtin",
    )
    models = [ModelFacts(name, None, "f" * 64, "t" * 64, "float32", 8, 40, 16) for name in names]
    names = [describe(Job("length", model))["model"] for model in models]
    assert names == ["builtin", "EleutherAI/pythia-160m", "mine", "random:mine", "random:builtin"]
