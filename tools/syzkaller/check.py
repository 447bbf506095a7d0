#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Compares dev_hmm_ref.txt with include/uapi/hmm_ref.h: commands, and each struct's
members by name, order and width. Prints what differs; exit 1 then."""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HEADER = os.path.join(HERE, "../../include/uapi/hmm_ref.h")
TEXT = os.path.join(HERE, "dev_hmm_ref.txt")

C_WIDTHS = {"__u8": 1, "__u32": 4, "__aligned_u64": 8, "__u64": 8}
WIDTHS = {"int8": 1, "int16": 2, "int32": 4, "int64": 8}
# One struct of the header may be described once for each direction.
VARIANTS = {"hmm_ref_access": ["hmm_ref_access_out", "hmm_ref_access_in"]}


def c_structs(text):
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = {}
    for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, flags=re.S):
        members = re.findall(r"(\w+)\s+(\w+);", body)
        found[name] = [(member, C_WIDTHS[kind]) for kind, member in members]
    return found


def width_of(kind):
    if re.match(r"(vma64|ptr64)\b", kind):
        return 8
    return WIDTHS[re.findall(r"int(?:8|16|32|64)", kind.replace("bool", "int"))[-1]]


def described_structs(text):
    found = {}
    for name, body in re.findall(r"^(\w+) \{\n(.*?)^\}", text, flags=re.S | re.M):
        lines = [line.split(None, 1) for line in body.strip().splitlines()]
        found[name] = [(member, width_of(kind)) for member, kind in lines]
    return found


def main():
    with open(HEADER) as file:
        header = file.read()
    with open(TEXT) as file:
        text = file.read()
    problems = []
    want, have = c_structs(header), described_structs(text)
    for name, members in want.items():
        for described in VARIANTS.get(name, [name]):
            if have.get(described) != members:
                problems.append(f"{described}: {have.get(described)}, not {members}")
    commands = set(re.findall(r"#define (HMM_REF_IOC_\w+)\s+_IO\(", header))
    described = set(re.findall(r"^ioctl\$(HMM_REF_IOC_\w+)\(.*const\[\1\]", text, flags=re.M))
    if commands != described:
        problems.append(f"commands: {sorted(commands ^ described)}")
    old = [int(n, 16) for n in re.findall(r"^ioctl\$HMM_DMIRROR.*const\[(0x\w+)\]", text, flags=re.M)]
    if old != [0xC0284800 + n for n in range(10)]:
        problems.append("the commands of the old interface are not 0 to 9")
    for enum in ("HMM_REF_TO_", "HMM_REF_ATOMIC_"):
        names = set(re.findall(rf"^\t({enum}\w+) = ", header, flags=re.M))
        if not names or not names <= set(re.findall(r"\w+", text)):
            problems.append(f"{enum}*: not all of {sorted(names)}")
    print("\n".join(problems) or f"{len(want)} structs and {len(commands) + len(old)} commands agree")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
