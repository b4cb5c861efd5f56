"""`sparklet-udf build functions.py -o functions.wasm`: one file of functions into one component."""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def wit():
    """The folder of the world: within the installed package, or beside it in the repository."""
    inside = HERE / "wit"
    return inside if inside.is_dir() else HERE.parent.parent / "wit"


def describe(source):
    """The JSON that lists the functions of the file: what the component's `describe` gives."""
    from ._functions import FUNCTIONS

    sys.path.insert(0, str(source.parent))
    importlib.import_module(source.stem)
    if not FUNCTIONS:
        sys.exit(f"{source.name} declares no function: decorate one with @scalar, @aggregate or @table")
    return json.dumps({"abi": "1.0", "functions": [function.describe() for function in FUNCTIONS]})


def section(name, data):
    """A custom section, by which sparklet lists the functions without running the component."""

    def sized(data):
        size, out = len(data), bytearray()
        while size > 127:
            out.append(size & 127 | 128)
            size >>= 7
        return bytes(out) + bytes([size]) + data

    return b"\0" + sized(sized(name) + data)


def build(source, output):
    source, output = Path(source).resolve(), Path(output).resolve()
    tool = shutil.which("componentize-py", path=str(Path(sys.executable).parent)) or shutil.which("componentize-py")
    if tool is None:
        sys.exit("componentize-py is not installed: pip install 'componentize-py==0.25.*'")
    if not source.stem.isidentifier():
        sys.exit(f"{source.name} cannot be imported: its name must be letters, digits and _")
    description = describe(source)
    with tempfile.TemporaryDirectory() as folder:
        app = f"import {source.stem}\nfrom sparklet_udf._world import WitWorld\n"
        (Path(folder) / "sparklet_app.py").write_text(app)
        command = [tool, "-d", str(wit()), "-w", "udf", "componentize", "--stub-wasi", "sparklet_app"]
        command += ["-p", folder, "-p", str(source.parent), "-p", str(HERE.parent), "-o", str(output)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\ncannot build {source.name}")
    with output.open("ab") as file:
        file.write(section(b"sparklet.udf", description.encode()))
    print(f"{output.name}: {output.stat().st_size / 1e6:.1f} MB")


def main():
    parser = argparse.ArgumentParser(prog="sparklet-udf", description="Functions for sparklet in Python")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="build a file of functions into a component")
    command.add_argument("source", help="the file, e.g. functions.py")
    command.add_argument("-o", "--output", help="the component; the name of the file with .wasm unless given")
    arguments = parser.parse_args()
    build(arguments.source, arguments.output or Path(arguments.source).with_suffix(".wasm"))


if __name__ == "__main__":
    main()
