"""The types of ``client.js``: they fit what it does, and a strict program that uses it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from proxy.web import asset
from tests.web.conftest import NODE, run_node

WEB = Path(__file__).parents[2] / "proxy" / "web"
TSC = NODE / "node_modules" / "typescript" / "bin" / "tsc"
TARGET = (
    *("--noEmit", "--skipLibCheck"),
    *("--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"),
)

#: Two lines that can only be compiled where what the module does is what its types say.
FITS = """\
import * as implementation from "./implementation.js";
import * as declared from "./client.js";
export const checked: typeof declared = implementation;
"""


async def test_a_strict_program_compiles(node: Path, tmp_path: Path) -> None:
    """What the manual shows can be written in strict TypeScript; what makes no sense is refused."""
    shutil.copy(WEB / "client.d.ts", tmp_path)
    shutil.copy(NODE / "usage.ts", tmp_path)
    status, said = await run_node(node, TSC, *TARGET, "--strict", "usage.ts", cwd=tmp_path)
    assert status == 0, said


async def test_the_module_is_what_its_types_say(node: Path, tmp_path: Path) -> None:
    """The module itself is checked, and everything it exports has the declared type."""
    shutil.copy(WEB / "client.d.ts", tmp_path)
    shutil.copy(WEB / "client.js", tmp_path / "implementation.js")
    (tmp_path / "fits.ts").write_text(FITS)
    status, said = await run_node(
        node, TSC, *TARGET, "--strict", "false", "--allowJs", "--checkJs", "fits.ts", cwd=tmp_path
    )
    assert status == 0, said


def test_everything_exported_is_declared() -> None:
    """Both files name the same exports."""
    script, types = asset("client.js"), asset("client.d.ts")
    assert script is not None
    assert types is not None
    exported = re.compile(r"^export (?:async )?(?:function\*?|class) (\w+)", re.M)
    assert set(exported.findall(script.body.decode())) == set(exported.findall(types.body.decode()))
