"""A CUDA runtime that only pretends: ONNX Runtime's real CUDA provider opens sessions over it, without a GPU.

The provider places nodes, judges its options and binds tensors before anything runs; that is real. A kernel does
nothing, and cuDNN computes nothing, so that no session can be run. ``cudart.c`` answers what has to be answered; for
every other function that the provider needs, one that says "success" is generated from the provider's own symbols.
"""

import mmap
import re
import subprocess
from pathlib import Path

LIBRARIES = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10")
CUDART = Path(__file__).with_name("cudart.c")
TEXTS = ("ErrorString", "StatusString", "StatusName", "ErrorName")
NUMBERS = {"cudnnGetVersion": 92000, "cudnnGetCudartVersion": 13020}
DRIVER = {"cuInit": None, "cuDeviceGetCount": 1, "cuDriverGetVersion": 13020}  # showface asks it before the provider


def needed(provider):
    """Return the functions that a provider takes from each CUDA library, by the library's name."""
    said = subprocess.run(["nm", "-D", "--undefined-only", provider], capture_output=True, text=True, check=True).stdout
    names = {library: set() for library in LIBRARIES}
    for name, _, library in (line.split()[-1].partition("@") for line in said.splitlines()):
        names.get(library.lstrip("@"), set()).add(name)
    names["libcuda.so.1"] = set(re.findall(r"\b(cu[A-Z]\w*)$", said, re.M)) | set(DRIVER)
    return names


def looked_up(provider):
    """Return the functions of cuDNN that a provider looks up by name when it needs them."""
    with provider.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", data)}


def stub(name):
    """Return a function that says "success", and gives a handle or a text where one is asked for."""
    if name in NUMBERS:
        return f"unsigned long {name}(void) {{ return {NUMBERS[name]}; }}"
    if DRIVER.get(name) is not None:
        return f"int {name}(int *p) {{ *p = {DRIVER[name]}; return 0; }}"
    if name.endswith(TEXTS):
        return f'const char *{name}(int e) {{ return "pretended"; }}'
    if re.search(r"Create(_v2|\w*Descriptor)?$", name):
        return f"int {name}(void **p) {{ *p = (void *)0x77; return 0; }}"
    return f"int {name}(void) {{ return 0; }}"


def build(provider, folder):
    """Compile the libraries of a CUDA provider into a folder, which ``LD_LIBRARY_PATH`` then has to name."""
    functions = {**needed(provider), "libcudnn.so.9": looked_up(provider)}
    for library, names in functions.items():
        written = CUDART.read_text() if library == LIBRARIES[0] else ""
        answered = set(re.findall(r"\b(\w+)\([^()]*\) \{|HANDLE\((\w+)\)", written))
        defined = {name for pair in answered for name in pair}
        text = "\n".join([written, *(stub(name) for name in sorted(names - defined)), ""])
        versions = f"{library} {{ *; }};" if library in LIBRARIES else "{ global: *; };"
        (folder / "source.c").write_text(text)
        (folder / "versions").write_text(versions)
        command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}", "-Wl,--version-script=versions"]
        subprocess.run([*command, "-o", library, "source.c"], cwd=folder, check=True)
    return folder
