"""The pytest plugin as a user's test suite has it: a run of its own, with nothing of this suite's configuration."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pk11_tokens.softhsm import SoftHSM

from .conftest import Start


def run_suite(directory: Path, test: str, **environment: str) -> str:
    """What pytest says of a suite with this one file; its first line is the exit status."""
    (directory / "test_it.py").write_text(textwrap.dedent(test))
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(directory)]
    done = subprocess.run(
        [*command, "test_it.py"],
        cwd=directory,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_each_test_has_tokens_of_its_own(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(
        tmp_path,
        """
        import pytest
        modules = []

        @pytest.mark.parametrize("number", [1, 2])
        def test_removed(simulated_tokens, number):
            simulator = simulated_tokens([{"label": "card"}])
            assert simulator["card"].status().present
            simulator["card"].remove()
            assert simulator.module not in modules
            modules.append(simulator.module)
        """,
    )
    assert "2 passed" in said, said


def test_a_generator_or_a_file_is_a_description_too(simulated_tokens: Start, tmp_path: Path) -> None:
    assert simulated_tokens({"label": label} for label in ("a", "b")).tokens() == ["a", "b"]
    file = tmp_path / "card.toml"
    file.write_text("[[reader]]\n[reader.token]\nlabel = 'card'\n")
    assert simulated_tokens(file).tokens() == simulated_tokens(str(file)).tokens() == ["card"]


def test_a_server_that_dies_fails_the_test(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(
        tmp_path,
        """
        import os

        def test_it(simulated_tokens):
            simulator = simulated_tokens([{"label": "card"}])
            os.kill(simulator.pid, 9)
            simulator.wait()
        """,
    )
    assert said.startswith("1\n"), said
    assert "the token server ended by itself (status -9)" in said


def test_a_server_that_is_killed_on_purpose_does_not(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(tmp_path, "def test_it(simulated_tokens): simulated_tokens([{'label': 'card'}]).kill()")
    assert "1 passed" in said, said


def test_a_failure_inside_the_server_fails_the_test(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(
        tmp_path,
        """
        def test_it(simulated_tokens):
            simulator = simulated_tokens([{"label": "card"}])
            (simulator.directory / "complaints.log").write_text("Traceback (most recent call last)")
        """,
    )
    assert said.startswith("1\n"), said
    assert "the token server failed inside" in said


def test_softhsm_tokens(tmp_path: Path, softhsm: SoftHSM) -> None:
    said = run_suite(
        tmp_path,
        """
        import os

        def test_tokens(softhsm, softhsm_token):
            assert os.environ["SOFTHSM2_CONF"] == str(softhsm.config)
            first, second = softhsm_token("p256"), softhsm_token()
            assert first.label != second.label
            listing = softhsm.run("pkcs11-tool", "--module", softhsm.module_path, "--token-label", first.label, "-O")
            assert "EC_POINT" in listing

        def test_another(softhsm_token):
            assert softhsm_token(label="mine").label == "mine"
        """,
    )
    assert "2 passed" in said, said


def test_without_softhsm_its_tests_are_skipped(tmp_path: Path) -> None:
    said = run_suite(tmp_path, "def test_it(softhsm_token): pass\ndef test_other(): pass", PATH="/nowhere")
    assert "1 passed, 1 skipped" in said, said


def test_who_needs_no_tokens_does_not_pay_for_them(tmp_path: Path) -> None:
    """Neither the simulation nor cryptography is loaded, and SOFTHSM2_CONF is left alone."""
    said = run_suite(
        tmp_path,
        """
        import os, sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith(("pk11_tokens", "cryptography", "click"))}
            assert loaded == {"pk11_tokens", "pk11_tokens.plugin"}
            assert "SOFTHSM2_CONF" not in os.environ
        """,
    )
    assert "1 passed" in said, said


@pytest.fixture(autouse=True)
def without_softhsm_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process's SoftHSM reads is not theirs."""
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)


GATED = """
    import subprocess
    import pytest

    @pytest.mark.requires_mechanisms("CKM_RC4", "CKM_RSA_PKCS", key=[{"label": "www", "kind": "rsa2048"}])
    def test_gated(gated_token):
        command = ["pkcs11-tool", "--module", gated_token.module, "--list-mechanisms"]
        offered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print("run", gated_token, gated_token.complete)
        assert ("RC4" in offered) == (gated_token.missing != "CKM_RC4")
        assert ("RSA-PKCS" in offered) == (gated_token.missing != "CKM_RSA_PKCS")
        assert "AES" not in offered
    """


def test_a_marked_test_runs_with_all_mechanisms_and_without_each(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(tmp_path, GATED, PYTEST_ADDOPTS="-vv --strict-markers")
    assert "3 passed" in said, said
    assert [f"test_gated[{run}]" in said for run in ("all", "without CKM_RC4", "without CKM_RSA_PKCS")] == [True] * 3


@pytest.mark.parametrize(
    "line", ['@pytest.mark.requires_mechanisms("CKM_RC4")\n    def test_it(): pass', "def test_it(gated_token): pass"]
)
def test_the_marker_and_its_fixture_go_together(tmp_path: Path, temporary_directory: str, line: str) -> None:
    said = run_suite(tmp_path, f"    import pytest\n\n    {line}\n")
    assert "test_it: requires_mechanisms(name, …) and the fixture gated_token go together" in said, said
    assert not said.startswith("0\n")


def test_a_mechanism_that_is_not_known(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(tmp_path, GATED.replace("CKM_RC4", "CKM_RC44"))
    assert "CKM_RC44 is no mechanism known here" in said, said


def test_mechanisms_are_taken_and_given_back_in_mid_life(tmp_path: Path, temporary_directory: str) -> None:
    said = run_suite(
        tmp_path,
        """
        import pytest

        @pytest.mark.requires_mechanisms("CKM_RC4", "CKM_MD5_HMAC")
        def test_it(gated_token):
            with pytest.raises(ValueError, match="CKM_AES_CBC is not required: CKM_RC4, CKM_MD5_HMAC"):
                gated_token.take("CKM_AES_CBC")
            gated_token.remove()
            gated_token.take("CKM_RC4")
            assert (gated_token.missing, gated_token.token.mechanisms()) == ("CKM_RC4", ("CKM_MD5_HMAC",))
            gated_token.remove()
            gated_token.give_back()
            assert gated_token.complete
            assert gated_token.token.mechanisms() == gated_token.required == ("CKM_RC4", "CKM_MD5_HMAC")
            assert gated_token.token.status().present
        """,
    )
    assert "3 passed" in said, said
