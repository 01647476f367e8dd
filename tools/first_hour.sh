#!/usr/bin/env bash
# What a newcomer tries in the first hour, and what has to happen; ends at the first step that fails.
#   tools/first_hour.sh FOLDER_OF_THE_COMMANDS [--remove]
# --remove also checks the whole installation, then removes pvapy: for an environment of its own.
set -euo pipefail
bin=$(cd "$1" && pwd)
export PATH=$bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# expect CODE "TEXT" COMMAND …: the command ends with this exit code, and its output has the text.
expect() {
    local code=$1 text=$2 got=0
    shift 2
    echo "== $*"
    "$@" > out 2>&1 || got=$?
    if [ "$got" != "$code" ] || ! grep -qF -- "$text" out; then
        cat out
        echo "exit code $got, expected $code and: $text"
        exit 1
    fi
}

eval "$(pvapy-stream env)"
if [ "${2:-}" = --remove ]; then
    expect 0 "no problem found" pvapy-stream doctor
fi

expect 0 "wrote peaks.py" pvapy-stream new-processor peaks
expect 0 "Errors: 0" pvapy-stream try peaks.py:Peaks
printf '%s\n' "from pvapy_stream import FrameProcessor" "class Typo(FrameProcessor):" \
    "    def proces_frame(self, frame):" "        return frame" > typo.py
expect 1 "did you write proces_frame for process_frame?" pvapy-stream try typo.py:Typo

expect 0 "All is there." pvapy-stream demo --seconds 2 --rate 100
expect 1 "nothing was started" pvapy-stream demo --choose < /dev/null

printf '%s\n' "protocols:" "  - {label: cam, class: Simulator, input_file: none.h5}" > flow.yaml
expect 2 "none.h5 does not exist" pvapy-stream workflow check flow.yaml
expect 1 "not been found since" pvapy-stream save -ic first_hour:none -o none.h5 --runtime 8

for shell in bash zsh tcsh; do
    expect 0 "pvapy-stream" pvapy-stream completion "$shell"
    cp out "completion.$shell"
done
bash -n completion.bash

mkdir names
expect 0 "now runs this package" pvapy-stream link --folder names
grep -q pvapy_stream names/pvapy-hpc-consumer
expect 0 "now runs pvapy" pvapy-stream link --undo --folder names

if [ "${2:-}" = --remove ]; then
    expect 0 "" "$bin/python" -m pip uninstall --yes pvapy
    expect 1 "pip install pvapy" pvapy-stream doctor
    expect 1 "pvapy is not installed; install it with: pip install pvapy" pvapy-stream sim -rt 1
fi
echo "all steps passed"
